//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_c10d::{C10dError, Node, Rendezvous};
use pfc_cli::{
    Format, HintFinder, Hinted, Outcome, Verbosity, completions::CompletionsArgs, hint_of,
    interrupt, print_json, print_text, tell,
};

use pfc_model::libtorch::guarded;

use crate::{
    TrainError,
    commands::bench::{self, BenchCommand},
    commands::export::{self, ExportArgs},
    commands::model::{self, ModelArgs},
    commands::plan::{self, PlanArgs},
    config::{self, Config, Override},
    log::summary::Summary,
    ranks::Ranks,
    ranks::launch,
    run::{self, Checked, Ended},
    run_folder::Start,
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
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check a configuration against its data and print it with every value spelled out
    ///
    /// Nothing is trained and nothing written. The text printed is a configuration file itself.
    Check(CheckArgs),
    Model(ModelArgs),
    Export(ExportArgs),
    /// Tell what a head of a given size takes, by scheme: memory, wire, time, and where it stops
    ///
    /// Exits with 1 if nothing fits.
    #[command(after_help = plan::EXAMPLES)]
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
  best.ckpt         a link to the best by `checkpoint.best`, if that is set

Ctrl-C, SIGTERM and SIGHUP save a checkpoint and end the run; a second one ends it at once.

Exit codes: 0 the run is finished, 2 it could not go on, and of a run that a signal stopped, with a
checkpoint saved, 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP, so that `run && eval` stops there.

Several ranks share the images of a step and the class centres. Start them with one of
  pfc-train run CONFIG --nproc-per-node 8
  pfc-train run CONFIG --nproc-per-node 8 --out DIR --nnodes 4 --node-rank R --master HOST:PORT
  torchrun --no-python --nnodes 4 --nproc-per-node 8 pfc-train run CONFIG --out DIR
  srun --ntasks-per-node 8 pfc-train run CONFIG --out DIR
where DIR is on a disk that all machines share. The second is run on every machine, R from 0 to 3 and
HOST that of machine 0. A run may be resumed with any number of ranks. docs/ranks.md says more.";

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
    /// Start this many ranks on this machine, which train together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    nproc_per_node: Option<u16>,
    /// Number of machines, each of which starts as many ranks
    #[arg(long, value_name = "N", requires_all = ["node_rank", "master"])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    nnodes: Option<u16>,
    /// Number of this machine, from 0
    #[arg(long, value_name = "R", requires = "nnodes")]
    node_rank: Option<u16>,
    /// Where the ranks of all machines meet: machine 0 by name or address, and a free port there
    #[arg(long, value_name = "HOST:PORT", requires = "nnodes", value_parser = host_and_port)]
    master: Option<(String, u16)>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Where the hints of errors come from.
pub const HINTS: &[HintFinder] = &[
    |error| hint_of(error, TrainError::hint),
    |error| hint_of(error, C10dError::hint),
    |error| hint_of(error, pfc_model::ModelError::hint),
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
    match cli.command {
        Command::Run(args) => run_training(&args, cli.verbosity.is_quiet()),
        Command::Check(args) => check(&args, cli.verbosity.is_quiet()),
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

impl ConfigArgs {
    /// The configuration with the number of threads settled, as results depend on it.
    fn load(&self, local_world: usize) -> Result<Config, TrainError> {
        let mut config = config::load(&self.config, &self.overrides)?;
        config.train.threads = config.train.n_threads(local_world);
        Ok(config)
    }
}

fn run_training(args: &RunArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&args.config.config));
    let context = || format!("cannot train in `{}`", folder.display());
    let node = args.node()?;
    if node.n_nodes * node.local_world > 1 && !launch::is_launched() {
        if let Some(place) = Rendezvous::from_env()? {
            return Err(started_twice(&place).into());
        }
        // What is wrong with the arguments is said here, once.
        run::check(&args.config.load(node.local_world)?).with_context(context)?;
        return launch::launch(&node);
    }
    launch::follow_launcher().context("cannot run as a rank")?;
    if launch::is_launched() {
        interrupt::answer_silently();
    }
    let place = Rendezvous::from_env()?;
    let mut config = args.config.load(place.as_ref().map_or(1, |place| place.local_world))?;
    let device = config.train.device(place.as_ref().map_or(0, |place| place.local_rank))?;
    let notes = config.settle_precision(device);
    let ranks = Ranks::join(place.as_ref(), config.train.timeout(), device);
    let ranks = ranks.with_context(context)?;
    if ranks.is_first() && !quiet {
        notes.iter().for_each(|note| tell(note));
    }
    let start = if args.resume { Start::Resume } else { Start::Fresh };
    let ended = match run::train(&config, &folder, start, &ranks, quiet) {
        Ok(ended) => ended,
        Err(error) => {
            let error = anyhow::Error::from(error);
            if !ranks.give_up(&format!("{error:#}")) && launch::is_launched() {
                // Another rank's failure was first, and is the one to be read.
                std::process::exit(2);
            }
            return Err(error.context(context()));
        }
    };
    if ranks.is_first() {
        print_result(args, &folder, ended, quiet)?;
    }
    Ok(match ended {
        Ended::Finished => Outcome::Clean,
        Ended::Stopped(signal) => Outcome::Stopped(signal),
    })
}

impl RunArgs {
    /// The ranks of this machine that the arguments ask for.
    fn node(&self) -> Result<Node, Hinted> {
        let n_nodes = self.nnodes.map_or(1, usize::from);
        let node = self.node_rank.map_or(0, usize::from);
        if node >= n_nodes {
            return Err(Hinted::new(
                format!("--node-rank is {node}, but has to be below --nnodes, {n_nodes}"),
                "machines count from 0, and each has its own number",
            ));
        }
        let local_world = self.nproc_per_node.map_or(1, usize::from);
        Ok(Node { node, n_nodes, local_world, master: self.master.clone() })
    }
}

/// Takes `HOST:PORT` apart, `[::1]:29500` too.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("a port is missing, as in node1:29500")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|&port| port > 0);
    match port {
        Some(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        Some(_) => Err("a host is missing, as in node1:29500".to_owned()),
        None => Err("the port has to be from 1 to 65535".to_owned()),
    }
}

fn started_twice(place: &Rendezvous) -> Hinted {
    Hinted::new(
        format!(
            "`--nproc-per-node` would start ranks of rank {} of {}, which the environment says \
             this is",
            place.rank, place.world
        ),
        "leave it out under `torchrun` and `srun`, which start the ranks themselves",
    )
}

fn print_result(args: &RunArgs, folder: &Path, ended: Ended, quiet: bool) -> anyhow::Result<()> {
    let summary = Summary::read(folder, ended == Ended::Finished)?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    if ended == Ended::Finished && !quiet {
        tell(&format!("model: {}", summary.checkpoint));
    }
    Ok(())
}

fn check(args: &CheckArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let mut config = args.config.load(1)?;
    let notes = config.settle_precision(config.train.device(0)?);
    let Checked { source, plan } = run::check(&config)
        .with_context(|| format!("`{}` cannot be trained", args.config.config.display()))?;
    if !quiet {
        tell(&format!(
            "{} images of {} identities; {} epochs of {} steps of {} images",
            source.len(),
            source.n_identities(),
            plan.n_epochs(),
            plan.steps_per_epoch(),
            plan.batch_size
        ));
        notes.iter().for_each(|note| tell(note));
    }
    print_text(config.to_toml())?;
    Ok(Outcome::Clean)
}

/// `runs/demo` for `data/configs/demo.toml`.
fn default_folder(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_else(|| "run".as_ref());
    Path::new("runs").join(name)
}
