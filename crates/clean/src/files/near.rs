//! Pictures that look alike: the same picture encoded again, or mirrored.

use std::collections::HashMap;

use pfc_cli::interrupt;
use pfc_findings::{Action, Decision};
use rayon::prelude::*;
use serde_json::json;

use super::{
    Signature,
    bands::{self, Counts, Entry},
};
use crate::{CleanError, Work};

/// Bounds of the pass near.
#[derive(Debug, Clone, Copy)]
pub struct NearOptions {
    /// Number of bits, of 64, in which perceptual hashes may differ; 0 to 7.
    pub near_bits: u32,
    /// Largest mean difference, in grey levels, at which two pictures count as the same.
    pub near_levels: f32,
}

impl NearOptions {
    /// How far two pictures differ, the second one turned left to right or not, where that is as one
    /// picture encoded twice does.
    fn levels(&self, a: &Signature, b: &Signature) -> Option<f32> {
        let is_near = |hash: u64| (a.perceptual ^ hash).count_ones() <= self.near_bits;
        let plain = is_near(b.perceptual).then(|| a.levels(b, false));
        let turned = is_near(b.mirrored).then(|| a.levels(b, true));
        let levels = [plain, turned].into_iter().flatten().fold(f32::INFINITY, f32::min);
        (levels <= self.near_levels).then_some(levels)
    }
}

/// Drops rows that look like another row of their identity, mirrored or not: hashes within `near_bits`, and
/// thumbnails within `near_levels` once brightness is made equal. The best image of each group stays: pinned
/// before free, then the sharper, the one of more detail, the first. Across identities such a pair is a
/// suspicion. A picture whose pixels equal those of another is left to the pass `exact`.
///
/// Notes how many pairs were compared, and how many were not (`near` in the notes). No image is decoded.
/// Takes 52 bytes of memory per row beside the signatures.
///
/// # Errors
///
/// [`CleanError::Interrupted`].
pub fn near(
    work: &mut Work<'_>,
    signatures: &[Option<Signature>],
    options: &NearOptions,
) -> Result<Vec<Decision>, CleanError> {
    let (groups, counts) = groups(work, signatures, options)?;
    work.notes.insert(
        "near".into(),
        json!({
            "hashes_compared": counts.hashes, "pictures_compared": counts.pictures,
            "not_compared": counts.not_compared, "groups": groups.len(),
        }),
    );
    let decide = |group: &Vec<u64>| decide(work, signatures, options, group);
    let mut decisions: Vec<Decision> = groups.par_iter().flat_map_iter(decide).collect();
    decisions.sort_by_key(|decision| decision.row);
    Ok(decisions)
}

/// Groups of rows that are connected by pairs that look alike; rows without such a pair are in no group.
fn groups(
    work: &Work<'_>,
    signatures: &[Option<Signature>],
    options: &NearOptions,
) -> Result<(Vec<Vec<u64>>, Counts), CleanError> {
    // By number, the rows that take part: numbers have 32 bits, as labels of data sets do.
    let rows: Vec<u64> = (0..)
        .zip(signatures)
        .filter(|(row, s)| s.is_some() && !work.state.is_dropped(*row))
        .map(|(row, _)| row)
        .collect();
    let of = |number: u32| signatures[rows[number as usize] as usize].as_ref();
    let mut entries: Vec<Entry> = Vec::with_capacity(2 * rows.len());
    for number in 0..rows.len() as u32 {
        let Some(signature) = of(number) else { continue };
        let entry = |hash, is_mirrored| Entry { hash, row: number, is_mirrored };
        entries.extend([entry(signature.perceptual, false), entry(signature.mirrored, true)]);
    }
    let is_alike = |a: u32, b: u32, is_mirrored: bool| match (of(a), of(b)) {
        (Some(a), Some(b)) => a.levels(b, is_mirrored) <= options.near_levels,
        _ => false,
    };
    let go_on = || !interrupt::requested();
    let found = bands::groups(&mut entries, rows.len(), options.near_bits, &is_alike, go_on);
    drop(entries);
    let total = rows.len() as u64;
    let stopped = CleanError::Interrupted { done: 0, total, unit: "images" };
    let (mut union, counts) = found.ok_or(stopped)?;
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for number in 0..rows.len() {
        let leader = union.leader(number);
        if union.size(leader) > 1 {
            joined.push((leader as u32, number as u32));
        }
    }
    joined.par_sort_unstable();
    let groups = joined.chunk_by(|a, b| a.0 == b.0);
    let rows_of = |group: &[(u32, u32)]| {
        group.iter().map(|(_, number)| rows[*number as usize]).collect::<Vec<u64>>()
    };
    Ok((groups.map(rows_of).collect(), counts))
}

/// What becomes of the rows of a group, the best first: each is compared with those that stay.
fn decide(
    work: &Work<'_>,
    signatures: &[Option<Signature>],
    options: &NearOptions,
    group: &[u64],
) -> Vec<Decision> {
    let mut members: Vec<(u64, &Signature)> =
        group.iter().filter_map(|row| Some((*row, signatures[*row as usize].as_ref()?))).collect();
    members.sort_by(|(a, of_a), (b, of_b)| {
        let pinned = work.state.is_pinned(*b).cmp(&work.state.is_pinned(*a));
        let sharper = of_b.quality.sharpness.total_cmp(&of_a.quality.sharpness);
        pinned.then(sharper).then(of_b.detail.cmp(&of_a.detail)).then(a.cmp(b))
    });
    let mut decisions = Vec::new();
    let mut stay: Vec<(u64, Option<u32>, &Signature)> = Vec::new();
    let mut by_label: HashMap<Option<u32>, Vec<usize>> = HashMap::new();
    for (row, signature) in members {
        let label = work.label(row);
        let decision = |action, reason: &str, partner: u64, levels: f32| {
            let decision = Decision::new(row, work.own_label(row), action, reason);
            decision.scored(levels, options.near_levels).with_partner(partner)
        };
        let same = by_label.get(&label).into_iter().flatten().find_map(|at| {
            let (other, _, of_other) = stay[*at];
            Some((other, options.levels(signature, of_other)?))
        });
        if let Some((other, levels)) = same {
            if !work.state.is_pinned(row) {
                decisions.push(decision(Action::Drop, "near_duplicate", other, levels));
            }
            continue;
        }
        let elsewhere =
            stay.iter().filter(|(_, of, _)| *of != label).find_map(|(other, _, of_other)| {
                Some((*other, of_other.pixels, options.levels(signature, of_other)?))
            });
        if let Some((other, pixels, levels)) = elsewhere
            && pixels != signature.pixels
        {
            decisions.push(decision(Action::Suspect, "one_picture_two_names", other, levels));
        }
        by_label.entry(label).or_default().push(stay.len());
        stay.push((row, label, signature));
    }
    decisions
}
