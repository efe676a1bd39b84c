//! `pfc-ingest decisions`: the log of what cleaning decided.

mod show;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use pfc_cli::{
    Format, Outcome, print_json, print_table, table,
    units::{count, of},
};
use pfc_findings::{DecisionLog, Run};
use pfc_shard::Dataset;
use serde::Serialize;

use crate::{IngestError, clean::tally};
pub use show::{Named, ShowDecisionsArgs, identity};

/// List, show and take back what cleaning decided.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest decisions list data
  pfc-ingest decisions show data --reason label_error
  pfc-ingest decisions show data --run 2 --json
  pfc-ingest decisions undo data
  pfc-ingest decisions undo data --to 1")]
pub struct DecisionsArgs {
    #[command(subcommand)]
    command: DecisionsCommand,
}

#[derive(Debug, Subcommand)]
enum DecisionsCommand {
    /// List the runs: who decided, and how many of what
    List(ListArgs),
    /// Print decisions one by one
    Show(ShowDecisionsArgs),
    /// Take the last run back, or several; their files move to DATASET/decisions/undone
    Undo(UndoArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Folder of the data set
    dataset: PathBuf,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct UndoArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Take back this run and all after it [default: the last]
    #[arg(long, value_name = "RUN")]
    to: Option<usize>,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(args: &DecisionsArgs) -> anyhow::Result<Outcome> {
    match &args.command {
        DecisionsCommand::List(args) => list(args),
        DecisionsCommand::Show(args) => show::run(args),
        DecisionsCommand::Undo(args) => undo(args),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    runs: Vec<ListedRun<'a>>,
    images: u64,
    images_left_out: u64,
    images_relabelled: u64,
    identities_merged: usize,
}

#[derive(Serialize)]
struct ListedRun<'a> {
    run: usize,
    command: &'a str,
    arguments: &'a [String],
    decisions: std::collections::BTreeMap<String, std::collections::BTreeMap<&'static str, u64>>,
    notes: &'a serde_json::Value,
}

fn list(args: &ListArgs) -> anyhow::Result<Outcome> {
    let dir = &args.dataset;
    let context = || format!("cannot list the decisions on `{}`", dir.display());
    let (runs, dataset, log) = read(dir).with_context(context)?;
    let view = log.state(&dataset).map_err(IngestError::from).with_context(context)?;
    let listed = Listed {
        runs: runs.iter().map(listed).collect(),
        images: dataset.len(),
        images_left_out: view.n_dropped(),
        images_relabelled: view.n_relabelled(),
        identities_merged: view.merges().len(),
    };
    if args.format.json {
        print_json(&listed)?;
        return Ok(Outcome::Clean);
    }
    let mut rows = table(["run", "command", "reason", "action", "n"]);
    for run in &listed.runs {
        let mut head = [format!("{:03}", run.run), run.command.to_owned()];
        if run.decisions.is_empty() {
            rows.add_row([&head[0], &head[1], "nothing found", "", "0"]);
        }
        for (reason, actions) in &run.decisions {
            for (action, n) in actions {
                rows.add_row([&head[0], &head[1], reason, *action, &count(*n)]);
                head = Default::default();
            }
        }
    }
    print_table(&rows)?;
    use std::io::Write;
    writeln!(
        pfc_cli::stdout(),
        "{} left out and {} relabelled of {}; {} merged",
        count(listed.images_left_out),
        count(listed.images_relabelled),
        of(listed.images, "image"),
        count(listed.identities_merged as u64)
    )?;
    Ok(Outcome::Clean)
}

fn listed(run: &Run) -> ListedRun<'_> {
    ListedRun {
        run: run.number,
        command: &run.info.command,
        arguments: &run.info.arguments,
        decisions: tally(&run.decisions),
        notes: &run.info.notes,
    }
}

/// All runs of the data set in `dir`.
///
/// # Errors
///
/// [`IngestError::Shard`] if one cannot be read.
pub fn read(dir: &std::path::Path) -> Result<(Vec<Run>, Dataset, DecisionLog), IngestError> {
    let dataset = Dataset::open(dir)?;
    let log = DecisionLog::open(dir)?;
    Ok((log.runs()?, dataset, log))
}

fn undo(args: &UndoArgs) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let undone = take_back(args).with_context(|| format!("cannot undo decisions on `{dir}`"))?;
    if args.format.json {
        print_json(&serde_json::json!({"undone": undone}))?;
        return Ok(Outcome::Clean);
    }
    use std::io::Write;
    for path in undone {
        writeln!(pfc_cli::stdout(), "moved to {}", path.display())?;
    }
    Ok(Outcome::Clean)
}

fn take_back(args: &UndoArgs) -> Result<Vec<PathBuf>, IngestError> {
    Dataset::open(&args.dataset)?;
    let mut log = DecisionLog::open(&args.dataset)?;
    let to = match (args.to, log.len()) {
        (Some(number), n_runs) if number >= n_runs => {
            return Err(pfc_findings::FindingsError::NoSuchRun { number, n_runs }.into());
        }
        (to, n_runs) => to.unwrap_or(n_runs.saturating_sub(1)),
    };
    let n = (log.len() - to).max(1);
    Ok((0..n).map(|_| log.undo()).collect::<Result<_, _>>()?)
}
