//! Saving a store in files for a checkpoint, and restoring it after a crash.

use std::path::Path;

use super::{Places, RowStore, Segment};
use crate::{
    HeadError,
    centres::file::FileRecord,
    optim::{Stamp, UpdateRule},
    range::ClassRange,
};

/// A store in files keeps the rows as they were at the last two times at which they were protected,
/// beside what has moved since.
impl RowStore {
    /// The folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), |folder| folder.path())
    }

    /// Refuses a folder that holds the centres of a run that has saved. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`HeadError::CentreFile`] for such a folder, [`HeadError::CentresDamaged`] if its files do not show
    /// whether it is one.
    pub fn check_free(&self) -> Result<(), HeadError> {
        self.folder.as_ref().map_or(Ok(()), |folder| folder.check_free())
    }

    /// Syncs everything up to the time `now` to disk, and returns what a checkpoint must hold to go back to
    /// it. What was protected before stays protected.
    ///
    /// `None` if the rank has no classes.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the disk refuses.
    pub(crate) fn flush(&mut self, now: Stamp) -> Result<Option<FileRecord>, HeadError> {
        self.begin()?;
        let Some(segment) = &self.segment else { return Ok(None) };
        let Some(file) = segment.file() else { return Ok(None) };
        file.sync()?;
        if let Some(folder) = &mut self.folder {
            folder.flushed(now)?;
        }
        let (name, n_used) = (file.name().clone(), segment.n_used());
        Ok(Some(FileRecord { name, n_used, blocks: segment.block_sums() }))
    }

    /// Protects what was flushed at `now` beside what was protected before, instead of anything
    /// older.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the disk refuses.
    pub(crate) fn protect(&mut self, now: Stamp) -> Result<(), HeadError> {
        if let Some(folder) = &mut self.folder {
            folder.protect(now)?;
            self.frame.protected = folder.protected();
        }
        Ok(())
    }

    /// Puts every row where it was at `now`, in the files that `record` describes, which hold the
    /// classes of this rank.
    ///
    /// # Errors
    ///
    /// [`HeadError::CentreFile`] if the store no longer holds that time, or does not hold it yet,
    /// [`HeadError::CentresDamaged`] if a file is lost or is not what the checkpoint had.
    pub(crate) fn restore(
        &mut self,
        record: &FileRecord,
        now: Stamp,
        rule: &dyn UpdateRule,
    ) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let segment = folder.restore(record, now)?;
        self.frame.protected = folder.protected();
        self.places = places_of(&segment, self.range, rule)?;
        self.take(Some(segment));
        Ok(())
    }
}

/// The place of every row of a rank in its files.
fn places_of(
    segment: &Segment,
    range: ClassRange,
    rule: &dyn UpdateRule,
) -> Result<Places, HeadError> {
    let mut places = Places::new(range.len())?;
    for (place, entry) in segment.used().iter().enumerate() {
        let (_, stamp) = entry.newest();
        let problem = match entry.class().and_then(|class| Some((class, range.row_of(class)?))) {
            None => "holds a class that has no place in this file".to_owned(),
            Some((class, _)) if !rule.knows(stamp) => {
                format!("holds class {class} as of step {stamp}, which no row can be")
            }
            Some((class, row)) if places.of(row as usize).is_some() => {
                format!("holds class {class}, which another place holds already")
            }
            Some((_, row)) => {
                places.set(row as usize, place as u32);
                continue;
            }
        };
        let file = segment.file().expect("only files are restored");
        return Err(file.damaged_entry(place, &problem));
    }
    Ok(places)
}
