//! Every pack of `golden/bin`: the same faces in many pickle dialects, read and written anew.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::path::PathBuf;

use pfc_binpack::{Dialect, Pack, PackWriter};
use serde_json::Value;

/// Each pack with its entry and the description of its images.
fn packs() -> Vec<(PathBuf, Value, Value)> {
    let Some(folder) = pfc_testing::golden("bin") else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let descriptions = paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut packs = Vec::new();
    for json in descriptions {
        let description: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        for (name, entry) in description["files"].as_object().unwrap() {
            let path = folder.join(format!("{name}.bin"));
            packs.push((path, entry.clone(), description.clone()));
        }
    }
    packs
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_packs_of_every_dialect_hold_the_bytes_and_labels_that_were_pickled() {
    for (path, entry, description) in packs() {
        let name = path.display();
        let pack = Pack::read(&path).unwrap();
        assert_eq!(Some(pack.same.len() as u64), entry["pairs"].as_u64(), "{name}");
        for (i, &same) in pack.same.iter().enumerate() {
            assert_eq!(Some(same), description["issame"][i].as_bool(), "{name}: pair {i}");
        }
        for (i, image) in pack.images.iter().enumerate() {
            let expected = description["images"][i]["sha256_of_bytes"].as_str();
            assert_eq!(Some(&sha256(image)[..]), expected, "{name}: image {i}");
        }
    }
}

#[test]
fn golden_packs_written_anew_in_either_dialect_read_as_they_were() {
    for (path, _, _) in packs() {
        let pack = Pack::read(&path).unwrap();
        for dialect in [Dialect::Python3, Dialect::Any] {
            let mut writer = PackWriter::new(Vec::new(), dialect).unwrap();
            for (pair, same) in pack.images.chunks(2).zip(&pack.same) {
                writer.push([&pair[0], &pair[1]], *same).unwrap();
            }
            let again = Pack::parse(&writer.finish().unwrap()).unwrap();
            assert!(again == pack, "{} as {dialect:?}", path.display());
        }
    }
}

#[test]
fn golden_packs_that_are_cut_or_flipped_never_panic() {
    for (path, entry, _) in packs() {
        if entry["pairs"].as_u64() > Some(8) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(997) {
            assert!(Pack::parse(&bytes[..cut]).is_err(), "{} cut at {cut}", path.display());
        }
        for at in (0..bytes.len()).step_by(331) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let _ = Pack::parse(&flipped);
        }
    }
}
