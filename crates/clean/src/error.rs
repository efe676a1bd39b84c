//! Errors of the passes.

use pfc_embeddings::EmbeddingError;
use pfc_shard::ShardError;

/// A data set that a pass cannot be run on.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// There are too few pairs to calibrate a threshold on.
    #[error(
        "{pairs} pairs of different people are too few to calibrate a threshold on: a thousand are needed"
    )]
    TooFewPairs {
        /// Number of pairs found.
        pairs: u64,
    },
    /// Embeddings that say nothing about the data set's identities.
    #[error(
        "by these embeddings the images of an identity are no more alike than those of different ones: \
         the median image has cosine {own:.3} with its own centre, and a tenth of all others have {other:.3} \
         or more"
    )]
    OtherRows {
        /// Median cosine of an image with the centre of the others of its identity.
        own: f32,
        /// The score that a tenth of the pairs of different identities exceed.
        other: f32,
    },
    /// Decisions that cannot be applied: a fault of this program, or a damaged log.
    #[error("decisions contradict those before them: {what}")]
    Contradiction {
        /// The contradiction.
        what: String,
    },
    /// The user stopped it.
    #[error("interrupted after {done} of {total} {unit}")]
    Interrupted {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// The finished part of a comparison cannot be kept.
    #[error("what is compared so far cannot be kept")]
    Keep(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Embeddings that cannot be read.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// A data set that cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl CleanError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            CleanError::TooFewPairs { .. } => {
                "state the thresholds of each pass: --same-person and --maybe-same-person of merges, --label-match \
                 and --stranger of labels, --outlier and --stranger of outliers, --probe-match of overlap"
            }
            CleanError::OtherRows { .. } => {
                "are the rows in the order of the data set, and of its images? `pfc-eval embed DATASET \
                 FILE.arrow --model MODEL` writes rows with names, which are matched whatever their order"
            }
            CleanError::Contradiction { .. } => {
                "`pfc-ingest decisions undo` takes the last run back"
            }
            CleanError::Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind"
            }
            CleanError::Keep(_) => return None,
            CleanError::Embeddings(source) => return source.hint(),
            CleanError::Shard(source) => return source.hint(),
        };
        Some(hint.into())
    }
}
