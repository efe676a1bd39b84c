//! Pairs of images: LFW and its family.

use maud::html;
use pfc_metrics::bootstrap::Interval;
use pfc_report::{
    Table, chart, dash,
    html::{Markup, text},
    percent, share, whisker,
};
use pfc_verify::TarRow;

use super::{
    Entry,
    cells::{figure, missing, rests_on},
    different_rates,
    pictures::Pictures,
    section::{Compared, charts, curves_and_histograms, differences, scores, worst},
};
use crate::{EvalError, document::SetResult, pairs::Protocol, rates::rate};

type Pairs<'a> = Entry<&'a SetResult>;

/// The section of a set.
pub fn section(entries: &[Pairs<'_>], pictures: &mut Pictures) -> Result<Markup, EvalError> {
    let named: Vec<chart::Curve<'_>> =
        entries.iter().map(|entry| entry.of.curve(&entry.model)).collect();
    let histograms = entries.iter().map(|entry| {
        // Of unit vectors, the squared distance is 2 − 2·cosine.
        let cosine = 1.0 - entry.of.figures.accuracy.threshold / 2.0;
        scores(&entry.model, &entry.of.histogram, Some(("threshold", cosine)))
    });
    let all = curves_and_histograms(&named, histograms.collect());
    let of_entry = |entry: &Pairs<'_>| {
        let (accepts, rejects) = (&entry.of.worst_accepts, &entry.of.worst_rejects);
        worst(&entry.model, Some(&entry.of.source), accepts, rejects, pictures)
    };
    let worst: Vec<Markup> = entries.iter().map(of_entry).collect();
    Ok(html! {
        (summary(entries))
        (table(entries))
        (differences(&entries.iter().map(compared).collect::<Vec<_>>()))
        (charts(&all)?)
        @for pairs in &worst { (pairs) }
    })
}

/// What of a result is compared with others: accuracy, and TAR at each FAR.
fn compared<'a>(entry: &'a Pairs<'_>) -> Compared<'a> {
    let figures = &entry.of.figures;
    let tars = (1..).zip(&figures.tar_at_far);
    let tars = tars
        .filter_map(|(place, row)| Some((format!("TAR@FAR {}", rate(row.far)), row.tar?, place)));
    let accuracy = ("accuracy".to_owned(), figures.accuracy.mean, 0);
    Compared {
        model: &entry.model,
        judged_on: holds(entry),
        figures: std::iter::once(accuracy).chain(tars).collect(),
        replicates: figures.replicates.as_ref(),
    }
}

/// What the set holds, in words.
fn holds(entry: &Pairs<'_>) -> String {
    let figures = &entry.of.figures;
    let judged = match figures.protocol {
        Protocol::TenFold => "ten folds",
        Protocol::SingleList => "a single list, evaluated by its own best threshold",
    };
    format!(
        "{} pairs ({} genuine, {} impostor) of {} images of {} people; {judged}",
        figures.n_pairs, figures.n_genuine, figures.n_impostor, figures.n_images, figures.n_people
    )
}

/// What the set holds; results of one set by name may still differ in it.
fn summary(entries: &[Pairs<'_>]) -> Markup {
    let mut differs: Vec<&str> =
        entries.iter().filter_map(|entry| entry.of.differs.as_deref()).collect();
    differs.sort_unstable();
    differs.dedup();
    html! {
        (super::section::summary(entries.iter().map(holds)))
        @for differs in &differs { p.warning { (differs) } }
    }
}

/// The table of figures with their intervals.
fn table(entries: &[Pairs<'_>]) -> Markup {
    let mut fars = different_rates(
        entries.iter().flat_map(|entry| &entry.of.figures.tar_at_far).map(|row| row.far),
    );
    fars.reverse();
    let pca = entries.iter().any(|entry| entry.of.figures.pca.is_some());
    let mut head = ["model", "accuracy", "95 % interval", "threshold"].map(str::to_owned).to_vec();
    head.extend(pca.then(|| "after PCA".to_owned()));
    head.extend(fars.iter().map(|&far| format!("TAR@FAR {}", rate(far))));
    head.extend(["AUC", "EER"].map(str::to_owned));
    let mut table = Table::new(head);
    let axis = accuracy_axis(entries);
    for entry in entries {
        let figures = &entry.of.figures;
        let accuracy = &figures.accuracy;
        let spread = accuracy.std.map_or(String::new(), |std| format!(" ± {}", percent(std)));
        let mut cells = vec![
            text(percent(accuracy.mean) + &spread),
            whisker(accuracy.mean, accuracy.interval, &axis),
            text(format!("{:.3}", accuracy.threshold)),
        ];
        if pca {
            cells.push(figures.pca.as_ref().map_or_else(dash, |pca| {
                let notes = format!("{} components", pca.components);
                share(pca.mean, pca.interval, &[&notes])
            }));
        }
        for &far in &fars {
            let found = figures.tar_at_far.iter().find(|row| row.far == far);
            cells.push(found.map_or_else(dash, tar_cell));
        }
        cells.extend([figures.auc, figures.eer].map(figure));
        table.row(&entry.model, cells);
    }
    table.html()
}

fn tar_cell(row: &TarRow) -> Markup {
    match row.tar {
        Some(tar) => share(tar, row.interval, &[&rests_on(row.n_impostors_allowed, false)]),
        None => missing("finer than the set can measure"),
    }
}

/// The range that holds the accuracies of all models and their intervals.
fn accuracy_axis(entries: &[Pairs<'_>]) -> Interval {
    let of = |entry: &Pairs<'_>| {
        let accuracy = &entry.of.figures.accuracy;
        accuracy.interval.unwrap_or(Interval { low: accuracy.mean, high: accuracy.mean })
    };
    let low = entries.iter().map(|entry| of(entry).low).fold(1.0, f64::min);
    let high = entries.iter().map(|entry| of(entry).high).fold(0.0, f64::max);
    Interval { low, high: high.max(low + 1e-6) }
}
