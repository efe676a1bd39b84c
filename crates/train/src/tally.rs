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
}

impl Tally {
    /// Counts one step.
    pub fn add(&mut self, figures: &StepFigures) {
        self.window.add(figures);
        self.epoch.add(figures);
    }
}

impl Sums {
    fn add(&mut self, figures: &StepFigures) {
        self.n_steps += 1;
        self.loss += figures.loss;
        self.grad_norm += figures.grad_norm;
        self.cavg += figures.cavg;
        self.n_skipped += u64::from(figures.skipped);
    }

    /// The means, and a new start.
    pub fn take(&mut self) -> Means {
        let Sums { n_steps, loss, grad_norm, cavg, n_skipped } = std::mem::take(self);
        let (n, n_taken) = (n_steps.max(1) as f64, n_steps.saturating_sub(n_skipped).max(1) as f64);
        Means { loss: loss / n, grad_norm: grad_norm / n_taken, cavg: cavg / n, n_skipped }
    }
}

/// Means over some steps; all 0 over none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Means {
    /// Of the loss.
    pub loss: f64,
    /// Of the gradient's norm.
    pub grad_norm: f64,
    /// Of the positives' cosine.
    pub cavg: f64,
    /// Steps whose gradient overflowed, which that of its norm leaves out.
    pub n_skipped: u64,
}
