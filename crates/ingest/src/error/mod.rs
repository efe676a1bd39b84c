//! What can keep a command from running, said so that the user knows where and what to do.

mod pack;

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError as BinError;
use pfc_clean::CleanError;
use pfc_durable::{DurableError, FolderError};
use pfc_embeddings::EmbeddingError;
use pfc_findings::FindingsError;
use pfc_image::{ImageError, ImageSize};
use pfc_recordio::RecordError;
use pfc_shard::ShardError;
use pfc_sources::SourceError;

use crate::landmarks::LandmarkError;
pub use pack::PackError;

/// An input that cannot be read or an output that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The folder to write is in use, holds something, or lies in the input.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file to write is there already.
    #[error("{}: already exists", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// A data set has nobody of this name.
    #[error("nobody is called `{name}`")]
    NoSuchIdentity {
        /// The name asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A label beyond the last.
    #[error("there is no label {label} among {n_identities} identities")]
    NoSuchLabel {
        /// The label asked for.
        label: u32,
        /// Identities of the data set.
        n_identities: u32,
    },
    /// Images beyond what is drawn.
    #[error("images of {size} pixels are too large for a sheet")]
    SheetTooLarge {
        /// The size of all images.
        size: ImageSize,
    },
    /// Rows beyond the last.
    #[error("there is no row {start} among {n_rows}")]
    NoSuchRows {
        /// The first row asked for.
        start: u64,
        /// Rows of the data set.
        n_rows: u64,
    },
    /// The folder to write holds a finished data set.
    #[error("{}: already holds a data set", path.display())]
    DatasetExists {
        /// The folder.
        path: PathBuf,
        /// Whether the command can replace it.
        may_force: bool,
    },
    /// The data set to be replaced has decisions, which nothing could bring back.
    #[error("{}: holds decisions about the data set that is to be replaced", path.display())]
    DecisionsKept {
        /// Their folder.
        path: PathBuf,
    },
    /// Labels are 32 bits wide.
    #[error("{n} identities are more than a data set can hold")]
    TooManyIdentities {
        /// Identity folders found.
        n: usize,
    },
    /// Not one image could be used.
    #[error("{}: none of its {n} images can be read", path.display())]
    NothingUsable {
        /// The input.
        path: PathBuf,
        /// Images tried.
        n: u64,
        /// The first image and its reason.
        example: String,
    },
    /// A row whose image cannot be decoded.
    #[error("row {row} of the data set, `{face}`, cannot be decoded")]
    BadRow {
        /// The row.
        row: u64,
        /// Where the image came from.
        face: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// There is no memory for an image.
    #[error("`{image}` cannot be decoded now")]
    Memory {
        /// Where the image comes from.
        image: String,
        /// What was asked for.
        #[source]
        source: ImageError,
    },
    /// An image whose bytes are not those that were packed.
    #[error("row {row}, `{from}`, is not as it was packed: its image does not match its hash")]
    DamagedImage {
        /// The row of the data set.
        row: u64,
        /// Where the image came from.
        from: String,
    },
    /// A data set without rows.
    #[error("the data set holds no images")]
    NothingToMeasure,
    /// No threads are to be had.
    #[error("cannot start {}", if *n == 0 { "a thread per core".into() } else { pfc_cli::units::of(*n as u64, "thread") })]
    Threads {
        /// Threads asked for; 0 for one per core.
        n: usize,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The user stopped it.
    #[error("interrupted after {done} of {total} images")]
    Interrupted {
        /// Images done.
        done: u64,
        /// Images in all.
        total: u64,
    },
    /// A pack that cannot go on, or parts that cannot be joined.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A data set could not be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A log of findings that cannot be read, applied or written.
    #[error(transparent)]
    Findings(#[from] FindingsError),
    /// A RecordIO file could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A verification pack could not be read.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// The input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A list of landmarks could not be understood.
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
    /// Options that do not fit together.
    #[error("{what}")]
    Options {
        /// Which.
        what: String,
        /// What to give instead.
        hint: &'static str,
    },
    /// A data set that a pass of `clean` cannot be run on.
    #[error(transparent)]
    Clean(#[from] CleanError),
    /// Embeddings that cannot be had, or are not those of the data set.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl IngestError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use IngestError::*;
        let hint = match self {
            Folder(source) => return source.hint(),
            FileExists { path } => {
                format!("choose another name, or give --force to replace {}", path.display())
            }
            NoSuchIdentity { nearest: Some(nearest), .. } => format!("is it `{nearest}`?"),
            NoSuchIdentity { nearest: None, .. } => {
                "names are those of the packed folders, with the folders above them if there were \
                 any, or `id_CLASS` from RecordIO; --sample shows some"
                    .into()
            }
            NoSuchLabel { n_identities, .. } => {
                format!("labels run from 0 to {}", u64::from(*n_identities).saturating_sub(1))
            }
            SheetTooLarge { .. } => "a sheet takes up to 1 GiB of pixels".into(),
            NoSuchRows { n_rows, .. } => {
                format!("rows run from 0 to {}", n_rows.saturating_sub(1))
            }
            DatasetExists { path, may_force: true } => format!(
                "choose another folder, or give --force to replace {} once the new one is complete",
                path.display()
            ),
            DatasetExists { path, may_force: false } => {
                format!("choose another folder, or remove {} first", path.display())
            }
            DecisionsKept { path } => format!(
                "apply them with `pfc-ingest compact`, pack into another folder, or move {} to \
                 another place if they are not wanted any more: they are about the rows of the old \
                 data set alone",
                path.display()
            ),
            TooManyIdentities { .. } => format!("a data set holds up to {} identities", u32::MAX),
            NothingUsable { example, .. } => format!("the first one: {example}"),
            DamagedImage { .. } => {
                "`pfc-ingest verify` lists everything that is damaged; restore the file from a copy, or \
                 pack the data set again"
                    .into()
            }
            Memory { source, .. } => return source.hint(),
            BadRow { source, .. } if source.is_of_system() => return source.hint(),
            BadRow { .. } => {
                "`pfc-ingest clean` leaves images out that cannot be decoded; `pfc-ingest verify \
                 --decode` lists them"
                    .into()
            }
            Threads { .. } => {
                "this user or container may not start so many: give a smaller number with --threads \
                 where the command has that option, or raise the limit (`ulimit -u`, or that of the \
                 container)"
                    .into()
            }
            NothingToMeasure => "a measurement needs some".into(),
            Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind".into()
            }
            Pack(source) => return source.hint(),
            Shard(source) => return source.hint(),
            Findings(source) => return source.hint(),
            Record(source) => return source.hint(),
            Bin(source) => return source.hint(),
            Source(source) => return source.hint(),
            Landmarks(source) => return source.hint(),
            Options { hint, .. } => (*hint).into(),
            Clean(source) => return source.hint(),
            Embeddings(source) => return source.hint(),
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_as_such() {
        let error =
            IngestError::at("write", Path::new("out/a.jpg"))(io::ErrorKind::StorageFull.into());
        assert_eq!(error.to_string(), "out/a.jpg: cannot write");
        assert!(error.hint().unwrap().starts_with("the disk that holds out/a.jpg is full"));
    }
}
