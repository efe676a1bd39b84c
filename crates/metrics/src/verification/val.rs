//! VAL@FAR: the share of genuine pairs accepted at a threshold chosen for its false accepts.

use super::{
    N_FOLDS, check_pairs,
    folds::{Counts, Grid, folds_to_judge},
    mean_and_std,
};
use crate::{MetricError, roc::Far};

/// One fold judged at the threshold that has the wanted FAR on the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoldVal {
    /// Squared L2 distance below which a pair was accepted; 0 if the FAR is never reached.
    pub threshold: f64,
    /// Share of the fold's genuine pairs accepted, `None` if it has none.
    pub val: Option<f64>,
    /// Share of the fold's impostor pairs accepted, `None` if it has none.
    pub far: Option<f64>,
}

/// The ten-fold result.
#[derive(Debug, Clone, PartialEq)]
pub struct ValAtFar {
    /// In the order of the pairs.
    pub folds: Vec<FoldVal>,
    /// Mean over the folds that have genuine pairs.
    pub mean: f64,
    /// Population standard deviation over the same.
    pub std: f64,
    /// Mean FAR over the folds that have impostor pairs.
    pub far: f64,
}

/// VAL@FAR as `FaceNet` and `insightface` define it.
///
/// Per fold the (FAR, threshold) points of the other nine, thresholds 0, 0.001 … 3.999, are
/// interpolated linearly at `far`: between the last threshold below it and the first above it, or
/// the last threshold that has exactly this FAR. Where `far` is never reached the threshold is 0
/// and nothing is accepted.
///
/// * `weights`: how often pair i counts; `None` is once each
///
/// # Errors
///
/// As [`ten_fold`](super::ten_fold).
pub fn val_at_far(
    distances: &[f64],
    same: &[bool],
    far: Far,
    weights: Option<&[u64]>,
) -> Result<ValAtFar, MetricError> {
    k_fold_val(distances, same, far, N_FOLDS, weights)
}

/// As [`val_at_far`], over another number of folds.
///
/// * `n_folds`: 2 or more, since each is judged by the others
///
/// # Errors
///
/// As [`k_fold`](super::k_fold).
pub fn k_fold_val(
    distances: &[f64],
    same: &[bool],
    far: Far,
    n_folds: usize,
    weights: Option<&[u64]>,
) -> Result<ValAtFar, MetricError> {
    check_pairs(distances, same)?;
    let grid = Grid::val();
    let places = grid.place(distances);
    let ranges = folds_to_judge(distances.len(), n_folds)?;
    let count = |range| Counts::of(&grid, &places, same, weights, range);
    let all = count(0..distances.len());
    let mut folds = Vec::with_capacity(n_folds);
    for range in ranges {
        let training = all.without(&count(range.clone()));
        let threshold = interpolate(&training, &grid.thresholds, far.get());
        let weights = weights.map(|weights| &weights[range.clone()]);
        folds.push(judge(&distances[range.clone()], &same[range], weights, threshold));
    }
    let vals: Vec<f64> = folds.iter().filter_map(|fold| fold.val).collect();
    let fars: Vec<f64> = folds.iter().filter_map(|fold| fold.far).collect();
    let (mean, std) = mean_and_std(vals.iter().copied());
    let (far, _) = mean_and_std(fars.iter().copied());
    Ok(ValAtFar { folds, mean, std, far })
}

/// The threshold at which the training folds have the wanted FAR.
fn interpolate(training: &Counts, thresholds: &[f64], far: f64) -> f64 {
    let rate = |i: usize| training.impostor[i] as f64 / training.n_impostor.max(1) as f64;
    let Some(upper) = (0..thresholds.len()).find(|&i| rate(i) >= far) else { return 0.0 };
    if rate(upper) == far {
        let n = training.impostor[upper];
        return thresholds[training.impostor.partition_point(|&other| other <= n) - 1];
    }
    // At threshold 0 nothing is accepted, so a rate above `far` has one below it.
    let lower = upper - 1;
    let share = (far - rate(lower)) / (rate(upper) - rate(lower));
    thresholds[lower] + share * (thresholds[upper] - thresholds[lower])
}

fn judge(distances: &[f64], same: &[bool], weights: Option<&[u64]>, threshold: f64) -> FoldVal {
    let share = |class: bool| {
        let (mut accepted, mut n) = (0, 0);
        for i in (0..distances.len()).filter(|&i| same[i] == class) {
            let weight = weights.map_or(1, |weights| weights[i]);
            n += weight;
            accepted += if distances[i] < threshold { weight } else { 0 };
        }
        (n > 0).then(|| accepted as f64 / n as f64)
    };
    FoldVal { threshold, val: share(true), far: share(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_that_is_never_reached_accepts_nothing() {
        let result = val_at_far(
            &[0.1, 4.0].repeat(10),
            &[true, false].repeat(10),
            Far::new(0.5).unwrap(),
            None,
        );
        let result = result.unwrap();
        assert_eq!((result.mean, result.far, result.folds[3].threshold), (0.0, 0.0, 0.0));
    }

    #[track_caller]
    fn check_threshold(impostors: [f64; 2], far: f64, expected: f64) {
        // Pairs in threes: a genuine one and both impostors, so FAR is 0, 0.5 and 1.
        let distances = [0.1, impostors[0], impostors[1]].repeat(10);
        let same = [true, false, false].repeat(10);
        let result = val_at_far(&distances, &same, Far::new(far).unwrap(), None).unwrap();
        let ours = result.folds[0].threshold;
        assert!((ours - expected).abs() < 1e-12, "{ours} is not {expected}");
    }

    #[test]
    fn a_rate_between_two_thresholds_is_interpolated() {
        // FAR is 0 up to threshold 1.000 and 0.5 from 1.001: a quarter lies half-way.
        check_threshold([1.0005, 2.0005], 0.25, 1.0005);
    }

    #[test]
    fn of_thresholds_with_exactly_the_rate_the_last_counts() {
        check_threshold([1.0005, 2.0005], 0.5, 2.0);
    }

    #[test]
    fn folds_without_one_class_are_left_out_of_its_mean() {
        let same = [[true; 10], [false; 10]].concat();
        let result = val_at_far(&[0.1; 20], &same, Far::new(0.5).unwrap(), None).unwrap();
        assert_eq!(result.folds[0].far, None);
        assert_eq!(result.folds[9].val, None);
    }

    #[test]
    fn a_weight_counts_a_pair_so_often() {
        let distances: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 30) / 10.0).collect();
        let same: Vec<bool> = distances.iter().map(|&d| d < 1.4).collect();
        let far = Far::new(0.3).unwrap();
        let plain = val_at_far(&distances, &same, far, None).unwrap();
        assert_eq!(val_at_far(&distances, &same, far, Some(&[5; 30])).unwrap(), plain);
        // Each pair of a fold twice, against each pair twice in its row.
        let twice = |values: &[f64]| values.iter().flat_map(|&v| [v, v]).collect::<Vec<f64>>();
        let same_twice: Vec<bool> = same.iter().flat_map(|&s| [s, s]).collect();
        let weighted = val_at_far(&distances, &same, far, Some(&[2; 30])).unwrap();
        assert_eq!(val_at_far(&twice(&distances), &same_twice, far, None).unwrap(), weighted);
    }
}
