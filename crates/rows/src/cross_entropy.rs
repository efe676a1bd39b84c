//! Cross entropy of one sample from the two parts of its softmax.

/// The least probability whose logarithm is taken, as in `arcface_torch`: no sample loses more than
/// 69.08.
const PROBABILITY_LEAST: f64 = 1e-30;

/// What one sample costs, and the derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleLoss {
    /// The cost.
    pub loss: f64,
    /// Its derivative by the positive's logit.
    pub by_positive: f64,
    /// What turns a negative's slope, `exp(logit - offset)` in a softmax, into the derivative by its
    /// logit.
    pub by_negatives: f64,
}

impl SampleLoss {
    /// The most that a sample loses: `-ln 1e-30`.
    pub const LOSS_MAX: f64 = 69.077_552_789_821_37;

    /// `-ln max(p, 1e-30)`, with p the positive's share of all exponentials.
    ///
    /// * `negatives`: `sum exp(logit - offset)` over the negatives, 0 or more
    /// * `logit`: the positive's, less the same offset
    #[must_use]
    pub fn softmax(negatives: f64, logit: f64) -> SampleLoss {
        let log_negatives = negatives.ln();
        // ln((e^n + e^l) / e^l) = ln(1 + e^(n - l)), which keeps its digits where it is near 0.
        let lead = log_negatives - logit;
        let loss = lead.max(0.0) + (-lead.abs()).exp().ln_1p();
        let loss_max = -PROBABILITY_LEAST.ln();
        // ln sum exp(logit - offset) over all classes of the step, the positive's included.
        let log_sum = logit + loss;
        SampleLoss {
            // Not `min`, which would hide a NaN.
            loss: if loss > loss_max { loss_max } else { loss },
            // -(1 - p), without cancellation where p nears 1.
            by_positive: -(log_negatives - log_sum).exp(),
            by_negatives: (-log_sum).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: SampleLoss, loss: f64, p_negatives: f64) {
        assert!((found.loss - loss).abs() <= 1e-12 * loss.max(1e-300), "{found:?}");
        let bound = 1e-12 * p_negatives;
        assert!((-found.by_positive - p_negatives).abs() <= bound, "{found:?}");
    }

    #[test]
    fn equal_parts_share_the_probability() {
        let found = SampleLoss::softmax(3.0, 0.0);
        check(found, 4f64.ln(), 0.75);
        assert!((found.by_negatives - 0.25).abs() < 1e-15);
    }

    #[test]
    fn a_sure_sample_keeps_its_last_digits() {
        // 1 - p = 1e-20 is far below what 1 - p can express in f64, let alone f32.
        check(SampleLoss::softmax(1.0, 20.0 * 10f64.ln()), 1e-20, 1e-20);
    }

    #[test]
    fn a_hopeless_sample_loses_what_the_least_probability_allows() {
        check(SampleLoss::softmax(1.0, -100.0), 30.0 * 10f64.ln(), 1.0);
        assert!((SampleLoss::LOSS_MAX - 30.0 * 10f64.ln()).abs() < 1e-13);
    }

    #[test]
    fn a_sample_without_negatives_loses_nothing() {
        check(SampleLoss::softmax(0.0, 5.0), 0.0, 0.0);
    }

    #[test]
    fn a_sum_that_is_not_a_number_shows_in_the_loss() {
        assert!(!SampleLoss::softmax(f64::NAN, 0.0).loss.is_finite());
    }
}
