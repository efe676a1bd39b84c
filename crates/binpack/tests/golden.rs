//! Every pack of `golden/bin`: the same faces in many pickle dialects, read and written anew.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use pfc_binpack::{Dialect, Pack, PackWriter};
use pfc_testing::{KnownPack, golden_packs};

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_packs_of_every_dialect_hold_the_bytes_and_labels_that_were_pickled() {
    for KnownPack { path, n_pairs, description } in golden_packs() {
        let name = path.display();
        let pack = Pack::read(&path).unwrap();
        assert_eq!(pack.same.len(), n_pairs, "{name}");
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
    for KnownPack { path, .. } in golden_packs() {
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
    for KnownPack { path, n_pairs, .. } in golden_packs() {
        if n_pairs > 8 {
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
