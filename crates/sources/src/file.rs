//! Image files read whole, within bounds.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use pfc_durable::faults::is_of_system;

use crate::{
    error::SourceError,
    reject::{ReadError, Reject},
};

/// Images beyond this are no face crops, and reading one would be felt.
pub const IMAGE_BYTES_MAX: u64 = 256 << 20;

/// The folder that images are read from, as it was when they were listed.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Device and number; nothing if there was no such folder to begin with.
    identity: Option<(u64, u64)>,
}

impl Root {
    /// Remembers the folder at `path`.
    pub fn of(path: &Path) -> Root {
        Root { path: path.to_path_buf(), identity: identity(path) }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the folder that it was: one that is unmounted or renamed holds none of its files,
    /// which says nothing of them.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`].
    pub fn check(&self) -> Result<(), SourceError> {
        match self.identity.is_none() || identity(&self.path) == self.identity {
            true => Ok(()),
            false => Err(SourceError::Gone { path: self.path.clone() }),
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|_| (0, 0))
}

/// The bytes of the file at `path`, which lies below `root`.
///
/// # Errors
///
/// [`ReadError::Reject`] for what is a fact about this file: [`Reject::Missing`],
/// [`Reject::TooManyBytes`] or [`Reject::Unreadable`]; [`ReadError::Fault`] if the system fails or
/// the folder is gone.
pub fn read_file(path: &Path, root: &Root) -> Result<Vec<u8>, ReadError> {
    match read(path) {
        Ok(bytes) => Ok(bytes?),
        Err(error) if is_of_system(&error) => Err(SourceError::at("read", path)(error).into()),
        Err(error) => {
            root.check()?;
            Err(match error.kind() {
                io::ErrorKind::NotFound => Reject::Missing,
                _ => Reject::Unreadable(error.to_string()),
            }
            .into())
        }
    }
}

fn read(path: &Path) -> io::Result<Result<Vec<u8>, Reject>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if let Err(reject) = check_size(size) {
        return Ok(Err(reject));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size as usize + 1)?;
    // The file may grow meanwhile; what is read stays bounded.
    file.take(IMAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

/// The size of a file, or 0 where it cannot be had: reading it will say why.
pub(crate) fn file_size(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// Refuses sizes that no image has.
///
/// # Errors
///
/// [`Reject::TooManyBytes`].
pub fn check_size(bytes: u64) -> Result<(), Reject> {
    if bytes > IMAGE_BYTES_MAX {
        return Err(Reject::TooManyBytes { bytes, bytes_max: IMAGE_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_file_is_left_out_only_while_its_folder_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("faces");
        fs::create_dir(&folder).unwrap();
        let root = Root::of(&folder);
        let missing = || read_file(&folder.join("1.jpg"), &root).unwrap_err();
        assert!(matches!(missing(), ReadError::Reject(Reject::Missing)));
        fs::rename(&folder, dir.path().join("gone")).unwrap();
        assert!(matches!(missing(), ReadError::Fault(SourceError::Gone { .. })));
        // An empty folder in its place, as a mount point is.
        fs::create_dir(&folder).unwrap();
        let error = missing();
        assert!(matches!(&error, ReadError::Fault(error) if error.hint().is_some()), "{error}");
    }

    #[test]
    fn a_folder_that_never_was_tells_nothing_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::of(&dir.path().join("nowhere"));
        let error = read_file(&dir.path().join("nowhere/1.jpg"), &root).unwrap_err();
        assert!(matches!(error, ReadError::Reject(Reject::Missing)));
    }
}
