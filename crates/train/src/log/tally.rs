//! Running means of a run's figures, kept in checkpoints so that a resumed run reports the same.

use serde::{Deserialize, Serialize};

use crate::step::StepFigures;

/// Sums since the last log line and since the epoch began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Since the last log line.
    pub window: Sums,
    /// Since the epoch began.
    pub epoch: Sums,
}

/// Sums of some steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    n_steps: u64,
    loss: f64,
    grad_norm: f64,
    cavg: f64,
    /// Steps whose gradient overflowed.
    #[serde(default)]
    n_skipped: u64,
    /// Steps that were left out because they were not finite.
    #[serde(default, skip_serializing_if = "is_zero")]
    n_not_finite: u64,
    /// Images that could not be loaded, over all ranks.
    #[serde(default, skip_serializing_if = "is_zero")]
    n_replaced: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Tally {
    /// Counts one step.
    pub fn add(&mut self, figures: &StepFigures) {
        self.window.add(figures);
        self.epoch.add(figures);
    }

    /// Counts images that could not be loaded, over all ranks.
    pub fn add_replaced(&mut self, n: u64) {
        self.window.n_replaced += n;
        self.epoch.n_replaced += n;
    }
}

impl Sums {
    fn add(&mut self, figures: &StepFigures) {
        self.n_steps += 1;
        self.loss += figures.loss;
        self.grad_norm += figures.grad_norm;
        self.cavg += figures.cavg;
        self.n_skipped += u64::from(figures.skipped);
        self.n_not_finite += u64::from(figures.not_finite.is_some());
    }

    /// The means, and a new start.
    pub fn take(&mut self) -> Means {
        let sums = std::mem::take(self);
        let n_finite = sums.n_steps.saturating_sub(sums.n_not_finite);
        let n_taken = n_finite.saturating_sub(sums.n_skipped);
        let mean = |sum: f64, n: u64| (n > 0).then(|| sum / n as f64);
        Means {
            loss: mean(sums.loss, n_finite),
            grad_norm: mean(sums.grad_norm, n_taken),
            cavg: mean(sums.cavg, n_finite),
            n_skipped: sums.n_skipped,
            n_not_finite: sums.n_not_finite,
            n_replaced: sums.n_replaced,
        }
    }
}

/// Means over the steps that were finite; `None` over none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Means {
    /// Mean loss.
    pub loss: Option<f64>,
    /// Mean norm of the gradient.
    pub grad_norm: Option<f64>,
    /// Mean cosine of the positives.
    pub cavg: Option<f64>,
    /// Steps whose gradient overflowed, which the mean of its norm leaves out.
    pub n_skipped: u64,
    /// Steps that were left out because they were not finite, which all means leave out.
    pub n_not_finite: u64,
    /// Images that could not be loaded and were replaced.
    pub n_replaced: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::NotFinite;

    #[test]
    fn steps_that_were_left_out_have_no_means() {
        let left_out = StepFigures {
            not_finite: Some(NotFinite { what: "the loss", in_a_row: 1 }),
            ..StepFigures::default()
        };
        let overflowed =
            StepFigures { loss: 4.0, cavg: 0.5, skipped: true, ..StepFigures::default() };
        let taken = StepFigures { loss: 2.0, cavg: 0.25, grad_norm: 3.0, ..StepFigures::default() };
        let means = |steps: &[StepFigures]| {
            let mut sums = Sums::default();
            steps.iter().for_each(|figures| sums.add(figures));
            let Means { loss, grad_norm, cavg, .. } = sums.take();
            [loss, grad_norm, cavg]
        };
        assert_eq!(means(&[]), [None; 3]);
        assert_eq!(means(&[left_out, left_out]), [None; 3]);
        assert_eq!(means(&[left_out, overflowed]), [Some(4.0), None, Some(0.5)]);
        assert_eq!(means(&[left_out, taken, overflowed]), [Some(3.0), Some(3.0), Some(0.375)]);
    }
}
