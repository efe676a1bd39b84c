//! Small runs of the program itself, and what they leave behind.

#![allow(dead_code)] // Each test file uses its own part.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pfc_train::log::metrics::{self, Record};

/// Longer than any step takes; reached only if the program hangs.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A folder with a data set of six people, pairs to verify and a configuration.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
}

impl Setup {
    pub fn new(n_each: u32) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let (data, faces) = (dir.path().join("data"), dir.path().join("faces"));
        super::write_dataset(&data, 6, n_each);
        fs::create_dir(&faces).unwrap();
        let pairs = super::write_pairs(&faces, 10);
        let config = super::write_config(dir.path(), &data, Some(&pairs));
        Setup { dir, config }
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the program is given to train in `out`.
    pub fn arguments(&self, out: &Path, more: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let own = ["run".to_owned(), text(&self.config), "--out".to_owned(), text(out)];
        own.into_iter().chain(more.iter().map(|&argument| argument.to_owned())).collect()
    }

    pub fn command(&self, out: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(self.arguments(out, more));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end and gives back what was said on standard error.
    #[track_caller]
    pub fn finish(&self, out: &Path, more: &[&str]) -> String {
        finish(self.command(out, more))
    }
}

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_pfc-train")
}

/// `--set=…` for each.
pub fn sets(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| format!("--set={value}")).collect()
}

pub fn as_strs(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

#[track_caller]
pub fn finish(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// Runs a command that has to fail as one that cannot run does, and gives back what it said.
#[track_caller]
pub fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// Waits until `path` exists while `child` runs; false if it ended first.
pub fn wait_for(path: &Path, child: &mut Child) -> bool {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < PATIENCE, "{} never appeared", path.display());
        if child.try_wait().unwrap().is_some() {
            return path.exists();
        }
        thread::yield_now();
    }
    true
}

pub fn checkpoint(out: &Path, step: u64) -> PathBuf {
    out.join(format!("checkpoints/step-{step:08}.ckpt"))
}

pub fn records(out: &Path) -> Vec<Record> {
    metrics::read(&out.join("metrics.jsonl")).unwrap()
}

/// The last step that has figures.
pub fn last_step(out: &Path) -> u64 {
    records(out).iter().map(Record::step).max().unwrap()
}

/// Everything of a run that does not depend on the clock, to the last bit.
pub fn figures(out: &Path) -> Vec<String> {
    let text = records(out).into_iter().map(|record| match record {
        Record::Train(r) => {
            let bits = [r.loss, r.grad_norm, Some(r.lr), r.cavg].map(|x| x.map(f64::to_bits));
            let scale = (r.loss_scale, r.n_skipped);
            format!("step {} {bits:x?} {scale:?} loss {:?}", r.step, r.loss)
        }
        other => format!("{other:?}"),
    });
    text.collect()
}

/// The losses of the steps, in order.
pub fn losses(out: &Path) -> Vec<f64> {
    let loss = |record| match record {
        Record::Train(record) => record.loss,
        _ => None,
    };
    records(out).into_iter().filter_map(loss).collect()
}

/// Every tensor file of the last checkpoint.
pub fn final_tensors(out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(out.join("last.ckpt"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Compares figures and tensors of two runs to the last bit.
#[track_caller]
pub fn check_same(found: &Path, expected: &Path) {
    assert_eq!(figures(found), figures(expected));
    assert!(final_tensors(found) == final_tensors(expected), "the weights differ");
}

/// Compares two courses up to rounding, of which training makes more with every step: one in the last
/// place of a weight has been seen to become 5e-5 of the loss within eight steps of these runs, of
/// which the first three move little.
#[track_caller]
pub fn check_same_course(found: &[f64], expected: &[f64], place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    for (step, (a, b)) in found.iter().zip(expected).enumerate() {
        let (error, bound) = ((a - b).abs() / b.abs(), if step < 3 { 1e-5 } else { 2e-3 });
        assert!(error <= bound, "{place}, step {step}: {a}, not {b} ({error:e})");
    }
}

pub fn signal(pid: u32, name: &str) {
    pfc_testing::send_signal(pid, name);
}

/// The processes that `launcher` has started.
pub fn ranks_of(launcher: &Child) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", launcher.id());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_running(pid: u32) -> bool {
    // A process that has ended and was not waited for is still listed, as a zombie.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[track_caller]
pub fn check_gone(pids: &[u32]) {
    let started = Instant::now();
    while pids.iter().any(|&pid| is_running(pid)) {
        assert!(started.elapsed() < Duration::from_secs(60), "a rank of {pids:?} is left behind");
        thread::yield_now();
    }
}
