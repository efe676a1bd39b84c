//! What can keep an export from being written.

use std::{
    io,
    path::{Path, PathBuf},
};

use parquet::errors::ParquetError;
use pfc_durable::DurableError;
use pfc_recordio::RecordError;
use pfc_shard::ShardError;

use crate::IngestError;

/// A selection that cannot be made or an output that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An identity asked for that the data set does not have.
    #[error("{place}: the data set has no identity `{name}`")]
    NoSuchIdentity {
        /// The option, or file and line, that names it.
        place: String,
        /// The name.
        name: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// A list of names without any.
    #[error("{}: names no identity", path.display())]
    NoNames {
        /// The list.
        path: PathBuf,
    },
    /// Nothing is left after selection.
    #[error("nothing to export: none of {n_rows} images is selected")]
    NothingSelected {
        /// Rows of the data set.
        n_rows: u64,
    },
    /// The bytes of an image are not those that were packed.
    #[error(
        "row {row} (`{from}`): the image is damaged: its bytes do not have the hash beside them"
    )]
    DamagedImage {
        /// The row of the data set.
        row: u64,
        /// Its source.
        from: String,
    },
    /// An option that the format has no use for, or lacks.
    #[error("{what}")]
    Options {
        /// Which.
        what: String,
        /// What to give instead.
        hint: String,
    },
    /// More pairs asked for than the selected images have.
    #[error(
        "{n_pairs} pairs ask for {wanted} of {sort} in a group of {people} people, which has {found}"
    )]
    TooFewPairs {
        /// Pairs in all.
        n_pairs: u64,
        /// Pairs of the sort that a group must give.
        wanted: u64,
        /// `one person` or `two people`.
        sort: &'static str,
        /// People of the group.
        people: usize,
        /// Pairs that it has.
        found: u128,
    },
    /// A line of a list of pairs.
    #[error("{}: line {line}: {problem}", path.display())]
    PairsFile {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A Parquet file could not be written.
    #[error("{}: cannot write", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        #[source]
        source: ParquetError,
    },
    /// Shared with the other commands.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The data set cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A RecordIO file cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file could not be made visible.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl ExportError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use ExportError::*;
        let hint = match self {
            NoSuchIdentity { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            NoSuchIdentity { nearest: None, .. } => {
                "names are those of the folders that were packed, with `/` between them".into()
            }
            NoNames { .. } => "write one name a line".into(),
            NothingSelected { .. } => {
                "an image must pass --identity, --identities, --label and --split together".into()
            }
            DamagedImage { .. } => {
                "`pfc-ingest verify` lists everything that is damaged; restore the shard from a \
                 copy, or pack the data set again"
                    .into()
            }
            Options { hint, .. } => hint.clone(),
            TooFewPairs { .. } => "ask for fewer pairs, or select more images".into(),
            PairsFile { .. } => {
                "a line is `PATH PATH 1` for one person and `PATH PATH 0` for two, \
                                 where PATH is the source of an image; or the list is LFW's \
                                 pairs.txt"
                    .into()
            }
            Parquet { path, source } => {
                let ParquetError::External(source) = source else { return None };
                let source = source.downcast_ref::<io::Error>()?.kind().into();
                return DurableError { op: "write", path: path.clone(), source }.hint();
            }
            Ingest(source) => return source.hint(),
            Shard(source) => return source.hint(),
            Record(source) => return source.hint(),
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}
