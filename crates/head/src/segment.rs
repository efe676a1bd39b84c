//! Rows packed one after the other, in memory or in a pair of files.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::{
    HeadError,
    memory::Memory,
    segment_file::SegmentFile,
    update::{Stamp, UNTOUCHED},
};

/// What is known of a place.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Entry {
    /// 1 + the global id of the class whose row lies here; 0 while the place is free.
    class_plus_1: u64,
    /// When each copy of the row was written, [`UNTOUCHED`] for never. In memory there is one copy.
    pub stamps: [Stamp; 2],
}

impl Entry {
    fn new(class: u64) -> Entry {
        Entry { class_plus_1: class + 1, stamps: [UNTOUCHED; 2] }
    }

    /// The class whose row lies here.
    pub fn class(&self) -> Option<u64> {
        self.class_plus_1.checked_sub(1)
    }

    /// Number and stamp of the row's newest copy.
    #[inline(always)]
    pub fn newest(&self) -> (usize, Stamp) {
        let [first, second] = self.stamps;
        if second > first { (1, second) } else { (0, first) }
    }
}

/// A row's memory, in the hands of one thread.
pub(super) struct Place<'a> {
    pub entry: &'a mut Entry,
    /// All copies of the row, side by side.
    pub bytes: &'a mut [u8],
}

/// Places of rows, the used ones before the free ones.
///
/// Rows lie in the order in which they were first needed: a run that uses few of its classes, as
/// every run does at first, fills few pages, whole ones, one after the other.
#[derive(Debug)]
pub(super) struct Segment {
    /// Bytes from one row to the next.
    stride: usize,
    n_used: usize,
    /// Stretches of free places before the last one in use, the first of them last.
    holes: Vec<Range<usize>>,
    rows: Memory,
    entries: Memory,
    file: Option<SegmentFile>,
}

impl Segment {
    /// Room for `n_rows` in memory, which is taken as rows come.
    pub fn in_memory(n_rows: usize, stride: usize) -> Result<Segment, HeadError> {
        let rows = Memory::anonymous(n_rows, stride)?;
        let entries = Memory::anonymous(n_rows, size_of::<Entry>())?;
        Ok(Segment { stride, n_used: 0, holes: Vec::new(), rows, entries, file: None })
    }

    /// What `file` holds, every place of it free until [`Segment::set_used`].
    pub fn of_file(file: SegmentFile, stride: usize) -> Result<Segment, HeadError> {
        let (rows, entries) = file.map()?;
        Ok(Segment { stride, n_used: 0, holes: Vec::new(), rows, entries, file: Some(file) })
    }

    /// Says how many places are in use.
    ///
    /// * `holes`: stretches of free ones among them, ascending, as a power cut leaves them
    pub fn set_used(&mut self, n_used: usize, mut holes: Vec<Range<usize>>) {
        holes.reverse();
        (self.n_used, self.holes) = (n_used, holes);
        if let Some(file) = &mut self.file {
            file.set_used(n_used);
        }
    }

    /// The files behind it, if it is not in memory.
    pub fn file(&self) -> Option<&SegmentFile> {
        self.file.as_ref()
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Places in use, and the holes among them.
    pub fn n_used(&self) -> usize {
        self.n_used
    }

    /// Makes sure that the next `n_rows` places can be written to.
    ///
    /// # Errors
    ///
    /// [`HeadError::DiskFull`] if they cannot; a write through the mapping would end the process.
    pub fn make_room(&mut self, n_rows: usize) -> Result<(), HeadError> {
        let n_holes = self.holes.iter().map(ExactSizeIterator::len).sum();
        let end = self.n_used + n_rows.saturating_sub(n_holes);
        self.file.as_mut().map_or(Ok(()), |file| file.make_room(end))
    }

    /// Takes the next free place for the row of `class`, and returns its number.
    pub fn push(&mut self, class: u64) -> usize {
        let place = self.next_hole().unwrap_or(self.n_used);
        self.entries_mut()[place] = Entry::new(class);
        self.n_used = self.n_used.max(place + 1);
        place
    }

    fn next_hole(&mut self) -> Option<usize> {
        while let Some(stretch) = self.holes.last_mut() {
            match stretch.next() {
                Some(place) => return Some(place),
                None => self.holes.pop(),
            };
        }
        None
    }

    /// All entries, of free places too.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        self.entries.as_mut_slice()
    }

    /// Entry and bytes of a place.
    pub fn get(&self, place: usize) -> (&Entry, &[u8]) {
        let bytes = &self.rows.as_slice()[place * self.stride..][..self.stride];
        (&self.entries.as_slice()[place], bytes)
    }

    /// Entries and bytes of the places in use.
    pub fn used_mut(&mut self) -> (&mut [Entry], &mut [u8]) {
        let n_bytes = self.n_used * self.stride;
        let entries = &mut self.entries.as_mut_slice()[..self.n_used];
        (entries, &mut self.rows.as_mut_slice()[..n_bytes])
    }
}
