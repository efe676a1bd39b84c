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
        recipe::{self, RecipeArgs},
        report::{self, ReportArgs},
        run::{self, RunArgs},
        verify::{self, VerifyArgs},
        watch::{self, WatchArgs},
    },
    config::ConfigError,
};

const EXAMPLES: &str = "\
Examples:
  pfc-train recipe demo > demo.toml
  pfc-train check demo.toml --set data.path=my/shards
  pfc-train run demo.toml --set data.path=my/shards
  pfc-train run demo.toml --out runs/a --set optim.lr=0.05 --set train.epochs=2
  pfc-train run runs/a/config.toml --out runs/a --resume
  pfc-train run demo.toml --nproc-per-node 2
  tensorboard --logdir runs

Exit codes: 0 it is done, 1 it ran and found faults, 2 it could not run, 130, 143 or 129 where
Ctrl-C, SIGTERM or SIGHUP stopped the command.";

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
    /// Print a configuration to start from, or list those that there are
    #[command(after_help = recipe::HELP)]
    Recipe(RecipeArgs),
    /// Check a configuration against everything that it names, and print it with every value explained
    ///
    /// Opens what a run would: the data set, the evaluation sets, weights and centres to begin with. Says
    /// what memory and time the steps take, the latter measured on a few images. Nothing is trained and
    /// nothing written. The text printed is a configuration file itself.
    #[command(after_help = check::HELP)]
    Check(CheckArgs),
    /// Write one page about one or more runs: curves, verification, configuration, machines
    ///
    /// Of runs that go on, it shows what they have so far.
    #[command(after_help = report::HELP)]
    Report(ReportArgs),
    /// Draw the curves of one or more runs in the terminal, while they go on or afterwards
    #[command(after_help = watch::HELP)]
    Watch(WatchArgs),
    Model(ModelArgs),
    Export(ExportArgs),
    /// Check every byte of a checkpoint, and every number of it
    ///
    /// Compares all files with the checksums in the manifest, and reads weights, the state of the optimizer
    /// and every centre, those in files beside the run too: none may differ from its checksum, be NaN or
    /// infinite. Each fault names its file; of the centres the first one is told. Nothing is written.
    #[command(after_help = verify::HELP)]
    Verify(VerifyArgs),
    /// Estimate memory, network traffic and step time of the classification head, per scheme
    ///
    /// Exits with 1 if nothing fits.
    #[command(after_help = plan::EXAMPLES)]
    Plan(PlanArgs),
    /// Time parts of the training on this machine
    #[command(
        subcommand,
        after_help = "Examples:
  pfc-train bench head --identities 1M --rate 0.1
  pfc-train bench roof --device cuda"
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
    |error| hint_of(error, pfc_report::ReportError::hint),
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
    let only_reads = matches!(
        cli.command,
        Command::Check(_)
            | Command::Model(_)
            | Command::Plan(_)
            | Command::Report(_)
            | Command::Verify(_)
    );
    if only_reads {
        interrupt::end_at_once();
    }
    match cli.command {
        Command::Run(args) => run::run(&args, cli.verbosity.is_quiet()),
        Command::Check(args) => check::check(&args, cli.verbosity.is_quiet()),
        Command::Watch(args) => watch::watch(&args),
        Command::Report(args) => report::report(&args),
        Command::Recipe(args) => recipe::recipe(&args),
        Command::Model(args) => model::model(&args),
        Command::Export(args) => export::export(&args),
        Command::Verify(args) => verify::verify(&args, cli.verbosity.is_quiet()),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(command) => bench::run(&command, cli.verbosity.is_quiet()),
        Command::Completions(args) => Ok(args.print::<Cli>().map(|()| Outcome::Clean)?),
    }
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
