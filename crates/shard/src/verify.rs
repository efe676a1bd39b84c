//! Every byte of a data set against what the manifest and the rows say of it.

use std::path::{Path, PathBuf};

use crate::{Manifest, ShardError};

/// What is wrong with one file or one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The file, relative to the data set's folder.
    pub file: PathBuf,
    /// The row, when it is known.
    pub row: Option<RowPlace>,
    /// What is wrong; its `Display` is a sentence without a full stop.
    pub fault: Fault,
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// Row in the file.
    pub in_file: u64,
    /// Row in the data set, the argument of [`Dataset::get`](crate::Dataset::get).
    pub in_dataset: u64,
}

/// One kind of damage.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Placeholder.
    #[error("{0}")]
    Structure(String),
}

/// What [`verify`] looked at and found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The manifest that the files were held against.
    pub manifest: Manifest,
    /// Rows that could be examined.
    pub rows: u64,
    /// Bytes of the files that could be read.
    pub bytes: u64,
    /// Number of faults, more than `findings` holds if one file has very many.
    pub n_faults: u64,
    /// Faults in the order of files and rows, the same for every number of threads.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.n_faults == 0
    }
}

/// Checks every file and row of the data set in `dir`, in parallel.
///
/// `on_progress` is called from several threads with the number of bytes just checked; they add up
/// to at most [`Manifest::bytes`].
pub fn verify(_dir: &Path, _on_progress: impl Fn(u64) + Sync) -> Result<VerifyReport, ShardError> {
    unimplemented!()
}
