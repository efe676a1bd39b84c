//! What becomes of a folder of centres at a checkpoint and after a crash.

use super::{Places, RowStore, Segment, Segments};
use crate::{
    HeadError,
    centres::{DurableCentres, file::Entry},
    optim::{Stamp, UNTOUCHED, UpdateRule},
    range::ClassRange,
};

impl DurableCentres for RowStore {
    fn flush(&mut self, now: Stamp) -> Result<(), HeadError> {
        self.begin()?;
        for file in self.segments.iter().filter_map(Segment::file) {
            file.sync()?;
        }
        self.folder.as_mut().map_or(Ok(()), |folder| folder.flushed(now))
    }

    fn protect(&mut self, now: Stamp) -> Result<(), HeadError> {
        if let Some(folder) = &mut self.folder {
            folder.protect(now)?;
            self.frame.floor = now;
        }
        Ok(())
    }

    fn restore(&mut self, now: Stamp, rule: &dyn UpdateRule) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let mut stock = Stock {
            now,
            rule,
            range: self.range,
            places: Places::new(self.range.len())?,
            first: 0,
        };
        let mut segments = Vec::new();
        for file in folder.restore(now)? {
            let mut segment = Segment::of_file(file, self.frame.stride())?;
            stock.take(&mut segment)?;
            segments.push(segment);
        }
        (self.places, self.segments) = (stock.places, Segments::new(segments));
        self.frame.floor = now;
        Ok(())
    }
}

/// Finds the rows of a rank in files, as they were at a time.
struct Stock<'a> {
    now: Stamp,
    rule: &'a dyn UpdateRule,
    range: ClassRange,
    /// Where the rows found so far lie.
    places: Places,
    /// Number of the next segment's first place.
    first: usize,
}

impl Stock<'_> {
    fn take(&mut self, segment: &mut Segment) -> Result<(), HeadError> {
        let Some(file) = segment.file() else { return Ok(()) };
        let (stretches, classes) = (file.stretches(), file.classes().clone());
        let (mut n_used, mut holes) = (0, Vec::new());
        for place in stretches.into_iter().flatten() {
            let entry = &mut segment.entries_mut()[place];
            let Some(class) = entry.class() else { continue };
            holes.extend((n_used < place).then_some(n_used..place));
            n_used = place + 1;
            let taken = if classes.contains(&class) {
                self.take_entry(entry, class, place)
            } else {
                Err(format!("holds class {class}, which has no place in this file"))
            };
            if let (Err(problem), Some(file)) = (taken, segment.file()) {
                return Err(file.damaged(place, &problem));
            }
        }
        self.first += n_used;
        segment.set_used(n_used, holes);
        Ok(())
    }

    fn take_entry(&mut self, entry: &mut Entry, class: u64, place: usize) -> Result<(), String> {
        // A row of another rank is that one's.
        let Some(row) = self.range.row_of(class) else { return Ok(()) };
        // What a run left that was killed after that time.
        entry.stamps.iter_mut().filter(|stamp| **stamp > self.now).for_each(|s| *s = UNTOUCHED);
        let (_, stamp) = entry.newest();
        if !self.rule.knows(stamp) {
            return Err(format!("holds class {class} as of step {stamp}, which no row can be"));
        }
        if self.places.of(row as usize).is_some() {
            return Err(format!("holds class {class}, which another place holds already"));
        }
        let number = u32::try_from(self.first + place).ok().filter(|&number| number < u32::MAX);
        let number = number.ok_or_else(|| "is one more than can be counted".to_owned())?;
        self.places.set(row as usize, number);
        Ok(())
    }
}
