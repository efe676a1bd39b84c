//! `kill -9` in the middle of a pack. `scripts/torture-pack` does so hundreds of times.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    common::Bench,
    resume::{OPTIONS, faces},
};

fn spawn(bench: &Bench, line: &str) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn n_finished(journal: &Path) -> usize {
    let files = fs::read_dir(journal).into_iter().flatten().flatten();
    let name = |file: fs::DirEntry| file.file_name().to_string_lossy().into_owned();
    files.map(name).filter(|name| name.as_bytes()[0].is_ascii_digit()).count()
}

/// Kills a pack once it has finished `n` shards, as soon as that is seen; says whether it was in
/// time.
fn kill_after(bench: &Bench, line: &str, journal: &Path, n: usize) -> bool {
    let mut child = spawn(bench, line);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if n_finished(journal) >= n {
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        std::thread::yield_now();
    }
}

#[track_caller]
fn check(options: &str, journal: &str) {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    if options == "--force" {
        bench.run(&format!("pack raw data {OPTIONS} --seed 5")).success();
    }
    let line = format!("pack raw data {OPTIONS} --threads 2 {options}");
    // Of 13 shards; the last kills come while the journal is checked.
    let n_kills = [0, 1, 3, 3, 6, 9, 12]
        .into_iter()
        .filter(|n| kill_after(&bench, &line, &bench.path(journal), *n))
        .count();
    assert!(n_kills > 0);
    if n_kills == 7 {
        bench.run(&line).success();
    }
    assert!(bench.tree("data") == bench.tree("whole"));
}

#[test]
fn a_pack_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not() {
    check("", "data/journal");
}

#[test]
fn a_replacement_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not() {
    check("--force", ".data.tmp/journal");
}
