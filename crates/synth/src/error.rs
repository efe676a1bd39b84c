//! Why a folder of faces cannot be made.

use pfc_durable::{DurableError, FolderError};

/// A world that cannot be drawn, or a folder that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The folder to write is in use or holds something.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Numbers that do not fit together.
    #[error("{what}")]
    Arguments {
        /// Which, and their bounds.
        what: String,
        /// What to change.
        hint: &'static str,
    },
    /// The user stopped it.
    #[error("interrupted before all {total} images were drawn")]
    Interrupted {
        /// Images in all.
        total: u64,
    },
    /// A file or folder could not be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl SynthError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            SynthError::Folder(source) => source.hint(),
            SynthError::Arguments { hint, .. } => Some((*hint).into()),
            SynthError::Interrupted { .. } => {
                Some("run the same command again; nothing half-written was left behind".into())
            }
            SynthError::Durable(source) => source.hint(),
        }
    }
}
