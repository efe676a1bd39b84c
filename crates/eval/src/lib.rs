//! The judge: benchmark layouts in, figures out.
//!
//! The program is [`run`]. Pairs are read and judged by [`pfc_verify`], which the trainer uses as well.

pub mod benchmarks;
mod cli;
pub mod commands;
mod document;
mod error;
pub mod ijb;
pub mod images;
pub mod megaface;
pub mod nn;
pub mod protocols;
mod rates;
pub mod report;
mod require;
pub mod worst;

pub use cli::{Cli, HINTS, run};
pub use error::EvalError;
/// `InsightFace`'s verification packs.
pub use pfc_binpack as pack;
/// Faces in memory, files read whole, and lists of pairs.
pub use pfc_verify::{faces, files, pairs};
