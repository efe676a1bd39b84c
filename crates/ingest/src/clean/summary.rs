//! What `clean` found, as it is printed.

use std::collections::BTreeMap;

use pfc_cli::{print_table, table};
use pfc_shard::decisions::Decision;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Pass;
use crate::units::count;

/// The outcome, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Number of the run in the log; none of a dry run.
    pub run: Option<usize>,
    /// Before and after.
    pub images: [u64; 2],
    /// Before and after.
    pub identities: [u64; 2],
    pub passes: Vec<&'static str>,
    /// Decisions by reason and action.
    pub decisions: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Measurements and bounds of the passes.
    pub notes: Map<String, Value>,
}

impl Summary {
    pub fn new(passes: &[Pass], decisions: &[Decision], notes: &Map<String, Value>) -> Summary {
        Summary {
            run: None,
            images: [0; 2],
            identities: [0; 2],
            passes: passes.iter().map(|pass| pass.name()).collect(),
            decisions: tally(decisions),
            notes: notes.clone(),
        }
    }

    /// Prints the tables.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self) -> std::io::Result<()> {
        use std::io::Write;
        let mut found = table(["reason", "action", "n"]);
        for (reason, actions) in &self.decisions {
            for (action, n) in actions {
                found.add_row([reason.clone(), (*action).to_owned(), count(*n)]);
            }
        }
        print_table(&found)?;
        for (name, note) in &self.notes {
            writeln!(pfc_cli::stdout(), "{name}: {}", brief(note))?;
        }
        let [[images, left], [people, people_left]] = [self.images, self.identities];
        let run = self.run.map_or("dry run".into(), |run| format!("run {run:03}"));
        writeln!(
            pfc_cli::stdout(),
            "{run}: {} images of {} identities, of which {} of {} stay",
            count(images),
            count(people),
            count(left),
            count(people_left)
        )
    }
}

/// Decisions by reason and action.
pub fn tally(decisions: &[Decision]) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
    let mut all: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for decision in decisions {
        let actions = all.entry(decision.reason.clone()).or_default();
        *actions.entry(decision.action.name()).or_default() += 1;
    }
    all
}

/// `a 1, b 2` of an object.
pub fn brief(note: &Value) -> String {
    match note {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key} {}", brief(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Value::Number(n) if n.is_f64() => {
            let n = n.as_f64().unwrap_or_default();
            if n != 0.0 && n.abs() < 1e-3 { format!("{n:.2e}") } else { format!("{n:.4}") }
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
