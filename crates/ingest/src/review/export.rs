//! Open questions as a table with contact sheets, and as a page.

use std::{io, path::Path};

use pfc_cli::interrupt;
use pfc_findings::{
    DecisionLog, Question, Questions,
    table::{self, Line},
};
use pfc_image::{Pixels, encode_png};
use pfc_report::sheet::{self, Plan, Tile};
use pfc_shard::Dataset;
use serde::Serialize;

use super::{ExportReviewArgs, case::Case, page};
use crate::{IngestError, output};

/// Number of questions on a sheet, of two pictures each, and number of pairs in a row.
const SHEET_QUESTIONS: usize = 24;
const SHEET_COLUMNS: u32 = 4;
/// The names of what is written.
const TABLE: &str = "review.csv";
const PAGE: &str = "review.html";

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
    let sheets = write(&dataset, &open, unfinished.path(), args.html)?;
    unfinished.commit()?;
    Ok(Exported { questions: open.len(), sheets, left_out })
}

/// Writes the sheets, the table and, if `html` says so, the page; returns the number of sheets.
fn write(
    dataset: &Dataset,
    open: &[&Question],
    out: &Path,
    html: bool,
) -> Result<usize, IngestError> {
    let mut cases = Vec::new();
    for (i, questions) in open.chunks(SHEET_QUESTIONS).enumerate() {
        let name = format!("sheet-{i:03}.png");
        let first = cases.len();
        for question in questions {
            cases.push(Case::of(dataset, question, cases.len() + 1, &name)?);
        }
        let path = out.join(&name);
        let png = encode_png(&draw(dataset, &cases[first..])?)
            .map_err(|error| IngestError::at("draw", &path)(io::Error::other(error)))?;
        pfc_durable::write(&path, &png)?;
    }
    let lines: Vec<Line> = cases.iter().map(|case| case.line.clone()).collect();
    pfc_durable::write(&out.join(TABLE), &table::write(&lines))?;
    if html {
        let page = page::write(dataset, &cases)?;
        pfc_durable::write(&out.join(PAGE), page.as_bytes())?;
    }
    Ok(open.len().div_ceil(SHEET_QUESTIONS))
}

/// A sheet of `cases`, in pairs. Captions say the case, score and bound, what is suggested, and who.
fn draw(dataset: &Dataset, cases: &[Case<'_>]) -> Result<Pixels, IngestError> {
    let size = dataset.manifest().image_size;
    let (first, last) = match cases {
        [first, .., last] => (first.number, last.number),
        cases => (cases[0].number, cases[0].number),
    };
    let title =
        format!("cases {first} to {last} of {TABLE}: score / bound, what is suggested, who");
    let plan = Plan { title, columns: Some(2 * SHEET_COLUMNS), group: 2, size, lines: 3 };
    let pixels = sheet::draw(&plan, 2 * cases.len(), |i| {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: i as u64, total: 2 * cases.len() as u64 });
        }
        let (case, is_second) = (&cases[i / 2], i % 2 == 1);
        let row = case.rows[usize::from(is_second)];
        let mut rgb = vec![0; size.rgb_bytes()];
        let is_decoded = match dataset.get(row)?.decode(row, &mut rgb) {
            Err(error) if error.is_of_image() => false,
            decoded => decoded.map(|()| true)?,
        };
        Ok(Tile { rgb: is_decoded.then_some(rgb), captions: captions(case, is_second) })
    })?;
    let (width, height) = pixels.dimensions();
    Ok(Pixels::rgb(width, height, pixels.into_raw()))
}

fn captions(case: &Case<'_>, is_second: bool) -> Vec<String> {
    let Line { suggestion, identity, reason, .. } = &case.line;
    match is_second {
        false => vec![
            format!("{}: {}", case.number, case.score()),
            format!("{suggestion}?"),
            identity.clone(),
        ],
        true => vec![String::new(), reason.replace('_', " "), case.beside.clone()],
    }
}
