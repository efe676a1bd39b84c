//! What can go wrong between a data set on disk and its figures.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError;
use pfc_detect::NoFace;
use pfc_durable::{DurableError, FolderError, faults::is_of_system};
use pfc_embeddings::EmbeddingError;
use pfc_image::{ImageError, align::AlignError};
use pfc_metrics::MetricError;
use pfc_model::ModelError;
use pfc_report::ReportError;
use pfc_shard::ShardError;
use pfc_verify::VerifyError;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A folder without a list.
    #[error("{}: a folder, and no list of pairs is given", data.display())]
    NoList {
        /// The folder.
        data: PathBuf,
    },
    /// A photograph in which a detector finds no face that can be used.
    #[error("{image}: {reason}")]
    NoFace {
        /// The photograph.
        image: String,
        /// Why.
        reason: NoFace,
    },
    /// Two ways of finding faces at once.
    #[error("a detector and landmarks are both given")]
    DetectorAndLandmarks,
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
    /// Counts that belong to another comparison, or are damaged.
    #[error("{}: kept from another run: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Embeddings that cannot be read or kept.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// The numbers allow no figure.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A chart cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file that is no result of ours.
    #[error("{}: not a result that can be read: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A bound on a figure that is not among those found.
    #[error("--require {reason}")]
    NoFigure {
        /// The bound, and the figures that there are.
        reason: String,
    },
    /// The operating system refused.
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
    #[error("{}: {}", path.display(), pfc_cli::units::none_can(*n as u64, "image", "used"))]
    NothingReadable {
        /// The collection.
        path: PathBuf,
        /// Images tried.
        n: usize,
        /// The first image and its reason.
        example: String,
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
    /// Landmarks or a detector for a data set or a pack, whose images are cut out already.
    #[error("{}: its faces are cut out already", path.display())]
    PackedCrops {
        /// The data set.
        path: PathBuf,
    },
    /// An image of a list that a data set lacks.
    #[error("{}: no row of the data set is of `{image}`", path.display())]
    NotPacked {
        /// The data set.
        path: PathBuf,
        /// What the list calls the image.
        image: String,
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
    /// An output that would take the place of something else.
    #[error("{}: {problem}", path.display())]
    Output {
        /// Where it was to be written.
        path: PathBuf,
        /// What is there.
        problem: &'static str,
        /// What to do.
        hint: String,
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
            EvalError::Verify(VerifyError::Image { reason, .. }) if !reason.is_of_system() => {
                Ok(reason.to_string())
            }
            EvalError::Durable(error) | EvalError::Verify(VerifyError::Durable(error))
                if error.is_read() && !is_of_system(&error.source) =>
            {
                Ok(format!("cannot {}: {}", error.op, error.source))
            }
            EvalError::Unread { reject, .. } => Ok(reject.to_string()),
            EvalError::NoFace { reason, .. } => Ok(reason.to_string()),
            EvalError::Landmarks { source, .. } => Ok(source.to_string()),
            EvalError::NotPacked { .. } => Ok(self.to_string()),
            error => Err(error),
        }
    }

    /// Whether the system failed, which says nothing of any file.
    pub(crate) fn is_of_system(&self) -> bool {
        match self {
            EvalError::Durable(error) | EvalError::Verify(VerifyError::Durable(error)) => {
                is_of_system(&error.source)
            }
            EvalError::Embeddings(error) => error.is_of_system(),
            EvalError::Shard(error) => error.is_of_system(),
            _ => false,
        }
    }

    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EvalError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// A line of a list that breaks the list's layout; lines count from 1.
    pub(crate) fn line(
        path: &Path,
        line: usize,
        problem: impl Into<String>,
        layout: &'static str,
    ) -> EvalError {
        VerifyError::Line { path: path.to_owned(), line, problem: problem.into(), layout }.into()
    }

    /// An image that cannot be decoded.
    pub(crate) fn image(image: String, reason: ImageError) -> EvalError {
        VerifyError::Image { image, reason }.into()
    }

    pub(crate) fn document(path: &Path, reason: impl Into<String>) -> EvalError {
        EvalError::Document { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn list(path: &Path, reason: impl Into<String>) -> EvalError {
        EvalError::List { path: path.to_owned(), reason: reason.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            EvalError::NoList { .. } => {
                Some("give the list with --pairs, or an InsightFace pack as --data".to_owned())
            }
            EvalError::DetectorAndLandmarks => Some(
                "leave out --detector to cut faces out by the landmarks that are known".to_owned(),
            ),
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
            EvalError::NotPacked { .. } => Some(
                "images of a data set are called by the column `source` of its shards; without \
                 --list all are taken"
                    .to_owned(),
            ),
            EvalError::PackedCrops { .. } => {
                Some("leave out --align, --landmarks or --detector, or give a folder of photographs".to_owned())
            }
            EvalError::Landmarks { source, .. } => source.hint(),
            EvalError::State { path, .. } => Some(format!(
                "name another file, or delete `{}`: what it holds is counted again",
                path.display()
            )),
            EvalError::Embeddings(error) => error.hint(),
            EvalError::Metric(error) => error.hint(),
            EvalError::Report(error) => error.hint(),
            EvalError::Model(error) => error.hint(),
            EvalError::Durable(error) => error.hint(),
            EvalError::Folder(error) => error.hint(),
            EvalError::EmptyTemplates { .. } => Some(
                "restore their images, which are listed above, and run the same command again: with \
                 --cache only the parts that hold these are embedded anew"
                    .to_owned(),
            ),
            EvalError::Output { hint, .. } => Some(hint.clone()),
            EvalError::NothingReadable { example, .. } => Some(format!("the first one: {example}")),
            EvalError::NoFigure { .. } => {
                Some("--far names the rates at which TAR is read".to_owned())
            }
            EvalError::Document { .. } => {
                Some("write one with `pfc-eval lfw … --json > FILE`; any command's will do".to_owned())
            }
            _ => None,
        }
    }
}
