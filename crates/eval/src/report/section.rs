//! What sections of all kinds show: summaries, charts, and the pairs scored worst.

use maud::html;
use pfc_metrics::bootstrap::{Interval, Replicates};
use pfc_report::{
    Table,
    chart::{self, Chart, Curve, Histogram, Series},
    dash,
    html::{Markup, text},
    points,
};

use super::pictures::Pictures;
use crate::{
    EvalError,
    rates::rate,
    worst::{Source, WorstPair},
};

/// What was judged, in a sentence; with a warning where results of one name differ in it.
pub fn summary(texts: impl Iterator<Item = String>) -> Markup {
    let mut different: Vec<String> = texts.collect();
    different.sort();
    different.dedup();
    html! {
        p { (different.join("; ")) }
        @if different.len() > 1 {
            p.warning {
                "These results are of different lists of the same name: do not compare them."
            }
        }
    }
}

/// What each result lacks of the complete benchmark.
pub fn incomplete<'a>(missing: impl Iterator<Item = &'a [String]>) -> Markup {
    let mut texts: Vec<String> =
        missing.filter(|missing| !missing.is_empty()).map(|missing| missing.join(", ")).collect();
    texts.dedup();
    html! { @for text in &texts { p.warning { "Not the complete benchmark: " (text) } } }
}

/// ROC and DET of the curves that have points, then the histograms, on one axis.
pub fn curves_and_histograms(curves: &[Curve<'_>], mut histograms: Vec<Chart>) -> Vec<Chart> {
    let drawn: Vec<Curve<'_>> =
        curves.iter().filter(|curve| !curve.points.is_empty()).cloned().collect();
    let curves =
        (!drawn.is_empty()).then(|| [chart::roc(&drawn), chart::det(&drawn)]).into_iter().flatten();
    chart::align(&mut histograms);
    curves.chain(histograms).collect()
}

/// The spread of the scores of `model`, with a line at the threshold that figures were read at.
///
/// * `threshold`: its name, and the cosine
pub fn scores(model: &str, histogram: &Histogram, threshold: Option<(&str, f64)>) -> Chart {
    let mut chart = chart::histogram(histogram);
    chart.title = format!("Scores of {model}");
    if let Some((name, cosine)) = threshold.filter(|(_, cosine)| cosine.is_finite()) {
        let label = format!("{name} {cosine:.3}");
        chart.series.push(Series::mark(label, cosine));
    }
    chart
}

/// As [`scores`], with a line at the threshold of a FAR; `threshold` is that FAR, and the cosine.
pub fn scores_at(model: &str, histogram: &Histogram, threshold: Option<(f64, f64)>) -> Chart {
    let name =
        threshold.map_or(String::new(), |(far, _)| format!("threshold at FAR {}", rate(far)));
    scores(model, histogram, threshold.map(|(_, cosine)| (name.as_str(), cosine)))
}

/// A result to compare with others: its model, what it was judged on, and its figures in the resampled sets.
pub struct Compared<'a> {
    pub model: &'a str,
    /// Results with other words here are of other sets.
    pub judged_on: String,
    /// By name: what it is, and its place among the figures of `replicates`.
    pub figures: Vec<(String, f64, usize)>,
    pub replicates: Option<&'a Replicates>,
}

/// How far each result is from the first, with intervals: both were resampled alike, so that what is easy or
/// hard for both models does not widen them.
pub fn differences(results: &[Compared<'_>]) -> Markup {
    let Some((first, others)) = results.split_first().filter(|(_, others)| !others.is_empty())
    else {
        return Markup::default();
    };
    let head = first.figures.iter().map(|figure| figure.0.clone());
    let mut table = Table::new(std::iter::once("model".to_owned()).chain(head));
    let mut n_given = 0;
    for other in others {
        let cells = first.figures.iter().map(|figure| {
            let given = difference(first, other, figure);
            n_given += usize::from(given.is_some());
            given.map_or_else(dash, |(value, interval)| points(value, interval))
        });
        table.row(other.model, cells.collect::<Vec<Markup>>());
    }
    html! {
        @if n_given > 0 {
            h3 { "Difference to " (first.model) }
            p.note {
                "In percentage points, with the range of 95 % of the resampled sets, which are the same for all \
                 models. Where the range does not hold 0, which is set in bold, this benchmark shows a difference."
            }
            (table.html())
        }
    }
}

/// Of the figure of `first`: what `other` has more, and its interval; none if they cannot be compared.
fn difference(
    first: &Compared<'_>,
    other: &Compared<'_>,
    (name, value, place): &(String, f64, usize),
) -> Option<(f64, Interval)> {
    let (_, others, others_place) = other.figures.iter().find(|figure| figure.0 == *name)?;
    let replicates = other.replicates.filter(|_| other.judged_on == first.judged_on)?;
    let interval = replicates.difference(*others_place, first.replicates?, *place, 0.95)?;
    Some((others - value, interval))
}

/// Charts side by side, as many as there is room for.
pub fn charts(charts: &[Chart]) -> Result<Markup, EvalError> {
    let drawn = charts.iter().map(Chart::inline_svg).collect::<Result<Vec<Markup>, _>>()?;
    Ok(html! {
        @if !drawn.is_empty() {
            div.charts { @for svg in &drawn { figure { (svg) } } }
        }
    })
}

/// The pairs judged worst, as pictures where the images are known.
pub fn worst(
    model: &str,
    source: Option<&Source>,
    accepts: &[WorstPair],
    rejects: &[WorstPair],
    pictures: &mut Pictures,
) -> Markup {
    let kinds = [
        ("different people that look most alike", "accepted wrongly", accepts),
        ("one person that looks least alike", "rejected wrongly", rejects),
    ];
    html! {
        @for (title, mistake, pairs) in kinds.into_iter().filter(|kind| !kind.2.is_empty()) {
            @let n_wrong = pairs.iter().filter(|pair| pair.wrong).count();
            details open[n_wrong > 0] {
                summary {
                    (model) ": " (title) " (" (n_wrong) " of " (pairs.len()) " " (mistake) ")"
                }
                (shown_pairs(source, pairs, pictures))
            }
        }
    }
}

/// The pairs as pictures; by name where no picture is to be had, as of embeddings alone, or where the images
/// have been moved since.
fn shown_pairs(source: Option<&Source>, pairs: &[WorstPair], pictures: &mut Pictures) -> Markup {
    let Some(source) = source else { return named_pairs(pairs) };
    let drawn: Vec<(Markup, bool)> =
        pairs.iter().map(|pair| picture_pair(source, pair, pictures)).collect();
    if drawn.iter().any(|(_, is_seen)| *is_seen) {
        return html! { div.cases { @for (pair, _) in &drawn { (pair) } } };
    }
    html! { p.note { "The images are not where they were." } (named_pairs(pairs)) }
}

/// Pairs whose images are not known, as judged by embeddings alone.
fn named_pairs(pairs: &[WorstPair]) -> Markup {
    let mut table = Table::new(["left", "right", "similarity", "judged"]).with_texts(&[0, 1, 3]);
    for pair in pairs {
        let judged = if pair.wrong { "wrongly" } else { "rightly" };
        let similarity = format!("{:.3}", pair.similarity);
        table.row(&pair.left, [text(&pair.right), text(similarity), text(judged)]);
    }
    table.html()
}

/// Two faces side by side, and whether any of them is there.
fn picture_pair(source: &Source, pair: &WorstPair, pictures: &mut Pictures) -> (Markup, bool) {
    let mut is_seen = false;
    let mut picture = |name: &str| match pictures.data_uri(source, name) {
        Ok(uri) => {
            is_seen = true;
            html! { img alt=(name) src=(uri); }
        }
        Err(reason) => html! { span.gone { (reason) } },
    };
    let faces = [picture(&pair.left), picture(&pair.right)];
    let figure = html! {
        figure class=(if pair.wrong { "wrong" } else { "right" }) {
            div.pair { @for face in &faces { (face) } }
            figcaption {
                "similarity " (format!("{:.3}", pair.similarity)) br; (pair.left) br; (pair.right)
            }
        }
    };
    (figure, is_seen)
}
