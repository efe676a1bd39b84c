//! How a row of centres moves: SGD with momentum, applied to sampled rows or, lazily, to all.

use super::config::Update;

/// A linear map of a row's weight and momentum, the same for each of its elements:
/// `w' = ww * w + wv * v` and `v' = vw * w + vv * v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Weight to weight.
    pub ww: f64,
    /// Momentum to weight.
    pub wv: f64,
    /// Weight to momentum.
    pub vw: f64,
    /// Momentum to momentum.
    pub vv: f64,
}

impl Flow {
    /// The map that changes nothing.
    pub const IDENTITY: Flow = Flow { ww: 1.0, wv: 0.0, vw: 0.0, vv: 1.0 };

    /// This map applied to the outcome of `earlier`.
    #[must_use]
    pub fn after(&self, earlier: &Flow) -> Flow {
        Flow {
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
    pub fn flow(&self) -> Flow {
        Flow {
            ww: 1.0 - self.lr * self.weight_decay,
            wv: -self.lr * self.momentum,
            vw: self.weight_decay,
            vv: self.momentum,
        }
    }
}

/// How far a row has come; a store keeps one for each and does not interpret it, except that
/// [`UNTOUCHED`] rows hold nothing yet.
pub type Stamp = u32;

/// The stamp of a row that still has its initial value and that no memory was spent on.
pub const UNTOUCHED: Stamp = 0;

/// Decides what happens to rows in the steps that do not sample them.
pub trait UpdateRule: Send + Sync {
    /// The step's SGD at learning rate `lr`, for the rows that are sampled.
    fn sgd(&self, lr: f64) -> Sgd;

    /// What a row with this stamp has missed before the current step; `None` if nothing.
    fn missed(&self, stamp: Stamp) -> Option<Flow>;

    /// The stamp of a row that has missed nothing before the current step.
    fn stamp(&self) -> Stamp;

    /// The stamp of a row that has had the current step.
    fn stamp_after(&self) -> Stamp;

    /// Ends the current step.
    fn finish_step(&mut self, lr: f64);

    /// Whether rows must be caught up now, as the rule will not remember further back.
    fn must_catch_up(&self) -> bool;

    /// Told when every row has missed nothing: stamps now start afresh at [`UpdateRule::stamp`].
    fn caught_up(&mut self);

    /// What rows may have missed: the k-th, from 0, is the last k + 1 steps.
    fn memory(&self) -> &[Flow];

    /// Takes up the memory of an earlier head, whose stamps its rows carry; false if this rule has
    /// no use for one, so that the rows must be caught up by the earlier head's.
    #[must_use]
    fn remember(&mut self, memory: &[Flow]) -> bool;
}

/// The rule of the given name.
#[must_use]
pub fn rule(update: Update, momentum: f64, weight_decay: f64) -> Box<dyn UpdateRule> {
    match update {
        Update::Sparse => Box::new(Sparse { momentum, weight_decay }),
        Update::Dense => Box::new(Dense::new(momentum, weight_decay)),
    }
}

/// Rows that are not sampled rest.
#[derive(Debug, Clone)]
pub struct Sparse {
    momentum: f64,
    weight_decay: f64,
}

impl UpdateRule for Sparse {
    fn sgd(&self, lr: f64) -> Sgd {
        Sgd { lr, momentum: self.momentum, weight_decay: self.weight_decay }
    }

    fn missed(&self, _: Stamp) -> Option<Flow> {
        None
    }

    fn stamp(&self) -> Stamp {
        UNTOUCHED + 1
    }

    fn stamp_after(&self) -> Stamp {
        UNTOUCHED + 1
    }

    fn finish_step(&mut self, _: f64) {}

    fn must_catch_up(&self) -> bool {
        false
    }

    fn caught_up(&mut self) {}

    fn memory(&self) -> &[Flow] {
        &[]
    }

    fn remember(&mut self, memory: &[Flow]) -> bool {
        memory.is_empty()
    }
}

/// Every row takes momentum and decay in every step, though only when it is next touched.
///
/// Without a gradient, step t maps (w, v) by a matrix `A_t` that no row changes. A row last moved k
/// steps ago has missed `A_t ... A_(t-k+1)`; those products are kept for every k and carried
/// forward in each step, 16 flops a piece. (Quotients of products from the start would be O(1), but
/// `det A = momentum`, so after 300 steps nothing would be left of them in f64.) The products are
/// formed in f64, so a row is rounded once for k steps where step by step it is rounded k times.
///
/// The list grows by one a step and is cleared whenever all rows are caught up, at the latest after
/// 65,536 steps: 2 MiB, and 0.2 ms a step.
#[derive(Debug, Clone)]
pub struct Dense {
    momentum: f64,
    weight_decay: f64,
    /// `products[k - 1]`: the last k steps.
    products: Vec<Flow>,
}

const STEPS_MAX: usize = 1 << 16;

impl Dense {
    fn new(momentum: f64, weight_decay: f64) -> Dense {
        Dense { momentum, weight_decay, products: Vec::new() }
    }

    /// A rule that makes up for what `memory` holds and goes no further.
    pub(super) fn of_memory(memory: Vec<Flow>) -> Dense {
        Dense { momentum: 0.0, weight_decay: 0.0, products: memory }
    }
}

impl UpdateRule for Dense {
    fn sgd(&self, lr: f64) -> Sgd {
        Sgd { lr, momentum: self.momentum, weight_decay: self.weight_decay }
    }

    fn missed(&self, stamp: Stamp) -> Option<Flow> {
        // An untouched row has missed everything, which is what a row of the first stamp has.
        let n_missed = self.stamp() - stamp.max(UNTOUCHED + 1);
        (n_missed > 0).then(|| self.products[n_missed as usize - 1])
    }

    fn stamp(&self) -> Stamp {
        // At most STEPS_MAX + 1.
        UNTOUCHED + 1 + self.products.len() as Stamp
    }

    fn stamp_after(&self) -> Stamp {
        self.stamp() + 1
    }

    fn finish_step(&mut self, lr: f64) {
        let step = self.sgd(lr).flow();
        // From far to near: what were the last k steps becomes the last k + 1.
        self.products.insert(0, Flow::IDENTITY);
        for product in &mut self.products {
            *product = step.after(product);
        }
    }

    fn must_catch_up(&self) -> bool {
        self.products.len() >= STEPS_MAX
    }

    fn caught_up(&mut self) {
        self.products.clear();
    }

    fn memory(&self) -> &[Flow] {
        &self.products
    }

    fn remember(&mut self, memory: &[Flow]) -> bool {
        self.products = memory.to_vec();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(flow: &Flow, (w, v): (f64, f64)) -> (f64, f64) {
        (flow.ww * w + flow.wv * v, flow.vw * w + flow.vv * v)
    }

    #[test]
    fn a_step_without_gradient_is_sgd_as_torch_has_it() {
        // v = 0.9 * 2 + 0.1 * 5 = 2.3; w = 5 - 0.5 * 2.3 = 3.85
        let sgd = Sgd { lr: 0.5, momentum: 0.9, weight_decay: 0.1 };
        let (w, v) = apply(&sgd.flow(), (5.0, 2.0));
        // The map writes w in terms of the old v: (1 - 0.05) * 5 - 0.45 * 2.
        assert!((v - 2.3).abs() < 1e-12 && (w - 3.85).abs() < 1e-12);
    }

    #[test]
    fn the_missed_steps_are_those_since_the_stamp() {
        let mut dense = Dense::new(0.9, 5e-4);
        let rates = [0.1, 0.07, 0.03, 0.01];
        let mut stamps = vec![dense.stamp()];
        for lr in rates {
            dense.finish_step(lr);
            stamps.push(dense.stamp());
        }
        assert_eq!(dense.missed(stamps[4]), None);
        for (since, &stamp) in stamps[..4].iter().enumerate() {
            let mut row = (0.3, -0.2);
            for &lr in &rates[since..] {
                row = apply(&dense.sgd(lr).flow(), row);
            }
            let (w, v) = apply(&dense.missed(stamp).unwrap(), (0.3, -0.2));
            assert!((w - row.0).abs() < 1e-15 && (v - row.1).abs() < 1e-15, "since {since}");
        }
        assert_eq!(dense.missed(UNTOUCHED), dense.missed(stamps[0]));
    }

    #[test]
    fn a_row_touched_in_a_step_misses_the_next_ones_only() {
        let mut dense = Dense::new(0.9, 0.0);
        let touched = dense.stamp_after();
        dense.finish_step(0.1);
        assert_eq!(touched, dense.stamp());
        dense.finish_step(0.2);
        assert_eq!(dense.missed(touched), Some(dense.sgd(0.2).flow()));
    }

    #[test]
    fn ten_thousand_missed_steps_keep_their_precision() {
        let mut dense = Dense::new(0.9, 5e-4);
        let mut row = (1.0, 1.0);
        for step in 0..10_000 {
            let lr = 0.1 * (1.0 - f64::from(step) / 10_000.0);
            dense.finish_step(lr);
            row = apply(&dense.sgd(lr).flow(), row);
        }
        let (w, v) = apply(&dense.missed(UNTOUCHED).unwrap(), (1.0, 1.0));
        assert!(((w - row.0) / row.0).abs() < 1e-11 && ((v - row.1) / row.1).abs() < 1e-11);
    }

    #[test]
    fn the_memory_of_missed_steps_is_bounded() {
        let mut dense = Dense::new(0.9, 5e-4);
        dense.products = vec![Flow::IDENTITY; STEPS_MAX - 1];
        assert!(!dense.must_catch_up());
        dense.finish_step(0.1);
        assert!(dense.must_catch_up());
        dense.caught_up();
        assert!(!dense.must_catch_up());
        assert_eq!(dense.missed(dense.stamp()), None);
    }

    #[test]
    fn a_sparse_row_misses_nothing() {
        let mut sparse = Sparse { momentum: 0.9, weight_decay: 5e-4 };
        sparse.finish_step(0.1);
        assert_eq!((sparse.missed(UNTOUCHED), sparse.missed(sparse.stamp())), (None, None));
    }
}
