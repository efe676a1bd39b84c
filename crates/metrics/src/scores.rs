//! Read-offs from tens of millions of scores: exact, and every way in which papers read them.
//!
//! [`roc::Ranking`](crate::roc::Ranking) keeps track of which pair has which score; here only the
//! scores of each class are kept, sorted, which is what IJB-C's 15.7 million pairs leave time for.

use crate::{
    MetricError,
    roc::{Far, RocPoint},
    sort::sort_descending,
};

/// Scores of each class, from high to low.
#[derive(Debug, Clone, PartialEq)]
pub struct SortedScores {
    genuine: Vec<f64>,
    impostor: Vec<f64>,
}

/// TAR where at most a given share of the impostors is accepted.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct AtMost {
    /// Share of genuine pairs accepted, in `[0, 1]`.
    pub tar: f64,
    /// The score that a pair must exceed.
    pub threshold: f64,
    /// Impostors that the rate allows: `⌊far · N⌋`. At 0 the rate is finer than the data: the best
    /// impostor sets the threshold.
    pub allowed: u64,
}

/// A point of the ROC curve as the reference picks it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Nearest {
    /// Share of genuine pairs accepted there.
    pub tar: f64,
    /// Share of impostor pairs accepted there, which may lie on either side of the one asked for.
    pub far: f64,
}

/// Which points of the ROC curve a read-off may land on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// One point per distinct score.
    Full,
    /// As scikit-learn's `roc_curve` leaves it by default: an inner point is dropped where the
    /// step to it and the step from it are equal in both counts. Published tables come from this.
    Decimated,
}

impl SortedScores {
    /// Sorts the scores of each class.
    ///
    /// * `scores`: `[P]`, higher means more alike, in any order
    /// * `same`: `[P]`, whether the pair is genuine
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] if the two differ in length, [`MetricError::NotFinite`] for a score
    /// that is no finite number, [`MetricError::OneClass`] unless there are pairs of both classes.
    pub fn new(scores: &[f64], same: &[bool]) -> Result<SortedScores, MetricError> {
        if scores.len() != same.len() {
            let (len, expected) = (same.len(), scores.len());
            return Err(MetricError::Length { what: "labels", len, expected });
        }
        if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
            return Err(MetricError::NotFinite { what: "score", index, value: scores[index] });
        }
        let n_genuine = same.iter().filter(|&&same| same).count();
        let mut genuine = Vec::with_capacity(n_genuine);
        let mut impostor = Vec::with_capacity(scores.len() - n_genuine);
        for (&score, &same) in scores.iter().zip(same) {
            // `-0.0 + 0.0` is `0.0`: one score, not two that sort apart.
            if same { &mut genuine } else { &mut impostor }.push(score + 0.0);
        }
        if genuine.is_empty() || impostor.is_empty() {
            let missing = if genuine.is_empty() { "genuine" } else { "impostor" };
            return Err(MetricError::OneClass { missing });
        }
        sort_descending(&mut genuine);
        sort_descending(&mut impostor);
        Ok(SortedScores { genuine, impostor })
    }

    /// Scores of genuine pairs, from high to low; at least one.
    pub fn genuine(&self) -> &[f64] {
        &self.genuine
    }

    /// Scores of impostor pairs, from high to low; at least one.
    pub fn impostor(&self) -> &[f64] {
        &self.impostor
    }

    /// Share of genuine pairs accepted when at most `far` of the impostor pairs are (TAR@FAR).
    ///
    /// The threshold is the (⌊far·N⌋+1)-th highest impostor score; a pair is accepted when its
    /// score is strictly above, so ties with that impostor are rejected.
    pub fn at_most(&self, far: Far) -> AtMost {
        let allowed = far.allowed(self.impostor.len() as u64);
        let threshold = self.impostor[allowed as usize];
        AtMost { tar: share(above(&self.genuine, threshold), &self.genuine), threshold, allowed }
    }

    /// The point whose FAR is nearest to each of `targets`, as the reference reads its tables.
    ///
    /// Of equally near FARs the larger, and of points with equal FAR the one with the largest TAR.
    /// The curve starts at (0, 0). With fewer than 1/FAR impostors that is FAR 0 or 1/N.
    ///
    /// `targets` must rise. One pass over the scores.
    pub fn nearest(&self, targets: &[f64], curve: Curve) -> Vec<Nearest> {
        let n = self.impostor.len() as f64;
        let point = |at: Counts| Nearest {
            tar: share(at.genuine as usize, &self.genuine),
            far: at.impostor as f64 / n,
        };
        let mut found = Vec::with_capacity(targets.len());
        let mut before = Counts::default();
        let mut last = Counts::default();
        let mut settle = |before: Counts, last: Counts| {
            let (far_before, far_last) = (before.impostor as f64 / n, last.impostor as f64 / n);
            while let Some(&target) = targets.get(found.len())
                && far_last >= target
            {
                let last_is_nearer = (far_last - target).abs() <= (far_before - target).abs();
                found.push(point(if last_is_nearer { last } else { before }));
            }
        };
        self.walk(curve, |at| {
            if at.impostor != last.impostor {
                settle(before, last);
                before = last;
            }
            last = at;
        });
        settle(before, last);
        // Targets above 1 would lie beyond the end of the curve.
        found.resize(targets.len(), point(last));
        found
    }

    /// Chance that a genuine pair scores above an impostor pair, a tie counting half.
    pub fn auc(&self) -> f64 {
        let n_impostors = self.impostor.len();
        let mut doubled: u128 = 0;
        let (mut n_above, mut n_at_least) = (0, 0);
        for score in &self.genuine {
            while n_above < n_impostors && self.impostor[n_above] > *score {
                n_above += 1;
            }
            n_at_least = n_at_least.max(n_above);
            while n_at_least < n_impostors && self.impostor[n_at_least] >= *score {
                n_at_least += 1;
            }
            doubled += 2 * (n_impostors - n_at_least) as u128 + (n_at_least - n_above) as u128;
        }
        doubled as f64 / (2 * self.genuine.len() as u128 * n_impostors as u128) as f64
    }

    /// The curve at `n_points` FARs, evenly spaced in the logarithm from one impostor to all, each
    /// point by the rule of [`at_most`](SortedScores::at_most); fewer where points would coincide.
    pub fn roc(&self, n_points: usize) -> Vec<RocPoint> {
        let n_impostors = self.impostor.len();
        let point = |allowed: u64| {
            let threshold = self.impostor[allowed as usize];
            RocPoint {
                threshold,
                far: above(&self.impostor, threshold) as f64 / n_impostors as f64,
                tar: share(above(&self.genuine, threshold), &self.genuine),
            }
        };
        let counts = log_spaced(n_impostors as u64, n_points);
        let mut points: Vec<RocPoint> = counts.into_iter().map(point).collect();
        points.dedup_by(|a, b| a.threshold == b.threshold);
        points
    }

    /// Calls `visit` at each point of the curve but (0, 0), by falling score.
    fn walk(&self, curve: Curve, mut visit: impl FnMut(Counts)) {
        let mut decimated = Decimated::default();
        let (mut g, mut i) = (0, 0);
        while g < self.genuine.len() || i < self.impostor.len() {
            let next_genuine = self.genuine.get(g).copied().unwrap_or(f64::NEG_INFINITY);
            let next_impostor = self.impostor.get(i).copied().unwrap_or(f64::NEG_INFINITY);
            let score = next_genuine.max(next_impostor);
            while g < self.genuine.len() && self.genuine[g] == score {
                g += 1;
            }
            while i < self.impostor.len() && self.impostor[i] == score {
                i += 1;
            }
            let at = Counts { genuine: g as u64, impostor: i as u64 };
            match curve {
                Curve::Full => visit(at),
                Curve::Decimated => decimated.push(at, &mut visit),
            }
        }
        decimated.finish(visit);
    }
}

/// Up to `n_points` whole numbers from 0 to `n` − 1 whose successors are evenly spaced in the
/// logarithm, each once.
pub(crate) fn log_spaced(n: u64, n_points: usize) -> Vec<u64> {
    let n_points = n_points.max(2);
    let decades = (n as f64).log10();
    let at = |i: usize| 10f64.powf(decades * i as f64 / (n_points - 1) as f64).round() as u64;
    let mut all: Vec<u64> =
        (0..n_points).map(|i| at(i).clamp(1, n.max(1)) - 1).filter(|&at| at < n).collect();
    all.dedup();
    all
}

/// Pairs accepted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    genuine: u64,
    impostor: u64,
}

impl Counts {
    fn step_from(self, before: Counts) -> Counts {
        Counts { genuine: self.genuine - before.genuine, impostor: self.impostor - before.impostor }
    }
}

/// Holds a point back until it is known whether the step from it equals the step to it.
#[derive(Debug, Default)]
struct Decimated {
    held: Option<(Counts, Option<Counts>)>,
}

impl Decimated {
    fn push(&mut self, at: Counts, visit: impl FnOnce(Counts)) {
        let mut step = None;
        if let Some((held, step_to_held)) = self.held {
            step = Some(at.step_from(held));
            // The first point has no step to it (scikit-learn adds (0, 0) later) and stays.
            if step_to_held != step {
                visit(held);
            }
        }
        self.held = Some((at, step));
    }

    fn finish(self, visit: impl FnOnce(Counts)) {
        if let Some((last, _)) = self.held {
            visit(last);
        }
    }
}

/// How many of `sorted`, which falls, are strictly above `threshold`.
fn above(sorted: &[f64], threshold: f64) -> usize {
    sorted.partition_point(|&score| score > threshold)
}

fn share(count: usize, of: &[f64]) -> f64 {
    count as f64 / of.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(genuine: &[f64], impostor: &[f64]) -> SortedScores {
        let scores = [genuine, impostor].concat();
        let same: Vec<bool> = (0..scores.len()).map(|i| i < genuine.len()).collect();
        SortedScores::new(&scores, &same).unwrap()
    }

    #[track_caller]
    fn check_nearest(scores: &SortedScores, target: f64, full: [f64; 2], decimated: [f64; 2]) {
        let at = |curve| {
            let nearest = scores.nearest(&[target], curve)[0];
            [nearest.tar, nearest.far]
        };
        assert_eq!(at(Curve::Full), full, "full");
        assert_eq!(at(Curve::Decimated), decimated, "decimated");
    }

    #[test]
    fn nearest_lands_on_corners_only_when_decimated() {
        // By falling score: i i i i g i. Full curve: FAR 0.2, 0.4, 0.6, 0.8 at TAR 0, then
        // (0.8, 1), (1, 1). The inner points of the run of four are dropped.
        let scores = sorted(&[0.3], &[0.9, 0.8, 0.7, 0.6, 0.2]);
        check_nearest(&scores, 0.45, [0.0, 0.4], [0.0, 0.2]);
        check_nearest(&scores, 0.6, [0.0, 0.6], [1.0, 0.8]);
    }

    #[test]
    fn a_tied_run_breaks_the_dropping() {
        // Steps of 1, 2, 1 impostors are unequal, so all their points stay.
        let scores = sorted(&[0.3], &[0.9, 0.8, 0.8, 0.6, 0.2]);
        check_nearest(&scores, 0.55, [0.0, 0.6], [0.0, 0.6]);
    }

    #[test]
    fn of_two_equally_near_points_the_larger_counts() {
        let scores = sorted(&[0.95, 0.85], &[0.9, 0.8]);
        check_nearest(&scores, 0.25, [1.0, 0.5], [1.0, 0.5]);
        check_nearest(&scores, 0.2, [0.5, 0.0], [0.5, 0.0]);
    }

    #[test]
    fn a_far_finer_than_the_data_reads_at_zero_or_at_one_impostor() {
        let scores = sorted(&[0.95, 0.85], &[0.9, 0.8]);
        let [at_zero, at_half] = [1e-6, 0.4].map(|t| scores.nearest(&[t], Curve::Full)[0]);
        assert_eq!((at_zero.far, at_half.far), (0.0, 0.5));
        let at_most = scores.at_most(Far::new(1e-6).unwrap());
        assert_eq!(at_most, AtMost { tar: 0.5, threshold: 0.9, allowed: 0 });
    }

    #[test]
    fn ties_with_the_threshold_are_rejected() {
        let scores = sorted(&[0.5, 0.5, 0.8], &[0.5, 0.5, 0.1, 0.0]);
        let at_most = scores.at_most(Far::new(0.25).unwrap());
        assert_eq!(at_most, AtMost { tar: 1.0 / 3.0, threshold: 0.5, allowed: 1 });
    }

    #[test]
    fn auc_counts_ties_half() {
        assert_eq!(sorted(&[0.9, 0.4], &[0.4, 0.5]).auc(), 2.5 / 4.0);
        assert_eq!(sorted(&[0.0], &[-0.0]).auc(), 0.5);
    }

    #[test]
    fn the_curve_agrees_with_the_read_offs() {
        let scores = sorted(&[0.9, 0.7, 0.65, 0.1], &[0.8, 0.6, 0.5, 0.4, 0.3, 0.2]);
        for point in scores.roc(50) {
            assert_eq!(point.far, above(&scores.impostor, point.threshold) as f64 / 6.0);
            assert_eq!(point.tar, above(&scores.genuine, point.threshold) as f64 / 4.0);
        }
        assert_eq!(scores.roc(50).len(), 6);
    }

    #[test]
    fn one_class_and_a_nan_are_named() {
        let missing = SortedScores::new(&[0.1], &[true]).unwrap_err();
        assert_eq!(missing, MetricError::OneClass { missing: "impostor" });
        let error = SortedScores::new(&[0.1, f64::NAN], &[true, false]).unwrap_err();
        assert_eq!(error.to_string(), "score 1 is NaN, not a finite number");
    }
}
