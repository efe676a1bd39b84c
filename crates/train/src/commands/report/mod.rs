//! `pfc-train report`: runs on one page.

mod charts;
mod page;

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Outcome, Replace};

use crate::{TrainError, log::history::History};

pub(crate) const HELP: &str = "\
Examples:
  pfc-train report runs/a -o run.html
  pfc-train report runs/a runs/b -o compared.html --force";

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write
    #[arg(short, long, value_name = "FILE.html")]
    out: PathBuf,
    #[command(flatten)]
    replace: Replace,
}

/// Runs `pfc-train report`.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<Outcome> {
    args.replace.check(&args.out)?;
    let read = |folder: &PathBuf| {
        let context = || format!("`{}` is no folder of a run", folder.display());
        History::read(folder).with_context(context)
    };
    let mut runs = args.runs.iter().map(read).collect::<anyhow::Result<Vec<History>>>()?;
    tell_apart(&mut runs);
    let page = page::page(&runs)?;
    pfc_durable::write_output(&args.out, page.as_bytes()).map_err(TrainError::from)?;
    Ok(Outcome::Clean)
}

/// Gives runs of one name the paths of their folders as names.
fn tell_apart(runs: &mut [History]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == names[i]).count() > 1 {
            run.name.clone_from(&run.folder);
        }
    }
}
