//! `pfc-ingest pack --worker` and `pfc-ingest merge`.

use std::fs;

use crate::{
    common::{Bench, stderr},
    resume::{OPTIONS, faces, grey},
};

fn pack(bench: &Bench, out: &str, worker: &str) {
    // A small share may be left out nearly whole.
    let share = format!("--worker {worker} --max-left-out 100");
    bench.run(&format!("pack raw {out} {OPTIONS} {share}")).success();
}

#[test]
fn workers_in_one_folder_write_what_one_run_writes() {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    // 98 images are 13 shards: 20 workers are more than there is work for.
    for n in [1, 2, 3, 20] {
        let out = format!("data{n}");
        (0..n).rev().for_each(|i| pack(&bench, &out, &format!("{i}/{n}")));
        assert!(!bench.path(&out).join("dataset.json").exists());
        bench.run(&format!("merge {out}")).success();
        assert!(bench.tree(&out) == bench.tree("whole"), "{n} workers");
    }
}

#[test]
fn workers_in_folders_of_their_own_write_what_one_run_writes() {
    let bench = faces();
    let whole = bench.json(&format!("pack raw whole {OPTIONS} --json"));
    (0..3).for_each(|i| pack(&bench, &format!("part{i}"), &format!("{i}/3")));
    let parts = [0, 1, 2].map(|i| bench.tree(&format!("part{i}")));
    let merged = bench.json("merge data part2 part0 part1 --json");
    assert!(bench.tree("data") == bench.tree("whole"));
    for key in ["images", "identities", "quarantined", "skipped", "shards", "bytes"] {
        assert_eq!(whole[key], merged[key], "{key}");
    }
    // The parts stay, but for the file that others lock.
    assert!(parts == [0, 1, 2].map(|i| bench.tree(&format!("part{i}"))));
    // And the output may be one of them.
    bench.run("merge part1 part0 part2").success();
    assert!(bench.tree("part1") == bench.tree("whole"));
}

#[test]
fn a_pack_that_one_began_can_be_finished_by_workers() {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    pack(&bench, "data", "1/3");
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    assert!(bench.tree("data") == bench.tree("whole"));
}

#[test]
fn a_merge_judges_what_all_workers_left_out_and_the_listing() {
    let bench = Bench::new();
    for i in 0..20 {
        let bytes = if i < 3 { b"none".to_vec() } else { grey(i) };
        bench.write(&format!("raw/p{}/{i}.jpg", i % 2), &bytes);
    }
    (0..2).for_each(|i| pack(&bench, &format!("part{i}"), &format!("{i}/2")));
    let text = stderr(&bench.run("merge data part0 part1").code(1));
    let expected = "3 of 20 images (15.0 %) left out is more than --max-left-out 10 %: exit code 1";
    assert!(text.contains(expected), "{text}");
    assert_eq!(bench.dataset("data").len(), 17);
    bench.run("merge again part0 part1 --max-left-out 15").success();
}

#[track_caller]
fn refuses(bench: &Bench, line: &str, cause: &str) {
    let text = stderr(&bench.run(line).code(2));
    let found = text.lines().find_map(|line| line.strip_prefix("  cause: "));
    assert_eq!(found, Some(cause), "{text}");
    assert!(text.contains("hint: "), "{text}");
    assert!(!bench.path("data/dataset.json").exists());
}

#[test]
fn parts_that_are_missing_doubled_foreign_or_damaged_are_named() {
    let bench = faces();
    pack(&bench, "part0", "0/3");
    pack(&bench, "part1", "1/3");
    refuses(
        &bench,
        "merge data part0 part1",
        "no part has shards 8-12 of 13 (no worker that has them began in these folders)",
    );
    pack(&bench, "part2", "2/3");
    refuses(&bench, "merge data part0 part1 part2 part1", "part1 and part1 both hold shards 4-7");
    refuses(
        &bench,
        "merge data part0 raw",
        "raw: holds no part of a pack: journal/job.json is missing",
    );
    refuses(&bench, "merge data", "data: holds no part of a pack: journal/job.json is missing");
    bench.run(&format!("pack raw foreign {OPTIONS} --seed 1 --worker 1/3")).success();
    refuses(
        &bench,
        "merge data part0 foreign part2",
        "foreign: is no part of the same job as part0: the options are --seed=1, not --seed=0 as \
         before",
    );
    fs::remove_file(bench.path("part1/journal/00005.json")).unwrap();
    refuses(
        &bench,
        "merge data part0 part1 part2",
        "no part has shard 5 of 13 (worker 1/3 of part1 has not finished)",
    );
    pack(&bench, "part1", "1/3");
    let path = bench.path("part2/shards/00010.arrow");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..100]).unwrap();
    let lost = format!(
        "part2: part2/shards/00010.arrow: has 100 bytes, but the manifest lists {}",
        bytes.len()
    );
    refuses(&bench, "merge data part0 part1 part2", &lost);
    pack(&bench, "part2", "2/3");
    bench.run("merge data part0 part1 part2").success();
}

#[test]
fn a_merge_that_was_killed_half_way_goes_on() {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    pack(&bench, "part0", "0/2");
    pack(&bench, "part1", "1/2");
    // The state after two shards: their files and records, and a third file without its record.
    for file in ["job.json", "labels.jsonl", "left_out.jsonl", "00000.json", "00001.json"] {
        let bytes = fs::read(bench.path("part0/journal").join(file)).unwrap();
        bench.write(&format!("data/journal/{file}"), &bytes);
    }
    for file in ["00000.arrow", "00001.arrow", "00002.arrow"] {
        let bytes = fs::read(bench.path("part0/shards").join(file)).unwrap();
        bench.write(&format!("data/shards/{file}"), &bytes);
    }
    bench.run("merge data part0 part1").success();
    assert!(bench.tree("data") == bench.tree("whole"));
}

#[test]
fn a_worker_of_another_job_does_not_join_in() {
    let bench = faces();
    pack(&bench, "data", "0/2");
    let line = format!("pack raw data {OPTIONS} --quality 80 --worker 1/2");
    let text = stderr(&bench.run(&line).code(2));
    assert!(text.contains("the options are --quality=80, not --quality=95"), "{text}");
    assert!(text.contains("give all workers the same input and options"), "{text}");
}

#[test]
fn a_worker_that_is_none_is_a_usage_error() {
    let bench = faces();
    for bad in ["2/2", "0/0", "1", "-1/2"] {
        bench.run(&format!("pack raw data {OPTIONS} --worker={bad}")).code(2);
    }
    for bad in ["--force", "--restart"] {
        bench.run(&format!("pack raw data {OPTIONS} --worker 0/2 {bad}")).code(2);
    }
    assert!(!bench.path("data").exists());
}
