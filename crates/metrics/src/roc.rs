//! What follows from the order of the scores alone: ROC, TAR@FAR, AUC, EER.

use crate::MetricError;

/// A false accept rate, checked once: `0 < far < 1`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Far(f64);

impl Far {
    /// # Errors
    ///
    /// [`MetricError::FarOutOfRange`] outside (0, 1) and for NaN.
    pub fn new(far: f64) -> Result<Far, MetricError> {
        if far > 0.0 && far < 1.0 { Ok(Far(far)) } else { Err(MetricError::FarOutOfRange { far }) }
    }

    /// The rate as a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Impostors that may be accepted: `⌊far · n⌋`, never all of them.
    ///
    /// The product of a decimal rate and a count is off by one unit in the last place either way
    /// (0.29 · 100 is 28.999…), so a value within 1e-12 below an integer counts as that integer.
    pub fn allowed(self, n_impostors: u64) -> u64 {
        let allowed = (self.0 * n_impostors as f64 * (1.0 + 1e-12)).floor() as u64;
        allowed.min(n_impostors.saturating_sub(1))
    }
}

/// TAR@FAR with what is needed to judge it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TarAtFar {
    /// Share of genuine pairs accepted, in `[0, 1]`.
    pub tar: f64,
    /// The score that a pair must exceed.
    pub threshold: f64,
    /// Impostors that the rate allows; fewer are accepted where scores tie.
    pub allowed: u64,
}

/// The most right judgements that any threshold gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestAccuracy {
    /// Share of pairs judged rightly, in `[0, 1]`.
    pub accuracy: f64,
    /// The score that a pair must exceed, half-way between two neighbouring ones.
    pub threshold: f64,
}

/// One corner of the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RocPoint {
    /// Pairs with at least this score are accepted.
    pub threshold: f64,
    /// Share of impostor pairs accepted.
    pub far: f64,
    /// Share of genuine pairs accepted.
    pub tar: f64,
}

/// Scored pairs in order, equal scores together: the common ground of all figures here.
///
/// Figures that take `weights` count pair `i` (in the order given to [`Ranking::new`]) that many
/// times; `None` counts each once. This is what the bootstrap resamples.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// Pair indices by falling score.
    order: Vec<u32>,
    /// End in `order` of each run of equal scores.
    ends: Vec<u32>,
    scores: Vec<f64>,
    same: Vec<bool>,
}

/// Weight of the genuine and of the impostor pairs up to some score.
#[derive(Debug, Clone, Copy, Default)]
struct Mass {
    genuine: u64,
    impostor: u64,
}

impl Ranking {
    /// Sorts pairs by score.
    ///
    /// * `scores`: `[P]`, higher means more alike, in any order
    /// * `same`: `[P]`, whether the pair is genuine
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] if the two differ in length, [`MetricError::NotFinite`] for a score
    /// that is no finite number.
    pub fn new(scores: &[f64], same: &[bool]) -> Result<Ranking, MetricError> {
        if scores.len() != same.len() {
            return Err(MetricError::Length {
                what: "labels",
                len: same.len(),
                expected: scores.len(),
            });
        }
        if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
            let value = scores[index];
            return Err(MetricError::NotFinite { what: "score", index, value });
        }
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        // `==` and not `total_cmp`: -0 and 0 are one score.
        let ends = (1..=order.len())
            .filter(|&i| {
                i == order.len() || scores[order[i] as usize] != scores[order[i - 1] as usize]
            })
            .map(|i| i as u32)
            .collect();
        Ok(Ranking { order, ends, scores: scores.to_vec(), same: same.to_vec() })
    }

    /// Share of genuine pairs accepted when at most `far` of the impostor pairs are (TAR@FAR).
    ///
    /// The threshold is the score of the (⌊far·N⌋+1)-th highest impostor; a pair is accepted when
    /// its score is strictly above, so ties with that impostor are rejected.
    ///
    /// # Errors
    ///
    /// [`MetricError::TooFewImpostors`] if `far · N < 1`: no sample would set the threshold.
    /// [`MetricError::OneClass`] without genuine pairs.
    pub fn tar_at_far(&self, far: Far, weights: Option<&[u64]>) -> Result<TarAtFar, MetricError> {
        let total = self.total(weights);
        let n_impostors = total.impostor;
        let allowed = far.allowed(n_impostors);
        if allowed == 0 {
            return Err(MetricError::TooFewImpostors { far: far.get(), n_impostors });
        }
        if total.genuine == 0 {
            return Err(MetricError::OneClass { missing: "genuine" });
        }
        let mut below = Mass::default();
        for (threshold, here) in self.runs(weights) {
            if below.impostor + here.impostor > allowed {
                let tar = below.genuine as f64 / total.genuine as f64;
                return Ok(TarAtFar { tar, threshold, allowed });
            }
            below = below + here;
        }
        unreachable!("`Far::allowed` leaves at least one impostor")
    }

    /// Accuracy of a single list at the threshold that is best on the list itself.
    ///
    /// Every threshold between two different scores is tried, and the strictest of equally good ones
    /// counts. Optimistic by nature: the threshold has seen the pairs that it judges.
    ///
    /// # Errors
    ///
    /// [`MetricError::TooFewPairs`] without pairs.
    pub fn best_accuracy(&self, weights: Option<&[u64]>) -> Result<BestAccuracy, MetricError> {
        let total = self.total(weights);
        let n_pairs = total.genuine + total.impostor;
        if n_pairs == 0 {
            return Err(MetricError::TooFewPairs { n_pairs: 0, n_folds: 1 });
        }
        let mut accepted = Mass::default();
        // Before the first run nothing is accepted.
        let mut best = (total.impostor, self.scores[self.order[0] as usize]);
        let mut runs = self.runs(weights).peekable();
        while let Some((score, here)) = runs.next() {
            accepted = accepted + here;
            let n_right = accepted.genuine + total.impostor - accepted.impostor;
            if n_right > best.0 {
                let next = runs.peek().map(|&(next, _)| next);
                best = (n_right, next.map_or(score.next_down(), |next| between(next, score)));
            }
        }
        Ok(BestAccuracy { accuracy: best.0 as f64 / n_pairs as f64, threshold: best.1 })
    }

    /// Chance that a genuine pair scores above an impostor pair, a tie counting half.
    ///
    /// # Errors
    ///
    /// [`MetricError::OneClass`] unless both classes are present.
    pub fn auc(&self, weights: Option<&[u64]>) -> Result<f64, MetricError> {
        let total = self.both_classes(weights)?;
        let mut above = 0;
        // Twice the number of ordered pairs of pairs, so that halves stay integers.
        let mut doubled: u128 = 0;
        for (_, here) in self.runs(weights) {
            doubled += u128::from(here.impostor) * u128::from(2 * above + here.genuine);
            above += here.genuine;
        }
        let pairs = u128::from(total.genuine) * u128::from(total.impostor);
        Ok(doubled as f64 / (2 * pairs) as f64)
    }

    /// Error rate where false accepts and false rejects are equally frequent.
    ///
    /// Read off the ROC polyline: between two neighbouring thresholds both rates are taken as
    /// linear.
    ///
    /// # Errors
    ///
    /// [`MetricError::OneClass`] unless both classes are present.
    pub fn eer(&self, weights: Option<&[u64]>) -> Result<f64, MetricError> {
        let total = self.both_classes(weights)?;
        let mut seen = Mass::default();
        let (mut far_before, mut frr_before) = (0.0, 1.0);
        for (_, here) in self.runs(weights) {
            seen = seen + here;
            let far = seen.impostor as f64 / total.impostor as f64;
            let frr = 1.0 - seen.genuine as f64 / total.genuine as f64;
            if far >= frr {
                // The gap frr - far falls from positive to at most zero on this segment.
                let (gap_before, gap) = (frr_before - far_before, frr - far);
                let share = gap_before / (gap_before - gap);
                return Ok(far_before + share * (far - far_before));
            }
            (far_before, frr_before) = (far, frr);
        }
        unreachable!("the curve ends at FAR 1, FRR 0")
    }

    /// The ROC curve from (0, 0) to (1, 1), its corners only: points on a horizontal or vertical
    /// line between two others are left out.
    ///
    /// # Errors
    ///
    /// [`MetricError::OneClass`] unless both classes are present.
    pub fn roc(&self) -> Result<Vec<RocPoint>, MetricError> {
        let total = self.both_classes(None)?;
        // A finite number, as JSON has no infinity: above the best score nothing is accepted.
        let first = self.scores[self.order[0] as usize].next_up();
        let mut points = vec![RocPoint { threshold: first, far: 0.0, tar: 0.0 }];
        let mut seen = Mass::default();
        for (threshold, here) in self.runs(None) {
            seen = seen + here;
            let far = seen.impostor as f64 / total.impostor as f64;
            let tar = seen.genuine as f64 / total.genuine as f64;
            if let [.., before, last] = points[..]
                && ((before.far == last.far && last.far == far)
                    || (before.tar == last.tar && last.tar == tar))
            {
                points.pop();
            }
            points.push(RocPoint { threshold, far, tar });
        }
        Ok(points)
    }

    /// Genuine and impostor pairs in the sample.
    pub fn counts(&self) -> (u64, u64) {
        let total = self.total(None);
        (total.genuine, total.impostor)
    }

    /// Runs of equal score by falling score, each with its weight per class.
    fn runs<'a>(&'a self, weights: Option<&'a [u64]>) -> impl Iterator<Item = (f64, Mass)> + 'a {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(move |(start, &end)| {
            let run = &self.order[start as usize..end as usize];
            let mass = run.iter().fold(Mass::default(), |m, &i| m + self.mass(i, weights));
            (self.scores[run[0] as usize], mass)
        })
    }

    fn mass(&self, pair: u32, weights: Option<&[u64]>) -> Mass {
        let weight = weights.map_or(1, |w| w[pair as usize]);
        if self.same[pair as usize] {
            Mass { genuine: weight, impostor: 0 }
        } else {
            Mass { genuine: 0, impostor: weight }
        }
    }

    fn total(&self, weights: Option<&[u64]>) -> Mass {
        (0..self.order.len() as u32).fold(Mass::default(), |m, i| m + self.mass(i, weights))
    }

    fn both_classes(&self, weights: Option<&[u64]>) -> Result<Mass, MetricError> {
        let total = self.total(weights);
        match total {
            Mass { genuine: 0, .. } => Err(MetricError::OneClass { missing: "genuine" }),
            Mass { impostor: 0, .. } => Err(MetricError::OneClass { missing: "impostor" }),
            _ => Ok(total),
        }
    }
}

/// A number in `low..high`: half-way, unless rounding makes that `high`.
fn between(low: f64, high: f64) -> f64 {
    let middle = low + (high - low) / 2.0;
    if middle < high { middle } else { low }
}

impl std::ops::Add for Mass {
    type Output = Mass;
    fn add(self, other: Mass) -> Mass {
        Mass { genuine: self.genuine + other.genuine, impostor: self.impostor + other.impostor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(genuine: &[f64], impostor: &[f64]) -> Ranking {
        let scores = [genuine, impostor].concat();
        let same: Vec<bool> = (0..scores.len()).map(|i| i < genuine.len()).collect();
        Ranking::new(&scores, &same).unwrap()
    }

    #[track_caller]
    fn check_tar(genuine: &[f64], impostor: &[f64], far: f64, expected: f64) {
        let far = Far::new(far).unwrap();
        assert_eq!(ranking(genuine, impostor).tar_at_far(far, None).unwrap().tar, expected);
    }

    #[test]
    fn tar_at_far_matches_a_hand_worked_case() {
        // One impostor of four is allowed, so the threshold is the second highest, 0.5.
        check_tar(&[0.9, 0.6, 0.5, 0.1], &[0.7, 0.5, 0.3, 0.2], 0.25, 0.5);
    }

    #[test]
    fn genuine_pairs_that_tie_with_the_threshold_are_rejected() {
        check_tar(&[0.5, 0.5, 0.8], &[0.5, 0.5, 0.1, 0.0], 0.25, 1.0 / 3.0);
    }

    #[test]
    fn a_decimal_rate_is_not_robbed_of_a_pair_by_rounding() {
        assert_eq!(Far::new(0.29).unwrap().allowed(100), 29);
        assert_eq!(Far::new(0.07).unwrap().allowed(100), 7);
        assert_eq!(Far::new(1e-3).unwrap().allowed(2999), 2);
    }

    #[test]
    fn a_far_finer_than_the_sample_is_an_error_not_a_zero() {
        let error = ranking(&[0.9], &[0.1; 99]).tar_at_far(Far::new(0.01).unwrap(), None);
        assert_eq!(error, Err(MetricError::TooFewImpostors { far: 0.01, n_impostors: 99 }));
    }

    #[test]
    fn rates_outside_zero_to_one_are_refused() {
        for far in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(Far::new(far).is_err(), "{far}");
        }
    }

    #[test]
    fn the_best_accuracy_is_found_between_any_two_scores() {
        let best = |genuine: &[f64], impostor: &[f64]| {
            let best = ranking(genuine, impostor).best_accuracy(None).unwrap();
            (best.accuracy, best.threshold)
        };
        // Accepting 0.9 alone judges three of four rightly, and nothing does better.
        assert_eq!(best(&[0.9, 0.5], &[0.4, 0.6]), (0.75, 0.75));
        assert_eq!(best(&[0.9], &[0.1]), (1.0, 0.5));
        // Scores closer together than any fixed grid of thresholds.
        assert_eq!(best(&[1.0 - 1e-12], &[1.0 - 2e-12]).0, 1.0);
        assert_eq!(best(&[], &[0.3, 0.4]), (1.0, 0.4));
        assert!(best(&[0.3, 0.4], &[]).1 < 0.3);
        let neighbours = best(&[0.5_f64.next_up()], &[0.5]);
        assert_eq!(neighbours, (1.0, 0.5));
    }

    #[test]
    fn auc_counts_ties_half() {
        // Of the four (genuine, impostor) pairs two are right, one ties, one is wrong.
        assert_eq!(ranking(&[0.9, 0.4], &[0.4, 0.5]).auc(None).unwrap(), 2.5 / 4.0);
        assert_eq!(ranking(&[1.0], &[0.0, -0.0]).auc(None).unwrap(), 1.0);
    }

    #[test]
    fn eer_matches_hand_worked_cases() {
        assert_eq!(ranking(&[0.9, 0.8], &[0.1, 0.2]).eer(None).unwrap(), 0.0);
        assert_eq!(ranking(&[0.1, 0.2], &[0.9, 0.8]).eer(None).unwrap(), 1.0);
        // Accepting the top three scores takes one impostor of three and leaves one genuine of three.
        let eer = ranking(&[0.9, 0.7, 0.2], &[0.8, 0.3, 0.1]).eer(None).unwrap();
        assert!((eer - 1.0 / 3.0).abs() < 1e-15, "{eer}");
        // All scores equal: the polyline is the diagonal from (0, 0) to (1, 1).
        assert_eq!(ranking(&[0.5; 3], &[0.5; 4]).eer(None).unwrap(), 0.5);
    }

    #[test]
    fn the_curve_keeps_its_corners_only() {
        let points = ranking(&[0.9, 0.8, 0.7, 0.3], &[0.5, 0.4, 0.2]).roc().unwrap();
        let corners: Vec<(f64, f64)> = points.iter().map(|p| (p.far, p.tar)).collect();
        let two_thirds = 2.0 / 3.0;
        assert_eq!(
            corners,
            [(0.0, 0.0), (0.0, 0.75), (two_thirds, 0.75), (two_thirds, 1.0), (1.0, 1.0)]
        );
    }

    #[test]
    fn a_weight_is_the_same_as_a_repetition() {
        let weighted = ranking(&[0.9, 0.4], &[0.5, 0.1, 0.3]);
        let weights = [2, 1, 3, 0, 1];
        let repeated = ranking(&[0.9, 0.9, 0.4], &[0.5, 0.5, 0.5, 0.3]);
        assert_eq!(weighted.auc(Some(&weights)), repeated.auc(None));
        assert_eq!(
            weighted.best_accuracy(Some(&weights)).unwrap().accuracy,
            repeated.best_accuracy(None).unwrap().accuracy
        );
        assert_eq!(weighted.eer(Some(&weights)), repeated.eer(None));
        let far = Far::new(0.25).unwrap();
        assert_eq!(weighted.tar_at_far(far, Some(&weights)), repeated.tar_at_far(far, None));
    }

    #[test]
    fn one_class_is_said_to_be_missing() {
        assert_eq!(
            ranking(&[0.9], &[]).auc(None),
            Err(MetricError::OneClass { missing: "impostor" })
        );
        assert_eq!(
            ranking(&[], &[0.9]).eer(None),
            Err(MetricError::OneClass { missing: "genuine" })
        );
        assert_eq!(ranking(&[], &[]).roc(), Err(MetricError::OneClass { missing: "genuine" }));
    }

    #[test]
    fn a_score_that_is_no_number_is_named() {
        let error = Ranking::new(&[0.1, f64::INFINITY], &[true, false]).unwrap_err();
        assert_eq!(error.to_string(), "score 1 is inf, not a finite number");
    }
}
