//! `MegaFace`: every probe must find its mate among a million distractors.
//!
//! The devkit compares by Euclidean distance. For each ordered pair of a probe and a mate (another
//! image of the same person) the rank is the number of distractors strictly nearer to the probe
//! than the mate; other people's probes are not in the gallery. Here a fast f32 matrix product only
//! *sorts out* what is clear beyond its worst-case error; everything close is compared in f64. So
//! ranks and thresholds are those of an f64 computation, whatever the order of distractors, the
//! size of the pieces they come in, the number of threads or the machine.

mod matcher;
mod tail;

pub use matcher::Matcher;

use crate::{MetricError, roc::Far};

/// An ordered pair of images of one person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatePair {
    /// Index of the probe.
    pub probe: u32,
    /// Index of the mate, among the probes.
    pub mate: u32,
    /// Euclidean distance between the two.
    pub distance: f64,
    /// Distractors strictly nearer to the probe than the mate.
    pub rank: u32,
}

/// What the probes found among the distractors.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    /// By probe, then by mate.
    pub pairs: Vec<MatePair>,
    /// Distractors in the gallery.
    pub n_distractors: u64,
    /// Images that were compared with the distractors.
    pub n_probes: u64,
    /// The smallest distances between probes and distractors, rising: as many as were asked for, or
    /// all there are.
    pub nearest: Vec<f64>,
}

/// TAR at a FAR, by distance.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TarByDistance {
    /// Share of mate pairs accepted.
    pub tar: f64,
    /// The distance that a pair must stay below.
    pub threshold: f64,
    /// Distractors that may be accepted: `⌊far · negatives⌋`; 0 if the rate is finer than the data.
    pub allowed: u64,
}

impl Matches {
    /// Negative pairs: every probe with every distractor.
    pub fn n_negatives(&self) -> u64 {
        self.n_probes * self.n_distractors
    }

    /// Share of pairs with a rank below k, for k from 1 to `k_max`; `cmc[0]` is "Rank 1".
    ///
    /// Empty pairs give NaN.
    pub fn cmc(&self, k_max: usize) -> Vec<f64> {
        cmc(self.pairs.iter().map(|pair| pair.rank), k_max)
    }

    /// The same, counting each probe once, with its nearest mate.
    pub fn cmc_of_best_mates(&self, k_max: usize) -> Vec<f64> {
        let by_probe = self.pairs.chunk_by(|a, b| a.probe == b.probe);
        cmc(by_probe.filter_map(|pairs| pairs.iter().map(|pair| pair.rank).min()), k_max)
    }

    /// TAR where at most `far` of the negatives are nearer than the threshold, which is the
    /// (⌊far·negatives⌋+1)-th smallest distance; a mate at that very distance is rejected.
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] if fewer distances were kept than the rate needs.
    pub fn tar_at_far(&self, far: Far) -> Result<TarByDistance, MetricError> {
        let allowed = far.allowed(self.n_negatives());
        let Some(&threshold) = self.nearest.get(allowed as usize) else {
            return Err(MetricError::Length {
                what: "smallest distances",
                len: self.nearest.len(),
                expected: allowed as usize + 1,
            });
        };
        let accepted = self.pairs.iter().filter(|pair| pair.distance < threshold).count();
        Ok(TarByDistance { tar: accepted as f64 / self.pairs.len() as f64, threshold, allowed })
    }
}

/// Distances that must be kept for TAR at `far`.
pub fn n_nearest_for(far: Far, n_probes: u64, n_distractors: u64) -> usize {
    far.allowed(n_probes * n_distractors) as usize + 1
}

fn cmc(ranks: impl Iterator<Item = u32>, k_max: usize) -> Vec<f64> {
    let mut counts = vec![0u64; k_max];
    let mut n = 0u64;
    for rank in ranks {
        n += 1;
        if let Some(count) = counts.get_mut(rank as usize) {
            *count += 1;
        }
    }
    let running = counts.iter().scan(0, |sum, &count| {
        *sum += count;
        Some(*sum)
    });
    running.map(|sum| sum as f64 / n as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches() -> Matches {
        let pair = |probe, mate, rank, distance| MatePair { probe, mate, distance, rank };
        Matches {
            pairs: vec![pair(0, 1, 0, 0.5), pair(0, 2, 3, 0.9), pair(1, 0, 1, 0.6)],
            n_distractors: 50,
            n_probes: 3,
            nearest: vec![0.6, 0.7, 0.8],
        }
    }

    #[test]
    fn cmc_counts_pairs_or_probes() {
        let matches = matches();
        assert_eq!(matches.cmc(4), [1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_eq!(matches.cmc_of_best_mates(2), [0.5, 1.0]);
    }

    #[test]
    fn a_mate_at_the_threshold_is_rejected() {
        let at = |far| matches().tar_at_far(Far::new(far).unwrap());
        // 150 negatives: 1e-6 allows none, 0.01 allows one, 0.1 allows 15.
        let expected = TarByDistance { tar: 1.0 / 3.0, threshold: 0.6, allowed: 0 };
        assert_eq!(at(1e-6).unwrap(), expected);
        assert_eq!(at(0.01).unwrap().tar, 2.0 / 3.0);
        let error = at(0.1).unwrap_err();
        assert_eq!(error.to_string(), "smallest distances: 3 values where 16 are expected");
    }
}
