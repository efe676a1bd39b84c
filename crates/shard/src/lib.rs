//! A face on disk: schema, writer, reader, manifest, order.

pub mod decode;
pub mod hash;

mod dataset;
mod error;
mod face;
mod identities;
mod manifest;
mod order;
mod permutation;
mod verify;
mod writer;

pub use dataset::Dataset;
pub use error::ShardError;
pub use face::{Face, IMAGE_BYTES_MAX, ImageSize, Quality, SOURCE_BYTES_MAX};
pub use hash::Checksum;
pub use identities::{Identities, IdentityNames};
pub use manifest::{
    FORMAT, FileEntry, IDENTITIES_FILE, MANIFEST_FILE, Manifest, SHARDS_DIR, ShardEntry, shard_file,
};
pub use order::{EpochOrder, Place, Share};
pub use permutation::Permutation;
pub use verify::{Fault, Finding, RowPlace, VerifyReport, verify};
pub use writer::{DEFAULT_SHARD_BYTES, DatasetSpec, DatasetWriter, ShardSpec, ShardWriter};
