//! Which steps made a data set, for the manifest of the next.

use pfc_findings::{Action, Run, State};
use pfc_shard::{Manifest, Step};

use crate::IngestError;

/// The steps that made the data set of `manifest`, and the runs of decisions on it.
///
/// # Errors
///
/// [`IngestError::Findings`] if the decisions do not fit the data set.
pub fn of(manifest: &Manifest, runs: &[Run]) -> Result<Vec<Step>, IngestError> {
    let mut steps = manifest.lineage.clone();
    if steps.is_empty() {
        steps.push(Step {
            command: "pack".into(),
            tool: manifest.tool.clone(),
            arguments: manifest.arguments.clone(),
            rows: manifest.rows,
            n_identities: Some(manifest.n_identities),
            effect: String::new(),
            of: String::new(),
        });
    }
    let mut state = State::new(manifest.rows, manifest.n_identities);
    for run in runs {
        state
            .apply(&run.decisions)
            .map_err(|what| pfc_findings::FindingsError::Contradiction { what })?;
        steps.push(Step {
            command: run.info.command.clone(),
            tool: run.info.tool.clone(),
            arguments: run.info.arguments.clone(),
            rows: manifest.rows - state.n_dropped(),
            n_identities: None,
            effect: effect(run),
            of: String::new(),
        });
    }
    Ok(steps)
}

/// How many decisions of each kind a run holds, as `drop 12, merge 3`.
fn effect(run: &Run) -> String {
    let count = |action: Action| run.decisions.iter().filter(|d| d.action == action).count();
    let counts = Action::ALL.map(|action| (action, count(action)));
    let some = counts.iter().filter(|(_, n)| *n > 0).map(|(action, n)| format!("{action} {n}"));
    some.collect::<Vec<_>>().join(", ")
}
