//! Why an image could not be loaded.

use pfc_image::ImageError;
use pfc_shard::ShardError;
use tch::TchError;

/// An image that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The row cannot be read.
    #[error("row {row} of the data set cannot be read")]
    Row {
        /// The row.
        row: u64,
        /// Why.
        #[source]
        source: ShardError,
    },
    /// The image cannot be decoded.
    #[error("row {row} of the data set, `{face}`, cannot be decoded")]
    Image {
        /// The row.
        row: u64,
        /// Where the image came from.
        face: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// There is no memory for a batch.
    #[error("no memory for a batch of {n_images} images")]
    Memory {
        /// Images of this rank.
        n_images: usize,
        /// Why.
        #[source]
        source: TchError,
    },
    /// A thread cannot be started.
    #[error("a loader thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// Neither the image nor any of those that were tried in its place can be loaded.
    #[error("row {row} cannot be loaded, nor can {tried} others that were tried in its place")]
    NoneReadable {
        /// The row.
        row: u64,
        /// Rows tried.
        tried: u64,
        /// Why the first was not.
        #[source]
        source: Box<LoadError>,
    },
    /// What was wrong with an image, in words.
    #[error("{0}")]
    Elsewhere(String),
    /// The threads are gone.
    #[error("the loader threads have ended early")]
    Ended,
}

impl LoadError {
    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        match self {
            LoadError::Row { source, .. } => source.hint(),
            LoadError::Image { source, .. } if source.is_of_system() => source.hint(),
            LoadError::Image { .. } => Some(
                "`pfc-ingest verify` tells whether the data set is damaged; `--set \
                 data.on_error=skip` goes on without such images and lists them"
                    .to_owned(),
            ),
            LoadError::NoneReadable { .. } => Some(
                "most of the data set is damaged or out of reach: `pfc-ingest verify` says what \
                 is wrong with it"
                    .to_owned(),
            ),
            LoadError::Memory { .. } => Some(
                "lower `train.batch_size`, `data.batches_ahead` or `data.loader_threads`"
                    .to_owned(),
            ),
            LoadError::Thread(_) | LoadError::Elsewhere(_) | LoadError::Ended => None,
        }
    }

    /// Whether the image itself is at fault, and not the system or the trainer.
    pub(crate) fn is_of_the_image(&self) -> bool {
        match self {
            LoadError::Row { source, .. } => !matches!(source, ShardError::Durable(_)),
            LoadError::Image { source, .. } => !source.is_of_system(),
            _ => false,
        }
    }

    /// The error and its causes.
    pub(crate) fn in_one_line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}

/// Why rows cannot be drawn.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BadWeights {
    /// A weight that is none.
    #[error("row {row} has the weight {weight}, and weights are 0 or more")]
    Negative {
        /// The row of the data set, as decisions leave it.
        row: u64,
        /// Its weight.
        weight: f32,
    },
    /// Nothing can be drawn.
    #[error("no row has a weight above 0")]
    AllZero,
}
