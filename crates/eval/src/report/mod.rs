//! One page that compares models: figures side by side, curves, and the pairs judged worst.
//!
//! The page is one file without scripts and without references to anything outside it.

mod figures;
mod page;
mod pictures;

use std::collections::BTreeMap;

use self::pictures::Pictures;
use crate::{
    EvalError,
    commands::document::{Document, SetResult, WorstPair},
    html::escape,
    plot::{self, Curve},
};

/// One model's result on one set.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    model: &'a str,
    result: &'a SetResult,
}

/// The page of several results. Sets of the same name are compared with each other; where one model
/// name occurs twice on a set, its results are told apart by number.
///
/// # Errors
///
/// [`EvalError::Plot`] if a chart cannot be drawn. Images that are gone are named in their place.
pub fn page(documents: &[Document]) -> Result<String, EvalError> {
    let names = model_names(documents);
    let mut sets: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
    for (document, model) in documents.iter().zip(&names) {
        for result in &document.results {
            sets.entry(&result.figures.set).or_default().push(Entry { model, result });
        }
    }
    let mut pictures = Pictures::default();
    let mut body = page::heading(&names, sets.keys().copied());
    for (set, entries) in &sets {
        body += &section(set, entries, &mut pictures)?;
    }
    Ok(page::html(&body))
}

/// Short, different names: the last part of the path, or more of it where that is not unique.
fn model_names(documents: &[Document]) -> Vec<String> {
    let short = |document: &Document| {
        let parts: Vec<&str> =
            document.model.rsplit(['/', '\\']).filter(|p| !p.is_empty()).collect();
        parts.first().copied().unwrap_or("model").to_owned()
    };
    let shorts: Vec<String> = documents.iter().map(short).collect();
    let twice = |name: &String| shorts.iter().filter(|other| *other == name).count() > 1;
    let long: Vec<String> = documents
        .iter()
        .zip(&shorts)
        .map(|(document, short)| if twice(short) { document.model.clone() } else { short.clone() })
        .collect();
    let number = |(i, name): (usize, &String)| {
        let before = long[..i].iter().filter(|other| *other == name).count();
        if before == 0 { name.clone() } else { format!("{name} ({})", before + 1) }
    };
    long.iter().enumerate().map(number).collect()
}

fn section(set: &str, entries: &[Entry<'_>], pictures: &mut Pictures) -> Result<String, EvalError> {
    let mut html = format!("<section id=\"{0}\"><h2>{0}</h2>\n", escape(set));
    html += &figures::summary(entries);
    html += &figures::table(entries);
    html += &charts(entries)?;
    for entry in entries {
        html += &worst(entry, pictures);
    }
    Ok(html + "</section>\n")
}

fn charts(entries: &[Entry<'_>]) -> Result<String, EvalError> {
    let curves: Vec<Curve<'_>> = entries
        .iter()
        .filter(|entry| !entry.result.roc.is_empty())
        .map(|entry| (entry.model, &entry.result.roc[..], entry.result.figures.n_impostor))
        .collect();
    let mut charts = Vec::new();
    if !curves.is_empty() {
        charts.extend([plot::roc(&curves), plot::det(&curves)]);
    }
    for entry in entries {
        let mut chart = plot::histogram(&entry.result.histogram);
        chart.title = format!("Scores of {}", entry.model);
        charts.push(chart);
    }
    let mut html = "<div class=\"charts\">\n".to_owned();
    for chart in charts {
        html += &format!("<figure>{}</figure>\n", chart.inline_svg()?);
    }
    Ok(html + "</div>\n")
}

fn worst(entry: &Entry<'_>, pictures: &mut Pictures) -> String {
    let result = entry.result;
    let model = escape(entry.model);
    let mut html = String::new();
    let kinds = [
        ("different people that look most alike", "accepted wrongly", &result.worst_accepts),
        ("one person that looks least alike", "rejected wrongly", &result.worst_rejects),
    ];
    for (title, mistake, pairs) in kinds {
        if pairs.is_empty() {
            continue;
        }
        let n_wrong = pairs.iter().filter(|pair| pair.wrong).count();
        html += &format!(
            "<details{}><summary>{model}: {title} ({n_wrong} of {} {mistake})</summary>\n\
             <div class=\"pairs\">\n",
            if n_wrong > 0 { " open" } else { "" },
            pairs.len()
        );
        for pair in pairs {
            html += &picture_pair(result, pair, pictures);
        }
        html += "</div></details>\n";
    }
    html
}

fn picture_pair(result: &SetResult, pair: &WorstPair, pictures: &mut Pictures) -> String {
    let mut picture = |name: &str| match pictures.data_uri(&result.source, name) {
        Ok(uri) => format!("<img alt=\"{}\" src=\"{uri}\">", escape(name)),
        Err(reason) => format!("<span class=\"gone\">{}</span>", escape(&reason)),
    };
    format!(
        "<figure class=\"pair{}\"><div>{}{}</div><figcaption>similarity {:.3}<br>{}<br>{}\
         </figcaption></figure>\n",
        if pair.wrong { " wrong" } else { "" },
        picture(&pair.left),
        picture(&pair.right),
        pair.similarity,
        escape(&pair.left),
        escape(&pair.right),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_one_name_are_told_apart() {
        let document = |model: &str| Document::new("lfw", model.as_ref(), Vec::new());
        let documents = ["a/run.ckpt", "b/run.ckpt", "c/other.ckpt", "a/run.ckpt"].map(document);
        let expected = ["a/run.ckpt", "b/run.ckpt", "other.ckpt", "a/run.ckpt (2)"];
        assert_eq!(model_names(&documents), expected);
    }
}
