//! What sections of all kinds show: summaries, charts, and the pairs judged worst.

use pfc_report::{
    chart::{self, Chart, Curve, Histogram},
    html::escape,
};

use super::pictures::Pictures;
use crate::{
    EvalError,
    worst::{Source, WorstPair},
};

/// What was judged, in a sentence; with a warning where results of one name differ in it.
pub fn summary(texts: impl Iterator<Item = String>) -> String {
    let mut different: Vec<String> = texts.collect();
    different.sort();
    different.dedup();
    let warning = if different.len() > 1 {
        "<p class=\"warning\">These results are of different lists of the same name: do not \
         compare them.</p>"
    } else {
        ""
    };
    format!("<p>{}</p>{warning}\n", escape(&different.join("; ")))
}

/// What each result lacks of the complete benchmark.
pub fn incomplete<'a>(missing: impl Iterator<Item = &'a [String]>) -> String {
    let mut texts: Vec<String> =
        missing.filter(|missing| !missing.is_empty()).map(|missing| missing.join(", ")).collect();
    texts.dedup();
    let warning = |text: &String| {
        format!("<p class=\"warning\">Not the complete benchmark: {}</p>\n", escape(text))
    };
    texts.iter().map(warning).collect()
}

/// ROC and DET of the curves that have points.
pub fn curves(curves: &[Curve<'_>]) -> Vec<Chart> {
    let drawn: Vec<Curve<'_>> =
        curves.iter().filter(|curve| !curve.1.is_empty()).copied().collect();
    if drawn.is_empty() { Vec::new() } else { vec![chart::roc(&drawn), chart::det(&drawn)] }
}

/// The spread of the scores of `model`.
pub fn scores(model: &str, histogram: &Histogram) -> Chart {
    Chart { title: format!("Scores of {model}"), ..chart::histogram(histogram) }
}

/// Charts side by side, as many as there is room for.
pub fn charts(charts: &[Chart]) -> Result<String, EvalError> {
    let mut html = String::new();
    for chart in charts {
        html += &format!("<figure>{}</figure>\n", chart.inline_svg()?);
    }
    Ok(if html.is_empty() { html } else { format!("<div class=\"charts\">\n{html}</div>\n") })
}

/// The pairs judged worst, as pictures where the images are known.
pub fn worst(
    model: &str,
    source: Option<&Source>,
    accepts: &[WorstPair],
    rejects: &[WorstPair],
    pictures: &mut Pictures,
) -> String {
    let model = escape(model);
    let kinds = [
        ("different people that look most alike", "accepted wrongly", accepts),
        ("one person that looks least alike", "rejected wrongly", rejects),
    ];
    let mut html = String::new();
    for (title, mistake, pairs) in kinds.into_iter().filter(|kind| !kind.2.is_empty()) {
        let n_wrong = pairs.iter().filter(|pair| pair.wrong).count();
        let open = if n_wrong > 0 { " open" } else { "" };
        html += &format!(
            "<details{open}><summary>{model}: {title} ({n_wrong} of {} {mistake})</summary>\n\
             <div class=\"cases\">\n",
            pairs.len()
        );
        pairs.iter().for_each(|pair| html += &picture_pair(source, pair, pictures));
        html += "</div></details>\n";
    }
    html
}

fn picture_pair(source: Option<&Source>, pair: &WorstPair, pictures: &mut Pictures) -> String {
    let mut picture = |name: &str| match source {
        None => format!("<span class=\"gone\">{}</span>", escape(name)),
        Some(source) => match pictures.data_uri(source, name) {
            Ok(uri) => format!("<img alt=\"{}\" src=\"{uri}\">", escape(name)),
            Err(reason) => format!("<span class=\"gone\">{}</span>", escape(&reason)),
        },
    };
    format!(
        "<figure class=\"{}\"><div class=\"pair\">{}{}</div><figcaption>similarity {:.3}<br>{}<br>{}\
         </figcaption></figure>\n",
        if pair.wrong { "wrong" } else { "right" },
        picture(&pair.left),
        picture(&pair.right),
        pair.similarity,
        escape(&pair.left),
        escape(&pair.right),
    )
}
