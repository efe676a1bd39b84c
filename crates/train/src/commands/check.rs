//! `pfc-train check`: everything that a run opens and refuses before its first step, without training.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Outcome, print_text, tell, units};

use super::{ConfigArgs, run::default_folder};
use crate::{
    TrainError,
    config::Config,
    run::{self, Checked, estimate, room::Seat},
    run_folder::RunFolder,
};

pub(crate) const HELP: &str = "\
Examples:
  pfc-train check run.toml
  pfc-train check run.toml --nproc-per-node 8 --out runs/a
  pfc-train check run.toml --set data.path=glint360k.pfc > checked.toml

Exit codes: 0 the run can begin, 2 it would be refused.";

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder that a new run is to have; it must not hold another one
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Ranks that each machine is going to start
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    nproc_per_node: u16,
    /// Number of machines
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    nnodes: u16,
}

/// Runs `pfc-train check`.
pub(crate) fn check(args: &CheckArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let config = args.config.load(args.nproc_per_node.into())?;
    let found = args.check(&config);
    let (config, notes) =
        found.with_context(|| format!("`{}` cannot be trained", args.config.config.display()))?;
    if !quiet {
        notes.iter().for_each(|note| tell(note));
    }
    print_text(config.to_commented_toml())?;
    Ok(Outcome::Clean)
}

impl CheckArgs {
    /// The configuration with every choice made, and what is to be said of the run.
    fn check(&self, config: &Config) -> Result<(Config, Vec<String>), TrainError> {
        let checked = run::check(config)?;
        let Checked { source, plan } = &checked;
        let mut notes = vec![format!(
            "{} of {} identities; {} of {} of {} images",
            units::of(source.len(), "image"),
            source.n_identities(),
            plan.epochs(),
            units::of(plan.steps_per_epoch(), "step"),
            plan.batch_size
        )];
        let seats = self.seats();
        let (config, choices) = run::foresee(config, &checked, &seats)?;
        notes.extend(choices);
        if let Some(out) = &self.out {
            RunFolder::of_other_rank(out).check_fresh()?;
        }
        let folder = self.out.clone().unwrap_or_else(|| default_folder(&self.config.config));
        let folder = RunFolder::of_other_rank(&folder);
        let n_identities = source.n_identities();
        run::room::check_seats(&config, plan, n_identities, &folder, &seats)?;
        notes.push(run::room::describe(&config, plan, n_identities));
        notes.extend(estimate::of(&config, &checked, &seats)?);
        Ok((config, notes))
    }

    /// The ranks of this machine.
    fn seats(&self) -> Vec<Seat> {
        let n_here = usize::from(self.nproc_per_node);
        let world = n_here * usize::from(self.nnodes);
        (0..n_here).map(|rank| Seat { rank, local_rank: rank, world }).collect()
    }
}
