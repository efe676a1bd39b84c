//! Centres on a device, which is the CPU here, against rows in memory.

// D = embedding, T = rows.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    CentreOptimizer, Head, Parts, Placement, ProductPrecision, RowStore, Solo, Storage, Update,
    centres::row,
    rng::{Purpose, fill_normal, key, scramble},
};

#[test]
fn rows_start_where_rows_in_memory_start() {
    for weights in [Storage::F32, Storage::Bf16] {
        let config = HeadConfig { weights, ..HeadConfig::new(103, 24) };
        let range = ClassRange::of_rank(103, 1, 3);
        let exported = |store: &dyn CentreStore| {
            let (mut weight, mut state) =
                (vec![9f32; range.len() * 24], vec![9f32; range.len() * 24]);
            store.export(0..range.len(), &mut weight, &mut state).unwrap();
            (weight, state)
        };
        let on_device = DeviceStore::new(&config, range, Device::Cpu).unwrap();
        assert_eq!(exported(&on_device), exported(&RowStore::new(&config, range).unwrap()));
    }
}

#[test]
fn tensor_operations_round_by_the_same_bits() {
    let (n_rows, n_numbers) = (5, 130);
    let mut values = vec![0f32; n_rows * n_numbers];
    fill_normal(3, 1.0, &mut values);
    (values[0], values[1], values[2]) = (f32::NAN, f32::INFINITY, -0.0);
    // The largest number that bf16 holds, and one beyond it that may be rounded to infinity.
    (values[3], values[4]) = (f32::from_bits(0x7f7f_0000), f32::MAX);
    let keys: Vec<u64> = (0..n_rows as u64).map(scramble).collect();
    let mut expected = vec![bf16::ZERO; values.len()];
    for (row, &key) in keys.iter().enumerate() {
        let at = row * n_numbers..(row + 1) * n_numbers;
        row::stochastic(&values[at.clone()], key, &mut expected[at]);
    }
    let keys_t = Tensor::from_slice(&keys.iter().map(|&key| key as i64).collect::<Vec<_>>());
    let values_tn = Tensor::from_slice(&values).view([n_rows as i64, n_numbers as i64]);
    let rounded_tn = tensor_ops::stochastic(&values_tn, &keys_t).unwrap();
    with_elements(&rounded_tn, |found: &[bf16]| {
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{i}: {found:?} for {expected:?} of {}", values[i]);
        }
    });
}

/// A few steps of a head with its centres in one place: losses, gradients, weights, state.
fn run(config: &HeadConfig) -> (Vec<f64>, Vec<Tensor>) {
    let parts = Parts::on_device(config, Box::new(Solo), Device::Cpu).unwrap();
    let mut head = Head::with_parts(config, parts).unwrap();
    let (mut losses, mut tensors) = (Vec::new(), Vec::new());
    for step in 0..8u64 {
        let mut values = vec![0f32; 12 * config.dim];
        let batch_key = key(step, Purpose::Sample, 5);
        fill_normal(batch_key, 2.0, &mut values);
        // Some classes twice.
        let label = |i: u64| (scramble(batch_key + i / 2) % config.classes) as i64;
        let labels: Vec<i64> = (0..12).map(label).collect();
        let embeddings_gd = Tensor::from_slice(&values).view([12, config.dim as i64]);
        let output = head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
        losses.push(output.loss);
        tensors.push(output.grad_embeddings_bd);
    }
    let state = head.state().unwrap();
    tensors.extend(state.into_iter().take(2).map(|(_, tensor)| tensor));
    (losses, tensors)
}

#[track_caller]
fn check_equal(config: &HeadConfig, bound: f64) {
    let (losses, tensors) = run(&HeadConfig { centres: Placement::Host, ..config.clone() });
    let (of_device, tensors_of_device) =
        run(&HeadConfig { centres: Placement::Device, ..config.clone() });
    for (found, expected) in of_device.iter().zip(&losses) {
        assert!((found - expected).abs() <= bound * expected, "{found} for {expected}: {config:?}");
    }
    let largest = |t: &Tensor| t.to_kind(Kind::Double).abs().max().double_value(&[]);
    for (found, expected) in tensors_of_device.iter().zip(&tensors) {
        assert_eq!(found.size(), expected.size());
        let error = largest(&(found - expected)) / largest(expected);
        assert!(error <= bound, "{error:e}: {config:?}");
    }
}

#[test]
fn steps_on_a_device_are_those_in_memory_for_every_optimizer() {
    // At a scale of 64 the end is 2e-5 off, from sums in another order alone.
    let dense =
        HeadConfig { sample_rate: 0.2, tile_rows: 7, scale: 16.0, ..HeadConfig::new(130, 24) };
    let adamw = CentreOptimizer::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let row_wise = CentreOptimizer::RowAdagrad { eps: 1e-8 };
    check_equal(&dense, 1e-5);
    for optimizer in [CentreOptimizer::Sgd, adamw, row_wise] {
        check_equal(&HeadConfig { update: Update::Sparse, optimizer, ..dense.clone() }, 1e-5);
    }
}

#[test]
fn steps_on_a_device_are_those_in_memory_with_filter_offsets_and_bf16() {
    let plain =
        HeadConfig { sample_rate: 0.3, tile_rows: 11, scale: 16.0, ..HeadConfig::new(120, 16) };
    check_equal(&HeadConfig { interclass_filter: 0.3, cache_mib: 0, ..plain.clone() }, 1e-5);
    // Rounding feeds back through the gradients, the more so the larger the scale.
    check_equal(&HeadConfig { scale: 100.0, ..plain.clone() }, 1e-4);
    // A last bit that differs may be rounded to the other neighbour, 1/256 away.
    let short = HeadConfig { weights: Storage::Bf16, state: Storage::Bf16, ..plain };
    check_equal(&short, 1.0 / 256.0);
    check_equal(&HeadConfig { precision: ProductPrecision::Bf16, ..short }, 3e-2);
}
