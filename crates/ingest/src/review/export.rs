//! Cases as a table and contact sheets.

use std::path::Path;

use pfc_shard::{
    Dataset,
    decisions::{Action, Decision},
};
use serde::Serialize;

use super::{Case, ExportReviewArgs};
use crate::{
    IngestError,
    decisions::{self, Named},
    image::{Pixels, encode_png},
    output,
    show::sheet,
};

/// Cases on a sheet, two pictures each, and pairs in a line.
const SHEET_CASES: usize = 24;
const SHEET_COLUMNS: u32 = 8;

#[derive(Debug, Serialize)]
pub struct Exported {
    pub cases: usize,
    pub sheets: usize,
}

/// Writes the folder, which appears once complete.
///
/// # Errors
///
/// [`IngestError`] if the folder is there, or a row cannot be read.
pub fn export(args: &ExportReviewArgs) -> Result<Exported, IngestError> {
    let unfinished = output::begin(&[&args.dataset], &args.out)?;
    let (runs, dataset, log) = decisions::read(&args.dataset)?;
    let view = log.view(&dataset)?;
    let all = runs.iter().flat_map(|run| run.decisions.iter().map(|d| (run.number, d)));
    let is_open = |decision: &Decision| {
        let is_wanted = args.reason.as_ref().is_none_or(|reason| decision.reason == *reason);
        let is_answered = view.is_pinned(decision.row);
        let is_gone = decision.action == Action::Suspect && view.is_dropped(decision.row);
        is_wanted && !is_answered && !is_gone && is_unsure(decision, args.margin)
    };
    let mut open: Vec<(usize, &Decision)> = all.filter(|(_, d)| is_open(d)).collect();
    let distance = |d: &Decision| (d.score - d.threshold).abs();
    open.sort_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b)));
    open.truncate(args.limit);
    open.sort_by(|(_, a), (_, b)| a.reason.cmp(&b.reason).then(a.row.cmp(&b.row)));
    let sheets = write(&dataset, &open, unfinished.path())?;
    unfinished.commit()?;
    Ok(Exported { cases: open.len(), sheets })
}

/// A suspicion, or a decision by a cosine close to its bound.
fn is_unsure(decision: &Decision, margin: f32) -> bool {
    let by_cosine = matches!(
        decision.reason.as_str(),
        "label_error" | "outlier" | "same_person" | "second_person" | "benchmark_overlap"
    );
    let is_close = (decision.score - decision.threshold).abs() <= margin;
    decision.action == Action::Suspect || (by_cosine && is_close)
}

fn write(dataset: &Dataset, open: &[(usize, &Decision)], out: &Path) -> Result<usize, IngestError> {
    let path = out.join("review.csv");
    let failed = |e: csv::Error| -> IngestError {
        pfc_durable::DurableError::at("write", &path)(std::io::Error::other(e)).into()
    };
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut n_sheets = 0;
    for (i, cases) in open.chunks(SHEET_CASES).enumerate() {
        let name = format!("sheet-{i:03}.png");
        let mut rows = Vec::new();
        for (k, (run, decision)) in cases.iter().enumerate() {
            let named = Named::of(dataset, *run, decision)?;
            let partner = decision.partner.filter(|_| named.partner_source.is_some());
            rows.extend([decision.row, partner.unwrap_or(decision.row)]);
            let number = i * SHEET_CASES + k;
            table.serialize(case(number, &name, named)).map_err(failed)?;
        }
        let first = i * SHEET_CASES;
        let title = format!("cases {first} to {}, two pictures each", first + cases.len() - 1);
        let plan = sheet::Plan { title, columns: Some(SHEET_COLUMNS), names: true };
        let drawn = sheet::draw(dataset, &rows, &plan)?;
        let (width, height) = drawn.pixels.dimensions();
        let pixels = Pixels::rgb(width, height, drawn.pixels.into_raw());
        let png = encode_png(&pixels)
            .map_err(|e| IngestError::at("draw", &out.join(&name))(std::io::Error::other(e)))?;
        pfc_durable::write(&out.join(&name), &png)?;
        n_sheets = i + 1;
    }
    let text =
        table.into_inner().map_err(|e| failed(std::io::Error::other(e.to_string()).into()))?;
    pfc_durable::write(&path, &text)?;
    Ok(n_sheets)
}

fn case(case: usize, sheet: &str, named: Named) -> Case {
    Case {
        case,
        answer: String::new(),
        suggestion: suggestion(&named).into(),
        reason: named.reason,
        score: named.score,
        threshold: named.threshold,
        identity: named.identity,
        source: named.source,
        target_identity: named.target_identity,
        partner_source: named.partner_source,
        sheet: sheet.into(),
        row: named.row,
        label: named.label,
        target: named.target,
        partner: named.partner,
    }
}

/// What the finding would mean if it is right.
fn suggestion(named: &Named) -> &'static str {
    match named.reason.as_str() {
        "label_error" => "relabel",
        "same_person" => "merge",
        _ => "drop",
    }
}
