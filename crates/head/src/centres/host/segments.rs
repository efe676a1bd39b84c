//! Rows packed one after the other, in memory or in pairs of files, and where each lies.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    HeadError,
    centres::{
        file::{Entry, SegmentFile},
        memory::Memory,
    },
};

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

/// Segments one after the other; new rows go to the last.
#[derive(Debug)]
pub(super) struct Segments {
    list: Vec<Segment>,
    /// Number of the first place of each.
    firsts: Vec<usize>,
}

impl Segments {
    pub fn new(list: Vec<Segment>) -> Segments {
        let first = |next: &mut usize, segment: &Segment| {
            let first = *next;
            *next += segment.n_used();
            Some(first)
        };
        let firsts = list.iter().scan(0, first).collect();
        Segments { list, firsts }
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.list.iter_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    /// See [`Segment::make_room`].
    pub fn make_room(&mut self, n_rows: usize) -> Result<(), HeadError> {
        self.list.last_mut().map_or(Ok(()), |last| last.make_room(n_rows))
    }

    /// Takes the next free place for the row of `class`; `None` if there is no segment, or more
    /// places than 32 bits can count.
    pub fn push(&mut self, class: u64) -> Option<u32> {
        let place = self.firsts.last()? + self.list.last_mut()?.push(class);
        // One more must fit, as a table of places counts from 1.
        u32::try_from(place).ok().filter(|&place| place < u32::MAX)
    }

    /// The segment that a place belongs to, and its number there.
    pub fn locate(&self, place: u32) -> (usize, usize) {
        let place = place as usize;
        let segment = self.firsts.partition_point(|&first| first <= place) - 1;
        (segment, place - self.firsts[segment])
    }

    /// Entry and bytes of a place.
    pub fn get(&self, place: u32) -> (&Entry, &[u8]) {
        let (segment, place) = self.locate(place);
        self.list[segment].get(place)
    }

    /// Gives out different places, in the order in which they are asked for.
    pub fn hand_out(&mut self, places: &[u32]) -> impl Iterator<Item = Place<'_>> {
        // Each is split off from the memory behind the one before it, so they must be in order.
        let key = |(at, &place): (usize, &u32)| u64::from(place) << 32 | at as u64;
        let mut order: Vec<u64> = places.iter().enumerate().map(key).collect();
        order.par_sort_unstable();
        let mut order = order.into_iter().map(|key| (key >> 32, key as u32 as usize)).peekable();
        let mut handed: Vec<Option<Place<'_>>> = places.iter().map(|_| None).collect();
        for (segment, &first) in self.list.iter_mut().zip(&self.firsts) {
            let (end, stride) = ((first + segment.n_used()) as u64, segment.stride());
            let (mut entries, mut bytes) = segment.used_mut();
            let mut next = first;
            while let Some((place, at)) = order.next_if(|&(place, _)| place < end) {
                let skipped = place as usize - next;
                next = place as usize + 1;
                let bytes = cut(&mut bytes, skipped * stride, stride);
                let entry = &mut cut(&mut entries, skipped, 1)[0];
                handed[at] = Some(Place { entry, bytes });
            }
        }
        handed.into_iter().flatten()
    }
}

/// Drops `skipped` elements from the front of `rest` and splits off the next `len`.
pub(in crate::centres) fn cut<'a, T>(
    rest: &mut &'a mut [T],
    skipped: usize,
    len: usize,
) -> &'a mut [T] {
    let (_, tail) = std::mem::take(rest).split_at_mut(skipped);
    let (cut, tail) = tail.split_at_mut(len);
    *rest = tail;
    cut
}

/// The place of every row: one number each, which costs nothing before it is set.
#[derive(Debug)]
pub(super) struct Places {
    /// 1 + the place; 0 for none.
    table: Memory,
}

impl Places {
    /// No row has a place.
    pub fn new(n_rows: usize) -> Result<Places, HeadError> {
        Memory::anonymous(n_rows, size_of::<u32>()).map(|table| Places { table })
    }

    /// The place of `row`, if it has one.
    #[inline(always)]
    pub fn of(&self, row: usize) -> Option<u32> {
        self.table.as_slice::<u32>()[row].checked_sub(1)
    }

    /// Gives `row` a place.
    pub fn set(&mut self, row: usize, place: u32) {
        self.table.as_mut_slice::<u32>()[row] = place + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIDE: usize = 64;

    /// Three segments of 3, 0 and 4 rows, whose classes and first bytes are their places.
    fn segments() -> Segments {
        let segment = |first: u8, n_rows: u8| {
            let mut segment = Segment::in_memory(10, STRIDE).unwrap();
            for place in first..first + n_rows {
                segment.push(place.into());
                let start = usize::from(place - first) * STRIDE;
                segment.used_mut().1[start] = place;
            }
            segment
        };
        Segments::new(vec![segment(0, 3), segment(3, 0), segment(3, 4)])
    }

    #[test]
    fn places_are_handed_out_in_the_order_in_which_they_are_asked_for() {
        let mut segments = segments();
        for asked in [&[][..], &[6, 0, 3, 2, 5], &[4], &[0, 1, 2, 3, 4, 5, 6]] {
            let found: Vec<(u64, u8, usize)> = segments
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
        let mut segments = segments();
        assert_eq!(segments.push(99), Some(7));
        assert_eq!(segments.get(7).0.class(), Some(99));
        assert_eq!(
            (segments.locate(2), segments.locate(3), segments.locate(7)),
            ((0, 2), (2, 0), (2, 4))
        );
    }
}
