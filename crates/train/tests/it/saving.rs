//! Checkpoints are written while a run goes on, and what cannot be written ends it.

use std::{fs, path::Path, process::Command};

use crate::support::run::{
    Setup, as_strs, check_same, checkpoint, last_step, program, refused, sets,
};

#[test]
fn a_run_that_is_saved_in_the_background_leaves_what_one_saved_on_the_spot_does() {
    let setup = Setup::new(3);
    // Also those on a device, which here is the processor.
    for centres in ["host", "device"] {
        let [behind, at_once] =
            ["behind", "at-once"].map(|name| setup.out(&format!("{name}-{centres}")));
        for (out, in_background) in [(&behind, "true"), (&at_once, "false")] {
            let more = sets(&[
                "checkpoint.every_steps=1",
                "checkpoint.keep=4",
                "optim.ema=0.9",
                &format!("head.centres={centres}"),
                &format!("checkpoint.in_background={in_background}"),
            ]);
            setup.finish(out, &as_strs(&more));
        }
        check_same_saves(&behind, &at_once);
    }
}

/// Compares two finished runs, and the last four checkpoints of both.
fn check_same_saves(behind: &Path, at_once: &Path) {
    check_same(behind, at_once);
    for out in [behind, at_once] {
        let mut left: Vec<String> = fs::read_dir(out.join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, (9..=12).map(|step| format!("step-{step:08}.ckpt")).collect::<Vec<_>>());
    }
    // Every one of them can be gone back to.
    for step in 9..=12 {
        let files = |out: &Path| {
            ["backbone", "trained", "optimizer", "centres"].map(|name| {
                fs::read(checkpoint(out, step).join(format!("{name}.safetensors"))).unwrap()
            })
        };
        assert!(files(behind) == files(at_once), "step {step}");
    }
}

/// A command whose files the system cuts off at a few KiB, as a full disk would.
fn with_small_files(setup: &Setup, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("sh");
    // The signal that comes with the error would end the process.
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh", program()]);
    command.args(setup.arguments(out, more));
    command
}

#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_at_one_of_the_next_steps() {
    let setup = Setup::new(3);
    for ranks in [&[][..], &["--nproc-per-node", "2"]] {
        let out = setup.out(&format!("on-{}", ranks.len()));
        let long = ["--set=train.epochs=100000", "--set=log.tensorboard=false"];
        let said = refused(with_small_files(&setup, &out, &[ranks, &long].concat()));
        assert!(said.contains("backbone.safetensors: cannot write"), "{said}");
        assert!(said.contains("File too large"), "{said}");
        // The save of step 3 goes on for a few steps, and that of step 6 waits for it.
        assert!((3..=6).contains(&last_step(&out)), "{said}");
        let left = fs::read_dir(out.join("checkpoints")).unwrap().count();
        assert_eq!(left, 0, "something half-written is left: {said}");
    }
}

#[test]
fn a_run_that_diverges_keeps_the_step_that_was_being_saved() {
    let setup = Setup::new(3);
    let sets = sets(&["optim.lr=1e30", "optim.warmup_epochs=0", "checkpoint.every_steps=1"]);
    for ranks in [&[][..], &["--nproc-per-node", "2"]] {
        let out = setup.out(&format!("on-{}", ranks.len()));
        let said = refused(setup.command(&out, &[&as_strs(&sets)[..], ranks].concat()));
        assert!(said.contains("not finite"), "{said}");
        let last = last_step(&out);
        assert!(
            last > 0 && checkpoint(&out, last).is_dir(),
            "no checkpoint of step {last}: {said}"
        );
    }
}
