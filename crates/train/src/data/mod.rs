//! From a data set to the batches of every step.

pub mod draw;
pub mod loader;
pub mod plan;
pub mod source;
