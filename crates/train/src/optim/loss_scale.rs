//! The factor that keeps f16 gradients within the range of f16.

use pfc_model::{Choice, Precision};
use serde::{Deserialize, Serialize};

use crate::config::{Config, LOSS_SCALE_MAX};

/// What the gradient by the embeddings is multiplied by before it goes back through the network, and
/// the gradients by the weights divided by after it.
///
/// It is halved whenever gradients overflow, and doubled after so many steps in which they did not.
/// That is decided from sums over all ranks, so that all have the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    growth_steps: u64,
    state: ScaleState,
}

/// The part of the loss scale that a checkpoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleState {
    scale: f64,
    /// Steps since it changed.
    n_steps: u64,
}

impl LossScale {
    /// The scale at the start of a run; `None` where the network does not compute in f16.
    #[must_use]
    pub fn new(config: &Config) -> Option<LossScale> {
        let state = ScaleState { scale: config.optim.loss_scale, n_steps: 0 };
        let growth_steps = config.optim.loss_scale_steps;
        (config.model.precision == Choice::Given(Precision::F16))
            .then_some(LossScale { growth_steps, state })
    }

    /// The factor.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.state.scale
    }

    /// The state that a checkpoint keeps.
    #[must_use]
    pub fn state(&self) -> ScaleState {
        self.state
    }

    /// Restores what a checkpoint kept.
    pub fn restore(&mut self, state: ScaleState) {
        self.state = state;
    }

    /// Records a step whose gradients were finite; after enough of them the scale doubles.
    pub fn record_finite(&mut self) {
        self.state.n_steps += 1;
        if self.state.n_steps >= self.growth_steps && self.state.scale < LOSS_SCALE_MAX {
            self.state =
                ScaleState { scale: (self.state.scale * 2.0).min(LOSS_SCALE_MAX), n_steps: 0 };
        }
    }

    /// Records a step whose gradients overflowed and halves the scale. Returns whether a smaller scale
    /// may help: at 1 gradients are not multiplied, and overflow by themselves.
    pub fn record_overflow(&mut self) -> bool {
        if self.state.scale <= 1.0 {
            return false;
        }
        self.state = ScaleState { scale: (self.state.scale / 2.0).max(1.0), n_steps: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(first: f64, growth_steps: u64) -> LossScale {
        let mut config = Config::default();
        config.model.precision = Choice::Given(Precision::F16);
        config.optim.loss_scale = first;
        config.optim.loss_scale_steps = growth_steps;
        LossScale::new(&config).unwrap()
    }

    #[test]
    fn only_f16_has_a_scale() {
        assert_eq!(LossScale::new(&Config::default()), None);
        assert_eq!(scale(65536.0, 100).factor(), 65536.0);
    }

    #[test]
    fn it_is_halved_by_an_overflow_and_doubled_after_so_many_steps_without() {
        let mut scale = scale(1024.0, 3);
        assert!(scale.record_overflow());
        assert_eq!(scale.factor(), 512.0);
        (0..2).for_each(|_| scale.record_finite());
        assert_eq!(scale.factor(), 512.0);
        assert!(scale.record_overflow());
        // The count began again.
        (0..2).for_each(|_| scale.record_finite());
        assert_eq!(scale.factor(), 256.0);
        scale.record_finite();
        assert_eq!(scale.factor(), 512.0);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut scale = scale(LOSS_SCALE_MAX, 1);
        scale.record_finite();
        assert_eq!(scale.factor(), LOSS_SCALE_MAX);
        for _ in 0..32 {
            assert!(scale.record_overflow());
        }
        assert_eq!(scale.factor(), 1.0);
        assert!(!scale.record_overflow());
    }

    #[test]
    fn it_goes_on_from_what_was_kept() {
        let mut before = scale(1024.0, 5);
        assert!(before.record_overflow());
        (0..4).for_each(|_| before.record_finite());
        let mut after = scale(65536.0, 5);
        after.restore(before.state());
        after.record_finite();
        assert_eq!(after.factor(), 1024.0);
    }
}
