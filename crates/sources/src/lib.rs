//! Collections of face images with identities, wherever they come from: folders, lists, RecordIO,
//! tar, zip, Parquet, Arrow, verification packs, TFRecord, LMDB, MDS and LitData. A source is indexed first, which fixes labels and
//! order; images are then read in any order from many threads.
//!
//! Every byte of an input is taken to be hostile: reading ends in entries, in entries left out with
//! a reason, or in a [`SourceError`], and memory is bounded by the size of the input.

mod alignment;
mod arrow_file;
mod bin;
mod catalogue;
mod choose;
mod column_names;
mod columns;
mod encoding;
mod error;
mod file;
mod folder;
mod folders;
pub mod fuzzing;
mod identities;
mod in_order;
mod index;
mod kind;
mod label;
pub mod landmarks;
mod list;
mod lmdb;
mod look;
mod names;
pub mod npy;
mod recordio;
mod reject;
mod shards;
mod shelf;
mod source;
mod splits;
mod spool;
mod streams;
mod table;
mod tar;
mod tfrecord;
mod unread;
mod verification;
mod walk;
mod wire;
mod zip;

pub use alignment::{AlignOptions, Alignment};
pub use arrow_file::ArrowFile;
pub use catalogue::composed;
pub use choose::{InputOptions, open, open_images};
pub use encoding::list_text;
pub use error::SourceError;
pub use file::{Root, exists, is_file, read_file};
pub use folder::is_read_as_named;
pub use identities::{
    FILE as IDENTITIES_FILE, PACK_HEADER as IDENTITIES_OF_PACK_HEADER,
    beside_pack as identities_of_pack,
};
pub use in_order::InOrder;
pub use index::Index;
pub use kind::InputKind;
pub use label::is_read_as_it_is;
pub use recordio::{Damaged, RecordSource};
pub use reject::{ReadError, Reject};
pub use source::{LeftOut, Source};
pub use unread::{COMPRESSED_ARROW, Unread};
pub use verification::{is_verification_set, verification_set};
pub use walk::{Dir, Listing, is_system};
