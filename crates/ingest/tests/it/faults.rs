//! Faults of the system, end to end: a source that goes away while a command reads it. What a command
//! then ends with is whole or nothing, and the same command goes on once the source is back.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    common::{Bench, stderr},
    resume::{OPTIONS, faces, grey},
};

/// Runs until `is_far` says so, then moves `from` to `gone`; exit code and what was said.
fn without(
    bench: &Bench,
    line: &str,
    from: &str,
    is_far: impl Fn() -> bool,
) -> (Option<i32>, String) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_far() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    fs::rename(bench.path(from), bench.path("gone")).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn n_files(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// 40 people with so many images that a pack of them in shards of 8 takes a while.
fn many() -> Bench {
    let bench = Bench::new();
    for i in 0..1200_u32 {
        let mut face = grey((i % 250) as u8);
        face.extend(i.to_le_bytes());
        bench.write(&format!("raw/p{:02}/{i}.jpg", i % 40), &face);
    }
    bench
}

#[test]
fn a_source_that_vanishes_stops_a_pack_which_goes_on_when_it_is_back() {
    let bench = many();
    let list: String =
        (0..1200).map(|i| format!("raw/p{0:02}/{i}.jpg\tp{0:02}\n", i % 40)).collect();
    bench.write("list.tsv", list.as_bytes());
    for (input, out) in [("raw", "a"), ("list.tsv", "b")] {
        bench.run(&format!("pack {input} {out}-whole {OPTIONS}")).success();
        let line = format!("pack {input} {out} {OPTIONS} --threads 1");
        let journal = bench.path(&format!("{out}/journal"));
        let (code, text) = without(&bench, &line, "raw", || n_files(&journal) > 5);
        assert_eq!(code, Some(2), "{input}: {text}");
        assert!(text.contains("raw: the folder that the images lie in is gone"), "{input}: {text}");
        assert!(text.contains("hint: was it unmounted or renamed?"), "{input}: {text}");
        assert!(!bench.path(&format!("{out}/dataset.json")).exists());
        assert!(n_files(&journal) > 5, "{input}: the journal is kept");
        fs::rename(bench.path("gone"), bench.path("raw")).unwrap();
        let text = stderr(&bench.run(&line).success());
        assert!(text.contains("going on: "), "{input}: {text}");
        assert!(bench.tree(out) == bench.tree(&format!("{out}-whole")), "{input}");
        assert!(bench.quarantine(out).is_empty(), "{input}");
    }
}

#[test]
fn a_data_set_that_vanishes_makes_no_half_of_an_export_a_copy_or_a_join() {
    let bench = many();
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    bench.run(&format!("pack raw other {OPTIONS} --seed 4")).success();
    let rows = bench.dataset("data").len();
    bench.write("e.npy", &npy(rows));
    bench.run("clean data --pass many --max-images 20").success();
    for (i, command) in [
        "export data OUT --to folder --threads 1",
        "export data OUT --to recordio --threads 1",
        "compact data OUT",
        "merge OUT data other --match embeddings --embeddings e.npy --embeddings e.npy --same-person 0.9",
    ]
    .into_iter()
    .enumerate()
    {
        let (out, line) = (format!("out{i}"), command.replace("OUT", &format!("out{i}")));
        bench.run(&command.replace("OUT", &format!("whole{i}"))).success();
        let left = bench.path(&format!(".{out}.tmp"));
        let (code, text) = without(&bench, &line, "data", || left.exists());
        // What was opened before stays readable, so that some are whole.
        assert!(matches!(code, Some(0 | 2)), "{command}: {code:?} {text}");
        assert!(code == Some(0) || text.contains("data"), "{command}: {text}");
        assert_eq!(bench.path(&out).exists(), code == Some(0), "{command}");
        fs::rename(bench.path("gone"), bench.path("data")).unwrap();
        if code == Some(2) {
            bench.run(&line).success();
        }
        assert!(bench.tree(&out) == bench.tree(&format!("whole{i}")), "{command}");
        assert!(!left.exists() && !bench.path(&format!(".{out}.lock")).exists(), "{command}");
    }
}

/// Two numbers a row, all different.
fn npy(rows: u64) -> Vec<u8> {
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}\n");
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.into_bytes());
    for row in 0..rows {
        npy.extend(((row as f32).sin()).to_le_bytes());
        npy.extend(((row as f32).cos()).to_le_bytes());
    }
    npy
}

/// Runs with at most `n` open files; exit code and what was said.
#[cfg(unix)]
fn with_files(bench: &Bench, n: u32, line: &str) -> (Option<i32>, String) {
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    let output = Command::new("sh")
        .current_dir(bench.path(""))
        .arg("-c")
        .arg(format!("ulimit -n {n} && exec '{}' {line}", program.display()))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn a_process_without_file_descriptors_makes_no_half_of_anything() {
    let bench = faces();
    for worker in 0..2 {
        bench.run(&format!("pack raw part{worker} {OPTIONS} --worker {worker}/2")).success();
    }
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    for (i, command) in [
        format!("pack raw OUT {OPTIONS}"),
        "merge OUT part0 part1".into(),
        "compact data OUT".into(),
        "export data OUT --to folder".into(),
    ]
    .iter()
    .enumerate()
    {
        let whole = format!("whole{i}");
        bench.run(&command.replace("OUT", &whole)).success();
        let mut n_failed = 0;
        for n in 4..40 {
            let out = format!("out{i}-{n}");
            let line = command.replace("OUT", &out);
            let (code, text) = with_files(&bench, n, &line);
            let is_done = code == Some(0);
            // 127: the loader found no descriptor to open a library with.
            assert!(is_done || matches!(code, Some(2 | 127)), "{line} of {n}: {code:?} {text}");
            assert!(!text.contains("panicked") && !text.contains("counts as not done"), "{text}");
            let is_finished = match command.starts_with("pack") || command.starts_with("merge") {
                true => bench.path(&format!("{out}/dataset.json")).exists(),
                false => bench.path(&out).exists(),
            };
            assert_eq!(is_finished, is_done, "{line} of {n}: {text}");
            if !is_done {
                n_failed += 1;
                bench.run(&line).success();
            }
            assert!(bench.tree(&out) == bench.tree(&whole), "{line} of {n}");
        }
        assert!((3..36).contains(&n_failed), "{command}: {n_failed} of 36 failed");
    }
}
