//! Several ranks train what one would, and none is left behind when one fails.

// B = batch of one rank, D = embedding.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // ranks report there

mod support;

use std::{fs, path::Path, process::Command};

use pfc_cli::interrupt;
use pfc_head::{Head, HeadConfig, Margin, Parts, Placement, Update};
use pfc_model::Backbone;
use pfc_train::{
    data::plan::mix,
    ranks::Ranks,
    run::evaluate::{Measured, Verifier},
};
use support::{
    ranks::{on_ranks, variant},
    run::{
        self, Setup, check_gone, check_same_course, checkpoint, figures, final_tensors, ranks_of,
        signal, wait_for,
    },
};
use tch::{Device, Kind, Tensor};

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

    fn config(centres: Placement) -> HeadConfig {
        HeadConfig {
            centres,
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
        pub fn new(ranks: &Ranks, centres: Placement) -> Training {
            let config = config(centres);
            let parts = Parts::on_device(&config, ranks.communicator(), Device::Cpu).unwrap();
            let head = Head::with_parts(&config, parts).unwrap();
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
            let centres = self.head.begin_save(false).unwrap();
            let written = std::thread::scope(|scope| {
                let write = || pfc_head::shards::write(folder, place, centres).unwrap();
                let written = scope.spawn(write);
                self.head.finish_save().unwrap();
                written.join().unwrap()
            });
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
                    writer.add(file.name(), file.sum());
                }
                writer.finish(spec, None).unwrap();
            }
            self.ranks.meet().unwrap();
        }

        pub fn load(&mut self, folder: &Path, world_then: usize, n_done: u64) {
            let path = folder.join("saved.ckpt");
            let checkpoint = pfc_model::checkpoint::Checkpoint::open(&path).unwrap();
            let range = self.head.range();
            let mut pieces =
                pfc_head::shards::open(|name| checkpoint.file(name), &range, world_then).unwrap();
            self.head.load(&mut pieces, None).unwrap();
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
    let run = |world, place: &str| {
        on_ranks(name, place, world, |group| {
            let centres = if variant() == "device" { Placement::Device } else { Placement::Host };
            let mut training = table::Training::new(&Ranks::of_group(group), centres);
            for _ in 0..50 {
                println!("loss {:e}", training.step());
            }
        })
    };
    let one = losses(&run(1, "host")[0]);
    assert!(one.len() == 50 && one[49] < 0.9 * one[0], "{one:?}");
    // On devices, which here are processors, ranks join what these find, and not what hosts do.
    for (world, place) in [(2, "host"), (4, "host"), (3, "device")] {
        for said in run(world, place) {
            check_near(&losses(&said), &one, &format!("{world} ranks, {place}"));
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
            let mut training = table::Training::new(&Ranks::of_group(group), Placement::Host);
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

#[test]
fn tensors_of_any_kind_and_shape_are_copied_from_the_first_rank() {
    let name = "tensors_of_any_kind_and_shape_are_copied_from_the_first_rank";
    on_ranks(name, "", 2, |group| {
        let ranks = Ranks::of_group(group);
        // Odd numbers of bytes come first, so that wider numbers begin in odd places.
        let tensors_of = |rank: i64| {
            vec![
                Tensor::from_slice(&[rank as u8, 2, 3]),
                Tensor::from(10 * rank + 7),
                Tensor::from_slice(&[rank as f32, f32::NAN, -0.0]),
                Tensor::from_slice(&[rank as f64, 1.0, 2.0, 3.0]).view([2, 2]).transpose(0, 1),
                Tensor::from_slice(&[rank]).narrow(0, 0, 0),
                Tensor::from(0.5f32 + rank as f32),
            ]
        };
        let (own, first) = (tensors_of(1 + ranks.rank() as i64), tensors_of(1));
        ranks.copy_from_first(&own).unwrap();
        let bits = |tensor: &Tensor| {
            let bytes = tensor.contiguous().reshape([-1]).view_dtype(Kind::Uint8);
            Vec::<u8>::try_from(&bytes).unwrap()
        };
        for (own, first) in own.iter().zip(&first) {
            assert_eq!((own.kind(), own.size()), (first.kind(), first.size()));
            assert_eq!(bits(own), bits(first));
        }
        ranks.meet().unwrap();
    });
}

#[cfg(unix)]
#[test]
fn a_signal_to_any_rank_ends_a_measurement_on_all_of_them() {
    let name = "a_signal_to_any_rank_ends_a_measurement_on_all_of_them";
    let setup = setup();
    let config = setup.config.display().to_string();
    on_ranks(name, &config, 2, |group| {
        tch::set_num_threads(1);
        let ranks = Ranks::of_group(group);
        let config = pfc_train::config::load(Path::new(&variant()), &[]).unwrap();
        let verifier = Verifier::open(&config.eval).unwrap();
        let backbone = Backbone::new(&config.model.spec(), Device::Cpu, 1).unwrap();
        let measure = || verifier.run(&backbone, &ranks, true).unwrap();
        assert!(matches!(measure(), Measured::Scores(_)));
        interrupt::listen().unwrap();
        if ranks.rank() == 1 {
            signal(std::process::id(), "TERM");
            while !interrupt::requested() {
                std::thread::yield_now();
            }
        }
        assert_eq!(measure(), Measured::Interrupted);
        assert_eq!(interrupt::requested(), ranks.rank() == 1);
        ranks.meet().unwrap();
    });
}

/// 36 images make 4 batches of 9 an epoch, 12 steps in all.
fn setup() -> Setup {
    Setup::new(6)
}

fn command(setup: &Setup, out: &Path, world: usize, more: &[&str]) -> Command {
    let world = world.to_string();
    let own = ["--set", "train.batch_size=9", "--nproc-per-node", world.as_str()];
    setup.command(out, &[&own, more].concat())
}

/// Runs to the end and gives back what was said on standard error.
#[track_caller]
fn finished(setup: &Setup, out: &Path, world: usize, more: &[&str]) -> String {
    run::finish(command(setup, out, world, more))
}

#[cfg(target_os = "linux")]
#[test]
fn a_rank_that_is_killed_ends_the_others_and_the_run_goes_on_from_the_last_checkpoint() {
    let setup = setup();
    let whole = setup.out("whole");
    finished(&setup, &whole, 3, &[]);
    let expected = figures(&whole);
    assert_eq!(expected.iter().filter(|line| line.starts_with("step ")).count(), 12);
    assert_eq!(final_tensors(&whole).len(), 5, "backbone, optimizer and three shards of centres");

    let killed = setup.out("killed");
    for (rank, step) in [(2, 3), (0, 6)] {
        let resume: &[&str] = if step == 3 { &[] } else { &["--resume"] };
        let mut child = command(&setup, &killed, 3, resume).spawn().unwrap();
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
    let said = finished(&setup, &killed, 3, &["--resume"]);
    assert!(said.contains(", going on after step "), "{said}");
    assert_eq!(figures(&killed), expected);
    assert!(final_tensors(&killed) == final_tensors(&whole), "the weights differ");
}

#[cfg(target_os = "linux")]
#[test]
fn no_rank_outlives_a_launcher_that_is_killed() {
    let setup = setup();
    let out = setup.out("run");
    let more = ["--set", "train.epochs=100000"];
    let mut child = command(&setup, &out, 2, &more).spawn().unwrap();
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
    let setup = setup();
    let out = setup.out("run");
    let mut child = command(&setup, &out, 2, &["--set", "train.epochs=100000"]).spawn().unwrap();
    assert!(wait_for(&checkpoint(&out, 3), &mut child));
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.ends_with("--resume --nproc-per-node 2\n"), "{said}");
    let last = run::last_step(&out);
    assert!(checkpoint(&out, last).is_dir(), "no checkpoint of step {last}");

    for world in [3, 1] {
        let epochs = format!("train.epochs={}", last / 4 + 2 + u64::from(world == 1));
        let said = finished(&setup, &out, world, &["--resume", "--set", &epochs]);
        assert!(said.contains(", going on after step "), "{said}");
    }
    assert_eq!(final_tensors(&out).len(), 3);
}

#[test]
fn ranks_and_parts_of_one_product_take_the_same_steps_and_go_on_from_each_other() {
    let setup = setup();
    let sets = |parts: usize| format!("train.accumulate={parts}");
    let args = |parts: &String| {
        ["--set", parts.as_str(), "--set", "train.batch_size=12"].map(str::to_owned)
    };
    let run = |name: &str, world: usize, parts: usize, more: &[&str]| {
        let out = setup.out(name);
        let args = args(&sets(parts));
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(more);
        finished(&setup, &out, world, &all);
        out
    };
    // 36 images make 3 batches of 12 an epoch, 9 steps in all.
    let four = run::losses(&run("four", 4, 1, &[]));
    assert_eq!(four.len(), 9);
    check_same_course(&run::losses(&run("two", 2, 2, &[])), &four, "two ranks");
    check_same_course(&run::losses(&run("one", 1, 4, &[])), &four, "one rank");

    for (world, parts) in [(2, 2), (1, 4), (4, 1)] {
        let name = format!("resumed-{world}");
        run(&name, 4, 1, &["--set", "train.epochs=2"]);
        let more = ["--resume", "--set", "train.epochs=3"];
        // Other epochs bend the schedule; so all of it is compared with a run that did so on four.
        let resumed = run::losses(&run(&name, world, parts, &more));
        if world == 2 {
            run("same", 4, 1, &["--set", "train.epochs=2"]);
            run("same", 4, 1, &more);
        }
        let same = run::losses(&setup.out("same"));
        assert_eq!(resumed[..6], same[..6]);
        check_same_course(&resumed[6..], &same[6..], &format!("resumed on {world}"));
    }
}

#[test]
fn centres_in_a_file_that_two_ranks_were_killed_over_go_on_on_any_number_of_them() {
    let setup = setup();
    let args = |name: &str, parts: usize, more: &[&str]| {
        let centres = setup.out(&format!("{name}-centres"));
        let own = [
            "train.batch_size=12".to_owned(),
            format!("train.accumulate={parts}"),
            format!("head.centres={{ file = \"{}\" }}", centres.display()),
        ];
        let own: Vec<String> = own.iter().map(|value| format!("--set={value}")).collect();
        own.into_iter().chain(more.iter().map(|&word| word.to_owned())).collect::<Vec<String>>()
    };
    // 36 images make 3 batches of 12 an epoch, 9 steps in all.
    let whole = setup.out("whole");
    finished(&setup, &whole, 2, &run::as_strs(&args("whole", 2, &[])));
    for (world, parts) in [(2, 2), (1, 4), (4, 1)] {
        let name = format!("killed-{world}");
        let out = setup.out(&name);
        let mut child =
            command(&setup, &out, 2, &run::as_strs(&args(&name, 2, &[]))).spawn().unwrap();
        assert!(wait_for(&checkpoint(&out, 3), &mut child));
        let ranks = ranks_of(&child);
        signal(ranks[1], "KILL");
        child.wait().unwrap();
        check_gone(&ranks);
        let said = finished(&setup, &out, world, &run::as_strs(&args(&name, parts, &["--resume"])));
        assert!(said.contains(", going on after step "), "{said}");
        if world == 2 {
            assert_eq!(figures(&out), figures(&whole));
        }
        check_same_course(&run::losses(&out), &run::losses(&whole), &name);
    }
}

#[test]
fn what_is_computed_again_takes_the_same_steps_on_any_ranks_and_parts() {
    let setup = setup();
    let run = |name: &str, world: usize, more: &[&str]| {
        let out = setup.out(name);
        let own = ["--set", "train.batch_size=12", "--set", "train.epochs=2"];
        finished(&setup, &out, world, &[&own, more].concat());
        run::losses(&out)
    };
    for (world, parts) in [(1, "1"), (2, "1"), (2, "2")] {
        let parts = format!("train.accumulate={parts}");
        let kept = run(&format!("kept-{world}-{parts}"), world, &["--set", &parts]);
        let more = ["--set", parts.as_str(), "--set", "train.recompute=1"];
        let again = run(&format!("again-{world}-{parts}"), world, &more);
        check_same_course(&again, &kept, &format!("{world} ranks, {parts}"));
    }
}

#[test]
fn what_one_rank_finds_wrong_is_said_once_and_ends_them_all() {
    let setup = setup();
    let out = setup.out("run");
    finished(&setup, &out, 2, &["--set", "train.epochs=1"]);
    let output = command(&setup, &out, 2, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("already holds a run").count(), 1, "{said}");
    assert!(said.contains("a rank failed with exit code 2"), "{said}");

    let more = ["--set", "optim.lr=1e30", "--set", "optim.warmup_epochs=0"];
    let output = command(&setup, &setup.out("diverged"), 2, &more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not finite"), "{said}");

    let said = command(&setup, &setup.out("many"), 5, &[]).output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("batches of 9 images on 5 ranks in 1 micro-batches"), "{said}");
}
