//! Centres on a device against rows in memory. The device is `PFC_TEST_DEVICE`: the CPU by default, where
//! tensor operations do the work, or `cuda`. With `PFC_TEST_CARD=stand-in` the kernels do it, launched
//! through the card on a CPU that `scripts/test-kernels` puts in the driver's place.

// D = embedding, T = rows.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    CentreOptimizer, Head, Parts, Placement, ProductPrecision, RowStore, Solo, Storage, Traffic,
    Update,
    centres::row,
    rng::{Purpose, fill_normal, key, scramble},
};

fn device() -> Device {
    match std::env::var("PFC_TEST_DEVICE").as_deref() {
        Ok("cuda") => Device::Cuda(0),
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(other) => panic!("PFC_TEST_DEVICE is `{other}`, but has to be `cpu` or `cuda`"),
    }
}

/// Whether the kernels run on the card that `scripts/test-kernels` sets up on the CPU.
#[cfg(feature = "kernels")]
pub(super) fn on_the_stand_in() -> bool {
    std::env::var_os("PFC_TEST_CARD").is_some_and(|card| card == "stand-in")
}

#[test]
#[allow(clippy::print_stdout)] // cargo shows it where it is asked to
fn the_head_says_what_does_the_work() {
    let config = HeadConfig { centres: Placement::Device, ..HeadConfig::new(20, 8) };
    let parts = Parts::on_device(&config, Box::new(Solo), device()).unwrap();
    let head = Head::with_parts(&config, parts).unwrap();
    let operations = head.operations();
    println!("the head's rows are moved by {operations}");
    #[cfg(feature = "kernels")]
    if device().is_cuda() || on_the_stand_in() {
        // A fallback is no success here.
        assert!(operations.starts_with("kernels (sm_"), "{operations}");
        return;
    }
    assert!(operations.starts_with("tensor operations"), "{operations}");
    assert_eq!(Head::new(&HeadConfig::new(20, 8)).unwrap().operations(), "operations of the CPU");
}

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
        let on_device = DeviceStore::new(&config, range, device()).unwrap();
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
    let [values_tn, keys_t] = [values_tn, keys_t].map(|tensor| tensor.to_device(device()));
    let rounded_tn = tensor_ops::stochastic(&values_tn, &keys_t).unwrap().to_device(Device::Cpu);
    with_elements(&rounded_tn, |found: &[bf16]| {
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{i}: {found:?} for {expected:?} of {}", values[i]);
        }
    });
}

#[test]
fn tensor_operations_make_the_keys_of_the_host() {
    let config = HeadConfig { seed: u64::MAX - 3, ..HeadConfig::new(1000, 4) };
    let rows = [0i64, 1, 7, 332];
    let frame = Frame {
        layout: RowLayout::of_config(&config),
        seed: config.seed,
        first_class: 667,
        n_copies: 1,
        protected: [UNTOUCHED; 2],
    };
    let rows_t = Tensor::from_slice(&rows).to_device(device());
    for stamp in [0, 1, 123_456] {
        let found_t = RowKeys(frame.rounding_base(stamp)).of_rows(&rows_t).unwrap();
        let found = Vec::<i64>::try_from(&found_t).unwrap();
        let expected = rows.map(|row| frame.rounding_key(row as usize, stamp) as i64);
        assert_eq!(found, expected, "stamp {stamp}");
        assert_eq!(expected[1] as u64, {
            let class = 668u64;
            scramble(key(config.seed, Purpose::Rounding, stamp.into()).wrapping_add(class))
        });
    }
}

/// A few steps of a head with its centres in one place: losses, gradients, weights, state.
fn run(config: &HeadConfig) -> (Vec<f64>, Vec<Tensor>) {
    let parts = Parts::on_device(config, Box::new(Solo), device()).unwrap();
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

/// What the fourth step of a head hands over, where the head is alone in its process.
fn traffic_of_a_step(config: &HeadConfig) -> Traffic {
    let parts = Parts::on_device(config, Box::new(Solo), device()).unwrap();
    let mut head = Head::with_parts(config, parts).unwrap();
    let embeddings_gd =
        Tensor::randn([16, config.dim as i64], (Kind::Float, Device::Cpu)).to_device(device());
    let labels: Vec<i64> = (0..16).map(|i| i * config.classes as i64 / 200).collect();
    let mut before = Traffic::now();
    for step in 0..4 {
        before = Traffic::now();
        head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
    }
    Traffic::now().since(before)
}

#[test]
fn a_step_of_a_million_identities_is_sixteen_operations_and_four_waits() {
    const NAME: &str = concat!(
        "centres::device::tests::",
        "a_step_of_a_million_identities_is_sixteen_operations_and_four_waits"
    );
    // Counts are of the whole process.
    if !pfc_testing::is_again(NAME) {
        let output = pfc_testing::again(NAME).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    #[cfg(feature = "kernels")]
    let is_slow = on_the_stand_in();
    #[cfg(not(feature = "kernels"))]
    let is_slow = false;
    // Every row is a block of threads on the stand-in. The counts are the same for any number of rows.
    let classes = if is_slow { 5_000 } else { 1_000_000 };
    let centres = Placement::Device;
    let config = HeadConfig { sample_rate: 0.1, centres, ..HeadConfig::new(classes, 4) };
    let traffic = traffic_of_a_step(&config);
    assert!(traffic.operations <= 16, "{traffic:?}");
    assert!(traffic.to_device <= 11, "{traffic:?}");
    // Embeddings, centres of the labels, sums of exponentials, gradient: these the host still works on.
    assert_eq!(traffic.to_host, 4, "{traffic:?}");
    // In tiles the host waits for the sums of each: of 49 at a million identities, as with 2,048 rows.
    let tile_rows = classes as usize / 489;
    let tiled = traffic_of_a_step(&HeadConfig { tile_rows, ..config });
    assert_eq!(tiled.to_host, 3 + (classes / 10).div_ceil(tile_rows as u64), "{tiled:?}");
}

#[test]
fn a_tile_is_as_large_as_memory_allows_unless_its_size_is_given() {
    let config = HeadConfig { cache_mib: 1, ..HeadConfig::new(100, 8) };
    let range = ClassRange::of_rank(100, 0, 1);
    let store = DeviceStore::new(&config, range, Device::Cpu).unwrap();
    let tiling = |config: &HeadConfig, row_bytes| store.tiling(config, row_bytes);
    // 256 MiB of rows of 2 KiB each.
    let expected = Tiling { tile_rows: 1 << 17, kept_bytes: 256 << 20 };
    assert_eq!(tiling(&config, 2048), expected);
    assert_eq!(tiling(&config, 0).tile_rows, 1 << 24);
    // Never less than the host would take.
    assert_eq!(tiling(&config, 1 << 20).tile_rows, 2048);
    let given = HeadConfig { tile_rows: 100, ..config };
    assert_eq!(tiling(&given, 2048), Tiling { tile_rows: 100, kept_bytes: 1 << 20 });
}
