//! Centres in memory, the host's own or a mapped file.

mod durable;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

use super::{
    HeadError,
    centre_folder::CentreFolder,
    config::{HeadConfig, Placement},
    layout::Rounding,
    memory::Memory,
    range::ClassRange,
    row,
    row_tile::{Frame, RowTile, Scratch},
    store::{CentreStore, CentreTile, DurableCentres},
    update::{Stamp, UNTOUCHED, UntouchedRows, UpdateRule},
};

/// Rows of weight and optimizer state, side by side. A row that was never sampled is all zeros in
/// memory that the operating system has not even handed out; its initial value is a function of the
/// seed and its class.
///
/// In a file there is room for two copies of a row. The one that the last checkpoint needs is never
/// written over, so that a run killed at any moment finds it; disk space is taken by the copies
/// written, in units of the file system's blocks.
pub struct RowStore {
    frame: Frame,
    n_rows: usize,
    bytes: Memory,
    stamps: Memory,
    folder: Option<CentreFolder>,
}

impl RowStore {
    /// The rows of `range`, in a file if `config` wants that, at their initial values.
    ///
    /// A folder that holds a run is left as it is until the first step or a restore.
    ///
    /// # Errors
    ///
    /// [`HeadError::Memory`] if the machine does not grant the address space;
    /// [`HeadError::CentreFile`] and [`HeadError::Io`] if the folder of the file cannot be used.
    pub fn new(config: &HeadConfig, range: ClassRange) -> Result<RowStore, HeadError> {
        let layout = config.row_layout();
        let n_slots = if matches!(config.centres, Placement::File(_)) { 2 } else { 1 };
        let frame = Frame {
            layout,
            seed: config.seed,
            first_class: range.first(),
            n_slots,
            floor: UNTOUCHED,
        };
        let n_rows = range.len();
        let refused = || HeadError::Memory { rows: n_rows, row_bytes: layout.size_bytes() };
        let n_bytes = n_rows.checked_mul(frame.stride()).ok_or_else(refused)?;
        let n_stamp_bytes = n_rows * n_slots * size_of::<Stamp>();
        let (bytes, stamps, folder) = match &config.centres {
            Placement::Host | Placement::Device => {
                let of_all_ranks = range.classes().saturating_mul(frame.stride() as u64);
                let granted = |n| Memory::anonymous(n, of_all_ranks).map_err(|_| refused());
                (granted(n_bytes)?, granted(n_stamp_bytes)?, None)
            }
            Placement::File(path) => {
                let folder = CentreFolder::open(path, config, range, frame.stride())?;
                let (bytes, stamps) = folder.map()?;
                (bytes, stamps, Some(folder))
            }
        };
        Ok(RowStore { frame, n_rows, bytes, stamps, folder })
    }

    fn stamps_of(&self, row: usize) -> &[Stamp] {
        &self.stamps.as_slice()[row * self.frame.n_slots..][..self.frame.n_slots]
    }

    fn bytes_of(&self, row: usize) -> &[u8] {
        &self.bytes.as_slice()[row * self.frame.stride()..][..self.frame.stride()]
    }

    fn touched<'a>(&'a self, rows: &'a [u32]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let newest = |&row: &u32| (row as usize, Frame::newest(self.stamps_of(row as usize)));
        let touched = rows.iter().map(newest).filter(|(_, (_, stamp))| *stamp != UNTOUCHED);
        touched.map(|(row, (slot, _))| (row, slot))
    }
}

impl CentreStore for RowStore {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let frame = self.frame;
        let mut bytes: &mut [u8] = self.bytes.as_mut_slice();
        let mut stamps: &mut [Stamp] = self.stamps.as_mut_slice();
        let mut done = 0;
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let (first, end) = (rows[0] as usize, rows[rows.len() - 1] as usize + 1);
            let (skipped, len) = (first - done, end - first);
            done = end;
            let (stride, n_slots) = (frame.stride(), frame.n_slots);
            Box::new(RowTile {
                frame,
                first,
                rows,
                bytes: cut(&mut bytes, skipped * stride, len * stride),
                stamps: cut(&mut stamps, skipped * n_slots, len * n_slots),
            })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn prepare(&mut self, rows: &[u32], step: u64) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        folder.begin()?;
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.check_room(step, rows.len(), self.frame.layout.size_bytes(), || {
            rows.len() - self.touched(rows).count()
        })
    }

    fn prefetch(&mut self, rows: &[u32]) {
        if self.folder.is_none() {
            return;
        }
        let (stride, size) = (self.frame.stride(), self.frame.layout.size_bytes());
        let starts = self.touched(rows).map(|(row, slot)| (row * stride + slot * size) as u64);
        let starts = starts.collect();
        if let Some(folder) = &mut self.folder {
            folder.prefetch(starts, size);
        }
    }

    fn wants_prefetch(&self) -> bool {
        self.folder.is_some()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<UntouchedRows, HeadError> {
        let frame = self.frame;
        // On disk a row that was never touched goes on costing nothing.
        let leave = self.folder.is_some();
        let bytes = self.bytes.as_mut_slice::<u8>().par_chunks_mut(frame.stride());
        let stamps = self.stamps.as_mut_slice::<Stamp>().par_chunks_mut(frame.n_slots);
        let rows = bytes.zip(stamps).enumerate();
        rows.for_each_init(
            || Scratch::new(&frame.layout),
            |scratch, (row, (bytes, stamps))| {
                let (_, stamp) = Frame::newest(stamps);
                if leave && stamp == UNTOUCHED {
                    return;
                }
                let Some(flow) = rule.missed(stamp) else { return };
                frame.read(row, bytes, stamps, true, scratch);
                row::advance(&flow, &mut scratch.weight, &mut scratch.state);
                frame.write(row, scratch, rule.stamp(), bytes, stamps);
            },
        );
        Ok(if leave { UntouchedRows::LeftAlone } else { UntouchedRows::CaughtUp })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamps: &[Stamp] = self.stamps.as_slice();
        stamps.chunks(self.frame.n_slots).map(|row| Frame::newest(row).1).collect()
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError> {
        let layout = self.frame.layout;
        let out = weight.par_chunks_mut(layout.dim()).zip(state.par_chunks_mut(layout.n_state()));
        out.zip(rows).for_each_init(
            || Scratch::new(&layout),
            |scratch, ((weight, state), row)| {
                self.frame.read(row, self.bytes_of(row), self.stamps_of(row), true, scratch);
                weight.copy_from_slice(&scratch.weight);
                state.copy_from_slice(&scratch.state);
            },
        );
        Ok(())
    }

    fn import(
        &mut self,
        rows: Range<usize>,
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        if let Some(folder) = &mut self.folder {
            folder.begin()?;
        }
        let (layout, stride, n_slots) =
            (self.frame.layout, self.frame.stride(), self.frame.n_slots);
        let values = weight.chunks(layout.dim()).zip(state.chunks(layout.n_state()));
        for ((row, (weight, state)), &stamp) in rows.zip(values).zip(stamps) {
            let bytes = &mut self.bytes.as_mut_slice::<u8>()[row * stride..][..layout.size_bytes()];
            if stamp != UNTOUCHED {
                layout.write(weight, state, Rounding::Nearest, bytes);
            }
            let row_stamps = &mut self.stamps.as_mut_slice::<Stamp>()[row * n_slots..][..n_slots];
            row_stamps.fill(UNTOUCHED);
            row_stamps[0] = stamp;
        }
        Ok(())
    }

    fn durable(&mut self) -> Option<&mut dyn DurableCentres> {
        self.folder.is_some().then_some(self as &mut dyn DurableCentres)
    }
}

/// Drops `skipped` elements from the front of `rest` and splits off the next `len`.
pub(super) fn cut<'a, T>(rest: &mut &'a mut [T], skipped: usize, len: usize) -> &'a mut [T] {
    let (_, tail) = std::mem::take(rest).split_at_mut(skipped);
    let (cut, tail) = tail.split_at_mut(len);
    *rest = tail;
    cut
}
