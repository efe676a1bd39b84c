//! Every data set of `golden/rec`, written by `MXNet` 1.9.1.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::{borrow::Cow, fs, path::Path};

use pfc_recordio::{
    FaceWriter, Header, Labels, Layout, Property, Record, RecordFile, RecordPaths, RecordWriter,
    Style,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A data set and what the manifest says of it.
struct Case {
    name: String,
    paths: RecordPaths,
    expected: Value,
}

impl Case {
    fn records(&self) -> &[Value] {
        self.expected["records_in_index_order"].as_array().unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.paths.rec.with_file_name(name)).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let Some(root) = pfc_testing::golden("rec") else { return Vec::new() };
    let manifest = root.join("manifest.json");
    if !pfc_testing::is_known(&manifest) {
        return Vec::new();
    }
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let files = manifest["files"].as_object().unwrap();
    for folder in pfc_testing::golden_cases("rec", Path::is_dir) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(files.contains_key(name), "{name} is not in the manifest");
    }
    let case = |(name, expected): (&String, &Value)| {
        let folder = root.join(name);
        if !pfc_testing::is_known(&folder.join("train.rec")) {
            return None;
        }
        let paths = RecordPaths::find(&folder).unwrap();
        Some(Case { name: name.clone(), paths, expected: expected.clone() })
    };
    files.iter().filter_map(case).collect()
}

/// `u64`s above 2^53 are whole in the manifest, too.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn labels(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The payload as MXNet packs it, built here from the fields alone.
fn payload(record: &Record<'_>) -> Vec<u8> {
    let (flag, scalar, array): (u32, f32, &[f32]) = match &record.header.labels {
        Labels::Scalar(label) => (0, *label, &[]),
        Labels::Array(labels) => (labels.len() as u32, 0.0, labels),
    };
    let mut bytes = [flag.to_le_bytes(), scalar.to_le_bytes()].concat();
    bytes.extend([record.header.id.to_le_bytes(), record.header.id2.to_le_bytes()].concat());
    array.iter().for_each(|label| bytes.extend(label.to_le_bytes()));
    bytes.extend(&record.image[..]);
    bytes
}

#[track_caller]
fn check(case: &str, record: &Record<'_>, expected: &Value) {
    let key = record.key;
    assert_eq!(record.offset, number(&expected["offset"]), "{case}: record {key}");
    assert_eq!(u64::from(record.header.flag()), number(&expected["flag"]), "{case}: record {key}");
    assert_eq!(record.header.labels.as_slice(), labels(&expected["labels"]), "{case}: {key}");
    assert_eq!(record.header.id, number(&expected["id"]), "{case}: record {key}");
    assert_eq!(record.header.id2, number(&expected["id2"]), "{case}: record {key}");
    assert_eq!(record.image.len() as u64, number(&expected["body_bytes"]), "{case}: record {key}");
    assert_eq!(sha256(&record.image), expected["body_sha256"], "{case}: record {key}");
    let payload = payload(record);
    assert_eq!(payload.len() as u64, number(&expected["payload_bytes"]), "{case}: record {key}");
    assert_eq!(sha256(&payload), expected["payload_sha256"], "{case}: record {key}");
    let n_parts = expected["parts"].as_array().unwrap().len();
    assert_eq!(matches!(record.image, Cow::Borrowed(_)), n_parts == 1, "{case}: record {key}");
}

#[test]
fn golden_records_are_read_through_the_index() {
    for case in cases() {
        let file = case.paths.open().unwrap();
        assert_eq!(file.n_records(), case.records().len() as u64, "{}", case.name);
        assert_eq!(file.notes(), [], "{}", case.name);
        for (record, expected) in file.records().zip(case.records()) {
            let record = record.unwrap();
            assert_eq!(record.key, number(&expected["key"]), "{}", case.name);
            check(&case.name, &record, expected);
            assert_eq!(file.by_key(record.key).unwrap(), Some(record));
        }
    }
}

#[test]
fn golden_records_are_read_without_an_index_and_keyed_by_their_ids() {
    for case in cases() {
        let file = RecordFile::open(&case.paths.rec, None).unwrap();
        assert_eq!(file.n_records(), case.records().len() as u64, "{}", case.name);
        for (record, expected) in file.records().zip(case.records()) {
            let record = record.unwrap();
            assert_eq!(record.key, record.header.id, "{}", case.name);
            check(&case.name, &record, expected);
        }
        let (salvaged, salvage) = RecordFile::salvage(&case.paths.rec).unwrap();
        assert_eq!((salvaged.n_records(), salvage.n_damaged), (file.n_records(), 0));
    }
}

/// What `MXFaceDataset` does, over the manifest: record 0 says how far the images go, if it is no
/// image itself.
fn images_by_the_reference(case: &Case) -> Vec<&Value> {
    let by_key = |key: u64| case.records().iter().find(|r| number(&r["key"]) == key);
    match by_key(0).filter(|r| number(&r["flag"]) > 0) {
        Some(header) => {
            let end = labels(&header["labels"])[0] as u64;
            (1..end).map(|key| by_key(key).unwrap()).collect()
        }
        None => case.records().iter().collect(),
    }
}

#[test]
fn golden_images_and_classes_are_those_of_the_reference() {
    for case in cases() {
        let file = case.paths.open().unwrap();
        let expected = images_by_the_reference(&case);
        assert_eq!(file.n_images(), expected.len() as u64, "{}", case.name);
        for (image, expected) in file.images().zip(expected) {
            let image = image.unwrap();
            assert_eq!(image.key, number(&expected["key"]), "{}", case.name);
            assert_eq!(image.label, labels(&expected["labels"])[0] as u64, "{}", case.name);
            assert_eq!(image.label_is_exact(), image.label < 16_777_216, "{}", case.name);
            assert_eq!(sha256(&image.image), expected["body_sha256"], "{}", case.name);
        }
    }
}

#[test]
fn golden_identity_records_hold_every_image_once_and_one_class_each() {
    for case in cases() {
        let file = case.paths.open().unwrap();
        let Layout::Identities { images, .. } = file.layout() else {
            assert_eq!(file.n_identities(), 0, "{}", case.name);
            continue;
        };
        let mut next_key = images.start;
        for (label, identity) in file.identities().enumerate() {
            let identity = identity.unwrap();
            assert!(identity.is_exact());
            for image in file.images_of(&identity) {
                let image = image.unwrap();
                assert_eq!((image.key, image.label), (next_key, label as u64), "{}", case.name);
                next_key += 1;
            }
        }
        assert_eq!(next_key, images.end, "{}", case.name);
        let property = Property::open(case.paths.property.as_ref().unwrap()).unwrap();
        assert_eq!(property.n_classes, file.n_identities(), "{}", case.name);
        assert_eq!((property.height, property.width), (112, 112), "{}", case.name);
    }
}

#[test]
fn golden_records_written_again_are_the_same_bytes() {
    let parent = tempfile::tempdir().unwrap();
    for case in cases() {
        let file = case.paths.open().unwrap();
        let dir = parent.path().join(&case.name);
        let mut writer = RecordWriter::create(&dir).unwrap();
        for record in file.records() {
            let Record { key, offset, header, image } = record.unwrap();
            assert_eq!(writer.write(key, &header, &image).unwrap(), offset);
        }
        let property = case.paths.property.as_ref().map(|path| Property::open(path).unwrap());
        writer.finish(property.as_ref()).unwrap();
        same_bytes(&case, &dir);
    }
}

#[track_caller]
fn same_bytes(case: &Case, dir: &Path) {
    let sha = sha256(&fs::read(dir.join("train.rec")).unwrap());
    assert_eq!(sha, case.expected["rec_sha256"], "{}", case.name);
    assert!(fs::read(dir.join("train.idx")).unwrap() == case.bytes("train.idx"), "{}", case.name);
    if case.paths.property.is_some() {
        let property = fs::read(dir.join("property")).unwrap();
        assert_eq!(property, case.bytes("property"), "{}", case.name);
    }
}

/// Whether the data set is one that `style` can write: its images have the keys and labels that
/// the style gives, and no ids of their own.
fn is_of_style(file: &RecordFile, style: Style) -> bool {
    let first_key = u64::from(style == Style::Identities);
    let has_style = |(key, record): (u64, Record<'_>)| {
        let array = match record.header.labels.as_slice() {
            [_, aligned] => *aligned == 1.0 && style == Style::Identities,
            labels => labels.len() == 1 && style == Style::Sequential,
        };
        let Header { id, id2, .. } = record.header;
        array && (record.key, id, id2) == (key, key, 0)
    };
    let keys = file.images().map(|image| image.unwrap().key);
    let records = keys.map(|key| file.by_key(key).unwrap().unwrap());
    (first_key..).zip(records).all(has_style)
        && (style == Style::Sequential) == (*file.layout() == Layout::Sequential)
}

#[test]
fn golden_faces_written_as_a_data_set_are_the_same_bytes() {
    let parent = tempfile::tempdir().unwrap();
    let (mut n_written, cases) = (0, cases());
    for (case, style) in
        cases.iter().flat_map(|case| [Style::Sequential, Style::Identities].map(|s| (case, s)))
    {
        let file = case.paths.open().unwrap();
        // Without `property` the data set holds other things than faces.
        if case.paths.property.is_none() || !is_of_style(&file, style) {
            continue;
        }
        let dir = parent.path().join(&case.name);
        let mut writer = FaceWriter::create(&dir, style, 112, 112).unwrap();
        for image in file.images() {
            let image = image.unwrap();
            writer.push(image.label, &image.image).unwrap();
        }
        writer.finish().unwrap();
        same_bytes(case, &dir);
        n_written += 1;
    }
    assert!(cases.is_empty() || n_written >= 2, "no data set of one of the styles");
}
