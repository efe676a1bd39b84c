//! What can keep a command from running, said so that the user knows where and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError as BinError;
use pfc_durable::{DurableError, FolderError};
use pfc_recordio::RecordError;
use pfc_shard::{ImageSize, ShardError, decode::DecodeError};

use crate::{
    clean::CleanError, embeddings::EmbeddingError, landmarks::LandmarkError, pack::PackError,
    source::InputError, units,
};

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
    /// Another process computes the same embeddings.
    #[error("{}: another process is at work on these embeddings", part.display())]
    Embedding {
        /// What it has so far.
        part: PathBuf,
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
    /// The input is not there.
    #[error("{}: there is no such folder", path.display())]
    NoSuchFolder {
        /// The path given.
        path: PathBuf,
    },
    /// The input is a file.
    #[error("{}: is a file, not a folder of identities", path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// No folder below the input holds images.
    #[error("{}: no identity folder with images in it", path.display())]
    NoIdentities {
        /// The folder searched.
        path: PathBuf,
        /// Images that lie directly in it.
        n_loose: u64,
    },
    /// A folder with images lies in another one.
    #[error("`{inner}` lies inside `{outer}`, and both hold images: whose are they?")]
    NestedIdentity {
        /// The outer identity folder, relative to the input.
        outer: String,
        /// The inner one.
        inner: String,
    },
    /// Labels are 32 bits wide.
    #[error("{n} identities are more than a data set can hold")]
    TooManyIdentities {
        /// Identity folders found.
        n: usize,
    },
    /// Names are stored as UTF-8.
    #[error("{}: the folder's name is not valid UTF-8", path.display())]
    NameNotUtf8 {
        /// The folder.
        path: PathBuf,
    },
    /// A link leads back to a folder that it lies in.
    #[error("{}: is a link back to {}, so the folder has no end", path.display(), ancestor.display())]
    FolderLoop {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        ancestor: PathBuf,
    },
    /// A RecordIO file without images.
    #[error("{}: holds no images", path.display())]
    NoRecords {
        /// The `.rec` file.
        path: PathBuf,
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
        source: DecodeError,
    },
    /// A data set without rows.
    #[error("the data set holds no images")]
    NothingToMeasure,
    /// No threads are to be had.
    #[error("cannot start {}", if *n == 0 { "a thread per core".into() } else { units::of(*n as u64, "thread") })]
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
    /// The arguments of `synth` do not fit together.
    #[error("{what}")]
    SynthArguments {
        /// Which, and their bounds.
        what: String,
        /// What to change.
        hint: &'static str,
    },
    /// The operating system refused.
    #[error("{}: cannot {op}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// The file or folder it was done to.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A pack that cannot go on, or parts that cannot be joined.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A data set could not be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A RecordIO file could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A verification pack could not be read.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// The input is not what it should be.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A list of landmarks could not be understood.
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
    /// A data set that cannot be cleaned so.
    #[error(transparent)]
    Clean(#[from] CleanError),
    /// Embeddings that are not those of the data set.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// A network that cannot be used.
    #[error(transparent)]
    Onnx(#[from] pfc_onnx::OnnxError),
    /// A file could not be made visible.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl IngestError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
        let path = path.to_path_buf();
        move |source| IngestError::Io { op, path, source }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use IngestError::*;
        let hint = match self {
            Folder(source) => return source.hint(),
            FileExists { path } => {
                format!("choose another name, or give --force to replace {}", path.display())
            }
            Embedding { .. } => {
                "wait for it and run the same command again: it then finds them done".into()
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
            NoSuchFolder { .. } => "is the path right?".into(),
            NotAFolder { .. } => {
                "give a folder with one sub-folder of images per identity, as in faces/NAME/1.jpg, \
                 or say with --from what the file is"
                    .into()
            }
            NoIdentities { path, n_loose: 0 } => format!(
                "put the images of each identity in a folder of its own, as in {}/NAME/1.jpg",
                path.display()
            ),
            NoIdentities { path, n_loose } => format!(
                "{n_loose} images lie directly in {0}: put those of each identity in a folder of \
                 its own, as in {0}/NAME/1.jpg, or give the folder above",
                path.display()
            ),
            NestedIdentity { outer, .. } => format!(
                "an identity is a folder of images without further identities in it: move the \
                 images that lie directly in `{outer}` to a folder of their own"
            ),
            TooManyIdentities { .. } => format!("a data set holds up to {} identities", u32::MAX),
            NameNotUtf8 { .. } => "rename the folder; `convmv` does it for many".into(),
            FolderLoop { path, .. } => format!("remove the link {}", path.display()),
            NoRecords { .. } => "the file is empty, or its .idx is: is the copy complete?".into(),
            NothingUsable { example, .. } => format!("the first one: {example}"),
            BadRow { source, .. } => return source.hint(),
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
            SynthArguments { hint, .. } => (*hint).into(),
            Io { op, path, source } => {
                let kind = source.kind();
                return DurableError { op, path: path.clone(), source: kind.into() }.hint();
            }
            Pack(source) => return source.hint(),
            Shard(source) => return source.hint(),
            Record(source) => return source.hint(),
            Bin(source) => return source.hint(),
            Input(source) => source.hint(),
            Landmarks(source) => return source.hint(),
            Clean(source) => return source.hint(),
            Embeddings(source) => return source.hint(),
            Onnx(source) => return source.hint(),
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
