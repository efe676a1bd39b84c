//! The unified cross entropy of `UniFace` (Zhou et al., ICCV 2023):
//! every cosine is judged by itself against one threshold, which is trained.

use tch::{Kind, TchError};

use super::{Loss, Negatives, ParameterStep, SampleLoss, Target, TileCosines};

/// `ln(1 + exp(b - s * (cos_y - m))) + lambda * sum over the negatives of ln(1 + exp(s * cos_j - b))`.
///
/// `b` begins at `ln(10 n)` for n negatives, as in the authors' code, and moves by SGD with the centres'
/// learning rate, momentum and weight decay.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Uniface {
    m: f64,
    lambda: f64,
    bias: f64,
    bias_momentum: f64,
}

impl Uniface {
    pub fn new(m: f64, lambda: f64, n_negatives: u64) -> Uniface {
        let bias = (10.0 * n_negatives.max(1) as f64).ln();
        Uniface { m, lambda, bias, bias_momentum: 0.0 }
    }
}

impl Loss for Uniface {
    fn target(&self, _: usize, cosine: f64) -> Target {
        Target::new(cosine - self.m, 1.0)
    }

    fn shapes_negatives(&self) -> bool {
        true
    }

    fn largest_negative(&self) -> f64 {
        0.0
    }

    fn negatives(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        let logits_tg = tile.cosines()?.f_mul_scalar(tile.scale)?.f_add_scalar(-self.bias)?;
        let values_tg = logits_tg.f_softplus()?.f_mul_scalar(self.lambda)?;
        let slopes_tg = logits_tg.f_sigmoid()?.f_mul_scalar(self.lambda)?;
        debug_assert_eq!(slopes_tg.kind(), Kind::Float);
        // The bias is taken off every logit.
        let by_bias_tg = slopes_tg.f_neg()?;
        tile.sums_of(values_tg, slopes_tg, Some(&by_bias_tg))
    }

    fn combine(&self, negatives: f64, logit: f64) -> SampleLoss {
        let lead = self.bias - logit;
        SampleLoss {
            loss: lead.max(0.0) + (-lead.abs()).exp().ln_1p() + negatives,
            by_positive: -1.0 / (1.0 + (-lead).exp()),
            by_negatives: 1.0,
        }
    }

    fn has_parameter(&self) -> bool {
        true
    }

    fn move_parameter(&mut self, step: &ParameterStep) {
        let gradient = step.by_negatives - step.by_positives + step.weight_decay * self.bias;
        self.bias_momentum = step.momentum * self.bias_momentum + gradient;
        self.bias -= step.lr * self.bias_momentum;
    }

    fn memory(&self) -> Vec<f64> {
        vec![self.bias, self.bias_momentum]
    }

    fn remember(&mut self, memory: &[f64]) {
        if let &[bias, momentum] = memory {
            (self.bias, self.bias_momentum) = (bias, momentum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_positive_at_the_threshold_is_half_sure() {
        let loss = Uniface::new(0.0, 1.0, 100);
        let SampleLoss { loss: value, by_positive, by_negatives } =
            loss.combine(0.25, 1000f64.ln());
        assert!((value - (2f64.ln() + 0.25)).abs() < 1e-12, "{value}");
        assert!((by_positive + 0.5).abs() < 1e-12 && by_negatives == 1.0);
    }

    #[test]
    fn the_bias_moves_as_torch_has_it() {
        let mut loss = Uniface::new(0.4, 1.0, 100);
        loss.remember(&[2.0, 0.5]);
        // Gradient 0.7 - 0.2 = 0.5, with decay 0.6; momentum 0.9 * 0.5 + 0.6 = 1.05; 2 - 0.1 * 1.05.
        let step = ParameterStep {
            by_positives: -0.7,
            by_negatives: -0.2,
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 0.05,
        };
        loss.move_parameter(&step);
        let [bias, momentum] = loss.memory()[..] else { panic!("two numbers") };
        assert!((momentum - 1.05).abs() < 1e-12 && (bias - 1.895).abs() < 1e-12);
    }
}
