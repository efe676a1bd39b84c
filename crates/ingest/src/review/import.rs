//! Answers as decisions.

use pfc_shard::{
    Dataset,
    decisions::{Action, Decision, DecisionLog, RunInfo, View, is_reason},
};
use serde::Serialize;

use super::{Case, ImportReviewArgs};
use crate::{
    IngestError,
    clean::{CleanError, TOOL},
};

#[derive(Debug, Serialize)]
pub struct Imported {
    pub run: usize,
    /// With an answer, such included as others make so already.
    pub answers: usize,
    /// Without an answer.
    pub open: usize,
}

/// Appends a run with the answers.
///
/// # Errors
///
/// [`CleanError::Review`] for a line that is not as `export` wrote it but for its answer.
pub fn import(args: &ImportReviewArgs) -> Result<Imported, IngestError> {
    let dataset = Dataset::open(&args.dataset)?;
    let mut log = DecisionLog::open(&args.dataset)?;
    let mut view = log.view(&dataset)?;
    let bad = |line: u64, what: String| {
        IngestError::from(CleanError::Review { path: args.answers.clone(), line, what })
    };
    let text = std::fs::read(&args.answers).map_err(IngestError::at("read", &args.answers))?;
    let mut table = csv::Reader::from_reader(text.as_slice());
    let header = table.headers().map_err(|e| bad(1, e.to_string()))?.clone();
    let mut decisions = Vec::new();
    let (mut answers, mut open) = (0, 0);
    for record in table.records() {
        // A name may hold the end of a line, so that lines are not counted by records.
        let line_of = |position: Option<&csv::Position>| position.map_or(1, csv::Position::line);
        let record = record.map_err(|e| bad(line_of(e.position()), e.to_string()))?;
        let line = line_of(record.position());
        let case: Case = record.deserialize(Some(&header)).map_err(|e| bad(line, e.to_string()))?;
        if case.answer.trim().is_empty() {
            open += 1;
            continue;
        }
        answers += 1;
        if let Some(decision) = decide(&dataset, &view, &case).map_err(|what| bad(line, what))? {
            let one = std::slice::from_ref(&decision);
            view.apply(one).map_err(|what| bad(line, what))?;
            decisions.push(decision);
        }
    }
    let name = args.answers.file_name().unwrap_or_default().to_string_lossy();
    let info = RunInfo {
        dataset: log.dataset(),
        tool: TOOL.into(),
        command: "review".into(),
        arguments: vec![name.into_owned()],
        notes: serde_json::json!({}),
    };
    let run = log.append(&info, &decisions)?;
    Ok(Imported { run, answers, open })
}

/// The decision that an answer stands for; none if earlier answers make it so already.
fn decide(dataset: &Dataset, view: &View, case: &Case) -> Result<Option<Decision>, String> {
    let action: Action = case.answer.trim().to_ascii_lowercase().parse()?;
    let face = dataset.get(case.row).map_err(|e| e.to_string())?;
    if face.source != case.source || face.label != case.label {
        return Err(format!("row {} of the data set is `{}`", case.row, face.source));
    }
    let reason = format!("reviewed_{}", case.reason);
    if !is_reason(&reason) {
        return Err(format!("`{}` is no reason that was exported", case.reason.escape_debug()));
    }
    let mut decision = Decision::new(case.row, face.label, action, &reason);
    decision.partner = case.partner;
    decision.score = case.score.unwrap_or(f32::NAN);
    match action {
        Action::Suspect => Err("`suspect` is no answer".into()),
        Action::Keep | Action::Drop => Ok(Some(decision)),
        Action::Relabel | Action::Merge => {
            let target =
                case.target.ok_or_else(|| format!("{action} to whom? it has no target"))?;
            decision.target = Some(target);
            if action == Action::Merge {
                // Earlier answers may have moved either of the two.
                decision.label = view.resolve(face.label);
                if view.resolve(target) == decision.label {
                    return Ok(None);
                }
            }
            Ok(Some(decision))
        }
    }
}
