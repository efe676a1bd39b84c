//! Errors of pairs by the quality of their images.

use serde::{Deserialize, Serialize};

/// Pairs of about the same quality, and how many of them are judged wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QualityBin {
    /// Lowest and highest quality of its pairs; nothing of pairs whose quality is not known.
    pub quality: Option<[f64; 2]>,
    /// Pairs of one person.
    pub n_genuine: u64,
    /// Pairs of two people.
    pub n_impostor: u64,
    /// Of the genuine pairs, those that are rejected.
    pub n_rejected: u64,
    /// Of the impostor pairs, those that are accepted.
    pub n_accepted: u64,
}

impl QualityBin {
    /// Share of its pairs that are judged rightly, in `[0, 1]`; NaN of no pairs.
    pub fn accuracy(&self) -> f64 {
        let n = self.n_genuine + self.n_impostor;
        1.0 - (self.n_rejected + self.n_accepted) as f64 / n as f64
    }
}

/// Divides pairs by their quality into `n_bins` bins of about equal numbers, the lowest quality first, and counts
/// what is judged wrongly in each. Pairs of equal quality are divided by their numbers. Pairs whose quality is NaN
/// make a bin of their own, the last one.
///
/// * `quality`: `[P]`, of each pair
/// * `same`: `[P]`, whether it shows one person
/// * `accepted`: `[P]`, whether it is taken for one person
///
/// Bins without pairs are left out. O(P log P) time.
pub fn by_quality(
    quality: &[f64],
    same: &[bool],
    accepted: &[bool],
    n_bins: usize,
) -> Vec<QualityBin> {
    let (mut known, unknown): (Vec<usize>, Vec<usize>) =
        (0..quality.len()).partition(|&pair| !quality[pair].is_nan());
    known.sort_by(|&a, &b| quality[a].total_cmp(&quality[b]));
    let end = |bin: usize| known.len() * bin / n_bins.max(1);
    let bins = (0..n_bins).map(|bin| &known[end(bin)..end(bin + 1)]).chain([&unknown[..]]);
    let bins = bins.filter(|pairs| !pairs.is_empty());
    let count = |pairs: &[usize]| {
        let n = |is_one: &dyn Fn(usize) -> bool| {
            pairs.iter().filter(|&&pair| is_one(pair)).count() as u64
        };
        let ends = [pairs[0], pairs[pairs.len() - 1]].map(|pair| quality[pair]);
        QualityBin {
            quality: (!ends[0].is_nan()).then_some(ends),
            n_genuine: n(&|pair| same[pair]),
            n_impostor: n(&|pair| !same[pair]),
            n_rejected: n(&|pair| same[pair] && !accepted[pair]),
            n_accepted: n(&|pair| !same[pair] && accepted[pair]),
        }
    };
    bins.map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_divided_by_quality_and_their_errors_counted() {
        let quality = [5.0, 1.0, f64::NAN, 4.0, 2.0, 3.0, 6.0];
        let same = [true, true, true, false, false, true, false];
        let accepted = [true, false, false, true, false, true, false];
        let bins = by_quality(&quality, &same, &accepted, 2);
        let bin = |quality, n_genuine, n_impostor, n_rejected, n_accepted| QualityBin {
            quality,
            n_genuine,
            n_impostor,
            n_rejected,
            n_accepted,
        };
        let expected = [
            bin(Some([1.0, 3.0]), 2, 1, 1, 0),
            bin(Some([4.0, 6.0]), 1, 2, 0, 1),
            bin(None, 1, 0, 1, 0),
        ];
        assert_eq!(bins, expected);
        assert!((bins[0].accuracy() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(by_quality(&[], &[], &[], 4), []);
        assert_eq!(by_quality(&[1.0], &[true], &[true], 4).len(), 1);
    }
}
