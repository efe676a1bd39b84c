//! The doors of the fuzz targets, entered with sound files in which some bytes are changed or cut off: whatever they hold,
//! what the doors assert keeps, and nothing panics.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::{fs, path::Path};

use pfc_sources::fuzzing;
use pfc_testing::damaged;

/// Damaged copies of each seed.
const COPIES: usize = 300;

/// Calls `door` with damaged copies of `seed`.
fn damage(seed: &[u8], door: impl FnMut(Vec<u8>)) {
    damaged(seed, COPIES).for_each(door);
}

fn zoo(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo").join(name)).unwrap()
}

#[test]
fn no_damage_to_a_list_or_a_tar_file_is_more_than_an_error() {
    for seed in [
        "path,label\na/1.jpg,0\n\"b, c/2.jpg\",1\n",
        "0\ta/1.jpg\t7\t0\t0\t16\t16\t5\t11\t8\t6\t10\t7\t7\t9\t12\t12\n",
        "{\"file_name\": \"a/1.jpg\", \"label\": 3}\n",
        "1\t3.000000\ta/1.jpg\n2\t4.000000\tb/2.jpg\n",
    ] {
        damage(seed.as_bytes(), |bytes| fuzzing::list(&bytes));
    }
    damage(&zoo("faces.tar"), |bytes| fuzzing::tar(&bytes));
}

#[test]
fn no_damage_to_an_archive_is_more_than_an_error() {
    for seed in ["stored.zip", "wrapped.zip", "large.zip"] {
        damage(&zoo(seed), |bytes| fuzzing::zip(&bytes));
    }
    let dir = tempfile::tempdir().unwrap();
    let tar = zoo("faces.tar");
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for seed in [zoo("faces.tgz"), zoo("faces.tar.bz2"), zoo("faces.tar.xz"), zstd] {
        damage(&seed, |bytes| fuzzing::packed(&bytes, dir.path()).unwrap());
    }
}

#[test]
fn no_damage_to_a_data_set_of_another_program_is_more_than_an_error() {
    for seed in ["arcface.tfrecord", "tface-00000.tfrecord"] {
        damage(&zoo(seed), |bytes| fuzzing::tfrecord(&bytes));
    }
    for seed in
        ["label.lmdb/data.mdb", "numbered.lmdb", "datum.lmdb/data.mdb", "pickled.lmdb/data.mdb"]
    {
        damage(&zoo(seed), |bytes| fuzzing::lmdb(&bytes));
    }
    for (index, file) in
        [("mds/index.json", "mds/shard.00000.mds"), ("litdata/index.json", "litdata/chunk-0-0.bin")]
    {
        let (index, file) = (zoo(index), zoo(file));
        damage(&index, |index| fuzzing::stream(&[&index[..], &[0], &file[..]].concat()));
        damage(&file, |file| fuzzing::stream(&[&index[..], &[0], &file[..]].concat()));
    }
}

#[test]
fn no_damage_to_landmarks_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let points = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2";
    for seed in [
        format!("a/1.jpg {points}\nb/2.jpg {points}\n"),
        format!("image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na/1.jpg,{}\n", points.replace(' ', ",")),
        format!("a/1.jpg 10,12,90,95 {}\n", points.replace(' ', ",")),
    ] {
        damage(seed.as_bytes(), |bytes| fuzzing::landmarks(&bytes, dir.path()).unwrap());
    }
}

#[test]
fn no_damage_to_a_table_of_names_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for seed in [
        "3\tAnn Lee\n10\tBob\n",
        "image\tlabel\tidentity\n0\t3\tAnn\n1\t3\tAnn\n",
        "ann/1.jpg\t0\t0\nbob/2.jpg\t0\t1234\n",
    ] {
        damage(seed.as_bytes(), |bytes| fuzzing::beside(&bytes, dir.path()).unwrap());
    }
}

#[test]
fn no_damage_to_a_table_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for seed in ["struct.parquet", "binary.parquet"] {
        damage(&zoo(seed), |bytes| fuzzing::table(&bytes, dir.path()).unwrap());
    }
}

#[test]
fn no_damage_to_a_verification_set_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let description = br#"{"shape": [2, 3, 2, 2], "dtype": "float32"}"#;
    let header = "{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }\n";
    let list = [b"\x93NUMPY\x01\0", &[header.len() as u8, 0][..], header.as_bytes(), &[1]].concat();
    let part = |bytes: &[u8]| [&[bytes.len() as u8][..], bytes].concat();
    let seed = [part(description), part(&list), vec![0; 2 * 3 * 4 * 4]].concat();
    let mut n_read = 0;
    damage(&seed, |bytes| {
        fuzzing::verification(&bytes, dir.path()).unwrap();
        n_read += usize::from(pfc_sources::verification_set(&dir.path().join("set")).is_ok());
    });
    assert!(n_read > 0, "the seed is no set");
}
