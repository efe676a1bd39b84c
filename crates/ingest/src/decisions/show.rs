//! `pfc-ingest decisions show`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use pfc_cli::{Format, Outcome, print_json, print_table, table, units::of};
use pfc_findings::{Action, Decision};
use pfc_shard::Dataset;
use serde::Serialize;

use crate::IngestError;

/// What `decisions show` takes.
#[derive(Debug, Args)]
pub struct ShowDecisionsArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Those of this run alone
    #[arg(long, value_name = "RUN")]
    run: Option<usize>,
    /// Those with this reason alone
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Those with this action alone: keep, drop, relabel, merge or suspect
    #[arg(long, value_name = "ACTION")]
    action: Option<Action>,
    /// Most to print; 0 prints all
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
        // A benchmark's probe is no row of the data set, whoever has answered since.
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
pub fn run(args: &ShowDecisionsArgs) -> anyhow::Result<Outcome> {
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
    let (runs, dataset, log) = super::read(&args.dataset)?;
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
