//! `pfc-train run`: trains, as one process, as the launcher of several ranks, or as one of them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_c10d::{Node, Rendezvous};
use pfc_cli::{Format, Hinted, Outcome, interrupt, print_json, tell};
use tch::Device;

use super::ConfigArgs;
use crate::{
    TrainError,
    config::{Config, TrainConfig},
    log::summary::Summary,
    ranks::{Ranks, launch},
    run::{self, Ended, Start},
};

/// What a rank that a signal has stopped tells the others.
const ASKED_TO_STOP: &str = "it was asked to stop";

pub(crate) const HELP: &str = "\
Examples:
  pfc-train recipe demo > demo.toml
  pfc-train run demo.toml --out runs/a
  pfc-train run demo.toml --out runs/a --resume
  pfc-train run demo.toml --set head.sample_rate=0.2 --set model.network=r18

The folder of a run:
  config.toml       every value of the run, defaults included
  train.log         what the run said, with the time of each line
  starts.jsonl      what each start of the run ran on
  metrics.jsonl     one JSON object per line: steps, epochs, verification
  tensorboard/      event files
  checkpoints/      step-NNNNNNNN.ckpt, each appears whole or not at all
  last.ckpt         a link to the newest checkpoint, for `pfc-eval --model`
  best.ckpt         a link to the best by `checkpoint.best`, if that is set

Ctrl-C, SIGTERM and SIGHUP save a checkpoint and end the run; a second one ends it at once.

Exit codes: 0 the run is finished, 2 it could not go on. A run that a signal stopped, with a
checkpoint saved, ends with 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP, so that
`run && eval` stops there.

Several ranks share the images of a step and the class centres. Start them with one of
  pfc-train run CONFIG --nproc-per-node 8
  pfc-train run CONFIG --nproc-per-node 8 --out DIR --nnodes 4 --node-rank R --master HOST:PORT
  torchrun --no-python --nnodes 4 --nproc-per-node 8 pfc-train run CONFIG --out DIR
  srun --ntasks-per-node 8 pfc-train run CONFIG --out DIR
where DIR is on a disk that all machines share. The second is run on every machine, with R from
0 to 3 and the HOST of machine 0. A run may be resumed with any number of ranks. docs/ranks.md
says more.";

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of the run [default: runs/NAME of the configuration file]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the folder; from the start if there is none
    #[arg(long)]
    resume: bool,
    /// Go on from the checkpoint of this step instead of the newest; newer ones are set aside
    #[arg(long, value_name = "STEP")]
    resume_from: Option<u64>,
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

/// Runs `pfc-train run`.
pub(crate) fn run(args: &RunArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&args.config.config));
    let context = || cannot_train(&folder);
    let node = args.node()?;
    if node.n_nodes * node.local_world > 1 && !launch::is_launched() {
        if let Some(place) = Rendezvous::from_env()? {
            return Err(started_twice(&place).into());
        }
        if node.n_nodes == 1 {
            // What is wrong with the arguments is said here, once. Ranks of other machines would wait
            // for those of this one, so that its ranks meet them and then say it.
            run::check(&args.config.load(node.local_world)?).with_context(context)?;
        }
        return launch::launch(&node);
    }
    launch::follow_launcher().context("cannot run as a rank")?;
    if launch::is_launched() {
        interrupt::answer_silently();
    }
    let place = Rendezvous::from_env()?;
    let (config, device) = match prepare(args, place.as_ref(), &folder) {
        Ok(prepared) => prepared,
        Err(error) => return decline(place.as_ref(), error),
    };
    let ranks = match Ranks::join(place.as_ref(), config.train.timeout(), device) {
        Ok(ranks) => ranks,
        Err(error) => {
            let local_rank = place.map_or(0, |place| place.local_rank);
            return stopped_before_a_step(local_rank)
                .map_or_else(|| Err(error).with_context(context), Ok);
        }
    };
    let start = match args.resume_from {
        Some(step) => Start::ResumeFrom(step),
        None if args.resume => Start::Resume,
        None => Start::Fresh,
    };
    let ended = match run::train(&config, &folder, start, &ranks, quiet) {
        Ok(ended) => ended,
        // Whatever it was that the ranks were to do together before their first step.
        Err(TrainError::Ranks(error)) if interrupt::requested() => {
            ranks.give_up(ASKED_TO_STOP);
            return stopped_before_a_step(ranks.local_rank())
                .map_or_else(|| Err(error).with_context(context), Ok);
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            let first = ranks.give_up(&format!("{error:#}"));
            leave_it_to(first, place.as_ref());
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

/// What a process trains by, and what it computes on.
fn prepare(
    args: &RunArgs,
    place: Option<&Rendezvous>,
    folder: &Path,
) -> anyhow::Result<(Config, Device)> {
    let context = || cannot_train(folder);
    let config = args.config.load(place.map_or(1, |place| place.local_world))?;
    // Before any value is used: how long ranks wait, and on what they compute.
    config.validate().map_err(TrainError::from).with_context(context)?;
    let device = config.train.device(place.map_or(0, |place| place.local_rank));
    let device = device.map_err(TrainError::from).with_context(context)?;
    Ok((config, device))
}

/// Ends a process that cannot train. If it is a rank, the others are told: they would wait for it.
fn decline(place: Option<&Rendezvous>, error: anyhow::Error) -> anyhow::Result<Outcome> {
    let Some(place) = place.filter(|place| place.world > 1) else { return Err(error) };
    if place.local_rank == 0 {
        tell(&format!("cannot train, and waits to tell the other ranks why: {error:#}"));
    }
    // The configuration may not say how long.
    let timeout = TrainConfig::default().timeout();
    let first = Ranks::decline(place, timeout, &format!("{error:#}"));
    if let Some(outcome) = stopped_before_a_step(place.local_rank) {
        return Ok(outcome);
    }
    leave_it_to(first, Some(place));
    Err(error)
}

/// The end of a run that a signal stopped before there was anything to save; `None` if none did.
fn stopped_before_a_step(local_rank: usize) -> Option<Outcome> {
    let signal = interrupt::signal()?;
    if local_rank == 0 {
        tell("stopped before the first step of this start: nothing was to be saved");
    }
    Some(Outcome::Stopped(signal))
}

/// Ends this process without a word if it is a rank of ours and rank `first`, whose failure came first
/// and is the one to be read, speaks on the same machine. On every other machine one rank says it.
fn leave_it_to(first: usize, place: Option<&Rendezvous>) {
    let Some(place) = place.filter(|_| launch::is_launched()) else { return };
    if !says_it(first, place) {
        pfc_cli::leave(2);
    }
}

fn says_it(first: usize, place: &Rendezvous) -> bool {
    let machine = |rank: usize| rank / place.local_world.max(1);
    let is_elsewhere = machine(first) != machine(place.rank);
    first == place.rank || is_elsewhere && place.local_rank == 0
}

fn cannot_train(folder: &Path) -> String {
    format!("cannot train in `{}`", folder.display())
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

/// `runs/demo` for `data/configs/demo.toml`.
pub(super) fn default_folder(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_else(|| "run".as_ref());
    Path::new("runs").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_ranks_that_fail_one_speaks_on_each_machine() {
        let speaks = |first: usize| {
            let says_it = |rank: &usize| {
                let vars = [
                    ("RANK", rank.to_string()),
                    ("WORLD_SIZE", "6".to_owned()),
                    ("LOCAL_RANK", (rank % 2).to_string()),
                    ("LOCAL_WORLD_SIZE", "2".to_owned()),
                    ("MASTER_ADDR", "node1".to_owned()),
                    ("MASTER_PORT", "29500".to_owned()),
                ];
                let find = |name: &str| {
                    vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
                };
                says_it(first, &Rendezvous::from_vars(&find).unwrap().unwrap())
            };
            (0..6).filter(says_it).collect::<Vec<usize>>()
        };
        assert_eq!(speaks(0), [0, 2, 4]);
        assert_eq!(speaks(3), [0, 3, 4]);
        assert_eq!(speaks(5), [0, 2, 5]);
    }
}
