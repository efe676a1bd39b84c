//! `pfc-ingest pack`, stopped in every way and run again.

use std::{fs, path::Path};

use crate::common::{Bench, stderr, stdout};

/// 96 small crops of 12 people, of which 3 files are no images and one lies about it.
pub fn faces() -> Bench {
    let bench = Bench::new();
    for i in 0..96u8 {
        bench.write(&format!("raw/p{:02}/{i:02}.jpg", i / 8), &grey(i));
    }
    bench.write("raw/p03/notes.txt", b"none");
    bench.write("raw/p05/cut.jpg", &grey(9)[..80]);
    bench.write("raw/p07/text.jpg", b"<html>404</html>");
    bench
}

/// A 16x16 crop of one grey.
pub fn grey(level: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&[level; 256], 16, 16, jpeg_encoder::ColorType::Luma)
        .unwrap();
    bytes
}

pub const OPTIONS: &str = "--size 16 --shard-rows 8";

/// Runs with files limited to `blocks` of 512 bytes, as a full disk would have it.
fn run_limited(bench: &Bench, blocks: u32, line: &str) -> assert_cmd::assert::Assert {
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest").display();
    // With the signal ignored the write fails with EFBIG.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {program} {line}");
    assert_cmd::Command::new("sh")
        .current_dir(bench.path(""))
        .env_remove("PFC_LOG")
        .args(["-c", &script])
        .assert()
}

/// Adds one person whose images do not fit where the others do, last in source order.
fn add_large(bench: &Bench) {
    for i in 0..8 {
        let mut bytes = grey(i);
        // Padding after the end of an image is harmless.
        bytes.resize(20_000, 0);
        bench.write(&format!("raw/z/{i}.jpg"), &bytes);
    }
}

const SOURCE_ORDER: &str = "--size 16 --shard-rows 8 --order source";

/// A pack that stopped at its last shard, and the bytes it should end with.
fn stopped(bench: &Bench) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    add_large(bench);
    bench.run(&format!("pack raw whole {SOURCE_ORDER}")).success();
    run_limited(bench, 64, &format!("pack raw data {SOURCE_ORDER}")).code(2);
    bench.tree("whole")
}

#[cfg(unix)]
#[test]
fn a_write_that_does_not_fit_is_told_with_file_bytes_and_way_out_and_loses_nothing() {
    use std::os::unix::fs::MetadataExt;
    let bench = faces();
    add_large(&bench);
    let run = run_limited(&bench, 64, &format!("pack raw data {SOURCE_ORDER}")).code(2);
    let text = stderr(&run);
    // The system's reason goes on with the temporary name.
    let lines: Vec<&str> =
        text.lines().map(|line| line.split(" at path").next().unwrap()).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    error: cannot pack `raw`
      cause: data/shards/00012.arrow: no space for about 15,424 more bytes
      cause: data/shards/00012.arrow: cannot write
      cause: File too large (os error 27)

    hint: files like data/shards/00012.arrow may not grow so large here: raise the limit (`ulimit -f`) or use another file system, and run the same command again; 12 of 14 shards are done and kept
    ");
    assert!(!bench.path("data/dataset.json").exists());
    let first = bench.path("data/shards/00000.arrow");
    let before = fs::metadata(&first).unwrap().ino();
    let run = bench.run(&format!("pack raw data {SOURCE_ORDER}")).success();
    assert!(stderr(&run).contains("going on: 12 of 14 shards are done"), "{}", stderr(&run));
    assert_eq!(fs::metadata(&first).unwrap().ino(), before, "the first shard was packed anew");
    bench.run(&format!("pack raw whole {SOURCE_ORDER}")).success();
    assert!(bench.tree("data") == bench.tree("whole"));
}

#[test]
fn a_pack_that_finds_its_work_damaged_packs_that_anew() {
    for (file, at) in [("shards/00001.arrow", 3_000), ("journal/00002.json", 60)] {
        let bench = faces();
        let whole = stopped(&bench);
        let path = bench.path("data").join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        // Files as killed writers leave them, and a shard without its record.
        bench.write("data/shards/.00003.arrow.abc123.tmp", b"half");
        bench.write("data/shards/00012.arrow", b"not finished");
        let run = bench.run(&format!("pack raw data {SOURCE_ORDER}")).success();
        let text = stderr(&run);
        assert!(text.contains("going on: 11 of 14 shards"), "{text}");
        assert!(text.contains(Path::new(file).file_name().unwrap().to_str().unwrap()), "{text}");
        assert!(bench.tree("data") == whole, "{file}");
    }
}

#[track_caller]
fn refuses(bench: &Bench, options: &str, difference: &str) {
    let text = stderr(&bench.run(&format!("pack raw data {options}")).code(2));
    assert!(text.contains(difference), "{text}");
    assert!(text.contains("--restart"), "{text}");
}

#[test]
fn another_input_or_other_options_are_told_apart_and_restart_begins_anew() {
    let bench = faces();
    stopped(&bench);
    let kept = bench.tree("data");
    refuses(&bench, &format!("{SOURCE_ORDER} --seed 3"), "the options are --seed=3, not --seed=0");
    refuses(&bench, &format!("{SOURCE_ORDER} --validate header"), "--validate=header");
    let path = bench.path("raw/p00/00.jpg");
    let before = fs::read(&path).unwrap();
    fs::write(&path, grey(200)).unwrap();
    refuses(&bench, SOURCE_ORDER, "the input's images have other content than before");
    fs::rename(&path, bench.path("raw/p00/0.jpg")).unwrap();
    refuses(&bench, SOURCE_ORDER, "the input's files have other names than before");
    fs::remove_file(bench.path("raw/p00/0.jpg")).unwrap();
    refuses(&bench, SOURCE_ORDER, "the input has images: 105, not 106 as before");
    fs::write(&path, before).unwrap();
    bench.write("raw/p01/more.txt", b"");
    refuses(&bench, SOURCE_ORDER, "other files beside its images");
    fs::remove_file(bench.path("raw/p01/more.txt")).unwrap();
    assert!(bench.tree("data") == kept, "a refusal changed something");
    bench.run(&format!("pack raw data {SOURCE_ORDER} --seed 3 --restart")).success();
    bench.run(&format!("pack raw other {SOURCE_ORDER} --seed 3")).success();
    assert!(bench.tree("data") == bench.tree("other"));
}

#[test]
fn a_replacement_goes_on_and_the_old_data_set_stays_until_it_is_complete() {
    let bench = faces();
    bench.run(&format!("pack raw data {OPTIONS}")).success();
    let old = bench.tree("data");
    add_large(&bench);
    run_limited(&bench, 64, &format!("pack raw data {SOURCE_ORDER} --force")).code(2);
    assert!(bench.tree("data") == old);
    let run = bench.run(&format!("pack raw data {SOURCE_ORDER} --force")).success();
    assert!(stderr(&run).contains("going on: 12 of 14 shards"), "{}", stderr(&run));
    bench.run(&format!("pack raw whole {SOURCE_ORDER}")).success();
    assert!(bench.tree("data") == bench.tree("whole"));
    assert!(!bench.path(".data.tmp").exists());
}

#[test]
fn a_pack_killed_after_its_manifest_is_tidied_up_and_succeeds() {
    let bench = faces();
    bench.run(&format!("pack raw whole {OPTIONS}")).success();
    bench.run(&format!("pack raw data {OPTIONS} --worker 0/1")).success();
    let record = fs::read_to_string(bench.path("data/journal/00000.json")).unwrap();
    let record: serde_json::Value =
        serde_json::from_str(record.split_once('\n').unwrap().1).unwrap();
    let summary = bench.json(&format!("pack raw other {OPTIONS} --json"));
    let json = serde_json::json!({ "job": record["job"], "summary": summary }).to_string();
    let checksum = pfc_shard::Checksum(pfc_shard::hash::content_hash(json.as_bytes()));
    bench.write("data/journal/done.json", format!("{checksum}\n{json}").as_bytes());
    for file in ["dataset.json", "identities.arrow", "quarantine.jsonl"] {
        fs::copy(bench.path("whole").join(file), bench.path("data").join(file)).unwrap();
    }
    // Of another job it is a data set like any other.
    bench.run(&format!("pack raw data {OPTIONS} --seed 9")).code(2);
    let text = stdout(&bench.run(&format!("pack raw data {OPTIONS} --json")).success());
    let again: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(again["images"], summary["images"]);
    assert!(bench.tree("data") == bench.tree("whole"));
}

#[test]
fn two_packs_into_one_folder_do_not_mix() {
    let bench = faces();
    stopped(&bench);
    let lock =
        fs::File::options().append(true).create(true).open(bench.path(".data.lock")).unwrap();
    lock.lock().unwrap();
    let text = stderr(&bench.run(&format!("pack raw data {SOURCE_ORDER}")).code(2));
    assert!(text.contains("data: another command is writing there"), "{text}");
    let worker = format!("pack raw data {SOURCE_ORDER} --worker 0/2");
    assert!(stderr(&bench.run(&worker).code(2)).contains("is writing there"));
}

#[test]
fn a_shard_all_of_whose_images_are_unusable_is_left_out() {
    let bench = faces();
    for i in 0..9 {
        bench.write(&format!("raw/a/{i}.jpg"), b"");
    }
    bench.run(&format!("pack raw data {SOURCE_ORDER} --max-left-out 100")).success();
    bench.run("verify data").success();
    let dataset = bench.dataset("data");
    assert_eq!((dataset.len(), dataset.manifest().shards.len()), (96, 13));
    assert_eq!(dataset.manifest().shards[0].file, "shards/00001.arrow");
}

#[test]
fn header_validation_keeps_the_bytes_says_so_and_measures_nothing() {
    let bench = faces();
    let cut = fs::read(bench.path("raw/p05/cut.jpg")).unwrap();
    // A whole image whose inside is damaged: only decoding tells.
    let mut inside = grey(7);
    let table = inside.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    // More codes of one bit than there are.
    inside[table + 5] = 200;
    bench.write("raw/p05/inside.jpg", &inside);
    bench.write(
        "raw/p06/large.png",
        &crate::common::encode(crate::common::picture(20, 20), image::ImageFormat::Png),
    );
    bench.run(&format!("pack raw full {OPTIONS}")).success();
    bench.run(&format!("pack raw quick {OPTIONS} --validate header")).success();
    let (full, quick) = (bench.dataset("full"), bench.dataset("quick"));
    assert!(quick.manifest().arguments.contains(&"--validate=header".to_owned()));
    assert_eq!((full.len(), quick.len()), (97, 98));
    let known: Vec<&str> = (0..quick.len())
        .map(|row| quick.get(row).unwrap())
        .filter(|face| face.quality.is_known())
        .map(|face| face.source)
        .collect();
    assert_eq!(known, ["p06/large.png"], "what is encoded anew was decoded anyway");
    assert!((0..full.len()).all(|row| full.get(row).unwrap().quality.is_known()));
    let reasons = bench.quarantine("quick");
    let truncated = ("p05/cut.jpg".into(), "quarantined".into(), "truncated".into());
    assert!(reasons.contains(&truncated), "{reasons:?}, {} bytes", cut.len());
}

#[test]
fn a_stopped_pack_reports_what_was_done_and_what_is_left_out_only_once() {
    let bench = faces();
    stopped(&bench);
    let whole = bench.json(&format!("pack raw whole {SOURCE_ORDER} --force --json"));
    let rest = bench.json(&format!("pack raw data {SOURCE_ORDER} --json"));
    for key in ["images", "quarantined", "skipped", "shards", "bytes", "passed_through"] {
        assert_eq!(whole[key], rest[key], "{key}");
    }
}
