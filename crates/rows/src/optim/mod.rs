//! How a row of centres moves: an optimizer, applied to sampled rows or, lazily, to all.

mod lazy;

use serde::{Deserialize, Serialize};

pub use lazy::Dense;

/// A linear map of a row's weight and momentum, the same for each of its elements:
/// `w' = ww * w + wv * v` and `v' = vw * w + vv * v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateMap {
    /// Weight to weight.
    pub ww: f64,
    /// Momentum to weight.
    pub wv: f64,
    /// Weight to momentum.
    pub vw: f64,
    /// Momentum to momentum.
    pub vv: f64,
}

impl UpdateMap {
    /// The map that changes nothing.
    pub const IDENTITY: UpdateMap = UpdateMap { ww: 1.0, wv: 0.0, vw: 0.0, vv: 1.0 };

    /// This map applied to the outcome of `earlier`.
    #[must_use]
    pub fn after(&self, earlier: &UpdateMap) -> UpdateMap {
        UpdateMap {
            ww: self.ww * earlier.ww + self.wv * earlier.vw,
            wv: self.ww * earlier.wv + self.wv * earlier.vv,
            vw: self.vw * earlier.ww + self.vv * earlier.vw,
            vv: self.vw * earlier.wv + self.vv * earlier.vv,
        }
    }
}

/// SGD as torch has it: `v = momentum * v + g + weight_decay * w`, then `w -= lr * v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Factor on the old momentum.
    pub momentum: f64,
    /// Factor on the weight, in the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// What a step without gradient does to a row.
    #[must_use]
    pub fn flow(&self) -> UpdateMap {
        UpdateMap {
            ww: 1.0 - self.lr * self.weight_decay,
            wv: -self.lr * self.momentum,
            vw: self.weight_decay,
            vv: self.momentum,
        }
    }
}

/// `AdamW` as torch has it (arXiv 1711.05101), with the bias of the moments corrected by the number
/// of steps of the head, not of the row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Share of the weight taken off, times the learning rate.
    pub weight_decay: f64,
    /// `1 - beta1^t` in step t, from 1.
    pub correction1: f64,
    /// `1 - beta2^t`.
    pub correction2: f64,
}

/// Adagrad with one number of state a row: the sum over steps of the gradient's mean square.
/// `a += mean(g^2)`, then `w -= lr * g / (sqrt(a) + eps)`, with the decay in `g`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowAdagrad {
    /// Learning rate.
    pub lr: f64,
    /// Added to the root of the sum.
    pub eps: f64,
    /// Factor on the weight, in the gradient.
    pub weight_decay: f64,
}

/// What moves a row of centres.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum CentreOptimizer {
    /// SGD with momentum: a number of state for each of the weight.
    #[default]
    Sgd,
    /// `AdamW` (arXiv 1711.05101): two numbers of state for each of the weight. Its moments are not
    /// linear in the row, so it goes with sparse updates alone.
    Adamw {
        /// Decay of the mean gradient, in `[0, 1)`.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// Decay of the mean square, in `[0, 1)`.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Added to the root of the mean square, above 0.
        #[serde(default = "default_eps")]
        eps: f64,
    },
    /// Adagrad with one number of state a row; sparse updates alone.
    RowAdagrad {
        /// Added to the root of the sum of squares, above 0.
        #[serde(default = "default_eps")]
        eps: f64,
    },
}

fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.999
}
fn default_eps() -> f64 {
    1e-8
}

/// What one step makes of a row's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Motion {
    /// State: the momentum.
    Sgd(Sgd),
    /// State: mean gradient, then mean square.
    AdamW(AdamW),
    /// State: one number.
    RowAdagrad(RowAdagrad),
}

/// Steps that the head had taken when a row last moved, plus 1. They only grow, so that of two
/// copies of a row the newer one is known.
pub type Stamp = u32;

/// The stamp of a row that still has its initial value and that no memory was spent on.
pub const UNTOUCHED: Stamp = 0;

/// The stamp of a row that moved before the first step, as an imported one.
pub const FIRST: Stamp = UNTOUCHED + 1;

/// An optimizer of the centres, and what it does with rows in the steps that do not sample them.
pub trait UpdateRule: Send + Sync {
    /// How the current step moves the rows that it samples, at learning rate `lr`.
    fn motion(&self, lr: f64) -> Motion;

    /// The updates that a row with this stamp has missed before the current step; `None` if it is up to
    /// date.
    fn missed(&self, stamp: Stamp) -> Option<UpdateMap>;

    /// The stamp of a row that has missed nothing before the current step.
    fn stamp(&self) -> Stamp;

    /// Whether a row can have this stamp.
    fn knows(&self, stamp: Stamp) -> bool {
        stamp <= self.stamp()
    }

    /// The stamp of a row that has had the current step.
    fn stamp_after(&self) -> Stamp {
        self.stamp() + 1
    }

    /// Called at the end of each step; the rule counts it and adds it to the history.
    fn finish_step(&mut self, lr: f64);

    /// Whether all rows must be brought up to date now, because the history has grown as long as it may.
    fn must_catch_up(&self) -> bool;

    /// Called when every row but those never touched has had all steps: what these have missed goes
    /// on being remembered.
    fn caught_up(&mut self);

    /// The history of updates that rows may have missed, for a checkpoint.
    fn memory(&self) -> UpdateHistory;

    /// Restores the history that was saved in a checkpoint, whose stamps the rows carry. Returns false
    /// if this rule keeps none; the caller must then apply the saved history to the rows itself.
    #[must_use]
    fn remember(&mut self, memory: &UpdateHistory) -> bool;
}

/// The history of updates that rows may have missed.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateHistory {
    /// The stamp of a row that has missed none.
    pub now: Stamp,
    /// The k-th, from 0: the last k + 1 steps together.
    pub missed: Vec<UpdateMap>,
    /// What untouched rows have missed before the earliest of them.
    pub before: UpdateMap,
}

impl UpdateHistory {
    /// An empty history at this time.
    #[must_use]
    pub fn at(now: Stamp) -> UpdateHistory {
        UpdateHistory { now, missed: Vec::new(), before: UpdateMap::IDENTITY }
    }

    /// Whether no row can have missed anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missed.is_empty() && self.before == UpdateMap::IDENTITY
    }
}

/// An optimizer under which rows that are not sampled stay as they are.
#[derive(Debug, Clone)]
pub struct Sparse {
    optimizer: CentreOptimizer,
    momentum: f64,
    weight_decay: f64,
    now: Stamp,
}

impl Sparse {
    /// * `momentum`: of SGD, in `[0, 1)`
    /// * `weight_decay`: at least 0
    #[must_use]
    pub fn new(optimizer: CentreOptimizer, momentum: f64, weight_decay: f64) -> Sparse {
        Sparse { optimizer, momentum, weight_decay, now: FIRST }
    }
}

impl UpdateRule for Sparse {
    fn motion(&self, lr: f64) -> Motion {
        let weight_decay = self.weight_decay;
        match self.optimizer {
            CentreOptimizer::Sgd => Motion::Sgd(Sgd { lr, momentum: self.momentum, weight_decay }),
            CentreOptimizer::Adamw { beta1, beta2, eps } => {
                // The number of this step, from 1, which is the stamp before it.
                let correction = |beta: f64| 1.0 - beta.powf(f64::from(self.now));
                let (correction1, correction2) = (correction(beta1), correction(beta2));
                Motion::AdamW(AdamW {
                    lr,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    correction1,
                    correction2,
                })
            }
            CentreOptimizer::RowAdagrad { eps } => {
                Motion::RowAdagrad(RowAdagrad { lr, eps, weight_decay })
            }
        }
    }

    fn missed(&self, _: Stamp) -> Option<UpdateMap> {
        None
    }

    fn stamp(&self) -> Stamp {
        self.now
    }

    fn finish_step(&mut self, _: f64) {
        self.now += 1;
    }

    fn must_catch_up(&self) -> bool {
        false
    }

    fn caught_up(&mut self) {}

    fn memory(&self) -> UpdateHistory {
        UpdateHistory::at(self.now)
    }

    fn remember(&mut self, memory: &UpdateHistory) -> bool {
        self.now = memory.now;
        memory.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_without_gradient_is_sgd_as_torch_has_it() {
        // v = 0.9 * 2 + 0.1 * 5 = 2.3; w = 5 - 0.5 * 2.3 = 3.85
        let flow = Sgd { lr: 0.5, momentum: 0.9, weight_decay: 0.1 }.flow();
        let (w, v) = (flow.ww * 5.0 + flow.wv * 2.0, flow.vw * 5.0 + flow.vv * 2.0);
        // The map writes w in terms of the old v: (1 - 0.05) * 5 - 0.45 * 2.
        assert!((v - 2.3).abs() < 1e-12 && (w - 3.85).abs() < 1e-12);
    }

    #[test]
    fn a_sparse_row_misses_nothing() {
        let mut sparse = Sparse::new(CentreOptimizer::Sgd, 0.9, 5e-4);
        let before = sparse.stamp();
        sparse.finish_step(0.1);
        assert_eq!((sparse.missed(UNTOUCHED), sparse.missed(before)), (None, None));
        assert_eq!(sparse.stamp(), before + 1);
    }

    #[test]
    fn the_bias_correction_of_the_first_two_steps_is_torchs() {
        let optimizer = CentreOptimizer::Adamw { beta1: 0.9, beta2: 0.75, eps: 1e-8 };
        let mut sparse = Sparse::new(optimizer, 0.9, 5e-4);
        let corrections = |rule: &Sparse| match rule.motion(0.1) {
            Motion::AdamW(adam) => [adam.correction1, adam.correction2],
            other => panic!("{other:?}"),
        };
        let close = |found: [f64; 2], expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
        };
        close(corrections(&sparse), [0.1, 0.25]);
        sparse.finish_step(0.1);
        close(corrections(&sparse), [0.19, 0.4375]);
    }
}
