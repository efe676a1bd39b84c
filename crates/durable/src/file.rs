//! A file that gets its name only once it is complete.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, PersistError};

use crate::{
    DurableError, hidden, in_synced_dir,
    lock::is_at,
    parent,
    watch::{Done, tell},
};

/// A file being written as `.NAME.XXXXXX.tmp` beside a file that is to be called NAME.
///
/// Dropped without [`commit`](AtomicFile::commit), it is removed. It is locked as long as it is
/// written, so that [`sweep`] tells what a killed process left from what another one is writing.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Opens a temporary file in the folder of `path`, which must exist.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if the folder is missing or not writable.
    pub fn create(path: &Path) -> Result<AtomicFile, DurableError> {
        let prefix = hidden(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".tmp");
        #[cfg(unix)]
        // Less what the process's umask takes away, as of any other file.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = loop {
            let temporary = builder.tempfile_in(parent(path));
            let temporary = temporary.map_err(DurableError::at("create", path))?;
            let is_locked = match temporary.as_file().try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                // Nobody sweeps where there are no locks.
                Err(TryLockError::Error(_)) => break temporary,
            };
            // A sweep may have come between the two calls.
            if is_locked && is_at(temporary.as_file(), temporary.path()) {
                break temporary;
            }
        };
        Ok(AtomicFile {
            path: path.to_path_buf(),
            out: BufWriter::with_capacity(1 << 20, temporary),
        })
    }

    /// The temporary file, for a library that writes to a path of its own; nothing may have been
    /// written here before.
    pub fn temporary_path(&self) -> &Path {
        self.out.get_ref().path()
    }

    /// Flushes, syncs and renames to `path`, replacing what was there.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if any of the three fails; the old `path` is then untouched.
    pub fn commit(self) -> Result<(), DurableError> {
        self.name_it(|temporary, path| temporary.persist(path))
    }

    /// As [`commit`](AtomicFile::commit), if nothing has that name yet, as one step: of two processes
    /// one fails.
    ///
    /// # Errors
    ///
    /// [`DurableError`], of [`io::ErrorKind::AlreadyExists`] where something has the name.
    pub fn commit_new(self) -> Result<(), DurableError> {
        self.name_it(|temporary, path| temporary.persist_noclobber(path))
    }

    fn name_it(
        self,
        rename: impl FnOnce(NamedTempFile, &Path) -> Result<File, PersistError>,
    ) -> Result<(), DurableError> {
        let AtomicFile { path, out } = self;
        let temporary =
            out.into_inner().map_err(|e| DurableError::at("write", &path)(e.into_error()))?;
        temporary.as_file().sync_all().map_err(DurableError::at("sync", &path))?;
        tell(Done::Synced(temporary.path()));
        in_synced_dir(parent(&path), || {
            rename(temporary, &path).map_err(|e| DurableError::at("rename", &path)(e.error))?;
            tell(Done::Changed(&path));
            Ok(())
        })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// For formats that state sizes before the data they are of.
impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}

/// Writes all of `bytes` to `path`, which then holds either its old content or all of the new.
///
/// # Errors
///
/// [`DurableError`]; `path` is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(DurableError::at("write", path))?;
    file.commit()
}

/// As [`write()`], of a file that a person named: what killed commands left of it is removed first. Reads
/// the folder's list of names, so files that are written by the thousand are [swept](sweep_all) at once.
///
/// # Errors
///
/// As [`write()`] and [`sweep`].
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    sweep(path)?;
    write(path, bytes)
}

/// Removes what killed processes left of `path`: files that an [`AtomicFile`] for it was writing.
///
/// Long commands call this before they begin; a file that is still being written stays.
///
/// # Errors
///
/// [`DurableError`] if such a file cannot be removed.
pub fn sweep(path: &Path) -> Result<(), DurableError> {
    let prefix = hidden(path);
    sweep_if(parent(path), |name| {
        let random = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        random.and_then(|name| name.strip_suffix(b".tmp")).is_some_and(|name| name.len() == 6)
    })
}

/// As [`sweep`], of all files in a folder that is ours.
///
/// # Errors
///
/// As [`sweep`].
pub fn sweep_all(dir: &Path) -> Result<(), DurableError> {
    sweep_if(dir, |name| name.to_str().is_some_and(crate::is_temporary_name))
}

fn sweep_if(dir: &Path, is_temporary: impl Fn(&OsStr) -> bool) -> Result<(), DurableError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(DurableError::at("read", dir))?,
    };
    for entry in entries.flatten().filter(|entry| is_temporary(&entry.file_name())) {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let path = entry.path();
        let Some(file) = is_file.then(|| File::open(&path).ok()).flatten() else { continue };
        if file.try_lock().is_ok() && is_at(&file, &path) {
            fs::remove_file(&path).map_err(DurableError::at("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_only_once_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert!(!path.exists());
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_name_that_is_taken_is_left_to_what_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let [first, second] = [b"first", b"other"].map(|bytes| {
            let mut file = AtomicFile::create(&path).unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        first.commit_new().unwrap();
        let error = second.commit_new().unwrap_err();
        assert_eq!((error.op, error.source.kind()), ("rename", io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_dropped_file_leaves_the_old_content_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_another_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for name in [".a.abcdef.tmp", ".b.abcdef.tmp", ".a.abcdef.tmp.md", ".abcdef.tmp"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let mut file = AtomicFile::create(&path).unwrap();
        sweep(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.commit().unwrap();
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [".a.abcdef.tmp.md", ".abcdef.tmp", ".b.abcdef.tmp", "a"]);
        sweep_all(dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 3);
        sweep(&dir.path().join("no/a")).unwrap();
        fs::write(dir.path().join(".a.abcdef.tmp"), "half").unwrap();
        write_output(&path, b"other").unwrap();
        assert_eq!((names(dir.path()).len(), fs::read(&path).unwrap()), (3, b"other".to_vec()));
    }

    #[test]
    fn names_of_any_length_are_written_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        let mut file = AtomicFile::create(&path).unwrap();
        let temporary = file.temporary_path().to_path_buf();
        file.write_all(b"x").unwrap();
        file.commit().unwrap();
        fs::write(&temporary, "half").unwrap();
        sweep(&path).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(&dir.path().join("no/a"), b"").unwrap_err();
        assert_eq!(error.op, "create");
        assert!(error.to_string().ends_with("no/a: cannot create"), "{error}");
    }
}
