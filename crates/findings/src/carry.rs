//! The decisions of people, carried over to a data set that is written from a view.

use std::collections::HashMap;

use pfc_shard::ShardError;

use crate::{Action, Decision, Run, View};

/// What people decided in `runs` that still matters once `view` is a data set of its own: which rows stay
/// whatever passes find, and which identities are different people. Rows and labels are those of the view.
/// Rows that were left out and identities that were joined are as the view has them.
///
/// # Errors
///
/// [`ShardError`] if labels cannot be read.
pub fn carried(runs: &[Run], view: &View) -> Result<Vec<Decision>, ShardError> {
    let verdicts = || runs.iter().flat_map(|run| &run.decisions).filter(|d| d.is_verdict());
    let mut shows: Option<HashMap<u32, u64>> = None;
    let mut all = Vec::new();
    for verdict in verdicts() {
        let place = view.place(verdict.row);
        let target = verdict.target.and_then(|target| view.new_label(target));
        // A probe of a benchmark is not a row.
        let is_row = verdict.finding() != "benchmark_overlap";
        let partner = match is_row {
            true => verdict.partner.and_then(|row| view.place(row)),
            false => verdict.partner,
        };
        let mapped = Decision { target, partner, ..verdict.clone() };
        match verdict.action {
            Action::Keep | Action::Relabel => {
                let Some(place) = place else { continue };
                let label = view.get(place)?.label;
                all.push(Decision { row: place, label, action: Action::Keep, ..mapped });
            }
            Action::Different => {
                let (Some(label), Some(target)) = (view.new_label(verdict.label), target) else {
                    continue;
                };
                if label == target {
                    continue;
                }
                let row = match place {
                    Some(place) if view.get(place)?.label == label => place,
                    _ => {
                        if shows.is_none() {
                            shows = Some(first_rows(view)?);
                        }
                        let first = shows.as_ref().and_then(|shows| shows.get(&label));
                        let Some(first) = first else { continue };
                        *first
                    }
                };
                all.push(Decision { row, label, ..mapped });
            }
            Action::Drop | Action::Merge | Action::Suspect => {}
        }
    }
    Ok(all)
}

/// The first row of each identity.
fn first_rows(view: &View) -> Result<HashMap<u32, u64>, ShardError> {
    let mut first = HashMap::new();
    for (place, label) in (0..).zip(view.labels()?) {
        first.entry(label).or_insert(place);
    }
    Ok(first)
}
