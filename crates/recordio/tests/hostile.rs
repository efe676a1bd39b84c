//! Whatever the bytes are, there are records or an error that says where.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::fs;

use pfc_recordio::{Fault, Header, Layout, Note, RecordError, RecordFile, RecordWriter};
use proptest::prelude::*;

/// A small data set of the identity layout: a split record, an empty image, padding of every length.
fn small() -> (Vec<u8>, Vec<u8>) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("out");
    let mut writer = RecordWriter::create(&dir).unwrap();
    let images: [&[u8]; 5] = [b"abc", b"", b"1234\x0a\x23\xd7\xce5678", b"x", b"no"];
    for (key, image) in (1..).zip(images) {
        writer.write(key, &Header::array([(key / 3) as f32, 1.0], key), image).unwrap();
    }
    writer.write(6, &Header::array([1.0, 3.0], 6), b"").unwrap();
    writer.write(7, &Header::array([3.0, 6.0], 7), b"").unwrap();
    writer.write(0, &Header::array([6.0, 8.0], 0), b"").unwrap();
    writer.finish(None).unwrap();
    ["train.rec", "train.idx"].map(|name| fs::read(dir.join(name)).unwrap()).into()
}

/// Reads all there is in every way; the errors, those of opening included.
fn read_all(rec: &[u8], idx: Option<&[u8]>) -> Vec<RecordError> {
    let file = match RecordFile::from_bytes(rec.to_vec(), idx) {
        Ok(file) => file,
        Err(error) => return vec![error],
    };
    let mut errors: Vec<RecordError> = file.records().filter_map(Result::err).collect();
    errors.extend(file.images().filter_map(Result::err));
    for identity in file.identities() {
        match identity {
            Ok(identity) => errors.extend(file.images_of(&identity).filter_map(Result::err)),
            Err(error) => errors.push(error),
        }
    }
    for error in &errors {
        let (message, _) = (error.to_string(), error.hint());
        assert!(message.contains("byte "), "{message}");
    }
    errors
}

/// Where the file is said to be damaged.
fn offset(error: &RecordError) -> u64 {
    match error {
        RecordError::Damaged { offset, .. }
        | RecordError::IndexOffset { offset, .. }
        | RecordError::BadLabel { offset, .. }
        | RecordError::BadRange { offset, .. } => *offset,
        other => panic!("{other}"),
    }
}

#[test]
fn the_small_file_is_whole() {
    let (rec, idx) = small();
    assert!(read_all(&rec, None).is_empty());
    assert!(read_all(&rec, Some(&idx)).is_empty());
    let file = RecordFile::from_bytes(rec, Some(&idx)).unwrap();
    assert_eq!((file.n_images(), file.n_identities(), file.notes()), (5, 2, &[][..]));
    let classes: Vec<u64> = file.images().map(|image| image.unwrap().label).collect();
    assert_eq!(classes, [0, 0, 1, 1, 1]);
}

#[test]
fn every_truncation_is_an_error_at_the_cut_unless_it_is_between_records() {
    let (rec, idx) = small();
    let whole = RecordFile::from_bytes(rec.clone(), Some(&idx)).unwrap();
    let starts: Vec<u64> = whole.records().map(|record| record.unwrap().offset).collect();
    for cut in 0..rec.len() {
        let begun = starts.iter().rev().find(|start| **start <= cut as u64).unwrap();
        let errors = read_all(&rec[..cut], None);
        if *begun == cut as u64 {
            assert!(errors.is_empty(), "cut at {cut}: {errors:?}");
        } else {
            let at = offset(&errors[0]);
            assert!((*begun..=cut as u64).contains(&at), "cut at {cut}: {}", errors[0]);
            assert!(errors[0].hint().unwrap().contains("cut short"), "{:?}", errors[0].hint());
        }
        // The index points beyond a cut before the last record.
        let errors = read_all(&rec[..cut], Some(&idx));
        assert!(errors.iter().all(|error| offset(error) <= starts[7]), "cut at {cut}");
        assert!(!errors.is_empty(), "cut at {cut}");
    }
}

/// Offsets of the bytes of all frames, headers and labels.
fn structure(rec: &[u8]) -> Vec<usize> {
    let parts = (0..rec.len()).step_by(4).filter(|at| rec[*at..].starts_with(&pfc_recordio::MAGIC));
    let mut offsets: Vec<usize> = parts.flat_map(|at| at..(at + 40).min(rec.len())).collect();
    offsets.dedup();
    offsets
}

#[test]
fn every_flipped_bit_of_a_header_gives_records_or_an_error_that_names_the_offset() {
    let (rec, idx) = small();
    for at in structure(&rec) {
        for bit in 0..8 {
            let mut rec = rec.clone();
            rec[at] ^= 1 << bit;
            for idx in [None, Some(&idx[..])] {
                for error in read_all(&rec, idx) {
                    assert!(offset(&error) <= rec.len() as u64, "byte {at}, bit {bit}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_a_magic_is_reported_where_it_is() {
    let (rec, idx) = small();
    let parts = (0..rec.len()).step_by(4).filter(|at| rec[*at..].starts_with(&pfc_recordio::MAGIC));
    for at in parts.flat_map(|at| at..at + 4) {
        let mut rec = rec.clone();
        rec[at] ^= 0x10;
        for idx in [None, Some(&idx[..])] {
            let errors = read_all(&rec, idx);
            assert_eq!(offset(&errors[0]), at as u64 / 4 * 4, "{}", errors[0]);
        }
    }
}

#[test]
fn a_salvage_loses_only_the_damaged_record() {
    let (rec, _) = small();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    let whole = RecordFile::from_bytes(rec.clone(), None).unwrap();
    for damaged in whole.records().map(Result::unwrap) {
        let mut rec = rec.clone();
        rec[damaged.offset as usize] ^= 1;
        fs::write(&path, &rec).unwrap();
        let (file, salvage) = RecordFile::salvage(&path).unwrap();
        let found: Vec<_> = file.records().map(|record| record.unwrap()).collect();
        let rest: Vec<_> =
            whole.records().map(Result::unwrap).filter(|r| r.key != damaged.key).collect();
        assert_eq!(found, rest);
        assert_eq!((salvage.n_damaged, salvage.damage[0].from), (1, damaged.offset));
        assert_eq!(salvage.bytes_lost, salvage.damage[0].resumes_at - damaged.offset);
    }
}

#[test]
fn a_salvage_counts_more_damage_than_it_lists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    // Frames of payloads too short for a header.
    let short = [&pfc_recordio::MAGIC[..], &[4, 0, 0, 0], b"abcd"].concat();
    fs::write(&path, short.repeat(1500)).unwrap();
    let (file, salvage) = RecordFile::salvage(&path).unwrap();
    assert_eq!((file.n_records(), salvage.n_damaged, salvage.bytes_lost), (0, 1500, 18_000));
    assert_eq!(salvage.damage.len(), pfc_recordio::Salvage::DAMAGE_MAX);
    assert_eq!(salvage.damage[1].fault, Fault::NoHeader { bytes: 4 });
}

#[test]
fn a_file_of_something_else_is_said_to_be_no_recordio() {
    let error = RecordFile::from_bytes(b"\x89PNG\r\n\x1a\n".to_vec(), None).unwrap_err();
    assert!(error.to_string().starts_with("memory.rec: byte 0: no record begins here"), "{error}");
    assert!(error.hint().unwrap().contains("no RecordIO file"));
}

#[test]
fn an_index_of_another_file_is_an_error_at_its_offset() {
    let (rec, _) = small();
    let errors = read_all(&rec, Some(b"1\t4\n"));
    assert_eq!(offset(&errors[0]), 4);
}

#[test]
fn an_index_that_stops_early_is_noted() {
    let (rec, idx) = small();
    let lines: Vec<&[u8]> = idx.split_inclusive(|byte| *byte == b'\n').collect();
    let file = RecordFile::from_bytes(rec.clone(), Some(&lines[..1].concat())).unwrap();
    let bytes = rec.len() as u64 - 44;
    assert_eq!(file.notes(), [Note::NotIndexed { offset: 44, bytes }]);
    let file = RecordFile::from_bytes(rec.clone(), Some(b"")).unwrap();
    assert_eq!(file.notes(), [Note::NotIndexed { offset: 0, bytes: rec.len() as u64 }]);
}

#[test]
fn images_that_the_index_lacks_are_noted_and_the_others_read() {
    let (rec, idx) = small();
    let lines: Vec<&[u8]> = idx.split_inclusive(|byte| *byte == b'\n').collect();
    let without_2 = [&lines[..1], &lines[2..]].concat().concat();
    let file = RecordFile::from_bytes(rec, Some(&without_2)).unwrap();
    assert_eq!(file.notes(), [Note::ImagesMissing { n_missing: 1, first: 2 }]);
    let keys: Vec<u64> = file.images().map(|image| image.unwrap().key).collect();
    assert_eq!(keys, [1, 3, 4, 5]);
    assert_eq!(file.images_of(&file.identity(0).unwrap()).count(), 1);
}

#[test]
fn records_of_one_id_are_all_images_when_scanned() {
    let parent = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::create(&parent.path().join("out")).unwrap();
    for key in 0..3 {
        // The first looks like one that announces identities.
        writer.write(key, &Header::array([2.0, 3.0], 0), b"").unwrap();
    }
    writer.finish(None).unwrap();
    let file = RecordFile::open(&parent.path().join("out/train.rec"), None).unwrap();
    assert_eq!((file.notes(), file.n_images()), (&[Note::KeysArePositions][..], 3));
    assert_eq!(file.layout(), &Layout::Sequential);
}

/// One record of the given header, and no index.
fn single(key: u64, header: &Header, image: &[u8]) -> Result<RecordFile, RecordError> {
    let parent = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::create(&parent.path().join("out")).unwrap();
    writer.write(key, header, image).unwrap();
    writer.finish(None).unwrap();
    RecordFile::open(&parent.path().join("out/train.rec"), None)
}

#[test]
fn a_record_0_that_announces_billions_costs_nothing() {
    let file = single(0, &Header::array([4e9, 1.8e19], 0), b"").unwrap();
    assert_eq!((file.n_images(), file.n_identities()), (0, 0));
    assert!(matches!(file.notes(), [Note::ImagesMissing { first: 1, .. }]));
}

#[test]
fn a_record_0_that_announces_nonsense_is_an_error() {
    for labels in [[2.0, 1.0], [-1.0, 2.0], [0.5, 2.0], [1.0, f32::NAN], [1.0, f32::INFINITY]] {
        let error = single(0, &Header::array(labels, 0), b"").unwrap_err();
        assert!(matches!(error, RecordError::BadRange { .. }), "{error}");
    }
}

#[test]
fn a_record_0_with_labels_and_an_image_is_an_image() {
    let file = single(0, &Header::array([7.0, 1.0], 0), b"image").unwrap();
    assert_eq!(file.layout(), &Layout::Sequential);
    assert_eq!(file.image(0).unwrap().label, 7);
}

#[test]
fn a_label_that_is_no_class_is_an_error_of_the_image_alone() {
    for label in [-1.0, 0.5, f32::NAN, f32::MAX] {
        let file = single(3, &Header::scalar(label, 3), b"image").unwrap();
        let error = file.image(0).unwrap_err().to_string();
        assert!(error.contains("byte 0: record 3 has label"), "{error}");
        assert!(file.record(0).is_ok());
    }
}

#[test]
fn positions_beyond_the_end_are_errors() {
    let (rec, idx) = small();
    let file = RecordFile::from_bytes(rec, Some(&idx)).unwrap();
    for position in [8, u64::MAX] {
        let error = file.record(position).unwrap_err();
        assert!(error.to_string().ends_with(&format!("no record {position}: there are 8")));
        assert_eq!(error.hint().unwrap(), "records are counted from 0 to 7");
        assert!(file.image(position).is_err() && file.identity(position).is_err());
    }
    assert_eq!(file.by_key(99).unwrap(), None);
}

#[test]
fn a_missing_file_and_a_folder_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("no.rec"), dir.path().to_path_buf()] {
        assert!(matches!(RecordFile::open(&path, None), Err(RecordError::Durable(_))));
    }
}

#[test]
fn a_rounded_number_of_images_is_put_right() {
    // Keys near 2^24 only: the data set is all holes, but its end is where it should be.
    let n: u64 = 16_777_217;
    let parent = tempfile::tempdir().unwrap();
    let mut writer = RecordWriter::create(&parent.path().join("out")).unwrap();
    for key in [n - 2, n - 1] {
        writer.write(key, &Header::array([5.0, 1.0], key), b"image").unwrap();
    }
    writer.write(n, &Header::array([(n - 2) as f32, n as f32], n), b"").unwrap();
    writer.write(0, &Header::array([n as f32, (n + 1) as f32], 0), b"").unwrap();
    writer.finish(None).unwrap();
    let file = RecordFile::open(&parent.path().join("out/train.rec"), None).unwrap();
    assert_eq!(file.layout(), &Layout::Identities { images: 1..n, identities: n..n + 1 });
    assert_eq!(file.notes()[0], Note::CountRounded { stored: n - 1, found: n });
    assert_eq!((file.n_images(), file.n_identities()), (2, 1));
    assert!(!file.identity(0).unwrap().is_exact());
}

proptest! {
    #[test]
    fn any_bytes_give_records_or_an_error(
        words in prop::collection::vec(prop_oneof![
            Just(pfc_recordio::MAGIC),
            any::<[u8; 4]>(),
            (0..64_u32, 0..5_u32).prop_map(|(length, kind)| (kind << 29 | length).to_le_bytes()),
        ], 0..40),
        idx in prop::option::of("([0-9]{1,3}\t[0-9]{1,2}\n){0,4}"),
    ) {
        let rec = words.concat();
        if let Ok(file) = RecordFile::from_bytes(rec, idx.as_deref().map(str::as_bytes)) {
            file.records().for_each(drop);
            file.images().for_each(drop);
        }
    }

    #[test]
    fn any_text_is_an_index_or_an_error(idx in any::<Vec<u8>>()) {
        let _ = RecordFile::from_bytes(small().0, Some(&idx));
    }
}

#[test]
fn a_record_is_found_that_the_index_leaves_out_or_gives_a_wrong_place() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("out");
    let mut writer = RecordWriter::create(&dir).unwrap();
    // Of 8 + 24 + 8 bytes each.
    for key in 0..5 {
        writer.write(key, &Header::scalar(key as f32, key), b"an image").unwrap();
    }
    writer.finish(None).unwrap();
    let rec = fs::read(dir.join("train.rec")).unwrap();
    let not_listed =
        |idx: &str| RecordFile::from_bytes(rec.clone(), Some(idx.as_bytes())).unwrap().not_listed();
    assert_eq!(not_listed("0\t0\n1\t40\n2\t80\n3\t120\n4\t160\n"), [0_u64; 0]);
    assert_eq!(not_listed("0\t0\n1\t40\n3\t120\n"), [80, 160]);
    assert_eq!(not_listed("0\t0\n1\t40\n2\t88\n3\t120\n4\t160\n"), [80]);
}
