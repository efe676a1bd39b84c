//! Why a file is not read as a pack.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A pack that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
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
    /// A file that is no verification pack.
    #[error("{}: not a verification pack: {reason}", path.display())]
    NotAPack {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl PackError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackError {
        let path = path.to_owned();
        move |source| PackError::Io { op, path, source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PackError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("there is no `{}`: is the path right?", path.display()))
            }
            PackError::Io { .. } => None,
            PackError::NotAPack { .. } => Some(
                "a pack is a pickle of (images, issame) as InsightFace publishes them, such as \
                 lfw.bin; no other pickles are read, and nothing in one is ever run"
                    .to_owned(),
            ),
        }
    }
}
