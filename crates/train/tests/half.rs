//! Training in f16: what overflows moves nothing, on any rank, and the scale is part of the run.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use pfc_head::Margin;
use pfc_model::{Choice, Precision};
use pfc_train::{log::metrics::Record, step::Trainer};
use support::{
    run::{Setup, as_strs, check_same, checkpoint, records, sets, wait_for},
    trainer::trainer,
};
use tch::Tensor;

/// Gradients of the first four images overflow with it: some are beyond 16, and f16 ends at 65,504. Three
/// halvings later they fit, so that few steps, which take long where f16 is emulated, show both.
const TOO_LARGE: f64 = 4096.0;

/// In f16, from a scale that does not fit.
fn half(more: &[&str]) -> Vec<String> {
    let scale = format!("optim.loss_scale={TOO_LARGE}");
    // Verification would take most of the time.
    let own = [
        "model.precision=f16",
        &scale,
        "optim.loss_scale_steps=2",
        "optim.warmup_epochs=0",
        "eval.sets=[]",
    ];
    sets(&[&own[..], more].concat())
}

/// Step, scale and skipped steps of every line.
fn scales(out: &Path) -> Vec<(u64, f64, u64)> {
    let scale = |record| match record {
        Record::Train(r) => Some((r.step, r.loss_scale.unwrap(), r.n_skipped)),
        _ => None,
    };
    records(out).into_iter().filter_map(scale).collect()
}

/// Checks each line by the one before it: halved by an overflow, doubled by two steps without.
#[track_caller]
fn check_scales(found: &[(u64, f64, u64)]) {
    assert_eq!(found[0], (1, TOO_LARGE, 1), "the first step overflows");
    let mut n_good = 0;
    for pair in found.windows(2) {
        let ((step, scale, skipped), (_, next, _)) = (pair[0], pair[1]);
        n_good = if skipped == 1 { 0 } else { n_good + 1 };
        let expected = match (skipped, n_good) {
            (1, _) => scale / 2.0,
            (_, 2) => scale * 2.0,
            _ => scale,
        };
        n_good %= 2;
        assert_eq!(next, expected, "after step {step} of {found:?}");
    }
}

#[test]
fn a_run_whose_gradients_overflow_skips_and_resumes_bit_for_bit_on_one_rank_and_on_two() {
    for world in [1, 2] {
        let setup = Setup::new(3);
        let [whole, killed] = ["whole", "killed"].map(|name| setup.out(name));
        let mut more = half(&["train.steps=8"]);
        if world > 1 {
            more.extend(["--nproc-per-node".to_owned(), world.to_string()]);
        }
        let more = as_strs(&more);
        setup.finish(&whole, &more);
        let found = scales(&whole);
        check_scales(&found);
        assert!(found.iter().any(|(_, _, skipped)| *skipped == 0), "{found:?}");

        let mut child = setup.command(&killed, &more).spawn().unwrap();
        assert!(wait_for(&checkpoint(&killed, 3), &mut child));
        child.kill().unwrap();
        child.wait().unwrap();
        setup.finish(&killed, &[&["--resume"][..], &more].concat());
        check_same(&killed, &whole);
    }
}

#[test]
fn a_run_saved_on_two_ranks_goes_on_with_its_scale_on_one() {
    let setup = Setup::new(3);
    let out = setup.out("run");
    let two = half(&["train.steps=3"]);
    setup.finish(&out, &[&as_strs(&two)[..], &["--nproc-per-node", "2"]].concat());
    let more = half(&["train.steps=6"]);
    setup.finish(&out, &[&as_strs(&more)[..], &["--resume"]].concat());
    let found = scales(&out);
    assert_eq!(found.len(), 6);
    check_scales(&found);
}

fn parameters(trainer: &Trainer) -> Vec<(String, Tensor)> {
    let named = trainer.backbone.named_parameters().into_iter().chain(trainer.optimizer.state());
    named.map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[test]
fn a_step_that_overflows_leaves_network_and_optimizer_as_they_were() {
    let setup = Setup::new(3);
    let (mut trainer, mut loader) = trainer(&setup, |config| {
        config.model.precision = Choice::Given(Precision::F16);
        config.optim.loss_scale = TOO_LARGE;
    });
    let before = parameters(&trainer);
    let figures = trainer.step(&loader.next_batch().unwrap()).unwrap();
    assert!(figures.skipped && figures.loss.is_finite(), "{figures:?}");
    assert_eq!((trainer.n_done, figures.loss_scale), (1, Some(TOO_LARGE)));
    assert!(parameters(&trainer) == before);
    assert_eq!(trainer.loss_scale.unwrap().factor(), TOO_LARGE / 2.0);
}

#[test]
fn a_step_that_overflows_moves_the_centres_and_what_the_loss_remembers() {
    let setup = Setup::new(3);
    let (mut trainer, mut loader) = trainer(&setup, |config| {
        config.model.precision = Choice::Given(Precision::F16);
        // With any loss: f16 ends at 65,504.
        config.optim.loss_scale = 1e9;
        config.head.margin = Margin::Adaface { m: 0.4, h: 0.333, alpha: 0.01 };
    });
    let centres = |trainer: &mut Trainer| trainer.head.state().unwrap().swap_remove(0).1;
    let before = (centres(&mut trainer), trainer.head.loss_memory());
    assert!(trainer.step(&loader.next_batch().unwrap()).unwrap().skipped);
    assert!(centres(&mut trainer) != before.0, "no centre has moved");
    assert_ne!(trainer.head.loss_memory(), before.1);
}

/// f16 keeps 11 bits of what f32 does; the gradient's norm is that of its largest numbers.
const HALF: f64 = 0.02;

#[test]
fn the_scale_does_not_show_in_the_gradient() {
    let setup = Setup::new(3);
    let norm = |precision, scale| {
        let (mut trainer, mut loader) = trainer(&setup, |config| {
            config.model.precision = Choice::Given(precision);
            config.optim.loss_scale = scale;
        });
        trainer.step(&loader.next_batch().unwrap()).unwrap().grad_norm
    };
    let expected = norm(Precision::F32, 1.0);
    for scale in [1.0, 8.0] {
        let found = norm(Precision::F16, scale);
        assert!((found / expected - 1.0).abs() < HALF, "{found}, not {expected}, at {scale}");
    }
}
