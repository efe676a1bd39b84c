//! The same images opened for themselves from every kind of collection, some or all without an identity.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, sync::Arc};

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use pfc_binpack::{Dialect, PackWriter};
use pfc_recordio::{Header, RecordWriter};
use pfc_sources::{InOrder, InputOptions, open, open_images};

/// The bytes of image `i`, which nobody decodes here.
fn image(i: u8) -> Vec<u8> {
    [&b"\xff\xd8\xff\xe0"[..], &[i; 100]].concat()
}

const N: u8 = 6;

/// Labels of which only the second and the fifth are some.
const LABELS: [i64; N as usize] = [-1, 7, -1, -1, 3, -1];

fn tar(labels: Option<[i64; N as usize]>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: String, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for i in 0..N {
        add(format!("{i}.jpg"), &image(i));
        if let Some(labels) = labels {
            add(format!("{i}.cls"), labels[usize::from(i)].to_string().as_bytes());
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn batch(labels: Option<[i64; N as usize]>) -> RecordBatch {
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..N).map(image)));
    let mut columns = vec![("image", images)];
    if let Some(labels) = labels {
        let labels: ArrayRef = Arc::new(Int64Array::from(labels.to_vec()));
        columns.push(("label", labels));
    }
    let field =
        |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<Field>>());
    assert_eq!(schema.field(0).data_type(), &DataType::Binary);
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, c)| c).collect()).unwrap()
}

fn write_tables(dir: &Path, stem: &str, labels: Option<[i64; N as usize]>) {
    let batch = batch(labels);
    let file = fs::File::create(dir.join(format!("{stem}.parquet"))).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let file = fs::File::create(dir.join(format!("{stem}.arrow"))).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

fn write_all(dir: &Path) {
    fs::create_dir_all(dir.join("loose")).unwrap();
    let (mut paths, mut labelled) = (String::new(), String::new());
    let mut records = RecordWriter::create(&dir.join("some.rec")).unwrap();
    let mut pack = PackWriter::new(Vec::new(), Dialect::Any).unwrap();
    for i in 0..N {
        fs::write(dir.join(format!("loose/{i}.jpg")), image(i)).unwrap();
        let label = LABELS[usize::from(i)];
        paths += &format!("{i}.jpg\n");
        labelled += &format!("{i}.jpg\t{label}\n");
        let key = u64::from(i);
        records.write(key, &Header::scalar(label as f32, key), &image(i)).unwrap();
    }
    for i in (0..N).step_by(2) {
        pack.push([&image(i)[..], &image(i + 1)], false).unwrap();
    }
    records.finish(None).unwrap();
    fs::write(dir.join("loose/paths.txt"), paths).unwrap();
    fs::write(dir.join("loose/some.tsv"), labelled).unwrap();
    fs::write(dir.join("pairs.bin"), pack.finish().unwrap()).unwrap();
    fs::write(dir.join("none.tar"), tar(None)).unwrap();
    fs::write(dir.join("none.tar.gz"), gzip(&tar(None))).unwrap();
    fs::write(dir.join("some.tar"), tar(Some(LABELS))).unwrap();
    fs::write(dir.join("some.tar.gz"), gzip(&tar(Some(LABELS)))).unwrap();
    write_tables(dir, "none", None);
    write_tables(dir, "some", Some(LABELS));
}

/// The images in their order, and whose they are.
fn all(images: &InOrder) -> Vec<(Vec<u8>, Option<u32>)> {
    let source = images.source();
    let one = |i| {
        let entry = images.entry(i);
        (source.read(entry).unwrap(), source.index().who(entry))
    };
    (0..images.len()).map(one).collect()
}

#[test]
fn images_without_an_identity_are_the_same_in_every_container() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let expected: Vec<Vec<u8>> = (0..N).map(image).collect();
    let options = InputOptions::default();
    for (name, whose) in [
        ("loose", [None; 6]),
        ("loose/paths.txt", [None; 6]),
        ("loose/some.tsv", [None, Some(1), None, None, Some(0), None]),
        ("some.rec", [None, Some(1), None, None, Some(0), None]),
        ("pairs.bin", [0, 1, 2, 3, 4, 5].map(Some)),
        ("none.tar", [None; 6]),
        ("none.tar.gz", [None; 6]),
        ("none.parquet", [None; 6]),
        ("none.arrow", [None; 6]),
        ("some.tar", [None, Some(1), None, None, Some(0), None]),
        ("some.tar.gz", [None, Some(1), None, None, Some(0), None]),
        ("some.parquet", [None, Some(1), None, None, Some(0), None]),
        ("some.arrow", [None, Some(1), None, None, Some(0), None]),
    ] {
        let images = open_images(&dir.path().join(name), &options, dir.path(), true);
        let found = all(&images.unwrap_or_else(|error| panic!("{name}: {error}")));
        let (images, labels): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        assert!(images == expected, "{name}");
        assert_eq!(labels, whose, "{name}");
    }
}

#[test]
fn a_data_set_is_made_of_those_with_an_identity_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let options = InputOptions::default();
    for name in
        ["loose/some.tsv", "some.rec", "some.tar", "some.tar.gz", "some.parquet", "some.arrow"]
    {
        let source = open(&dir.path().join(name), &options, dir.path(), true).unwrap();
        let images: Vec<Vec<u8>> = (0..2).map(|entry| source.read(entry).unwrap()).collect();
        assert_eq!((source.index().len(), images), (2, vec![image(4), image(1)]), "{name}");
        let left_out = source.left_out().iter();
        assert_eq!(left_out.filter(|l| l.reject.reason() == "no_label").count(), 4, "{name}");
    }
    for name in ["loose", "loose/paths.txt", "none.tar", "none.tar.gz", "none.parquet"] {
        let error = open(&dir.path().join(name), &options, dir.path(), true).err().unwrap();
        assert!(error.hint().is_some(), "{name}: {error}");
    }
}

#[test]
fn archives_and_data_sets_of_other_programs_give_all_their_images() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo");
    let scratch = tempfile::tempdir().unwrap();
    let images = |name: &str| {
        let options = InputOptions::default();
        let images = open_images(&zoo.join(name), &options, scratch.path(), true);
        let mut found = all(&images.unwrap_or_else(|error| panic!("{name}: {error}")));
        found.sort();
        found
    };
    let expected = images("faces");
    assert_eq!(expected.len(), 7);
    for name in [
        "stored.zip",
        "wrapped.zip",
        "faces.tar",
        "faces.tar.xz",
        "label.lmdb",
        "numbered.lmdb",
        "arcface.tfrecord",
        "mds",
        "litdata",
        "struct.parquet",
    ] {
        assert!(images(name) == expected, "{name}");
    }
}
