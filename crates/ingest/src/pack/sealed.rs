//! The files of a journal, each with its checksum.

use std::path::Path;

use pfc_shard::sealed::{self, SealedError};
use serde::{Serialize, de::DeserializeOwned};

use super::PackError;
use crate::IngestError;

/// Writes `value`; once this returns, it is on disk.
///
/// # Errors
///
/// [`IngestError::Durable`]; `path` is then as it was.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), IngestError> {
    Ok(sealed::write(path, value)?)
}

/// Reads what [`write()`] wrote; nothing where there is no file.
///
/// # Errors
///
/// [`PackError::DamagedJournal`] if the file is not what was written, [`IngestError::Durable`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IngestError> {
    sealed::read(path).map_err(|error| match error {
        SealedError::Io(source) => IngestError::at("read", path)(source),
        SealedError::Damaged => PackError::DamagedJournal { path: path.into() }.into(),
    })
}
