//! The head as a whole, against automatic differentiation and against itself.

mod losses;
mod storage;

use tch::{Device, Kind, Reduction};

use super::*;

const STEPS: u64 = 6;

/// A batch that is a function of the step: embeddings near the centres of a few classes.
fn batch(config: &HeadConfig, n_rows: usize, step: u64) -> (Tensor, Vec<i64>) {
    let mut values = vec![0f32; n_rows * config.dim];
    let batch_key = rng::key(step, rng::Purpose::Sample, 77);
    rng::fill_normal(batch_key, 2.0, &mut values);
    let labels = (0..n_rows as u64)
        // Every third row repeats a class.
        .map(|row| (rng::scramble(batch_key + row - row % 3) % config.classes) as i64)
        .collect();
    let shape = [n_rows as i64, config.dim as i64];
    (Tensor::from_slice(&values).view(shape), labels)
}

fn weight_of(head: &mut Head) -> Tensor {
    head.state().unwrap().swap_remove(0).1
}

/// `max|a - b| / max|b|`.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let largest = |t: Tensor| t.to_kind(Kind::Double).abs().max().double_value(&[]);
    assert_eq!(a.size(), b.size());
    largest(a - b) / largest(b.shallow_clone())
}

/// Loss and gradients by automatic differentiation.
struct Autograd {
    loss: f64,
    by_embeddings_gd: Tensor,
    by_centres_cd: Tensor,
    /// By the bias of `UniFace`.
    by_bias: f64,
}

/// The first step of a head that holds `weight_cd`, in f64.
fn by_autograd(
    config: &HeadConfig,
    (embeddings_gd, labels): (&Tensor, &[i64]),
    weight_cd: &Tensor,
) -> Autograd {
    let leaf = |tensor: &Tensor| tensor.to_kind(Kind::Double).detach().set_requires_grad(true);
    let (x_gd, w_cd) = (leaf(embeddings_gd), leaf(weight_cd));
    let drawn = drawn_in_step_0(config, labels);
    let n_negatives = if config.log_q { config.classes } else { config.rows_per_step() };
    let bias = leaf(&Tensor::from((10.0 * n_negatives.max(1) as f64).ln()));
    let unit = |t: &Tensor| t / t.norm_scalaropt_dim(2, [1i64], true).clamp_min(1e-12);
    let (classes, k) = (config.classes as i64, config.margin.sub_centres() as i64);
    let cos_gck = unit(&x_gd).matmul(&unit(&w_cd).tr()).view([-1, classes, k]);
    let (mut cos_gc, _) = cos_gck.max_dim(2, false);
    let labels_g = Tensor::from_slice(labels);
    let own_gc = labels_g.one_hot(classes).to_kind(Kind::Bool);
    if config.interclass_filter > 0.0 {
        let noise_gc = cos_gc.gt(config.interclass_filter).logical_and(&own_gc.logical_not());
        cos_gc = cos_gc.masked_fill(&noise_gc, 0.0);
    }
    let drawn_c = Tensor::zeros([classes], (Kind::Bool, Device::Cpu));
    let _ = drawn_c.shallow_clone().index_fill_(0, &Tensor::from_slice(&drawn), 1);
    let weight =
        if config.log_q { (config.classes - 1) as f64 / (drawn.len() - 1) as f64 } else { 1.0 };
    let norms_g1 = x_gd.norm_scalaropt_dim(2, [1i64], true);
    let (margined_gc, negatives_gc) = margined(config, &cos_gc, &own_gc, &norms_g1);
    let losses_g = if let Margin::Uniface { lambda, .. } = config.margin {
        let positives_gc = (&bias - margined_gc * config.scale).softplus();
        let negatives_gc = (negatives_gc * config.scale - &bias).softplus() * (lambda * weight);
        let all_gc = positives_gc.where_self(&own_gc, &negatives_gc);
        all_gc.masked_fill(&drawn_c.logical_not(), 0.0).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Double,
        )
    } else {
        let negatives_gc = negatives_gc * config.scale + weight.ln();
        let logits_gc = (margined_gc * config.scale).where_self(&own_gc, &negatives_gc);
        let logits_gc = logits_gc.masked_fill(&drawn_c.logical_not(), f64::NEG_INFINITY);
        let losses_g =
            logits_gc.cross_entropy_loss::<Tensor>(&labels_g, None, Reduction::None, -100, 0.0);
        // The bound on a sample's loss does not stop its gradient, in the reference as here.
        let beyond_g = (&losses_g + 1e-30f64.ln()).clamp_min(0.0).detach();
        losses_g - beyond_g
    };
    let mut loss = losses_g.mean(Kind::Double);
    if let Margin::Magface { l_a, u_a, lambda_g, .. } = config.margin {
        let a_g1 = norms_g1.clamp(l_a, u_a);
        loss += (&a_g1 / (u_a * u_a) + a_g1.reciprocal()).mean(Kind::Double) * lambda_g;
    }
    loss.backward();
    let by_bias = if bias.grad().defined() { bias.grad().double_value(&[]) } else { 0.0 };
    let (by_embeddings_gd, by_centres_cd) = (x_gd.grad(), w_cd.grad());
    Autograd { loss: loss.double_value(&[]), by_embeddings_gd, by_centres_cd, by_bias }
}

/// What a loss makes of cosines in its first step, if they are those of positives and if of negatives.
fn margined(
    config: &HeadConfig,
    cos_gc: &Tensor,
    own_gc: &Tensor,
    norms_g1: &Tensor,
) -> (Tensor, Tensor) {
    let half_turn = std::f64::consts::PI;
    let arcface = |m: f64| {
        let past_pi = cos_gc.lt((half_turn - m).cos());
        (cos_gc - m * m.sin()).where_self(&past_pi, &(cos_gc.acos() + m).cos())
    };
    let positives_gc = match config.margin {
        Margin::Cosface { m } | Margin::Uniface { m, .. } => cos_gc - m,
        Margin::Arcface { m, .. }
        | Margin::SubcentreArcface { m, .. }
        | Margin::Curricularface { m, .. } => arcface(m),
        Margin::Combined { m1, m2, m3 } => (cos_gc.acos() * m1 + m2).cos() - m3,
        Margin::Adaface { m, h, alpha } => {
            let norms_g1 = norms_g1.detach();
            let (mean, deviation) = (norms_g1.mean(Kind::Double), norms_g1.std(true));
            let mean = 20.0 + alpha * (mean.double_value(&[]) - 20.0);
            let deviation = 100.0 + alpha * (deviation.double_value(&[]) - 100.0);
            let quality_g1 = ((norms_g1 - mean) / (deviation + 1e-3) * h).clamp(-1.0, 1.0);
            let angle_gc = cos_gc.acos() - &quality_g1 * m;
            angle_gc.clamp(1e-3, half_turn - 1e-3).cos() - (quality_g1 * m + m)
        }
        Margin::Magface { l_margin, u_margin, l_a, u_a, .. } => {
            let a_g1 = norms_g1.clamp(l_a, u_a);
            let m_g1 = (a_g1 - l_a) * ((u_margin - l_margin) / (u_a - l_a)) + l_margin;
            let past_pi = cos_gc.lt_tensor(&(half_turn - &m_g1).cos());
            (cos_gc - &m_g1 * m_g1.sin()).where_self(&past_pi, &(cos_gc.acos() + m_g1).cos())
        }
    };
    let negatives_gc = match config.margin {
        Margin::Curricularface { m, alpha } => {
            let own_cos_g1 = (cos_gc * own_gc.to_kind(Kind::Double))
                .sum_dim_intlist([1i64].as_slice(), true, Kind::Double)
                .detach();
            let t = own_cos_g1.mean(Kind::Double) * alpha;
            let is_hard_gc = cos_gc.gt_tensor(&(own_cos_g1.acos() + m).cos());
            (cos_gc * (cos_gc + t)).where_self(&is_hard_gc, cos_gc)
        }
        _ => cos_gc.shallow_clone(),
    };
    (positives_gc, negatives_gc)
}

/// The classes that take part in the first step.
fn drawn_in_step_0(config: &HeadConfig, labels: &[i64]) -> Vec<i64> {
    let mut positives: Vec<u64> = labels.iter().map(|&label| label as u64).collect();
    positives.sort_unstable();
    positives.dedup();
    let range = ClassRange::of_rank(config.classes, 0, 1);
    let draw = Draw { step: 0, positives: &positives, range };
    let rows = Pprn::new(config.rows_per_step(), config.seed).draw(&draw);
    rows.into_iter().map(i64::from).collect()
}

/// One step of `head` against automatic differentiation; with lr 1 and neither momentum nor decay,
/// the centres move by their gradient.
#[track_caller]
fn check_gradients(change: impl FnOnce(&mut HeadConfig), bound: f64) {
    let mut config = HeadConfig { momentum: 0.0, weight_decay: 0.0, ..HeadConfig::new(60, 24) };
    change(&mut config);
    let mut head = Head::new(&config).unwrap();
    let before_cd = weight_of(&mut head);
    let (embeddings_gd, labels) = batch(&config, 12, 3);
    let output = head.step(&embeddings_gd, &labels, 0, 1.0).unwrap();
    let expected = by_autograd(&config, (&embeddings_gd, &labels), &before_cd);
    let loss = expected.loss;
    assert!((output.loss - loss).abs() <= bound * loss, "{} for {loss}", output.loss);
    let error = relative_error(&output.grad_embeddings_bd, &expected.by_embeddings_gd);
    assert!(error <= bound, "gradient by embeddings off by {error}");
    let error = relative_error(&(before_cd - weight_of(&mut head)), &expected.by_centres_cd);
    assert!(error <= bound, "gradient by centres off by {error}");
}

#[test]
fn sampled_rows_have_the_gradient_of_automatic_differentiation_weighted_or_not() {
    for log_q in [false, true] {
        let change = |config: &mut HeadConfig| (config.sample_rate, config.log_q) = (0.5, log_q);
        check_gradients(change, 2e-5);
    }
}

#[test]
fn gradients_do_not_depend_on_tiles_nor_on_the_cache() {
    for (tile_rows, cache_mib) in [(1, 256), (7, 256), (7, 0), (60, 0)] {
        let change = |config: &mut HeadConfig| {
            (config.tile_rows, config.cache_mib) = (tile_rows, cache_mib);
            config.interclass_filter = 0.3;
        };
        check_gradients(change, 2e-5);
    }
}

#[test]
fn a_scale_whose_exponentials_overflow_is_handled_with_the_largest_logit() {
    for scale in [84.0, 500.0] {
        let change = |config: &mut HeadConfig| {
            config.scale = scale;
            config.tile_rows = 11;
            config.margin = Margin::Cosface { m: 0.01 };
        };
        // Logits of 500 carry an error of 500 * 2^-24 = 3e-5 into their exponentials.
        check_gradients(change, 5e-4);
    }
    let needs_offsets = |config: &HeadConfig| {
        softmax::TiledSoftmax::needs_offsets(config, loss::of_config(config).as_ref())
    };
    assert!(needs_offsets(&HeadConfig { scale: 84.0, ..HeadConfig::new(60, 4) }));
    assert!(!needs_offsets(&HeadConfig::new(100_000_000, 4)));
}

#[test]
fn bf16_products_stay_within_their_rounding() {
    // Cosines near 0.2 are off by 2^-9 of that, logits by 64 times as much: 0.03 of a probability.
    check_gradients(|config| config.precision = ProductPrecision::Bf16, 3e-2);
}

#[test]
fn lazy_updates_equal_updates_in_every_step_over_500_steps() {
    // 10 of 200 rows a step, so that some wait for a hundred steps. Rounding feeds back through the
    // gradients, the more so the larger the scale: at 64 the end is 2e-5 off, from f32 alone.
    let config = HeadConfig { sample_rate: 0.05, scale: 16.0, ..HeadConfig::new(200, 16) };
    let mut lazy = Head::new(&config).unwrap();
    let start = lazy.state().unwrap();
    let [mut weight_cd, mut momentum_cd] =
        [&start[0].1, &start[1].1].map(|start_cd| start_cd.to_kind(Kind::Double));
    let mut sampler = Pprn::new(config.rows_per_step(), config.seed);
    for step in 0..500 {
        let lr = 0.1 * (1.0 - step as f64 / 500.0);
        let (embeddings_gd, labels) = batch(&config, 6, step);
        let output = lazy.step(&embeddings_gd, &labels, step, lr).unwrap();
        let mut positives: Vec<u64> = labels.iter().map(|&label| label as u64).collect();
        positives.sort_unstable();
        positives.dedup();
        let range = ClassRange::of_rank(config.classes, 0, 1);
        let rows = sampler.draw(&Draw { step, positives: &positives, range });
        let eager = eager_step(&config, &rows, (&embeddings_gd, &labels), &weight_cd);
        assert!((eager.0 - output.loss).abs() <= 1e-5 * eager.0, "step {step}");
        momentum_cd = momentum_cd * config.momentum + eager.1 + &weight_cd * config.weight_decay;
        weight_cd -= &momentum_cd * lr;
    }
    let end = lazy.state().unwrap();
    for ((name, lazy_cd), eager_cd) in end.iter().zip([weight_cd, momentum_cd]) {
        let error = relative_error(lazy_cd, &eager_cd);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// Loss over `rows` alone and its gradient by all centres, in f64, zero for the others.
fn eager_step(
    config: &HeadConfig,
    rows: &[u32],
    (embeddings_gd, labels): (&Tensor, &[i64]),
    weight_cd: &Tensor,
) -> (f64, Tensor) {
    let index_s = Tensor::from_slice(&rows.iter().map(|&row| i64::from(row)).collect::<Vec<_>>());
    let slots: Vec<i64> =
        labels.iter().map(|&label| rows.binary_search(&(label as u32)).unwrap() as i64).collect();
    let classes = rows.len() as u64;
    let sampled = HeadConfig { classes, sample_rate: 1.0, ..config.clone() };
    let weight_sd = weight_cd.index_select(0, &index_s);
    let found = by_autograd(&sampled, (embeddings_gd, &slots), &weight_sd);
    (found.loss, weight_cd.zeros_like().index_add(0, &index_s, &found.by_centres_cd))
}

#[test]
fn sparse_updates_leave_the_other_rows_alone() {
    let config = HeadConfig { sample_rate: 0.1, update: Update::Sparse, ..HeadConfig::new(100, 8) };
    let mut head = Head::new(&config).unwrap();
    let before_cd = weight_of(&mut head);
    let (embeddings_gd, labels) = batch(&config, 4, 0);
    let output = head.step(&embeddings_gd, &labels, 0, 0.1).unwrap();
    let moved = (weight_of(&mut head) - before_cd).abs().amax([1i64], false).gt(0.0);
    assert_eq!(output.rows_sampled, 10);
    assert_eq!(moved.sum(Kind::Int64).int64_value(&[]), 10);
}

#[test]
fn adamw_moves_centres_as_torch_moves_them() {
    let optimizer = CentreOptimizer::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let config = HeadConfig {
        update: Update::Sparse,
        optimizer,
        weight_decay: 0.1,
        ..HeadConfig::new(40, 12)
    };
    let mut head = Head::new(&config).unwrap();
    let mut weight_cd = weight_of(&mut head).to_kind(Kind::Double);
    let (mut mean_cd, mut square_cd) = (weight_cd.zeros_like(), weight_cd.zeros_like());
    for step in 0..10 {
        let (embeddings_gd, labels) = batch(&config, 8, step);
        head.step(&embeddings_gd, &labels, step, 0.001).unwrap();
        let grad_cd = by_autograd(&config, (&embeddings_gd, &labels), &weight_cd).by_centres_cd;
        mean_cd = mean_cd * 0.9 + &grad_cd * 0.1;
        square_cd = square_cd * 0.999 + &grad_cd * &grad_cd * 0.001;
        let t = step as i32 + 1;
        let root_cd = (&square_cd / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8;
        let moved_cd = &mean_cd / (1.0 - 0.9f64.powi(t)) / root_cd;
        weight_cd = &weight_cd * (1.0 - 0.001 * 0.1) - moved_cd * 0.001;
    }
    let error = relative_error(&weight_of(&mut head), &weight_cd);
    assert!(error < 1e-4, "{error:e}");
}

#[test]
fn a_restored_head_goes_on_bit_for_bit() {
    let config = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    let run = |head: &mut Head, steps: std::ops::Range<u64>| -> Vec<f64> {
        let step = |step| {
            let (embeddings_gd, labels) = batch(&config, 8, step);
            head.step(&embeddings_gd, &labels, step, 0.05).unwrap().loss
        };
        steps.map(step).collect()
    };
    let mut undisturbed = Head::new(&config).unwrap();
    run(&mut undisturbed, 0..3);
    // Untouched rows follow from the seed, which is another one there.
    undisturbed.touch_all().unwrap();
    let state = undisturbed.state().unwrap();
    let mut restored = Head::new(&HeadConfig { seed: 5, ..config.clone() }).unwrap();
    restored.load_state(&state).unwrap();
    restored.parts.sampler = Box::new(Pprn::new(config.rows_per_step(), config.seed));
    assert_eq!(run(&mut undisturbed, 3..8), run(&mut restored, 3..8));
    assert_eq!(weight_of(&mut undisturbed), weight_of(&mut restored));
}

#[test]
fn saving_rows_as_they_are_changes_nothing_of_a_run() {
    for update in [Update::Dense, Update::Sparse] {
        let config = HeadConfig { sample_rate: 0.2, update, ..HeadConfig::new(90, 12) };
        let run = |head: &mut Head, steps: std::ops::Range<u64>| {
            for step in steps {
                let (embeddings_gd, labels) = batch(&config, 8, step);
                head.step(&embeddings_gd, &labels, step, 0.05).unwrap();
            }
        };
        let mut undisturbed = Head::new(&config).unwrap();
        run(&mut undisturbed, 0..5);
        let state = undisturbed.state_as_it_is().unwrap();
        assert_eq!(state.len(), if update == Update::Dense { 6 } else { 4 });
        let mut restored = Head::new(&config).unwrap();
        restored.load_state(&state).unwrap();
        run(&mut undisturbed, 5..9);
        run(&mut restored, 5..9);
        assert_eq!(weight_of(&mut undisturbed), weight_of(&mut restored));
    }
}

#[test]
fn a_rule_without_memory_takes_the_rows_caught_up() {
    let config = HeadConfig { sample_rate: 0.2, ..HeadConfig::new(90, 12) };
    let mut dense = Head::new(&config).unwrap();
    for step in 0..5 {
        let (embeddings_gd, labels) = batch(&config, 8, step);
        dense.step(&embeddings_gd, &labels, step, 0.05).unwrap();
    }
    let mut sparse = Head::new(&HeadConfig { update: Update::Sparse, ..config }).unwrap();
    sparse.load_state(&dense.state_as_it_is().unwrap()).unwrap();
    assert_eq!(weight_of(&mut sparse), weight_of(&mut dense));
}

#[test]
fn a_lag_that_does_not_fit_its_rows_is_refused_by_name() {
    let mut head = Head::new(&HeadConfig { sample_rate: 0.5, ..HeadConfig::new(10, 4) }).unwrap();
    let (embeddings_gd, labels) = batch(head.config(), 2, 0);
    head.step(&embeddings_gd, &labels, 0, 0.05).unwrap();
    let state = head.state_as_it_is().unwrap();
    let mut check = |name: &str, tensor: Tensor, expected: &str| {
        let keep = |(found, value): &(String, Tensor)| {
            (
                found.clone(),
                if found == name { tensor.shallow_clone() } else { value.shallow_clone() },
            )
        };
        let changed: Vec<_> = state.iter().map(keep).collect();
        assert_eq!(head.load_state(&changed).unwrap_err().to_string(), expected);
    };
    check(
        "centres.stamp",
        Tensor::from_slice(&[3i32; 10]),
        "head state `centres.stamp`: holds 3, not 0 to 2",
    );
    check(
        "centres.stamp",
        Tensor::from_slice(&[1i32; 9]),
        "head state `centres.stamp`: is [9] Int, not [10] Int",
    );
    check(
        "centres.missed",
        Tensor::from_slice(&[1f64; 4]),
        "head state `centres.missed`: is [4] Double, not [steps, 4] Double",
    );
}

#[test]
fn a_state_of_another_size_is_refused_by_name() {
    let mut head = Head::new(&HeadConfig::new(10, 4)).unwrap();
    let mut check = |classes, dim, expected: &str| {
        let state = Head::new(&HeadConfig::new(classes, dim)).unwrap().state().unwrap();
        assert_eq!(head.load_state(&state).unwrap_err().to_string(), expected);
    };
    check(10, 5, "head state `centres.weight`: is [10, 5], not [classes, 4]");
    check(
        9,
        4,
        "head state `centres.weight`: holds classes 0 to 9 (exclusive), but 0 to 10 are needed",
    );
    let missing = head.load_state(&[]).unwrap_err().to_string();
    assert_eq!(missing, "head state `centres.weight`: is missing");
}

/// A step that must fail and leave the centres as they were.
#[track_caller]
fn check_refused(
    change: impl FnOnce(&mut Tensor, &mut Vec<i64>),
    sampler: Option<Box<dyn Sampler>>,
    expected: &str,
) {
    let config = HeadConfig { sample_rate: 0.5, ..HeadConfig::new(20, 4) };
    let mut head = Head::new(&config).unwrap();
    if let Some(sampler) = sampler {
        head.parts.sampler = sampler;
    }
    let before_cd = weight_of(&mut head);
    let (mut embeddings_bd, mut labels) = batch(&config, 5, 1);
    change(&mut embeddings_bd, &mut labels);
    let error = head.step(&embeddings_bd, &labels, 9, 0.1).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(weight_of(&mut head), before_cd);
}

#[test]
fn a_bad_batch_is_an_error_that_names_step_rank_and_row() {
    check_refused(
        |_, labels| labels[2] = 20,
        None,
        "step 9: row 2 of rank 0 has label 20, but the head has 20 classes",
    );
    check_refused(
        |_, labels| labels[4] = -1,
        None,
        "step 9: row 4 of rank 0 has label -1, but the head has 20 classes",
    );
    check_refused(
        |embeddings_bd, _| drop(embeddings_bd.narrow(0, 3, 1).fill_(f64::NAN)),
        None,
        "step 9: the embedding of row 3 of rank 0 is not finite",
    );
    check_refused(
        |_, labels| labels.truncate(4),
        None,
        "step 9: the batch is [5, 4] with 4 labels, but the head takes [B, 4] with B labels",
    );
    check_refused(
        |embeddings_bd, labels| {
            *embeddings_bd = Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
            labels.clear();
        },
        None,
        "step 9: the batch is empty on every rank, but the head takes a row or more",
    );
}

/// A sampler that always gives the same rows.
struct Fixed(Vec<u32>);

impl Sampler for Fixed {
    fn draw(&mut self, _: &Draw<'_>) -> Vec<u32> {
        self.0.clone()
    }
}

#[test]
fn a_sampler_that_breaks_its_promise_is_found_out() {
    let check = |rows: Vec<u32>, expected: &str| {
        let start = "step 9: the sampled rows are unusable: ";
        let one_class = |_: &mut Tensor, labels: &mut Vec<i64>| labels.fill(3);
        check_refused(one_class, Some(Box::new(Fixed(rows))), &format!("{start}{expected}"));
    };
    check(vec![3, 2], "row 2 follows row 3");
    check(vec![3, 20], "row 20 is past the last of 20");
    check(vec![1, 4], "class 3 is in the batch but not among them");
}
