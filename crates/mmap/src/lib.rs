//! Files as memory, without reading them first: the one place where the project maps files that it
//! reads.

#![allow(unsafe_code)] // a memory map is only as constant as its file

use std::{fs::File, io, ops::Deref, path::Path, sync::Arc};

use memmap2::{Advice, Mmap, UncheckedAdvice};
use pfc_durable::DurableError;

/// The bytes of a regular file. Clones share one mapping, which lives as long as the last of them.
#[derive(Debug, Clone)]
pub struct Map(Option<Arc<Mmap>>);

impl Map {
    /// Maps the whole of `path`.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if it cannot be opened or mapped, or is no regular file.
    pub fn open(path: &Path) -> Result<Map, DurableError> {
        let file = File::open(path).map_err(DurableError::at("open", path))?;
        let metadata = file.metadata().map_err(DurableError::at("open", path))?;
        if !metadata.is_file() {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(DurableError::at("read", path)(why));
        }
        if metadata.len() == 0 {
            // An empty file cannot be mapped.
            return Ok(Map(None));
        }
        // SAFETY: the mapping is sound as long as nobody shortens or rewrites the file while it is
        // open. Files of data sets are never written in place: they appear by renaming, with their
        // final content, and removing or replacing one leaves the mapped file as it was. Whoever
        // edits another file in place under a reader would break any program that maps it: the
        // bytes are read as numbers for which every bit pattern is valid.
        let mmap = unsafe { Mmap::map(&file) }.map_err(DurableError::at("map", path))?;
        Ok(Map(Some(Arc::new(mmap))))
    }

    /// Asks the system to read `part`, a slice of this mapping, ahead of its use.
    pub fn will_need(&self, part: &[u8]) {
        let Some(mmap) = &self.0 else { return };
        let offset = (part.as_ptr() as usize).wrapping_sub(mmap.as_ptr() as usize);
        if part.is_empty() || offset.saturating_add(part.len()) > mmap.len() {
            return;
        }
        // It is advice: where the system does not take it, the page is read when touched.
        let _ = mmap.advise_range(Advice::WillNeed, offset, part.len());
    }

    /// Takes the pages out of this process; the system's cache may keep them.
    pub fn release(&self) {
        let Some(mmap) = &self.0 else { return };
        // SAFETY: pages of a file mapped for reading only come back from the file with the same
        // bytes, which `open` relies on anyway, so no borrow of them sees a change. It is advice:
        // where the system does not take it, the pages stay.
        let _ = unsafe { mmap.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |mmap| mmap)
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes_and_nothing_else_is_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let map = Map::open(&path).unwrap();
        map.will_need(&map[1..]);
        map.will_need(b"elsewhere");
        map.release();
        assert_eq!(&map[..], b"abc");
        std::fs::write(&path, b"").unwrap();
        assert!(Map::open(&path).unwrap().is_empty());
        assert_eq!(Map::open(dir.path()).unwrap_err().op, "read");
        assert_eq!(Map::open(&dir.path().join("b")).unwrap_err().op, "open");
    }
}
