//! Centres in memory, the host's own or mapped files.

mod recover;
mod segments;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::{
    CentreStore, CentreTile, DurableCentres,
    file::{CentreFolder, Entry, Prefetch},
    row::{self, Rounding, RowLayout},
};
use crate::{
    HeadError,
    config::{HeadConfig, Placement},
    optim::{Stamp, UNTOUCHED, UntouchedRows, UpdateRule},
    range::ClassRange,
};
pub(super) use segments::cut;
use segments::{Place, Places, Segment, Segments};
pub(super) use tile::Frame;
use tile::{RowTile, Scratch};

/// Rows that are imported at a time, which bounds the memory that takes.
const IMPORT_ROWS: usize = 1 << 16;

/// Rows of weight and optimizer state, side by side. A row gets a place in memory when a step first
/// uses it; until then its value is a function of the seed and its class.
///
/// On disk there is room for two copies of a row. The one that the last checkpoint needs is never
/// written over, so that a run killed at any moment finds it.
pub struct RowStore {
    frame: Frame,
    range: ClassRange,
    places: Places,
    segments: Segments,
    folder: Option<CentreFolder>,
    prefetch: Prefetch,
}

impl RowStore {
    /// The centres of the classes of `range`, in files if `config` wants that, at their initial values.
    ///
    /// A folder that holds a run is left as it is until the first step or a restore.
    ///
    /// # Errors
    ///
    /// [`HeadError::Memory`] if the machine does not grant the address space;
    /// [`HeadError::CentreFile`] and [`HeadError::Io`] if the folder of the files cannot be used.
    pub fn new(config: &HeadConfig, range: ClassRange) -> Result<RowStore, HeadError> {
        let layout = RowLayout::of_config(config);
        let range = range.of_centres(config.margin.sub_centres());
        let n_copies = if matches!(config.centres, Placement::File(_)) { 2 } else { 1 };
        let frame = Frame {
            layout,
            seed: config.seed,
            first_class: range.first(),
            n_copies,
            floor: UNTOUCHED,
        };
        let (segments, folder) = match &config.centres {
            Placement::Host | Placement::Device => {
                (vec![Segment::in_memory(range.len(), frame.stride())?], None)
            }
            Placement::File(path) => {
                let folder = CentreFolder::open(path, config, range, frame.stride())?;
                (Vec::new(), Some(folder))
            }
        };
        Ok(RowStore {
            frame,
            range,
            places: Places::new(range.len())?,
            segments: Segments::new(segments),
            folder,
            prefetch: Prefetch::default(),
        })
    }

    /// Clears the folder for a new run, unless one has begun or was restored.
    fn begin(&mut self) -> Result<(), HeadError> {
        if let Some(file) = self.folder.as_mut().map_or(Ok(None), CentreFolder::begin)? {
            self.segments = Segments::new(vec![Segment::of_file(file, self.frame.stride())?]);
        }
        Ok(())
    }

    /// Gives a place to each of `rows` that has none.
    fn assign(&mut self, rows: impl Iterator<Item = usize>) -> Result<(), HeadError> {
        let new = rows.filter(|&row| self.places.of(row).is_none()).collect::<Vec<_>>();
        self.segments.make_room(new.len())?;
        for row in new {
            let place = self.segments.push(self.range.first() + row as u64);
            let (rows, row_bytes) = (self.range.len(), self.frame.stride());
            self.places.set(row, place.ok_or(HeadError::Memory { rows, row_bytes })?);
        }
        Ok(())
    }

    /// Entry and bytes of a row that has a place.
    fn find(&self, row: usize) -> Option<(&Entry, &[u8])> {
        self.places.of(row).map(|place| self.segments.get(place))
    }

    fn stamp_of(&self, row: usize) -> Stamp {
        self.find(row).map_or(UNTOUCHED, |(entry, _)| entry.newest().1)
    }
}

impl CentreStore for RowStore {
    fn n_rows(&self) -> usize {
        self.range.len()
    }

    fn prepare(&mut self, rows: &[u32]) -> Result<(), HeadError> {
        self.begin()?;
        self.assign(rows.iter().map(|&row| row as usize))
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let frame = self.frame;
        let place = |&row: &u32| self.places.of(row as usize).expect("rows are told of before");
        let places: Vec<u32> = rows.iter().map(place).collect();
        let mut places = self.segments.hand_out(&places);
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let places = places.by_ref().take(rows.len()).collect();
            Box::new(RowTile { frame, rows, places })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn prefetch(&mut self, rows: &[u32]) {
        if self.folder.is_none() {
            return;
        }
        let (stride, size) = (self.frame.stride(), self.frame.layout.size_bytes());
        let start = |&row: &u32| {
            let place = self.places.of(row as usize)?;
            let (copy, stamp) = self.segments.get(place).0.newest();
            let (file, place) = self.segments.locate(place);
            (stamp != UNTOUCHED).then(|| (file, (place * stride + copy * size) as u64))
        };
        let starts = rows.iter().filter_map(start).collect();
        let files = self.segments.iter().filter_map(Segment::file);
        self.prefetch.read(files.map(|file| file.rows().clone()).collect(), starts, size);
    }

    fn wants_prefetch(&self) -> bool {
        self.folder.is_some()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<UntouchedRows, HeadError> {
        let (frame, own) = (self.frame, self.range);
        // On disk a row that was never touched goes on costing nothing.
        let leave = self.folder.is_some();
        if !leave && rule.missed(UNTOUCHED).is_some() {
            self.assign(0..self.range.len())?;
        }
        let catch_up = |scratch: &mut Scratch, mut place: Place<'_>| {
            let row = place.entry.class().and_then(|class| own.row_of(class));
            let Some(row) = row.map(|row| row as usize) else { return };
            let (_, stamp) = place.entry.newest();
            let missed = rule.missed(stamp).filter(|_| !leave || stamp != UNTOUCHED);
            let Some(flow) = missed else { return };
            frame.read(row, (place.entry, place.bytes), true, scratch);
            row::advance(&flow, &mut scratch.weight, &mut scratch.state);
            frame.write(row, scratch, rule.stamp(), &mut place);
        };
        for segment in self.segments.iter_mut() {
            let (entries, bytes) = segment.used_mut();
            let places = entries.par_iter_mut().zip(bytes.par_chunks_mut(frame.stride()));
            places.for_each_init(
                || Scratch::new(&frame.layout),
                |scratch, (entry, bytes)| catch_up(scratch, Place { entry, bytes }),
            );
        }
        Ok(if leave { UntouchedRows::LeftAlone } else { UntouchedRows::CaughtUp })
    }

    fn stamps(&self) -> Vec<Stamp> {
        (0..self.range.len()).map(|row| self.stamp_of(row)).collect()
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
                match self.find(row) {
                    Some(place) => self.frame.read(row, place, true, scratch),
                    None => self.frame.read_initial(row, scratch),
                }
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
        self.begin()?;
        let touched = rows.clone().zip(stamps).filter(|(_, stamp)| **stamp != UNTOUCHED);
        self.assign(touched.map(|(row, _)| row))?;
        let (layout, end) = (self.frame.layout, rows.end);
        for first in rows.clone().step_by(IMPORT_ROWS) {
            let piece = first..(first + IMPORT_ROWS).min(end);
            let placed = piece.filter_map(|row| Some((row - rows.start, self.places.of(row)?)));
            let (indices, places): (Vec<usize>, Vec<u32>) = placed.unzip();
            for (i, place) in indices.into_iter().zip(self.segments.hand_out(&places)) {
                place.entry.stamps = [stamps[i], UNTOUCHED];
                if stamps[i] != UNTOUCHED {
                    let weight = &weight[i * layout.dim()..][..layout.dim()];
                    let state = &state[i * layout.n_state()..][..layout.n_state()];
                    layout.write(weight, state, Rounding::Nearest, place.bytes);
                }
            }
        }
        Ok(())
    }

    fn durable(&mut self) -> Option<&mut dyn DurableCentres> {
        self.folder.is_some().then_some(self as &mut dyn DurableCentres)
    }
}
