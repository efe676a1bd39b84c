//! Centres on a device against rows in memory. The device is `PFC_TEST_DEVICE`: the CPU by default, where
//! tensor operations do the work, or `cuda`. With `PFC_TEST_CARD=stand-in` the kernels do it, launched
//! through the card on a CPU that `scripts/test-kernels` puts in the driver's place.

// D = embedding, T = rows.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    ArcfaceGradient, CentreOptimizer, Draw, Head, LocalMember, Margin, Parts, Placement, Pprn,
    ProductPrecision, RowStore, Sampler, Solo, Storage, Traffic, Update,
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
    let head = head(&config);
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
    let mut head = head(config);
    let (mut losses, mut tensors) = (Vec::new(), Vec::new());
    for step in 0..8u64 {
        let (embeddings_gd, labels) = batch(config, 12, step);
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

/// A batch that is a function of the step, some classes twice.
fn batch(config: &HeadConfig, n_samples: usize, step: u64) -> (Tensor, Vec<i64>) {
    let mut values = vec![0f32; n_samples * config.dim];
    let batch_key = key(step, Purpose::Sample, 5);
    fill_normal(batch_key, 2.0, &mut values);
    let label = |i: u64| (scramble(batch_key + i / 2) % config.classes) as i64;
    let shape = [n_samples as i64, config.dim as i64];
    (Tensor::from_slice(&values).view(shape), (0..n_samples as u64).map(label).collect())
}

fn head(config: &HeadConfig) -> Head {
    Head::with_parts(config, Parts::on_device(config, Box::new(Solo), device()).unwrap()).unwrap()
}

#[test]
fn every_margin_costs_on_a_device_what_it_costs_in_memory() {
    let plain =
        HeadConfig { sample_rate: 0.2, tile_rows: 9, scale: 16.0, ..HeadConfig::new(90, 16) };
    let arcface = |m, gradient| Margin::Arcface { m, gradient };
    for margin in [
        Margin::Cosface { m: 0.4 },
        arcface(0.5, ArcfaceGradient::Exact),
        // Past pi for most samples.
        arcface(2.5, ArcfaceGradient::Exact),
        arcface(2.5, ArcfaceGradient::StraightThrough),
        Margin::Combined { m1: 1.2, m2: 0.3, m3: 0.1 },
    ] {
        check_equal(&HeadConfig { margin, ..plain.clone() }, 1e-5);
    }
    check_equal(&HeadConfig { log_q: true, interclass_filter: 0.2, ..plain }, 1e-5);
}

#[test]
fn losses_that_are_more_than_a_margin_are_joined_on_the_host() {
    let plain =
        HeadConfig { sample_rate: 0.2, tile_rows: 9, scale: 16.0, ..HeadConfig::new(90, 16) };
    let gradient = ArcfaceGradient::Exact;
    for margin in [
        Margin::Adaface { m: 0.4, h: 0.333, alpha: 0.01 },
        Margin::Uniface { m: 0.4, lambda: 1.0 },
        Margin::SubcentreArcface { m: 0.5, k: 3, gradient },
    ] {
        check_equal(&HeadConfig { margin, ..plain.clone() }, 1e-5);
    }
}

#[test]
fn a_device_draws_the_rows_that_the_host_draws() {
    let store = DeviceStore::new(&HeadConfig::new(4, 4), ClassRange::of_rank(4, 0, 1), device());
    let store = store.unwrap();
    // Blocks of 4,096; all of the second's classes are positives.
    let classes = 8200 + 4096;
    let range = ClassRange::of_rank(classes, 0, 1);
    let many: Vec<u64> = (0..300).map(|i| i * 11).chain(4096..8192).collect();
    let cases: [(u64, &[u64]); 5] = [
        (600, &[]),
        (600, &[0, 5, 4095, 4096, 8191, classes - 1]),
        (0, &[7, 9000]),
        (5000, &many),
        (classes, &[3]),
    ];
    for (n_rows, positives) in cases {
        let mut sampler = Pprn::new(n_rows, u64::MAX);
        let draw = Draw { step: 12, positives, range };
        let plan = sampler.plan(&draw).unwrap();
        let rows_s = store.ops.draw(&plan, positives, device()).unwrap();
        let found: Vec<u32> =
            Vec::<i64>::try_from(&rows_s).unwrap().into_iter().map(|row| row as u32).collect();
        assert_eq!(found, sampler.draw(&draw), "{n_rows} rows");
    }
}

/// All even rows, and the positives unless it forgets them.
struct Evens {
    forgets: bool,
}

impl Sampler for Evens {
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32> {
        let positives: &[u64] = if self.forgets { &[] } else { draw.positives };
        let is_drawn = |row: &u32| row.is_multiple_of(2) || positives.contains(&u64::from(*row));
        (0..draw.range.len() as u32).filter(is_drawn).collect()
    }
}

#[test]
fn a_sampler_without_a_plan_draws_on_the_host() {
    let config = HeadConfig { scale: 16.0, ..HeadConfig::new(30, 8) };
    let of = |centres, forgets| {
        let config = HeadConfig { centres, ..config.clone() };
        let parts = Parts::on_device(&config, Box::new(Solo), device()).unwrap();
        let parts = Parts { sampler: Box::new(Evens { forgets }), ..parts };
        Head::with_parts(&config, parts).unwrap()
    };
    let (mut on_host, mut on_device) = (of(Placement::Host, false), of(Placement::Device, false));
    for step in 0..3 {
        let (embeddings_gd, labels) = batch(&config, 6, step);
        let [expected, found] = [&mut on_host, &mut on_device]
            .map(|head| head.step(&embeddings_gd, &labels, step, 0.05).unwrap());
        assert!((found.loss - expected.loss).abs() <= 1e-5 * expected.loss, "step {step}");
        assert_eq!(found.rows_sampled, expected.rows_sampled);
    }
    let (embeddings_gd, _) = batch(&config, 2, 0);
    let error = of(Placement::Device, true).step(&embeddings_gd, &[4, 5], 9, 0.1).unwrap_err();
    let expected =
        "step 9: the sampled rows are unusable: class 5 is in the batch but not among them";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn losses_and_centres_are_those_in_memory_for_two_hundred_steps() {
    // Few numbers, as every row is a block of threads on the stand-in.
    let config = HeadConfig { sample_rate: 0.15, scale: 16.0, ..HeadConfig::new(40, 8) };
    let run = |centres| {
        let config = HeadConfig { centres, ..config.clone() };
        let mut head = head(&config);
        let losses: Vec<f64> = (0..200)
            .map(|step| {
                let (embeddings_gd, labels) = batch(&config, 4, step);
                head.step(&embeddings_gd, &labels, step, 0.02).unwrap().loss
            })
            .collect();
        (losses, head.state().unwrap().swap_remove(0).1)
    };
    let ((expected, expected_cd), (losses, weight_cd)) =
        (run(Placement::Host), run(Placement::Device));
    for (step, (found, expected)) in losses.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * expected, "step {step}: {found}, {expected}");
    }
    let largest = |t: &Tensor| t.to_kind(Kind::Double).abs().max().double_value(&[]);
    let error = largest(&(weight_cd - &expected_cd)) / largest(&expected_cd);
    assert!(error <= 1e-5, "{error:e}");
}

#[test]
fn a_step_that_is_not_finite_counts_for_nothing_on_a_device_either() {
    let config = HeadConfig { sample_rate: 0.3, ..HeadConfig::new(40, 8) };
    let config = HeadConfig { centres: Placement::Device, ..config };
    let (mut undisturbed, mut disturbed) = (head(&config), head(&config));
    for step in 0..4 {
        let (embeddings_gd, labels) = batch(&config, 6, step);
        let [expected, found] = [&mut undisturbed, &mut disturbed]
            .map(|head| head.step(&embeddings_gd, &labels, step, 0.1).unwrap().loss);
        assert_eq!(expected, found, "step {step}");
        let _ = embeddings_gd.narrow(0, 2, 3).fill_(f64::INFINITY);
        let error = disturbed.step(&embeddings_gd, &labels, 100 + step, 0.1).unwrap_err();
        let expected =
            format!("step {}: the embedding of row 2 of rank 0 is not finite", 100 + step);
        assert_eq!(error.to_string(), expected);
    }
    let [expected, found] = [undisturbed, disturbed].map(|mut head| head.state().unwrap());
    assert_eq!(expected, found);
}

#[test]
fn a_loss_that_is_not_finite_moves_no_centre_of_a_device() {
    let config = HeadConfig { centres: Placement::Device, ..HeadConfig::new(10, 4) };
    let config = HeadConfig { sample_rate: 1.0, ..config };
    let mut head = head(&config);
    head.set_centres(&[7], &[f32::NAN; 4]).unwrap();
    let before = head.state_as_it_is().unwrap();
    // No sample has that class: it is among the negatives.
    let (embeddings_gd, _) = batch(&config, 3, 0);
    let error = head.step(&embeddings_gd, &[1, 2, 1], 9, 0.1).unwrap_err();
    assert_eq!(error.to_string(), "step 9: the loss is NaN");
    let after = head.state_as_it_is().unwrap();
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        assert!(before.allclose(after, 0.0, 0.0, true), "{name}");
    }
}

#[test]
fn a_step_that_nobody_finishes_is_finished_by_what_comes_next() {
    let config = HeadConfig { sample_rate: 0.3, ..HeadConfig::new(40, 8) };
    let config = HeadConfig { centres: Placement::Device, ..config };
    let (mut at_once, mut later) = (head(&config), head(&config));
    for step in 0..3 {
        let (embeddings_gd, labels) = batch(&config, 6, step);
        let expected = at_once.step(&embeddings_gd, &labels, step, 0.1).unwrap();
        let found = later.begin_step(&embeddings_gd, &labels, step, 0.1).unwrap();
        assert_eq!(found.grad_embeddings_bd, expected.grad_embeddings_bd);
        assert_eq!(found.rows_sampled, expected.rows_sampled);
    }
    assert_eq!(at_once.state_as_it_is().unwrap(), later.state_as_it_is().unwrap());
    let (embeddings_gd, labels) = batch(&config, 6, 3);
    let expected = at_once.step(&embeddings_gd, &labels, 3, 0.1).unwrap();
    later.begin_step(&embeddings_gd, &labels, 3, 0.1).unwrap();
    let state = later.state().unwrap();
    assert_eq!(later.finish_step().unwrap().loss, expected.loss);
    assert_eq!(at_once.state().unwrap(), state);
    // What a step failed with is not lost.
    let _ = embeddings_gd.narrow(0, 0, 1).fill_(f64::NAN);
    later.begin_step(&embeddings_gd, &labels, 4, 0.1).unwrap();
    let error = later.begin_step(&embeddings_gd, &labels, 5, 0.1).unwrap_err();
    assert_eq!(error.to_string(), "step 4: the embedding of row 0 of rank 0 is not finite");
}

#[test]
fn embeddings_of_every_kind_are_taken() {
    let config = HeadConfig { sample_rate: 0.3, ..HeadConfig::new(40, 8) };
    for kind in [Kind::BFloat16, Kind::Half, Kind::Double] {
        let (embeddings_gd, labels) = batch(&config, 6, 0);
        let embeddings_gd = embeddings_gd.to_kind(kind);
        let [expected, found] = [Placement::Host, Placement::Device].map(|centres| {
            let mut head = head(&HeadConfig { centres, ..config.clone() });
            head.step(&embeddings_gd, &labels, 0, 0.1).unwrap()
        });
        assert!((found.loss - expected.loss).abs() <= 1e-5 * expected.loss, "{kind:?}");
        assert_eq!(found.grad_embeddings_bd.kind(), expected.grad_embeddings_bd.kind());
    }
}

/// What the fourth step of a head hands over until it has begun, and until it is finished, where the head is
/// alone in its process.
fn traffic_of_a_step(config: &HeadConfig) -> (Traffic, Traffic) {
    let mut head = head(config);
    let embeddings_gd =
        Tensor::randn([16, config.dim as i64], (Kind::Float, Device::Cpu)).to_device(device());
    let labels: Vec<i64> = (0..16).map(|i| i * config.classes as i64 / 200).collect();
    let mut step = |number| {
        let before = Traffic::now();
        head.begin_step(&embeddings_gd, &labels, number, 0.05).unwrap();
        let begun = Traffic::now().since(before);
        head.finish_step().unwrap();
        (begun, Traffic::now().since(before))
    };
    for number in 0..3 {
        step(number);
    }
    step(3)
}

#[test]
fn a_step_of_a_million_identities_is_sixteen_operations_and_nobody_waits_before_its_end() {
    const NAME: &str = concat!(
        "centres::device::tests::",
        "a_step_of_a_million_identities_is_sixteen_operations_and_nobody_waits_before_its_end"
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
    let (begun, whole) = traffic_of_a_step(&config);
    assert!(begun.operations <= 16, "{begun:?}");
    assert!(begun.to_device <= 8, "{begun:?}");
    assert_eq!((begun.to_host, whole.to_host), (0, 1), "{begun:?}, {whole:?}");
    // Nor does anybody in 49 tiles, each of which is handed over by itself.
    let tile_rows = classes as usize / 489;
    let (tiled, _) = traffic_of_a_step(&HeadConfig { tile_rows, ..config.clone() });
    assert_eq!(tiled.to_host, 0, "{tiled:?}");
    // A loss that is more than its margin is joined on the host: embeddings, centres of the labels, sums of
    // exponentials, gradient.
    let margin = Margin::Adaface { m: 0.4, h: 0.333, alpha: 0.01 };
    let of_host = HeadConfig { margin, classes: 5_000, ..config.clone() };
    let (begun, whole) = traffic_of_a_step(&of_host);
    assert!(begun.operations <= 16 && begun.to_device <= 11, "{begun:?}");
    assert_eq!((begun.to_host, whole.to_host), (4, 4), "{begun:?}, {whole:?}");
    // On several ranks devices join what they find: only the figures come to the hosts. What the weights at the
    // end take is the same for any number of steps.
    if threads_exchange() {
        let config = HeadConfig { classes: 5_000, ..config };
        let of_steps = |n_steps| {
            let before = Traffic::now();
            steps_of_ranks(&config, 2, n_steps);
            Traffic::now().since(before)
        };
        let of_one = of_steps(1);
        let further = of_steps(3).since(of_one);
        assert_eq!(further.to_host, 2 * 2, "{further:?}");
        assert!(further.operations <= 28 * 2 * 2, "{further:?}");
    }
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

/// Whether ranks that are threads exchange where the centres of the tests are.
fn threads_exchange() -> bool {
    #[cfg(feature = "kernels")]
    if on_the_stand_in() {
        return false;
    }
    let exchange = device() == Device::Cpu;
    if !exchange {
        pfc_testing::skip("ranks that are threads exchange on the CPU");
    }
    exchange
}

/// Of each rank, all of them threads: losses, gradients by its embeddings and at the end its weights.
fn steps_of_ranks(
    config: &HeadConfig,
    world: usize,
    n_steps: u64,
) -> Vec<(Vec<f64>, Vec<Tensor>, Tensor)> {
    let run = |(rank, member): (usize, LocalMember)| {
        let parts = Parts::on_device(config, Box::new(member), Device::Cpu).unwrap();
        let mut head = Head::with_parts(config, parts).unwrap();
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for step in 0..n_steps {
            let (embeddings_gd, labels) = batch(config, 12, step);
            let own = rank * 12 / world..(rank + 1) * 12 / world;
            let embeddings_bd = embeddings_gd.narrow(0, own.start as i64, own.len() as i64);
            let output = head.step(&embeddings_bd, &labels[own], step, 0.05).unwrap();
            // The host knows none of them where a device does the whole step.
            assert!(output.positive_cosines_g.is_empty());
            losses.push(output.loss);
            gradients.push(output.grad_embeddings_bd);
        }
        (losses, gradients, head.state().unwrap().swap_remove(0).1)
    };
    std::thread::scope(|scope| {
        let (run, members) = (&run, LocalMember::group(world).into_iter().enumerate());
        let ranks: Vec<_> = members.map(|member| scope.spawn(move || run(member))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Their sums are joined in another order.
#[test]
fn several_ranks_take_whole_steps_on_their_devices_that_are_those_of_one() {
    if !threads_exchange() {
        return;
    }
    let centres = Placement::Device;
    let plain = HeadConfig { sample_rate: 0.3, scale: 16.0, centres, ..HeadConfig::new(90, 16) };
    let largest = |tensor: &Tensor| tensor.to_kind(Kind::Double).abs().max().double_value(&[]);
    for (config, world) in [
        (HeadConfig { interclass_filter: 0.4, tile_rows: 7, ..plain.clone() }, 2),
        (HeadConfig { log_q: true, ..plain.clone() }, 2),
        // Ranks without a class, and samples whose classes are all elsewhere.
        (HeadConfig { sample_rate: 1.0, classes: 3, ..plain }, 5),
    ] {
        let (expected, gradients, weight_cd) = steps_of_ranks(&config, 1, 4).swap_remove(0);
        let ranks = steps_of_ranks(&config, world, 4);
        for (losses, ..) in &ranks {
            for (found, expected) in losses.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-5 * expected, "{found}, {expected}");
            }
        }
        for (step, expected_gd) in gradients.iter().enumerate() {
            let parts: Vec<&Tensor> = ranks.iter().map(|(_, g, _)| &g[step]).collect();
            let error = largest(&(Tensor::cat(&parts, 0) - expected_gd)) / largest(expected_gd);
            assert!(error <= 1e-5, "{world} ranks, step {step}: {error:e}");
        }
        let weights: Vec<&Tensor> = ranks.iter().map(|(_, _, weight_rd)| weight_rd).collect();
        let error = largest(&(Tensor::cat(&weights, 0) - &weight_cd)) / largest(&weight_cd);
        assert!(error <= 1e-5, "{world} ranks: {error:e}");
    }
}

#[test]
fn an_embedding_that_is_not_finite_is_named_with_its_rank_on_every_rank() {
    if !threads_exchange() {
        return;
    }
    let config = HeadConfig { centres: Placement::Device, ..HeadConfig::new(40, 8) };
    let run = |(rank, member): (usize, LocalMember)| {
        let parts = Parts::on_device(&config, Box::new(member), Device::Cpu).unwrap();
        let mut head = Head::with_parts(&config, parts).unwrap();
        let (embeddings_bd, labels) = batch(&config, 4, rank as u64);
        if rank == 1 {
            let _ = embeddings_bd.narrow(0, 2, 1).fill_(f64::NAN);
        }
        head.step(&embeddings_bd, &labels, 3, 0.1).unwrap_err().to_string()
    };
    let errors: Vec<String> = std::thread::scope(|scope| {
        let (run, members) = (&run, LocalMember::group(3).into_iter().enumerate());
        let ranks: Vec<_> = members.map(|member| scope.spawn(move || run(member))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(errors, ["step 3: the embedding of row 2 of rank 1 is not finite"; 3]);
}

/// Losses, gradients and at the end the weights of a head whose rows are the host's, with its products there
/// or on the device of the tests.
fn steps_of_tiers(config: &HeadConfig, is_tiered: bool) -> (Vec<f64>, Vec<Tensor>) {
    let in_memory = HeadConfig { centres: Placement::Host, ..config.clone() };
    let mut parts = Parts::of_config(&in_memory, Box::new(Solo)).unwrap();
    if is_tiered {
        let range = ClassRange::of_rank(config.classes, 0, 1);
        parts.store = Box::new(TieredStore::new(config, range, device()).unwrap());
    }
    let mut head = Head::with_parts(config, parts).unwrap();
    let (mut losses, mut tensors) = (Vec::new(), Vec::new());
    for step in 0..4 {
        let (embeddings_gd, labels) = batch(config, 12, step);
        let output = head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
        losses.push(output.loss);
        tensors.push(output.grad_embeddings_bd);
    }
    tensors.push(head.state().unwrap().swap_remove(0).1);
    (losses, tensors)
}

/// Sums are added up in another order.
#[test]
fn rows_of_the_host_with_products_elsewhere_take_the_steps_of_rows_in_memory() {
    let plain = HeadConfig { sample_rate: 0.4, scale: 16.0, ..HeadConfig::new(90, 16) };
    let dir = tempfile::tempdir().unwrap();
    let largest = |tensor: &Tensor| tensor.to_kind(Kind::Double).abs().max().double_value(&[]);
    for (host, tiered) in [
        // Parts of a row, and of 4.
        (HeadConfig { tile_rows: 7, ..plain.clone() }, None),
        (HeadConfig { tile_rows: 12, interclass_filter: 0.4, ..plain.clone() }, None),
        // More parts than one of the size that it has by default.
        (HeadConfig { classes: 5000, sample_rate: 1.0, ..plain.clone() }, None),
        (plain.clone(), Some(Placement::File(dir.path().join("centres")))),
    ] {
        let there = HeadConfig { centres: tiered.unwrap_or(Placement::Host), ..host.clone() };
        let ((expected, expected_tensors), (losses, tensors)) =
            (steps_of_tiers(&host, false), steps_of_tiers(&there, true));
        for (found, expected) in losses.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5 * expected, "{found}, {expected}");
        }
        for (i, (found, expected)) in tensors.iter().zip(&expected_tensors).enumerate() {
            let error = largest(&(found - expected)) / largest(expected);
            assert!(error <= 1e-5, "tensor {i}: {error:e}");
        }
    }
}
