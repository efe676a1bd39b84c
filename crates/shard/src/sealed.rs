//! Small JSON files that prove to be whole.
//!
//! They hold what an unfinished job keeps, where a flipped bit could leave another number that is one
//! too: the first line of the file is the checksum of the rest. Files that other programs read as JSON
//! are sealed by [`pfc_durable::manifest`] instead.

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
}
