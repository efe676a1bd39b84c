//! The doors of the fuzz targets, entered with sound files in which some bytes are changed or cut off: whatever they hold,
//! what the doors assert keeps, and nothing panics. The other readers have such a test beside them.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::{fs, path::Path};

use pfc_sources::fuzzing;

/// Damaged copies of each seed.
const COPIES: u64 = 60;

/// Calls `door` with copies of `seed`, in each of which one to eight bytes are changed, doubled or cut off.
fn damage(seed: &[u8], mut door: impl FnMut(&[u8])) {
    door(seed);
    door(&[]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n.max(1)
    };
    for copy in 0..COPIES {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + draw(8) {
            let at = draw(bytes.len());
            match (draw(5), bytes.get_mut(at)) {
                (0, Some(byte)) => *byte ^= 1 << draw(8),
                (1, Some(byte)) => *byte = [0, 0xff, b'\n', b' ', b',', b'9'][draw(6)],
                (2, Some(_)) => drop(bytes.remove(at)),
                (3, Some(byte)) => {
                    let byte = *byte;
                    bytes.insert(at, byte);
                }
                _ => {
                    bytes.truncate(seed.len() - copy as usize * seed.len() / (2 * COPIES as usize));
                }
            }
        }
        door(&bytes);
    }
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
        damage(seed.as_bytes(), fuzzing::list);
    }
    damage(&zoo("faces.tar"), fuzzing::tar);
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
        damage(seed.as_bytes(), |bytes| fuzzing::landmarks(bytes, dir.path()).unwrap());
    }
}

#[test]
fn no_damage_to_a_table_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for seed in ["struct.parquet", "binary.parquet"] {
        damage(&zoo(seed), |bytes| fuzzing::table(bytes, dir.path()).unwrap());
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
        fuzzing::verification(bytes, dir.path()).unwrap();
        n_read += usize::from(pfc_sources::verification_set(&dir.path().join("set")).is_ok());
    });
    assert!(n_read > 0, "the seed is no set");
}
