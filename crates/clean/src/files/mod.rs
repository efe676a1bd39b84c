//! Passes that look at the images themselves. Each image is decoded once, to compute its [`Signature`].

mod bands;
mod exact;
mod flags;
mod near;
mod perceptual;
mod signature;

pub use bands::{Counts, Entry, groups};
pub use exact::exact;
pub use flags::{Flag, FlagOptions, flags};
pub use near::{NearOptions, near};
pub use signature::{Signature, THUMBNAIL_SIDE, detail, signatures};
