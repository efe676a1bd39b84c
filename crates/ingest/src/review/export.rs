//! Open questions as a table and contact sheets.

use std::path::Path;

use pfc_findings::{
    DecisionLog, Question, Questions, View,
    table::{self, Line},
};
use pfc_image::{Pixels, encode_png};
use serde::Serialize;

use super::ExportReviewArgs;
use crate::{IngestError, decisions, output, show::faces};

/// Questions on a sheet, two pictures each, and pairs in a line.
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
pub fn export(args: &ExportReviewArgs) -> Result<Exported, IngestError> {
    let unfinished = output::begin(&[&args.dataset], &args.out)?;
    let dataset = pfc_shard::Dataset::open(&args.dataset)?;
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
    // With those that are left out now: an answer may bring them back.
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
        let drawn = faces::draw(view, &rows, title, Some(SHEET_COLUMNS), true)?;
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
