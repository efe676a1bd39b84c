//! Files as memory: the only unsafe code of the crate.

#![allow(unsafe_code)]

use std::{fs::File, io, path::Path, sync::Arc};

use arrow_buffer::Buffer;
use memmap2::{Advice, Mmap};

use crate::ShardError;

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct Map {
    mmap: Arc<Mmap>,
}

impl Map {
    /// Maps the whole of `path`.
    pub(crate) fn open(path: &Path) -> Result<Map, ShardError> {
        let failed = |op| move |source| at(op, path, source);
        let file = File::open(path).map_err(failed("open"))?;
        // SAFETY: the mapping is sound as long as nobody shortens or rewrites the file. Files of a
        // data set are never written in place: they appear by renaming, with their final content,
        // and removing or replacing one leaves the mapped file as it was.
        let mmap = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
        Ok(Map { mmap: Arc::new(mmap) })
    }

    /// The file's bytes, not copied; the mapping lives as long as the buffer does.
    pub(crate) fn buffer(&self) -> Buffer {
        Buffer::from(bytes::Bytes::from_owner(Owner(self.mmap.clone())))
    }

    /// Asks the system to read `part`, a slice of this mapping, ahead of its use.
    pub(crate) fn will_need(&self, part: &[u8]) {
        let offset = (part.as_ptr() as usize).wrapping_sub(self.mmap.as_ptr() as usize);
        if part.is_empty() || offset.saturating_add(part.len()) > self.mmap.len() {
            return;
        }
        // It is advice: where the system does not take it, the page is read when touched.
        let _ = self.mmap.advise_range(Advice::WillNeed, offset, part.len());
    }
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An I/O error on a file that a manifest lists; absence has its own variant.
pub(crate) fn at(op: &'static str, path: &Path, source: io::Error) -> ShardError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => ShardError::MissingFile { path },
        _ => ShardError::Io { op, path, source },
    }
}
