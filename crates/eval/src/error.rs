//! What can go wrong between a data set on disk and its figures.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_metrics::MetricError;
use pfc_model::ModelError;

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
    /// An image that cannot be decoded.
    #[error("{image}: cannot decode the image: {reason}")]
    Image {
        /// Where the image is.
        image: String,
        /// What the decoder says.
        reason: String,
    },
    /// The network cannot be opened or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Not one embedding per image.
    #[error("{n_values} embedding values cannot be shared among {n_images} images")]
    EmbeddingSize {
        /// Values given.
        n_values: usize,
        /// Images of the set.
        n_images: usize,
    },
    /// The numbers allow no figure.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl EvalError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EvalError {
        let path = path.to_owned();
        move |source| EvalError::Io { op, path, source }
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
            EvalError::Image { .. } => Some(
                "JPEG, PNG, BMP, WebP and PNM are read; download or re-encode the image".to_owned(),
            ),
            EvalError::Metric(error) => error.hint(),
            EvalError::Model(error) => error.hint(),
            _ => None,
        }
    }
}
