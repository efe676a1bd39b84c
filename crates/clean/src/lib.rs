//! Finds what is wrong in a data set of faces: it takes a data set and its embeddings, and returns findings.
//!
//! [`Work`] is what all passes see, the data set and what was decided so far. [`files`] holds the
//! passes that look at images, [`identities`] those that compare embeddings, [`counts`] those that
//! count. Each returns decisions and changes nothing; whoever calls them applies what they found
//! before the next. This crate knows no command line and writes no file.

pub mod counts;
mod error;
pub mod files;
pub mod identities;
mod work;

pub use error::CleanError;
pub use work::{Groups, Work};
