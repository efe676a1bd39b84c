//! Files that a manifest lists: their size, and their bytes as memory.

use std::{fs, io, path::Path};

use arrow_buffer::Buffer;
use pfc_durable::DurableError;
use pfc_mmap::Map;

use crate::ShardError;

/// Maps a file that a manifest lists.
pub(crate) fn open(path: &Path) -> Result<Map, ShardError> {
    Map::open(path).map_err(listed)
}

/// The bytes of a map, not copied; the mapping lives as long as the buffer does.
pub(crate) fn buffer(map: &Map) -> Buffer {
    Buffer::from(bytes::Bytes::from_owner(map.clone()))
}

/// An I/O error on a file that a manifest lists; absence has its own variant.
pub(crate) fn listed(error: DurableError) -> ShardError {
    match error.source.kind() {
        io::ErrorKind::NotFound => ShardError::MissingFile { path: error.path },
        _ => error.into(),
    }
}

/// Checks that a listed file exists and has its size.
pub(crate) fn check_size(path: &Path, expected: u64) -> Result<(), ShardError> {
    let found = fs::metadata(path).map_err(|e| listed(DurableError::at("look at", path)(e)))?.len();
    match found == expected {
        true => Ok(()),
        false => Err(ShardError::FileSize { path: path.to_path_buf(), found, expected }),
    }
}
