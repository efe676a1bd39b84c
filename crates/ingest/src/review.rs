//! `pfc-ingest review`: exports open questions as a table with contact sheets, and imports the answers as
//! decisions.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use pfc_cli::{Format, Outcome, print_json, units::of};
use pfc_findings::{
    Action, Decision, DecisionLog, FindingsError, Kind, Question, Questions, RunInfo, State, View,
    table::{self, Answer, Line},
};
use pfc_image::{Pixels, encode_png};
use pfc_shard::Dataset;
use serde::Serialize;

use crate::{
    IngestError,
    clean::{MARGIN, TOOL},
    decisions, output, show,
};

/// Export uncertain findings for review, and import the answers.
///
/// `export` writes each open question once, as a line of review.csv with contact sheets. A person writes
/// one of the words in `answers` into the column `answer`, and leaves the others empty:
///
/// keep: the images stay where they are. drop: they are left out. relabel: they belong to the target
/// identity. merge: the two identities are one person. different: they are different people, and are
/// never joined.
///
/// `import` takes the answers as decisions, which change the data set for every reader and stand
/// against later runs of `clean`. A table may be imported again with other answers; the last one
/// stands. `decisions undo` takes a run back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest review export data review
  pfc-ingest review export data review --reason same_person --limit 100
  pfc-ingest review import data review/review.csv")]
pub struct ReviewArgs {
    #[command(subcommand)]
    command: ReviewCommand,
}

#[derive(Debug, Subcommand)]
enum ReviewCommand {
    /// Write open questions as a table with contact sheets
    Export(ExportReviewArgs),
    /// Take the answers in such a table as decisions
    Import(ImportReviewArgs),
}

#[derive(Debug, Args)]
struct ExportReviewArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// Only findings with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Also export decisions within this distance of their threshold
    #[arg(long, value_name = "COSINE", default_value_t = MARGIN, value_parser = pfc_cli::number::within(0.0..=2.0f32))]
    margin: f32,
    /// Maximum number of questions; those closest to the threshold are kept
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ImportReviewArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// The table with answers
    answers: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(args: &ReviewArgs) -> anyhow::Result<Outcome> {
    use std::io::Write;
    let mut out = pfc_cli::stdout();
    match &args.command {
        ReviewCommand::Export(args) => {
            let dir = args.dataset.display();
            let exported =
                export(args).with_context(|| format!("cannot export questions about `{dir}`"))?;
            match args.format.json {
                true => print_json(&exported)?,
                false => writeln!(
                    out,
                    "{}: {} on {}{}",
                    args.out.display(),
                    of(exported.questions as u64, "question"),
                    of(exported.sheets as u64, "sheet"),
                    match exported.left_out {
                        0 => String::new(),
                        n => format!("; {n} more are open, --limit exports more"),
                    }
                )?,
            }
        }
        ReviewCommand::Import(args) => {
            let file = args.answers.display();
            let imported = import(args).with_context(|| format!("cannot import `{file}`"))?;
            match args.format.json {
                true => print_json(&imported)?,
                false => writeln!(out, "{}", told(&imported))?,
            }
        }
    }
    Ok(Outcome::Clean)
}

/// The result, in one line.
fn told(imported: &Imported) -> String {
    let Imported { run, answers, known, open } = imported;
    let open = of(*open as u64, "question");
    match (run, answers) {
        (_, 0) => format!("no answers in the table, {open} left open; nothing was written"),
        (None, n) => {
            let answers = of(*n as u64, "answer");
            format!("{answers}, all imported before, {open} left open; nothing was written")
        }
        (Some(run), n) => {
            let answers = of(*n as u64, "answer");
            let known =
                if *known > 0 { format!(" ({known} imported before)") } else { String::new() };
            format!("run {run:03}: {answers}{known}, {open} left open")
        }
    }
}

/// Number of questions on a sheet, of two pictures each, and number of pairs in a row.
const SHEET_QUESTIONS: usize = 24;
const SHEET_COLUMNS: u32 = 8;

#[derive(Debug, Serialize)]
pub struct Exported {
    pub questions: usize,
    pub sheets: usize,
    /// Open questions beyond `--limit`.
    pub left_out: usize,
}

/// Writes the folder, which appears once complete.
///
/// # Errors
///
/// [`IngestError`] if the folder is there, or a row cannot be read.
fn export(args: &ExportReviewArgs) -> Result<Exported, IngestError> {
    let unfinished = output::begin(&[&args.dataset], &args.out)?;
    let dataset = Dataset::open(&args.dataset)?;
    let log = DecisionLog::open(&args.dataset)?;
    let (runs, state) = (log.runs()?, log.state(&dataset)?);
    let questions = Questions::of(&runs, &dataset, &state)?;
    let is_asked = |question: &&Question| {
        let is_wanted = args.reason.as_ref().is_none_or(|reason| question.finding == *reason);
        is_wanted && question.is_open && question.is_unsure(args.margin)
    };
    let mut open: Vec<&Question> = questions.all().iter().filter(is_asked).collect();
    let distance = |question: &Question| (question.score - question.threshold).abs();
    open.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let left_out = open.len().saturating_sub(args.limit);
    open.truncate(args.limit);
    open.sort_by(|a, b| a.finding.cmp(&b.finding).then(a.rows.cmp(&b.rows)));
    // Rows that are left out are included, as an answer may bring them back.
    let sheets = write(&View::as_packed(dataset), &open, unfinished.path())?;
    unfinished.commit()?;
    Ok(Exported { questions: open.len(), sheets, left_out })
}

fn write(view: &View, open: &[&Question], out: &Path) -> Result<usize, IngestError> {
    let mut lines = Vec::new();
    let mut n_sheets = 0;
    for (i, questions) in open.chunks(SHEET_QUESTIONS).enumerate() {
        let name = format!("sheet-{i:03}.png");
        let mut rows = Vec::new();
        for question in questions {
            let row = question.rows.first().copied().unwrap_or_default();
            let partner = question.partner.filter(|_| question.partner_is_row());
            rows.extend([row, partner.unwrap_or(row)]);
            lines.push(line(view, question, &name)?);
        }
        let first = i * SHEET_QUESTIONS;
        let last = first + questions.len() - 1;
        let title = format!("lines {} to {} of review.csv, two pictures each", first + 2, last + 2);
        let drawn = show::draw(view, &rows, title, Some(SHEET_COLUMNS), true)?;
        let (width, height) = drawn.pixels.dimensions();
        let pixels = Pixels::rgb(width, height, drawn.pixels.into_raw());
        let png = encode_png(&pixels)
            .map_err(|e| IngestError::at("draw", &out.join(&name))(std::io::Error::other(e)))?;
        pfc_durable::write(&out.join(&name), &png)?;
        n_sheets = i + 1;
    }
    pfc_durable::write(&out.join("review.csv"), &table::write(&lines))?;
    Ok(n_sheets)
}

fn line(view: &View, question: &Question, sheet: &str) -> Result<Line, IngestError> {
    let dataset = view.dataset();
    let row = question.rows.first().copied().unwrap_or_default();
    let number = |value: f32| if value.is_finite() { value.to_string() } else { String::new() };
    let source = |row: u64| dataset.get(row).map(|face| face.source.to_owned());
    let partner = question.partner.filter(|_| question.partner_is_row());
    let answers: Vec<&str> = question.answers().iter().map(|action| action.name()).collect();
    let names = |label: Option<u32>| label.map(|label| decisions::identity(dataset, label));
    Ok(Line {
        id: question.id.clone(),
        answer: String::new(),
        answers: answers.join(" "),
        question: question.kind.question().into(),
        suggestion: question.kind.suggestion().name().into(),
        reason: question.finding.clone(),
        score: number(question.score),
        threshold: number(question.threshold),
        images: question.n_images().to_string(),
        identity: names(Some(question.label)).unwrap_or_default(),
        source: source(row)?,
        target_identity: names(question.target).unwrap_or_default(),
        partner_source: partner.map(source).transpose()?.unwrap_or_default(),
        sheet: sheet.into(),
        row: row.to_string(),
    })
}

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
fn import(args: &ImportReviewArgs) -> Result<Imported, IngestError> {
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
