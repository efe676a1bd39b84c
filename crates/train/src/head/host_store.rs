//! Centres in the memory of the host, in f32.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    HeadError,
    host_tile::{HostTile, Initial},
    range::ClassRange,
    row,
    store::{CentreStore, CentreTile},
    update::{Stamp, UNTOUCHED, UpdateRule},
};

/// Weights and momentum in two flat arrays. A row that was never sampled is all zeros in memory
/// that the operating system has not even handed out; its initial value, a function of the seed and
/// its class, is written when it is first used.
pub struct HostStore {
    dim: usize,
    seed: u64,
    first_class: u64,
    weight: Vec<f32>,
    momentum: Vec<f32>,
    stamps: Vec<Stamp>,
}

impl HostStore {
    /// The rows of `range`, `dim` wide, at their initial values.
    ///
    /// # Errors
    ///
    /// [`HeadError::Memory`] if the machine does not grant the address space.
    pub fn new(range: ClassRange, dim: usize, seed: u64) -> Result<HostStore, HeadError> {
        let refused = || HeadError::Memory { rows: range.len(), dim };
        let n_values = range.len().checked_mul(dim).ok_or_else(refused)?;
        // `vec!` takes zeroed pages from the system without touching them, but aborts if there are
        // none; asking first gives an error instead.
        Vec::<f32>::new().try_reserve_exact(n_values.saturating_mul(2)).map_err(|_| refused())?;
        Ok(HostStore {
            dim,
            seed,
            first_class: range.first(),
            weight: vec![0.0; n_values],
            momentum: vec![0.0; n_values],
            stamps: vec![UNTOUCHED; range.len()],
        })
    }

    fn initial(&self) -> Initial {
        Initial { seed: self.seed, first_class: self.first_class }
    }
}

impl CentreStore for HostStore {
    fn n_rows(&self) -> usize {
        self.stamps.len()
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let (initial, dim) = (self.initial(), self.dim);
        let (mut weight, mut momentum) = (&mut self.weight[..], &mut self.momentum[..]);
        let mut stamps = &mut self.stamps[..];
        let mut done = 0;
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let (first, end) = (rows[0] as usize, rows[rows.len() - 1] as usize + 1);
            let (skipped, len) = (first - done, end - first);
            done = end;
            Box::new(HostTile {
                initial,
                dim,
                first,
                rows,
                weight: cut(&mut weight, skipped * dim, len * dim),
                momentum: cut(&mut momentum, skipped * dim, len * dim),
                stamps: cut(&mut stamps, skipped, len),
            })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<(), HeadError> {
        let (initial, dim) = (self.initial(), self.dim);
        let rows = self.weight.par_chunks_mut(dim).zip(self.momentum.par_chunks_mut(dim));
        rows.zip(self.stamps.par_iter_mut()).enumerate().for_each(
            |(row, ((weight, momentum), stamp))| {
                // An untouched row that has missed nothing goes on costing nothing.
                let Some(flow) = rule.missed(*stamp) else { return };
                if *stamp == UNTOUCHED {
                    initial.fill(row, weight);
                }
                row::advance(&flow, weight, momentum);
                *stamp = rule.stamp();
            },
        );
        Ok(())
    }

    fn restamp(&mut self, stamp: Stamp) {
        self.stamps.par_iter_mut().filter(|s| **s != UNTOUCHED).for_each(|s| *s = stamp);
    }

    fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        momentum: &mut [f32],
    ) -> Result<(), HeadError> {
        let (initial, dim) = (self.initial(), self.dim);
        momentum.copy_from_slice(&self.momentum[rows.start * dim..rows.end * dim]);
        weight.par_chunks_mut(dim).zip(rows.into_par_iter()).for_each(|(out, row)| {
            if self.stamps[row] == UNTOUCHED {
                initial.fill(row, out);
            } else {
                out.copy_from_slice(&self.weight[row * dim..][..dim]);
            }
        });
        Ok(())
    }

    fn import(
        &mut self,
        rows: Range<usize>,
        weight: &[f32],
        momentum: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        let values = rows.start * self.dim..rows.end * self.dim;
        self.weight[values.clone()].copy_from_slice(weight);
        self.momentum[values].copy_from_slice(momentum);
        self.stamps[rows].copy_from_slice(stamps);
        Ok(())
    }
}

/// Drops `skipped` elements from the front of `rest` and splits off the next `len`.
fn cut<'a, T>(rest: &mut &'a mut [T], skipped: usize, len: usize) -> &'a mut [T] {
    let (_, tail) = std::mem::take(rest).split_at_mut(skipped);
    let (cut, tail) = tail.split_at_mut(len);
    *rest = tail;
    cut
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::head::{
        config::Update,
        random::{fill_normal, scramble},
        store::TileGradient,
        update::{Flow, Sgd, rule},
    };

    const DIM: usize = 24;

    fn store(n_rows: u64) -> HostStore {
        HostStore::new(ClassRange::of_rank(n_rows, 0, 1), DIM, 3).unwrap()
    }

    fn exported(store: &HostStore) -> (Vec<f32>, Vec<f32>) {
        let n_rows = store.n_rows();
        let (mut weight, mut momentum) = (vec![0.0; n_rows * DIM], vec![0.0; n_rows * DIM]);
        store.export(0..n_rows, &mut weight, &mut momentum).unwrap();
        (weight, momentum)
    }

    /// A few rows, ascending, and a gradient for them.
    fn tile(step: u64, n_rows: u64) -> (Vec<u32>, Vec<f32>) {
        let rows: Vec<u32> = (0..n_rows)
            .filter(|row| scramble(step * n_rows + row).is_multiple_of(20))
            .map(|r| r as u32)
            .collect();
        let mut gradient = vec![0.0; rows.len() * DIM];
        fill_normal(scramble(step), 0.01, &mut gradient);
        (rows, gradient)
    }

    /// Torch's SGD on every row in f64, with the same gradients by the unit rows.
    fn eager_step(rows: &[u32], gradient: &[f32], sgd: &Sgd, state: &mut [(Vec<f64>, Vec<f64>)]) {
        for (row, (w, v)) in state.iter_mut().enumerate() {
            let length = w.iter().map(|w| w * w).sum::<f64>().sqrt();
            let mut g = vec![0.0; DIM];
            if let Ok(at) = rows.binary_search(&(row as u32)) {
                let by_unit = &gradient[at * DIM..][..DIM];
                let along: f64 =
                    by_unit.iter().zip(&*w).map(|(&g, w)| f64::from(g) * w / length).sum();
                for ((g, &by_unit), w) in g.iter_mut().zip(by_unit).zip(&*w) {
                    *g = (f64::from(by_unit) - along * w / length) / length;
                }
            }
            for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                *v = sgd.momentum * *v + g + sgd.weight_decay * *w;
                *w -= sgd.lr * *v;
            }
        }
    }

    #[test]
    fn rows_moved_lazily_for_500_steps_are_where_sgd_in_every_step_takes_them() {
        let n_rows = 150;
        let mut lazy = store(n_rows);
        let mut rule = rule(Update::Dense, 0.9, 5e-4);
        let (weight, momentum) = exported(&lazy);
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut eager: Vec<_> =
            weight.chunks(DIM).zip(momentum.chunks(DIM)).map(|(w, v)| (wide(w), wide(v))).collect();
        for step in 0..500 {
            let lr = 0.1 * (1.0 - step as f64 / 500.0);
            let (rows, gradient) = tile(step, n_rows);
            let shape = [rows.len() as i64, DIM as i64];
            let tile_gradient = TileGradient {
                as_negatives_td: &Tensor::from_slice(&gradient).view(shape),
                as_positives: &[],
                unit_embeddings_gd: &Tensor::zeros([0, DIM as i64], (Kind::Float, Device::Cpu)),
            };
            for mut tile in lazy.tiles(&rows, rows.len().max(1)) {
                tile.update(rule.as_ref(), &tile_gradient, lr).unwrap();
            }
            eager_step(&rows, &gradient, &rule.sgd(lr), &mut eager);
            rule.finish_step(lr);
        }
        lazy.catch_up(rule.as_ref()).unwrap();
        let (weight, momentum) = exported(&lazy);
        for (row, (w, v)) in eager.iter().enumerate() {
            for (found, expected) in [(&weight, w), (&momentum, v)] {
                let largest = expected.iter().fold(0f64, |most, e| most.max(e.abs()));
                let found = &found[row * DIM..][..DIM];
                for (&found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(found) - expected).abs() / largest;
                    assert!(error < 1e-5, "row {row}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn an_untouched_row_is_exported_as_it_is_read() {
        let mut store = store(200);
        let (before, _) = exported(&store);
        let rule = rule(Update::Sparse, 0.9, 5e-4);
        let mut unit_td = Tensor::zeros([2, DIM as i64], (Kind::Float, Device::Cpu));
        store.tiles(&[5, 199], 2)[0].unit_rows(rule.as_ref(), &mut unit_td).unwrap();
        assert_eq!(exported(&store).0, before);
        let lengths = Tensor::from_slice(&before).view([200, DIM as i64]);
        let lengths = lengths.index_select(0, &Tensor::from_slice(&[5i64, 199]));
        let expected = &lengths / lengths.norm_scalaropt_dim(2, [1i64], true);
        let error = (unit_td - expected).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{error:e}");
    }

    #[test]
    fn a_row_starts_the_same_whatever_rank_owns_it() {
        let whole = exported(&store(103)).0;
        let parts: Vec<f32> = (0..4)
            .flat_map(|rank| {
                let range = ClassRange::of_rank(103, rank, 4);
                exported(&HostStore::new(range, DIM, 3).unwrap()).0
            })
            .collect();
        assert_eq!(parts, whole);
    }

    #[test]
    fn memory_that_no_machine_has_is_an_error() {
        let range = ClassRange::of_rank(u64::from(u32::MAX), 0, 1);
        let error = HostStore::new(range, 1 << 62, 3).err().unwrap();
        assert!(matches!(error, HeadError::Memory { .. }));
    }

    #[test]
    fn a_row_first_used_late_has_missed_every_step_before() {
        let mut store = store(2);
        let mut rule = rule(Update::Dense, 0.5, 0.25);
        let (before, _) = exported(&store);
        rule.finish_step(1.0);
        assert_eq!(rule.missed(UNTOUCHED), Some(Flow { ww: 0.75, wv: -0.5, vw: 0.25, vv: 0.5 }));
        store.catch_up(rule.as_ref()).unwrap();
        let (weight, momentum) = exported(&store);
        for ((w, v), start) in weight.iter().zip(&momentum).zip(&before) {
            assert_eq!((*w, *v), (0.75 * start, 0.25 * start));
        }
    }
}
