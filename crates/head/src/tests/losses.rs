//! Every loss against automatic differentiation, on one and on several ranks, in every storage.

// G = global batch, D = embedding, C = centres.

use super::*;

/// Every loss, with numbers that bring all of its branches into play: lengths of the embeddings are
/// around 9.8, and margins of 1.6 carry half of the positives past pi.
fn losses() -> Vec<Margin> {
    let gradient = ArcfaceGradient::Exact;
    vec![
        Margin::Cosface { m: 0.4 },
        Margin::Arcface { m: 0.5, gradient },
        Margin::Arcface { m: 1.6, gradient },
        Margin::Combined { m1: 1.1, m2: 0.3, m3: 0.2 },
        Margin::Adaface { m: 0.4, h: 0.333, alpha: 0.99 },
        Margin::Curricularface { m: 0.5, alpha: 0.9 },
        Margin::Curricularface { m: 1.6, alpha: 0.01 },
        Margin::Magface { l_margin: 0.45, u_margin: 0.8, l_a: 9.0, u_a: 11.0, lambda_g: 35.0 },
        Margin::Magface { l_margin: 1.2, u_margin: 2.4, l_a: 5.0, u_a: 20.0, lambda_g: 3.0 },
        Margin::Uniface { m: 0.4, lambda: 1.0 },
        Margin::Uniface { m: 0.1, lambda: 0.3 },
        Margin::SubcentreArcface { m: 0.5, k: 3, gradient },
        Margin::SubcentreArcface { m: 1.6, k: 2, gradient },
    ]
}

/// What the first step of some ranks came to, with lr 1 and neither momentum nor decay.
struct FirstStep {
    loss: f64,
    grad_gd: Tensor,
    /// The centres before the step.
    before_cd: Tensor,
    /// Their momentum after it, which is the gradient.
    momentum_cd: Tensor,
    /// The loss's figures, of every rank.
    memories: Vec<Vec<f64>>,
}

fn first_step(
    config: &HeadConfig,
    world: usize,
    batch: &(dyn Fn() -> (Tensor, Vec<i64>) + Sync),
) -> FirstStep {
    let work = |member: LocalMember| {
        let (embeddings_gd, labels) = batch();
        let rank = member.rank();
        let parts = Parts::of_config(config, Box::new(member)).unwrap();
        let mut head = Head::with_parts(config, parts).unwrap();
        let before_cd = weight_of(&mut head);
        let share = ClassRange::of_rank(labels.len() as u64, rank, world);
        let own = share.first() as usize..share.first() as usize + share.len();
        let own_bd = embeddings_gd.narrow(0, own.start as i64, own.len() as i64);
        let output = head.step(&own_bd, &labels[own], 0, 1.0).unwrap();
        let momentum_cd = head.state().unwrap().swap_remove(1).1;
        (output, before_cd, momentum_cd, head.loss_memory())
    };
    let of_ranks: Vec<_> = std::thread::scope(|scope| {
        let ranks: Vec<_> = LocalMember::group(world)
            .into_iter()
            .map(|member| scope.spawn(|| work(member)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    type OfRank = (HeadOutput, Tensor, Tensor, Vec<f64>);
    let cat = |of: &dyn Fn(&OfRank) -> Tensor| {
        Tensor::cat(&of_ranks.iter().map(of).collect::<Vec<_>>(), 0)
    };
    FirstStep {
        loss: of_ranks[0].0.loss,
        grad_gd: cat(&|rank| rank.0.grad_embeddings_bd.shallow_clone()),
        before_cd: cat(&|rank| rank.1.shallow_clone()),
        momentum_cd: cat(&|rank| rank.2.shallow_clone()),
        memories: of_ranks.into_iter().map(|rank| rank.3).collect(),
    }
}

#[track_caller]
fn check(config: &HeadConfig, world: usize) {
    let (embeddings_gd, labels) = batch(config, 12, 3);
    let found = first_step(config, world, &|| batch(config, 12, 3));
    let expected = by_autograd(config, (&embeddings_gd, &labels), &found.before_cd);
    let place = format!("{:?} on {world} ranks, {config:?}", config.margin);
    let near = |found: f64, expected: f64, what: &str| {
        let error = (found - expected).abs() / expected.abs().max(1e-3);
        assert!(error <= 2e-5, "{what} off by {error}: {place}");
    };
    near(found.loss, expected.loss, "loss");
    let error = relative_error(&found.grad_gd, &expected.by_embeddings_gd);
    assert!(error <= 2e-5, "gradient by embeddings off by {error}: {place}");
    // Rows were bf16 before the step, so of the gradient alone the last bit is lost, up or down.
    let bound = if config.state == Storage::Bf16 { 1.0 / 128.0 } else { 2e-5 };
    let error = relative_error(&found.momentum_cd, &expected.by_centres_cd);
    assert!(error <= bound, "gradient by centres off by {error}: {place}");
    if matches!(config.margin, Margin::Uniface { .. }) {
        near(found.memories[0][1], expected.by_bias, "gradient by the bias");
    }
    assert!(found.memories.iter().all(|memory| *memory == found.memories[0]), "{place}");
}

fn config(margin: Margin) -> HeadConfig {
    HeadConfig { margin, momentum: 0.0, weight_decay: 0.0, ..HeadConfig::new(61, 24) }
}

#[test]
fn every_loss_has_the_gradient_of_automatic_differentiation() {
    for margin in losses() {
        for world in [1, 2, 3] {
            check(&config(margin), world);
            if margin.sub_centres() == 1 {
                check(&HeadConfig { interclass_filter: 0.2, ..config(margin) }, world);
            }
        }
    }
}

#[test]
fn every_loss_has_the_same_gradient_over_sampled_rows_weighted_or_not() {
    for margin in losses() {
        for (log_q, world) in [(false, 1), (true, 1), (true, 2)] {
            check(&HeadConfig { sample_rate: 0.5, log_q, ..config(margin) }, world);
        }
    }
}

#[test]
fn every_loss_has_the_same_gradient_in_small_tiles_without_a_cache() {
    for margin in losses() {
        for tile_rows in [1, 7] {
            check(&HeadConfig { tile_rows, cache_mib: 0, ..config(margin) }, 1);
        }
    }
}

#[test]
fn every_loss_has_the_same_gradient_with_centres_in_every_place_and_format() {
    for margin in losses() {
        for storage in [Storage::F32, Storage::Bf16] {
            for world in [1, 2] {
                let folder = tempfile::tempdir().unwrap();
                let file = Placement::File(folder.path().join("centres"));
                for centres in [Placement::Host, Placement::Device, file] {
                    let (weights, state) = (storage, storage);
                    check(&HeadConfig { centres, weights, state, ..config(margin) }, world);
                }
            }
        }
    }
}

#[test]
fn a_scale_whose_exponentials_overflow_suits_every_loss() {
    for margin in losses() {
        let change = |config: &mut HeadConfig| {
            *config = HeadConfig { scale: 84.0, tile_rows: 12, ..self::config(margin) };
        };
        // Logits of 84 carry an error of 84 * 2^-24 = 5e-6 into their exponentials.
        check_gradients(change, 1e-4);
    }
}

/// A head under each loss that is killed and goes on from its checkpoint takes the same steps.
#[test]
fn what_a_loss_remembers_is_restored() {
    for margin in losses() {
        let config = HeadConfig { margin, sample_rate: 0.5, ..HeadConfig::new(60, 12) };
        let run = |head: &mut Head, steps: std::ops::Range<u64>| -> Vec<f64> {
            let step = |step| {
                let (embeddings_gd, labels) = batch(&config, 8, step);
                head.step(&embeddings_gd, &labels, step, 0.05).unwrap().loss
            };
            steps.map(step).collect()
        };
        let mut whole = Head::new(&config).unwrap();
        run(&mut whole, 0..4);
        let (state, memory) = (whole.checkpoint(false).unwrap(), whole.loss_memory());
        let mut resumed = Head::new(&config).unwrap();
        resumed.load_state(&state).unwrap();
        resumed.recall_loss(&memory);
        assert_eq!(run(&mut resumed, 4..9), run(&mut whole, 4..9), "{margin:?}");
    }
}

#[test]
fn sub_centres_are_refused_where_they_cannot_be() {
    let margin = Margin::SubcentreArcface { m: 0.5, k: 3, gradient: ArcfaceGradient::Exact };
    let check = |config: HeadConfig, expected: &str| {
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    };
    check(
        HeadConfig { interclass_filter: 0.4, ..config(margin) },
        "head.interclass_filter does not go with the sub-centres of head.margin",
    );
    let classes = u64::from(u32::MAX) / 2;
    check(
        HeadConfig { classes, ..config(margin) },
        "head.classes is 2147483647, but has to be from 1 to 1431655765",
    );
}
