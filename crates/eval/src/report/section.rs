//! What sections of all kinds show: summaries, charts, and the pairs judged worst.

use maud::html;
use pfc_report::{
    Table,
    chart::{self, Chart, Curve, Histogram, Series, Shape},
    html::{Markup, text},
};

use super::pictures::Pictures;
use crate::{
    EvalError,
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

/// ROC and DET of the curves that have points.
pub fn curves(curves: &[Curve<'_>]) -> Vec<Chart> {
    let drawn: Vec<Curve<'_>> =
        curves.iter().filter(|curve| !curve.1.is_empty()).copied().collect();
    if drawn.is_empty() { Vec::new() } else { vec![chart::roc(&drawn), chart::det(&drawn)] }
}

/// The spread of the scores of `model`, with a line at the threshold that figures were read at.
///
/// * `threshold`: its name, and the cosine
pub fn scores(model: &str, histogram: &Histogram, threshold: Option<(&str, f64)>) -> Chart {
    let mut chart = chart::histogram(histogram);
    chart.title = format!("Scores of {model}");
    if let Some((name, cosine)) = threshold.filter(|(_, cosine)| cosine.is_finite()) {
        let label = format!("{name} {cosine:.3}");
        chart.series.push(Series { label, shape: Shape::Mark(cosine) });
    }
    chart
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
                @match source {
                    Some(source) => div.cases {
                        @for pair in pairs { (picture_pair(source, pair, pictures)) }
                    },
                    None => { (named_pairs(pairs)) },
                }
            }
        }
    }
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

fn picture_pair(source: &Source, pair: &WorstPair, pictures: &mut Pictures) -> Markup {
    let mut picture = |name: &str| match pictures.data_uri(source, name) {
        Ok(uri) => html! { img alt=(name) src=(uri); },
        Err(reason) => html! { span.gone { (reason) } },
    };
    html! {
        figure class=(if pair.wrong { "wrong" } else { "right" }) {
            div.pair { (picture(&pair.left)) (picture(&pair.right)) }
            figcaption {
                "similarity " (format!("{:.3}", pair.similarity)) br; (pair.left) br; (pair.right)
            }
        }
    }
}
