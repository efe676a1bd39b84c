//! The command line.

use pfc_c10d::C10dError;
use pfc_cli::{HintFinder, Outcome, Verbosity, completions::CompletionsArgs, hint_of, interrupt};
use pfc_model::libtorch::guarded;

use crate::{
    TrainError,
    commands::{
        bench::{self, BenchCommand},
        check::{self, CheckArgs},
        export::{self, ExportArgs},
        model::{self, ModelArgs},
        plan::{self, PlanArgs},
        run::{self, RunArgs},
    },
    config::ConfigError,
};

const EXAMPLES: &str = "\
Examples:
  pfc-train run data/configs/demo.toml
  pfc-train run data/configs/demo.toml --out runs/a --set optim.lr=0.05 --set train.epochs=2
  pfc-train run runs/a/config.toml --out runs/a --resume
  pfc-train run data/configs/demo.toml --nproc-per-node 2
  pfc-train check data/configs/demo.toml --set data.path=my/shards
  tensorboard --logdir runs";

/// Train a face-recognition backbone with the margin softmax of Partial FC.
///
/// A run lives in a folder: its configuration, its checkpoints, its figures. Progress goes to
/// standard error, the table of results to standard output.
#[derive(Debug, clap::Parser)]
#[command(name = "pfc-train", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train from a configuration file, or go on with a run
    #[command(after_help = run::HELP)]
    Run(RunArgs),
    /// Check a configuration against its data and print it with every value spelled out
    ///
    /// Nothing is trained and nothing written. The text printed is a configuration file itself.
    #[command(after_help = "Examples:
  pfc-train check data/configs/demo.toml
  pfc-train check data/configs/glint360k-r50-pfc01.toml --set data.path=glint360k.pfc > run.toml")]
    Check(CheckArgs),
    Model(ModelArgs),
    Export(ExportArgs),
    /// Tell what a head of a given size takes, by scheme: memory, wire, time, and where it stops
    ///
    /// Exits with 1 if nothing fits.
    #[command(after_help = plan::EXAMPLES)]
    Plan(PlanArgs),
    /// Time parts of the training on this machine
    #[command(
        subcommand,
        after_help = "Examples:
  pfc-train bench head --identities 1M --rate 0.1"
    )]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  pfc-train completions bash > ~/.local/share/bash-completion/completions/pfc-train
  pfc-train completions fish > ~/.config/fish/completions/pfc-train.fish")]
    Completions(CompletionsArgs),
}

/// Where the hints of errors come from.
pub const HINTS: &[HintFinder] = &[
    |error| hint_of(error, TrainError::hint),
    |error| hint_of(error, ConfigError::hint),
    |error| hint_of(error, C10dError::hint),
    |error| hint_of(error, pfc_head::HeadError::hint),
    |error| hint_of(error, pfc_verify::VerifyError::hint),
    |error| hint_of(error, pfc_model::ModelError::hint),
    |error| hint_of(error, pfc_findings::FindingsError::hint),
    |error| hint_of(error, pfc_shard::ShardError::hint),
    |error| hint_of(error, pfc_durable::FolderError::hint),
    |error| hint_of(error, pfc_durable::DurableError::hint),
    |error| hint_of::<std::io::Error>(error, |error| pfc_durable::limit(error).map(str::to_owned)),
];

/// Runs the program.
///
/// # Errors
///
/// What went wrong, for [`pfc_cli::exit`].
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    guarded("run the command", || run_unguarded(cli))
}

fn run_unguarded(cli: Cli) -> anyhow::Result<Outcome> {
    if matches!(cli.command, Command::Check(_) | Command::Plan(_)) {
        interrupt::end_at_once();
    }
    match cli.command {
        Command::Run(args) => run::run(&args, cli.verbosity.is_quiet()),
        Command::Check(args) => check::check(&args, cli.verbosity.is_quiet()),
        Command::Model(args) => model::model(&args),
        Command::Export(args) => export::export(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(command) => bench::run(&command, cli.verbosity.is_quiet()),
        Command::Completions(args) => {
            args.print::<Cli>()?;
            Ok(Outcome::Clean)
        }
    }
}

impl Cli {
    /// How much to say.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }
}
