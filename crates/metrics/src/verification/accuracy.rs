//! Accuracy over ten folds, each at the threshold that is best on the others.

use super::{
    N_FOLDS, check_pairs,
    folds::{Counts, Grid, folds_to_judge},
    mean_and_std,
};
use crate::MetricError;

/// One fold judged with the threshold that is best on the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoldAccuracy {
    /// Share of the fold's pairs judged rightly.
    pub accuracy: f64,
    /// Squared L2 distance below which a pair was accepted.
    pub threshold: f64,
}

/// The ten-fold result.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracies {
    /// In the order of the pairs.
    pub folds: Vec<FoldAccuracy>,
    /// Mean of the folds' accuracies: the figure that papers quote.
    pub mean: f64,
    /// Population standard deviation of the folds' accuracies.
    pub std: f64,
    /// `[T]` share of genuine pairs accepted at threshold i·0.01, mean over the folds.
    pub tpr: Vec<f64>,
    /// `[T]` share of impostor pairs accepted, mean over the folds.
    pub fpr: Vec<f64>,
}

/// Ten-fold accuracy.
///
/// Folds are contiguous. A pair is accepted when its distance is strictly below the threshold;
/// thresholds are 0, 0.01 … 3.99, of equally good ones on the other nine folds the first counts.
///
/// * `distances`: `[P]` squared L2 distances of unit embeddings
/// * `same`: `[P]` whether the pair is genuine
/// * `weights`: how often pair i counts; `None` is once each. Folds of no weight are left out
///
/// O(P log T + 10·T) time.
///
/// # Errors
///
/// [`MetricError::TooFewPairs`] below ten pairs, [`MetricError::Length`],
/// [`MetricError::NotFinite`].
pub fn ten_fold(
    distances: &[f64],
    same: &[bool],
    weights: Option<&[u64]>,
) -> Result<Accuracies, MetricError> {
    k_fold(distances, same, N_FOLDS, weights)
}

/// As [`ten_fold`], over another number of folds.
///
/// * `n_folds`: 2 or more, since each is judged by the others
///
/// # Errors
///
/// [`MetricError::TooFewPairs`] with fewer pairs than folds, or fewer than two folds; else as
/// [`ten_fold`].
pub fn k_fold(
    distances: &[f64],
    same: &[bool],
    n_folds: usize,
    weights: Option<&[u64]>,
) -> Result<Accuracies, MetricError> {
    check_pairs(distances, same)?;
    let grid = Grid::accuracy();
    let places = grid.place(distances);
    let count = |range| Counts::of(&grid, &places, same, weights, range);
    let folds: Vec<Counts> =
        folds_to_judge(distances.len(), n_folds)?.into_iter().map(count).collect();
    let mut all = Counts::none(grid.thresholds.len());
    folds.iter().for_each(|fold| all.add(fold));
    let judged = folds.iter().filter(|fold| fold.n_pairs() > 0);
    Ok(summarise(&grid, judged.map(|fold| (all.without(fold), fold.clone())).collect()))
}

/// From `(training counts, test counts)` per fold.
pub(super) fn summarise(grid: &Grid, folds: Vec<(Counts, Counts)>) -> Accuracies {
    let mut result = Accuracies {
        folds: Vec::with_capacity(folds.len()),
        mean: 0.0,
        std: 0.0,
        tpr: vec![0.0; grid.thresholds.len()],
        fpr: vec![0.0; grid.thresholds.len()],
    };
    for (training, test) in &folds {
        let best = training.best();
        let accuracy = test.n_right(best) as f64 / test.n_pairs() as f64;
        result.folds.push(FoldAccuracy { accuracy, threshold: grid.thresholds[best] });
        for i in 0..grid.thresholds.len() {
            // A fold without one class adds nothing to that class's curve, as in the reference.
            result.tpr[i] += test.genuine[i] as f64 / test.n_genuine.max(1) as f64;
            result.fpr[i] += test.impostor[i] as f64 / test.n_impostor.max(1) as f64;
        }
    }
    for rate in result.tpr.iter_mut().chain(&mut result.fpr) {
        *rate /= folds.len().max(1) as f64;
    }
    (result.mean, result.std) = mean_and_std(result.folds.iter().map(|fold| fold.accuracy));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_is_judged_by_the_threshold_of_the_others() {
        // Nine folds of (0.5 genuine, 1.5 impostor) put the threshold at 0.51 (51 · 0.01). The
        // first fold's pairs lie the wrong way round, so both are judged wrongly.
        let mut distances = vec![1.5, 0.5];
        distances.extend([0.5, 1.5].repeat(9));
        let same = [true, false].repeat(10);
        let result = ten_fold(&distances, &same, None).unwrap();
        assert_eq!(result.folds[0], FoldAccuracy { accuracy: 0.0, threshold: 51.0 * 0.01 });
        assert_eq!(result.folds[1].accuracy, 1.0);
        assert!((result.mean - 0.9).abs() < 1e-15 && (result.std - 0.3).abs() < 1e-15);
        assert_eq!((result.tpr[51], result.fpr[51]), (0.9, 0.1));
    }

    #[test]
    fn a_weight_is_the_same_as_a_repetition() {
        let distances: Vec<f64> = (0..20).map(|i| f64::from(i * 7 % 20) / 10.0).collect();
        let same: Vec<bool> = (0..20).map(|i| i % 3 == 0).collect();
        let weighted = ten_fold(&distances, &same, Some(&[3; 20])).unwrap();
        assert_eq!(weighted, ten_fold(&distances, &same, None).unwrap());
    }

    #[test]
    fn two_folds_judge_each_other() {
        // Fold 0 separates at 0.51, fold 1 at 0.21: each misjudges what lies between in the other.
        let distances = [0.5, 1.5, 0.5, 1.5, 0.2, 0.3, 0.2, 0.3];
        let same = [true, false].repeat(4);
        let result = k_fold(&distances, &same, 2, None).unwrap();
        let found: Vec<(f64, f64)> =
            result.folds.iter().map(|fold| (fold.accuracy, fold.threshold)).collect();
        assert_eq!(found, [(0.5, 21.0 * 0.01), (0.5, 51.0 * 0.01)]);
        for n_folds in [0, 1, 9] {
            assert!(k_fold(&distances, &same, n_folds, None).is_err(), "{n_folds}");
        }
    }

    #[test]
    fn nine_pairs_are_too_few_for_ten_folds() {
        let error = ten_fold(&[0.5; 9], &[true; 9], None).unwrap_err();
        assert_eq!(error.to_string(), "9 pairs cannot be split into 10 folds");
    }
}
