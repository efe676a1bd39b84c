//! Every way a data set can be wrong, as the user is told of it.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use common::{FOUR_ROWS, Row, SIZE, names, rows, spec, write};
use pfc_shard::{
    Checksum, Dataset, DatasetSpec, DatasetWriter, Face, IMAGE_BYTES_MAX, IdentityNames, ImageSize,
    Manifest, SOURCE_BYTES_MAX, ShardEntry, ShardError, ShardSpec, ShardWriter, hash::content_hash,
};
use tempfile::TempDir;

/// A whole data set of 30 rows in several shards.
fn whole() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(30), FOUR_ROWS);
    dir
}

/// What opening and preloading says; paths without the temporary folder.
#[track_caller]
fn open_error(dir: &Path) -> ShardError {
    Dataset::open(dir).and_then(|d| d.preload()).expect_err("it should not open")
}

#[track_caller]
fn check(error: &ShardError, dir: &Path, message: &str, hint: &str) {
    let place = format!("{}/", dir.display());
    assert_eq!(error.to_string().replace(&place, ""), message);
    let found = error.hint().unwrap_or_default();
    assert!(found.contains(hint), "hint `{found}` lacks `{hint}`");
    let whole = format!("{error}{found}");
    assert!(!whole.ends_with('.'), "{whole}");
}

/// Replaces `old` in the manifest.
fn edit_manifest(dir: &Path, old: &str, new: &str) {
    let path = dir.join("dataset.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(path, common::unsealed(&text.replacen(old, new, 1))).unwrap();
}

/// Puts `bytes` in place of a listed file and lists their size and checksum.
fn replace_listed(dir: &Path, file: &str, bytes: &[u8]) {
    let path = dir.join(file);
    let old = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let entry = |bytes: &[u8]| {
        let checksum = Checksum(content_hash(bytes));
        format!("\"bytes\": {},\n      \"checksum\": \"{checksum}\"", bytes.len())
    };
    let (old, new) = (entry(&old), entry(bytes));
    match file {
        "identities.arrow" => {
            let outdent = |text: String| text.replace("\n      ", "\n    ");
            edit_manifest(dir, &outdent(old), &outdent(new));
        }
        _ => edit_manifest(dir, &old, &new),
    }
}

const SECOND: &str = "shards/00001.arrow";

#[test]
fn a_folder_without_a_manifest_is_no_data_set() {
    let dir = tempfile::tempdir().unwrap();
    for place in [dir.path().to_path_buf(), dir.path().join("absent")] {
        let error = open_error(&place);
        let message = format!("{}: no data set here: dataset.json is missing", place.display());
        check(&error, Path::new("-"), &message, "run that again");
    }
}

#[test]
fn a_finished_data_set_is_not_overwritten() {
    let dir = whole();
    let error = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap_err();
    assert!(matches!(error, ShardError::AlreadyExists { .. }));
    assert!(error.hint().unwrap().contains("another folder"));
    Dataset::open(dir.path()).unwrap().preload().unwrap();
}

#[test]
fn a_manifest_that_is_no_json_is_an_error_with_its_place() {
    let dir = whole();
    edit_manifest(dir.path(), "\"rows\": 30", "\"rows\": thirty");
    let error = open_error(dir.path());
    check(&error, dir.path(), "dataset.json: cannot be parsed", "restore it");
    assert!(error.source().unwrap().to_string().contains("line 3"));
}

#[test]
fn a_manifest_that_lacks_a_field_is_an_error_that_names_it() {
    let dir = whole();
    edit_manifest(dir.path(), "\"seed\"", "\"sead\"");
    let error = open_error(dir.path());
    assert!(error.source().unwrap().to_string().contains("missing field `seed`"));
}

#[test]
fn another_format_is_refused_even_if_nothing_else_is_understood() {
    let dir = whole();
    fs::write(dir.path().join("dataset.json"), "{\"format\": 2, \"tables\": []}").unwrap();
    let message = "dataset.json: is of format 2, this program reads format 1";
    check(&open_error(dir.path()), dir.path(), message, "version of pfc that wrote it");
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    for (old, new, what) in [
        ("\"rows\": 30", "\"rows\": 31", "it counts 31 rows, its shards 30"),
        (SECOND, "../00001.arrow", "shard `../00001.arrow` is not a path inside the data set"),
        (SECOND, "/etc/passwd", "shard `/etc/passwd` is not a path inside the data set"),
        ("identities.arrow", "", "identities `` is not a path inside the data set"),
        ("\"width\": 8", "\"width\": 0", "images of 0x8 pixels"),
    ] {
        let dir = whole();
        edit_manifest(dir.path(), old, new);
        let message = format!("dataset.json: contradicts itself: {what}");
        check(&open_error(dir.path()), dir.path(), &message, "restore it");
    }
}

#[track_caller]
fn check_manifest(dir: &TempDir, manifest: &Manifest, what: &str) {
    fs::write(dir.path().join("dataset.json"), serde_json::to_vec(manifest).unwrap()).unwrap();
    let message = format!("dataset.json: contradicts itself: {what}");
    check(&open_error(dir.path()), dir.path(), &message, "restore it");
}

#[test]
fn shards_without_rows_or_of_more_than_their_bytes_can_hold_are_refused() {
    let dir = whole();
    let mut manifest = Manifest::read(dir.path()).unwrap();
    manifest.shards[0].rows = 0;
    check_manifest(&dir, &manifest, "shard `shards/00000.arrow` has no rows");
    let bytes = manifest.shards[0].bytes;
    manifest.shards = vec![ShardEntry { rows: 1 << 60, ..manifest.shards[1].clone() }];
    manifest.shards[0].bytes = bytes;
    manifest.rows = 1 << 60;
    let what = format!("shard `{SECOND}` has {} rows in {bytes} bytes", 1u64 << 60);
    check_manifest(&dir, &manifest, &what);
}

#[test]
fn rows_beyond_64_bits_are_refused() {
    let dir = whole();
    let mut manifest = Manifest::read(dir.path()).unwrap();
    let largest = ShardEntry { rows: 1 << 58, bytes: u64::MAX, ..manifest.shards[0].clone() };
    manifest.shards = vec![largest; 64];
    check_manifest(&dir, &manifest, "the rows of its shards exceed 2^64");
}

#[test]
fn a_missing_file_is_named() {
    for file in [SECOND, "identities.arrow"] {
        let dir = whole();
        fs::remove_file(dir.path().join(file)).unwrap();
        let message = format!("{file}: is missing, but the manifest lists it");
        check(&open_error(dir.path()), dir.path(), &message, "incomplete");
    }
}

#[test]
fn a_file_that_vanishes_after_opening_is_an_error_of_its_rows_alone() {
    let dir = whole();
    let dataset = Dataset::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join(SECOND)).unwrap();
    dataset.get(0).unwrap();
    let row = dataset.manifest().shards[0].rows;
    assert!(matches!(dataset.get(row), Err(ShardError::MissingFile { .. })));
    dataset.will_need(row);
}

#[test]
fn a_shortened_and_a_lengthened_file_are_named_with_both_sizes() {
    for (change, hint) in [(-1, "cut short"), (1, "pfc-ingest verify")] {
        let dir = whole();
        let path = dir.path().join(SECOND);
        let mut bytes = fs::read(&path).unwrap();
        let expected = bytes.len();
        let found = expected.wrapping_add_signed(change);
        bytes.resize(found, 0);
        fs::write(&path, bytes).unwrap();
        let message = format!("{SECOND}: has {found} bytes, but the manifest lists {expected}");
        check(&open_error(dir.path()), dir.path(), &message, hint);
    }
}

#[test]
fn changed_identities_are_found_by_their_checksum() {
    let dir = whole();
    let path = dir.path().join("identities.arrow");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"alice").unwrap();
    bytes[at] = b'A';
    fs::write(&path, bytes).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, ShardError::Checksum { .. }));
    assert!(error.to_string().contains("has checksum xxh3-128:"), "{error}");
    assert!(error.hint().unwrap().contains("pfc-ingest verify"));
}

#[test]
fn a_foreign_file_is_no_arrow_file() {
    let dir = whole();
    replace_listed(dir.path(), SECOND, b"PAR1 and nothing of ours, but long enough");
    let message = format!("{SECOND}: is not a whole Arrow file: it does not begin with `ARROW1`");
    check(&open_error(dir.path()), dir.path(), &message, "pfc-ingest verify");
}

#[test]
fn an_arrow_file_with_other_columns_is_named_with_both_schemas() {
    let dir = whole();
    let identities = fs::read(dir.path().join("identities.arrow")).unwrap();
    replace_listed(dir.path(), SECOND, &identities);
    let error = open_error(dir.path());
    assert!(matches!(error, ShardError::Schema { .. }));
    let message = error.to_string();
    assert!(message.contains("has the columns (label UInt32, names List"), "{message}");
    assert!(message.contains("expected (image Binary, label UInt32, source Utf8"), "{message}");
    assert!(error.hint().unwrap().contains("another program"));
}

#[test]
fn a_shard_of_another_format_is_refused() {
    let dir = whole();
    let mut bytes = fs::read(dir.path().join(SECOND)).unwrap();
    // The value beside the key `pfc.format`: in the schema message, and in the footer, which counts.
    let marks: Vec<usize> =
        (0..bytes.len() - 8).filter(|&i| bytes[i..i + 8] == *b"\x01\0\0\x001\0\0\0").collect();
    assert_eq!(marks.len(), 2);
    marks.into_iter().for_each(|i| bytes[i + 4] = b'9');
    replace_listed(dir.path(), SECOND, &bytes);
    let message = format!("{SECOND}: is of format 9, this program reads format 1");
    check(&open_error(dir.path()), dir.path(), &message, "version of pfc that wrote it");
}

#[test]
fn more_rows_than_listed_are_named() {
    let dir = whole();
    let first = fs::read(dir.path().join("shards/00000.arrow")).unwrap();
    let other = tempfile::tempdir().unwrap();
    write(other.path(), &rows(3), FOUR_ROWS);
    let three = fs::read(other.path().join("shards/00000.arrow")).unwrap();
    assert_ne!(first.len(), three.len());
    let rows = Manifest::read(dir.path()).unwrap().shards[0].rows;
    replace_listed(dir.path(), "shards/00000.arrow", &three);
    let message = format!("shards/00000.arrow: has 3 rows, but the manifest lists {rows}");
    check(&open_error(dir.path()), dir.path(), &message, "pfc-ingest verify");
}

/// A data set of three identities, one of whose shards is of another data set.
fn with_second_shard(face: impl Fn(&Row) -> Face<'_>, size: ImageSize) -> TempDir {
    let dir = whole();
    let n = Manifest::read(dir.path()).unwrap().shards[1].rows;
    let path = dir.path().join("other.arrow");
    let mut writer = ShardWriter::create(&path, ShardSpec { image_size: size }).unwrap();
    rows(n).iter().for_each(|row| assert!(writer.push(face(row)).is_ok()));
    assert_eq!((writer.len(), writer.is_empty()), (n, false));
    writer.finish().unwrap();
    replace_listed(dir.path(), SECOND, &fs::read(&path).unwrap());
    dir
}

#[test]
fn a_label_without_an_identity_is_named_with_its_row() {
    let dir = with_second_shard(
        |row| Face { label: if row.label == 2 { 3 } else { row.label }, ..row.face() },
        SIZE,
    );
    let message = format!("{SECOND}: row 2 has label 3, but the manifest lists 3 identities");
    check(&open_error(dir.path()), dir.path(), &message, "labels run from 0 to 2");
    let path = PathBuf::from("a");
    let error = ShardError::LabelOutOfRange { path, row: 0, label: 0, n_identities: 0 };
    assert_eq!(error.hint().unwrap(), "the data set has no identities");
}

#[test]
fn a_row_of_another_size_is_named() {
    let size = ImageSize { width: 8, height: 16 };
    let dir = with_second_shard(|row| Face { height: 16, ..row.face() }, size);
    let message = format!("{SECOND}: row 0 is 8x16 pixels, but images are 8x8");
    check(&open_error(dir.path()), dir.path(), &message, "one size: 8x8");
}

#[test]
fn a_row_beyond_the_last_is_an_error() {
    let dir = whole();
    let dataset = Dataset::open(dir.path()).unwrap();
    for row in [30, u64::MAX] {
        let error = dataset.get(row).unwrap_err();
        let message = format!("there is no row {row}: the data set has 30 rows");
        check(&error, dir.path(), &message, "rows run from 0 to 29");
    }
    assert_eq!(
        ShardError::NoSuchRow { row: 0, n_rows: 0 }.hint().unwrap(),
        "the data set is empty"
    );
}

#[test]
fn a_refused_row_leaves_the_writer_as_it_was() {
    let (dir, same) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rows = rows(2);
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    let (image, source) = (vec![0; IMAGE_BYTES_MAX + 1], "x".repeat(SOURCE_BYTES_MAX + 1));
    for row in &rows {
        let face = row.face();
        for bad in [
            Face { width: 9, ..face },
            Face { image: &image, ..face },
            Face { source: &source, ..face },
        ] {
            assert!(writer.push(bad).is_err());
        }
        writer.push(face).unwrap();
    }
    assert_eq!(writer.len(), 2);
    writer.finish(names()).unwrap();
    write(same.path(), &rows, FOUR_ROWS);
    assert_eq!(common::files(dir.path()), common::files(same.path()));
}

#[test]
fn refused_rows_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.arrow");
    let mut writer = ShardWriter::create(&path, ShardSpec { image_size: SIZE }).unwrap();
    let row = rows(1).remove(0);
    writer.push(row.face()).unwrap();
    let image = vec![0; IMAGE_BYTES_MAX + 1];
    let error = writer.push(Face { image: &image, ..row.face() }).unwrap_err();
    let message = "s.arrow: row 1 has an image of 16777217 bytes, the limit is 16777216";
    check(&error, dir.path(), message, "far smaller");
    let source = "x".repeat(SOURCE_BYTES_MAX + 1);
    let error = writer.push(Face { source: &source, ..row.face() }).unwrap_err();
    let message = "s.arrow: row 1 has a source of 65537 bytes, the limit is 65536";
    check(&error, dir.path(), message, "far smaller");
    let error = writer.push(Face { width: 9, ..row.face() }).unwrap_err();
    check(&error, dir.path(), "s.arrow: row 1 is 9x8 pixels, but images are 8x8", "one size");
}

#[test]
fn a_label_without_a_name_fails_the_writer_and_leaves_no_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    writer.push(Row { label: u32::MAX, ..rows(1).remove(0) }.face()).unwrap();
    let error = writer.finish(names()).unwrap_err();
    let message = format!(
        "{}: label 4294967295 is used, but only 3 identities are named",
        dir.path().display()
    );
    check(&error, Path::new("-"), &message, "name every label");
    assert!(Dataset::open(dir.path()).is_err());
}

#[test]
fn bad_names_fail_the_writer() {
    let mut nameless = names();
    nameless.push([""; 0]);
    let mut empty = names();
    empty.push(["dave", ""]);
    let mut again = names();
    again.push(["dave", "bob"]);
    let long: IdentityNames = ["x".repeat(5_000)].into_iter().collect();
    for (names, message) in [
        (nameless, "label 3 has no name or an empty one"),
        (empty, "label 3 has no name or an empty one"),
        (again, "labels 1 and 3 are both named `bob`"),
        (long, "label 0 has 1 names of up to 5000 bytes, the limits are 1024 and 4096"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
        let error = writer.finish(names).unwrap_err();
        let message = format!("identities.arrow: {message}");
        check(&error, dir.path(), &message, "a name of its own");
    }
}

#[test]
fn senseless_arguments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    for (spec, what) in [
        (spec(0), "shards of 0 bytes; allowed is 1 to 1073741824"),
        (spec(1 << 31), "shards of 2147483648 bytes; allowed is 1 to 1073741824"),
        (
            DatasetSpec { image_size: ImageSize { width: 112, height: 0 }, ..spec(1) },
            "images of 112x0 pixels",
        ),
    ] {
        let error = DatasetWriter::create(dir.path(), spec).unwrap_err();
        assert_eq!(error.to_string(), format!("{place}: cannot be written: {what}"));
        assert!(matches!(error, ShardError::BadSpec { .. }));
        assert_eq!(error.hint(), None);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DatasetWriter::create(&file.join("out"), spec(FOUR_ROWS)).unwrap_err();
    assert!(matches!(error, ShardError::Durable(_)), "{error}");
    assert!(error.source().is_some());
    let spec = ShardSpec { image_size: SIZE };
    let error = ShardWriter::create(&dir.path().join("no/s.arrow"), spec).unwrap_err();
    assert!(matches!(error, ShardError::Durable(_)));
    assert_eq!(error.to_string(), format!("{}/no/s.arrow: cannot create", dir.path().display()));
}

#[test]
fn a_shard_that_cannot_be_moved_into_place_leaves_no_litter() {
    let dir = tempfile::tempdir().unwrap();
    // A folder of the shard's name: renaming a file over it fails.
    fs::create_dir_all(dir.path().join("s.arrow/in the way")).unwrap();
    let path = dir.path().join("s.arrow");
    let mut writer = ShardWriter::create(&path, ShardSpec { image_size: SIZE }).unwrap();
    writer.push(rows(1)[0].face()).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(
        error.to_string().replace(&format!("{}/", dir.path().display()), ""),
        "s.arrow: cannot rename"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_writer_that_lost_a_shard_makes_no_data_set() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("shards/00001.arrow/in the way")).unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    let rows = rows(30);
    let failed = rows.iter().position(|row| writer.push(row.face()).is_err()).unwrap();
    assert!((5..12).contains(&failed), "{failed}");
    for row in &rows {
        let error = writer.push(row.face()).unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "an earlier write failed");
    }
    assert!(writer.finish(names()).is_err());
    assert!(Dataset::open(dir.path()).is_err());
}

#[test]
fn a_fault_of_the_arrow_library_keeps_its_reason() {
    let source = arrow_schema::ArrowError::SchemaError("no such column".into());
    let error = ShardError::Arrow { path: "s.arrow".into(), source };
    assert_eq!(error.to_string(), "s.arrow: cannot write");
    assert_eq!(error.source().unwrap().to_string(), "Schema error: no such column");
    assert_eq!(error.hint(), None);
}
