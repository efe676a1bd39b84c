//! The figures of one set, a row per model.

use pfc_metrics::bootstrap::Interval;

use super::Entry;
use crate::{html::escape, pairs::Protocol, verification::TarRow};

/// What the set holds; results of one set by name may still differ in it.
pub fn summary(entries: &[Entry<'_>]) -> String {
    let text = |entry: &Entry<'_>| {
        let figures = &entry.result.figures;
        let judged = match figures.protocol {
            Protocol::TenFold => "ten folds",
            Protocol::SingleList => "a single list, judged by its own best threshold",
        };
        format!(
            "{} pairs ({} genuine, {} impostor) of {} images of {} people; {judged}",
            figures.n_pairs,
            figures.n_genuine,
            figures.n_impostor,
            figures.n_images,
            figures.n_people
        )
    };
    let differs: String = entries
        .iter()
        .filter_map(|entry| Some((entry.model, entry.result.differs.as_ref()?)))
        .map(|(model, differs)| {
            format!("<p class=\"warning\">{}: {}</p>", escape(model), escape(differs))
        })
        .collect();
    let mut texts: Vec<String> = entries.iter().map(text).collect();
    texts.dedup();
    let differ = if texts.len() > 1 {
        "<p class=\"warning\">These results are of different lists of the same name: do not compare \
         them.</p>"
    } else {
        ""
    };
    format!("<p>{}</p>{differ}{differs}\n", escape(&texts.join("; ")))
}

/// The table of figures with their intervals.
pub fn table(entries: &[Entry<'_>]) -> String {
    let fars: Vec<f64> = entries
        .first()
        .map(|entry| entry.result.figures.tar_at_far.iter().map(|row| row.far).collect())
        .unwrap_or_default();
    let mut html = "<div class=\"scroll\"><table>\n<thead><tr><th>model</th><th>accuracy</th>\
        <th>95 % interval</th><th>threshold</th>"
        .to_owned();
    for far in &fars {
        html += &format!("<th>TAR@FAR {far}</th>");
    }
    html += "<th>AUC</th><th>EER</th></tr></thead>\n<tbody>\n";
    let axis = accuracy_axis(entries);
    for entry in entries {
        html += &row(entry, &fars, &axis);
    }
    html + "</tbody></table></div>\n"
}

fn row(entry: &Entry<'_>, fars: &[f64], axis: &Interval) -> String {
    let figures = &entry.result.figures;
    let accuracy = &figures.accuracy;
    let spread = accuracy.std.map_or(String::new(), |std| format!(" ± {}", percent(std)));
    let mut html = format!(
        "<tr><th>{}</th><td>{}{spread}</td><td>{}</td><td>{:.3}</td>",
        escape(entry.model),
        percent(accuracy.mean),
        whisker(accuracy.mean, accuracy.interval, axis),
        accuracy.threshold
    );
    for &far in fars {
        let found = figures.tar_at_far.iter().find(|row| row.far == far);
        html += &format!("<td>{}</td>", found.map_or("–".to_owned(), tar_cell));
    }
    for figure in [figures.auc, figures.eer] {
        let text = figure.map_or("–".to_owned(), |f| with_interval(f.value, f.interval));
        html += &format!("<td>{text}</td>");
    }
    html + "</tr>\n"
}

fn tar_cell(row: &TarRow) -> String {
    match row.tar {
        Some(tar) => format!(
            "{}<small>on {} impostor pair{}</small>",
            with_interval(tar, row.interval),
            row.n_impostors_allowed,
            if row.n_impostors_allowed == 1 { "" } else { "s" }
        ),
        None => "–<small>finer than the set can measure</small>".to_owned(),
    }
}

fn with_interval(value: f64, interval: Option<Interval>) -> String {
    let interval = interval.map_or(String::new(), |i| {
        format!("<small>{} – {}</small>", percent(i.low), percent(i.high))
    });
    format!("{}{interval}", percent(value))
}

fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// The range that holds the accuracies of all models and their intervals.
fn accuracy_axis(entries: &[Entry<'_>]) -> Interval {
    let of = |entry: &Entry<'_>| {
        let accuracy = &entry.result.figures.accuracy;
        accuracy.interval.unwrap_or(Interval { low: accuracy.mean, high: accuracy.mean })
    };
    let low = entries.iter().map(|entry| of(entry).low).fold(1.0, f64::min);
    let high = entries.iter().map(|entry| of(entry).high).fold(0.0, f64::max);
    Interval { low, high: high.max(low + 1e-6) }
}

/// A dot on a line: the value in its interval, on an axis that all rows share.
fn whisker(value: f64, interval: Option<Interval>, axis: &Interval) -> String {
    let Some(interval) = interval else { return "–".to_owned() };
    let at = |x: f64| 5.0 + 110.0 * ((x - axis.low) / (axis.high - axis.low)).clamp(0.0, 1.0);
    format!(
        "<svg class=\"whisker\" viewBox=\"0 0 120 12\" aria-hidden=\"true\"><line x1=\"{:.1}\" \
         x2=\"{:.1}\" y1=\"6\" y2=\"6\"/><circle cx=\"{:.1}\" cy=\"6\" r=\"4\"/></svg>\
         <small>{} – {}</small>",
        at(interval.low),
        at(interval.high),
        at(value),
        percent(interval.low),
        percent(interval.high)
    )
}
