//! What the writer wrote, the reader gives back.

#![allow(clippy::unwrap_used)] // helpers of tests may

use pfc_recordio::{
    FaceWriter, Header, Labels, MAGIC, Record, RecordFile, RecordPaths, RecordWriter, Style,
};
use proptest::prelude::*;

/// Bytes in which the magic is frequent, at every alignment.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(MAGIC.to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
        Just(vec![0; 4])
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn number() -> impl Strategy<Value = u64> {
    let magic = u64::from(u32::from_le_bytes(MAGIC));
    // Without 0: read by id, a record 0 of some labels and no image must announce identities.
    prop_oneof![1_u64.., 1..10_u64, Just(magic), Just(magic << 32)]
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = prop_oneof![-1e9_f32..1e9, Just(f32::from_le_bytes(MAGIC))];
    prop_oneof![
        label.clone().prop_map(Labels::Scalar),
        prop::collection::vec(label, 1..5).prop_map(Labels::Array)
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (labels(), number(), number()).prop_map(|(labels, id, id2)| Header { labels, id, id2 })
}

proptest! {
    #[test]
    fn any_records_come_back(
        records in prop::collection::btree_map(1_u64.., (header(), bytes()), 0..8)
    ) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("out");
        let mut writer = RecordWriter::create(&dir).unwrap();
        let mut expected = Vec::new();
        // Descending keys: the order of the index is not that of the keys.
        for (key, (header, image)) in records.into_iter().rev() {
            let offset = writer.write(key, &header, &image).unwrap();
            expected.push(Record { key, offset, header, image: image.into() });
        }
        writer.finish(None).unwrap();

        let file = RecordPaths::find(&dir).unwrap().open().unwrap();
        let found: Vec<_> = file.records().map(Result::unwrap).collect();
        prop_assert_eq!(&found, &expected);
        for record in &expected {
            let found = file.by_key(record.key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(record));
        }
        let scanned = RecordFile::salvage(&dir.join("train.rec")).unwrap();
        prop_assert_eq!((scanned.0.n_records(), scanned.1.n_damaged), (expected.len() as u64, 0));
        for (record, expected) in scanned.0.records().map(Result::unwrap).zip(&expected) {
            prop_assert_eq!((record.offset, record.header), (expected.offset, expected.header.clone()));
            prop_assert_eq!(&record.image, &expected.image);
        }
    }

    #[test]
    fn any_faces_come_back_in_both_styles(
        classes in prop::collection::btree_map(0..1_u64 << 24, prop::collection::vec(bytes(), 1..4), 0..5)
    ) {
        let faces: Vec<(u64, &[u8])> = classes
            .iter()
            .flat_map(|(label, images)| images.iter().map(|image| (*label, &image[..])))
            .collect();
        for style in [Style::Sequential, Style::Identities] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("out");
            let mut writer = FaceWriter::create(&dir, style, 112, 112).unwrap();
            for (label, image) in &faces {
                writer.push(*label, image).unwrap();
            }
            writer.finish().unwrap();
            for idx in [None, Some(dir.join("train.idx"))] {
                let file = RecordFile::open(&dir.join("train.rec"), idx.as_deref()).unwrap();
                let found: Vec<_> = file.images().map(Result::unwrap).collect();
                let found: Vec<_> = found.iter().map(|face| (face.label, &face.image[..])).collect();
                prop_assert_eq!(&found, &faces);
                prop_assert_eq!(file.notes(), []);
                if style == Style::Identities {
                    prop_assert_eq!(file.n_identities(), classes.len() as u64);
                    for (identity, images) in file.identities().zip(classes.values()) {
                        let found = file.images_of(&identity.unwrap()).map(|face| face.unwrap().image.into_owned());
                        prop_assert!(found.eq(images.iter().cloned()));
                    }
                }
            }
        }
    }
}

#[test]
fn threads_share_a_file() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("out");
    let mut writer = FaceWriter::create(&dir, Style::Sequential, 112, 112).unwrap();
    for label in 0..100 {
        writer.push(label, format!("image {label}").as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    let file = RecordPaths::find(&dir).unwrap().open().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for position in 0..100 {
                    let face = file.image(position).unwrap();
                    assert_eq!(face.image, format!("image {position}").as_bytes());
                }
            });
        }
    });
}
