//! A tile of centres in the memory of the host.

// T = rows of the tile, D = embedding.

use std::ops::Range;

use half::bf16;
use tch::{Kind, Tensor};

use super::{
    HeadError,
    elements::{Number, with_elements, with_elements_mut},
    random::{Purpose, fill_normal, key},
    row,
    store::{CentreTile, TileGradient},
    update::{Stamp, UNTOUCHED, UpdateRule},
};

/// Standard deviation of the initial centres, as in `arcface_torch`.
const INITIAL_DEVIATION: f32 = 0.01;

/// Rows that are called into the cache together before they are worked on.
const TOUCH_ROWS: usize = 8;

/// Where initial values come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Initial {
    pub seed: u64,
    /// Class of row 0.
    pub first_class: u64,
}

impl Initial {
    /// Writes the initial value of `row`.
    pub fn fill(&self, row: usize, weight: &mut [f32]) {
        let class = self.first_class + row as u64;
        fill_normal(key(self.seed, Purpose::InitialCentre, class), INITIAL_DEVIATION, weight);
    }
}

/// Some rows, and the stretch of memory from the first to the last of them.
pub(super) struct HostTile<'a> {
    pub initial: Initial,
    pub dim: usize,
    /// The store's row at which the memory starts.
    pub first: usize,
    /// Rows of the store, strictly ascending.
    pub rows: &'a [u32],
    pub weight: &'a mut [f32],
    pub momentum: &'a mut [f32],
    pub stamps: &'a mut [Stamp],
}

/// One row of a tile.
struct Row<'a> {
    weight: &'a mut [f32],
    momentum: &'a mut [f32],
    stamp: &'a mut Stamp,
}

impl HostTile<'_> {
    /// The `i`-th row; one never used before is given its value first.
    fn row(&mut self, i: usize, rule: &dyn UpdateRule) -> Row<'_> {
        let row = self.rows[i] as usize;
        let at = row - self.first;
        let values = at * self.dim..(at + 1) * self.dim;
        let stamp = &mut self.stamps[at];
        let weight = &mut self.weight[values.clone()];
        let momentum = &mut self.momentum[values];
        if *stamp == UNTOUCHED {
            self.initial.fill(row, weight);
            if let Some(flow) = rule.missed(UNTOUCHED) {
                row::advance(&flow, weight, momentum);
            }
            *stamp = rule.stamp();
        }
        Row { weight, momentum, stamp }
    }

    /// Loads a value of every cache line of a few rows.
    ///
    /// Rows are far apart in memory, and the work on one is too long for the processor to look
    /// ahead to the next; loads with nothing in between wait for the memory all at once.
    fn touch(&self, rows: Range<usize>, momentum_too: bool) {
        const LINE: usize = 64 / size_of::<f32>();
        let mut seen = 0;
        for &row in &self.rows[rows] {
            let row = row as usize - self.first;
            if self.stamps[row] == UNTOUCHED {
                // A load would have the system map a page that the store to it maps again.
                continue;
            }
            let first = row * self.dim;
            for at in (first..first + self.dim).step_by(LINE) {
                seen |= self.weight[at].to_bits();
                if momentum_too {
                    seen |= self.momentum[at].to_bits();
                }
            }
        }
        std::hint::black_box(seen);
    }

    /// The positions of the tile's rows in the batches that are touched together.
    fn batches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_rows = self.rows.len();
        (0..n_rows).step_by(TOUCH_ROWS).map(move |start| start..(start + TOUCH_ROWS).min(n_rows))
    }

    fn write_units<T: Number>(&mut self, rule: &dyn UpdateRule, out: &mut [T]) {
        let dim = self.dim;
        let mut advanced = vec![0.0; dim];
        let any_missed = rule.missed(UNTOUCHED).is_some();
        for batch in self.batches() {
            self.touch(batch.clone(), any_missed);
            for i in batch {
                let row = self.row(i, rule);
                let weight = match rule.missed(*row.stamp) {
                    Some(flow) => {
                        row::advanced(&flow, (row.weight, row.momentum), &mut advanced);
                        &advanced
                    }
                    None => &*row.weight,
                };
                let inverse_length = row::inverse_length(weight);
                for (out, w) in out[i * dim..][..dim].iter_mut().zip(weight) {
                    *out = T::of_f32(w * inverse_length);
                }
            }
        }
    }

    fn move_rows<T: Number>(
        &mut self,
        rule: &dyn UpdateRule,
        negatives: &[T],
        gradient: &TileGradient<'_>,
        lr: f64,
    ) {
        let dim = self.dim;
        let sgd = rule.sgd(lr);
        let mut by_unit = vec![0.0; dim];
        let mut pulls = gradient.as_positives.iter().peekable();
        with_elements(gradient.unit_embeddings_gd, |unit_embeddings: &[f32]| {
            for batch in self.batches() {
                self.touch(batch.clone(), true);
                for i in batch {
                    for (out, value) in by_unit.iter_mut().zip(&negatives[i * dim..][..dim]) {
                        *out = value.to_f32();
                    }
                    while let Some(pull) = pulls.next_if(|pull| pull.row == i) {
                        let unit = &unit_embeddings[pull.sample * dim..][..dim];
                        row::add_scaled(&mut by_unit, pull.slope, unit);
                    }
                    let Row { weight, momentum, stamp } = self.row(i, rule);
                    if let Some(flow) = rule.missed(*stamp) {
                        row::advance(&flow, weight, momentum);
                    }
                    row::step(&sgd, &by_unit, weight, momentum);
                    *stamp = rule.stamp_after();
                }
            }
        });
    }
}

impl CentreTile for HostTile<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn unit_rows(&mut self, rule: &dyn UpdateRule, unit_td: &mut Tensor) -> Result<(), HeadError> {
        match unit_td.kind() {
            Kind::BFloat16 => {
                with_elements_mut(unit_td, |out| self.write_units::<bf16>(rule, out));
            }
            _ => with_elements_mut(unit_td, |out| self.write_units::<f32>(rule, out)),
        }
        Ok(())
    }

    fn update(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), HeadError> {
        let negatives_td = gradient.as_negatives_td;
        match negatives_td.kind() {
            Kind::BFloat16 => with_elements(negatives_td, |negatives| {
                self.move_rows::<bf16>(rule, negatives, gradient, lr);
            }),
            _ => with_elements(negatives_td, |negatives| {
                self.move_rows::<f32>(rule, negatives, gradient, lr);
            }),
        }
        Ok(())
    }
}
