//! Runs that go on: over steps that are not finite, images that cannot be read, and without any data.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path, sync::Arc};

use pfc_findings::{Reading, View};
use pfc_train::{
    TrainError,
    config::{self, Config, OnError},
    data::{
        loader::{Batch, Loader, LoaderSpec, Replaced},
        plan::StepPlan,
    },
    log::metrics::Record,
    ranks::Ranks,
    step::{NotFinite, Trainer},
};
use support::run::{
    Setup, as_strs, check_same, checkpoint, last_step, records, refused, sets, wait_for,
};
use tch::{Device, Tensor};

/// A trainer and the batches of its run.
fn trainer(setup: &Setup, change: impl FnOnce(&mut Config)) -> (Trainer, Loader) {
    let mut config = config::load(&setup.config, &[]).unwrap();
    config.optim.warmup_epochs = 0.0;
    change(&mut config);
    tch::set_num_threads(1);
    let dataset = Arc::new(View::open(&config.data.path, Reading::Decided).unwrap());
    let plan = StepPlan { n_images: dataset.len(), batch_size: 4, epochs: 3, steps: 0, seed: 1 };
    let ranks = Ranks::solo();
    let trainer = Trainer::new(&config, &plan, dataset.n_identities(), &ranks).unwrap();
    let spec = LoaderSpec {
        plan,
        rank: 0,
        world: 1,
        first_step: 0,
        n_threads: 1,
        n_ahead: 1,
        mirror: true,
        on_error: OnError::Stop,
        device: Device::Cpu,
    };
    (trainer, Loader::start(dataset, spec).unwrap())
}

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
    for (parts, margin) in [(1, "arcface"), (2, "adaface")] {
        let (mut trainer, mut loader) = trainer(&setup, |config| {
            config.optim.skip_nonfinite = 2;
            config.optim.ema = 0.9;
            config.train.accumulate = parts;
            let sets = [format!("head.margin={{loss=\"{margin}\", m=0.4}}").parse().unwrap()];
            config.head.margin = config::load(&setup.config, &sets).unwrap().head.margin;
        });
        trainer.step(&loader.next_batch().unwrap()).unwrap();
        let good = loader.next_batch().unwrap();
        for round in 0..2 {
            let before = everything(&mut trainer);
            for in_a_row in 1..=2 {
                let spoilt = spoilt(&good, if round == 0 { f64::NAN } else { f64::INFINITY });
                let figures = trainer.step(&spoilt).unwrap();
                let expected = NotFinite { what: "embeddings", in_a_row };
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
    let said = refused(damaged().command(&damaged().out("run"), &[]));
    assert!(said.contains("cannot be decoded"), "{said}");
    assert!(said.contains("data.on_error=skip"), "{said}");
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
fn a_warm_up_longer_than_the_steps_is_refused() {
    let setup = Setup::new(3);
    let more = sets(&["train.steps=2", "optim.warmup_epochs=1"]);
    let said = refused(setup.command(&setup.out("run"), &as_strs(&more)));
    assert!(
        said.contains("optim.warmup_epochs is 1, but has to be from 0 to the 0.5 epochs"),
        "{said}"
    );
}
