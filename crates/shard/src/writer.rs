//! Writing shards and data sets.

use std::path::{Path, PathBuf};

use crate::{Face, IdentityNames, ImageSize, Manifest, ShardEntry, ShardError};

/// Bytes at which a shard is closed, unless told otherwise.
pub const DEFAULT_SHARD_BYTES: u64 = 128 << 20;

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSpec {
    /// Size of every image.
    pub image_size: ImageSize,
}

/// Writes one shard.
#[derive(Debug)]
pub struct ShardWriter {}

impl ShardWriter {
    /// Opens a temporary file beside `path`.
    pub fn create(_path: &Path, _spec: ShardSpec) -> Result<ShardWriter, ShardError> {
        unimplemented!()
    }

    /// Appends a row and returns its number in this file.
    pub fn push(&mut self, _face: Face<'_>) -> Result<u64, ShardError> {
        unimplemented!()
    }

    /// Writes the footer, syncs, and gives the file its name. The entry's `file` is the file name.
    pub fn finish(self) -> Result<ShardEntry, ShardError> {
        unimplemented!()
    }
}

/// What a data set is and where it comes from; all of it is kept in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Size of every image.
    pub image_size: ImageSize,
    /// Seed of the order in which rows will be pushed.
    pub seed: u64,
    /// Bytes at which a shard is closed and the next begun; [`DEFAULT_SHARD_BYTES`] is a good value.
    pub shard_bytes: u64,
    /// What is packed, as the user named it.
    pub sources: Vec<String>,
    /// Name and version of the program that writes.
    pub tool: String,
    /// Arguments of that program that decide the content.
    pub arguments: Vec<String>,
}

/// Writes a data set: shards one after another, the manifest last.
#[derive(Debug)]
pub struct DatasetWriter {
    _dir: PathBuf,
}

impl DatasetWriter {
    /// Makes `dir` if need be, and begins.
    pub fn create(_dir: &Path, _spec: DatasetSpec) -> Result<DatasetWriter, ShardError> {
        unimplemented!()
    }

    /// Appends a row and returns its number in the data set.
    pub fn push(&mut self, _face: Face<'_>) -> Result<u64, ShardError> {
        unimplemented!()
    }

    /// Closes the last shard, writes the table of identities, and the manifest last.
    pub fn finish(self, _identities: IdentityNames) -> Result<Manifest, ShardError> {
        unimplemented!()
    }
}
