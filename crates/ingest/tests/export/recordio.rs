//! `--to recordio`: the layout of InsightFace's files, byte by byte, and read back.

use std::{fs, path::Path};

use pfc_recordio::{Header, Layout, RecordPaths};

use crate::{
    common::{Bench, stderr},
    sets::{images, made, numbered, synthetic},
};

/// A record read without our reader: its header's words and labels, and the body.
fn record(rec: &[u8], offset: usize) -> ([u32; 6], Vec<f32>, Vec<u8>) {
    let word = |at: usize| u32::from_le_bytes(rec[at..at + 4].try_into().unwrap());
    assert_eq!(word(offset), 0xced7_230a);
    // The top bits are 0: no part of a split record.
    let (length, begin) = (word(offset + 4) as usize, offset + 8);
    let header = std::array::from_fn(|i| word(begin + 4 * i));
    let n_labels = header[0] as usize;
    let label = |i| f32::from_bits(word(begin + 24 + 4 * i));
    let body = rec[begin + 24 + 4 * n_labels..begin + length].to_vec();
    (header, (0..n_labels).map(label).collect(), body)
}

/// Keys and offsets of an index, read without our reader.
fn index(bench: &Bench, path: &str) -> Vec<(u64, usize)> {
    let text = fs::read_to_string(bench.path(path)).unwrap();
    let line = |line: &str| {
        let (key, offset) = line.split_once('\t').unwrap();
        (key.parse().unwrap(), offset.parse().unwrap())
    };
    text.lines().map(line).collect()
}

fn three_people() -> Bench {
    made(&["a", "b", "none", "d"], &[(3, "1.jpg"), (0, "1.jpg"), (1, "1.jpg"), (0, "2.jpg")])
}

#[test]
fn images_identities_and_record_0_are_laid_out_as_face2rec2_does() {
    let bench = three_people();
    bench.run("export data rec --to recordio").success();
    let rec = fs::read(bench.path("rec/train.rec")).unwrap();
    let index = index(&bench, "rec/train.idx");
    assert_eq!(index.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 0]);
    // (labels, image) of every key: class and 1 for images, the range of keys for identities.
    let expected: [(&[f32], Option<u8>); 8] = [
        (&[0.0, 1.0], Some(1)),
        (&[0.0, 1.0], Some(3)),
        (&[1.0, 1.0], Some(2)),
        (&[3.0, 1.0], Some(0)),
        (&[1.0, 3.0], None),
        (&[3.0, 4.0], None),
        (&[4.0, 5.0], None),
        (&[5.0, 8.0], None),
    ];
    for ((key, offset), (labels, image)) in index.iter().zip(expected) {
        let (header, found, body) = record(&rec, *offset);
        assert_eq!(header, [2, 0, *key as u32, 0, 0, 0], "key {key}");
        assert_eq!(found, labels, "key {key}");
        assert_eq!(body, image.map(numbered).unwrap_or_default(), "key {key}");
    }
    assert_eq!(fs::read_to_string(bench.path("rec/property")).unwrap().trim_end(), "4,112,112");
    let names = fs::read_to_string(bench.path("rec/identities.tsv")).unwrap();
    assert_eq!(names, "0\ta\n1\tb\n3\td\n");
}

#[test]
fn a_sequential_file_has_scalar_labels_and_the_order_of_the_rows() {
    let bench = three_people();
    bench.run("export data rec --to recordio --sequential").success();
    let rec = fs::read(bench.path("rec/train.rec")).unwrap();
    let index = index(&bench, "rec/train.idx");
    let expected = [(3.0f32, 0), (0.0, 1), (1.0, 2), (0.0, 3)];
    assert_eq!(index.len(), expected.len());
    for ((key, offset), (label, image)) in index.iter().zip(expected) {
        let (header, labels, body) = record(&rec, *offset);
        assert_eq!((header[0], header[1], labels), (0, label.to_bits(), vec![]), "key {key}");
        assert_eq!(body, numbered(image), "key {key}");
    }
}

#[test]
fn records_come_back_with_their_classes_and_bytes() {
    let bench = synthetic();
    let summary = bench.json("export data rec --to recordio --json");
    assert_eq!((&summary["images"], &summary["files"]), (&40.into(), &4.into()));
    let file = RecordPaths::find(&bench.path("rec")).unwrap().open().unwrap();
    let read = file.images().map(Result::unwrap).map(|face| (face.image.to_vec(), face.label));
    let packed = images(&bench.dataset("data")).into_iter();
    let packed = packed.map(|(image, (label, _))| (image, u64::from(label)));
    let (mut read, mut packed) = (read.collect::<Vec<_>>(), packed.collect::<Vec<_>>());
    read.sort();
    packed.sort();
    assert!(read == packed);
}

/// The options that write a file as the one in `folder` was, if there are any: images in the order of
/// dense classes, all with identity records and two labels, or all with one label and keys from 0.
fn options_of(folder: &Path) -> Option<&'static str> {
    let file = RecordPaths::find(folder)?.open().ok()?;
    let faces: Option<Vec<_>> = file.images().map(Result::ok).collect();
    let faces =
        faces.filter(|faces| faces.iter().all(|face| face.image.starts_with(b"\xff\xd8")))?;
    let mut classes: Vec<u64> = faces.iter().map(|face| face.label).collect();
    let is_sorted = classes.is_sorted();
    classes.dedup();
    if !is_sorted || !classes.iter().copied().eq(0..classes.len() as u64) {
        return None;
    }
    let all = |header: fn(f32, u64) -> Header| {
        faces.iter().all(|face| {
            let record = file.by_key(face.key).unwrap().unwrap();
            record.header == header(face.label as f32, face.key)
        })
    };
    let has_identities = matches!(file.layout(), Layout::Identities { .. });
    match has_identities {
        true if all(|class, key| Header::array([class, 1.0], key)) => Some(""),
        false if all(Header::scalar) && faces[0].key == 0 => Some("--sequential --order label"),
        _ => None,
    }
}

#[test]
fn golden_files_come_out_of_a_data_set_byte_for_byte_as_mxnet_wrote_them() {
    let folders = pfc_testing::golden_cases("rec", |path| options_of(path).is_some());
    for folder in folders {
        let options = options_of(&folder).unwrap();
        println!("compared: {} {options}", folder.display());
        let bench = Bench::new();
        bench.run(&format!("pack {} data --order source", folder.display())).success();
        bench.run(&format!("export data rec --to recordio {options}")).success();
        for name in ["train.rec", "train.idx", "property"] {
            let theirs = folder.join(name);
            if theirs.exists() {
                let ours = bench.path("rec").join(name);
                assert!(fs::read(ours).unwrap() == fs::read(&theirs).unwrap(), "{theirs:?}");
            }
        }
    }
}

#[test]
fn a_folder_that_holds_records_is_not_overwritten() {
    let bench = synthetic();
    bench.run("export data rec --to recordio --identity Person_000000").success();
    let before = bench.tree("rec");
    let run = bench.run("export data rec --to recordio").code(2);
    assert!(stderr(&run).contains("rec: already exists and is not empty"));
    assert!(bench.tree("rec") == before);
}
