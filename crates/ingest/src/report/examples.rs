//! Findings as pictures side by side.

use std::collections::BTreeMap;

use maud::html;
use pfc_cli::units;
use pfc_findings::{Decision, Run};
use pfc_report::{Page, breakable, html::Markup};
use pfc_shard::Dataset;

use super::figures::words;
use crate::{IngestError, decisions::Named, pictures::picture};

/// What a finding means, by reason.
const MEANINGS: [(&str, &str); 15] = [
    ("same_bytes", "The same file twice in one identity."),
    ("same_pixels", "The same pixels twice in one identity, encoded differently."),
    (
        "near_duplicate",
        "The same picture encoded again; the score is the mean difference in grey levels.",
    ),
    ("one_picture_two_names", "One picture under two names: one of them is wrong."),
    ("too_small", "Enlarged from a picture of so few pixels a side."),
    ("blurred", "Hardly any detail; the score is the variance of the Laplacian."),
    ("blank", "Hardly any contrast."),
    ("extreme_aspect", "A strip between flat borders; the score is the ratio of its sides."),
    (
        "label_error",
        "Left: the image. Right: who it is like instead. The score is the cosine with their centre.",
    ),
    ("outlier", "Left: the image. Right: its identity. The score is their cosine."),
    ("second_person", "Images of a second person in one identity. Right: the first."),
    (
        "same_person",
        "Two identities that look like one person. The score is the cosine of their centres.",
    ),
    ("benchmark_overlap", "Somebody of the benchmark; the score is the cosine with a probe."),
    ("few_images", "Identities of too few images; the score is how many."),
    ("many_images", "Images beyond the most that an identity may have."),
];

/// Writes up to `n` examples of every reason, the strongest first; returns how many there are.
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read.
pub fn write(
    page: &mut Page,
    dataset: &Dataset,
    runs: &[Run],
    n: usize,
) -> Result<usize, IngestError> {
    let mut by_reason: BTreeMap<&str, Vec<(usize, &Decision)>> = BTreeMap::new();
    for run in runs {
        for decision in &run.decisions {
            by_reason.entry(&decision.reason).or_default().push((run.number, decision));
        }
    }
    page.push(html! {
        nav {
            @for reason in by_reason.keys() { a href={ "#" (reason) } { (words(reason)) } }
            a href="#figures" { "figures" }
            @if !runs.is_empty() { a href="#runs" { "what was decided" } }
        }
    });
    let mut n_written = 0;
    for (reason, mut all) in by_reason {
        all.sort_by(|(_, a), (_, b)| strength(b).total_cmp(&strength(a)));
        let shown = n.min(all.len());
        let small = format!("{} of {}", units::count(shown as u64), units::count(all.len() as u64));
        page.heading(reason, &words(reason), &small);
        if let Some((_, meaning)) = MEANINGS.iter().find(|(name, _)| *name == reason) {
            page.paragraph(meaning);
        }
        let cases = all[..shown].iter().map(|(run, decision)| case(dataset, *run, decision));
        let cases = cases.collect::<Result<Vec<Markup>, _>>()?;
        page.push(html! { div.cases { @for case in &cases { (case) } } });
        n_written += shown;
    }
    Ok(n_written)
}

/// How sure a finding is: by how far its bound is crossed, whichever way.
pub fn strength(decision: &Decision) -> f32 {
    let is_match = matches!(
        decision.reason.as_str(),
        "label_error" | "same_person" | "benchmark_overlap" | "few_images" | "many_images"
    );
    let score = if decision.score.is_nan() { 0.0 } else { decision.score };
    if is_match { score } else { -score }
}

fn case(dataset: &Dataset, run: usize, decision: &Decision) -> Result<Markup, IngestError> {
    let named = Named::of(dataset, run, decision)?;
    let partner = decision.partner.filter(|_| named.partner_source.is_some());
    let with = named.partner_source.or(named.partner.map(|n| format!("probe {n}")));
    Ok(html! {
        figure {
            div.pair {
                (picture(dataset, decision.row)?)
                @if let Some(partner) = partner { (picture(dataset, partner)?) }
            }
            figcaption {
                span class={ "action " (named.action) } { (named.action) }
                @if let Some(score) = named.score { " " b { (format!("{score:.3}")) } }
                @if let Some(bound) = named.threshold { (format!(" (bound {bound:.3})")) }
                br;
                b { (named.identity) }
                @if let Some(target) = named.target_identity { " → " (target) }
                br;
                "row " (named.row) ", " (breakable(below(&named.source, &named.identity)))
                @if let Some(with) = with { br; "with " (breakable(&with)) }
            }
        }
    })
}

/// The part of a path below the folder of the identity, which stands beside it.
fn below<'a>(source: &'a str, identity: &str) -> &'a str {
    source.strip_prefix(identity).and_then(|rest| rest.strip_prefix('/')).unwrap_or(source)
}
