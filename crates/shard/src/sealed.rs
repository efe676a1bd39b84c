//! Small JSON files that prove to be whole.
//!
//! [`write()`] and [`read()`] are for what an unfinished job keeps, where a flipped bit could leave
//! another number that is one too: the first line of the file is the checksum of the rest.
//! [`manifest`] and [`check_manifest`] are for files that other programs read as JSON too: their last
//! field is the checksum of all text before it.

use std::{fs, io, path::Path};

use pfc_durable::DurableError;
use serde::{Serialize, de::DeserializeOwned};

use crate::hash::{Checksum, content_hash};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The operating system refused.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("is damaged")]
    Damaged,
}

/// Writes `value`; once this returns, it is on disk.
///
/// # Errors
///
/// [`DurableError`]; `path` is then as it was.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    let json = serde_json::to_string(value)
        .map_err(|error| DurableError::at("write", path)(error.into()))?;
    let checksum = Checksum(content_hash(json.as_bytes()));
    pfc_durable::write(path, format!("{checksum}\n{json}").as_bytes())
}

/// Reads what [`write()`] wrote; nothing where there is no file.
///
/// # Errors
///
/// [`SealedError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SealedError> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let value = unseal(&text).and_then(|json| serde_json::from_slice(json).ok());
    value.map(Some).ok_or(SealedError::Damaged)
}

fn unseal(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (line, json) = (&text[..end], &text[end + 1..]);
    let checksum: Checksum = std::str::from_utf8(line).ok()?.parse().ok()?;
    (checksum == Checksum(content_hash(json))).then_some(json)
}

/// Begins the last field of a JSON object that carries its own checksum.
const SEAL_START: &str = ",\n  \"checksum\": \"";
const SEAL_END: &str = "\"\n}\n";
/// Bytes in which the end of a file may differ from its seal and still be taken for a damaged one.
const SEAL_DAMAGE_MAX: usize = 8;

/// What [`check_manifest`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// The text carries its checksum, and it is right.
    Whole,
    /// The text carries none, as versions before this one wrote it.
    Absent,
}

/// A JSON object as text for people whose last field, `checksum`, is that of all text before it.
///
/// # Panics
///
/// If `value` does not become a JSON object with a field, or has one called `checksum` itself.
pub fn manifest<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_string_pretty(value).expect("strings and numbers become JSON");
    let body = json.strip_suffix("\n}").expect("an object with fields ends so");
    [body.as_bytes(), &seal(body.as_bytes())].concat()
}

/// Holds a text that [`manifest`] made against the checksum that it carries. Text of versions that
/// wrote none is let through; its field `checksum` is then absent.
///
/// # Errors
///
/// [`SealedError::Damaged`] if a byte was changed, added or removed since, or it is no JSON object.
pub fn check_manifest(text: &[u8]) -> Result<Seal, SealedError> {
    let (body, end) = text.split_at(text.len().saturating_sub(seal(b"").len()));
    let expected = seal(body);
    if expected.len() == end.len() {
        match expected.iter().zip(end).filter(|(a, b)| a != b).count() {
            0 => return Ok(Seal::Whole),
            1..=SEAL_DAMAGE_MAX => return Err(SealedError::Damaged),
            // The checksum is another one, or there is none.
            _ => {}
        }
    }
    #[derive(serde::Deserialize)]
    struct Sealed {
        checksum: Option<serde::de::IgnoredAny>,
    }
    // Text that was edited still has the field, or its value.
    let has_field = serde_json::from_slice::<Sealed>(text).map_or(true, |s| s.checksum.is_some());
    let has_value = String::from_utf8_lossy(text).lines().any(|line| {
        let field = line.strip_prefix("  \"").and_then(|field| field.split_once("\": \""));
        field.is_some_and(|(_, value)| value.starts_with("xxh3-128:"))
    });
    if has_field || has_value { Err(SealedError::Damaged) } else { Ok(Seal::Absent) }
}

fn seal(body: &[u8]) -> Vec<u8> {
    format!("{SEAL_START}{}{SEAL_END}", Checksum(content_hash(body))).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_comes_back_and_one_with_any_byte_changed_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        write(&path, &[1, 22]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![1, 22]));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_manifest_carries_a_checksum_that_any_change_breaks() {
        let text = manifest(&serde_json::json!({"format": 1, "names": ["a", "b"]}));
        assert_eq!(check_manifest(&text).unwrap(), Seal::Whole);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(json["format"] == 1 && json["checksum"].is_string());
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone();
                bytes[at] ^= 1 << bit;
                assert!(check_manifest(&bytes).is_err(), "byte {at}, bit {bit}");
            }
            for bytes in
                [[&text[..at], b" ", &text[at..]].concat(), [&text[..at], &text[at + 1..]].concat()]
            {
                assert!(bytes == text || check_manifest(&bytes).is_err(), "edit at {at}");
            }
        }
    }

    #[test]
    fn a_manifest_of_an_earlier_version_is_let_through() {
        let old = b"{\n  \"format\": 1,\n  \"tool\": \"pfc-ingest 0.1.0, long enough for a seal of its own\"\n}\n";
        assert_eq!(check_manifest(old).unwrap(), Seal::Absent);
        assert_eq!(check_manifest(b"{}").unwrap(), Seal::Absent);
    }
}
