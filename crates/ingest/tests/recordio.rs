//! RecordIO files as the input of `pack`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::{Command, assert::Assert};
use pfc_recordio::{FaceWriter, Header, RecordPaths, RecordWriter, Style};
use pfc_shard::{Dataset, hash::content_hash};

fn pack(raw: &Path, out: &Path) -> Assert {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"));
    command
        .env_remove("PFC_LOG")
        .args(["pack", "--json", "--max-left-out", "100"])
        .arg(raw)
        .arg(out)
        .assert()
}

#[track_caller]
fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Identity, source and bytes of every row.
fn rows(dir: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let dataset = Dataset::open(dir).unwrap();
    let row = |row| {
        let face = dataset.get(row).unwrap();
        let identity = dataset.identities().name(face.label).to_owned();
        assert_eq!(face.hash, content_hash(face.image));
        (face.source.to_owned(), (identity, face.image.to_vec()))
    };
    (0..dataset.len()).map(row).collect()
}

fn golden() -> Vec<PathBuf> {
    pfc_testing::golden_cases("rec", Path::is_dir)
}

/// What a pack must hold: every image that starts as a JPEG, under its class and key.
fn expected(rec: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let file = RecordPaths::find(rec).unwrap().open().unwrap();
    let faces = file.images().map(Result::unwrap);
    let faces = faces.filter(|face| face.image.starts_with(b"\xff\xd8"));
    let row = faces.map(|face| {
        let identity = format!("id_{}", face.label);
        (format!("{identity}/{}", face.key), (identity, face.image.to_vec()))
    });
    row.collect()
}

#[test]
fn golden_recordio_folders_are_packed_with_the_bytes_and_classes_of_their_records() {
    let parent = tempfile::tempdir().unwrap();
    for folder in golden() {
        let out = parent.path().join(folder.file_name().unwrap());
        pack(&folder, &out).success();
        assert_eq!(rows(&out), expected(&folder), "{}", folder.display());
    }
}

#[test]
fn golden_recordio_files_are_packed_alike_with_and_without_their_index() {
    let parent = tempfile::tempdir().unwrap();
    for folder in golden() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let file = RecordPaths::find(&folder).unwrap().open().unwrap();
        // Without an index the keys are the ids, and must be the same for the names to be.
        if file.records().any(|record| record.is_ok_and(|r| r.key != r.header.id)) {
            continue;
        }
        let alone = parent.path().join(format!("{name}.rec"));
        fs::copy(folder.join("train.rec"), &alone).unwrap();
        let [with, without] =
            ["with", "without"].map(|w| parent.path().join(format!("{name}-{w}")));
        pack(&folder.join("train.rec"), &with).success();
        pack(&alone, &without).success();
        assert_eq!(rows(&with), rows(&without), "{name}");
    }
}

/// A small JPEG of the final size, of one grey.
fn jpeg(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&[grey; 112 * 112], 112, 112, jpeg_encoder::ColorType::Luma).unwrap();
    bytes
}

#[test]
fn dense_classes_keep_their_numbers_and_gaps_close() {
    let parent = tempfile::tempdir().unwrap();
    let write = |name: &str, classes: &[u64]| {
        let dir = parent.path().join(name);
        let mut writer = FaceWriter::create(&dir, Style::Sequential, 112, 112).unwrap();
        for class in classes {
            writer.push(*class, &jpeg(*class as u8)).unwrap();
        }
        writer.finish().unwrap();
        let out = parent.path().join(format!("{name}-packed"));
        let assert = pack(&dir, &out).success();
        let dataset = Dataset::open(&out).unwrap();
        let names: Vec<String> = (0..dataset.n_identities())
            .map(|label| dataset.identities().name(label).to_owned())
            .collect();
        (names, stderr(&assert))
    };
    // Twelve classes: in byte order of names, `id_10` would come before `id_2`.
    let dense: Vec<u64> = (0..12).rev().collect();
    let (names, warnings) = write("dense", &dense);
    assert_eq!(names, (0..12).map(|class| format!("id_{class}")).collect::<Vec<_>>());
    assert_eq!(warnings, "");
    let (names, warnings) = write("gaps", &[16_777_216, 7, 7]);
    assert_eq!(names, ["id_7", "id_16777216"]);
    assert!(warnings.contains("1 image with a class of 16777216 or more"), "{warnings}");
    let gaps = "the labels 7 to 16777216 do not count from 0 without gaps";
    assert!(warnings.contains(gaps), "{warnings}");
}

#[test]
fn a_record_without_a_class_or_an_image_is_quarantined_by_its_key() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("raw");
    let mut writer = RecordWriter::create(&dir).unwrap();
    writer.write(4, &Header::scalar(0.0, 4), &jpeg(50)).unwrap();
    writer.write(5, &Header::scalar(0.5, 5), &jpeg(60)).unwrap();
    writer.write(6, &Header::scalar(0.0, 6), b"").unwrap();
    writer.write(7, &Header::scalar(4_294_967_296.0, 7), &jpeg(70)).unwrap();
    writer.finish(None).unwrap();
    let out = parent.path().join("out");
    pack(&dir, &out).success();
    assert_eq!(rows(&out).into_keys().collect::<Vec<_>>(), ["id_0/4"]);
    let list = fs::read_to_string(out.join("quarantine.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<_> = lines
        .iter()
        .map(|line| (line["source"].as_str().unwrap(), line["reason"].as_str().unwrap()))
        .collect();
    let expected = [("record 5", "no_label"), ("record 7", "no_label"), ("id_0/6", "empty")];
    assert_eq!(reasons, expected);
    assert!(list.contains("label 0.5 is no whole number"), "{list}");
}

#[track_caller]
fn refuses(rec: &[u8], idx: Option<&str>, message: &str, hint: &str) {
    let parent = tempfile::tempdir().unwrap();
    let raw = parent.path().join("train.rec");
    fs::write(&raw, rec).unwrap();
    if let Some(idx) = idx {
        fs::write(parent.path().join("train.idx"), idx).unwrap();
    }
    let out = parent.path().join("out");
    let text = stderr(&pack(&raw, &out).code(2));
    assert!(text.contains(message) && text.contains(hint), "{text}");
    assert!(!out.exists());
}

#[test]
fn files_that_cannot_be_read_are_errors_with_a_place_and_a_way_out() {
    refuses(b"", None, "train.rec: holds no images", "hint: is it the right file");
    refuses(
        b"PK\x03\x04....",
        None,
        "train.rec: its name says RecordIO, and its first bytes say zip",
        "hint: say with --from",
    );
    let one = [&b"\x0a\x23\xd7\xce\x18\0\0\0"[..], &[0; 24]].concat();
    refuses(&one[..30], None, "train.rec: byte 0: a payload of 24 bytes", "cut short");
    refuses(&one, Some("1\t64\n"), "train.idx: line 1: record 1 is listed at byte 64", "scanned");
    refuses(&one, Some("1\t0\n"), "its only image cannot be read", "id_0/1: the file is empty");
}
