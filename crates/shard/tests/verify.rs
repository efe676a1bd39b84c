//! `verify` finds what is damaged and says where.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use common::{FOUR_ROWS, SIZE, names, rows, spec, write};
use pfc_shard::{Dataset, DatasetWriter, Face, Fault, Quality, ShardError, VerifyReport, verify};
use tempfile::TempDir;

fn whole() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(30), FOUR_ROWS);
    dir
}

fn report(dir: &Path) -> VerifyReport {
    verify(dir, |_| ()).unwrap()
}

fn lines(dir: &Path) -> Vec<String> {
    let place = format!("{}/", dir.display());
    report(dir).findings.iter().map(|f| f.to_string().replace(&place, "")).collect()
}

/// Changes the byte of `file` where `pattern` begins.
fn flip(dir: &Path, file: &str, pattern: &[u8]) {
    let path = dir.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(pattern.len()).position(|w| w == pattern).expect("the pattern is there");
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

const SECOND: &str = "shards/00001.arrow";

#[test]
fn a_whole_data_set_is_clean_and_every_byte_is_counted() {
    let dir = whole();
    let progress = AtomicU64::new(0);
    let report = verify(dir.path(), |bytes| {
        progress.fetch_add(bytes, Ordering::Relaxed);
    })
    .unwrap();
    assert!(report.is_clean() && report.findings.is_empty());
    assert_eq!((report.rows, report.bytes), (30, report.manifest.bytes()));
    assert_eq!(progress.into_inner(), report.bytes);
}

#[test]
fn a_flipped_byte_in_an_image_names_the_shard_and_the_row() {
    let dir = whole();
    let dataset = Dataset::open(dir.path()).unwrap();
    let first = dataset.manifest().shards[0].rows;
    let row = first + 2;
    let image = dataset.get(row).unwrap().image.to_vec();
    flip(dir.path(), SECOND, &image[image.len() - 40..]);
    let found = lines(dir.path());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("shards/00001.arrow: has checksum xxh3-128:"), "{}", found[0]);
    assert!(found[0].ends_with("; 1 of its images differ from their hashes"), "{}", found[0]);
    let expected =
        format!("{SECOND}: row 2 (row {row} of the data set): its image does not match its hash");
    assert_eq!(found[1], expected);
}

#[test]
fn a_flipped_byte_outside_the_images_names_the_shard() {
    let dir = whole();
    flip(dir.path(), SECOND, "ü00".as_bytes().split_at(2).1);
    let found = lines(dir.path());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(SECOND), "{}", found[0]);
    assert!(
        found[0].ends_with("every image matches its hash, so the change is in the other columns")
    );
}

#[test]
fn a_broken_structure_is_told_with_the_checksum() {
    let dir = whole();
    let path = dir.path().join(SECOND);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 1] = b'?';
    fs::write(&path, bytes).unwrap();
    let found = lines(dir.path());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("; its rows cannot be read"), "{}", found[0]);
    let expected = format!(
        "{SECOND}: is not a whole Arrow file: it does not end with `ARROW1`, so its end is missing"
    );
    assert_eq!(found[1], expected);
}

#[test]
fn every_damaged_file_is_listed_in_order() {
    let dir = whole();
    fs::remove_file(dir.path().join("shards/00002.arrow")).unwrap();
    fs::write(dir.path().join("shards/00000.arrow"), "short").unwrap();
    flip(dir.path(), "identities.arrow", b"alice");
    let report = report(dir.path());
    let files: Vec<_> = report.findings.iter().map(|f| f.file.to_str().unwrap()).collect();
    assert_eq!(files, ["identities.arrow", "shards/00000.arrow", "shards/00002.arrow"]);
    let found = lines(dir.path());
    assert!(found[0].starts_with("identities.arrow: has checksum"), "{}", found[0]);
    assert!(found[1].starts_with("shards/00000.arrow: has 5 bytes, but the manifest lists "));
    assert_eq!(found[2], "shards/00002.arrow: is missing, but the manifest lists it");
    let sizes: u64 = report.manifest.shards.iter().skip(3).map(|s| s.bytes).sum();
    assert_eq!(report.bytes, report.manifest.shards[1].bytes + sizes);
}

#[test]
fn the_report_does_not_depend_on_the_number_of_threads() {
    let dir = whole();
    for shard in Dataset::open(dir.path()).unwrap().manifest().shards.iter().step_by(2) {
        flip(dir.path(), &shard.file, b"JFIF");
    }
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| lines(dir.path()))
    };
    let alone = with(1);
    assert!(alone.len() >= 4, "{alone:?}");
    (2..5).for_each(|threads| assert_eq!(with(threads), alone));
}

/// Faults that were packed, not suffered: every checksum is right.
#[test]
fn rows_that_were_written_wrong_are_found_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec(1 << 20)).unwrap();
    let rows = rows(4);
    writer.push(rows[0].face()).unwrap();
    writer.push(Face { hash: 5, ..rows[1].face() }).unwrap();
    writer.push(Face::new(b"GIF89a", 2, "a.gif", SIZE, Quality::default())).unwrap();
    let mut large = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut large, 80);
    encoder.encode(&[0; 16 * 8], 16, 8, jpeg_encoder::ColorType::Luma).unwrap();
    writer.push(Face::new(&large, 0, "large", SIZE, Quality::default())).unwrap();
    writer.finish(names()).unwrap();
    let first = "shards/00000.arrow: row";
    assert_eq!(
        lines(dir.path()),
        [
            format!("{first} 1 (row 1 of the data set): its image does not match its hash"),
            format!(
                "{first} 2 (row 2 of the data set): its image is not a JPEG: no start-of-image marker"
            ),
            format!(
                "{first} 3 (row 3 of the data set): its image is 16x8 pixels, but the row says 8x8"
            ),
        ]
    );
}

/// Edits the manifest so that its checksums hold while its claims do not.
#[test]
fn labels_sizes_and_counts_are_held_against_the_manifest_and_the_table() {
    let dir = whole();
    let other = tempfile::tempdir().unwrap();
    let shard = Dataset::open(dir.path()).unwrap().manifest().shards[0].clone();
    let mut swapped = rows(shard.rows);
    swapped[1].label = 7;
    let mut writer = DatasetWriter::create(other.path(), spec(FOUR_ROWS * 2)).unwrap();
    swapped.iter().for_each(|row| assert!(writer.push(row.face()).is_ok()));
    let many = (0..8).map(|i| i.to_string()).collect();
    let entry = writer.finish(many).unwrap().shards.remove(0);
    fs::copy(other.path().join("shards/00000.arrow"), dir.path().join("shards/00000.arrow"))
        .unwrap();

    let path = dir.path().join("dataset.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(&shard.checksum.to_string(), &entry.checksum.to_string());
    let text = text.replacen(
        &format!("\"bytes\": {}", shard.bytes),
        &format!("\"bytes\": {}", entry.bytes),
        1,
    );
    let text = text.replace("\"height\": 8", "\"height\": 9");
    fs::write(&path, common::unsealed(&text)).unwrap();

    let report = report(dir.path());
    let of = |pick: fn(&Fault) -> bool| report.findings.iter().filter(|f| pick(&f.fault)).count();
    assert_eq!(of(|f| matches!(f, Fault::RowSize { .. })), 30);
    assert_eq!(of(|f| matches!(f, Fault::Label { label: 7, n_identities: 3 })), 1);
    assert_eq!(of(|f| matches!(f, Fault::Count { label: 1, found: 9, expected: 10, .. })), 1);
    assert_eq!(report.n_faults, 32);
    let found = lines(dir.path());
    assert_eq!(found[0], "identities.arrow: identity 1 (`bob`) has 10 images here, but 9 rows");
    assert!(found.iter().any(|f| f.ends_with("has label 7, but the manifest lists 3 identities")));
    assert!(found[1].ends_with("is 8x8 pixels, but the manifest says 8x9"), "{}", found[1]);
}

#[test]
fn a_manifest_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(dir.path(), |_| ()), Err(ShardError::NotADataset { .. })));
}

#[test]
fn thousands_of_faults_in_one_file_are_counted_but_not_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec(1 << 20)).unwrap();
    for _ in 0..1_500 {
        writer.push(Face::new(b"GIF89a", 2, "a.gif", SIZE, Quality::default())).unwrap();
    }
    writer.finish(names()).unwrap();
    let report = report(dir.path());
    assert_eq!((report.n_faults, report.findings.len()), (1_500, 1_000));
}
