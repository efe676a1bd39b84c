//! Rows packed one after the other, in memory or in a pair of files, and what is known of each.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use rayon::prelude::*;

use super::segment_file::{COPIES, Entry, SegmentFile};
use crate::{HeadError, centres::memory::Memory, optim::Stamp};

/// Places whose entries are summed up together, so that damage is found within so many.
pub(super) const BLOCK_PLACES: usize = 4096;

/// A row's memory, in the hands of one thread.
pub(crate) struct PlacedRow<'a> {
    pub entry: &'a mut Entry,
    /// All copies of the row, side by side.
    pub bytes: &'a mut [u8],
    /// The sum of the block that the place is in; `None` for rows in memory.
    block: Option<&'a AtomicU64>,
    pub number: u32,
}

impl PlacedRow<'_> {
    /// Records that `copy`, whose bytes are those of `range`, was written at `stamp`.
    #[inline(always)]
    pub fn written(&mut self, copy: usize, range: Range<usize>, stamp: Stamp) {
        let Some(block) = self.block else {
            self.entry.stamps[copy] = stamp;
            return;
        };
        let before = self.entry.digest(self.number);
        self.entry.sums[copy] = self.entry.sum_of(stamp, &self.bytes[range]);
        self.entry.stamps[copy] = stamp;
        // Sums are taken modulo 2^64, so the order in which threads add does not matter.
        let change = self.entry.digest(self.number).wrapping_sub(before);
        block.fetch_add(change, Ordering::Relaxed);
    }
}

/// Places of rows, the used ones before the free ones.
///
/// Rows lie in the order in which they were first needed: a run that uses few of its classes, as
/// every run does at first, fills few pages, whole ones, one after the other.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Bytes from one row to the next.
    stride: usize,
    n_used: usize,
    rows: Memory,
    entries: Memory,
    file: Option<SegmentFile>,
    /// The sum of the entries' digests of each block; none for rows in memory.
    blocks: Vec<AtomicU64>,
}

impl Segment {
    /// Room for `n_rows` in memory, which is taken as rows come.
    pub fn in_memory(n_rows: usize, stride: usize) -> Result<Segment, HeadError> {
        let rows = Memory::anonymous(n_rows, stride)?;
        let entries = Memory::anonymous(n_rows, size_of::<Entry>())?;
        Ok(Segment { stride, n_used: 0, rows, entries, file: None, blocks: Vec::new() })
    }

    /// The places of `file`, all of them free.
    pub fn of_file(file: SegmentFile) -> Result<Segment, HeadError> {
        let stride = file.stride();
        let (rows, entries) = file.map()?;
        Ok(Segment { stride, n_used: 0, rows, entries, file: Some(file), blocks: Vec::new() })
    }

    /// Takes the first `n_used` places of the file into use, after comparing the sum of each block with that
    /// of a checkpoint of the time `now`. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`HeadError::CentresDamaged`] for the first place that is not as the checkpoint has it.
    pub fn take_up(&mut self, n_used: usize, blocks: &[u64], now: Stamp) -> Result<(), HeadError> {
        let entries = &self.entries.as_slice::<Entry>()[..n_used];
        let differs = entries.par_chunks(BLOCK_PLACES).zip(blocks).enumerate().find_map_first(
            |(block, (entries, sum))| {
                let first = block * BLOCK_PLACES;
                let digest = |(i, entry): (usize, &Entry)| entry.digest_at((first + i) as u32, now);
                let found = entries.iter().enumerate().map(digest).fold(0, u64::wrapping_add);
                (found != *sum).then_some(first..first + entries.len())
            },
        );
        if let (Some(places), Some(file)) = (differs, &self.file) {
            return Err(self.blame(file, places, now));
        }
        self.n_used = n_used;
        self.blocks = blocks.iter().map(|&sum| AtomicU64::new(sum)).collect();
        Ok(())
    }

    /// The error of a block whose entries are not those of a checkpoint.
    fn blame(&self, file: &SegmentFile, places: Range<usize>, now: Stamp) -> HeadError {
        for place in places.clone() {
            let (entry, bytes) = self.get(place);
            let copies = bytes.chunks(self.stride / COPIES);
            let Some(class) = entry.class().filter(|class| file.classes().contains(class)) else {
                return file.damaged_entry(place, "names no class of this file");
            };
            let newest = entry.newest_at(now).map(|(copy, _)| copy);
            let is_wrong = |(copy, bytes): (usize, &[u8])| {
                Some(copy) == newest && !entry.vouches_for(copy, bytes)
            };
            if entry.reserved != 0 || copies.enumerate().any(is_wrong) {
                let problem = format!("and the row of class {class} in it do not belong together");
                return file.damaged_entry(place, &problem);
            }
        }
        file.damaged_entries(places)
    }

    /// Discards the copies that were written after `now`, and sets room aside for every copy of the places
    /// in use.
    ///
    /// # Errors
    ///
    /// [`HeadError::DiskFull`] if there is none, as for a copy of the files that has holes.
    pub fn go_back(&mut self, now: Stamp) -> Result<(), HeadError> {
        let n_used = self.n_used;
        if let Some(file) = &mut self.file {
            file.make_room(n_used)?;
        }
        let entries = &mut self.entries.as_mut_slice::<Entry>()[..n_used];
        entries.par_chunks_mut(BLOCK_PLACES).for_each(|entries| {
            for entry in entries {
                // A page that is only read is not written back.
                if entry.newest().1 > now {
                    entry.forget_after(now);
                }
            }
        });
        Ok(())
    }

    /// The files behind it, if it is not in memory.
    pub fn file(&self) -> Option<&SegmentFile> {
        self.file.as_ref()
    }

    /// Places in use.
    pub fn n_used(&self) -> usize {
        self.n_used
    }

    /// The sums of the blocks in use, as a checkpoint keeps them.
    pub fn block_sums(&self) -> Vec<u64> {
        self.blocks.iter().map(|sum| sum.load(Ordering::Relaxed)).collect()
    }

    /// Makes sure that the next `n_rows` places can be written to.
    ///
    /// # Errors
    ///
    /// [`HeadError::DiskFull`] if they cannot; a write through the mapping would end the process.
    pub fn make_room(&mut self, n_rows: usize) -> Result<(), HeadError> {
        let end = self.n_used + n_rows;
        self.file.as_mut().map_or(Ok(()), |file| file.make_room(end))
    }

    /// Takes the next free place for the row of `class`, and returns its number; `None` if there are
    /// more places than 32 bits can count.
    pub fn push(&mut self, class: u64) -> Option<u32> {
        let place = self.n_used;
        // One more must fit, as a table of places counts from 1.
        let number = u32::try_from(place).ok().filter(|&number| number < u32::MAX)?;
        let entry = Entry::new(class);
        *self.entries.as_mut_slice::<Entry>().get_mut(place)? = entry;
        self.n_used = place + 1;
        if self.file.is_some() {
            if place / BLOCK_PLACES == self.blocks.len() {
                self.blocks.push(AtomicU64::new(0));
            }
            self.blocks[place / BLOCK_PLACES].fetch_add(entry.digest(number), Ordering::Relaxed);
        }
        Some(number)
    }

    /// Entry and bytes of a place.
    pub fn get(&self, place: usize) -> (&Entry, &[u8]) {
        let bytes = &self.rows.as_slice()[place * self.stride..][..self.stride];
        (&self.entries.as_slice()[place], bytes)
    }

    /// The entries of the places in use.
    pub fn used(&self) -> &[Entry] {
        &self.entries.as_slice()[..self.n_used]
    }

    /// All places in use, block by block.
    pub fn blocks_mut(&mut self) -> impl IndexedParallelIterator<Item = Vec<PlacedRow<'_>>> {
        let (n_used, stride) = (self.n_used, self.stride);
        let entries = &mut self.entries.as_mut_slice::<Entry>()[..n_used];
        let bytes = &mut self.rows.as_mut_slice::<u8>()[..n_used * stride];
        let blocks = &self.blocks;
        let of_blocks =
            entries.par_chunks_mut(BLOCK_PLACES).zip(bytes.par_chunks_mut(BLOCK_PLACES * stride));
        of_blocks.enumerate().map(move |(i, (entries, bytes))| {
            let places = entries.iter_mut().zip(bytes.chunks_mut(stride)).enumerate();
            let place = |(at, (entry, bytes))| {
                let number = (i * BLOCK_PLACES + at) as u32;
                PlacedRow { entry, bytes, block: blocks.get(i), number }
            };
            places.map(place).collect()
        })
    }

    /// Gives out different places, in the order in which they are asked for.
    pub fn hand_out<'a>(
        &'a mut self,
        places: &[u32],
    ) -> impl Iterator<Item = PlacedRow<'a>> + use<'a> {
        // Each is split off from the memory behind the one before it, so they must be in order.
        let key = |(at, &place): (usize, &u32)| u64::from(place) << 32 | at as u64;
        let mut order: Vec<u64> = places.iter().enumerate().map(key).collect();
        order.par_sort_unstable();
        let (n_used, stride) = (self.n_used, self.stride);
        let mut entries = &mut self.entries.as_mut_slice::<Entry>()[..n_used];
        let mut bytes = &mut self.rows.as_mut_slice::<u8>()[..n_used * stride];
        let mut handed: Vec<Option<PlacedRow<'_>>> = places.iter().map(|_| None).collect();
        let mut next = 0;
        for key in order {
            let (number, at) = ((key >> 32) as u32, key as u32 as usize);
            let skipped = number as usize - next;
            next = number as usize + 1;
            let bytes = cut(&mut bytes, skipped * stride, stride);
            let entry = &mut cut(&mut entries, skipped, 1)[0];
            let block = self.blocks.get(number as usize / BLOCK_PLACES);
            handed[at] = Some(PlacedRow { entry, bytes, block, number });
        }
        handed.into_iter().flatten()
    }
}

/// Drops `skipped` elements from the front of `rest` and splits off the next `len`.
fn cut<'a, T>(rest: &mut &'a mut [T], skipped: usize, len: usize) -> &'a mut [T] {
    let (_, tail) = std::mem::take(rest).split_at_mut(skipped);
    let (cut, tail) = tail.split_at_mut(len);
    *rest = tail;
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIDE: usize = 64;

    /// Seven rows whose classes and first bytes are their places.
    fn segment() -> Segment {
        let mut segment = Segment::in_memory(10, STRIDE).unwrap();
        for place in 0..7 {
            segment.push(place);
        }
        for place in segment.hand_out(&[0, 1, 2, 3, 4, 5, 6]) {
            place.bytes[0] = place.number as u8;
        }
        segment
    }

    #[test]
    fn places_are_handed_out_in_the_order_in_which_they_are_asked_for() {
        let mut segment = segment();
        for asked in [&[][..], &[6, 0, 3, 2, 5], &[4], &[0, 1, 2, 3, 4, 5, 6]] {
            let found: Vec<(u64, u8, usize)> = segment
                .hand_out(asked)
                .map(|place| {
                    (place.entry.class().unwrap(), place.bytes[0], place.bytes.len() / STRIDE)
                })
                .collect();
            let expected: Vec<_> = asked.iter().map(|&p| (p.into(), p as u8, 1)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_new_row_comes_after_all_others() {
        let mut segment = segment();
        assert_eq!(segment.push(99), Some(7));
        assert_eq!(segment.get(7).0.class(), Some(99));
        for class in 0..2 {
            assert!(segment.push(class).is_some());
        }
        assert_eq!(segment.push(3), None, "there is room for ten");
    }

    #[test]
    fn the_copy_of_a_time_is_the_newest_that_is_no_newer() {
        let entry = Entry { stamps: [7, 3, 9], ..Entry::new(5) };
        assert_eq!(entry.newest(), (2, 9));
        let at = |time| entry.newest_at(time);
        assert_eq!([at(2), at(3), at(8), at(9)], [None, Some((1, 3)), Some((0, 7)), Some((2, 9))]);
    }

    #[test]
    fn every_bit_of_an_entry_that_a_checkpoint_needs_changes_its_digest() {
        let mut entry = Entry { stamps: [7, 3, 0], sums: [0x1234, 0x5678, 0], ..Entry::new(5) };
        let whole = entry.digest_at(4, 8);
        let mut n_same = 0;
        for bit in 0..size_of::<Entry>() * 8 {
            bytemuck::bytes_of_mut(&mut entry)[bit / 8] ^= 1 << (bit % 8);
            n_same += usize::from(entry.digest_at(4, 8) == whole);
            bytemuck::bytes_of_mut(&mut entry)[bit / 8] ^= 1 << (bit % 8);
        }
        // Checksums of the two copies that the checkpoint has no use for, and most bits of their
        // stamps: all but those that make a stamp of 3 or 0 one of exactly 8.
        assert_eq!(n_same, 2 * 32 + 64 - 1);
        assert_ne!(entry.digest_at(5, 8), whole, "another place");
    }
}
