//! Images that cannot be read where they lie, because they are compressed, kept in a temporary file.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{error::SourceError, reject::ReadError};

/// Files that unpack to more than so many times their size are no images but an attack: images are compressed already.
pub const EXPANSION_MAX: u64 = 100;
/// Below this the expansion does not matter.
const UNPACKED_BYTES_FREE: u64 = 1 << 30;

/// Bytes that may come out of a file of `n_bytes`.
pub fn unpacked_max(n_bytes: u64) -> u64 {
    n_bytes.saturating_mul(EXPANSION_MAX).max(UNPACKED_BYTES_FREE)
}

/// A temporary file of images. It has no name, so that nothing is left of it however the process
/// ends. Any number of threads may add to it and read it.
#[derive(Debug)]
pub struct Spool {
    /// The folder on whose disk the file lies.
    dir: PathBuf,
    file: File,
    end: Mutex<u64>,
}

impl Spool {
    /// Creates an empty file on the disk of `dir`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Durable`] if there can be no file.
    pub fn create(dir: &Path) -> Result<Spool, SourceError> {
        let dir = dir.to_path_buf();
        let failed = SourceError::at("make a temporary file in it", &dir);
        let file = tempfile::tempfile_in(&dir).map_err(failed)?;
        Ok(Spool { dir, file, end: Mutex::new(0) })
    }

    /// Appends an image and returns its place.
    ///
    /// # Errors
    ///
    /// [`SourceError::Durable`], above all of a full disk.
    pub fn push(&self, image: &[u8]) -> Result<u64, SourceError> {
        let mut end = self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = *end;
        (&self.file).write_all(image).map_err(SourceError::at(
            "keep unpacked images in a temporary file in it",
            &self.dir,
        ))?;
        *end += image.len() as u64;
        Ok(start)
    }

    /// Reads the image of `n_bytes` bytes at `start`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: a place that nothing was written to, or a fault of the system.
    pub fn read(&self, start: u64, n_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; n_bytes];
        self.file.read_exact_at(&mut bytes, start).map_err(ReadError::at(&self.dir))?;
        Ok(bytes)
    }

    /// Number of bytes that the file takes on disk.
    pub fn len(&self) -> u64 {
        *self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_back_from_their_places_and_the_folder_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path()).unwrap();
        let places = [&b"one"[..], b"", b"three"].map(|image| spool.push(image).unwrap());
        assert_eq!(places, [0, 3, 3]);
        assert_eq!(spool.read(3, 5).unwrap(), b"three");
        assert_eq!(spool.read(0, 3).unwrap(), b"one");
        assert!(spool.read(4, 5).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(spool.len(), 8);
    }
}
