//! Every centre with every other, in blocks, so that a stopped comparison goes on.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use pfc_cli::{Progress, interrupt};
use pfc_metrics::{
    Rows,
    near::{self, Near},
};
use pfc_shard::{Checksum, hash::content_hash, sealed};
use serde::{Deserialize, Serialize};

use crate::IngestError;

/// Centres compared with all others between two looks at the clock and the user's wishes.
const BLOCK: usize = 4096;
/// Pairs kept at most: beyond, the bound is so low that it says nothing.
const PAIRS_MAX: usize = 20_000_000;
/// Work that a kill may cost. Saving more often would cost more than that is worth.
const SAVED_EVERY: Duration = Duration::from_secs(30);

/// What is kept of a comparison that was stopped.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    /// Of the centres and the bound.
    key: Checksum,
    /// Centres compared so far.
    done: usize,
    pairs: Vec<(u32, u32, f32)>,
}

/// Every pair of `centres` with a product above `threshold`, by (a, b); at most 20 million.
///
/// * `centres`: `[G, D]`
/// * `part`: where what is done is kept every half minute, and on interrupts; removed at the end
///
/// D·G² operations; memory for the pairs.
///
/// # Errors
///
/// [`IngestError`] if `part` cannot be written, or the user interrupts.
pub fn pairs_above(
    centres: Rows<'_>,
    threshold: f32,
    part: &Path,
    quiet: bool,
) -> Result<Vec<Near>, IngestError> {
    let mut standing = resume(part, key(centres, threshold));
    let n = centres.len();
    let progress = Progress::new("compare", "identities", n as u64, quiet);
    progress.add(standing.done as u64);
    let mut saved = Instant::now();
    while standing.done < n {
        if interrupt::requested() {
            save(part, &standing)?;
            let (done, total) = (standing.done as u64, n as u64);
            return Err(IngestError::Interrupted { done, total });
        }
        let end = (standing.done + BLOCK).min(n);
        let found = near::pairs_above(centres, standing.done..end, threshold);
        standing.pairs.extend(found.into_iter().map(|p| (p.a, p.b, p.score)));
        standing.pairs.truncate(PAIRS_MAX);
        progress.add((end - standing.done) as u64);
        standing.done = end;
        if saved.elapsed() >= SAVED_EVERY && end < n {
            save(part, &standing)?;
            saved = Instant::now();
        }
    }
    progress.finish();
    if part.exists() {
        std::fs::remove_file(part).map_err(IngestError::at("remove", part))?;
    }
    Ok(standing.pairs.into_iter().map(|(a, b, score)| Near { a, b, score }).collect())
}

fn key(centres: Rows<'_>, threshold: f32) -> Checksum {
    let mut hashes = Vec::with_capacity(centres.len() * 16 + 4);
    for centre in centres.data().chunks_exact(centres.dim()) {
        let bytes: Vec<u8> = centre.iter().flat_map(|v| v.to_le_bytes()).collect();
        hashes.extend(content_hash(&bytes).to_le_bytes());
    }
    hashes.extend(threshold.to_le_bytes());
    Checksum(content_hash(&hashes))
}

/// What an earlier run left, if it was of the same centres; a damaged file is as good as none.
fn resume(part: &Path, key: Checksum) -> Standing {
    let standing: Option<Standing> = sealed::read(part).ok().flatten();
    let fits = standing.filter(|standing| standing.key == key);
    fits.unwrap_or(Standing { key, done: 0, pairs: Vec::new() })
}

fn save(part: &Path, standing: &Standing) -> Result<(), IngestError> {
    Ok(sealed::write(part, standing)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directions on a circle in no order; each has a twin in another block.
    fn centres() -> Vec<f32> {
        let angle = |i: usize| (i * 2_654_435_761 % 4099) as f32 / 4099.0 * std::f32::consts::TAU;
        (0..2 * 4099).flat_map(|i| [angle(i % 4099).cos(), angle(i % 4099).sin()]).collect()
    }

    fn as_it_stood(part: &Path, standing: &Standing) -> Vec<Near> {
        save(part, standing).unwrap();
        let data = centres();
        let found = pairs_above(Rows::new(&data, 2).unwrap(), 0.999_999_5, part, true).unwrap();
        assert!(!part.exists());
        found
    }

    #[test]
    fn a_stopped_comparison_goes_on_where_it_stood() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        let data = centres();
        let rows = Rows::new(&data, 2).unwrap();
        let whole = pairs_above(rows, 0.999_999_5, &part, true).unwrap();
        // 4,099 directions are 0.00153 apart: others than the twin have cosines up to 0.9999988.
        assert_eq!(whole.len(), 4099);
        let key = key(rows, 0.999_999_5);
        let first = near::pairs_above(rows, 0..BLOCK, 0.999_999_5);
        let pairs: Vec<_> = first.iter().map(|p| (p.a, p.b, p.score)).collect();
        let done = BLOCK;
        assert_eq!(as_it_stood(&part, &Standing { key, done, pairs }), whole);
        // That it does go on there: what the file says of the first block is believed.
        let pairs = vec![(7, 9, 1.0)];
        let believed = as_it_stood(&part, &Standing { key, done, pairs: pairs.clone() });
        assert_eq!((believed[0].a, believed[0].b, believed.len()), (7, 9, 1 + 3));
        let other = Checksum(key.0 ^ 1);
        assert_eq!(as_it_stood(&part, &Standing { key: other, done, pairs }), whole);
    }

    #[test]
    fn what_cannot_be_read_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        std::fs::write(&part, b"{\"key\": 1").unwrap();
        let data = [1.0, 0.0, 1.0, 0.0];
        let rows = Rows::new(&data, 2).unwrap();
        let whole = [Near { a: 0, b: 1, score: 1.0 }];
        assert_eq!(pairs_above(rows, 0.5, &part, true).unwrap(), whole);
        assert!(!part.exists());
        // A 7 that a flipped bit made of a 3.
        save(&part, &Standing { key: key(rows, 0.5), done: 2, pairs: vec![(0, 3, 1.0)] }).unwrap();
        let text = std::fs::read_to_string(&part).unwrap();
        assert!(text.contains("[0,3,1.0]"), "{text}");
        std::fs::write(&part, text.replace("[0,3,1.0]", "[0,7,1.0]")).unwrap();
        assert_eq!(pairs_above(rows, 0.5, &part, true).unwrap(), whole);
    }
}
