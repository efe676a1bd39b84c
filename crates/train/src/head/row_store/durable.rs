//! What becomes of a folder of centres at a checkpoint and after a crash.

use super::{Frame, RowStore};
use crate::head::{
    HeadError,
    store::DurableCentres,
    update::{Stamp, UNTOUCHED, UpdateRule},
};

impl DurableCentres for RowStore {
    fn flush(&mut self, now: Stamp) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        folder.begin()?;
        folder.flush(now)
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
        let stretches = folder.restore(now)?;
        let stamps = self.stamps.as_mut_slice::<Stamp>();
        for stretch in stretches {
            let first = stretch.start / self.frame.n_slots;
            let rows = stamps[stretch].chunks_mut(self.frame.n_slots);
            for (row, stamps) in rows.enumerate() {
                // What a run left that was killed after that time.
                stamps.iter_mut().filter(|stamp| **stamp > now).for_each(|s| *s = UNTOUCHED);
                let (_, stamp) = Frame::newest(stamps);
                if !rule.knows(stamp) {
                    return Err(folder.damaged(first + row, stamp));
                }
            }
        }
        self.frame.floor = now;
        Ok(())
    }
}
