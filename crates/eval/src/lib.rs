//! The judge: benchmark layouts in, figures out.
//!
//! The trainer uses [`verification`]; the program is [`run`].

mod cli;
pub mod commands;
mod document;
mod error;
pub mod faces;
pub mod ijb;
pub mod images;
pub mod megaface;
pub mod nn;
pub mod pairs;
pub mod protocols;
mod rates;
pub mod report;
pub mod verification;
pub mod worst;

pub use cli::{Cli, HINTS, run};
pub use error::EvalError;
/// `InsightFace`'s verification packs.
pub use pfc_binpack as pack;
