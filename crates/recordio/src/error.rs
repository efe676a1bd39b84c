//! What can be wrong with a RecordIO file, said so that the user knows where and what to do.

use std::path::PathBuf;

use pfc_durable::{DurableError, FolderError};

use crate::{Fault, LABEL_EXACT_MAX};

/// A RecordIO file that cannot be read or written. Records and lines of indexes are named as they
/// are found: offsets in bytes from 0, lines from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes of a `.rec` file are not records.
    #[error("{}: byte {offset}: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the fault is.
        offset: u64,
        /// What it is.
        fault: Fault,
        /// Whether an `.idx` file says that a record begins there.
        has_index: bool,
    },
    /// A line of an index is not a key and an offset.
    #[error("{}: line {line}: expected `key<TAB>offset`, found `{found}`", path.display())]
    IndexSyntax {
        /// The index.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The line's text, at most 40 characters of it.
        found: String,
    },
    /// A line of an index points outside its `.rec` file.
    #[error(
        "{}: line {line}: record {key} is listed at byte {offset}, but the file has {size}",
        path.display()
    )]
    IndexOffset {
        /// The index.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The record's key.
        key: u64,
        /// The offset on that line.
        offset: u64,
        /// Bytes of the `.rec` file.
        size: u64,
    },
    /// Two lines of an index have one key.
    #[error("{}: line {line}: key {key} was on line {first_line} already", path.display())]
    DuplicateKey {
        /// The index.
        path: PathBuf,
        /// The later line.
        line: u64,
        /// The key.
        key: u64,
        /// The earlier line.
        first_line: u64,
    },
    /// More records than positions can number.
    #[error("{}: has more than {max} records", path.display())]
    TooManyRecords {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// A record beyond the last.
    #[error("{}: there is no {what} {position}: there are {len}", path.display())]
    NoSuchRecord {
        /// The file.
        path: PathBuf,
        /// `record`, `image` or `identity`.
        what: &'static str,
        /// The position asked for, from 0.
        position: u64,
        /// How many there are.
        len: u64,
    },
    /// A record that should hold two keys, the first and the one after the last, and does not.
    #[error(
        "{}: byte {offset}: record {key} should hold a range of keys, its labels are {labels:?}",
        path.display()
    )]
    BadRange {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Its key.
        key: u64,
        /// Its labels, at most 4 of them.
        labels: Vec<f32>,
    },
    /// A label that numbers no class.
    #[error("{}: byte {offset}: record {key} has label {label}, which is no class", path.display())]
    BadLabel {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Its key.
        key: u64,
        /// Its (first) label.
        label: f32,
    },
    /// A `property` file that does not say `classes,height,width`.
    #[error("{}: expected a first line `classes,height,width`, found `{found}`", path.display())]
    PropertySyntax {
        /// The file.
        path: PathBuf,
        /// Its first line, at most 40 characters of it.
        found: String,
    },
    /// A payload too long for the format.
    #[error("{}: record {key} would have {bytes} bytes, the limit is {max}", path.display())]
    RecordTooLong {
        /// The file being written.
        path: PathBuf,
        /// The record that was refused.
        key: u64,
        /// Bytes of its header, labels and image.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A class that the float32 of a record would turn into another.
    #[error("{}: label {label} cannot be stored: float32 makes it {stored}", path.display())]
    LabelRounds {
        /// The file being written.
        path: PathBuf,
        /// The label that was refused.
        label: u64,
        /// What it would become.
        stored: u64,
    },
    /// The images of an identity are not written in one run.
    #[error("{}: an image of class {label} after one of class {previous}", path.display())]
    LabelOrder {
        /// The file being written.
        path: PathBuf,
        /// The label that was refused.
        label: u64,
        /// The label before it.
        previous: u64,
    },
    /// A count that record 0 cannot hold, since it is stored as float32.
    #[error(
        "{n_images} images of {n_identities} identities cannot be stored with identity records: \
         float32 makes the key {key} into {stored}"
    )]
    CountRounds {
        /// Images.
        n_images: u64,
        /// Identities.
        n_identities: u64,
        /// The key that record 0 must hold.
        key: u64,
        /// What it would become.
        stored: u64,
    },
    /// The folder may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An earlier write failed part-way, so the file cannot be finished.
    #[error("{}: cannot be finished: an earlier write to it failed", path.display())]
    Unfinished {
        /// The file being written.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl RecordError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use RecordError::*;
        let rescan = "if the .rec file is whole, move the .idx file away: the .rec is then scanned";
        let hint = match self {
            Damaged { offset: 0, fault: Fault::NoMagic { .. }, .. } => {
                "this is no RecordIO file: give the `train.rec` that MXNet wrote".into()
            }
            Damaged {
                fault: Fault::NoMagic { .. } | Fault::NoRecordStart { .. },
                has_index: true,
                ..
            } => format!("the file is damaged there, or its .idx is another file's: {rescan}"),
            Damaged { fault: Fault::FrameCut { .. } | Fault::PayloadCut { .. }, .. } => {
                "the file was cut short, as by an interrupted copy: fetch it again".into()
            }
            Damaged { .. } => "the file is damaged there: fetch it again".into(),
            IndexSyntax { .. } | DuplicateKey { .. } => rescan.into(),
            IndexOffset { .. } => format!(
                "the .rec file was cut short, or the .idx is another file's: compare their sizes \
                 with the original's; {rescan}"
            ),
            NoSuchRecord { len: 0, .. } => "the file is empty".into(),
            NoSuchRecord { what, len, .. } => format!("{what}s are counted from 0 to {}", len - 1),
            BadRange { .. } => {
                "record 0 and the identity records hold ranges of keys; if the file is \
                                a classifier's of another kind, move its empty records away"
                    .into()
            }
            BadLabel { .. } => {
                "classes are whole numbers from 0: is the file a face recognition data set?".into()
            }
            PropertySyntax { .. } => {
                "the file is not needed for reading: move it away if it belongs to another program"
                    .into()
            }
            RecordTooLong { .. } => {
                "a face crop is far smaller: is the input the right one?".into()
            }
            LabelRounds { .. } | CountRounds { .. } => format!(
                "RecordIO stores numbers as float32, which counts exactly to {LABEL_EXACT_MAX} only; \
                 number the classes densely from 0, write without identity records, or use the \
                 native data set format, which has no such limit"
            ),
            LabelOrder { .. } => "with identity records all images of a class must follow each \
                                  other, classes ascending: sort by class"
                .into(),
            Folder(source) => return source.hint(),
            TooManyRecords { .. } | Unfinished { .. } => return None,
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}

/// The beginning of `bytes` as text for a message: one line, at most 40 characters.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let head = &bytes[..bytes.len().min(4 * SHOWN_MAX)];
    let text = String::from_utf8_lossy(head);
    let mut shown: String =
        text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).take(SHOWN_MAX).collect();
    if text.chars().count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}
