//! `pfc-ingest synth`.

use std::path::Path;

use crate::common::{Bench, stderr};

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let bench = Bench::new();
    let options = "--identities 4 --images-per-identity 5 --noise 0.1 --holdout 3 --pairs 20";
    for (out, more) in [("a", "--threads 1"), ("b", "--threads 2"), ("c", "--seed 1")] {
        bench.run(&format!("synth {out} {options} {more}")).success();
    }
    let tree = bench.tree("a");
    assert_eq!(tree.len(), 4 * 5 + 3 * 5 + 2);
    assert!(tree == bench.tree("b"));
    let face = Path::new("test/Person_000004/Person_000004_0001.jpg");
    assert_ne!(tree[face], bench.tree("c")[face]);
}

#[test]
fn a_larger_world_begins_with_the_smaller_one() {
    let bench = Bench::new();
    bench.run("synth small --identities 2 --images-per-identity 2").success();
    bench.run("synth large --identities 3 --images-per-identity 4").success();
    let large = bench.tree("large");
    for (path, bytes) in bench.tree("small") {
        if path != Path::new("synth.json") {
            assert!(bytes == large[&path], "{}", path.display());
        }
    }
}

#[test]
fn injected_noise_is_what_the_truth_file_says() {
    let bench = Bench::new();
    let noise = "mislabelled=0.05,duplicated=0.2,corrupt=0.1";
    let line = format!("synth w --identities 5 --images-per-identity 8 --noise {noise} --json");
    let summary = bench.json(&line);
    let counts = ["mislabelled", "duplicated", "corrupt"].map(|k| summary[k].as_u64().unwrap());
    assert_eq!(counts, [2, 8, 4]);
    let files = bench.tree("w");
    let truth: serde_json::Value = serde_json::from_slice(&files[Path::new("synth.json")]).unwrap();
    let faults = truth["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 14);
    for fault in faults {
        let text = |key: &str| fault[key].as_str().unwrap_or_default();
        let bytes = &files[Path::new(text("path"))];
        match text("fault") {
            "duplicated" => {
                let original = &files[Path::new(text("of"))];
                assert_eq!(bytes == original, text("how") == "same_bytes");
            }
            "mislabelled" => assert!(!text("path").starts_with(text("shows"))),
            _ => {}
        }
    }
}

#[test]
fn corrupt_images_and_no_others_are_quarantined_when_packed() {
    let bench = Bench::new();
    let line = "synth w --identities 5 --images-per-identity 12 --noise 0.1";
    bench.run(line).success();
    let truth: serde_json::Value =
        serde_json::from_slice(&bench.tree("w")[Path::new("synth.json")]).unwrap();
    let mut corrupt: Vec<_> = truth["faults"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|fault| fault["fault"] == "corrupt")
        .map(|fault| fault["path"].as_str().unwrap().to_owned())
        .collect();
    corrupt.sort();
    bench.run("pack w data").success();
    let quarantined = bench.quarantine("data").into_iter().filter(|l| l.1 == "quarantined");
    assert_eq!(quarantined.map(|l| l.0).collect::<Vec<_>>(), corrupt);
}

#[test]
fn pairs_name_files_of_the_held_out_people() {
    let bench = Bench::new();
    bench.run("synth w --identities 1 --images-per-identity 4 --holdout 20 --pairs 40").success();
    let pairs = std::fs::read_to_string(bench.path("w/pairs.txt")).unwrap();
    assert_eq!(pairs.lines().count(), 41);
    for line in pairs.lines().skip(1) {
        let words: Vec<_> = line.split('\t').collect();
        let images = match words[..] {
            [name, i, j] => [(name, i), (name, j)],
            [one, i, two, j] => [(one, i), (two, j)],
            _ => panic!("{line}"),
        };
        for (name, number) in images {
            let number: u32 = number.parse().unwrap();
            let path = bench.path(&format!("w/test/{name}/{name}_{number:04}.jpg"));
            assert!(path.is_file(), "{}", path.display());
        }
    }
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let bench = Bench::new();
    bench.write("w/mine.txt", b"");
    let run = bench.run("synth w --identities 1 --images-per-identity 1").code(2);
    insta::assert_snapshot!(stderr(&run), @"
    error: cannot make `w`
      cause: w: already exists and is not empty

    hint: choose another folder, or remove w first
    ");
    assert_eq!(bench.tree("w").len(), 1);
}

#[test]
fn pairs_that_cannot_be_had_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let run = bench.run("synth w --identities 3 --images-per-identity 2 --pairs 100").code(2);
    insta::assert_snapshot!(stderr(&run), @"
    error: cannot make `w`
      cause: 100 pairs ask for 50 of one person and 50 of two in each group of 3 identities, which have 3

    hint: ask for fewer pairs, or make more identities or images of each
    ");
    assert!(!bench.path("w").exists());
}

#[test]
fn a_share_that_is_none_is_a_usage_error() {
    let bench = Bench::new();
    let run = bench.run("synth w --identities 1 --images-per-identity 1 --noise blurred=0.1");
    let text = stderr(&run.code(2));
    assert!(text.contains("`blurred` is no kind of noise"), "{text}");
}
