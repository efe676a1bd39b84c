//! The same picture twice: as bytes, as pixels, or as it looks.

use std::collections::HashMap;

use pfc_cli::number::within;
use pfc_findings::{Action, Decision};
use rayon::prelude::*;

use super::{Signature, perceptual::shrink, signature::decode};
use crate::{IngestError, clean::Work};

/// Bands that a hash is cut into, one more than bits may differ: some band is then equal.
const BANDS_MAX: u32 = 8;
/// Side of the pictures that candidates are compared as.
const COMPARED_SIDE: usize = 56;
/// Rows of one value in a band that each is compared with; crops of one blank background would
/// otherwise cost a square of their number.
const BAND_MAX: usize = 4096;

/// A hash of an image.
type Key = fn(&Signature) -> u128;

/// Bounds of the pass near.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct NearOptions {
    /// near: bits of 64 in which perceptual hashes may differ; 4 find more than 2 and, as pixels
    /// decide, nothing wrong (docs/cleaning.md)
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=7))]
    near_bits: u32,
    /// near: mean difference of the pixels, in grey levels, up to which it is the same picture
    #[arg(long, value_name = "LEVELS", default_value_t = 4.0, value_parser = within(0.0..=255.0f32))]
    near_levels: f32,
}

impl NearOptions {
    /// As arguments.
    pub fn stated(&self) -> Vec<String> {
        vec![
            format!("--near-bits={}", self.near_bits),
            format!("--near-levels={}", self.near_levels),
        ]
    }
}

/// Drops all but one of the rows of an identity with the same bytes or the same pixels. The one that
/// stays is pinned, or else the first. Across identities each further one is a suspicion: one
/// of the two labels is wrong.
pub fn exact(work: &Work<'_>, signatures: &[Option<Signature>]) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut taken: HashMap<u64, ()> = HashMap::new();
    let kinds: [(&str, Key); 2] = [("same_bytes", |s| s.content), ("same_pixels", |s| s.pixels)];
    for (reason, key) in kinds {
        let mut rows: Vec<(u128, bool, u64)> = (0..)
            .zip(signatures)
            .filter(|(row, _)| !work.state.is_dropped(*row) && !taken.contains_key(row))
            .filter_map(|(row, s)| Some((key(s.as_ref()?), !work.state.is_pinned(row), row)))
            .collect();
        rows.par_sort_unstable();
        for same in rows.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let mut kept: Vec<(Option<u32>, u64)> = Vec::new();
            for &(_, is_free, row) in same {
                let label = work.label(row);
                let decision = |action, reason: &str| {
                    Decision::new(row, work.own_label(row), action, reason).scored(0.0, 0.0)
                };
                match kept.iter().find(|(of, _)| *of == label) {
                    Some((_, first)) if is_free => {
                        decisions.push(decision(Action::Drop, reason).with_partner(*first));
                        taken.insert(row, ());
                    }
                    Some(_) => {}
                    None => {
                        if let Some((_, first)) = kept.first() {
                            let decision = decision(Action::Suspect, "one_picture_two_names");
                            // The second kind of hash finds those of the first again.
                            if reason == "same_bytes" || !same_bytes(signatures, row, *first) {
                                decisions.push(decision.with_partner(*first));
                            }
                        }
                        kept.push((label, row));
                    }
                }
            }
        }
    }
    decisions.sort_by_key(|decision| decision.row);
    decisions
}

fn same_bytes(signatures: &[Option<Signature>], a: u64, b: u64) -> bool {
    let content = |row: u64| signatures.get(row as usize)?.map(|s| s.content);
    content(a) == content(b)
}

/// Drops rows that look as another of their identity does: hashes within `near_bits`, and pixels
/// within `near_levels` once brightness is made equal. The sharper image stays. The same across
/// identities is a suspicion. Memory: 16 bytes for each pair of such hashes.
///
/// # Errors
///
/// [`IngestError::BadRow`] for an image that cannot be decoded.
pub fn near(
    work: &Work<'_>,
    signatures: &[Option<Signature>],
    options: &NearOptions,
) -> Result<Vec<Decision>, IngestError> {
    let candidates = candidates(work, signatures, options.near_bits);
    let measured: Vec<Result<f32, IngestError>> =
        candidates.par_iter().map(|&(a, b)| difference(work, a, b)).collect();
    let mut found = Vec::new();
    for (&(a, b), levels) in candidates.iter().zip(measured) {
        let levels = levels?;
        if levels <= options.near_levels {
            found.push((a, b, levels));
        }
    }
    let mut dropped: HashMap<u64, ()> = HashMap::new();
    let mut decisions = Vec::new();
    for (a, b, levels) in found {
        let (stays, goes) = ranked(work, signatures, a, b);
        if dropped.contains_key(&a) || dropped.contains_key(&b) {
            continue;
        }
        let decision = |action, reason: &str| {
            let decision = Decision::new(goes, work.own_label(goes), action, reason);
            decision.scored(levels, options.near_levels).with_partner(stays)
        };
        if work.label(a) != work.label(b) {
            decisions.push(decision(Action::Suspect, "one_picture_two_names"));
        } else if !work.state.is_pinned(goes) {
            decisions.push(decision(Action::Drop, "near_duplicate"));
            dropped.insert(goes, ());
        }
    }
    decisions.sort_by_key(|decision| decision.row);
    Ok(decisions)
}

fn pixels(signatures: &[Option<Signature>], row: u64) -> Option<u128> {
    signatures.get(row as usize)?.map(|s| s.pixels)
}

/// Pinned before free, sharper before dull, first before last.
fn ranked(work: &Work<'_>, signatures: &[Option<Signature>], a: u64, b: u64) -> (u64, u64) {
    let sharpness = |row: u64| {
        signatures.get(row as usize).copied().flatten().map_or(0.0, |s| s.quality.sharpness)
    };
    let order = work.state.is_pinned(b).cmp(&work.state.is_pinned(a));
    let order = order.then(sharpness(b).total_cmp(&sharpness(a))).then(a.cmp(&b));
    if order.is_le() { (a, b) } else { (b, a) }
}

/// Pairs of rows, the lower first, whose hashes differ in at most `bits`, within and across
/// identities; but not of the same pixels under two names, which are what the pass `exact` finds, and
/// of which placeholders make as many as the square of their number. Found by bands: of `bits` + 1
/// parts of a hash one must be equal.
fn candidates(work: &Work<'_>, signatures: &[Option<Signature>], bits: u32) -> Vec<(u64, u64)> {
    let n_bands = (bits + 1).min(BANDS_MAX);
    let is_open = |a: u64, b: u64| {
        pixels(signatures, a) != pixels(signatures, b) || work.label(a) == work.label(b)
    };
    let hashes: Vec<(u64, u64)> = (0..)
        .zip(signatures)
        .filter(|(row, _)| !work.state.is_dropped(*row))
        .filter_map(|(row, s)| Some((s.as_ref()?.perceptual, row)))
        .collect();
    let of_band = |band: u32| {
        let (start, end) = (64 * band / n_bands, 64 * (band + 1) / n_bands);
        let mask = (u64::MAX >> (64 - (end - start))) << start;
        let mut keyed: Vec<(u64, u64, u64)> =
            hashes.iter().map(|&(hash, row)| (hash & mask, row, hash)).collect();
        keyed.par_sort_unstable();
        let buckets: Vec<&[(u64, u64, u64)]> = keyed.chunk_by(|a, b| a.0 == b.0).collect();
        let pairs_of = |bucket: &&[(u64, u64, u64)]| {
            let mut pairs = Vec::new();
            for (i, a) in bucket.iter().enumerate() {
                for b in bucket[i + 1..].iter().take(BAND_MAX) {
                    if (a.2 ^ b.2).count_ones() <= bits && is_open(a.1, b.1) {
                        pairs.push((a.1, b.1));
                    }
                }
            }
            pairs
        };
        buckets.par_iter().flat_map_iter(pairs_of).collect::<Vec<_>>()
    };
    let mut pairs: Vec<(u64, u64)> = Vec::new();
    for band in 0..n_bands {
        pairs.extend(of_band(band));
        // Bands find much the same.
        pairs.par_sort_unstable();
        pairs.dedup();
    }
    pairs
}

/// Mean difference of two pictures of half the side, after their means are made equal.
fn difference(work: &Work<'_>, a: u64, b: u64) -> Result<f32, IngestError> {
    let small = |row: u64| -> Result<Vec<f32>, IngestError> {
        let pixels = decode(work, row)?;
        let (width, height) = (pixels.width as usize, pixels.height as usize);
        let mut small = shrink(&pixels.luma(), width, height, COMPARED_SIDE, COMPARED_SIDE);
        let mean = small.iter().sum::<f32>() / small.len() as f32;
        small.iter_mut().for_each(|v| *v -= mean);
        Ok(small)
    };
    let (a, b) = (small(a)?, small(b)?);
    let sum: f32 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
    Ok(sum / a.len() as f32)
}
