//! People of a benchmark among those to train on.

use std::collections::BTreeMap;

use pfc_embeddings::Embeddings;
use pfc_findings::{Action, Decision};
use pfc_metrics::{Rows, near};
use serde_json::json;

use super::{Bounds, calibrate, centres::Centres};
use crate::{CleanError, Work};

/// Number of probes that are compared at a time, which bounds their memory.
const CHUNK: u64 = 1 << 14;
/// The lower bound admits this many times as many false matches; matches between the bounds are suspicions.
const BAND: f64 = 100.0;

/// Drops all images of identities whose centre some probe matches; an identity that is nearly matched is one
/// suspicion. The partner of a decision is the number of the probe.
///
/// Takes 2·D·(probes)·G operations.
///
/// # Errors
///
/// [`CleanError`] if embeddings cannot be read, or are too few to calibrate with.
pub fn overlap(
    work: &mut Work<'_>,
    embeddings: &Embeddings,
    probes: &Embeddings,
    bounds: &Bounds,
) -> Result<Vec<Decision>, CleanError> {
    let centres = Centres::of(work, embeddings)?;
    let some: Vec<u64> = (0..probes.len().min(CHUNK)).collect();
    let data = probes.rows(&some)?;
    let rows = Rows::new(&data, probes.dim()).expect("whole rows");
    let rate = bounds.false_matches / (centres.len() as f64 * probes.len() as f64).max(1.0);
    let calibrated = match bounds.probe_match {
        Some(_) => None,
        None => Some(calibrate::probe_to_centre(&centres, rows)?),
    };
    let at = |rate: f64| calibrated.map_or(f32::NAN, |tail| tail.at(rate));
    let upper = bounds.probe_match.unwrap_or_else(|| at(rate));
    let lower = bounds.probe_match.map_or_else(|| at((rate * BAND).min(0.1)), |b| b - 0.05);
    work.notes.insert(
        "overlap".into(),
        json!({
            "probe_match": upper, "maybe_probe_match": lower, "probes": probes.len(),
            "false_match_rate": rate, "impostors": calibrated.map(|tail| tail.note()),
        }),
    );
    let best = best_probes(&centres, probes)?;
    let mut decisions = Vec::new();
    for (place, (score, probe)) in best {
        let decide = |row: u64, action| {
            let decision = Decision::new(row, work.own_label(row), action, "benchmark_overlap");
            decision.scored(score, upper).with_partner(probe)
        };
        if score > upper {
            let rows = centres.groups.rows(place).iter().filter(|row| !work.state.is_pinned(**row));
            decisions.extend(rows.map(|row| decide(*row, Action::Drop)));
        } else if score > lower {
            decisions.push(decide(centres.typical[place], Action::Suspect));
        }
    }
    decisions.sort_by_key(|decision| decision.row);
    Ok(decisions)
}

/// For every identity that is the nearest of a probe, the greatest score and that probe.
fn best_probes(
    centres: &Centres,
    probes: &Embeddings,
) -> Result<BTreeMap<usize, (f32, u64)>, CleanError> {
    let mut best: BTreeMap<usize, (f32, u64)> = BTreeMap::new();
    for start in (0..probes.len()).step_by(CHUNK as usize) {
        let some: Vec<u64> = (start..probes.len().min(start + CHUNK)).collect();
        let data = probes.rows(&some)?;
        let rows = Rows::new(&data, probes.dim()).expect("whole rows");
        let found = near::nearest(rows, centres.rows(), |_, _| true);
        for (probe, found) in some.iter().zip(found) {
            let Some((place, score)) = found else { continue };
            let entry = best.entry(place as usize).or_insert((score, *probe));
            if score > entry.0 {
                *entry = (score, *probe);
            }
        }
    }
    Ok(best)
}
