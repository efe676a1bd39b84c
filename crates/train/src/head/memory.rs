//! Zeroed memory of any size: anonymous, or a sparse file. The only unsafe code of the
//! crate but for the kernels.

#![allow(unsafe_code)]

use std::{fs::File, io};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapOptions};

/// The part in eight of the memory that is free up to which rows are laid into large pages.
const LARGE_PAGES_EIGHTHS: u64 = 7;

/// Memory that the system hands out page by page when it is first written to.
///
/// It begins at a multiple of 64 bytes as long as the offset in the file does.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapMut,
    n_bytes: usize,
}

impl Memory {
    /// `n_bytes` zeros that no file holds.
    ///
    /// * `n_bytes_all`: what all ranks take together, which may be on one machine
    pub fn anonymous(n_bytes: usize, n_bytes_all: u64) -> io::Result<Memory> {
        // A mapping of nothing is an error.
        let map = MmapOptions::new().len(n_bytes.max(1)).no_reserve_swap().map_anon()?;
        advise_large_pages(&map, n_bytes_all);
        Ok(Memory { map, n_bytes })
    }

    /// The bytes from `offset` on of a file that has them.
    pub fn of_file(file: &File, offset: u64, n_bytes: usize) -> io::Result<Memory> {
        let end = offset.checked_add(n_bytes as u64);
        if end.is_none_or(|end| file.metadata().is_ok_and(|metadata| metadata.len() < end)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the mapping is sound as long as nobody shortens the file, and its bytes are plain
        // numbers whatever another process writes to them. The folder of the centres belongs to its
        // run, which holds a lock on it; ranks of one run map parts that do not overlap.
        let map = unsafe { MmapOptions::new().offset(offset).len(n_bytes.max(1)).map_mut(file)? };
        // Rows are reached at random: without this, each is read together with 128 KiB around it.
        #[cfg(unix)]
        map.advise(memmap2::Advice::Random)?;
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

/// Rows are read in random order, and much of the time goes into finding their pages where these
/// are small, and more into having each of them handed out. But a large page is there as a whole once
/// a byte of it is touched, so that a few steps fill all of it: memory that would not have room for
/// that must stay in small ones.
fn advise_large_pages(map: &MmapMut, n_bytes_all: u64) {
    #[cfg(target_os = "linux")]
    if n_bytes_all < free_bytes() / 8 * LARGE_PAGES_EIGHTHS {
        // It is advice: a system without large pages does not take it.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (map, n_bytes_all);
}

/// Memory that processes can still have; 0 where the system does not say.
#[cfg(target_os = "linux")]
fn free_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = free.and_then(|free| free.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}
