//! Rows in memory, against SGD in every step.

mod damage;
mod on_disk;
mod power_cut;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    centres::TileGradient,
    config::{Storage, Update},
    optim::{Motion, Sgd, UpdateMap, rule},
    rng::{fill_normal, scramble},
};

const DIM: usize = 24;

fn config(n_rows: u64) -> HeadConfig {
    HeadConfig { seed: 3, ..HeadConfig::new(n_rows, DIM) }
}

fn store_of(config: &HeadConfig) -> RowStore {
    RowStore::new(config, ClassRange::of_rank(config.classes, 0, 1)).unwrap()
}

fn store(n_rows: u64) -> RowStore {
    store_of(&config(n_rows))
}

fn exported(store: &RowStore) -> (Vec<f32>, Vec<f32>) {
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
            let along: f64 = by_unit.iter().zip(&*w).map(|(&g, w)| f64::from(g) * w / length).sum();
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
    let mut rule = rule(&config(n_rows));
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
        lazy.prepare(&rows).unwrap();
        for mut tile in lazy.tiles(&rows, rows.len().max(1)) {
            tile.update(rule.as_ref(), &tile_gradient, lr).unwrap();
        }
        let Motion::Sgd(sgd) = rule.motion(lr) else { panic!("not SGD") };
        eager_step(&rows, &gradient, &sgd, &mut eager);
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
    let rule = rule(&HeadConfig { update: Update::Sparse, ..config(200) });
    let mut unit_td = Tensor::zeros([2, DIM as i64], (Kind::Float, Device::Cpu));
    store.prepare(&[5, 199]).unwrap();
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
            exported(&RowStore::new(&config(103), range).unwrap()).0
        })
        .collect();
    assert_eq!(parts, whole);
}

#[test]
fn memory_that_no_machine_has_is_an_error() {
    let config = HeadConfig::new(u64::from(u32::MAX), 1 << 58);
    let error = RowStore::new(&config, ClassRange::of_rank(config.classes, 0, 1)).err().unwrap();
    assert!(matches!(error, HeadError::Memory { .. }));
}

#[test]
fn a_row_first_used_late_has_missed_every_step_before() {
    let mut store = store(2);
    let mut rule =
        rule(&HeadConfig { momentum: 0.5, weight_decay: 0.25, ..HeadConfig::new(2, DIM) });
    let (before, _) = exported(&store);
    rule.finish_step(1.0);
    assert_eq!(rule.missed(UNTOUCHED), Some(UpdateMap { ww: 0.75, wv: -0.5, vw: 0.25, vv: 0.5 }));
    // Catching up does not give it memory.
    store.catch_up(rule.as_ref()).unwrap();
    rule.caught_up();
    assert_eq!((exported(&store).0, store.stamp(0)), (before.clone(), UNTOUCHED));
    let zeros = Tensor::zeros([2, DIM as i64], (Kind::Float, Device::Cpu));
    let gradient = TileGradient {
        as_negatives_td: &zeros,
        as_positives: &[],
        unit_embeddings_gd: &zeros.narrow(0, 0, 0),
    };
    store.prepare(&[0, 1]).unwrap();
    for mut tile in store.tiles(&[0, 1], 2) {
        tile.update(rule.as_ref(), &gradient, 0.0).unwrap();
    }
    let (weight, momentum) = exported(&store);
    for ((w, v), start) in weight.iter().zip(&momentum).zip(&before) {
        // After the missed step w is 3/4 and v 1/4 of the start; this one takes decay into v alone.
        assert_eq!((*w, *v), (0.75 * start, 0.5 * (0.25 * start) + 0.25 * (0.75 * start)));
    }
}

const LR: f64 = 0.05;

/// One step of SGD on the rows of [`tile`].
fn take_step(store: &mut RowStore, rule: &mut dyn UpdateRule, step: u64) {
    take_step_of(store, ClassRange::of_rank(store.range.classes(), 0, 1), rule, step);
    rule.finish_step(LR);
}

/// The part of such a step that belongs to the classes of `own`.
fn take_step_of(store: &mut RowStore, own: ClassRange, rule: &dyn UpdateRule, step: u64) {
    let (classes, gradient) = tile(step, own.classes());
    let is_own = |class: &u32| own.ids().contains(&u64::from(*class));
    let first = classes.partition_point(|&class| u64::from(class) < own.first());
    let rows: Vec<u32> =
        classes.into_iter().filter(is_own).map(|class| class - own.first() as u32).collect();
    let gradient = &gradient[first * DIM..][..rows.len() * DIM];
    let shape = [rows.len() as i64, DIM as i64];
    let tile_gradient = TileGradient {
        as_negatives_td: &Tensor::from_slice(gradient).view(shape),
        as_positives: &[],
        unit_embeddings_gd: &Tensor::zeros([0, DIM as i64], (Kind::Float, Device::Cpu)),
    };
    store.prepare(&rows).unwrap();
    for mut tile in store.tiles(&rows, rows.len().max(1)) {
        tile.update(rule, &tile_gradient, LR).unwrap();
    }
}
