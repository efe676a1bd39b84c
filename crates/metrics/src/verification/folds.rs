//! Contiguous folds and the counts of accepted pairs per fold and threshold.

use std::ops::Range;

use crate::MetricError;

/// Folds of the protocol.
pub const N_FOLDS: usize = 10;

/// Splits `0..n` into contiguous folds; the first `n mod n_folds` hold one more.
///
/// # Errors
///
/// [`MetricError::TooFewPairs`] if a fold would be empty.
pub fn fold_ranges(n: usize, n_folds: usize) -> Result<Vec<Range<usize>>, MetricError> {
    if n_folds == 0 || n < n_folds {
        return Err(MetricError::TooFewPairs { n_pairs: n, n_folds });
    }
    let (size, longer) = (n / n_folds, n % n_folds);
    let start = |fold: usize| fold * size + fold.min(longer);
    Ok((0..n_folds).map(|fold| start(fold)..start(fold + 1)).collect())
}

/// Folds that are each judged by the others, of which there is at least one.
///
/// # Errors
///
/// As [`fold_ranges`], and for fewer than two folds.
pub(super) fn folds_to_judge(n: usize, n_folds: usize) -> Result<Vec<Range<usize>>, MetricError> {
    match n_folds {
        0 | 1 => Err(MetricError::TooFewPairs { n_pairs: n, n_folds }),
        _ => fold_ranges(n, n_folds),
    }
}

/// Thresholds `i · step`, i = 0 … n-1, as f64 products, and a quick way to place a distance.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub thresholds: Vec<f64>,
}

impl Grid {
    /// The 400 thresholds 0, 0.01 … 3.99 of the accuracy.
    pub fn accuracy() -> Grid {
        Grid::new(400, 0.01)
    }

    /// The 4000 thresholds 0, 0.001 … 3.999 of VAL@FAR.
    pub fn val() -> Grid {
        Grid::new(4000, 0.001)
    }

    fn new(n: usize, step: f64) -> Grid {
        Grid { thresholds: (0..n).map(|i| i as f64 * step).collect() }
    }

    /// Index of the first threshold that accepts each distance (`distance < threshold`), or T.
    pub fn place(&self, distances: &[f64]) -> Vec<u16> {
        let place = |d: &f64| self.thresholds.partition_point(|t| t <= d) as u16;
        distances.iter().map(place).collect()
    }
}

/// Pairs accepted at each threshold, per class.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    /// `[T]`, rising.
    pub genuine: Vec<u64>,
    /// `[T]`, rising.
    pub impostor: Vec<u64>,
    pub n_genuine: u64,
    pub n_impostor: u64,
}

impl Counts {
    pub fn none(n_thresholds: usize) -> Counts {
        let zeros = vec![0; n_thresholds];
        Counts { genuine: zeros.clone(), impostor: zeros, n_genuine: 0, n_impostor: 0 }
    }

    /// Counts the pairs of `range`, pair `i` as often as `weights[i]` says.
    pub fn of(
        grid: &Grid,
        places: &[u16],
        same: &[bool],
        weights: Option<&[u64]>,
        range: Range<usize>,
    ) -> Counts {
        let mut counts = Counts::none(grid.thresholds.len());
        for i in range {
            let weight = weights.map_or(1, |w| w[i]);
            let (per_place, n) = if same[i] {
                (&mut counts.genuine, &mut counts.n_genuine)
            } else {
                (&mut counts.impostor, &mut counts.n_impostor)
            };
            *n += weight;
            if let Some(slot) = per_place.get_mut(usize::from(places[i])) {
                *slot += weight;
            }
        }
        for per_place in [&mut counts.genuine, &mut counts.impostor] {
            let mut sum = 0;
            for slot in per_place {
                sum += *slot;
                *slot = sum;
            }
        }
        counts
    }

    pub fn add(&mut self, other: &Counts) {
        self.combine(other, |a, b| a + b);
    }

    /// Takes away counts that were added before.
    pub fn without(&self, part: &Counts) -> Counts {
        let mut rest = self.clone();
        rest.combine(part, |a, b| a - b);
        rest
    }

    fn combine(&mut self, other: &Counts, op: impl Fn(u64, u64) -> u64) {
        for (a, b) in self.genuine.iter_mut().zip(&other.genuine) {
            *a = op(*a, *b);
        }
        for (a, b) in self.impostor.iter_mut().zip(&other.impostor) {
            *a = op(*a, *b);
        }
        self.n_genuine = op(self.n_genuine, other.n_genuine);
        self.n_impostor = op(self.n_impostor, other.n_impostor);
    }

    /// Pairs judged rightly at threshold `i`: genuine accepted, impostors rejected.
    pub fn n_right(&self, i: usize) -> u64 {
        self.genuine[i] + self.n_impostor - self.impostor[i]
    }

    pub fn n_pairs(&self) -> u64 {
        self.n_genuine + self.n_impostor
    }

    /// The first threshold with the most right judgements.
    pub fn best(&self) -> usize {
        (0..self.genuine.len()).rev().max_by_key(|&i| self.n_right(i)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folds_hold_the_remainder() {
        let sizes: Vec<usize> = fold_ranges(47, 10).unwrap().iter().map(Range::len).collect();
        assert_eq!(sizes, [5, 5, 5, 5, 5, 5, 5, 4, 4, 4]);
        assert_eq!(fold_ranges(47, 10).unwrap()[9], 43..47);
        assert!(fold_ranges(9, 10).is_err());
    }

    #[test]
    fn a_pair_at_the_threshold_is_rejected() {
        let grid = Grid::accuracy();
        // 0.07 as a product: 7 · 0.01 is 0.07 + 1 ulp, so a distance of 0.07 is below it.
        assert_eq!(grid.place(&[0.0, 0.005, 0.01, 7.0 * 0.01, 3.99, 4.0]), [1, 1, 2, 8, 400, 400]);
    }

    #[test]
    fn of_equally_good_thresholds_the_first_is_best() {
        let grid = Grid::accuracy();
        let counts = Counts::of(&grid, &grid.place(&[0.5, 1.5]), &[true, false], None, 0..2);
        assert_eq!(counts.best(), 51);
        assert_eq!(counts.n_right(51), 2);
    }
}
