//! `pfc-ingest decisions`: the log of what cleaning decided, shown and replaced.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use pfc_cli::{
    Format, Outcome, print_json, print_table, table,
    units::{count, of},
};
use pfc_findings::{Action, Decision, DecisionLog, Run};
use pfc_shard::Dataset;
use serde::Serialize;

use crate::{IngestError, clean::tally};

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
    /// List the runs with the command that decided, and count their decisions by action
    #[command(after_help = "Examples:
  pfc-ingest decisions list data
  pfc-ingest decisions list data --json")]
    List(ListArgs),
    /// Print decisions one by one
    #[command(after_help = "Examples:
  pfc-ingest decisions show data
  pfc-ingest decisions show data --reason label_error
  pfc-ingest decisions show data --run 2 --json")]
    Show(ShowDecisionsArgs),
    /// Take back the last run, or several runs; their files move to DATASET/decisions/undone
    #[command(after_help = "Examples:
  pfc-ingest decisions undo data
  pfc-ingest decisions undo data --to 1")]
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
        DecisionsCommand::Show(args) => show(args),
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

/// The arguments of `decisions show`.
#[derive(Debug, Args)]
pub struct ShowDecisionsArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Only the decisions of this run
    #[arg(long, value_name = "RUN")]
    run: Option<usize>,
    /// Only decisions with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only decisions with this action: keep, drop, relabel, merge or suspect
    #[arg(long, value_name = "ACTION")]
    action: Option<Action>,
    /// Maximum number of decisions to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

/// A decision with the names that its numbers stand for.
#[derive(Debug, Serialize)]
pub struct Named {
    pub run: usize,
    pub row: u64,
    pub action: &'static str,
    pub reason: String,
    pub label: u32,
    pub identity: String,
    pub source: String,
    pub target: Option<u32>,
    pub target_identity: Option<String>,
    pub partner: Option<u64>,
    pub partner_source: Option<String>,
    pub score: Option<f32>,
    pub threshold: Option<f32>,
}

impl Named {
    /// Looks the names up.
    ///
    /// # Errors
    ///
    /// [`IngestError::Shard`] for a row that is not there.
    pub fn of(dataset: &Dataset, run: usize, decision: &Decision) -> Result<Named, IngestError> {
        // A probe of a benchmark is not a row of the data set, even after a person answered.
        let found = decision.reason.strip_prefix("reviewed_").unwrap_or(&decision.reason);
        let is_row = found != "benchmark_overlap";
        let partner = decision.partner.filter(|_| is_row);
        let partner_source = partner.map(|row| dataset.get(row).map(|face| face.source.to_owned()));
        let number = |value: f32| Some(value).filter(|value| value.is_finite());
        Ok(Named {
            run,
            row: decision.row,
            action: decision.action.name(),
            reason: decision.reason.clone(),
            label: decision.label,
            identity: identity(dataset, decision.label),
            source: dataset.get(decision.row)?.source.to_owned(),
            target: decision.target,
            target_identity: decision.target.map(|label| identity(dataset, label)),
            partner: decision.partner,
            partner_source: partner_source.transpose()?,
            score: number(decision.score),
            threshold: number(decision.threshold),
        })
    }
}

/// The name of a label, which may be a new one.
pub fn identity(dataset: &Dataset, label: u32) -> String {
    match label < dataset.n_identities() {
        true => dataset.identities().name(label).to_owned(),
        false => format!("new identity {}", label - dataset.n_identities()),
    }
}

/// Runs the command.
fn show(args: &ShowDecisionsArgs) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let (found, left_out) =
        find(args).with_context(|| format!("cannot show the decisions on `{dir}`"))?;
    if left_out > 0 {
        tracing::warn!("{} more are not shown; --limit 0 shows all", of(left_out, "decision"));
    }
    if args.format.json {
        print_json(&found)?;
        return Ok(Outcome::Clean);
    }
    let mut rows = table(["run", "row", "action", "reason", "score", "image", "compared with"]);
    for one in &found {
        let target = one.target_identity.as_ref().map(|name| format!("→ {name} "));
        let with = one.partner_source.clone().or(one.partner.map(|n| format!("probe {n}")));
        rows.add_row([
            format!("{:03}", one.run),
            one.row.to_string(),
            one.action.to_owned(),
            one.reason.clone(),
            one.score.map(|score| format!("{score:.3}")).unwrap_or_default(),
            one.source.clone(),
            target.unwrap_or_default() + &with.unwrap_or_default(),
        ]);
    }
    print_table(&rows)?;
    Ok(Outcome::Clean)
}

fn find(args: &ShowDecisionsArgs) -> Result<(Vec<Named>, u64), IngestError> {
    let (runs, dataset, log) = read(&args.dataset)?;
    if let Some(number) = args.run {
        log.read(number)?;
    }
    let runs = runs.iter().filter(|run| args.run.is_none_or(|number| run.number == number));
    let all = runs.flat_map(|run| run.decisions.iter().map(|decision| (run.number, decision)));
    let wanted = all.filter(|(_, decision)| {
        args.action.is_none_or(|action| decision.action == action)
            && args.reason.as_ref().is_none_or(|reason| decision.reason == *reason)
    });
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut found = Vec::new();
    let mut left_out = 0;
    for (run, decision) in wanted {
        match found.len() < limit {
            true => found.push(Named::of(&dataset, run, decision)?),
            false => left_out += 1,
        }
    }
    Ok((found, left_out))
}
