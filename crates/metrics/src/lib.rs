//! The figures of face recognition: numbers in, numbers out. No files, no tensors.

pub mod bootstrap;
mod error;
pub mod roc;
pub mod verification;

pub use error::MetricError;
