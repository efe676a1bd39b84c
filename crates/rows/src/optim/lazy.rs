//! The rule of `arcface_torch` since 2022, where every row moves in every step, made lazy.

use super::{FIRST, Motion, Sgd, Stamp, UNTOUCHED, UpdateHistory, UpdateMap, UpdateRule};

/// Every row takes momentum and decay in every step, though only when it is next touched.
///
/// Without a gradient, step t maps (w, v) by a matrix `A_t` that no row changes. A row last moved k
/// steps ago has missed `A_t ... A_(t-k+1)`; those products are kept for every k and carried
/// forward in each step, 16 flops a piece. (Quotients of products from the start would be O(1), but
/// `det A = momentum`, so after 300 steps nothing would be left of them in f64.) The products are
/// formed in f64, so a row is rounded once for k steps where step by step it is rounded k times.
///
/// The list grows by one a step and is cleared whenever all rows are caught up, at the latest after
/// 65,536 steps: 2 MiB, and 0.2 ms a step. Rows that were never touched are left out of that: one
/// more product holds what they have missed before.
#[derive(Debug, Clone)]
pub struct Dense {
    momentum: f64,
    weight_decay: f64,
    /// The stamp that goes with no product.
    first: Stamp,
    /// `products[k - 1]`: the last k steps.
    products: Vec<UpdateMap>,
    /// What untouched rows have missed before `first`.
    before: UpdateMap,
}

const STEPS_MAX: usize = 1 << 16;

impl Dense {
    /// A rule without a history.
    ///
    /// * `momentum`: in `[0, 1)`
    /// * `weight_decay`: at least 0
    #[must_use]
    pub fn new(momentum: f64, weight_decay: f64) -> Dense {
        let (products, before) = (Vec::new(), UpdateMap::IDENTITY);
        Dense { momentum, weight_decay, first: FIRST, products, before }
    }

    /// A rule that makes up for what `memory` holds and goes no further.
    #[must_use]
    pub fn of_memory(memory: &UpdateHistory) -> Dense {
        let mut rule = Dense::new(0.0, 0.0);
        rule.take_up(memory);
        rule
    }

    fn take_up(&mut self, memory: &UpdateHistory) {
        self.first = memory.now - memory.missed.len() as Stamp;
        self.products.clone_from(&memory.missed);
        self.before = memory.before;
    }

    /// Counts a step that `sgd` took, whose momentum and decay may be others than those of the rule.
    pub fn finish_step_of(&mut self, sgd: &Sgd) {
        let step = sgd.flow();
        // From far to near: what were the last k steps becomes the last k + 1.
        self.products.insert(0, UpdateMap::IDENTITY);
        for product in &mut self.products {
            *product = step.after(product);
        }
    }

    fn sgd(&self, lr: f64) -> Sgd {
        Sgd { lr, momentum: self.momentum, weight_decay: self.weight_decay }
    }
}

impl UpdateRule for Dense {
    fn motion(&self, lr: f64) -> Motion {
        Motion::Sgd(self.sgd(lr))
    }

    fn missed(&self, stamp: Stamp) -> Option<UpdateMap> {
        if stamp == UNTOUCHED {
            let all = self.products.last().map_or(self.before, |all| all.after(&self.before));
            return (all != UpdateMap::IDENTITY).then_some(all);
        }
        // A stamp that is not known is refused when rows are read in.
        let n_missed = self.stamp().checked_sub(stamp)? as usize;
        self.products.get(n_missed.checked_sub(1)?).copied()
    }

    fn knows(&self, stamp: Stamp) -> bool {
        stamp == UNTOUCHED || (self.first..=self.stamp()).contains(&stamp)
    }

    fn stamp(&self) -> Stamp {
        self.first + self.products.len() as Stamp
    }

    fn finish_step(&mut self, lr: f64) {
        self.finish_step_of(&self.sgd(lr));
    }

    fn must_catch_up(&self) -> bool {
        self.products.len() >= STEPS_MAX
    }

    fn caught_up(&mut self) {
        self.before = self.missed(UNTOUCHED).unwrap_or(UpdateMap::IDENTITY);
        self.first = self.stamp();
        self.products.clear();
    }

    fn memory(&self) -> UpdateHistory {
        UpdateHistory { now: self.stamp(), missed: self.products.clone(), before: self.before }
    }

    fn remember(&mut self, memory: &UpdateHistory) -> bool {
        self.take_up(memory);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(flow: &UpdateMap, (w, v): (f64, f64)) -> (f64, f64) {
        (flow.ww * w + flow.wv * v, flow.vw * w + flow.vv * v)
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
        dense.products = vec![UpdateMap::IDENTITY; STEPS_MAX - 1];
        assert!(!dense.must_catch_up());
        dense.finish_step(0.1);
        assert!(dense.must_catch_up());
        dense.caught_up();
        assert!(!dense.must_catch_up());
        assert_eq!(dense.missed(dense.stamp()), None);
    }

    #[test]
    fn rows_left_alone_at_a_catch_up_have_missed_what_was_before_it_too() {
        let (mut once, mut twice) = (Dense::new(0.9, 5e-4), Dense::new(0.9, 5e-4));
        for lr in [0.1, 0.07] {
            once.finish_step(lr);
            twice.finish_step(lr);
        }
        twice.caught_up();
        assert_eq!(twice.missed(UNTOUCHED), once.missed(UNTOUCHED));
        assert_eq!(twice.missed(twice.stamp()), None);
        once.finish_step(0.03);
        twice.finish_step(0.03);
        let [a, b] = [once, twice].map(|rule| apply(&rule.missed(UNTOUCHED).unwrap(), (1.0, 0.0)));
        assert!((a.0 - b.0).abs() < 1e-15 && (a.1 - b.1).abs() < 1e-15);
    }
}
