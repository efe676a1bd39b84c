//! What a data set is to be.

use crate::{ImageSize, manifest::Step};

/// Bytes at which a shard is closed, unless told otherwise.
pub const DEFAULT_SHARD_BYTES: u64 = 128 << 20;

/// The largest `shard_bytes`: a damaged shard should cost little to replace.
pub const SHARD_BYTES_MAX: u64 = 1 << 30;

/// What a data set is and where it comes from; all of it but `shard_bytes` is kept in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Size of every image.
    pub image_size: ImageSize,
    /// Seed of the order in which rows will be pushed.
    pub seed: u64,
    /// Bytes at which a shard is closed and the next begun, in `1..=`[`SHARD_BYTES_MAX`];
    /// [`DEFAULT_SHARD_BYTES`] is a good value.
    pub shard_bytes: u64,
    /// What is packed, as the user named it.
    pub sources: Vec<String>,
    /// Name and version of the program that writes.
    pub tool: String,
    /// Arguments of that program that decide the content; not the number of threads, so that the
    /// same content has the same bytes.
    pub arguments: Vec<String>,
    /// What was done before to what is written, as the manifest is to tell.
    pub lineage: Vec<Step>,
}
