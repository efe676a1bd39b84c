//! LFW's layout: a header, then matched and mismatched pairs by name and number.

use super::{
    ImageName, Pair, PairList, Protocol,
    labels::{dealt, dealt_anew},
    lines::{Images, Line, Lines},
};
use crate::VerifyError;

pub const LAYOUT: &str = "LFW's layout: a first line `10 300` (folds, pairs of each kind per fold) \
    or `500` (pairs of each kind); then per fold first the lines `NAME N N` of matched pairs, then \
    the lines `NAME N NAME N` of mismatched ones, separated by tabs";

pub fn parse(lines: &Lines, n_folds: usize, n_per_kind: usize) -> Result<PairList, VerifyError> {
    let header = lines.lines[0].number;
    let (body, n_found) = (&lines.lines[1..], lines.lines.len() - 1);
    let expected = n_folds.checked_mul(n_per_kind).and_then(|n| n.checked_mul(2));
    let Some(expected) = expected.filter(|&n| n > 0) else {
        let problem = format!("{n_folds} folds of {n_per_kind} + {n_per_kind} pairs");
        return Err(lines.error(header, problem, LAYOUT));
    };
    let mut images = Images::default();
    let mut pairs = Vec::with_capacity(n_found);
    for (i, line) in body.iter().enumerate().take(expected) {
        let same = (i / n_per_kind).is_multiple_of(2);
        let pair = pair_of(line, same, &mut images)
            .map_err(|problem| lines.error(line.number, problem, LAYOUT))?;
        pairs.push(pair);
    }
    if n_found < expected {
        let problem =
            format!("the list ends after {n_found} pairs; its first line promises {expected}");
        return Err(lines.error(lines.last_number(), problem, LAYOUT));
    }
    if let Some(line) = body.get(expected) {
        let problem = format!("a pair more than the {expected} that the first line promises");
        return Err(lines.error(line.number, problem, LAYOUT));
    }
    let protocol = if n_folds == 1 { Protocol::SingleList } else { Protocol::TenFold };
    if !matches!(n_folds, 1 | 10) {
        tracing::warn!(
            "{}: its {n_folds} folds are dealt anew into the ten that are evaluated",
            lines.path.display()
        );
        pairs = dealt_anew(pairs);
    }
    Ok(PairList { protocol, images: images.names, pairs })
}

/// Whether the fields are `NAME N N` or `NAME N NAME N`.
pub fn is_pair(fields: &[&str]) -> bool {
    let is_number = |field: &str| field.parse::<u32>().is_ok();
    match fields {
        [name, i, j] => !is_number(name) && is_number(i) && is_number(j),
        [a, i, b, j] => !is_number(a) && is_number(i) && !is_number(b) && is_number(j),
        _ => false,
    }
}

/// Lines of either kind without counts in front, as RFW has them, in ten folds.
pub fn parse_without_header(lines: &Lines) -> Result<PairList, VerifyError> {
    let mut images = Images::default();
    let mut pairs = Vec::with_capacity(lines.lines.len());
    for line in &lines.lines {
        let same = line.fields.len() == 3;
        let pair = pair_of(line, same, &mut images)
            .map_err(|problem| lines.error(line.number, problem, LAYOUT))?;
        pairs.push(pair);
    }
    Ok(PairList { protocol: Protocol::TenFold, images: images.names, pairs: dealt(pairs) })
}

fn pair_of(line: &Line, same: bool, images: &mut Images) -> Result<Pair, String> {
    let kind = if same { "a matched pair (NAME N N)" } else { "a mismatched pair (NAME N NAME N)" };
    let (left, right) = match (same, &line.fields[..]) {
        (true, &[name, i, j]) => ((name, i), (name, j)),
        (false, &[a, i, b, j]) if a == b => {
            return Err(format!("a mismatched pair of `{a}` (images {i} and {j}) with itself"));
        }
        (false, &[a, i, b, j]) => ((a, i), (b, j)),
        (_, fields) => {
            return Err(format!("{} columns where {kind} is expected", fields.len()));
        }
    };
    let mut image = |(name, number): (&str, &str)| -> Result<u32, String> {
        let n: u32 =
            number.parse().map_err(|_| format!("`{number}` is no image number of `{name}`"))?;
        Ok(images.add(ImageName {
            path: format!("{name}/{name}_{n:04}"),
            any_extension: true,
            person: Some(name.to_owned()),
            line: line.number,
        }))
    };
    Ok(Pair { left: image(left)?, right: image(right)?, same })
}
