//! Why a data set cannot be cleaned.

/// Arguments that do not fit together, or findings that contradict one another.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Passes that compare faces, without embeddings.
    #[error("pass `{pass}` compares embeddings, and none are given")]
    NoEmbeddings {
        /// The first such pass.
        pass: &'static str,
    },
    /// A pass that counts without a number.
    #[error("pass `{pass}` needs {option}")]
    Missing {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: &'static str,
    },
    /// Embeddings of two models.
    #[error("the probes have {found} numbers, the embeddings {expected}")]
    Dim {
        /// Of the probes.
        found: usize,
        /// Of the data set.
        expected: usize,
    },
    /// Too little to tell a threshold from.
    #[error("{pairs} pairs of different people are too few to tell a threshold from")]
    TooFewPairs {
        /// Pairs there are.
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
        /// What a tenth of the scores of different identities exceed.
        other: f32,
    },
    /// Decisions that cannot be applied: a fault of this program, or a damaged log.
    #[error("decisions contradict those before them: {what}")]
    Contradiction {
        /// Which.
        what: String,
    },
    /// Data sets that cannot be joined.
    #[error("{what}")]
    Join {
        /// Why not.
        what: String,
    },
}

impl CleanError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            CleanError::NoEmbeddings { .. } => {
                "give them with --embeddings FILE, or a network with --model FILE.onnx; \
                 `--pass files` needs neither"
            }
            CleanError::Missing { .. } => "state it, or leave the pass out",
            CleanError::Dim { .. } => "embed both with the same network",
            CleanError::TooFewPairs { .. } => {
                "state the thresholds with --same-person, --label-match and --stranger"
            }
            CleanError::OtherRows { .. } => {
                "are the rows in the order of the data set, and of its images? `pfc-eval embed DATASET \
                 FILE.arrow --model MODEL` writes rows with names, which are matched whatever their order"
            }
            CleanError::Contradiction { .. } => {
                "`pfc-ingest decisions undo` takes the last run back"
            }
            CleanError::Join { .. } => {
                "give the data sets to join and, with --embeddings, a file for each in that order"
            }
        };
        Some(hint.into())
    }
}
