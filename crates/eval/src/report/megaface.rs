//! `MegaFace`.

use maud::html;
use pfc_report::{
    Table, chart, dash,
    html::{Markup, text},
    share,
};

use super::{
    Entry,
    cells::{figure, rests_on},
    different_rates,
    section::{charts, curves_and_histograms, incomplete, scores_at, summary},
};
use crate::{
    EvalError,
    megaface::{DistractorsRow, MegaFaceReport},
    rates::rate,
};

type MegaFace<'a> = Entry<&'a MegaFaceReport>;

/// The section of results that are all cleaned, or all not.
pub fn section(entries: &[MegaFace<'_>]) -> Result<Markup, EvalError> {
    let holds = |entry: &MegaFace<'_>| {
        let report = entry.of;
        format!(
            "{} mate pairs of {} probes of {} people",
            report.n_pairs, report.n_probes, report.n_people
        )
    };
    let galleries: Vec<(&str, &DistractorsRow)> = entries
        .iter()
        .flat_map(|entry| entry.of.galleries.iter().map(|row| (entry.model.as_str(), row)))
        .collect();
    let names: Vec<String> =
        galleries.iter().map(|(model, row)| format!("{model}, {}", row.name)).collect();
    let named = || names.iter().map(String::as_str).zip(&galleries);
    let cmcs: Vec<(&str, &[f64])> = named().map(|(name, row)| (name, &row.1.cmc[..])).collect();
    let rocs: Vec<chart::Curve<'_>> = named().map(|(name, row)| row.1.curve(name)).collect();
    let mut all = vec![chart::cmc(chart::MATES_FOUND, &cmcs)];
    let histograms = entries.iter().filter_map(|entry| {
        let largest = entry.of.galleries.iter().max_by_key(|gallery| gallery.n_distractors)?;
        let row = largest.tar_at_far.iter().filter(|row| !row.finer_than_data);
        let row = row.min_by(|a, b| a.far.total_cmp(&b.far));
        // Of unit vectors, the squared distance is 2 − 2·cosine.
        let threshold = row.map(|row| (row.far, 1.0 - row.threshold.powi(2) / 2.0));
        Some(scores_at(&entry.model, largest.histogram.as_ref()?, threshold))
    });
    all.extend(curves_and_histograms(&rocs, histograms.collect()));
    Ok(html! {
        (summary(entries.iter().map(holds)))
        (incomplete(entries.iter().map(|entry| &entry.of.incomplete[..])))
        (table(&galleries))
        (charts(&all)?)
    })
}

fn table(galleries: &[(&str, &DistractorsRow)]) -> Markup {
    let fars = different_rates(
        galleries.iter().flat_map(|gallery| &gallery.1.tar_at_far).map(|row| row.far),
    );
    let mut head = ["model", "distractors", "rank-1", "rank-10"].map(str::to_owned).to_vec();
    head.extend(fars.iter().map(|&far| format!("TAR@FAR {}", rate(far))));
    let mut table = Table::new(head);
    for (model, gallery) in galleries {
        let mut cells = vec![text(&gallery.name)];
        cells.extend([Some(gallery.rank1), gallery.rank10].map(figure));
        cells.extend(fars.iter().map(|&far| {
            let found = gallery.tar_at_far.iter().find(|row| row.far == far);
            found.map_or_else(dash, |row| {
                let notes = rests_on(row.n_negatives_allowed, row.finer_than_data);
                share(row.tar.value, row.tar.interval, &[&notes])
            })
        }));
        table.row(model, cells);
    }
    table.html()
}
