//! `pfc-train bench`: how fast the parts of training are on this machine.

mod head;
mod machine;
mod names;
mod roof;

use pfc_cli::Outcome;

pub(crate) use head::Count;
pub(crate) use roof::Roof;

/// What is timed.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Time the head on random embeddings: milliseconds a step by phase, memory, disk
    #[command(after_help = head::EXAMPLES)]
    Head(Box<head::HeadArgs>),
    /// Measure what a device can do at most: memory, products, convolutions, copies, exchanges
    #[command(after_help = roof::EXAMPLES)]
    Roof(roof::RoofArgs),
}

/// Runs one benchmark and prints its result.
///
/// # Errors
///
/// What went wrong, for [`pfc_cli::exit`].
pub fn run(command: &BenchCommand, quiet: bool) -> anyhow::Result<Outcome> {
    match command {
        BenchCommand::Head(args) => head::run(args, quiet),
        BenchCommand::Roof(args) => roof::run(args),
    }
}
