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

use crate::{
    MetricError, cmc,
    roc::{Far, RocPoint},
    scores::log_spaced,
};

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

    /// The ROC curve as far as distances were kept, at up to `n_points` FARs that are evenly spaced
    /// in the logarithm, each point by the rule of [`tar_at_far`](Matches::tar_at_far).
    ///
    /// The score of a point is the negated distance. Empty without pairs or distances.
    pub fn roc(&self, n_points: usize) -> Vec<RocPoint> {
        let mut mates: Vec<f64> = self.pairs.iter().map(|pair| pair.distance).collect();
        mates.sort_unstable_by(f64::total_cmp);
        if mates.is_empty() {
            return Vec::new();
        }
        let below = |sorted: &[f64], bound: f64| sorted.partition_point(|&d| d < bound) as f64;
        let point = |allowed: u64| {
            let threshold = self.nearest[allowed as usize];
            RocPoint {
                threshold: -threshold,
                far: below(&self.nearest, threshold) / self.n_negatives() as f64,
                tar: below(&mates, threshold) / mates.len() as f64,
            }
        };
        log_spaced(self.nearest.len() as u64, n_points).into_iter().map(point).collect()
    }
}

/// Distances that must be kept for TAR at `far`.
pub fn n_nearest_for(far: Far, n_probes: u64, n_distractors: u64) -> usize {
    far.allowed(n_probes * n_distractors) as usize + 1
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
    fn the_curve_ends_where_distances_were_kept() {
        let roc = matches().roc(10);
        let points: Vec<(f64, f64)> =
            roc.iter().map(|point| (150.0 * point.far, point.tar)).collect();
        assert_eq!(points, [(0.0, 1.0 / 3.0), (1.0, 2.0 / 3.0), (2.0, 2.0 / 3.0)]);
        assert_eq!(roc[0].threshold, -0.6);
        assert!(Matches { pairs: Vec::new(), ..matches() }.roc(10).is_empty());
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
