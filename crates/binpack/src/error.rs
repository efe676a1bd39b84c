//! Why a file is not read as a pack.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;

/// A pack that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file that is no verification pack.
    #[error("{}: not a verification pack: {reason}", path.display())]
    NotAPack {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl PackError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PackError::Durable(source) => source.hint(),
            PackError::NotAPack { .. } => Some(
                "a pack is a pickle of (images, issame) as InsightFace publishes them, such as \
                 lfw.bin; no other pickles are read, and nothing in one is ever run"
                    .to_owned(),
            ),
        }
    }
}
