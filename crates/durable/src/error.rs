//! The one error of the crate: what was being done, where, and the operating system's reason.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A write that did not happen; the target is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {op}", path.display())]
pub struct DurableError {
    /// What was being done: `create`, `write`, `sync`, `rename`, `remove`.
    pub op: &'static str,
    /// The file or folder it was done to.
    pub path: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

impl DurableError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
        let path = path.to_path_buf();
        move |source| DurableError { op, path, source }
    }

    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        let path = self.path.display();
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(format!(
                "the disk that holds {path} is full: free space and run the same command again; \
                 nothing half-written was left under its final name"
            )),
            io::ErrorKind::FileTooLarge => Some(format!(
                "files like {path} may not grow so large here: raise the limit (`ulimit -f`) or use \
                 another file system, and run the same command again"
            )),
            io::ErrorKind::PermissionDenied => {
                Some(format!("{path} is not writable for this user"))
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("{path} is on a file system mounted read-only"))
            }
            _ => None,
        }
    }
}
