//! Files of a data set as memory.

use std::{io, path::Path};

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
