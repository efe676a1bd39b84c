//! A file that gets its name only once it is complete.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, PersistError};

use crate::{DurableError, parent, sync_dir};

/// A file being written beside `path`; dropped without [`commit`](AtomicFile::commit), it is removed.
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
        let temporary = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .tempfile_in(parent(path))
            .map_err(DurableError::at("create", path))?;
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
        make_readable(temporary.as_file()).map_err(DurableError::at("write", &path))?;
        temporary.as_file().sync_all().map_err(DurableError::at("sync", &path))?;
        rename(temporary, &path).map_err(|e| DurableError::at("rename", &path)(e.error))?;
        sync_dir(parent(&path))
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

/// Temporary files are private to the user; a finished file is as readable as any other.
#[cfg(unix)]
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
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
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
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
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
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
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(&dir.path().join("no/a"), b"").unwrap_err();
        assert_eq!(error.op, "create");
        assert!(error.to_string().ends_with("no/a: cannot create"), "{error}");
    }
}
