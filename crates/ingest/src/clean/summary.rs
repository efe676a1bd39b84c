//! What `clean` found, as it is printed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pfc_cli::{
    print_table, table,
    units::{count, of},
};
use pfc_findings::Decision;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Pass;

/// Bounds among the figures of a pass, and what they bound.
const BOUNDS: [(&str, &str); 10] = [
    ("same_person", "merged above"),
    ("maybe_same_person", "suspected above"),
    ("same_person_single", "merged above, where one has a single image"),
    ("sure", "cohesion of one person at least"),
    ("label_match", "belongs to the other identity above"),
    ("label_margin", "and nearer than to its own by"),
    ("stranger", "suspected below"),
    ("outlier", "left out below"),
    ("probe_match", "left out above"),
    ("maybe_probe_match", "suspected above"),
];

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
    /// Suspicions that earlier runs logged already; they are not logged again.
    pub known: u64,
    /// Measurements and bounds of the passes.
    pub notes: Map<String, Value>,
    /// Questions that nobody has answered, after this run.
    #[serde(skip)]
    pub open: u64,
    #[serde(skip)]
    dataset: PathBuf,
}

impl Summary {
    pub fn new(
        dataset: &Path,
        passes: &[Pass],
        decisions: &[Decision],
        notes: &Map<String, Value>,
    ) -> Summary {
        Summary {
            run: None,
            images: [0; 2],
            identities: [0; 2],
            passes: passes.iter().map(|pass| pass.name()).collect(),
            decisions: tally(decisions),
            known: 0,
            notes: notes.clone(),
            open: 0,
            dataset: dataset.to_path_buf(),
        }
    }

    /// Prints the tables, and which commands come next.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self) -> std::io::Result<()> {
        use std::io::Write;
        let mut found = table(["finding", "action", "n"]);
        for (reason, actions) in &self.decisions {
            for (action, n) in actions {
                found.add_row([reason.clone(), (*action).to_owned(), count(*n)]);
            }
        }
        if self.decisions.is_empty() {
            found.add_row(["nothing new", "", "0"]);
        }
        print_table(&found)?;
        self.print_bounds()?;
        let [[images, left], [people, people_left]] = [self.images, self.identities];
        let run = self.run.map_or("dry run".into(), |run| format!("run {run:03}"));
        let mut out = pfc_cli::stdout();
        writeln!(
            out,
            "{run}: kept {} of {} images and {} of {} identities",
            count(left),
            count(images),
            count(people_left),
            count(people)
        )?;
        if let Some(line) = near_line(&self.notes) {
            writeln!(out, "{line}")?;
        }
        if self.known > 0 {
            let n = of(self.known, "suspicion");
            writeln!(out, "{n} of earlier runs were found again and are not logged twice")?;
        }
        match self.run {
            Some(_) => self.print_next(),
            None => Ok(()),
        }
    }

    /// The bounds of the passes that compare embeddings, and where they come from.
    fn print_bounds(&self) -> std::io::Result<()> {
        let mut printed = table(["pass", "bound", "value", "calibrated on"]);
        let bounds = bounds(&self.notes);
        if bounds.is_empty() {
            return Ok(());
        }
        for bound in bounds {
            printed.add_row(bound);
        }
        print_table(&printed)
    }

    fn print_next(&self) -> std::io::Result<()> {
        use std::io::Write;
        let (data, mut out) = (self.dataset.display(), pfc_cli::stdout());
        writeln!(out, "next:")?;
        let mut line = |command: String, what: &str| writeln!(out, "  {command:<44} {what}");
        line(format!("pfc-ingest report {data}"), "draws what was found")?;
        if self.open > 0 {
            let what = format!("asks {}", of(self.open, "open question"));
            line(format!("pfc-ingest review export {data} review"), &what)?;
        }
        if self.decisions.values().flatten().any(|(action, _)| *action != "suspect") {
            line(
                format!("pfc-ingest compact {data} OUT"),
                "writes the data set as this leaves it",
            )?;
        }
        line(format!("pfc-ingest decisions undo {data}"), "takes this run back")
    }
}

/// What the pass near compared, and what it did not, by the figures of passes.
fn near_line(notes: &Map<String, Value>) -> Option<String> {
    let n = |name: &str| notes.get("near")?.get(name)?.as_u64();
    let (hashes, pictures) = (n("hashes_compared")?, n("pictures_compared")?);
    let compared = format!(
        "near compared {} and {}",
        of(hashes, "pair") + " of hashes",
        of(pictures, "pair") + " of pictures"
    );
    Some(match n("not_compared")? {
        0 => format!("{compared}; none was left out"),
        left => {
            format!("{compared}; {} of hashes in crowds were not compared", of(left, "pair"))
        }
    })
}

/// Every bound among the figures of passes: the pass, the bound and what it decides, its value, and what it
/// was calibrated on.
pub fn bounds(notes: &Map<String, Value>) -> Vec<[String; 4]> {
    let mut bounds = Vec::new();
    for (pass, note) in notes {
        for (name, what) in BOUNDS {
            let Some(value) = note.get(name).and_then(Value::as_f64) else { continue };
            let (what, value) = (format!("{name}: {what}"), format!("{value:.3}"));
            bounds.push([pass.clone(), what, value, calibrated(note)]);
        }
    }
    bounds
}

/// What the bounds of a pass rest on.
fn calibrated(note: &Value) -> String {
    let rate = note.get("false_match_rate").and_then(Value::as_f64);
    let pairs = note.get("impostors").and_then(|impostors| match impostors.get("pairs") {
        Some(pairs) => pairs.as_u64(),
        None => impostors.as_object()?.values().find_map(|one| one.get("pairs")?.as_u64()),
    });
    match (pairs, rate) {
        (Some(pairs), Some(rate)) => {
            format!("{} pairs of different people, to a rate of {rate:.0e}", count(pairs))
        }
        (Some(pairs), None) => format!("{} pairs of different people", count(pairs)),
        (None, _) => "stated".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_near_did_not_compare_is_told() {
        let line = |left: u64| {
            let near = serde_json::json!({
                "hashes_compared": 12, "pictures_compared": 1, "not_compared": left,
            });
            near_line(&Map::from_iter([("near".to_owned(), near)])).unwrap()
        };
        let compared = "near compared 12 pairs of hashes and 1 pair of pictures; ";
        assert_eq!(line(0), format!("{compared}none was left out"));
        let left_out = "3,000 pairs of hashes in crowds were not compared";
        assert_eq!(line(3000), format!("{compared}{left_out}"));
        assert_eq!(near_line(&Map::new()), None);
    }
}
