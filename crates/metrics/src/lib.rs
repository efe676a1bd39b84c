//! The figures of face recognition: numbers in, numbers out. No files, no tensors.

pub mod bootstrap;
mod cmc;
mod dot;
mod error;
pub mod ijb;
#[cfg(test)]
mod made_up;
pub mod megaface;
pub mod near;
pub mod nn;
mod product;
pub mod quality;
pub mod roc;
mod rows;
pub mod scores;
mod sort;
mod spread;
pub mod union;
pub mod verification;

use cmc::cmc;
pub use error::MetricError;
pub use rows::Rows;
pub use spread::FaceSample;
