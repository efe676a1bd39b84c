//! The lock of a folder that a command writes: the file `.NAME.lock` beside the folder NAME.
//!
//! The operating system releases the lock with the process, however that ends; the file that a
//! killed process leaves is taken over by the next one. Each process adds a line that begins with
//! [`MARK`], so that a file of that name which somebody else wrote is never taken for ours, and the
//! line [`FILLS`] before it makes the temporary folder `.NAME.tmp`, so that neither is that.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::{DurableError, FolderError, beside, parent};

/// What a lock file begins with; the number of the process follows.
const MARK: &str = "pfc lock of process ";

/// The line that says that the temporary folder is ours.
const FILLS: &str = "fills the temporary folder\n";

/// More than any lock file has: a line of each process that was killed.
const LOCK_BYTES_MAX: u64 = 1 << 20;

/// Name of the lock inside a folder whose parent this user may not write to, such as a mount point.
pub(crate) const INNER_NAME: &str = ".pfc.lock";

/// Who else may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Alone,
    /// Others that ask for [`Access::Shared`], such as the workers of one job.
    Shared,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    folder: PathBuf,
    access: Access,
    /// This process or one that was killed made the temporary folder.
    fills: bool,
}

impl Lock {
    /// Takes the lock of `folder`, whose parent must exist.
    pub(crate) fn take(folder: &Path, access: Access) -> Result<Lock, FolderError> {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match Lock::at(&beside(folder, "lock"), folder, access) {
            Err(FolderError::Durable(error))
                if matches!(error.source.kind(), PermissionDenied | ReadOnlyFilesystem)
                    && folder.is_dir() =>
            {
                Lock::at(&folder.join(INNER_NAME), folder, access)
            }
            taken => taken,
        }
    }

    fn at(path: &Path, folder: &Path, access: Access) -> Result<Lock, FolderError> {
        loop {
            let file = File::options().read(true).append(true).create(true).open(path);
            let file = file.map_err(DurableError::at("lock", path))?;
            let locked = match access {
                Access::Alone => file.try_lock(),
                Access::Shared => file.try_lock_shared(),
            };
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let process = fs::read_to_string(path).ok().and_then(|text| process(&text));
                    return Err(FolderError::Busy { folder: folder.to_path_buf(), process });
                }
                Err(TryLockError::Error(source)) => {
                    let (folder, lock) = (folder.to_path_buf(), path.to_path_buf());
                    return Err(FolderError::NoLocks { folder, lock, source });
                }
            }
            // Whoever held the lock before may have removed the file between the two calls.
            if is_at(&file, path) {
                return Lock::sign(file, path, folder, access);
            }
        }
    }

    /// Writes the mark into a lock file that was just taken.
    fn sign(
        mut file: File,
        path: &Path,
        folder: &Path,
        access: Access,
    ) -> Result<Lock, FolderError> {
        let at = || DurableError::at("lock", path);
        let mut found = String::new();
        let read = (&file).take(LOCK_BYTES_MAX).read_to_string(&mut found);
        if read.is_err() || !(found.is_empty() || found.starts_with(MARK)) {
            let names = vec![PathBuf::from(path.file_name().unwrap_or_default())];
            return Err(FolderError::Foreign { folder: parent(path).to_path_buf(), names });
        }
        if found.is_empty() || access == Access::Alone {
            file.write_all(format!("{MARK}{}\n", std::process::id()).as_bytes()).map_err(at())?;
        }
        let (path, folder) = (path.to_path_buf(), folder.to_path_buf());
        Ok(Lock { file, path, folder, access, fills: found.contains(FILLS) })
    }

    /// Whether a process of ours made the temporary folder beside the lock.
    pub(crate) fn fills(&self) -> bool {
        self.fills
    }

    /// Notes that this process makes the temporary folder, in a way that survives a power cut.
    pub(crate) fn fill(&mut self) -> Result<(), DurableError> {
        if !self.fills {
            self.file.write_all(FILLS.as_bytes()).map_err(DurableError::at("lock", &self.path))?;
            self.file.sync_all().map_err(DurableError::at("sync", &self.path))?;
            crate::sync_dir(parent(&self.path))?;
            self.fills = true;
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file says that the temporary folder is ours, and stays as long as that.
        if self.fills && beside(&self.folder, "tmp").exists() {
            return;
        }
        // The last of several workers removes it.
        let is_last = self.access == Access::Alone
            || (self.file.unlock().is_ok() && self.file.try_lock().is_ok());
        if is_last && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn process(text: &str) -> Option<u32> {
    text.lines().rev().find_map(|line| line.strip_prefix(MARK)?.trim().parse().ok())
}

/// Whether `path` still names the open `file`.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        (dir, folder)
    }

    fn n_files(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[test]
    fn workers_share_and_nobody_shares_with_one_who_is_alone() {
        let (dir, folder) = folder();
        let take = |access| Lock::take(&folder, access);
        let first = take(Access::Shared).unwrap();
        assert!(take(Access::Shared).is_ok() && take(Access::Alone).is_err());
        assert_eq!(n_files(&dir), 1, "the lock of a worker that is still at work was removed");
        drop(first);
        assert_eq!(n_files(&dir), 0);
        let alone = take(Access::Alone).unwrap();
        let error = take(Access::Shared).unwrap_err().to_string();
        let me = std::process::id();
        assert!(error.ends_with(&format!("out: process {me} is writing there")), "{error}");
        drop(alone);
        assert!(take(Access::Shared).is_ok());
    }

    #[test]
    fn a_lock_file_that_a_killed_process_left_is_taken_over() {
        let (dir, folder) = folder();
        fs::write(dir.path().join(".out.lock"), format!("{MARK}77\n")).unwrap();
        let lock = Lock::take(&folder, Access::Alone).unwrap();
        assert!(!lock.fills());
        let error = Lock::take(&folder, Access::Alone).unwrap_err();
        let me = std::process::id();
        assert!(matches!(error, FolderError::Busy { process, .. } if process == Some(me)));
        drop(lock);
        assert_eq!(n_files(&dir), 0);
    }

    #[test]
    fn a_file_of_that_name_which_is_not_ours_is_left_alone() {
        let (dir, folder) = folder();
        for content in [&b"notes"[..], b"\xff\xfe"] {
            fs::write(dir.path().join(".out.lock"), content).unwrap();
            let error = Lock::take(&folder, Access::Alone).unwrap_err();
            assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
            assert_eq!(fs::read(dir.path().join(".out.lock")).unwrap(), content);
        }
    }

    #[test]
    fn the_lock_file_stays_as_long_as_the_temporary_folder() {
        let (dir, folder) = folder();
        let mut lock = Lock::take(&folder, Access::Alone).unwrap();
        lock.fill().unwrap();
        fs::create_dir(dir.path().join(".out.tmp")).unwrap();
        drop(lock);
        assert!(Lock::take(&folder, Access::Alone).unwrap().fills());
        fs::remove_dir(dir.path().join(".out.tmp")).unwrap();
        drop(Lock::take(&folder, Access::Alone).unwrap());
        assert_eq!(n_files(&dir), 0);
    }

    #[test]
    fn many_threads_hold_it_one_after_the_other() {
        let (dir, folder) = folder();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 50 {
                        let Ok(lock) = Lock::take(&folder, Access::Alone) else { continue };
                        use std::sync::atomic::Ordering::SeqCst;
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        drop(lock);
                        taken += 1;
                    }
                });
            }
        });
        assert_eq!(n_files(&dir), 0);
    }
}
