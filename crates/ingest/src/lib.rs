//! `pfc-ingest`: packs face crops with identities into columnar shards, and works on such data sets.
//!
//! [`run`] is the whole program, for tests and for other programs of the project.

mod align;
mod bench;
mod clean;
mod cli;
mod compact;
mod crops;
mod decisions;
mod detect;
mod error;
mod export;
mod inspect;
mod lineage;
mod loss;
mod measures;
mod merge;
mod output;
mod pack;
mod people;
mod pictures;
mod quality;
mod reading;
mod reject;
mod report;
mod review;
mod show;
mod synth;
mod threads;
mod vectors;
mod verify;

use std::process::ExitCode;

use pfc_cli::{HintFinder, Outcome, hint_of, interrupt};
use pfc_durable::{DurableError, FolderError};
use pfc_findings::FindingsError;
use pfc_shard::ShardError;
use pfc_sources::SourceError;
use pfc_synth::SynthError;

pub use align::AlignArgs;
pub use bench::BenchArgs;
pub use clean::CleanArgs;
pub use cli::{Cli, Command};
pub use compact::CompactArgs;
pub use decisions::DecisionsArgs;
pub use detect::DetectArgs;
pub use error::{ExportError, IngestError, PackError};
pub use export::ExportArgs;
pub use inspect::InspectArgs;
pub use merge::MergeArgs;
pub use pack::PackArgs;
pub use quality::{QualityArgs, QualityBound};
pub use reject::Reject;
pub use report::ReportArgs;
pub use review::ReviewArgs;
pub use show::ShowArgs;
pub use synth::SynthArgs;
pub use verify::VerifyArgs;

/// Name and version of this program, for what it writes.
pub(crate) const TOOL: &str = concat!("pfc-ingest ", env!("CARGO_PKG_VERSION"));

/// The functions that find the hint for an error.
pub const HINTS: &[HintFinder] = &[
    |e| hint_of::<IngestError>(e, IngestError::hint),
    |e| hint_of::<FindingsError>(e, FindingsError::hint),
    |e| hint_of::<ShardError>(e, ShardError::hint),
    |e| hint_of::<SourceError>(e, SourceError::hint),
    |e| hint_of::<SynthError>(e, SynthError::hint),
    |e| hint_of::<FolderError>(e, FolderError::hint),
    |e| hint_of::<DurableError>(e, DurableError::hint),
    |error| hint_of::<std::io::Error>(error, |error| pfc_durable::limit(error).map(str::to_owned)),
];

/// The program: reads the command line, runs, prints any error, and gives the exit code.
pub fn main() -> ExitCode {
    pfc_cli::program(|cli: &Cli| cli.verbosity, run, HINTS)
}

/// Runs one command; prints its result to standard output.
///
/// # Errors
///
/// Whatever kept the command from running, with context. Faults that it was asked to look for are
/// [`Outcome::Findings`] instead.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let quiet = cli.verbosity.is_quiet();
    let on_all_cores = |run: &(dyn Fn() -> anyhow::Result<Outcome> + Sync)| {
        threads::Threads::default().pool()?.install(run)
    };
    if matches!(cli.command, Command::Verify(_) | Command::Inspect(_)) {
        interrupt::end_at_once();
    }
    match cli.command {
        Command::Synth(args) => synth::run(&args, quiet),
        Command::Pack(args) => pack::run(&args, quiet),
        Command::Detect(args) => detect::run(&args, quiet),
        Command::Align(args) => align::run(&args, quiet),
        Command::Merge(args) => merge::run(&args, quiet),
        Command::Quality(args) => quality::run(&args, quiet),
        Command::Verify(args) => verify::run(&args, quiet),
        Command::Inspect(args) => on_all_cores(&|| inspect::run(&args)),
        Command::Clean(args) => clean::run(&args, quiet),
        Command::Decisions(args) => on_all_cores(&|| decisions::run(&args)),
        Command::Compact(args) => on_all_cores(&|| compact::run(&args, quiet)),
        Command::Report(args) => on_all_cores(&|| report::run(&args)),
        Command::Review(args) => on_all_cores(&|| review::run(&args)),
        Command::Show(args) => on_all_cores(&|| show::run(&args)),
        Command::Bench(args) => bench::run(&args, quiet),
        Command::Export(args) => export::run(&args, quiet),
        Command::Completions(args) => {
            args.print::<Cli>()?;
            Ok(Outcome::Clean)
        }
    }
}
