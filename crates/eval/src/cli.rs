//! The command line.

use clap::{Parser, Subcommand};
use pfc_cli::{HintFinder, Outcome, Verbosity, completions::CompletionsArgs, hint_of};
use pfc_model::libtorch::guarded;

use crate::{
    EvalError,
    commands::{
        compare::{self, CompareArgs},
        embed::{self, EmbedArgs},
        ijb::{self, IjbbArgs, IjbcArgs},
        megaface::{self, MegaFaceArgs},
        nn::{self, NnArgs},
        pairs::{self, BinArgs, CfpArgs, SetArgs},
        report::{self, ReportArgs},
    },
    pairs::CfpSplit,
};

/// Judge face recognition models: published figures, stricter ones beside them, and error bars
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  pfc-eval lfw --model run.ckpt --data lfw.bin
  pfc-eval ijbc --model run.ckpt --data IJBC --cache ijbc-features
  pfc-eval compare a.jpg b.jpg --model run.ckpt

Exit codes: 0 the figures are there, 1 some images could not be used or a check failed, 2 there
are none, 130, 143 or 129 where Ctrl-C, SIGTERM or SIGHUP stopped the command."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge a model on LFW, or on any set in LFW's layout
    ///
    /// The data folder holds `NAME/NAME_0001.jpg`. The list is LFW's pairs.txt (ten folds: accuracy is
    /// the mean over folds, each evaluated by the threshold that is best on the other nine), or a single
    /// list such as pairsDevTest.txt (evaluated by its own best threshold). Embeddings of each face and
    /// of its mirror image are summed.
    #[command(after_help = "Examples:
  pfc-eval lfw --model run.ckpt --data lfw --pairs pairs.txt
  pfc-eval lfw --model run.ckpt --data lfw --pairs pairs.txt --plot roc.svg --json > run.json
  pfc-eval lfw --model run.ckpt --data lfw.bin
  pfc-eval lfw --model w600k_r50.onnx --data lfw.bin
  pfc-eval lfw --model r50.onnx --data lfw --pairs pairs.txt --detector yunet.onnx --face central")]
    Lfw(Box<SetArgs>),
    /// Judge a model on CFP, frontal faces against profiles
    #[command(after_help = "Examples:
  pfc-eval cfp-fp --model run.ckpt --data cfp-dataset
  pfc-eval cfp-fp --model run.ckpt --data cfp_fp.bin")]
    CfpFp(Box<CfpArgs>),
    /// Judge a model on CFP, frontal faces against frontal faces
    #[command(after_help = "Examples:
  pfc-eval cfp-ff --model run.ckpt --data cfp-dataset
  pfc-eval cfp-ff --model run.ckpt --data cfp_ff.bin")]
    CfpFf(Box<CfpArgs>),
    /// Judge a model on AgeDB-30: a pack, or a folder with `path path 0|1` lines
    #[command(after_help = "Examples:
  pfc-eval agedb --model run.ckpt --data agedb_30.bin
  pfc-eval agedb --model run.ckpt --data agedb --pairs agedb_30_pair.txt")]
    Agedb(Box<SetArgs>),
    /// Judge a model on Cross-Age LFW: a pack, or the aligned faces with `pairs_CALFW.txt`
    #[command(after_help = "Examples:
  pfc-eval calfw --model run.ckpt --data calfw.bin
  pfc-eval calfw --model run.ckpt --data calfw/aligned --pairs calfw/pairs_CALFW.txt")]
    Calfw(Box<SetArgs>),
    /// Judge a model on Cross-Pose LFW: a pack, or the aligned faces with `pairs_CPLFW.txt`
    #[command(after_help = "Examples:
  pfc-eval cplfw --model run.ckpt --data cplfw.bin
  pfc-eval cplfw --model run.ckpt --data cplfw/aligned --pairs cplfw/pairs_CPLFW.txt")]
    Cplfw(Box<SetArgs>),
    /// Judge a model on InsightFace packs, several at once
    Bin(Box<BinArgs>),
    /// Judge a model on pairs of your own
    ///
    /// The list holds one `path path 0|1` line per pair, or any published layout. Of a list with all
    /// genuine pairs first, tenths of both kinds make the folds.
    #[command(after_help = "Examples:
  pfc-eval pairs --model run.ckpt --data faces --pairs pairs.txt
  pfc-eval pairs --model run.ckpt --data faces --pairs pairs.txt --plot roc.svg --json > own.json
  pfc-eval pairs --model run.ckpt --data packed --pairs pairs.txt --quality sharpness")]
    Pairs(Box<SetArgs>),
    /// Compare results on one page: figures, curves, and the pairs scored worst
    ///
    /// The page is one file that needs nothing else; it embeds the faces of the worst pairs.
    Report(ReportArgs),
    Ijbb(Box<IjbbArgs>),
    Ijbc(Box<IjbcArgs>),
    #[command(
        name = "megaface",
        after_help = "Examples:
  pfc-eval megaface embed --model run.ckpt --images facescrub_images \\
    --list data/facescrub_lst --out out/facescrub --suffix _run.bin
  pfc-eval megaface score --help"
    )]
    MegaFace(Box<MegaFaceArgs>),
    Nn(Box<NnArgs>),
    Embed(Box<EmbedArgs>),
    Compare(Box<CompareArgs>),
    #[command(after_help = "Examples:
  pfc-eval completions bash > ~/.local/share/bash-completion/completions/pfc-eval
  pfc-eval completions fish > ~/.config/fish/completions/pfc-eval.fish")]
    Completions(CompletionsArgs),
}

impl Cli {
    /// How much to say.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Prints a completion script if that is what is asked for; none if it is not.
    pub fn completions(&self) -> Option<std::io::Result<()>> {
        match &self.command {
            Command::Completions(args) => Some(args.print::<Cli>()),
            _ => None,
        }
    }
}

/// Where the ways out are found.
pub const HINTS: &[HintFinder] = &[
    |e| hint_of(e, EvalError::hint),
    |e| hint_of(e, pfc_verify::VerifyError::hint),
    |e| hint_of(e, pfc_model::ModelError::hint),
    |e| hint_of(e, pfc_model::OnnxError::hint),
    |e| hint_of(e, pfc_shard::ShardError::hint),
    |e| hint_of(e, pfc_metrics::MetricError::hint),
    |e| hint_of(e, pfc_embeddings::EmbeddingError::hint),
    |e| hint_of(e, pfc_sources::SourceError::hint),
    |e| hint_of(e, pfc_findings::FindingsError::hint),
    |e| hint_of(e, pfc_image::ImageError::hint),
    |e| hint_of(e, pfc_durable::FolderError::hint),
    |e| hint_of(e, pfc_durable::DurableError::hint),
    |error| hint_of::<std::io::Error>(error, |error| pfc_durable::limit(error).map(str::to_owned)),
];

/// Runs a command to its end; results go to standard output.
///
/// # Errors
///
/// Whatever stopped it, with context; [`HINTS`] knows the ways out.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    guarded("run the command", || run_unguarded(cli))
}

fn run_unguarded(cli: Cli) -> anyhow::Result<Outcome> {
    if !matches!(cli.command, Command::Completions(_)) {
        pfc_cli::start_threads(0)?;
    }
    let quiet = cli.verbosity.is_quiet();
    match cli.command {
        Command::Lfw(args) => pairs::set("lfw", &args, quiet),
        Command::CfpFp(args) => pairs::cfp(CfpSplit::FrontalProfile, &args, quiet),
        Command::CfpFf(args) => pairs::cfp(CfpSplit::FrontalFrontal, &args, quiet),
        Command::Agedb(args) => pairs::set("agedb", &args, quiet),
        Command::Calfw(args) => pairs::set("calfw", &args, quiet),
        Command::Cplfw(args) => pairs::set("cplfw", &args, quiet),
        Command::Bin(args) => pairs::bin(&args, quiet),
        Command::Pairs(args) => pairs::set("pairs", &args, quiet),
        Command::Report(args) => report::report(&args),
        Command::Ijbb(args) => ijb::ijbb(&args, quiet),
        Command::Ijbc(args) => ijb::ijbc(&args, quiet),
        Command::MegaFace(args) => megaface::megaface(&args, quiet),
        Command::Nn(args) => nn::nn(&args, quiet),
        Command::Embed(args) => embed::embed(&args, quiet),
        Command::Compare(args) => compare::compare(&args),
        Command::Completions(args) => Ok(args.print::<Cli>().map(|()| Outcome::Clean)?),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
