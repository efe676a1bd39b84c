//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_cli::{
    Format, HintFinder, Outcome, Verbosity, completions::CompletionsArgs, hint_of, print_json,
};

use crate::{
    TrainError,
    bench::{self, BenchCommand},
    capacity::{self, PlanArgs},
    config::{self, Config, Override},
    report::tell,
    run_folder::Start,
    summary::Summary,
    train::{self, Checked, Ended},
};

const EXAMPLES: &str = "\
Examples:
  pfc-train run data/configs/demo.toml
  pfc-train run data/configs/demo.toml --out runs/a --set optim.lr=0.05 --set train.epochs=2
  pfc-train run runs/a/config.toml --out runs/a --resume
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
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check a configuration against its data and print it with every value spelled out
    ///
    /// Nothing is trained and nothing written. The text printed is a configuration file itself.
    Check(CheckArgs),
    /// Tell what a head of a given size takes, by scheme: memory, wire, time, and where it stops
    ///
    /// Exits with 1 if nothing fits.
    #[command(after_help = capacity::EXAMPLES)]
    Plan(PlanArgs),
    /// Time parts of the training on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

const RUN_HELP: &str = "\
Examples:
  pfc-train run data/configs/demo.toml --out runs/a
  pfc-train run data/configs/demo.toml --out runs/a --resume
  pfc-train run data/configs/demo.toml --set head.sample_rate=0.2 --set model.network=r18

The folder of a run:
  config.toml       every value of the run, defaults included
  metrics.jsonl     one JSON object per line: steps, epochs, verification
  tensorboard/      event files
  checkpoints/      step-NNNNNNNN.ckpt, each appears whole or not at all
  last.ckpt         a link to the newest checkpoint, for `pfc-eval --model`

Ctrl-C saves a checkpoint and ends; a second Ctrl-C ends at once.";

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// TOML file; data/configs has some to start from
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Change one value, for example optim.lr=0.05; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of the run [default: runs/NAME of the configuration file]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the folder; from the start if there is none
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Where the hints of errors come from.
pub const HINTS: &[HintFinder] = &[|error| hint_of(error, TrainError::hint)];

/// Runs the program.
///
/// # Errors
///
/// What went wrong, for [`pfc_cli::exit`].
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    match cli.command {
        Command::Run(args) => run_training(&args, cli.verbosity.is_quiet()),
        Command::Check(args) => check(&args, cli.verbosity.is_quiet()),
        Command::Plan(args) => capacity::run(&args),
        Command::Bench(command) => bench::run(&command, cli.verbosity.is_quiet()),
        Command::Completions(args) => {
            args.print::<Cli>();
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

impl ConfigArgs {
    /// The configuration with the number of threads settled, as results depend on it.
    fn load(&self) -> Result<Config, TrainError> {
        let mut config = config::load(&self.config, &self.overrides)?;
        config.train.threads = config.train.n_threads();
        Ok(config)
    }
}

fn run_training(args: &RunArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let config = args.config.load()?;
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&args.config.config));
    let start = if args.resume { Start::Resume } else { Start::Fresh };
    let ended = train::train(&config, &folder, start, quiet)
        .with_context(|| format!("cannot train in `{}`", folder.display()))?;
    let summary = Summary::read(&folder, ended == Ended::Finished)?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    if ended == Ended::Finished && !quiet {
        tell(&format!("model: {}", summary.checkpoint));
    }
    Ok(Outcome::Clean)
}

fn check(args: &CheckArgs, quiet: bool) -> anyhow::Result<Outcome> {
    use std::io::Write;
    let config = args.config.load()?;
    let Checked { dataset, plan } = train::check(&config)
        .with_context(|| format!("`{}` cannot be trained", args.config.config.display()))?;
    if !quiet {
        tell(&format!(
            "{} images of {} identities; {} epochs of {} steps of {} images",
            dataset.len(),
            dataset.n_identities(),
            plan.epochs,
            plan.steps_per_epoch(),
            plan.batch_size
        ));
    }
    std::io::stdout().lock().write_all(config.to_toml().as_bytes())?;
    Ok(Outcome::Clean)
}

/// `runs/demo` for `data/configs/demo.toml`.
fn default_folder(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_else(|| "run".as_ref());
    Path::new("runs").join(name)
}
