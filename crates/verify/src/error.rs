//! What can go wrong between a list of pairs and its figures.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError;
use pfc_detect::DetectError;
use pfc_durable::DurableError;
use pfc_findings::FindingsError;
use pfc_image::ImageError;
use pfc_metrics::MetricError;
use pfc_model::ModelError;
use pfc_sources::SourceError;

/// Why a set of pairs cannot be read or judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A detector that fails, which says nothing of a picture.
    #[error(transparent)]
    Detect(#[from] DetectError),
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
    /// Images of a list that are no rows of the packed data set.
    #[error(
        "{}: {n_missing} of {n_images} images of {} are no rows of the data set, first `{first}` (line {line})",
        root.display(), list.display()
    )]
    MissingRows {
        /// The data set.
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
        /// Whether decisions leave rows of the data set out.
        are_some_left_out: bool,
    },
    /// A list that holds nothing.
    #[error("{}: the list holds no pair", list.display())]
    NoPairs {
        /// The list.
        list: PathBuf,
    },
    /// Images whose quality nobody can have measured.
    #[error(
        "{set}: its images are no rows of a packed data set, of which alone quality is measured"
    )]
    NoQuality {
        /// The set.
        set: String,
    },
    /// A verification pack that cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A verification set of another program that cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A packed data set that cannot be read, or what was decided about it.
    #[error(transparent)]
    Dataset(#[from] FindingsError),
    /// An image that cannot be decoded.
    #[error("{image}: cannot decode the image: {reason}")]
    Image {
        /// Where the image is.
        image: String,
        /// What the decoder says.
        reason: ImageError,
    },
    /// The network cannot be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An embedding that cannot be compared with others.
    #[error("{model}: its embedding of `{image}` is {what}")]
    Unusable {
        /// The file of the model, or what stands for it.
        model: String,
        /// The image.
        image: String,
        /// What is wrong with it: `not finite`, or that it is zero.
        what: &'static str,
    },
    /// Not one embedding per image.
    #[error("{n_values} embedding values cannot be shared among {n_images} images")]
    EmbeddingSize {
        /// Values given.
        n_values: usize,
        /// Images of the set.
        n_images: usize,
    },
    /// The PCA step, asked of a set that has no folds to fit it on.
    #[error("a PCA to {components} dimensions needs the ten folds that a single list lacks")]
    NoFolds {
        /// Components asked for.
        components: usize,
    },
    /// The numbers allow no figure.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

impl VerifyError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VerifyError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            VerifyError::Detect(error) => error.hint(),
            VerifyError::Durable(error) => error.hint(),
            VerifyError::Line { layout, .. } => Some((*layout).to_owned()),
            VerifyError::MissingImages { root, .. } => Some(format!(
                "is `{}` the folder that the list's paths start from, and is the download complete?",
                root.display()
            )),
            VerifyError::MissingRows { are_some_left_out: true, .. } => Some(
                "decisions leave some rows of the data set out, perhaps these: --as-packed reads all rows, \
                 and so does `as_packed = true` of a set in [[eval.sets]]"
                    .into(),
            ),
            VerifyError::MissingRows { .. } => Some(
                "a list names rows by what they were called when they were packed, which `pfc-ingest show` \
                 prints, or by their number, from 0"
                    .into(),
            ),
            VerifyError::Pack(error) => error.hint(),
            VerifyError::Source(error) => error.hint(),
            VerifyError::Dataset(error) => error.hint(),
            VerifyError::Image { reason, .. } => reason.hint(),
            VerifyError::Model(error) => error.hint(),
            VerifyError::Metric(error) => error.hint(),
            VerifyError::Unusable { .. } => Some(
                "the weights are damaged or of a run that diverged, or half precision is too narrow \
                 for this network: try another file, an earlier checkpoint, or f32"
                    .to_owned(),
            ),
            VerifyError::NoQuality { .. } => Some(
                "pack the faces with `pfc-ingest pack`, measure them with `pfc-ingest quality`, and give \
                 the data set for --data"
                    .into(),
            ),
            VerifyError::NoPairs { .. }
            | VerifyError::EmbeddingSize { .. }
            | VerifyError::NoFolds { .. } => None,
        }
    }
}
