//! The bytes of a file, wherever they are.

use std::{ops::Deref, path::Path};

use pfc_mmap::Map;

use crate::RecordError;

/// The bytes of a file, mapped, or those of a buffer.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Map),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps the whole of `path` for reading.
    pub(crate) fn open(path: &Path) -> Result<Bytes, RecordError> {
        Ok(Bytes::Mapped(Map::open(path)?))
    }

    /// Takes the pages of a mapped file out of this process; the system's cache may keep them.
    pub(crate) fn release(&self) {
        if let Bytes::Mapped(map) = self {
            map.release();
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
