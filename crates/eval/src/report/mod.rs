//! One page that compares models: figures side by side, curves, and the pairs scored worst.
//!
//! The page is one file without scripts and without references to anything outside it.

mod cells;
mod ijb;
mod megaface;
mod nn;
mod page;
mod pairs;
mod pictures;
mod section;

use std::collections::BTreeMap;

use pfc_report::html::Markup;

use self::pictures::Pictures;
use crate::{
    EvalError,
    document::{Document, Findings, SetResult},
    ijb::IjbReport,
    megaface::MegaFaceReport,
    nn::NnReport,
};

/// One model's result on one benchmark.
#[derive(Debug, Clone)]
struct Entry<T> {
    model: String,
    of: T,
}

/// Results to compare: by benchmark, in the order of the documents.
#[derive(Debug, Default)]
struct Benchmarks<'a> {
    pairs: BTreeMap<&'a str, Vec<Entry<&'a SetResult>>>,
    ijb: BTreeMap<&'a str, Vec<Entry<&'a IjbReport>>>,
    megaface: BTreeMap<&'a str, Vec<Entry<&'a MegaFaceReport>>>,
    nn: BTreeMap<&'a str, Vec<Entry<&'a NnReport>>>,
}

/// The page of several results. Results on one benchmark are compared with each other; where one
/// model's name occurs twice there, they are told apart by number.
///
/// # Errors
///
/// [`EvalError::Report`] if a chart cannot be drawn. Images that are gone are named in their place.
pub fn page(documents: &[Document]) -> Result<String, EvalError> {
    let names = model_names(documents);
    let benchmarks = Benchmarks::of(documents, &names);
    let mut pictures = Pictures::default();
    let mut sections: Vec<(&str, Markup)> = Vec::new();
    for (title, entries) in &benchmarks.pairs {
        sections.push((title, pairs::section(entries, &mut pictures)?));
    }
    for (title, entries) in &benchmarks.ijb {
        sections.push((title, ijb::section(entries, &mut pictures)?));
    }
    for (title, entries) in &benchmarks.megaface {
        sections.push((title, megaface::section(entries)?));
    }
    for (title, entries) in &benchmarks.nn {
        sections.push((title, nn::section(entries)?));
    }
    let tools: Vec<String> = documents
        .iter()
        .map(|document| format!("{} {}", document.tool, document.command))
        .collect();
    Ok(page::html(&names, &tools, &sections))
}

impl<'a> Benchmarks<'a> {
    fn of(documents: &'a [Document], names: &[String]) -> Benchmarks<'a> {
        let mut all = Benchmarks::default();
        for (document, name) in documents.iter().zip(names) {
            match &document.findings {
                Findings::Pairs { results } => {
                    for result in results {
                        add(&mut all.pairs, &result.figures.set, name, result);
                    }
                }
                Findings::Ijb(report) => add(&mut all.ijb, &report.benchmark, name, report),
                Findings::MegaFace(report) => {
                    let title = if report.cleaned { "MegaFace, cleaned" } else { "MegaFace" };
                    add(&mut all.megaface, title, name, report);
                }
                Findings::Nn(report) => add(&mut all.nn, "N:N", name, report),
            }
        }
        all
    }
}

fn add<'a, T>(to: &mut BTreeMap<&'a str, Vec<Entry<T>>>, title: &'a str, name: &str, of: T) {
    let entries = to.entry(title).or_default();
    let mut model = name.to_owned();
    let mut number = 1;
    while entries.iter().any(|entry| entry.model == model) {
        number += 1;
        model = format!("{name} ({number})");
    }
    entries.push(Entry { model, of });
}

/// Short names: the last part of the path, or as many parts as tell different paths apart.
fn model_names(documents: &[Document]) -> Vec<String> {
    let tail = |path: &str, n_parts: usize| {
        let parts: Vec<&str> = path.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
        parts[parts.len().saturating_sub(n_parts)..].join("/")
    };
    let name = |document: &Document| {
        let path = document.model.as_str();
        let others = || documents.iter().map(|other| other.model.as_str()).filter(|o| *o != path);
        let n_parts = path.split(['/', '\\']).count().max(1);
        let unique = |n: &usize| others().all(|other| tail(other, *n) != tail(path, *n));
        let name = tail(path, (1..n_parts).find(unique).unwrap_or(n_parts));
        if name.is_empty() { "model".to_owned() } else { name }
    };
    documents.iter().map(name).collect()
}

/// Different rates of all results, rising.
fn different_rates(rates: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = rates.collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_one_name_are_told_apart() {
        let document = |model: &str| {
            Document::new("lfw", model.as_ref(), Findings::Pairs { results: Vec::new() })
        };
        let paths = ["x/a/run.ckpt", "/x/b/run.ckpt", "c/other.ckpt", "x/a/run.ckpt"];
        let names = model_names(&paths.map(document));
        assert_eq!(names, ["a/run.ckpt", "b/run.ckpt", "other.ckpt", "a/run.ckpt"]);
        let mut entries = BTreeMap::new();
        names.iter().for_each(|name| add(&mut entries, "LFW", name, ()));
        let told: Vec<&str> = entries["LFW"].iter().map(|entry| entry.model.as_str()).collect();
        assert_eq!(told, ["a/run.ckpt", "b/run.ckpt", "other.ckpt", "a/run.ckpt (2)"]);
    }
}
