//! N:N.

use maud::html;
use pfc_report::{
    Table, chart, dash,
    html::{Markup, text},
    share,
};

use super::{
    Entry,
    cells::{missing, rests_on},
    different_rates,
    section::{charts, curves_and_histograms, scores_at, summary},
};
use crate::{
    EvalError,
    nn::{AllPairsTarRow, GroupRow, NnReport},
    rates::rate,
};

type Nn<'a> = Entry<&'a NnReport>;

/// The section of all results.
pub fn section(entries: &[Nn<'_>]) -> Result<Markup, EvalError> {
    let holds = |entry: &Nn<'_>| {
        let all = entry.of.groups.last();
        all.map_or(String::new(), |all| {
            format!(
                "{} faces of {} people: {} genuine and {} impostor pairs",
                all.n_faces, all.n_identities, all.n_genuine, all.n_impostors
            )
        })
    };
    let groups: Vec<(&str, &GroupRow)> = entries
        .iter()
        .flat_map(|entry| entry.of.groups.iter().map(|row| (entry.model.as_str(), row)))
        .collect();
    let names: Vec<String> =
        groups.iter().map(|(model, row)| format!("{model}, {}", row.name)).collect();
    let named: Vec<chart::Curve<'_>> =
        names.iter().zip(&groups).map(|(name, (_, row))| row.curve(name)).collect();
    let histograms = entries.iter().filter_map(|entry| {
        let all = entry.of.groups.last()?;
        let row = all.tar_at_far.iter().filter(|row| !row.finer_than_data);
        let row = row.min_by(|a, b| a.far.total_cmp(&b.far));
        let threshold = row.and_then(|row| Some((row.far, f64::from(row.threshold?))));
        Some(scores_at(&entry.model, all.histogram.as_ref()?, threshold))
    });
    let all = curves_and_histograms(&named, histograms.collect());
    Ok(html! { (summary(entries.iter().map(holds))) (table(&groups)) (charts(&all)?) })
}

fn table(groups: &[(&str, &GroupRow)]) -> Markup {
    let fars =
        different_rates(groups.iter().flat_map(|group| &group.1.tar_at_far).map(|row| row.far));
    let mut head = ["model", "group"].map(str::to_owned).to_vec();
    head.extend(fars.iter().map(|&far| format!("TAR@FAR {}", rate(far))));
    head.extend(["people", "faces"].map(str::to_owned));
    let mut table = Table::new(head);
    for (model, group) in groups {
        let mut cells = vec![text(&group.name)];
        cells.extend(fars.iter().map(|&far| {
            let found = group.tar_at_far.iter().find(|row| row.far == far);
            found.map_or_else(dash, tar_cell)
        }));
        cells.extend([group.n_identities, group.n_faces].map(text));
        table.row(model, cells);
    }
    table.html()
}

fn tar_cell(row: &AllPairsTarRow) -> Markup {
    let notes = rests_on(row.n_impostors_allowed, row.finer_than_data);
    match row.tar {
        Some(tar) => share(tar, row.interval, &[&notes]),
        None => missing("without pairs of both kinds"),
    }
}
