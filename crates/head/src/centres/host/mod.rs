//! Centres in memory, the host's own or mapped files.

mod places;
mod recover;
#[cfg(test)]
mod tests;
mod tile;

use std::{ops::Range, path::Path, sync::Arc};

use rayon::prelude::*;
use tch::{Device, Tensor};

use super::{
    CentreStore, CentreTile,
    file::{COPIES, CentreFolder, Entry, PlacedRow, Prefetch, Segment},
    row::{self, RowLayout},
};
use crate::{
    HeadError,
    config::{HeadConfig, Placement, Storage},
    optim::{FIRST, Stamp, UNTOUCHED, UpdateRule},
    range::ClassRange,
};
use places::Places;
pub(crate) use tile::Frame;
use tile::{BadRow, RowTile, Scratch};

/// Rows of weight and optimizer state, side by side. A row gets a place in memory when a step first
/// uses it; until then its value is a function of the seed and its class.
///
/// On disk there is room for three copies of a row. Those that the last two checkpoints need are
/// never written over, so that a run killed at any moment finds them.
pub struct RowStore {
    frame: Frame,
    range: ClassRange,
    places: Places,
    /// None before the first step of a rank with files, and on one without classes.
    segment: Option<Segment>,
    /// Where the rows are, for errors.
    origin: Arc<Path>,
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
    /// [`HeadError::CentreFile`] and [`HeadError::Durable`] if the folder of the files cannot be used.
    pub fn new(config: &HeadConfig, range: ClassRange) -> Result<RowStore, HeadError> {
        let layout = RowLayout::of_config(config);
        let range = range.of_centres(config.margin.sub_centres());
        let n_copies = if matches!(config.centres, Placement::File(_)) { COPIES } else { 1 };
        let (seed, first_class) = (config.seed, range.first());
        let frame = Frame { layout, seed, first_class, n_copies, protected: [UNTOUCHED; 2] };
        let (segment, folder) = match &config.centres {
            Placement::Host | Placement::Device => {
                (Some(Segment::in_memory(range.len(), frame.stride())?), None)
            }
            Placement::File(path) => {
                (None, Some(CentreFolder::open(path, config, range, frame.stride())?))
            }
        };
        Ok(RowStore {
            frame,
            range,
            places: Places::new(range.len())?,
            segment,
            origin: Arc::from(Path::new("")),
            folder,
            prefetch: Prefetch::default(),
        })
    }

    /// Clears the folder for a new run, unless one has begun or was restored.
    fn begin(&mut self) -> Result<(), HeadError> {
        match &self.folder {
            Some(folder) if !folder.has_begun() => self.begin_at(FIRST, false),
            _ => Ok(()),
        }
    }

    fn begin_at(&mut self, born: Stamp, own_folder: bool) -> Result<(), HeadError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let segment = folder.begin(born, own_folder)?;
        self.frame.protected = folder.protected();
        self.places = Places::new(self.range.len())?;
        self.take(segment);
        Ok(())
    }

    fn take(&mut self, segment: Option<Segment>) {
        if let Some(file) = segment.as_ref().and_then(Segment::file) {
            self.origin = Arc::from(file.rows_path());
        }
        self.segment = segment;
    }

    /// Gives a place to each of `rows` that has none.
    fn assign(&mut self, rows: &[u32]) -> Result<(), HeadError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let is_new = |row: &&u32| self.places.of(**row as usize).is_none();
        let new: Vec<u32> = rows.iter().filter(is_new).copied().collect();
        segment.make_room(new.len())?;
        for row in new {
            let place = segment.push(self.range.first() + u64::from(row));
            let (rows, row_bytes) = (self.range.len(), self.frame.stride());
            self.places.set(row as usize, place.ok_or(HeadError::Memory { rows, row_bytes })?);
        }
        Ok(())
    }

    /// Entry and bytes of a row that has a place.
    fn find(&self, row: usize) -> Option<(&Entry, &[u8])> {
        self.places.of(row).zip(self.segment.as_ref()).map(|(place, rows)| rows.get(place as usize))
    }

    fn stamp(&self, row: usize) -> Stamp {
        self.find(row).map_or(UNTOUCHED, |(entry, _)| entry.newest().1)
    }

    fn error_of(&self, bad: BadRow) -> HeadError {
        let place = self.places.of(bad.row).unwrap_or(0) as usize;
        bad.error(&self.origin, place, self.range.first() + bad.row as u64)
    }

    /// Different places of rows that have one, in the order of `rows`.
    fn hand_out<'a>(&'a mut self, rows: &[u32]) -> impl Iterator<Item = PlacedRow<'a>> + use<'a> {
        let place = |&row: &u32| self.places.of(row as usize).expect("rows are told of before");
        let places: Vec<u32> = rows.iter().map(place).collect();
        self.segment.as_mut().into_iter().flat_map(move |segment| segment.hand_out(&places))
    }
}

impl CentreStore for RowStore {
    fn n_rows(&self) -> usize {
        self.range.len()
    }

    fn prepare(&mut self, rows: &[u32]) -> Result<(), HeadError> {
        self.begin()?;
        self.assign(rows)
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let (frame, origin) = (self.frame, Arc::clone(&self.origin));
        let mut places = self.hand_out(rows);
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let places = places.by_ref().take(rows.len()).collect();
            Box::new(RowTile { frame, origin: Arc::clone(&origin), rows, places })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn prefetch(&mut self, rows: &[u32]) {
        let Some(segment) = &self.segment else { return };
        let Some(file) = segment.file() else { return };
        let (stride, size) = (self.frame.stride(), self.frame.layout.size_bytes());
        let start = |&row: &u32| {
            let place = self.places.of(row as usize)? as usize;
            let (copy, stamp) = segment.get(place).0.newest();
            (stamp != UNTOUCHED).then(|| (place * stride + copy * size) as u64)
        };
        let starts = rows.iter().filter_map(start).collect();
        self.prefetch.read(Arc::clone(file.rows()), starts, size);
    }

    fn wants_prefetch(&self) -> bool {
        self.folder.is_some()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<bool, HeadError> {
        let (frame, first_class, now) = (self.frame, self.range.first(), rule.stamp());
        if frame.protected[1] == now {
            // A copy of this stamp would stand in for the one that the checkpoint has.
            return Ok(false);
        }
        let catch_up = |scratch: &mut Scratch, mut place: PlacedRow<'_>| {
            let Some(class) = place.entry.class() else { return Ok(()) };
            let (_, stamp) = place.entry.newest();
            let missed = rule.missed(stamp).filter(|_| stamp != UNTOUCHED);
            let Some(flow) = missed else { return Ok(()) };
            let row = (class - first_class) as usize;
            frame.read(row, (place.entry, place.bytes), true, scratch)?;
            row::advance(&flow, &mut scratch.weight, &mut scratch.state);
            frame.write(row, scratch, now, &mut place);
            Ok(())
        };
        let caught_up = self.segment.as_mut().map_or(Ok(()), |segment| {
            segment.blocks_mut().try_for_each_init(
                || Scratch::new(&frame.layout),
                |scratch, places| places.into_iter().try_for_each(|place| catch_up(scratch, place)),
            )
        });
        caught_up.map_err(|bad| self.error_of(bad))?;
        Ok(true)
    }

    fn stamps(&self, rows: Range<usize>) -> Result<Vec<Stamp>, HeadError> {
        Ok(rows.into_par_iter().map(|row| self.stamp(row)).collect())
    }

    fn stamps_of(&self, rows: &[u32]) -> Result<Vec<Stamp>, HeadError> {
        Ok(rows.iter().map(|&row| self.stamp(row as usize)).collect())
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError> {
        let layout = self.frame.layout;
        let out = weight.par_chunks_mut(layout.dim()).zip(state.par_chunks_mut(layout.n_state()));
        let copied = out.zip(rows).try_for_each_init(
            || Scratch::new(&layout),
            |scratch, ((weight, state), row)| {
                match self.find(row) {
                    Some(place) => self.frame.read(row, place, true, scratch)?,
                    None => self.frame.read_initial(row, scratch),
                }
                weight.copy_from_slice(&scratch.weight);
                state.copy_from_slice(&scratch.state);
                Ok(())
            },
        );
        copied.map_err(|bad| self.error_of(bad))
    }

    fn copy_out(&self, rows: &[u32]) -> Result<(Tensor, Tensor), HeadError> {
        let layout = self.frame.layout;
        let empty = |width: usize, storage: Storage| {
            let shape = [rows.len() as i64, width as i64];
            Tensor::f_empty(shape, (storage.kind(), Device::Cpu))
                .map_err(HeadError::torch("copy centres"))
        };
        let mut weight_rd = empty(layout.dim(), layout.weights())?;
        let mut state_rn = empty(layout.n_state(), layout.states())?;
        let copied = pfc_model::bytes::with_bytes_mut(&mut weight_rd, |weight| {
            pfc_model::bytes::with_bytes_mut(&mut state_rn, |state| {
                let weights = weight.par_chunks_mut(layout.weight_bytes());
                let states = state.par_chunks_mut(layout.state_bytes());
                weights.zip(states).zip(rows).try_for_each(|((weight, state), &row)| {
                    let place = self.find(row as usize).ok_or(BadRow::damaged(row as usize))?;
                    let bytes = self.frame.newest_copy(row as usize, place)?;
                    let bytes = bytes.ok_or(BadRow::damaged(row as usize))?;
                    weight.copy_from_slice(layout.weight_of(bytes));
                    state.copy_from_slice(layout.state_of(bytes));
                    Ok(())
                })
            })
        });
        copied.map_err(|bad| self.error_of(bad))?;
        Ok((weight_rd, state_rn))
    }

    fn begin_import(&mut self, now: Stamp, own_folder: bool) -> Result<(), HeadError> {
        self.begin_at(now, own_folder)
    }

    fn import(
        &mut self,
        rows: &[u32],
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        self.begin()?;
        self.assign(rows)?;
        let frame = self.frame;
        let weights = weight.chunks(frame.layout.dim());
        let states = state.chunks(frame.layout.n_state());
        let places = self.hand_out(rows);
        for ((mut place, &stamp), (weight, state)) in places.zip(stamps).zip(weights.zip(states)) {
            frame.put_back(weight, state, stamp, &mut place);
        }
        Ok(())
    }

    fn in_files(&mut self) -> Option<&mut RowStore> {
        self.folder.is_some().then_some(self)
    }
}
