//! A run that is killed and resumed is the run that was never killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::run::{
    Setup, check_same, checkpoint, figures, final_tensors, refused, signal, wait_for,
};
use pfc_findings::{Action, Decision, DecisionLog, RunInfo};
use pfc_train::log::metrics::{self, Record};

/// 18 images make 4 batches of 4 an epoch, 12 steps in all.
fn setup() -> Setup {
    Setup::new(3)
}

/// Kills a run after its checkpoints of steps 3 and 6, each time as soon as it is there, and lets it
/// go on to the end; `more` gives the arguments of a run in the folder it is told.
fn check_kills(setup: &Setup, more: impl Fn(&Path) -> Vec<String>) -> [PathBuf; 2] {
    let [whole, killed] = ["whole", "killed"].map(|name| setup.out(name));
    let more_of = |out: &Path, resume: bool| {
        let resume = resume.then(|| "--resume".to_owned());
        resume.into_iter().chain(more(out)).collect::<Vec<String>>()
    };
    let finish = |out: &Path, resume: bool| {
        let more = more_of(out, resume);
        setup.finish(out, &more.iter().map(String::as_str).collect::<Vec<_>>())
    };
    finish(&whole, false);
    let expected = figures(&whole);
    assert_eq!(expected.iter().filter(|line| line.starts_with("step ")).count(), 12);
    assert_eq!(expected.iter().filter(|line| line.starts_with("Eval")).count(), 4);
    for step in [3, 6] {
        let more = more_of(&killed, step > 3);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut child = setup.command(&killed, &more).spawn().unwrap();
        assert!(wait_for(&checkpoint(&killed, step), &mut child));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = finish(&killed, true);
    assert!(said.contains(", going on after step "), "{said}");
    assert_eq!(figures(&killed), expected);
    [whole, killed]
}

#[test]
fn a_run_killed_after_a_checkpoint_and_resumed_equals_one_never_killed_bit_for_bit() {
    let setup = setup();
    // Two threads: sums must not depend on which one comes first.
    let [whole, killed] =
        check_kills(&setup, |_| ["--set", "train.threads=2"].map(str::to_owned).to_vec());
    assert!(final_tensors(&killed) == final_tensors(&whole), "the weights differ");
}

#[test]
fn adamw_a_mean_of_the_weights_adaface_and_parts_resume_bit_for_bit_too() {
    let setup = setup();
    let more = [
        "optim.optimizer=adamw",
        "optim.lr=0.001",
        "optim.decay_all=false",
        "optim.ema=0.9",
        "head.lr_factor=20",
        "head.margin={loss=\"adaface\", m=0.4}",
        "head.log_q=true",
        "train.accumulate=2",
    ]
    .map(|set| format!("--set={set}"));
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let whole = setup.out("whole");
    setup.finish(&whole, &more);
    let killed = setup.out("killed");
    let mut child = setup.command(&killed, &more).spawn().unwrap();
    assert!(wait_for(&checkpoint(&killed, 6), &mut child));
    child.kill().unwrap();
    child.wait().unwrap();
    setup.finish(&killed, &[&["--resume"][..], &more].concat());
    check_same(&killed, &whole);
    assert_eq!(final_tensors(&whole).len(), 4, "the weights behind the mean are among them");
}

#[test]
fn a_run_goes_on_from_the_checkpoint_that_is_named_and_loses_no_newer_one() {
    let setup = setup();
    let [whole, out] = ["whole", "run"].map(|name| setup.out(name));
    let keep = "--set=checkpoint.keep=9";
    setup.finish(&whole, &[keep]);
    setup.finish(&out, &[keep]);
    let said = refused(setup.command(&out, &[keep, "--resume-from", "7"]));
    assert!(said.contains("checkpoints: has no checkpoint of step 7"), "{said}");
    assert!(said.contains("`--resume-from` takes one of 12, 9, 6, 3"), "{said}");
    assert!(checkpoint(&out, 12).is_dir(), "it was set aside");

    // `--resume` beside it changes nothing.
    let said = setup.finish(&out, &[keep, "--resume", "--resume-from", "6"]);
    assert!(said.contains(", going on after step 6"), "{said}");
    check_same(&out, &whole);
    for step in [9, 12] {
        let newer = format!("{}.newer-1", checkpoint(&out, step).display());
        assert!(Path::new(&newer).is_dir() && checkpoint(&out, step).is_dir(), "step {step}");
    }
    assert!(checkpoint(&out, 3).is_dir());
}

#[test]
fn the_best_checkpoint_is_kept_beside_the_newest() {
    let setup = setup();
    let out = setup.out("run");
    // Saved and measured every step: the accuracy of the newest is not the best for long.
    let more = ["checkpoint.best=made", "checkpoint.keep=1", "checkpoint.every_steps=1"];
    let more: Vec<String> =
        more.iter().chain(&["eval.every_steps=1"]).map(|set| format!("--set={set}")).collect();
    setup.finish(&out, &more.iter().map(String::as_str).collect::<Vec<_>>());
    let evals = metrics::read(&out.join("metrics.jsonl")).unwrap().into_iter();
    let evals: Vec<(u64, f64)> = evals
        .filter_map(|record| match record {
            Record::Eval(eval) if eval.step > 0 => Some((eval.step, eval.score.accuracy)),
            _ => None,
        })
        .collect();
    let most = evals.iter().map(|(_, accuracy)| *accuracy).fold(0.0, f64::max);
    let best = evals.iter().find(|(_, accuracy)| *accuracy == most).unwrap().0;
    let target = fs::canonicalize(out.join("best.ckpt")).unwrap();
    assert_eq!(target, fs::canonicalize(checkpoint(&out, best)).unwrap());
    let mut left: Vec<_> = fs::read_dir(out.join("checkpoints")).unwrap().collect();
    left.dedup_by_key(|entry| entry.as_ref().unwrap().file_name());
    assert_eq!(left.len(), if best == 12 { 1 } else { 2 });
}

#[test]
fn fine_tuning_carries_the_centres_of_known_people_over() {
    let setup = setup();
    let old = setup.out("old");
    setup.finish(&old, &[]);
    // Nine people, the first six of whom are those of before.
    let data = setup.out("more-people");
    crate::support::write_dataset(&data, 9, 3);
    let new = setup.out("new");
    let sets = [
        format!("data.path={}", data.display()),
        format!("init.model={}/last.ckpt", old.display()),
        format!("init.data={}/data", setup.dir.path().display()),
        // At rate 0 weights stay as they were: the first step of warm-up.
        "optim.warmup_epochs=1".to_owned(),
        "train.epochs=1".to_owned(),
        "head.weight_decay=0".to_owned(),
        "optim.lr=1e-12".to_owned(),
    ];
    let sets: Vec<String> = sets.iter().map(|set| format!("--set={set}")).collect();
    let said = setup.finish(&new, &sets.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("backbone and 6 of 9 centres"), "{said}");
    let centres = |out: &Path| {
        let tensors = pfc_model::tensors::read(&out.join("last.ckpt/centres.safetensors")).unwrap();
        tensors.into_iter().find(|(name, _)| name == "centres.weight").unwrap().1
    };
    let (before, after) = (centres(&old), centres(&new));
    assert_eq!(after.size(), [9, 32]);
    assert!(after.narrow(0, 0, 6).allclose(&before, 1e-6, 1e-9, false));
}

#[test]
fn a_killed_run_whose_centres_are_in_a_file_equals_one_never_killed_bit_for_bit() {
    let setup = setup();
    check_kills(&setup, |out| {
        let centres = format!("head.centres={{ file = \"{}-centres\" }}", out.display());
        [centres.as_str(), "head.weights=bf16", "head.state=bf16"]
            .map(|set| format!("--set={set}"))
            .to_vec()
    });
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let setup = setup();
    let out = setup.out("run");
    setup.finish(&out, &[]);
    let (expected, tensors) = (figures(&out), final_tensors(&out));

    let centres = checkpoint(&out, 12).join("centres.safetensors");
    let mut bytes = fs::read(&centres).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&centres, bytes).unwrap();
    fs::remove_file(checkpoint(&out, 9).join("manifest.json")).unwrap();

    let said = setup.finish(&out, &["--resume"]);
    assert!(said.contains("step-00000012.ckpt is damaged, trying the one before: "), "{said}");
    assert!(said.contains("step-00000012.ckpt.damaged-1\n"), "{said}");
    assert!(said.contains("centres.safetensors: checksum is "), "{said}");
    assert!(said.contains("step-00000009.ckpt is damaged"), "{said}");
    assert!(said.contains(", going on after step 6"), "{said}");
    assert_eq!(figures(&out), expected);
    assert!(final_tensors(&out) == tensors, "the weights differ");

    // A finished run that is resumed does nothing but print its result.
    let said = setup.finish(&out, &["--resume"]);
    assert!(said.contains(", going on after step 12"), "{said}");
    assert_eq!(figures(&out), expected);
}

#[cfg(unix)]
#[test]
fn a_run_that_a_signal_stops_saves_says_how_to_go_on_and_ends_with_the_signals_code() {
    for (name, code, ranks) in [
        ("INT", 130, "1"),
        ("TERM", 143, "1"),
        ("HUP", 129, "1"),
        ("INT", 130, "2"),
        ("TERM", 143, "2"),
    ] {
        check_stopped(name, code, ranks);
    }
}

#[cfg(unix)]
fn check_stopped(name: &str, code: i32, ranks: &str) {
    let setup = setup();
    let out = setup.out("run");
    let more = ["--set", "train.epochs=100000", "--nproc-per-node", ranks];
    let mut child = setup.command(&out, &more).spawn().unwrap();
    assert!(wait_for(&checkpoint(&out, 3), &mut child));
    signal(child.id(), name);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{name}: {said}");
    assert_eq!(said.matches(&format!("SIG{name}: stopping once ")).count(), 1, "{said}");
    if ranks != "1" {
        assert!(said.contains("; to go on:\n"), "{said}");
        return;
    }
    let command = format!("pfc-train run {0}/config.toml --out {0} --resume", out.display());
    assert!(said.ends_with(&format!("; to go on:\n  {command}\n")), "{said}");

    // The last line of figures is of the step that was saved.
    let steps = metrics::read(&out.join("metrics.jsonl")).unwrap();
    let last = steps.iter().map(Record::step).max().unwrap();
    assert!(checkpoint(&out, last).is_dir(), "no checkpoint of step {last}");
    let target = fs::canonicalize(out.join("last.ckpt")).unwrap();
    assert_eq!(target, fs::canonicalize(checkpoint(&out, last)).unwrap());
}

#[cfg(unix)]
#[test]
fn a_run_interrupted_between_two_checkpoints_and_resumed_equals_one_never_stopped() {
    let setup = setup();
    // One checkpoint, at the very end, so that any interruption comes between two; by then half of
    // the centres, which no step has drawn of late, have updates to catch up with.
    let more = ["train.epochs=40", "checkpoint.every_steps=1000", "eval.every_steps=1000"]
        .map(|set| format!("--set={set}"));
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let whole = setup.out("whole");
    setup.finish(&whole, &more);

    let stopped = setup.out("stopped");
    let mut child = setup.command(&stopped, &more).spawn().unwrap();
    // By its third step classes were drawn that the next ones do not draw.
    let lines = || fs::read(stopped.join("metrics.jsonl")).unwrap_or_default();
    while lines().iter().filter(|byte| **byte == b'\n').count() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::yield_now();
    }
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("stopped after step "), "it was not caught in time: {said}");
    setup.finish(&stopped, &[&["--resume"][..], &more].concat());
    check_same(&stopped, &whole);
}

/// Everything in a run's folder but its lock, by path.
fn everything(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![out.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                found.push((
                    path.clone(),
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                ));
            } else if path.is_dir() {
                found.push((path.clone(), Vec::new()));
                folders.push(path);
            } else if !path.ends_with("run.lock") {
                found.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[cfg(unix)]
#[test]
fn a_resume_that_is_refused_touches_nothing_whatever_the_reason() {
    let setup = setup();
    let out = setup.out("run");
    setup.finish(&out, &["--set", "train.epochs=1", "--set", "checkpoint.every_steps=1"]);
    let steps = [2, 3, 4];
    assert!(steps.iter().all(|step| checkpoint(&out, *step).is_dir()));
    let manifests = steps.map(|step| checkpoint(&out, step).join("manifest.json"));
    let backbones = steps.map(|step| checkpoint(&out, step).join("backbone.safetensors"));
    let edit = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let unchanged = everything(&out);
    let restore = || {
        for (path, bytes) in unchanged.iter().filter(|(path, _)| backbones.contains(path)) {
            let _ = fs::remove_file(path);
            fs::write(path, bytes).unwrap();
        }
        for (path, bytes) in unchanged.iter().filter(|(path, _)| manifests.contains(path)) {
            fs::write(path, bytes).unwrap();
        }
    };
    type Fault<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str], &'a str);
    let newer = || manifests.iter().for_each(|m| edit(m, "\"format\": 1", "\"format\": 2"));
    // A link to itself: the system refuses to open it, as it does where it has no memory or files left.
    let unreachable = || {
        let path = &backbones[2];
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
    };
    let all_damaged = || manifests.iter().for_each(|m| edit(m, "\"step\": ", "\"step\":  "));
    let nothing = || {};
    let faults: [Fault<'_>; 6] = [
        ("a newer format", &newer, &[], "format 2, but this program reads format 1"),
        ("a file that cannot be opened", &unreachable, &[], "cannot open"),
        ("damage everywhere", &all_damaged, &[], "none of the 3 checkpoints is whole"),
        ("another network", &nothing, &["--set", "model.embedding=16"], "model.embedding 32"),
        (
            "too few steps",
            &nothing,
            &["--set", "train.steps=3", "--set", "optim.warmup_epochs=0"],
            "after step 4, but this run has 3",
        ),
        ("another seed", &nothing, &["--set", "train.seed=1"], "train.seed"),
    ];
    for (name, damage, more, expected) in faults {
        damage();
        let before = everything(&out);
        for ranks in ["1", "2"] {
            let more = [&["--resume", "--nproc-per-node", ranks], more].concat();
            let said = refused(setup.command(&out, &more));
            assert!(said.contains(expected), "{name}: {said}");
            assert!(everything(&out) == before, "{name}: something was touched: {said}");
        }
        restore();
    }
    assert!(everything(&out) == unchanged);
    setup.finish(&out, &["--resume", "--set", "train.epochs=1"]);
}

#[test]
fn a_flipped_step_in_a_manifest_is_found_with_and_without_its_checksum() {
    let setup = setup();
    let out = setup.out("run");
    setup.finish(&out, &["--set", "train.epochs=2"]);
    let manifest = checkpoint(&out, 8).join("manifest.json");
    let whole = fs::read_to_string(&manifest).unwrap();
    let unsealed = format!("{}\n}}\n", &whole[..whole.rfind(",\n  \"checksum\"").unwrap()]);
    let more = ["--resume", "--set", "train.epochs=2"];
    // As an earlier version wrote it.
    fs::write(&manifest, &unsealed).unwrap();
    assert!(setup.finish(&out, &more).contains("going on after step 8"));
    for (text, from, to) in [
        (&whole, "\"step\": 8", "\"step\": 9"),
        (&unsealed, "\"step\": 8", "\"step\": 9"),
        (&unsealed, "\"step\": 8", "\"step\": 9223372036854775808"),
        (&unsealed, "\"epoch\": 2", "\"epoch\": 3"),
        (&unsealed, "\"epoch_position\": 0", "\"epoch_position\": 4"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        let said = setup.finish(&out, &more);
        assert!(said.contains("step-00000008.ckpt is damaged"), "{to}: {said}");
        assert!(said.contains("going on after step 6"), "{to}: {said}");
    }
}

#[test]
fn a_run_that_has_lost_its_checkpoints_does_not_begin_again() {
    let setup = setup();
    let out = setup.out("run");
    setup.finish(&out, &["--set", "train.epochs=1"]);
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    let figures = fs::read(out.join("metrics.jsonl")).unwrap();
    for trace in ["`last.ckpt` leads to none", "it has `metrics.jsonl`"] {
        for more in [&["--resume"][..], &[]] {
            let said = refused(setup.command(&out, more));
            let expected = if more.is_empty() { "already holds a run" } else { trace };
            assert!(said.contains(expected), "{said}");
            assert!(said.contains("hint: "), "{said}");
        }
        let _ = fs::remove_file(out.join("last.ckpt"));
    }
    assert_eq!(fs::read(out.join("metrics.jsonl")).unwrap(), figures);

    // One that was killed before its first checkpoint has none to lose.
    let out = setup.out("young");
    let more = ["--set", "checkpoint.every_steps=1000", "--set", "train.epochs=100000"];
    let mut child = setup.command(&out, &more).spawn().unwrap();
    assert!(wait_for(&out.join("metrics.jsonl"), &mut child));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = setup.finish(&out, &["--resume", "--set", "train.epochs=1"]);
    assert!(!said.contains("going on"), "{said}");
}

#[test]
fn a_run_sees_what_decisions_leave_says_so_once_and_goes_on_with_nothing_else() {
    let setup = setup();
    let data = setup.out("data");
    let mut log = DecisionLog::open(&data).unwrap();
    let info = RunInfo {
        dataset: log.dataset(),
        tool: "test".into(),
        command: "clean".into(),
        arguments: Vec::new(),
        notes: serde_json::json!({}),
    };
    log.append(&info, &[Decision::new(4, 1, Action::Drop, "blurred")]).unwrap();
    let out = setup.out("run");
    let said = setup.finish(&out, &["--set", "train.epochs=1"]);
    let notice = "1 of 18 rows are left out by decisions; data.as_packed = true reads them";
    let notice = format!("{}: {notice}", data.display());
    assert_eq!(said.matches(&notice).count(), 1, "{said}");
    let as_packed = ["--resume", "--set", "train.epochs=1", "--set", "data.as_packed=true"];
    let said = refused(setup.command(&out, &as_packed));
    for images in
        ["17 images of 6 identities, checksum ", "18 images of 6 identities, checksum none"]
    {
        assert!(said.contains(images), "{said}");
    }
    assert!(said.contains("hint: ") && said.contains("set data.as_packed as it was"), "{said}");
}

#[test]
fn a_run_of_other_data_or_another_network_is_not_continued() {
    let setup = setup();
    let out = setup.out("run");
    setup.finish(&out, &["--set", "train.epochs=1"]);
    let refused = |more: &[&str]| {
        let output = setup.command(&out, more).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&["--resume", "--set", "model.embedding=16"]);
    assert!(said.contains("was written with model.embedding 32, but this run has 16"), "{said}");

    let other = setup.out("other");
    crate::support::write_dataset(&other, 6, 4);
    let said = refused(&["--resume", "--set", &format!("data.path={}", other.display())]);
    assert!(said.contains("was written by a run on 18 images of 6 identities"), "{said}");
    let hint = "hint: set data.path to the data set that the run began with, which was `";
    assert!(said.contains(hint), "{said}");

    let said = refused(&[]);
    assert!(said.contains("already holds a run"), "{said}");
    assert!(said.contains("hint: `--resume` continues it"), "{said}");
}
