//! Every centre with every other, in blocks, so that a stopped comparison goes on.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use pfc_cli::{Progress, interrupt};
use pfc_metrics::{
    Rows,
    near::{self, Best, Near},
};
use pfc_shard::{Checksum, hash::content_hash};
use serde::{Deserialize, Serialize};

use crate::CleanError;

/// Centres compared with all others between two looks at the clock and the user's wishes.
const BLOCK: usize = 4096;
/// Number of pairs that are kept for a centre. One person is in a few identities; a centre that is like more
/// of them keeps those that it is most like, and no identity loses its pairs to others. At most 384 bytes per
/// identity.
const BEST: usize = 32;
/// Time between two saves, which is the work that a kill may lose.
const SAVED_EVERY: Duration = Duration::from_secs(30);

/// Keeps the finished part of a comparison, so that a stopped one can go on.
pub trait Keeper {
    /// Returns what a stopped comparison left, and nothing if that is damaged.
    ///
    /// # Errors
    ///
    /// A fault of the system, which says nothing of what was left.
    fn load(&self) -> Result<Option<Standing>, Box<dyn Error + Send + Sync>>;

    /// Replaces what was kept by what is done so far.
    ///
    /// # Errors
    ///
    /// Why it cannot be kept.
    fn save(&self, standing: &Standing) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Removes what was kept, if there is anything.
    ///
    /// # Errors
    ///
    /// Why it cannot be removed.
    fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Keeps nothing: a stopped comparison begins anew.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Keeper for Nowhere {
    fn load(&self) -> Result<Option<Standing>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }

    fn save(&self, _: &Standing) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// The finished part of a comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Standing {
    /// Checksum of the centres and the bound.
    key: Checksum,
    /// Centres compared so far.
    done: usize,
    pairs: Vec<(u32, u32, f32)>,
}

/// Pairs of `centres` with a product above `threshold`, by (a, b): those that are among the 32 best of
/// one of the two.
///
/// * `centres`: `[G, D]`
/// * `allowed`: whether two centres may be a pair
/// * `keeper`: keeps what is done every half minute, and on interrupts
///
/// Takes D·G² operations and at most 384 bytes per identity.
///
/// # Errors
///
/// [`CleanError`] if what is done cannot be kept, or the user interrupts.
pub fn pairs_above(
    centres: Rows<'_>,
    threshold: f32,
    allowed: impl Fn(usize, usize) -> bool + Sync,
    keeper: &dyn Keeper,
    quiet: bool,
) -> Result<Vec<Near>, CleanError> {
    let mut standing = resume(keeper, key(centres, threshold))?;
    let n = centres.len();
    let mut best = Best::new(n, BEST);
    // What is kept may come from another comparison.
    let kept = standing.pairs.drain(..).filter(|(a, b, _)| a < b && (*b as usize) < n);
    kept.for_each(|(a, b, score)| best.add(Near { a, b, score }));
    let as_kept = |best: &Best| best.pairs().iter().map(|p| (p.a, p.b, p.score)).collect();
    let progress = Progress::new("compare identities", "centres", n as u64, quiet);
    progress.add(standing.done as u64);
    let mut saved = Instant::now();
    while standing.done < n {
        if interrupt::requested() {
            standing.pairs = as_kept(&best);
            keeper.save(&standing).map_err(CleanError::Keep)?;
            let (done, total) = (standing.done as u64, n as u64);
            return Err(CleanError::Interrupted { done, total, unit: "identities" });
        }
        let end = (standing.done + BLOCK).min(n);
        let block = standing.done..end;
        let found = near::pairs_above(centres, block, threshold, BEST, &allowed);
        found.into_iter().for_each(|pair| best.add(pair));
        progress.add((end - standing.done) as u64);
        standing.done = end;
        if saved.elapsed() >= SAVED_EVERY && end < n {
            standing.pairs = as_kept(&best);
            keeper.save(&standing).map_err(CleanError::Keep)?;
            standing.pairs.clear();
            saved = Instant::now();
        }
    }
    progress.finish();
    keeper.remove().map_err(CleanError::Keep)?;
    Ok(best.pairs())
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

/// Returns what an earlier run left, if its centres were the same.
fn resume(keeper: &dyn Keeper, key: Checksum) -> Result<Standing, CleanError> {
    let left = keeper.load().map_err(CleanError::Keep)?;
    let fits = left.filter(|standing| standing.key == key);
    Ok(fits.unwrap_or(Standing { key, done: 0, pairs: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Directions on a circle in no order; each has a twin in another block.
    fn centres() -> Vec<f32> {
        let angle = |i: usize| (i * 2_654_435_761 % 4099) as f32 / 4099.0 * std::f32::consts::TAU;
        (0..2 * 4099).flat_map(|i| [angle(i % 4099).cos(), angle(i % 4099).sin()]).collect()
    }

    /// Keeps in memory.
    #[derive(Default)]
    struct Memory(RefCell<Option<Standing>>);

    impl Keeper for Memory {
        fn load(&self) -> Result<Option<Standing>, Box<dyn Error + Send + Sync>> {
            Ok(self.0.borrow().clone())
        }

        fn save(&self, standing: &Standing) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.0.replace(Some(standing.clone()));
            Ok(())
        }

        fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.0.replace(None);
            Ok(())
        }
    }

    fn as_it_stood(standing: Standing) -> Vec<Near> {
        let data = centres();
        let kept = Memory(RefCell::new(Some(standing)));
        let found =
            pairs_above(Rows::new(&data, 2).unwrap(), 0.999_999_5, |_, _| true, &kept, true)
                .unwrap();
        assert!(kept.load().unwrap().is_none());
        found
    }

    #[test]
    fn a_stopped_comparison_goes_on_where_it_stood() {
        let data = centres();
        let rows = Rows::new(&data, 2).unwrap();
        let whole = pairs_above(rows, 0.999_999_5, |_, _| true, &Nowhere, true).unwrap();
        // 4,099 directions are 0.00153 apart: others than the twin have cosines up to 0.9999988.
        assert_eq!(whole.len(), 4099);
        let key = key(rows, 0.999_999_5);
        let first = near::pairs_above(rows, 0..BLOCK, 0.999_999_5, BEST, |_, _| true);
        let pairs: Vec<_> = first.iter().map(|p| (p.a, p.b, p.score)).collect();
        let done = BLOCK;
        assert_eq!(as_it_stood(Standing { key, done, pairs }), whole);
        // That it does go on there: what is kept of the first block is believed.
        let pairs = vec![(7, 9, 1.0)];
        let believed = as_it_stood(Standing { key, done, pairs: pairs.clone() });
        assert_eq!((believed[0].a, believed[0].b, believed.len()), (7, 9, 1 + 3));
        let other = Checksum(key.0 ^ 1);
        assert_eq!(as_it_stood(Standing { key: other, done, pairs }), whole);
    }
}
