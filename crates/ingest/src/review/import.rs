//! Answers in a table, taken as decisions.

use std::collections::HashMap;

use pfc_findings::{
    Action, Decision, DecisionLog, FindingsError, Kind, Question, Questions, RunInfo, State,
    table::{self, Answer},
};
use pfc_shard::Dataset;
use serde::Serialize;

use super::ImportReviewArgs;
use crate::{IngestError, TOOL};

#[derive(Debug, Serialize)]
pub struct Imported {
    /// Number of the run in the log; none where nothing was written.
    pub run: Option<usize>,
    /// Lines with an answer, those included that were imported before.
    pub answers: usize,
    /// Of these, answers that had been imported before.
    pub known: usize,
    /// Lines without an answer.
    pub open: usize,
}

/// Appends a run with the answers, unless none is new.
///
/// # Errors
///
/// [`FindingsError::Answer`] for a line that is not as `export` wrote it but for its answer, and for
/// answers that contradict one another; nothing is written then.
pub fn import(args: &ImportReviewArgs) -> Result<Imported, IngestError> {
    let dataset = Dataset::open(&args.dataset)?;
    let mut log = DecisionLog::open(&args.dataset)?;
    let (found, open) = table::answers(&args.answers)?;
    let mut imported = Imported { run: None, answers: found.len(), known: 0, open };
    if found.is_empty() {
        return Ok(imported);
    }
    let state = log.state(&dataset)?;
    let questions = Questions::of(&log.runs()?, &dataset, &state)?;
    let labels = dataset.labels()?;
    let bad =
        |line: u64, what: String| FindingsError::Answer { path: args.answers.clone(), line, what };
    let mut said: HashMap<&str, (u64, Action)> = HashMap::new();
    let mut decisions: Vec<Decision> = Vec::new();
    let mut now = state.clone();
    for answer in &found {
        let one = decide(&questions, &dataset, &now, &labels, answer);
        let (question, action, decided) = one.map_err(|what| bad(answer.line, what))?;
        match said.insert(&question.id, (answer.line, action)) {
            Some((line, other)) if other != action => {
                let what = format!("answers `{action}` to what line {line} answers `{other}`");
                return Err(bad(answer.line, what).into());
            }
            Some(_) => continue,
            None => {}
        }
        imported.known += usize::from(decided.is_empty());
        now.apply(&decided).map_err(|what| bad(answer.line, what))?;
        decisions.extend(decided);
    }
    // All answers are applied together, as they will be read.
    let mut after = state;
    after.apply(&decisions).map_err(|what| FindingsError::Contradiction { what })?;
    for answer in &found {
        if let Some(question) = questions.find(&answer.id) {
            check_joined(question, answer, &after).map_err(|what| bad(answer.line, what))?;
        }
    }
    if decisions.is_empty() {
        return Ok(imported);
    }
    let name = args.answers.file_name().unwrap_or_default().to_string_lossy();
    let info = RunInfo {
        dataset: log.dataset(),
        tool: TOOL.into(),
        command: "review".into(),
        arguments: vec![name.into_owned()],
        notes: serde_json::json!({}),
    };
    imported.run = Some(log.append(&info, &decisions)?);
    Ok(imported)
}

fn decide<'a>(
    questions: &'a Questions,
    dataset: &Dataset,
    state: &State,
    labels: &[u32],
    answer: &Answer,
) -> Result<(&'a Question, Action, Vec<Decision>), String> {
    let question = questions.find(&answer.id).ok_or_else(|| {
        let id = answer.id.escape_debug();
        format!("no finding of this data set has the id `{id}`; export the questions again")
    })?;
    let action = answer.answer.parse::<Action>().map_err(|_| {
        let names: Vec<&str> = question.answers().iter().map(|action| action.name()).collect();
        let said = answer.answer.escape_debug();
        format!(
            "unknown answer `{said}`; answers to `{}` are {}",
            question.finding,
            names.join(", ")
        )
    })?;
    let target = match (question.target, answer.target_identity.as_str()) {
        (None, name) if !name.is_empty() && action == Action::Relabel => {
            let label = dataset.identities().label_of(name);
            Some(label.ok_or_else(|| format!("no identity is named `{}`", name.escape_debug()))?)
        }
        _ => None,
    };
    let decided = question.decide(action, target, state, labels)?;
    Ok((question, action, decided))
}

/// Other answers may still keep two identities apart that a person said are one.
fn check_joined(question: &Question, answer: &Answer, state: &State) -> Result<(), String> {
    let joins = answer.answer == Action::Merge.name()
        && matches!(question.kind, Kind::SamePerson | Kind::Label);
    let Some(target) = question.target.filter(|_| joins) else { return Ok(()) };
    match state.resolve(question.label) == state.resolve(target) {
        true => Ok(()),
        false => {
            Err("says that two identities are one person, whom other answers say are different \
                      people"
                .into())
        }
    }
}
