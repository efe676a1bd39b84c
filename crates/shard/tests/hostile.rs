//! Damaged and hostile files: an error or other pixels, never a panic.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{FOUR_ROWS, SIZE, rows, write};
use pfc_shard::{Dataset, ShardError, verify};

const SHARD: &str = "shards/00000.arrow";

/// Reads all there is to read.
fn read_everything(dir: &Path) -> Result<(), ShardError> {
    let dataset = Dataset::open(dir)?;
    dataset.preload()?;
    for row in 0..dataset.len() {
        let face = dataset.get(row)?;
        assert!(face.label < dataset.n_identities());
        assert_eq!(face.size(), SIZE);
        std::hint::black_box((face.image.to_vec(), face.source.chars().count()));
    }
    for label in 0..dataset.n_identities() {
        std::hint::black_box(dataset.identities().names(label).count());
    }
    dataset.identities().label_of("bob");
    Ok(())
}

/// Whether `verify` finds fault, having looked at every row it could.
fn is_faulty(dir: &Path) -> bool {
    !verify(dir, |_| ()).unwrap().is_clean()
}

fn flips(byte: u8) -> [u8; 3] {
    [byte ^ 0x01, byte ^ 0x80, !byte]
}

/// Changes each byte of `file` in three ways; `verify` must find the first.
#[track_caller]
fn check_flips(file: &str) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(2), FOUR_ROWS);
    let path = dir.path().join(file);
    let whole = fs::read(&path).unwrap();
    for i in 0..whole.len() {
        for (k, flipped) in flips(whole[i]).into_iter().enumerate() {
            let mut bytes = whole.clone();
            bytes[i] = flipped;
            // A new file: the old one may still be mapped.
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            let _ = read_everything(dir.path());
            assert!(k > 0 || is_faulty(dir.path()), "byte {i} of {file} became {flipped}");
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_in_a_shard_never_panics_and_is_found() {
    check_flips(SHARD);
}

#[test]
fn a_flipped_byte_anywhere_in_the_identities_never_panics_and_is_found() {
    check_flips("identities.arrow");
}

#[test]
fn a_flipped_byte_anywhere_in_the_manifest_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(2), FOUR_ROWS);
    let path = dir.path().join("dataset.json");
    let whole = fs::read(&path).unwrap();
    for i in 0..whole.len() {
        for flipped in flips(whole[i]).into_iter().chain(*b"0/.9\"") {
            let mut bytes = whole.clone();
            bytes[i] = flipped;
            fs::write(&path, &bytes).unwrap();
            let _ = read_everything(dir.path());
            let _ = verify(dir.path(), |_| ());
        }
    }
}

/// Cuts `file` to every length, with the manifest as it was and with one that lists the new size,
/// so that the size check does not hide the others.
#[track_caller]
fn check_truncations(file: &str) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(2), FOUR_ROWS);
    let (path, manifest) = (dir.path().join(file), dir.path().join("dataset.json"));
    let (whole, listed) = (fs::read(&path).unwrap(), fs::read_to_string(&manifest).unwrap());
    let size = format!("\"bytes\": {},", whole.len());
    for n in 0..whole.len() {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &whole[..n]).unwrap();
        fs::write(&manifest, &listed).unwrap();
        let error = read_everything(dir.path()).unwrap_err();
        let is_size = matches!(error, ShardError::FileSize { found, .. } if found == n as u64);
        assert!(is_size, "{n} bytes: {error}");
        assert!(error.hint().unwrap().contains("cut short"));

        let other = listed.replace(&size, &format!("\"bytes\": {n},"));
        fs::write(&manifest, common::unsealed(&other)).unwrap();
        let error = read_everything(dir.path()).unwrap_err();
        assert!(error.to_string().contains(file), "{n} bytes: {error}");
        assert!(is_faulty(dir.path()), "{n} bytes");
    }
}

#[test]
fn a_shard_cut_at_any_length_is_an_error_that_names_it() {
    check_truncations(SHARD);
}

#[test]
fn identities_cut_at_any_length_are_an_error_that_names_them() {
    check_truncations("identities.arrow");
}

/// Writes `word` over every aligned place of the shard: lengths and offsets out of any bound.
#[test]
fn absurd_lengths_anywhere_in_a_shard_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &rows(2), FOUR_ROWS);
    let path = dir.path().join(SHARD);
    let whole = fs::read(&path).unwrap();
    for word in [i64::MAX, i64::MIN, -1, 1 << 32, i64::from(i32::MAX), 1 << 20] {
        for width in [4, 8] {
            for i in (0..whole.len() - 8).step_by(width) {
                let mut bytes = whole.clone();
                bytes[i..i + width].copy_from_slice(&word.to_le_bytes()[..width]);
                fs::remove_file(&path).unwrap();
                fs::write(&path, &bytes).unwrap();
                let _ = read_everything(dir.path());
            }
        }
    }
}
