//! Findings as pictures side by side.

use std::{collections::BTreeMap, fmt::Write};

use pfc_cli::units;
use pfc_findings::{Decision, Run};
use pfc_report::{
    Page,
    html::{data_uri, escape},
};
use pfc_shard::Dataset;

use super::figures::words;
use crate::{IngestError, decisions::Named};

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
    page.push("<nav>");
    for reason in by_reason.keys() {
        page.push(&format!("<a href=\"#{reason}\">{}</a>", words(reason)));
    }
    page.push("</nav>\n");
    let mut n_written = 0;
    for (reason, mut all) in by_reason {
        all.sort_by(|(_, a), (_, b)| strength(b).total_cmp(&strength(a)));
        let shown = n.min(all.len());
        let small = format!("{} of {}", units::count(shown as u64), units::count(all.len() as u64));
        page.heading(reason, &words(reason), &small);
        if let Some((_, meaning)) = MEANINGS.iter().find(|(name, _)| *name == reason) {
            page.paragraph(meaning);
        }
        page.push("<div class=\"cases\">\n");
        for (run, decision) in &all[..shown] {
            page.push(&case(dataset, *run, decision)?);
        }
        page.push("</div>\n");
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

fn case(dataset: &Dataset, run: usize, decision: &Decision) -> Result<String, IngestError> {
    let named = Named::of(dataset, run, decision)?;
    let mut html = "<figure><div class=\"pair\">".to_owned();
    picture(&mut html, dataset, decision.row)?;
    if named.partner_source.is_some()
        && let Some(partner) = decision.partner
    {
        picture(&mut html, dataset, partner)?;
    }
    let score = named.score.map(|score| format!(" <b>{score:.3}</b>")).unwrap_or_default();
    let bound = named.threshold.map(|bound| format!(" (bound {bound:.3})")).unwrap_or_default();
    let target = named.target_identity.map(|name| format!(" → {}", escape(&name)));
    let with = named.partner_source.or(named.partner.map(|n| format!("probe {n}")));
    let with = with.map(|with| format!("<br>with {}", escape(&with))).unwrap_or_default();
    let _ = writeln!(
        html,
        "</div><figcaption><span class=\"action {0}\">{0}</span>{score}{bound}<br>\
         <b>{1}</b>{2}<br>row {3}, {4}{with}</figcaption></figure>",
        named.action,
        escape(&named.identity),
        target.unwrap_or_default(),
        named.row,
        escape(&named.source),
    );
    Ok(html)
}

fn picture(html: &mut String, dataset: &Dataset, row: u64) -> Result<(), IngestError> {
    let face = dataset.get(row)?;
    let (width, height) = (face.width, face.height);
    let _ = write!(
        html,
        "<img class=\"small\" loading=\"lazy\" width=\"{width}\" height=\"{height}\" alt=\"row {row}\" \
         src=\"{}\">",
        data_uri(face.image)
    );
    Ok(())
}
