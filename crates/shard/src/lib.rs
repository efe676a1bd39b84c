//! A face on disk: schema, writer, reader, manifest, order.

pub mod decode;
pub mod hash;

mod dataset;
mod dataset_writer;
mod error;
mod face;
mod identities;
mod ipc;
mod ipc_writer;
mod manifest;
mod mmap;
mod names;
mod order;
mod permutation;
mod schema;
mod shard;
mod shard_writer;
mod verify;

pub use dataset::Dataset;
pub use dataset_writer::{DEFAULT_SHARD_BYTES, DatasetSpec, DatasetWriter, SHARD_BYTES_MAX};
pub use error::ShardError;
pub use face::{Face, IMAGE_BYTES_MAX, ImageSize, Quality, SOURCE_BYTES_MAX};
pub use hash::Checksum;
pub use identities::Identities;
pub use manifest::{
    FORMAT, FileEntry, IDENTITIES_FILE, MANIFEST_FILE, Manifest, SHARDS_DIR, ShardEntry, shard_file,
};
pub use names::IdentityNames;
pub use order::{EpochOrder, Place, Share};
pub use permutation::Permutation;
pub use shard::Shard;
pub use shard_writer::{ShardSpec, ShardWriter};
pub use verify::{Fault, Finding, RowPlace, VerifyReport, verify};
