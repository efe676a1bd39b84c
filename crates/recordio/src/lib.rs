//! Face data sets in MXNet RecordIO files (`train.rec`, `train.idx`, `property`), without MXNet.
//!
//! [`RecordFile`] reads: records by position, by key or by scanning, and the face images among them
//! with their class. [`RecordWriter`] writes what MXNet's own writer would, byte for byte, and
//! [`FaceWriter`] whole data sets in either of InsightFace's layouts.
//!
//! # The bytes
//!
//! All numbers are little endian. A `.rec` file is nothing but records, each a multiple of 4 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | the magic, `0a 23 d7 ce` |
//! | 4 | top 3 bits: kind; low 29 bits: length of the payload |
//! | length | payload |
//! | 0–3 | padding to a multiple of 4 |
//!
//! A payload that holds the magic at a multiple of 4 is split there, the magic itself left out: the
//! parts have the kinds 1, 2, …, 2, 3, a whole record has kind 0. So the magic at a multiple of 4
//! always begins a record or a part, and a reader finds its way back after damage.
//!
//! A payload begins with a [`Header`]; the image follows as it was encoded. The `.idx` file has a
//! line `key<TAB>offset` per record. Which records are images is a convention: [`Layout`].
//!
//! # Damage
//!
//! Every byte is taken for hostile: whatever a file holds, reading gives records or an error that
//! names the offset, and allocates no more than the file is long. RecordIO has no checksums: damage
//! inside an image goes unnoticed here.

mod error;
mod face_writer;
mod faces;
mod fault;
mod file;
mod frame;
mod header;
mod index;
mod layout;
mod map;
mod paths;
mod property;
mod writer;

pub use error::RecordError;
pub use face_writer::{FaceWriter, Style, Written, check_counts};
pub use faces::FaceRecord;
pub use fault::{Fault, PAYLOAD_BYTES_MAX};
pub use file::{Record, RecordFile, Salvage};
pub use frame::{Damage, MAGIC};
pub use header::{Header, LABEL_EXACT_MAX, Labels};
pub use index::IndexEntry;
pub use layout::{IdentityRange, Layout, Note};
pub use paths::RecordPaths;
pub use property::Property;
pub use writer::RecordWriter;
