//! What can go wrong between a data set on disk and its figures.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError;
use pfc_durable::{DurableError, FolderError, faults::is_of_system};
use pfc_image::{ImageError, align::AlignError};
use pfc_metrics::MetricError;
use pfc_model::ModelError;
use pfc_shard::ShardError;
use pfc_verify::VerifyError;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The operating system refused.
    #[error("{}: cannot {op}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line of a list that breaks the list's layout.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
        /// What the layout is.
        layout: &'static str,
    },
    /// Images of a list that the data folder lacks.
    #[error(
        "{}: {n_missing} of {n_images} images of {} are missing, first `{first}` (line {line})",
        root.display(), list.display()
    )]
    MissingImages {
        /// The data folder.
        root: PathBuf,
        /// The list that names the images.
        list: PathBuf,
        /// How many are missing.
        n_missing: usize,
        /// How many the list names.
        n_images: usize,
        /// The first missing one.
        first: String,
        /// The line that names it.
        line: usize,
    },
    /// A folder without a list.
    #[error("{}: a folder, and no list of pairs is given", data.display())]
    NoList {
        /// The folder.
        data: PathBuf,
    },
    /// A folder of images without the list that names them.
    #[error("{}: a folder, and no list of its images is given", images.display())]
    NoImageList {
        /// The folder.
        images: PathBuf,
    },
    /// A set of pairs that cannot be read or judged.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A verification pack that cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A data set that cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The decisions beside a data set cannot be applied.
    #[error(transparent)]
    Findings(#[from] pfc_findings::FindingsError),
    /// A collection of images that cannot be listed.
    #[error(transparent)]
    Source(#[from] pfc_sources::SourceError),
    /// A place without images.
    #[error("{}: no image is in it", path.display())]
    NoImages {
        /// The place.
        path: PathBuf,
    },
    /// An output that cannot hold what is wanted.
    #[error("{}: cannot hold the embeddings: {reason}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// An image that cannot be decoded.
    #[error("{image}: cannot decode the image: {reason}")]
    Image {
        /// Where the image is.
        image: String,
        /// What the decoder says.
        reason: ImageError,
    },
    /// An image whose bytes cannot be had.
    #[error("{image}: {reject}")]
    Unread {
        /// Where the image is.
        image: String,
        /// Why not.
        reject: pfc_sources::Reject,
    },
    /// The network cannot be opened or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The numbers allow no figure.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A chart cannot be drawn.
    #[error("cannot draw the chart: {reason}")]
    Plot {
        /// What the drawing library says.
        reason: String,
    },
    /// A file that is no result of ours.
    #[error("{}: not a result that can be read: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file could not be written whole.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A folder is in use or may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Templates of a benchmark none of whose faces can be used.
    #[error("{n} templates have no face that can be read, the first is {first}")]
    EmptyTemplates {
        /// The smallest of their ids.
        first: u64,
        /// How many they are.
        n: usize,
    },
    /// Not one image of a collection can be used.
    #[error("{}: none of its {n} images can be used", path.display())]
    NothingReadable {
        /// The collection.
        path: PathBuf,
        /// Images tried.
        n: usize,
        /// The first image and its reason.
        example: String,
    },
    /// A file that holds no embeddings which can be used.
    #[error("{}: not a file of embeddings: {reason}", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Embeddings of another number of faces than the lists name.
    #[error("{n_rows} rows of embeddings for {n_faces} faces")]
    FeatureRows {
        /// Rows given.
        n_rows: usize,
        /// Faces of the set.
        n_faces: usize,
    },
    /// Embeddings of mirror images are wanted and missing.
    #[error("there are no embeddings of the mirror images")]
    NoMirrored,
    /// A file that is no feature of MegaFace's devkit.
    #[error("{}: not a feature file of the devkit: {reason}", path.display())]
    Devkit {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file that lists no images.
    #[error("{}: not a list of images: {reason}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An image of a list that a data set lacks.
    #[error("{}: no row of the data set is of `{image}`", path.display())]
    NotPacked {
        /// The data set.
        path: PathBuf,
        /// What the list calls the image.
        image: String,
    },
    /// A folder of kept embeddings that belong to something else.
    #[error("{}: kept from another run: {reason}", path.display())]
    Cache {
        /// What describes the folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Landmarks of a list that make no crop.
    #[error("{}:{line}: the face cannot be aligned", path.display())]
    Landmarks {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why not.
        #[source]
        source: AlignError,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl EvalError {
    /// Why an image cannot be used, of an error that is about that image alone.
    ///
    /// # Errors
    ///
    /// The error itself where it is a fault of the system: the image may be read another time.
    pub(crate) fn of_image(self) -> Result<String, EvalError> {
        match self {
            EvalError::Image { reason, .. }
            | EvalError::Verify(VerifyError::Image { reason, .. })
                if !reason.is_of_system() =>
            {
                Ok(reason.to_string())
            }
            EvalError::Io { op, source, .. }
            | EvalError::Verify(VerifyError::Io { op, source, .. })
                if !is_of_system(&source) =>
            {
                Ok(format!("cannot {op}: {source}"))
            }
            EvalError::Unread { reject, .. } => Ok(reject.to_string()),
            EvalError::Landmarks { source, .. } => Ok(source.to_string()),
            EvalError::NotPacked { .. } => Ok(self.to_string()),
            error => Err(error),
        }
    }

    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EvalError {
        let path = path.to_owned();
        move |source| EvalError::Io { op, path, source }
    }

    pub(crate) fn document(path: &Path, reason: impl Into<String>) -> EvalError {
        EvalError::Document { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn features(path: &Path, reason: impl Into<String>) -> EvalError {
        EvalError::Features { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn list(path: &Path, reason: impl Into<String>) -> EvalError {
        EvalError::List { path: path.to_owned(), reason: reason.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            EvalError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("there is no `{}`: is the path right?", path.display()))
            }
            EvalError::Line { layout, .. } => Some((*layout).to_owned()),
            EvalError::MissingImages { root, .. } => Some(format!(
                "is `{}` the folder that the list's paths start from, and is the download complete?",
                root.display()
            )),
            EvalError::Image { reason, .. } => reason.hint(),
            EvalError::NoList { .. } => {
                Some("give the list with --pairs, or an InsightFace pack as --data".to_owned())
            }
            EvalError::NoImageList { images } => Some(format!(
                "name the images below {} with --list: one path a line, or the devkit's JSON",
                images.display()
            )),
            EvalError::Verify(error) => error.hint(),
            EvalError::Pack(error) => error.hint(),
            EvalError::Shard(error) => error.hint(),
            EvalError::Findings(error) => error.hint(),
            EvalError::Source(error) => error.hint(),
            EvalError::NoImages { .. } => Some(
                "the decisions beside the data set may leave all of it out: --as-packed reads it \
                 without them"
                    .to_owned(),
            ),
            EvalError::Output { .. } => Some(
                "name a file that ends in .npy, .arrow or .safetensors; the latter two can keep \
                 mirrored embeddings beside the others"
                    .to_owned(),
            ),
            EvalError::Features { .. } => Some(
                "float32 arrays of two dimensions are read, one embedding a row, from .safetensors \
                 or .npy (in Python: numpy.save(name, x.astype('<f4')))"
                    .to_owned(),
            ),
            EvalError::FeatureRows { .. } => Some(
                "the rows of the embeddings belong to the lines of the lists, one each in the same \
                 order"
                    .to_owned(),
            ),
            EvalError::NoMirrored => Some(
                "name their file with --mirrored, store them as `embs_f` beside `embs`, or leave \
                 them out with --no-flip"
                    .to_owned(),
            ),
            EvalError::Devkit { .. } => Some(
                "the devkit wants a feature file for every image of its lists: 16 bytes of header \
                 (dimension, 1, 4, 5), then float32; `pfc-eval megaface embed` writes them"
                    .to_owned(),
            ),
            EvalError::List { .. } => Some(
                "lists are the devkit's JSON ({\"path\": […], \"id\": […]}) or one image path a line"
                    .to_owned(),
            ),
            EvalError::Cache { path, .. } => Some(format!(
                "name another folder, or delete `{}` if its embeddings are not needed",
                path.parent().unwrap_or(path).display()
            )),
            EvalError::NotPacked { .. } => Some(
                "images of a data set are called by the column `source` of its shards; without \
                 --list all are taken"
                    .to_owned(),
            ),
            EvalError::Landmarks { source, .. } => source.hint(),
            EvalError::Metric(error) => error.hint(),
            EvalError::Model(error) => error.hint(),
            EvalError::Durable(error) => error.hint(),
            EvalError::Folder(error) => error.hint(),
            EvalError::EmptyTemplates { .. } => Some(
                "restore their images, which are listed above, and run the same command again: with \
                 --cache only the parts that hold these are embedded anew"
                    .to_owned(),
            ),
            EvalError::NothingReadable { example, .. } => Some(format!("the first one: {example}")),
            EvalError::Document { .. } => {
                Some("write one with `pfc-eval lfw … --json > FILE`; any command's will do".to_owned())
            }
            _ => None,
        }
    }
}
