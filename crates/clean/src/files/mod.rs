//! Passes that look at the images themselves.

mod duplicates;
mod flags;
mod perceptual;
mod signature;

pub use duplicates::{NearOptions, exact, near};
pub use flags::{Flag, FlagOptions, flags};
pub use signature::{Signature, signatures};
