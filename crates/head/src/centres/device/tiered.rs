//! Centres in the host's memory or in files whose products a card takes, where it has no room for them: the
//! unit rows of a step go there, and gradients come back.

// T = rows of one tile, D = embedding, G = global batch.

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;
use tch::{Device, TchError, Tensor};

use super::{ops::RowOps, ops_of, tile_bytes};
use crate::{
    HeadError,
    centres::{CentreStore, CentreTile, PositiveGradient, TileGradient, Tiling, host::RowStore},
    config::{HeadConfig, default_tile_rows},
    loss::{Negatives, TileCosines},
    optim::{Stamp, UpdateRule},
    range::ClassRange,
    traffic,
};

/// Rows that a thread of the host works on at a time.
const PART_ROWS: usize = 2048;
/// Rows of a tile at most: what is on its way between host and card is as large.
const TILE_ROWS_MAX: usize = 1 << 18;

/// Rows of the host, in memory or in files, with products, exponentials and sums on another device.
///
/// Rows are read, normalised and moved by all threads of the host, as [`RowStore`] does it.
pub struct TieredStore {
    rows: RowStore,
    device: Device,
    ops: Arc<dyn RowOps>,
    /// For people.
    operations: String,
    /// Bytes that the exponentials of a tile may take.
    tile_bytes: usize,
}

impl TieredStore {
    /// The centres of the classes of `range` at their initial values, with products on `device`.
    ///
    /// # Errors
    ///
    /// As [`RowStore::new`].
    pub fn new(
        config: &HeadConfig,
        range: ClassRange,
        device: Device,
    ) -> Result<TieredStore, HeadError> {
        let rows = RowStore::new(config, range)?;
        let (ops, name) = ops_of(device, config.dim);
        let operations = format!("{name}, rows by the CPU");
        Ok(TieredStore { rows, device, ops, operations, tile_bytes: tile_bytes(device) })
    }
}

impl CentreStore for TieredStore {
    fn n_rows(&self) -> usize {
        self.rows.n_rows()
    }

    fn device(&self) -> Device {
        self.device
    }

    fn operations(&self) -> &str {
        &self.operations
    }

    /// As few tiles as memory allows: the host waits for the sums of each.
    fn tiling(&self, config: &HeadConfig, row_bytes: usize) -> Tiling {
        let kept_bytes = config.cache_mib << 20;
        if config.tile_rows != default_tile_rows() {
            return Tiling { tile_rows: config.tile_rows, kept_bytes };
        }
        let fits = (self.tile_bytes / row_bytes.max(1)).min(TILE_ROWS_MAX);
        let tile_rows = (fits / PART_ROWS).max(1) * PART_ROWS;
        Tiling { tile_rows, kept_bytes: kept_bytes.max(self.tile_bytes) }
    }

    fn prepare(&mut self, rows: &[u32]) -> Result<(), HeadError> {
        self.rows.prepare(rows)
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let (device, ops) = (self.device, Arc::clone(&self.ops));
        // So that no part belongs to two tiles.
        let part_rows = common_divisor(tile_rows, PART_ROWS);
        let mut parts = self.rows.tiles(rows, part_rows).into_iter();
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let n_rows = rows.len();
            let parts = parts.by_ref().take(n_rows.div_ceil(part_rows)).collect();
            Box::new(TieredTile { parts, part_rows, n_rows, device, ops: Arc::clone(&ops) })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn prefetch(&mut self, rows: &[u32]) {
        self.rows.prefetch(rows);
    }

    fn wants_prefetch(&self) -> bool {
        self.rows.wants_prefetch()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<bool, HeadError> {
        self.rows.catch_up(rule)
    }

    fn stamps(&self, rows: Range<usize>) -> Result<Vec<Stamp>, HeadError> {
        self.rows.stamps(rows)
    }

    fn stamps_of(&self, rows: &[u32]) -> Result<Vec<Stamp>, HeadError> {
        self.rows.stamps_of(rows)
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError> {
        self.rows.export(rows, weight, state)
    }

    fn copy_out(&self, rows: &[u32]) -> Result<(Tensor, Tensor), HeadError> {
        self.rows.copy_out(rows)
    }

    fn begin_import(&mut self, now: Stamp, own_folder: bool) -> Result<(), HeadError> {
        self.rows.begin_import(now, own_folder)
    }

    fn import(
        &mut self,
        rows: &[u32],
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        self.rows.import(rows, weight, state, stamps)
    }

    fn in_files(&mut self) -> Option<&mut RowStore> {
        self.rows.in_files()
    }
}

/// A few of the step's rows, in parts.
struct TieredTile<'a> {
    /// Of `part_rows` rows each, the last perhaps fewer.
    parts: Vec<Box<dyn CentreTile + 'a>>,
    part_rows: usize,
    n_rows: usize,
    device: Device,
    ops: Arc<dyn RowOps>,
}

impl TieredTile<'_> {
    /// Each part's rows of `[T, D]`.
    fn views(&self, all_td: &Tensor) -> Vec<Tensor> {
        let view = |start: usize| {
            let n_rows = self.part_rows.min(self.n_rows - start);
            all_td.narrow(0, start as i64, n_rows as i64)
        };
        (0..self.n_rows).step_by(self.part_rows).map(view).collect()
    }

    /// Memory of the host that the device reads by itself, for what is like `there_td`.
    fn room(&self, there_td: &Tensor) -> Result<Tensor, TchError> {
        let options = (there_td.kind(), Device::Cpu);
        let room_td = Tensor::f_empty(there_td.size().as_slice(), options)?;
        if self.device.is_cuda() { room_td.f_pin_memory(self.device) } else { Ok(room_td) }
    }
}

impl CentreTile for TieredTile<'_> {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn unit_rows(&mut self, rule: &dyn UpdateRule, unit_td: &mut Tensor) -> Result<(), HeadError> {
        let failed = || HeadError::torch("bring a tile to the device");
        let here_td = self.room(unit_td).map_err(failed())?;
        let views = self.views(&here_td);
        let parts = self.parts.par_iter_mut().zip(views);
        parts.try_for_each(|(part, mut view_td)| part.unit_rows(rule, &mut view_td))?;
        traffic::hand_over(1);
        traffic::to_device(&here_td, self.device)
            .and_then(|there_td| unit_td.f_copy_(&there_td))
            .map_err(failed())
    }

    fn exponentials(&mut self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        self.ops.negatives(tile)
    }

    fn update(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), HeadError> {
        let TileGradient { as_negatives_td, as_positives, unit_embeddings_gd } = *gradient;
        let failed = || HeadError::torch("bring a gradient to the host");
        let here = |tensor: &Tensor| traffic::to_host_as_it_is(tensor)?.f_contiguous();
        let negatives_td = here(as_negatives_td).map_err(failed())?;
        let unit_gd = here(unit_embeddings_gd).map_err(failed())?;
        // A handle for each thread.
        let of_parts: Vec<(Tensor, Tensor)> = self
            .views(&negatives_td)
            .into_iter()
            .map(|view_td| (view_td, unit_gd.shallow_clone()))
            .collect();
        let part_rows = self.part_rows;
        let parts = self.parts.par_iter_mut().zip(of_parts).enumerate();
        parts.try_for_each(|(i, (part, (as_negatives_td, unit_embeddings_gd)))| {
            let own = within(as_positives, i * part_rows..(i + 1) * part_rows);
            let gradient = TileGradient {
                as_negatives_td: &as_negatives_td,
                as_positives: &own,
                unit_embeddings_gd: &unit_embeddings_gd,
            };
            part.update(rule, &gradient, lr)
        })
    }
}

/// Those of `pulls`, which ascend, that are of `rows`, counted from the first of these.
fn within(pulls: &[PositiveGradient], rows: Range<usize>) -> Vec<PositiveGradient> {
    let at = |row: usize| pulls.partition_point(|pull| pull.row < row);
    let own = &pulls[at(rows.start)..at(rows.end)];
    own.iter().map(|pull| PositiveGradient { row: pull.row - rows.start, ..*pull }).collect()
}

/// The greatest number that divides both, neither of which is 0.
fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_belongs_to_one_tile_and_has_its_own_pulls() {
        assert_eq!(
            [(7, 2048), (4096, 2048), (3072, 2048)].map(|(a, b)| common_divisor(a, b)),
            [1, 2048, 1024]
        );
        let pull = |row| PositiveGradient { row, sample: row, slope: 0.5 };
        let pulls = [0, 3, 4, 4, 7].map(pull);
        let found = within(&pulls, 4..8);
        let places: Vec<_> = found.iter().map(|pull| (pull.row, pull.sample)).collect();
        assert_eq!(places, [(0, 4), (0, 4), (3, 7)]);
        assert!(within(&pulls, 8..12).is_empty());
    }
}
