//! The trainer: shards in, checkpoints and figures out.
//!
//! [`train::train`] is the loop and [`step::Trainer::step`] the arithmetic; the rest serves them.

pub mod average;
pub mod bench;
pub mod capacity;
mod centres;
pub mod checkpoint;
pub mod cli;
pub mod config;
mod error;
pub mod export_command;
pub mod gradients;
pub mod init;
pub mod launch;
pub mod loader;
pub mod loss_scale;
pub mod metrics;
pub mod model_command;
pub mod optimizer;
pub mod plan;
pub mod ranks;
pub mod report;
mod room;
pub mod run_folder;
pub mod schedule;
pub mod source;
pub mod step;
pub mod summary;
pub mod tally;
pub mod tensorboard;
pub mod train;
pub mod verify;

pub use cli::{Cli, HINTS, run};
pub use error::TrainError;
