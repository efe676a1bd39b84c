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

Exit codes: 0 all is well, 1 it ran and found faults, 2 it could not run, 130, 143 or 129 where
Ctrl-C, SIGTERM or SIGHUP stopped the command."
)]
pub struct Cli {
    /// How much to say.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `pfc-ingest`. What each does is said where its arguments are: a sentence here would take the
/// place of all of it in `--help`.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "a doc comment of a variant replaces that of its arguments")]
pub enum Command {
    Synth(SynthArgs),
    /// Pack face crops, from folders, lists or other formats, into a data set.
    #[command(long_about = help::ABOUT)]
    Pack(Box<PackArgs>),
    Detect(Box<DetectArgs>),
    Align(AlignArgs),
    Merge(MergeArgs),
    Quality(Box<QualityArgs>),
    Clean(CleanArgs),
    Decisions(DecisionsArgs),
    Review(ReviewArgs),
    Report(ReportArgs),
    Compact(CompactArgs),
    Verify(VerifyArgs),
    Inspect(InspectArgs),
    Show(ShowArgs),
    Bench(BenchArgs),
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

    #[test]
    fn the_help_of_a_command_is_all_that_is_said_of_its_arguments() {
        for (name, said) in [
            ("clean", "`decisions undo` takes them back"),
            ("quality", "A measure that is not known of a face is NaN"),
            ("align", "lines that cannot be understood are left out"),
            ("compact", "the others keep their order and their bytes"),
            ("pack", "RAW is one of"),
        ] {
            let program = Cli::command();
            let command = program.find_subcommand(name).expect("there is such a command");
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            let words: Vec<&str> = about.split_whitespace().collect();
            assert!(words.join(" ").contains(said), "{name}: {about}");
        }
    }
}
