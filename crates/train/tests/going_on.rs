//! Runs that go on: over steps that are not finite, images that cannot be read, and without any data.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path};

use pfc_model::tensors;
use pfc_train::{
    TrainError, config,
    data::{
        loader::{Batch, Replaced},
        plan::StepPlan,
    },
    log::metrics::Record,
    step::{NotFinite, Trainer},
};
use support::{
    run::{Setup, as_strs, check_same, checkpoint, last_step, records, refused, sets, wait_for},
    trainer::trainer,
};
use tch::Tensor;

/// Weights, running statistics, the optimizer's state and the centres.
fn everything(trainer: &mut Trainer) -> Vec<(String, Tensor)> {
    let head = trainer.head.checkpoint(false).unwrap();
    let named = trainer.backbone.state_dict().into_iter().chain(trainer.optimizer.state());
    named.chain(head).map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

fn spoilt(batch: &Batch, value: f64) -> Batch {
    let images = batch.images.copy();
    let _ = images.get(1).fill_(value);
    Batch { images, labels: batch.labels.clone(), replaced: Vec::new() }
}

#[test]
fn a_step_that_is_not_finite_is_left_out_whole_until_too_many_come_in_a_row() {
    let setup = Setup::new(3);
    for (parts, margin, centres) in
        [(1, "arcface", "host"), (2, "adaface", "host"), (2, "arcface", "device")]
    {
        let (mut trainer, mut loader) = trainer(&setup, |config| {
            config.optim.skip_nonfinite = 2;
            config.optim.ema = 0.9;
            config.train.accumulate = parts;
            let margin = format!("head.margin={{loss=\"{margin}\", m=0.4}}");
            let sets = [margin, format!("head.centres=\"{centres}\"")];
            let sets = sets.map(|set| set.parse().unwrap());
            let head = config::load(&setup.config, &sets).unwrap().head;
            (config.head.margin, config.head.centres) = (head.margin, head.centres);
        });
        trainer.step(&loader.next_batch().unwrap()).unwrap();
        let good = loader.next_batch().unwrap();
        for round in 0..2 {
            let before = everything(&mut trainer);
            for in_a_row in 1..=2 {
                let spoilt = spoilt(&good, if round == 0 { f64::NAN } else { f64::INFINITY });
                let figures = trainer.step(&spoilt).unwrap();
                let expected = NotFinite { what: "an embedding", in_a_row };
                assert_eq!(figures.not_finite, Some(expected));
                assert!(everything(&mut trainer) == before, "something has moved");
            }
            assert_eq!(trainer.n_done, 3 + round * 3);
            if round == 0 {
                // A good one between begins the count again.
                assert_eq!(trainer.step(&good).unwrap().not_finite, None);
            }
        }
        let error = trainer.step(&spoilt(&good, f64::NAN)).unwrap_err();
        assert!(matches!(error, TrainError::TooManyLeftOut { n: 2, .. }), "{error:?}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn without_the_option_the_first_step_that_is_not_finite_ends_the_run() {
    let setup = Setup::new(3);
    let (mut trainer, mut loader) = trainer(&setup, |_| {});
    let batch = loader.next_batch().unwrap();
    assert!(trainer.step(&spoilt(&batch, f64::NAN)).is_err());
}

/// Steps left out and images replaced, by step.
fn counts(out: &Path) -> Vec<(u64, u64, u64)> {
    let count = |record| match record {
        Record::Train(r) => Some((r.step, r.n_not_finite, r.n_replaced)),
        _ => None,
    };
    records(out).into_iter().filter_map(count).collect()
}

#[test]
fn a_run_that_diverges_ends_after_so_many_steps_left_out_on_one_rank_and_on_two() {
    let setup = Setup::new(3);
    let more =
        sets(&["optim.lr=1e30", "optim.warmup_epochs=0", "optim.skip_nonfinite=3", "eval.sets=[]"]);
    for ranks in ["1", "2"] {
        let out = setup.out(&format!("on-{ranks}"));
        let more = [&as_strs(&more)[..], &["--nproc-per-node", ranks]].concat();
        let said = refused(setup.command(&out, &more));
        assert!(said.contains("after 3 steps in a row that were left out"), "{said}");
        assert!(said.contains("is left out, 3 in a row so far"), "{said}");
        // What was not computed is neither 0 nor a number.
        let means = |record: &Record| match record {
            Record::Train(r) if r.n_not_finite == 1 => Some([r.loss, r.grad_norm, r.cavg]),
            _ => None,
        };
        let means: Vec<[Option<f64>; 3]> = records(&out).iter().filter_map(means).collect();
        assert!(means.len() >= 3 && means.iter().all(|means| *means == [None; 3]), "{means:?}");
        let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        assert!(text.contains("\"loss\":null,\"grad_norm\":null,"), "{text}");
        assert!(said.contains("  loss –  grad_norm –  lr "), "{said}");
        let left_out = counts(&out).iter().rev().take_while(|(_, n, _)| *n == 1).count();
        assert_eq!(left_out, 3, "{said}");
        assert!(last_step(&out) > 3, "no step was good: {said}");
    }
}

/// Runs to the end and, killed after step 6 and resumed, again, and compares the two to the bit.
fn check_kill(setup: &Setup, more: &[&str]) {
    let [whole, killed] = ["whole", "killed"].map(|name| setup.out(name));
    setup.finish(&whole, more);
    let mut child = setup.command(&killed, more).spawn().unwrap();
    assert!(wait_for(&checkpoint(&killed, 6), &mut child));
    child.kill().unwrap();
    child.wait().unwrap();
    setup.finish(&killed, &[&["--resume"][..], more].concat());
    check_same(&killed, &whole);
    assert_eq!(counts(&killed), counts(&whole));
}

#[test]
fn a_run_with_steps_left_out_resumes_bit_for_bit() {
    let setup = Setup::new(3);
    let more = sets(&[
        "optim.lr=1e30",
        "optim.warmup_epochs=0",
        "optim.skip_nonfinite=100",
        "eval.sets=[]",
    ]);
    check_kill(&setup, &as_strs(&more));
    assert!(counts(&setup.out("whole")).iter().any(|(_, n, _)| *n == 1));
}

/// Rows of the data set of [`Setup::new`] that are cut short.
const DAMAGED: [u64; 2] = [5, 11];

fn damaged() -> Setup {
    let setup = Setup::new(3);
    let data = setup.out("data");
    fs::remove_dir_all(&data).unwrap();
    support::write_dataset_of(&data, 6, 3, |row, mut jpeg| {
        if DAMAGED.contains(&row) {
            jpeg.truncate(jpeg.len() / 3);
        }
        jpeg
    });
    setup
}

#[test]
fn an_unreadable_image_ends_a_run_and_says_how_to_go_on_without_it() {
    let setup = damaged();
    // Of two ranks the one that meets it first ends both.
    for ranks in ["1", "2"] {
        let out = setup.out(&format!("on-{ranks}"));
        let said = refused(setup.command(&out, &["--nproc-per-node", ranks]));
        assert!(said.contains("cannot be decoded"), "{said}");
        assert!(said.contains("data.on_error=skip"), "{said}");
    }
}

#[test]
fn unreadable_images_are_replaced_counted_and_listed_the_same_on_any_number_of_ranks() {
    let setup = damaged();
    let more = sets(&["data.on_error=skip", "eval.sets=[]"]);
    // What the order of the images says, whoever takes them.
    let plan = StepPlan { n_images: 18, batch_size: 4, epochs: 3, steps: 0, seed: 2048 };
    let expected: Vec<u64> = (0..12)
        .map(|step| plan.places(step).filter(|place| DAMAGED.contains(&place.row)).count() as u64)
        .collect();
    let n_expected: u64 = expected.iter().sum();
    assert!(n_expected > 2, "{expected:?}");
    let mut lists = Vec::new();
    for ranks in ["1", "2"] {
        let out = setup.out(&format!("on-{ranks}"));
        setup.finish(&out, &[&as_strs(&more)[..], &["--nproc-per-node", ranks]].concat());
        let found: Vec<u64> = counts(&out).into_iter().map(|(_, _, n)| n).collect();
        assert_eq!(found, expected, "on {ranks} ranks");
        let text = fs::read_to_string(out.join("unreadable.jsonl")).unwrap();
        let mut list: Vec<Replaced> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        list.sort_by_key(|image| image.row);
        assert_eq!(list.iter().map(|image| image.row).collect::<Vec<_>>(), DAMAGED);
        assert!(list.iter().all(|image| !DAMAGED.contains(&image.by)), "{list:?}");
        assert!(list.iter().all(|image| image.reason.contains("cannot be decoded")), "{list:?}");
        lists.push(list);
    }
    assert_eq!(lists[0], lists[1]);
}

#[test]
fn a_run_with_unreadable_images_resumes_bit_for_bit() {
    let more = sets(&["data.on_error=skip", "eval.sets=[]"]);
    check_kill(&damaged(), &as_strs(&more));
}

#[test]
fn a_run_on_made_up_images_of_so_many_steps_needs_no_data_and_resumes_bit_for_bit() {
    let setup = Setup::new(3);
    let more = sets(&[
        "data.path=nowhere",
        "data.synthetic={identities=7, images=20}",
        "train.steps=13",
        "eval.sets=[]",
    ]);
    check_kill(&setup, &as_strs(&more));
    let out = setup.out("whole");
    assert_eq!(last_step(&out), 13);
    let said = setup.finish(&out, &[&["--resume"][..], &as_strs(&more)].concat());
    assert!(said.contains("on 20 made-up images of 7 identities"), "{said}");
    assert!(said.contains("13 steps of 4 in 2.6 epochs"), "{said}");
}

#[test]
fn a_model_whose_embeddings_overflow_is_measured_once_it_can_be_and_refused_at_the_end() {
    let setup = Setup::new(3);
    let first = setup.out("first");
    setup.finish(&first, &["--set=train.steps=1", "--set=optim.warmup_epochs=0"]);
    // Statistics that only a network in evaluation uses. A tenth of them goes with every step: after
    // twelve they are still too large.
    let mut weights = tensors::read(&first.join("last.ckpt/backbone.safetensors")).unwrap();
    let means = weights.iter_mut().filter(|(key, _)| key.ends_with("running_mean"));
    means.for_each(|(_, mean)| drop(mean.fill_(3e38)));
    let path = setup.out("far.safetensors");
    tensors::write(&path, &weights).unwrap();
    let init = format!("--set=init.model={}", path.display());
    let out = setup.out("run");
    let said = refused(setup.command(&out, &[&init]));
    assert!(
        said.contains("warning: step 0: `made` is not measured: the network: its embedding"),
        "{said}"
    );
    assert!(
        said.contains(
            "after step 12, the last: `made` cannot be measured: the network: its embedding"
        ),
        "{said}"
    );
    assert!(checkpoint(&out, 12).is_dir());
}

#[test]
fn values_that_no_run_can_have_are_refused_by_name_before_anything_is_computed_from_them() {
    let setup = Setup::new(3);
    for (set, expected) in [
        ("train.timeout_s=nan", "train.timeout_s is NaN, but has to be above 0"),
        ("train.timeout_s=inf", "train.timeout_s is inf, but has to be above 0"),
        ("train.timeout_s=-1", "train.timeout_s is -1, but has to be above 0"),
        ("train.timeout_s=1e30", "but has to be above 0 and at most 1000000"),
        ("head.centres={ file = \"\" }", "head.centres is { file = \"\" }, but has to be \"host\""),
        ("head.scale=0", "head.scale is 0, but has to be above 0 and at most"),
        (
            "init.model=/nonexist",
            "init.model is /nonexist, but has to be a file or folder that exists",
        ),
    ] {
        let out = setup.out("run");
        let said = refused(setup.command(&out, &[&format!("--set={set}")]));
        assert!(said.contains(expected), "{said}");
        assert!(!out.join("config.toml").exists(), "{set}");
    }
}

#[test]
fn a_warm_up_longer_than_the_steps_is_refused() {
    let setup = Setup::new(3);
    let more = sets(&["train.steps=2", "optim.warmup_epochs=1"]);
    let said = refused(setup.command(&setup.out("run"), &as_strs(&more)));
    assert!(
        said.contains("optim.warmup_epochs is 1, but has to be from 0 to the 0.5 epochs"),
        "{said}"
    );
}

#[test]
fn an_untrained_network_that_overflows_is_not_measured_and_trains_all_the_same() {
    let setup = Setup::new(3);
    let out = setup.out("run");
    let more =
        sets(&["model.network=r100", "model.precision=f32", "optim.lr=0.001", "train.steps=1"]);
    let more = [&as_strs(&more)[..], &["--set=optim.warmup_epochs=0"]].concat();
    let output = setup.command(&out, &more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("warning: step 0: `made` is not measured: the network: its"), "{said}");
    assert!(said.contains("step 1/1  loss "), "{said}");
    assert!(checkpoint(&out, 1).exists(), "{said}");
    // One step is too few for its normalisations, so that the finished network is refused, saved.
    let measured = records(&out).iter().any(|record| matches!(record, Record::Eval(_)));
    let expected = if measured { Some(0) } else { Some(2) };
    assert_eq!(output.status.code(), expected, "{said}");
    assert_eq!(said.contains("`made` cannot be measured: "), !measured, "{said}");
}
