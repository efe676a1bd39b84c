//! The command line.

use clap::{Parser, Subcommand};
use pfc_cli::{Verbosity, completions::CompletionsArgs};

use crate::{
    AlignArgs, BenchArgs, CleanArgs, CompactArgs, DecisionsArgs, DetectArgs, ExportArgs,
    InspectArgs, MergeArgs, PackArgs, QualityArgs, ReportArgs, ReviewArgs, ShowArgs, SynthArgs,
    VerifyArgs, pack::help,
};

/// Pack face crops into columnar shards, check them, and look at them.
///
/// A data set is a folder of Arrow files that pfc-train and pfc-eval read without copying. Results
/// go to standard output, progress and messages to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "pfc-ingest",
    version,
    propagate_version = true,
    after_help = "Examples:
  pfc-ingest synth faces --identities 100 --images-per-identity 20
  pfc-ingest pack faces data
  pfc-ingest detect photos faces --detector face_detection_yunet_2023mar.onnx
  pfc-ingest verify data
  pfc-ingest inspect data --json
  pfc-ingest show data --sample 40
  pfc-ingest quality data && pfc-ingest show data --lowest sharpness
  pfc-ingest clean data && pfc-ingest compact data data-clean
  pfc-ingest export data rec --to recordio

Exit codes: 0 all is well, 1 it ran and found faults, 2 it could not run."
)]
pub struct Cli {
    /// How much to say.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `pfc-ingest`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a folder of procedural faces to try things with.
    Synth(SynthArgs),
    /// Pack face crops, from folders, lists or other formats, into a data set.
    #[command(long_about = help::ABOUT)]
    Pack(Box<PackArgs>),
    /// Find the faces of photographs, by a detector, and cut them out.
    Detect(Box<DetectArgs>),
    /// Cut faces out of images by their landmarks.
    Align(AlignArgs),
    /// Join what several workers packed, or data sets with people in common.
    Merge(MergeArgs),
    /// Measure every face: sharpness, exposure, size, pose, norm of its embedding, a network's score.
    Quality(Box<QualityArgs>),
    /// Find duplicates, bad images, wrong labels and people with two labels.
    Clean(CleanArgs),
    /// List, show and take back what cleaning decided.
    Decisions(DecisionsArgs),
    /// Export uncertain findings for review, and import the answers.
    Review(ReviewArgs),
    /// Write a page about a data set and what cleaning found in it.
    Report(ReportArgs),
    /// Write a new data set with all decisions applied.
    Compact(CompactArgs),
    /// Check every byte of a data set.
    Verify(VerifyArgs),
    /// Show what a data set holds.
    Inspect(InspectArgs),
    /// Draw some faces of a data set on one sheet.
    Show(ShowArgs),
    /// Measure how fast a data set is read on this machine.
    Bench(BenchArgs),
    /// Write a data set in a format of other tools.
    Export(ExportArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:
  pfc-ingest completions bash > ~/.local/share/bash-completion/completions/pfc-ingest
  pfc-ingest completions fish > ~/.config/fish/completions/pfc-ingest.fish")]
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }
}
