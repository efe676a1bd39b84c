//! Several ranks train what one would, and none is left behind when one fails.

// B = batch of one rank, D = embedding.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // ranks report there

mod support;
#[path = "support/ranks.rs"]
mod support_ranks;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pfc_train::{
    head::{Head, HeadConfig, Margin, Parts, Update},
    metrics::{self, Record},
    plan::mix,
    ranks::Ranks,
};
use support_ranks::{on_ranks, variant};
use tch::{Kind, Tensor};

const PATIENCE: Duration = Duration::from_secs(300);

/// A training whose "network" is a table of embeddings: the images of a step move by their gradients.
/// Nothing in it depends on which rank an image is on.
mod table {
    use super::*;

    const CLASSES: u64 = 1003;
    const DIM: usize = 32;
    const N_IMAGES: u64 = 240;
    /// No multiple of every number of ranks that is tried.
    const BATCH: u64 = 22;
    /// Learning rate of the table. Sums over ranks are rounded in another order for each number of
    /// them, and training feeds the rounding back: at 2 and 0.5 the last of 50 losses is 1.1e-5 off,
    /// at this rate, at which the loss still falls from 53 to 12, 4e-7.
    const TABLE_LR: f64 = 0.1;

    fn config() -> HeadConfig {
        HeadConfig {
            sample_rate: 0.1,
            margin: Margin::Cosface { m: 0.4 },
            update: Update::Dense,
            ..HeadConfig::new(CLASSES, DIM)
        }
    }

    pub struct Training {
        pub head: Head,
        ranks: Ranks,
        images_nd: Tensor,
        pub n_done: u64,
    }

    impl Training {
        pub fn new(ranks: &Ranks) -> Training {
            let parts = Parts::of_config(&config(), ranks.communicator()).unwrap();
            let head = Head::with_parts(&config(), parts).unwrap();
            let uniform = |i: u64| (mix(i) >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let numbers: Vec<f32> = (0..N_IMAGES * DIM as u64).map(uniform).collect();
            let images_nd = Tensor::from_slice(&numbers).view([N_IMAGES as i64, DIM as i64]);
            Training { head, ranks: ranks.clone(), images_nd, n_done: 0 }
        }

        /// The loss of one step.
        pub fn step(&mut self) -> f64 {
            let image = |i: u64| (self.n_done * BATCH + i) % N_IMAGES;
            let (rank, world) = (self.ranks.rank(), self.ranks.world());
            let all: Vec<i64> = (0..BATCH).map(|i| image(i) as i64).collect();
            let own: Vec<i64> = all.iter().copied().skip(rank).step_by(world).collect();
            // Five images of each class, and classes far apart.
            let labels: Vec<i64> = own.iter().map(|i| i / 5 * 20).collect();
            let own_b = Tensor::from_slice(&own);
            let embeddings_bd = self.images_nd.index_select(0, &own_b);
            let output = self.head.step(&embeddings_bd, &labels, self.n_done + 1, 0.1).unwrap();
            let moved_bd = embeddings_bd - output.grad_embeddings_bd * TABLE_LR;
            // Every rank keeps the whole table.
            let moved = self.ranks.gather_f32(&numbers(&moved_bd)).unwrap();
            let order: Vec<i64> =
                (0..world).flat_map(|r| all.iter().copied().skip(r).step_by(world)).collect();
            let moved_gd = Tensor::from_slice(&moved).view([-1, DIM as i64]);
            let _ = self.images_nd.index_copy_(0, &Tensor::from_slice(&order), &moved_gd);
            self.n_done += 1;
            output.loss
        }

        /// Centres and table in a folder, as a checkpoint has them.
        pub fn save(&mut self, folder: &Path) {
            let place = (self.ranks.rank(), self.ranks.world());
            let state = self.head.state_as_it_is().unwrap();
            let written = pfc_train::shards::write(folder, place, &state).unwrap();
            let all = self.ranks.gather(written).unwrap();
            if self.ranks.is_first() {
                let spec = pfc_model::BackboneSpec {
                    network: "r10_w8".parse().unwrap(),
                    embedding: DIM as i64,
                };
                let path = folder.join("saved.ckpt");
                let mut writer = pfc_model::checkpoint::Writer::create(&path).unwrap();
                writer.tensors("table.safetensors", &[("table", self.images_nd.copy())]).unwrap();
                for file in &all {
                    fs::rename(folder.join(file.name()), writer.folder().join(file.name()))
                        .unwrap();
                    file.add_to(&mut writer);
                }
                writer.finish(spec, None).unwrap();
            }
            self.ranks.meet().unwrap();
        }

        pub fn load(&mut self, folder: &Path, world_then: usize, n_done: u64) {
            let path = folder.join("saved.ckpt");
            let checkpoint = pfc_model::checkpoint::Checkpoint::open(&path).unwrap();
            let range = self.head.range();
            let state = pfc_train::shards::read(&checkpoint, &range, world_then).unwrap();
            self.head.load_state(&state).unwrap();
            self.images_nd = checkpoint.tensors("table.safetensors").unwrap().remove(0).1;
            self.n_done = n_done;
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float).reshape([-1])).unwrap()
    }
}

fn losses(said: &str) -> Vec<f64> {
    let lines = said.lines().filter_map(|line| line.split_once("loss ").map(|(_, loss)| loss));
    lines.map(|loss| loss.trim().parse().unwrap()).collect()
}

#[track_caller]
fn check_near(found: &[f64], expected: &[f64], place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    for (step, (a, b)) in found.iter().zip(expected).enumerate() {
        let error = (a - b).abs() / b.abs();
        assert!(error <= 1e-5, "{place}, step {step}: {a}, not {b} ({error:e})");
    }
}

#[test]
fn one_two_and_four_ranks_draw_for_themselves_and_have_the_same_losses_for_50_steps() {
    let name = "one_two_and_four_ranks_draw_for_themselves_and_have_the_same_losses_for_50_steps";
    let run = |world| {
        on_ranks(name, "", world, |group| {
            let mut training = table::Training::new(&Ranks::of_group(group));
            for _ in 0..50 {
                println!("loss {:e}", training.step());
            }
        })
    };
    let one = losses(&run(1)[0]);
    assert!(one.len() == 50 && one[49] < 0.9 * one[0], "{one:?}");
    for world in [2, 4] {
        for said in run(world) {
            check_near(&losses(&said), &one, &format!("{world} ranks"));
        }
    }
}

#[test]
fn a_training_saved_on_four_ranks_goes_on_the_same_on_one_two_three_and_four() {
    let name = "a_training_saved_on_four_ranks_goes_on_the_same_on_one_two_three_and_four";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let run = |world, task: &str| {
        on_ranks(name, &format!("{task} {path}"), world, |group| {
            let variant = variant();
            let (task, folder) = variant.split_once(' ').unwrap();
            let mut training = table::Training::new(&Ranks::of_group(group));
            if task == "resume" {
                training.load(Path::new(folder), 4, 20);
            }
            while training.n_done < 40 {
                if task == "save" && training.n_done == 20 {
                    training.save(Path::new(folder));
                }
                println!("loss {:e}", training.step());
            }
        })
    };
    let whole = losses(&run(4, "save")[0]);
    for world in [1, 2, 3, 4] {
        let rest = losses(&run(world, "resume")[0]);
        if world == 4 {
            assert_eq!(rest, whole[20..], "to the bit on as many ranks");
        }
        check_near(&rest, &whole[20..], &format!("{world} ranks"));
    }
}

/// A small run of the program itself.
struct Setup {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let (data, faces) = (dir.path().join("data"), dir.path().join("faces"));
        support::write_dataset(&data, 6, 6);
        fs::create_dir(&faces).unwrap();
        let pairs = support::write_pairs(&faces, 10);
        let config = support::write_config(dir.path(), &data, Some(&pairs));
        Setup { dir, config }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// 36 images make 4 batches of 9 an epoch, 12 steps in all.
    fn command(&self, out: &Path, world: usize, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pfc-train"));
        command.arg("run").arg(&self.config).arg("--out").arg(out);
        command.args(["--set", "train.batch_size=9", "--nproc-per-node", &world.to_string()]);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end and gives back what was said on standard error.
    #[track_caller]
    fn finish(&self, out: &Path, world: usize, more: &[&str]) -> String {
        let output = self.command(out, world, more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }
}

/// Waits until `path` exists while `child` runs; false if it ended first.
fn wait_for(path: &Path, child: &mut Child) -> bool {
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

fn checkpoint(out: &Path, step: u64) -> PathBuf {
    out.join(format!("checkpoints/step-{step:08}.ckpt"))
}

/// Everything of a run that does not depend on the clock, to the last bit.
fn figures(out: &Path) -> Vec<String> {
    let records = metrics::read(&out.join("metrics.jsonl")).unwrap();
    let text = records.into_iter().map(|record| match record {
        Record::Train(r) => {
            let bits = [r.loss, r.grad_norm, r.lr, r.cavg].map(f64::to_bits);
            format!("step {} {bits:x?} loss {}", r.step, r.loss)
        }
        other => format!("{other:?}"),
    });
    text.collect()
}

/// Every tensor of the last checkpoint.
fn final_tensors(out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(out.join("last.ckpt"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The processes that `launcher` has started.
fn ranks_of(launcher: &Child) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", launcher.id());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_running(pid: u32) -> bool {
    // A process that has ended and was not waited for is still listed, as a zombie.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[track_caller]
fn check_gone(pids: &[u32]) {
    let started = Instant::now();
    while pids.iter().any(|&pid| is_running(pid)) {
        assert!(started.elapsed() < Duration::from_secs(60), "a rank of {pids:?} is left behind");
        thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_rank_that_is_killed_ends_the_others_and_the_run_goes_on_from_the_last_checkpoint() {
    let setup = Setup::new();
    let whole = setup.out("whole");
    setup.finish(&whole, 3, &[]);
    let expected = figures(&whole);
    assert_eq!(expected.iter().filter(|line| line.starts_with("step ")).count(), 12);
    assert_eq!(final_tensors(&whole).len(), 5, "backbone, optimizer and three shards of centres");

    let killed = setup.out("killed");
    for (rank, step) in [(2, 3), (0, 6)] {
        let resume: &[&str] = if step == 3 { &[] } else { &["--resume"] };
        let mut child = setup.command(&killed, 3, resume).spawn().unwrap();
        assert!(wait_for(&checkpoint(&killed, step), &mut child));
        let ranks = ranks_of(&child);
        assert_eq!(ranks.len(), 3);
        signal(ranks[rank], "KILL");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("error: rank {rank} was killed by signal 9")), "{said}");
        check_gone(&ranks);
    }
    let said = setup.finish(&killed, 3, &["--resume"]);
    assert!(said.contains(", going on after step "), "{said}");
    assert_eq!(figures(&killed), expected);
    assert!(final_tensors(&killed) == final_tensors(&whole), "the weights differ");
}

#[cfg(target_os = "linux")]
#[test]
fn no_rank_outlives_a_launcher_that_is_killed() {
    let setup = Setup::new();
    let out = setup.out("run");
    let more = ["--set", "train.epochs=100000"];
    let mut child = setup.command(&out, 2, &more).spawn().unwrap();
    assert!(wait_for(&checkpoint(&out, 3), &mut child));
    let ranks = ranks_of(&child);
    assert_eq!(ranks.len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    check_gone(&ranks);
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_reaches_every_rank_and_the_run_is_saved_for_any_number_of_them() {
    let setup = Setup::new();
    let out = setup.out("run");
    let mut child = setup.command(&out, 2, &["--set", "train.epochs=100000"]).spawn().unwrap();
    assert!(wait_for(&checkpoint(&out, 3), &mut child));
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("--resume --nproc-per-node 2\n"), "{said}");
    let last = metrics::read(&out.join("metrics.jsonl")).unwrap();
    let last = last.iter().map(Record::step).max().unwrap();
    assert!(checkpoint(&out, last).is_dir(), "no checkpoint of step {last}");

    for world in [3, 1] {
        let epochs = format!("train.epochs={}", last / 4 + 2 + u64::from(world == 1));
        let said = setup.finish(&out, world, &["--resume", "--set", &epochs]);
        assert!(said.contains(", going on after step "), "{said}");
    }
    assert_eq!(final_tensors(&out).len(), 3);
}

/// The losses of the steps, in order.
fn run_losses(out: &Path) -> Vec<f64> {
    let records = metrics::read(&out.join("metrics.jsonl")).unwrap();
    let loss = |record| match record {
        Record::Train(record) => Some(record.loss),
        _ => None,
    };
    records.into_iter().filter_map(loss).collect()
}

/// Normalisation sees the same images wherever ranks times parts is the same. Rounding differs, and
/// training makes more of it with every step: one in the last place of a weight has been seen to
/// become 5e-5 of the loss within eight steps of this run, of which the first three move little.
#[track_caller]
fn check_same_course(found: &[f64], expected: &[f64], place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    for (step, (a, b)) in found.iter().zip(expected).enumerate() {
        let (error, bound) = ((a - b).abs() / b.abs(), if step < 3 { 1e-5 } else { 2e-3 });
        assert!(error <= bound, "{place}, step {step}: {a}, not {b} ({error:e})");
    }
}

#[test]
fn ranks_and_parts_of_one_product_take_the_same_steps_and_go_on_from_each_other() {
    let setup = Setup::new();
    let sets = |parts: usize| format!("train.accumulate={parts}");
    let args = |parts: &String| {
        ["--set", parts.as_str(), "--set", "train.batch_size=12"].map(str::to_owned)
    };
    let run = |name: &str, world: usize, parts: usize, more: &[&str]| {
        let out = setup.out(name);
        let args = args(&sets(parts));
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(more);
        setup.finish(&out, world, &all);
        out
    };
    // 36 images make 3 batches of 12 an epoch, 9 steps in all.
    let four = run_losses(&run("four", 4, 1, &[]));
    assert_eq!(four.len(), 9);
    check_same_course(&run_losses(&run("two", 2, 2, &[])), &four, "two ranks");
    check_same_course(&run_losses(&run("one", 1, 4, &[])), &four, "one rank");

    for (world, parts) in [(2, 2), (1, 4), (4, 1)] {
        let name = format!("resumed-{world}");
        run(&name, 4, 1, &["--set", "train.epochs=2"]);
        let more = ["--resume", "--set", "train.epochs=3"];
        // Other epochs bend the schedule; so all of it is compared with a run that did so on four.
        let resumed = run_losses(&run(&name, world, parts, &more));
        if world == 2 {
            run("same", 4, 1, &["--set", "train.epochs=2"]);
            run("same", 4, 1, &more);
        }
        let same = run_losses(&setup.out("same"));
        assert_eq!(resumed[..6], same[..6]);
        check_same_course(&resumed[6..], &same[6..], &format!("resumed on {world}"));
    }
}

#[test]
fn what_one_rank_finds_wrong_is_said_once_and_ends_them_all() {
    let setup = Setup::new();
    let out = setup.out("run");
    setup.finish(&out, 2, &["--set", "train.epochs=1"]);
    let output = setup.command(&out, 2, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("already holds a run").count(), 1, "{said}");
    assert!(said.contains("a rank failed with exit code 2"), "{said}");

    let more = ["--set", "optim.lr=1e30", "--set", "optim.warmup_epochs=0"];
    let output = setup.command(&setup.out("diverged"), 2, &more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not finite"), "{said}");

    let said = setup.command(&setup.out("many"), 5, &[]).output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("batches of 9 images on 5 ranks in 1 parts"), "{said}");
}
