//! Files as memory: the only unsafe code of the crate.

#![allow(unsafe_code)]

use std::{fs::File, ops::Deref, path::Path};

use memmap2::{Mmap, UncheckedAdvice};

use crate::RecordError;

/// The bytes of a file, mapped, or those of a buffer.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps the whole of `path` for reading.
    pub(crate) fn open(path: &Path) -> Result<Bytes, RecordError> {
        let failed = |op| move |source| RecordError::Io { op, path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed("open"))?;
        // SAFETY: the mapping is sound as long as nobody shortens or rewrites the file while it is
        // open. Data sets are written once and then only read; whoever edits one in place under a
        // reader would break any program that maps it.
        let mmap = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
        Ok(Bytes::Mapped(mmap))
    }

    /// Takes the pages of a mapped file out of this process; the system's cache may keep them.
    pub(crate) fn release(&self) {
        if let Bytes::Mapped(mmap) = self {
            // SAFETY: pages of a file mapped for reading only come back from the file with the same
            // bytes, which `open` relies on anyway, so no borrow of them sees a change. It is
            // advice: where the system does not take it, the pages stay.
            let _ = unsafe { mmap.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(mmap) => mmap,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
