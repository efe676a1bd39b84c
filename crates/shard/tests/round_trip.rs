//! What is written is what is read, and the same rows are the same bytes.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{FOUR_ROWS, NAMES, Row, SIZE, files, names, rows, spec, write};
use pfc_shard::{
    Checksum, DEFAULT_SHARD_BYTES, Dataset, DatasetWriter, EpochOrder, Face, IdentityNames,
    Manifest, Quality, Shard, ShardSpec, ShardWriter, hash::content_hash, verify,
};
use proptest::prelude::*;

#[track_caller]
fn check_equal(dataset: &Dataset, rows: &[Row]) {
    assert_eq!(dataset.len(), rows.len() as u64);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(dataset.get(i as u64).unwrap(), row.face(), "row {i}");
    }
}

#[test]
fn rows_come_back_in_order_across_shards() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(30);
    let manifest = write(dir.path(), &rows, FOUR_ROWS);
    assert!((4..15).contains(&manifest.shards.len()), "{manifest:?}");
    let dataset = Dataset::open(dir.path()).unwrap();
    check_equal(&dataset, &rows);
    dataset.preload().unwrap();
    check_equal(&dataset, &rows);
    (0..31).for_each(|row| dataset.will_need(row));
    assert_eq!(dataset.manifest(), &manifest);
}

#[test]
fn the_manifest_says_what_was_written_and_by_what() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = write(dir.path(), &rows(30), FOUR_ROWS);
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    assert_eq!((manifest.rows, manifest.n_identities, manifest.image_size), (30, 3, SIZE));
    assert_eq!((manifest.seed, manifest.tool.as_str()), (7, "test 1.0"));
    for shard in &manifest.shards {
        let bytes = fs::read(dir.path().join(&shard.file)).unwrap();
        assert_eq!(shard.bytes, bytes.len() as u64);
        assert_eq!(shard.checksum, Checksum(content_hash(&bytes)));
        assert!(bytes.len() as u64 <= FOUR_ROWS + 4_096, "{} bytes", bytes.len());
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(a.path(), &rows(30), FOUR_ROWS);
    write(b.path(), &rows(30), FOUR_ROWS);
    assert_eq!(files(a.path()), files(b.path()));
}

#[test]
fn images_are_borrowed_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(8), DEFAULT_SHARD_BYTES);
    let shard = Shard::open(&dir.path().join("shards/00000.arrow")).unwrap();
    let addresses = |row| shard.get(row).unwrap().image.as_ptr_range();
    // One after the other without a gap, as in the file, in every reading.
    assert_eq!(addresses(0).end, addresses(1).start);
    assert_eq!(addresses(3), addresses(3));
}

#[test]
fn many_record_batches_read_as_one_shard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.arrow");
    let mut writer = ShardWriter::create(&path, ShardSpec { image_size: SIZE }).unwrap();
    let image = vec![9; 5 << 20];
    for label in 0..10 {
        let face = Face { hash: 1, ..Face::new(&image, label, "", SIZE, Quality::default()) };
        assert_eq!(writer.push(face).unwrap(), u64::from(label));
    }
    let entry = writer.finish().unwrap();
    assert_eq!((entry.file.as_str(), entry.rows), ("s.arrow", 10));
    let shard = Shard::open(&path).unwrap();
    assert_eq!(shard.len(), 10);
    for row in 0..10 {
        let face = shard.get(row).unwrap();
        assert_eq!((u64::from(face.label), face.image.len(), face.hash), (row, 5 << 20, 1));
    }
    assert_eq!(shard.get(10), None);
}

#[test]
fn identities_have_names_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    rows(31).iter().for_each(|row| assert!(writer.push(row.face()).is_ok()));
    let mut names = names();
    names.push(["dave", "david"]);
    writer.finish(names).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    let identities = dataset.identities();
    assert_eq!((identities.len(), dataset.n_identities()), (4, 4));
    let all: Vec<(&str, u64)> =
        (0..4).map(|label| (identities.name(label), identities.n_images(label))).collect();
    assert_eq!(all, [("alice", 11), ("bob", 10), ("carol", 10), ("dave", 0)]);
    assert_eq!(identities.names(3).collect::<Vec<_>>(), ["dave", "david"]);
    for (name, label) in [("alice", Some(0)), ("carol", Some(2)), ("david", Some(3)), ("da", None)]
    {
        assert_eq!(identities.label_of(name), label, "{name}");
    }
}

#[test]
fn a_hundred_thousand_identities_are_found_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let names: IdentityNames = (0..100_000).map(|i| format!("m.{:x}", i ^ 0x5a5a)).collect();
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    writer.push(Row { label: 99_999, ..rows(1).remove(0) }.face()).unwrap();
    writer.finish(names).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    for label in (0..100_000).step_by(997).chain([65_535, 65_536, 99_999]) {
        let name = format!("m.{:x}", label ^ 0x5a5a);
        assert_eq!(dataset.identities().name(label), name);
        assert_eq!(dataset.identities().label_of(&name), Some(label));
    }
    assert_eq!(dataset.identities().n_images(99_999), 1);
}

#[test]
fn a_data_set_without_rows_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    assert!(writer.is_empty());
    writer.finish(IdentityNames::default()).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    assert!(dataset.is_empty() && dataset.identities().is_empty());
    assert_eq!(dataset.identities().label_of("alice"), None);
    assert!(verify(dir.path(), |_| ()).unwrap().is_clean());
}

#[test]
fn an_unfinished_data_set_is_none_and_is_taken_over_by_the_next_writer() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = DatasetWriter::create(dir.path(), spec(FOUR_ROWS)).unwrap();
    rows(30).iter().for_each(|row| assert!(writer.push(row.face()).is_ok()));
    assert!(dir.path().join("shards/00002.arrow").exists());
    drop(writer);
    fs::write(dir.path().join("shards/.00000.arrow.abcdef.tmp"), "half").unwrap();
    assert!(Dataset::open(dir.path()).is_err());
    write(dir.path(), &rows(4), FOUR_ROWS);
    write(fresh.path(), &rows(4), FOUR_ROWS);
    assert_eq!(files(dir.path()), files(fresh.path()));
}

#[test]
fn an_epoch_is_read_and_decoded_by_many_threads_from_one_data_set() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(30), FOUR_ROWS);
    let dataset = Dataset::open(dir.path()).unwrap();
    let order = EpochOrder::new(dataset.len(), dataset.manifest().seed, 0);
    let read = |rank| {
        let mut pixels = vec![0; SIZE.rgb_bytes()];
        let mut counts = [0; 3];
        for place in order.share(0, rank, 4) {
            let face = dataset.get(place.row).unwrap();
            pfc_image::decode_rgb(face.image, face.size(), &mut pixels).unwrap();
            counts[face.label as usize] += 1;
        }
        counts
    };
    let counts: Vec<[u32; 3]> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..4).map(|rank| scope.spawn(move || read(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let sum = |i: usize| counts.iter().map(|c| c[i]).sum::<u32>();
    assert_eq!([sum(0), sum(1), sum(2)], [10; 3]);
}

fn any_row() -> impl Strategy<Value = Row> {
    let image = prop::collection::vec(any::<u8>(), 0..2_000);
    let quality = (-1e6f32..1e6, -1e6f32..1e6, -1e6f32..1e6);
    (image, 0u32..3, ".{0,40}", quality).prop_map(|(image, label, source, q)| Row {
        image,
        label,
        source,
        quality: Quality { sharpness: q.0, brightness: q.1, contrast: q.2 },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rows_come_back(rows in prop::collection::vec(any_row(), 0..40), shard_bytes in 1u64..20_000) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &rows, shard_bytes);
        let dataset = Dataset::open(dir.path()).unwrap();
        check_equal(&dataset, &rows);
        let count = |label| rows.iter().filter(|row| row.label == label).count() as u64;
        for (label, name) in (0..).zip(NAMES) {
            prop_assert_eq!(dataset.identities().n_images(label), count(label));
            prop_assert_eq!(dataset.identities().label_of(name), Some(label));
        }
    }
}
