//! The figures of the page: counts before and after, histograms, runs and their bounds.

use maud::html;
use pfc_cli::units;
use pfc_findings::{Run, State};
use pfc_report::{
    Page, Table,
    bars::{Histogram, draw},
    html::{Markup, text},
};
use pfc_shard::{Dataset, Face};

use crate::{
    IngestError,
    clean::{bounds, brief, tally},
};

const BINS: usize = 40;

/// What is drawn of a face.
type Measure = fn(&Face<'_>) -> f32;

/// Title, unit and value.
const MEASURES: [(&str, &str, Measure); 4] = [
    ("bytes per image", "bytes", |face| face.image.len() as f32),
    ("sharpness (variance of the Laplacian)", "", |face| face.quality.sharpness),
    ("brightness (mean luma)", "levels", |face| face.quality.brightness),
    ("contrast (deviation of the luma)", "levels", |face| face.quality.contrast),
];

/// Images of each identity, before and after.
///
/// # Errors
///
/// [`IngestError::Shard`] if the labels cannot be read.
pub fn sizes(dataset: &Dataset, view: &State) -> Result<[Vec<u64>; 2], IngestError> {
    let mut before = vec![0u64; view.n_identities() as usize];
    let mut after = before.clone();
    for (row, label) in (0..).zip(dataset.labels()?) {
        before[label as usize] += 1;
        if let Some(label) = view.label(row, label) {
            after[label as usize] += 1;
        }
    }
    Ok([before, after])
}

/// Histograms of all rows and of those that are left.
///
/// * `sizes`: images by identity, before and after
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read.
pub fn write(
    page: &mut Page,
    dataset: &Dataset,
    view: &State,
    sizes: &[Vec<u64>; 2],
) -> Result<(), IngestError> {
    page.heading("figures", "Figures", "pale: before, strong: after");
    let mut charts = vec![draw_sizes([&sizes[0], &sizes[1]])];
    for (title, unit, measure) in MEASURES {
        let mut values = Vec::with_capacity(dataset.len() as usize);
        for row in 0..dataset.len() {
            values.push(measure(&dataset.get(row)?));
        }
        charts.push(draw_measure(title, unit, &values, view));
    }
    page.push(html! { div.charts { @for chart in &charts { (chart) } } });
    Ok(())
}

/// How many images and identities there were and are.
///
/// * `sizes`: images by identity, before and after
pub fn write_counts(page: &mut Page, dataset: &Dataset, view: &State, sizes: &[Vec<u64>; 2]) {
    let sizes = [&sizes[0][..], &sizes[1][..]];
    let [seen_before, seen_after] =
        sizes.map(|sizes| sizes.iter().filter(|n| **n > 0).count() as u64);
    let kept = dataset.len() - view.n_dropped();
    let mut table = Table::new(["", "before", "after"]);
    for (name, was, is) in [
        ("images", dataset.len(), kept),
        ("identities", seen_before, seen_after),
        ("images relabelled", 0, view.n_relabelled()),
        ("identities merged into others", 0, view.merges().len() as u64),
    ] {
        table.row(name, [was, is].map(|n| text(units::count(n))));
    }
    page.push(table.html());
}

/// * `sizes`: images by identity, before and after
fn draw_sizes(sizes: [&[u64]; 2]) -> Markup {
    let [before, _] = sizes;
    let mut known: Vec<f32> = before.iter().map(|n| *n as f32).filter(|n| *n > 0.0).collect();
    let (_, step) = Histogram::scale(&mut known, BINS);
    let step = step.ceil();
    let most = before.iter().copied().max().unwrap_or(1);
    let n = BINS.min((most as f64 / step).ceil() as usize + 1);
    let [before, after] = sizes.map(|sizes| {
        let sizes = sizes.iter().filter(|n| **n > 0).map(|n| *n as f64);
        Histogram::of(sizes, 0.0, step, n)
    });
    draw("images per identity", "images", &before, &after)
}

/// * `values`: by row
fn draw_measure(title: &str, unit: &str, values: &[f32], view: &State) -> Markup {
    let (start, step) = Histogram::scale(&mut values.to_vec(), BINS);
    let all = Histogram::of(values.iter().map(|v| f64::from(*v)), start, step, BINS);
    let left = (0..).zip(values).filter(|(row, _)| !view.is_dropped(*row));
    let left = Histogram::of(left.map(|(_, v)| f64::from(*v)), start, step, BINS);
    draw(title, unit, &all, &left)
}

/// What every run decided, and by which bounds.
pub fn write_runs(page: &mut Page, runs: &[Run]) {
    if runs.is_empty() {
        page.paragraph("Nothing has been decided: `pfc-ingest clean` looks for something.");
        return;
    }
    page.heading("runs", "What was decided", "suspicions are not applied");
    let mut table = Table::new(["run", "why", "what", "n"]).with_texts(&[1, 2]);
    for run in runs {
        for (reason, actions) in tally(&run.decisions) {
            for (action, n) in actions {
                let head = format!("{:03} {}", run.number, run.info.command);
                let texts = [words(&reason), action.to_owned(), units::count(n)];
                table.row(&head, texts.map(text));
            }
        }
    }
    page.push(table.html());
    let mut table = Table::new(["pass", "bound", "value", "calibrated on"]).with_texts(&[1, 3]);
    let mut measured = Table::new(["pass", "figure", "value"]).with_texts(&[1, 2]);
    let (mut n_bounds, mut n_measured) = (0, 0);
    for run in runs {
        let notes = run.info.notes.as_object();
        for [pass, bound, value, rests_on] in notes.into_iter().flat_map(bounds) {
            let head = format!("{:03} {pass}", run.number);
            table.row(&head, [words(&bound), value, rests_on].map(text));
            n_bounds += 1;
        }
        for (pass, note) in notes.into_iter().flatten() {
            for (name, value) in note.as_object().into_iter().flatten() {
                let head = format!("{:03} {pass}", run.number);
                measured.row(&head, [words(name), brief(value)].map(text));
                n_measured += 1;
            }
        }
    }
    if n_bounds > 0 {
        page.heading("bounds", "Bounds", "as stated, or calibrated on pairs of different people");
        page.push(table.html());
    }
    if n_measured > 0 {
        page.push(html! {
            details { summary { "Everything that the passes measured" } (measured.html()) }
        });
    }
}

/// `label_error` as `label error`.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}
