//! Errors: what the operating system refused, and a folder that may not be written.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::faults::is_of_system;

/// What the operating system refused. Of a write, the target is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {op}", path.display())]
pub struct DurableError {
    /// What was being done: `open`, `read`, `list`, `create`, `write`, `sync`, `rename`, `remove`, alone or
    /// with what it was done to, such as `open the folder`.
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

    /// Whether something was to be read, not written.
    pub fn is_read(&self) -> bool {
        matches!(self.op.split(' ').next(), Some("open" | "read" | "map" | "list" | "look"))
    }

    /// Whether the folder is not there that something was to be created in.
    fn lacks_folder(&self) -> bool {
        let is_create = self.op.split(' ').next() == Some("create");
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        is_create && folder.is_some_and(|folder| !folder.exists())
    }

    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        let (path, source) = (self.path.display(), &self.source);
        if let Some(limit) = limit(source) {
            return Some(limit.into());
        }
        match source.kind() {
            io::ErrorKind::StorageFull => Some(format!(
                "the disk that holds {path} is full: free space and run the same command again; nothing \
                 half-written was left under its final name"
            )),
            io::ErrorKind::QuotaExceeded => Some(format!(
                "this user's quota on the disk that holds {path} is used up: free space, have it raised \
                 (`quota` shows it), or use another disk, and run the same command again; nothing \
                 half-written was left under its final name"
            )),
            io::ErrorKind::FileTooLarge => Some(format!(
                "files like {path} may not grow so large here: raise the limit (`ulimit -f`) or use \
                 another file system, and run the same command again"
            )),
            io::ErrorKind::PermissionDenied if self.is_read() => {
                Some(format!("{path} is not readable for this user"))
            }
            io::ErrorKind::PermissionDenied => {
                Some(format!("{path} is not writable for this user"))
            }
            io::ErrorKind::NotFound if self.is_read() => {
                Some(format!("there is no `{path}`: is the path right?"))
            }
            io::ErrorKind::NotFound if self.lacks_folder() => Some(format!(
                "the folder that {path} is to lie in is not there: make it, or choose another"
            )),
            io::ErrorKind::IsADirectory if self.op == "lock" => Some(format!(
                "a folder stands where the lock file {path} belongs, and no command removes what it did not \
                 write: move that folder to another place, and run the same command again"
            )),
            io::ErrorKind::ReadOnlyFilesystem => {
                Some(format!("{path} is on a file system mounted read-only"))
            }
            io::ErrorKind::DirectoryNotEmpty => Some(format!(
                "another program put files into {path} meanwhile: move them to another place, or choose \
                 another name, and run the same command again"
            )),
            io::ErrorKind::OutOfMemory => Some(
                "end other programs, or give this one more memory (`ulimit -v` shows a bound), and run \
                 the same command again"
                    .into(),
            ),
            _ if is_failing(source) || self.is_read() && is_of_system(source) => Some(format!(
                "the disk or the network that holds {path} fails, which says nothing about its content: \
                 the system's log (`dmesg`) may tell why; then run the same command again"
            )),
            _ => None,
        }
    }
}

/// The way out of a limit of the process or the machine, by the operating system's reason.
pub fn limit(source: &io::Error) -> Option<&'static str> {
    match errno(source)? {
        Errno::ProcessFiles => Some(
            "this process may not open more files: raise the limit (`ulimit -n 1024`) and run the \
             same command again",
        ),
        Errno::SystemFiles => {
            Some("the whole system has too many open files: close some programs, and run again")
        }
    }
}

/// Whether a device or a network failed to give or take what it holds.
#[cfg(target_os = "linux")]
fn is_failing(source: &io::Error) -> bool {
    use rustix::io::Errno;
    let failures =
        [Errno::IO, Errno::STALE, Errno::TIMEDOUT, Errno::NOTCONN, Errno::NODEV, Errno::NXIO];
    Errno::from_io_error(source).is_some_and(|errno| failures.contains(&errno))
}

#[cfg(not(target_os = "linux"))]
fn is_failing(_: &io::Error) -> bool {
    false
}

enum Errno {
    ProcessFiles,
    SystemFiles,
}

#[cfg(target_os = "linux")]
fn errno(source: &io::Error) -> Option<Errno> {
    match rustix::io::Errno::from_io_error(source)? {
        rustix::io::Errno::MFILE => Some(Errno::ProcessFiles),
        rustix::io::Errno::NFILE => Some(Errno::SystemFiles),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn errno(_: &io::Error) -> Option<Errno> {
    None
}

/// Why a command may not write to a folder; nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the folder's lock.
    #[error("{}: {} is writing there", folder.display(), holder(*process))]
    Busy {
        /// The folder.
        folder: PathBuf,
        /// Number of that process on its machine, where it is known.
        process: Option<u32>,
    },
    /// The file system refuses locks.
    #[error("{}: the file system grants no lock", lock.display())]
    NoLocks {
        /// The folder to be written.
        folder: PathBuf,
        /// The file that was to be locked.
        lock: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// There is something of that name already.
    #[error("{}: already exists and is not empty", folder.display())]
    Taken {
        /// The folder to be written.
        folder: PathBuf,
    },
    /// A link leads to a folder that is not empty.
    #[error("{}: is a link to {}, which is not empty", link.display(), folder.display())]
    TakenByLink {
        /// The link, which was to be written.
        link: PathBuf,
        /// Where it leads.
        folder: PathBuf,
    },
    /// The folder holds what no command of this project wrote.
    #[error("{}: holds files that pfc did not write: {}", folder.display(), some(names))]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Their paths below it, sorted.
        names: Vec<PathBuf>,
    },
    /// The output lies in an input.
    #[error("{}: lies inside {}, the folder to be read", out.display(), input.display())]
    InsideInput {
        /// The folder or file to write.
        out: PathBuf,
        /// The folder to read.
        input: PathBuf,
    },
    /// An input lies in the output.
    #[error("{}: holds {}, which is to be read", out.display(), input.display())]
    AroundInput {
        /// The folder to write.
        out: PathBuf,
        /// The folder or file to read.
        input: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl FolderError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            FolderError::Busy { .. } => {
                "wait for it to end, or stop it; nothing was changed by this command".into()
            }
            FolderError::NoLocks { folder, .. } => format!(
                "write to a disk that knows locks, such as a local one; NFS needs a lock service or \
                 the mount option `local_lock=flock`, and without a lock two commands could destroy \
                 each other's work in {}",
                folder.display()
            ),
            FolderError::Taken { folder } => {
                format!("choose another folder, or remove {} first", folder.display())
            }
            FolderError::TakenByLink { link, .. } => {
                format!("choose another folder, or remove the link {} first", link.display())
            }
            FolderError::Foreign { folder, .. } => format!(
                "move them out of {} or choose another folder: only what pfc wrote is ever removed",
                folder.display()
            ),
            FolderError::InsideInput { .. } => "choose a folder outside the input".into(),
            FolderError::AroundInput { .. } => {
                "choose a folder that neither holds the input nor lies in it".into()
            }
            FolderError::Durable(source) => return source.hint(),
        })
    }
}

fn holder(process: Option<u32>) -> String {
    process.map_or("another command".into(), |process| format!("process {process}"))
}

/// The first names, and how many more there are.
fn some(names: &[PathBuf]) -> String {
    const NAMES_MAX: usize = 3;
    let mut text: Vec<String> =
        names.iter().take(NAMES_MAX).map(|name| name.display().to_string()).collect();
    if names.len() > NAMES_MAX {
        text.push(format!("and {} more", names.len() - NAMES_MAX));
    }
    text.join(", ")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::io::Errno;

    use super::{DurableError, FolderError, Path};

    #[test]
    fn what_the_system_refuses_has_a_way_out() {
        let hint = |errno: Errno| {
            let error = DurableError::at("read", Path::new("a/b"))(errno.into());
            error.hint().unwrap()
        };
        for errno in [Errno::IO, Errno::STALE, Errno::TIMEDOUT, Errno::REMOTEIO, Errno::HOSTDOWN] {
            assert!(hint(errno).starts_with("the disk or the network that holds a/b fails"));
        }
        assert!(hint(Errno::NOMEM).starts_with("end other programs"));
        assert!(hint(Errno::NOTEMPTY).starts_with("another program put files into a/b"));
        assert!(hint(Errno::MFILE).contains("ulimit -n"));
        let folder_for_lock = DurableError::at("lock", Path::new(".a.lock"))(Errno::ISDIR.into());
        assert!(folder_for_lock.hint().unwrap().starts_with("a folder stands where the lock file"));
        let error = DurableError::at("create", Path::new("/no such folder/a"))(Errno::NOENT.into());
        assert!(error.hint().unwrap().contains("is to lie in is not there: make it"));
        let error = FolderError::TakenByLink { link: "l".into(), folder: "d".into() };
        assert_eq!(error.to_string(), "l: is a link to d, which is not empty");
        assert_eq!(error.hint().unwrap(), "choose another folder, or remove the link l first");
    }
}
