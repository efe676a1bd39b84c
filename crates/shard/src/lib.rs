//! A face on disk: the schema, writer and reader of data sets, and the order in which they are read.
//!
//! A data set is a folder of identity-labelled face crops, in files that any Arrow reader opens
//! (pyarrow, polars, DuckDB): `dataset.json`, the [`Manifest`]; `identities.arrow`, who the labels
//! are; and `shards/00000.arrow …`, the rows. Nothing in it is ever changed in place: files appear
//! by renaming once they are complete, the manifest last. This crate knows no tensors.
//!
//! # Write, open, iterate, decode
//!
//! ```
//! use pfc_shard::{
//!     Dataset, DatasetSpec, DatasetWriter, DEFAULT_SHARD_BYTES, EpochOrder, Face, ImageSize, Quality,
//!     verify,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path();
//! # let mut jpeg = Vec::new();
//! # jpeg_encoder::Encoder::new(&mut jpeg, 90)
//! #     .encode(&[128; 112 * 112], 112, 112, jpeg_encoder::ColorType::Luma)?;
//! let spec = DatasetSpec {
//!     lineage: vec![],
//!     image_size: ImageSize::FACE,
//!     seed: 1,
//!     shard_bytes: DEFAULT_SHARD_BYTES,
//!     sources: vec!["raw".into()],
//!     tool: "example 1.0".into(),
//!     arguments: vec![],
//! };
//! let mut writer = DatasetWriter::create(dir, spec)?;
//! for label in [0, 1, 1] {
//!     writer.push(Face::new(&jpeg, label, "a.jpg", ImageSize::FACE, Quality::default()))?;
//! }
//! writer.finish(["alice", "bob"].into_iter().collect())?;
//!
//! let dataset = Dataset::open(dir)?;
//! let order = EpochOrder::new(dataset.len(), dataset.manifest().seed, 0);
//! let mut pixels = vec![0; dataset.manifest().image_size.rgb_bytes()];
//! for visit in dataset.faces(order.share(0, 0, 1)) {
//!     let visit = visit?;
//!     visit.decode_rgb(&mut pixels)?; // mirrored where `visit.place` says so
//!     let face = visit.face; // borrowed from the memory map; `dataset.get(row)` is any other
//!     println!("{}: {}", dataset.identities().name(face.label), face.source);
//! }
//! assert_eq!(dataset.identities().n_images(1), 2);
//! assert!(verify(dir, |_| ())?.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! `README.md` of the crate is a tour of the reading side; `examples/read.rs` is a program that does
//! so on a real data set; `examples/time_reading.rs` and `pfc-ingest bench` measure.
//!
//! # What is checked when
//!
//! * [`Dataset::open`]: the manifest, the table of identities with its checksum, and that every
//!   file exists and has its size. Milliseconds.
//! * The first [`Dataset::get`] in a shard, or [`Dataset::preload`]: magic, version, schema, every
//!   length, offset and string, every label and size. What `get` returns after that is in bounds.
//! * [`verify`]: every byte, against checksums and the hash of each image.
//!
//! Files are taken to be hostile: a damaged or foreign one is a [`ShardError`] that names the file,
//! the row where there is one, and in its [`hint`](ShardError::hint) the way out, never a panic.
//! The one thing that memory maps cannot survive is a file cut short while it is open (the system
//! then ends the program): replace files by renaming, as this crate does, never in place.
//!
//! What cleaning found lies beside the shards as a log, which `pfc-findings` reads and applies.
//!
//! # Columns of a shard
//!
//! | column | type | |
//! |---|---|---|
//! | `image` | binary | a whole JPEG file, never re-encoded if it had the right size |
//! | `label` | uint32 | identity, below `n_identities` |
//! | `source` | utf8 | path or record key it came from |
//! | `width`, `height` | uint16 | of the decoded image; the same for all rows |
//! | `hash` | `fixed_size_binary(16)` | XXH3-128 of `image`, big-endian |
//! | `sharpness`, `brightness`, `contrast` | float32 | measures of [`Quality`], NaN where nobody measured |
//!
//! No column is nullable or compressed, buffers are aligned to 64 bytes, record batches hold up to
//! 16 MiB, and the schema's metadata says `pfc.format` = `1`.

pub mod hash;
pub mod sealed;
pub mod table;

mod assemble;
mod dataset;
mod dataset_writer;
mod detections;
mod error;
mod face;
mod faces;
mod format;
mod identities;
mod ipc;
mod ipc_writer;
mod manifest;
mod mmap;
mod names;
mod npy;
mod order;
mod parallel;
mod permutation;
mod quality_table;
mod schema;
mod shard;
mod shard_writer;
mod spec;
mod verify;

pub use assemble::assemble;
pub use dataset::Dataset;
pub use dataset_writer::DatasetWriter;
pub use detections::{DetectionRow, Detections, NOT_DETECTED, write_detections};
pub use error::ShardError;
pub use face::{Face, IMAGE_BYTES_MAX, SOURCE_BYTES_MAX};
pub use faces::{Faces, Visit};
pub use format::{
    DETECTIONS_FILE, FORMAT, IDENTITIES_FILE, MANIFEST_FILE, QUARANTINE_FILE, SHARDS_DIR,
};
pub use hash::Checksum;
pub use identities::Identities;
pub use manifest::{FileEntry, Manifest, ShardEntry, Step, manifest_checksum, shard_file};
pub use names::{IdentityNames, NAME_BYTES_MAX};
pub use npy::npy_header;
pub use order::{EpochOrder, Place, Share, mix};
pub use permutation::Permutation;
pub use pfc_image::{ImageSize, Quality};
pub use quality_table::{
    QUALITY_DIR, QualityRecord, QualitySpec, QualityTable, is_quality_name, is_quality_part,
};
pub use shard::Shard;
pub use shard_writer::{ShardSpec, ShardWriter};
pub use spec::{DEFAULT_SHARD_BYTES, DatasetSpec, SHARD_BYTES_MAX};
pub use verify::{Checks, Fault, Finding, RowPlace, VerifyReport, verify, verify_with};

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
