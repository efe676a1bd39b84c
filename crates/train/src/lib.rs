//! The trainer: shards in, checkpoints and figures out.
//!
//! [`run::train`] is the loop and [`step::Trainer::step`] the arithmetic; the rest serves them.

mod checkpoint;
mod cli;
mod commands;
pub mod config;
pub mod data;
mod error;
pub mod log;
pub mod optim;
pub mod ranks;
pub mod recipes;
pub mod run;
mod run_folder;
pub mod step;

pub use cli::{Cli, HINTS, run};
pub use error::{BadWeights, DamagedAt, LoadError, TrainError};
