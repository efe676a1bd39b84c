//! Zeroed memory of any size: anonymous, or a file. The only unsafe code of the crate but
//! for the kernels.

#![allow(unsafe_code)]

use std::{fs::File, io};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapOptions};

use crate::HeadError;

/// Memory that the system allocates page by page, when each page is first written.
///
/// It begins at the start of a page.
#[derive(Debug)]
pub(in crate::centres) struct Memory {
    map: MmapMut,
    n_bytes: usize,
}

impl Memory {
    /// Rows of zeros that no file holds, in large pages where the system has them. Rows are read in random
    /// order, so that with small pages much of the time would go into address translation, and more into
    /// page faults. Rows that are used should lie together: the system allocates a page as a whole once a
    /// byte of it is written.
    pub fn anonymous(n_rows: usize, row_bytes: usize) -> Result<Memory, HeadError> {
        let n_bytes = n_rows.checked_mul(row_bytes);
        let memory = n_bytes.and_then(|n_bytes| Memory::zeros(n_bytes).ok());
        memory.ok_or(HeadError::Memory { rows: n_rows, row_bytes })
    }

    fn zeros(n_bytes: usize) -> io::Result<Memory> {
        // A mapping of nothing is an error.
        let map = MmapOptions::new().len(n_bytes.max(1)).no_reserve_swap().map_anon()?;
        // It is advice: a system without large pages does not take it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Memory { map, n_bytes })
    }

    /// The first bytes of a file that has them.
    pub fn of_file(file: &File, n_bytes: usize) -> io::Result<Memory> {
        if file.metadata()?.len() < n_bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the mapping is sound as long as nobody shortens the file, and its bytes are plain
        // numbers whatever another process writes to them. The folder of the centres belongs to its
        // run, which holds a lock on it; ranks of one run write to different rows of it.
        let map = unsafe { MmapOptions::new().len(n_bytes.max(1)).map_mut(file)? };
        // Rows are reached at random: without this, each is read together with 128 KiB around it.
        #[cfg(unix)]
        map.advise(memmap2::Advice::Random)?;
        Ok(Memory { map, n_bytes })
    }

    /// The first bytes of a file that has them, to be read: what is written stays in memory.
    pub fn of_file_apart(file: &File, n_bytes: usize) -> io::Result<Memory> {
        if file.metadata()?.len() < n_bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: as above; a process that writes to the file meanwhile changes plain numbers.
        let map = unsafe { MmapOptions::new().len(n_bytes.max(1)).map_copy(file)? };
        Ok(Memory { map, n_bytes })
    }

    /// All of it, as numbers.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[..self.n_bytes])
    }

    /// The same, to be written to.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[..self.n_bytes])
    }
}
