//! A file as bytes in memory, without reading it first.

#![allow(unsafe_code)] // a memory map is only as constant as its file

use std::{fs::File, ops::Deref, path::Path};

use memmap2::Mmap;

use crate::EvalError;

/// The bytes of a regular file.
#[derive(Debug)]
pub(super) struct Mapped(Option<Mmap>);

impl Mapped {
    pub(super) fn open(path: &Path) -> Result<Mapped, EvalError> {
        let file = File::open(path).map_err(EvalError::io("open", path))?;
        let metadata = file.metadata().map_err(EvalError::io("open", path))?;
        if !metadata.is_file() {
            let why =
                std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(EvalError::io("read", path)(why));
        }
        if metadata.len() == 0 {
            // An empty file cannot be mapped.
            return Ok(Mapped(None));
        }
        // SAFETY: the bytes are read as `u8` and `f32`, for which every bit pattern is valid. A
        // file that another process changes meanwhile gives other numbers; one that is cut short
        // ends the program with SIGBUS, as it would any reader that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(EvalError::io("map", path))?;
        Ok(Mapped(Some(map)))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
