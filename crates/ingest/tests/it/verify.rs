//! `pfc-ingest verify`.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    process::{Command, Stdio},
};

use crate::common::{Bench, stderr, stdout};

fn packed() -> Bench {
    let bench = Bench::new();
    bench.run("synth faces --identities 3 --images-per-identity 4").success();
    bench.run("pack faces data").success();
    bench
}

#[test]
fn a_fresh_data_set_is_whole() {
    let bench = packed();
    let run = bench.run("verify data").success();
    assert!(stdout(&run).starts_with("whole: 12 rows in "), "{}", stdout(&run));
    let report = bench.json("verify data --json");
    assert_eq!((&report["clean"], &report["rows"]), (&true.into(), &12.into()));
}

#[test]
fn a_file_in_the_place_of_a_folder_is_a_stray() {
    let bench = packed();
    bench.write("data/embeddings", b"mine");
    let run = bench.run("verify data").success();
    let said = "note: embeddings: is no file of the data set\n";
    assert!(stdout(&run).contains(said), "{}", stdout(&run));
}

#[test]
fn a_flipped_bit_in_an_image_is_found_with_file_and_row() {
    let bench = packed();
    bench.damage("data", 7);
    let run = bench.run("verify data").code(1);
    let text = stdout(&run);
    assert!(text.contains("shards/00000.arrow"), "{text}");
    let report: serde_json::Value =
        serde_json::from_slice(&bench.run("verify data --json").code(1).get_output().stdout)
            .unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|f| f["row"] == 7 && f["file"] == "shards/00000.arrow"));
}

#[test]
fn a_missing_shard_is_a_finding() {
    let bench = packed();
    fs::remove_file(bench.path("data/shards/00000.arrow")).unwrap();
    let text = stdout(&bench.run("verify data").code(1));
    assert!(text.contains("00000.arrow"), "{text}");
}

#[test]
fn a_folder_that_is_no_data_set_cannot_be_examined() {
    let bench = Bench::new();
    bench.write("data/readme", b"");
    let run = bench.run("verify data").code(2);
    insta::assert_snapshot!(stderr(&run), @"
    error: cannot verify `data`
      cause: data: no data set here: dataset.json is missing

    hint: give the folder that `pfc-ingest pack` wrote; it writes dataset.json last, so if data comes from an interrupted pack, run that again
    ");
}

/// Linux' flag of `open` not to wait for the other end of a pipe.
const O_NONBLOCK: i32 = 0o4000;

#[test]
fn the_first_signal_ends_a_verification_at_once() {
    let bench = packed();
    // A pipe in place of the checksum of kept embeddings: `verify` waits for bytes that never come.
    bench.write("data/embeddings/kept.npy", b"");
    let pipe = bench.path("data/embeddings/kept.sum");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
            .args(["verify", "data"])
            .current_dir(bench.path(""))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let held = loop {
            // Refused until the program has opened the other end.
            match fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&pipe) {
                Ok(held) => break held,
                Err(_) => assert_eq!(child.try_wait().unwrap(), None, "{signal}"),
            }
            std::thread::yield_now();
        };
        pfc_testing::send_signal(child.id(), signal);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        drop(held);
    }
}
