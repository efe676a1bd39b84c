//! Cross entropy of one sample from the two parts of its softmax.

/// The least probability whose logarithm is taken, as in `arcface_torch`: no sample loses more than
/// 69.08.
const PROBABILITY_LEAST: f64 = 1e-30;

/// One sample's softmax: the negatives' sum is taken over all ranks, the positive's logit is known
/// exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SampleSoftmax {
    /// `ln sum exp(logit - offset)` over all classes of the step, the positive's included.
    log_sum: f64,
    /// Probability of all negatives together: `1 - p_y`, without cancellation where `p_y` nears 1.
    pub p_negatives: f64,
    /// `-ln max(p_y, 1e-30)`.
    pub loss: f64,
}

impl SampleSoftmax {
    /// * `negatives`: `sum exp(logit - offset)` over the negatives, 0 or more
    /// * `logit`: the positive's, less the same offset
    pub fn new(negatives: f64, logit: f64) -> SampleSoftmax {
        let log_negatives = negatives.ln();
        // ln((e^n + e^l) / e^l) = ln(1 + e^(n - l)), which keeps its digits where it is near 0.
        let lead = log_negatives - logit;
        let loss = lead.max(0.0) + (-lead.abs()).exp().ln_1p();
        let loss_max = -PROBABILITY_LEAST.ln();
        let log_sum = logit + loss;
        SampleSoftmax {
            log_sum,
            p_negatives: (log_negatives - log_sum).exp(),
            // Not `min`, which would hide a NaN.
            loss: if loss > loss_max { loss_max } else { loss },
        }
    }

    /// `1 / sum exp(logit - offset)`: what turns a negative's exponential into its probability.
    pub fn inverse_sum(&self) -> f64 {
        (-self.log_sum).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(softmax: SampleSoftmax, loss: f64, p_negatives: f64) {
        assert!((softmax.loss - loss).abs() <= 1e-12 * loss.max(1e-300), "{softmax:?}");
        let bound = 1e-12 * p_negatives;
        assert!((softmax.p_negatives - p_negatives).abs() <= bound, "{softmax:?}");
    }

    #[test]
    fn equal_parts_share_the_probability() {
        let softmax = SampleSoftmax::new(3.0, 0.0);
        check(softmax, 4f64.ln(), 0.75);
        assert!((softmax.inverse_sum() - 0.25).abs() < 1e-15);
    }

    #[test]
    fn a_sure_sample_keeps_its_last_digits() {
        // 1 - p = 1e-20 is far below what 1 - p can express in f64, let alone f32.
        check(SampleSoftmax::new(1.0, 20.0 * 10f64.ln()), 1e-20, 1e-20);
    }

    #[test]
    fn a_hopeless_sample_loses_what_the_least_probability_allows() {
        check(SampleSoftmax::new(1.0, -100.0), 30.0 * 10f64.ln(), 1.0);
    }

    #[test]
    fn a_sample_without_negatives_loses_nothing() {
        check(SampleSoftmax::new(0.0, 5.0), 0.0, 0.0);
    }

    #[test]
    fn a_sum_that_is_not_a_number_shows_in_the_loss() {
        assert!(!SampleSoftmax::new(f64::NAN, 0.0).loss.is_finite());
    }
}
