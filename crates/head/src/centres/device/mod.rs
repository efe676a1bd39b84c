//! Centres on the device that the rank computes on.

// C = rows of the rank, D = embedding, N = numbers of a row's state, T = rows of one tile, R = some rows,
// G = global batch, O = positives of the tile, K = what rows may have missed.

#[cfg(feature = "kernels")]
mod cuda;
#[cfg(feature = "kernels")]
mod nvrtc;
mod ops;
mod sample_ops;
mod step;
mod tensor_ops;
#[cfg(test)]
mod tests;
mod tiered;

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;
use tch::{Device, Kind, TchError, Tensor};

use super::{
    CentreStore, CentreTile, PositiveGradient, TileGradient, Tiling, host::Frame, row::RowLayout,
};
use crate::{
    HeadError,
    config::{HeadConfig, default_tile_rows},
    elements::with_elements,
    loss::{Negatives, TileCosines},
    optim::{Stamp, UNTOUCHED, UpdateHistory, UpdateMap, UpdateRule},
    range::ClassRange,
    traffic,
};
pub(crate) use ops::{Figures, Reading};
use ops::{Missed, Pulls, RowKeys, RowOps, RowSteps, Rows};
use pfc_model::all_memory;
pub(crate) use step::{DeviceStep, Drawn, HandedOver};
use tensor_ops::TensorOps;
pub use tiered::TieredStore;

/// Rows that are brought to the device, or caught up there, at a time.
const PIECE_ROWS: usize = 65_536;
/// Bytes of the exponentials of a tile, where it is not known how much memory the device has.
const TILE_BYTES: usize = 256 << 20;
/// As `head.tile_rows` allows.
const TILE_ROWS_MAX: usize = 1 << 24;

/// Rows of weight and optimizer state as two tensors of a device, all of them there from the start, and a third
/// of when each last moved.
///
/// Rows start at the values that they have in [`RowStore`](super::RowStore), and are rounded by the
/// same random bits; sums are added up in another order.
pub struct DeviceStore {
    frame: Frame,
    table: Table,
    ops: Arc<dyn RowOps>,
    /// For people: what does the work on rows, and why it is not the kernels.
    operations: String,
    /// Bytes that the exponentials of a tile may take.
    tile_bytes: usize,
}

/// Handles of the tensors.
#[derive(Debug)]
struct Table {
    /// `[C, D]`, f32 or bf16.
    weight_cd: Tensor,
    /// `[C, N]`, f32 or bf16.
    state_cn: Tensor,
    /// `[C]` i32, the bits of a stamp.
    stamps_c: Tensor,
}

impl Table {
    fn handle(&self) -> Table {
        let [weight_cd, state_cn, stamps_c] =
            [&self.weight_cd, &self.state_cn, &self.stamps_c].map(Tensor::shallow_clone);
        Table { weight_cd, state_cn, stamps_c }
    }
}

/// The kernels where there is a card and what compiles them, tensor operations elsewhere; and their name,
/// with the reason where there might have been kernels.
fn ops_of(device: Device, dim: usize) -> (Arc<dyn RowOps>, String) {
    #[cfg(all(test, feature = "kernels"))]
    if tests::on_the_stand_in() {
        let ops = cuda::CudaOps::new(0, dim).expect("scripts/test-kernels has set the card up");
        let name = ops.name().to_owned();
        return (Arc::new(ops), name);
    }
    let mut why = String::new();
    #[cfg(feature = "kernels")]
    if let Device::Cuda(index) = device {
        match cuda::CudaOps::new(index, dim) {
            Ok(ops) => {
                let name = ops.name().to_owned();
                return (Arc::new(ops), name);
            }
            Err(error) => {
                tracing::warn!("the head goes on with tensor operations: {error}");
                why = format!(", as its kernels cannot be used: {error}");
            }
        }
    }
    if device.is_cuda() && cfg!(not(feature = "kernels")) {
        ", as this program is built without its kernels".clone_into(&mut why);
    }
    let _ = dim;
    let name = format!("{}{why}", TensorOps.name());
    (Arc::new(TensorOps), name)
}

/// Bytes that the exponentials of a tile may take.
fn tile_bytes(device: Device) -> usize {
    all_memory(device).map_or(TILE_BYTES, |all| (all / 16) as usize)
}

impl DeviceStore {
    /// The centres of the classes of `range` at their initial values. O(C): the device's memory is filled.
    ///
    /// # Errors
    ///
    /// [`HeadError::Torch`] if the device has no room for them.
    pub fn new(
        config: &HeadConfig,
        range: ClassRange,
        device: Device,
    ) -> Result<DeviceStore, HeadError> {
        let layout = RowLayout::of_config(config);
        let range = range.of_centres(config.margin.sub_centres());
        let frame = Frame {
            layout,
            seed: config.seed,
            first_class: range.first(),
            n_copies: 1,
            protected: [UNTOUCHED; 2],
        };
        let n_rows = range.len();
        let table = Table::new(&frame, n_rows, device)
            .map_err(HeadError::torch("make room for the centres on the device"))?;
        let (ops, operations) = ops_of(device, layout.dim());
        Ok(DeviceStore { frame, table, ops, operations, tile_bytes: tile_bytes(device) })
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_rows = self.n_rows();
        (0..n_rows).step_by(PIECE_ROWS).map(move |start| start..(start + PIECE_ROWS).min(n_rows))
    }
}

impl Table {
    fn new(frame: &Frame, n_rows: usize, device: Device) -> Result<Table, TchError> {
        let (dim, n_state) = (frame.layout.dim(), frame.layout.n_state());
        let shape = |width: usize| [n_rows as i64, width as i64];
        let weight_cd = Tensor::f_empty(shape(dim), (frame.layout.weights().kind(), device))?;
        let state_cn = Tensor::f_zeros(shape(n_state), (frame.layout.states().kind(), device))?;
        // UNTOUCHED is 0.
        let stamps_c = Tensor::f_zeros([n_rows as i64], (Kind::Int, device))?;
        let mut piece = vec![0f32; PIECE_ROWS.min(n_rows) * dim];
        for start in (0..n_rows).step_by(PIECE_ROWS) {
            let len = PIECE_ROWS.min(n_rows - start);
            let piece = &mut piece[..len * dim];
            piece
                .par_chunks_mut(dim)
                .enumerate()
                .for_each(|(i, weight)| frame.fill_initial(start + i, weight));
            let values_td = Tensor::from_slice(piece).f_view([len as i64, dim as i64])?;
            weight_cd.narrow(0, start as i64, len as i64).f_copy_(&values_td)?;
        }
        Ok(Table { weight_cd, state_cn, stamps_c })
    }

    /// What rows have missed, brought to the device; `None` if none can have missed anything.
    fn missed(&self, rule: &dyn UpdateRule) -> Result<Option<Missed>, TchError> {
        let UpdateHistory { now, missed, before } = rule.memory();
        if missed.is_empty() && before == UpdateMap::IDENTITY {
            return Ok(None);
        }
        let untouched = rule.missed(UNTOUCHED).unwrap_or(UpdateMap::IDENTITY);
        let numbers = |map: &UpdateMap| {
            let UpdateMap { ww, wv, vw, vv } = *map;
            [ww, wv, vw, vv].map(|number| number as f32)
        };
        let maps: Vec<f32> =
            [untouched, UpdateMap::IDENTITY].iter().chain(&missed).flat_map(numbers).collect();
        let maps_k4 = traffic::upload(&maps, self.weight_cd.device())?.f_view([-1, 4])?;
        Ok(Some(Missed { maps_k4, now }))
    }

    /// Rows of the table, with what they have missed.
    fn rows(&self, rows_t: Tensor, missed: Option<Missed>) -> Rows {
        let Table { weight_cd, state_cn, stamps_c } = self.handle();
        Rows { weight_cd, state_cn, stamps_c, rows_t, missed }
    }

    fn stamps(&self, stamps_r: &Tensor) -> Result<Vec<Stamp>, TchError> {
        let stamps_r = traffic::to_host_as_it_is(stamps_r)?;
        Ok(with_elements(&stamps_r, |stamps: &[i32]| {
            stamps.iter().map(|&stamp| stamp as Stamp).collect()
        }))
    }
}

impl CentreStore for DeviceStore {
    fn n_rows(&self) -> usize {
        self.table.weight_cd.size()[0] as usize
    }

    fn device(&self) -> Device {
        self.table.weight_cd.device()
    }

    fn operations(&self) -> &str {
        &self.operations
    }

    /// One tile unless memory says otherwise: whatever is done to it is handed over once, and the host
    /// waits for its sums once, if at all.
    fn tiling(&self, config: &HeadConfig, row_bytes: usize) -> Tiling {
        let kept_bytes = config.cache_mib << 20;
        if config.tile_rows != default_tile_rows() {
            return Tiling { tile_rows: config.tile_rows, kept_bytes };
        }
        let tile_rows = (self.tile_bytes / row_bytes.max(1)).clamp(config.tile_rows, TILE_ROWS_MAX);
        Tiling { tile_rows, kept_bytes: kept_bytes.max(self.tile_bytes) }
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let told = Told::default();
        let tile =
            |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> { Box::new(self.tile(rows, &told)) };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<bool, HeadError> {
        let told = Told::default();
        for piece in self.pieces() {
            let is_behind =
                |&(_, stamp): &(u32, Stamp)| stamp != UNTOUCHED && stamp != rule.stamp();
            let stamps = (piece.start as u32..).zip(self.stamps(piece)?);
            let rows: Vec<u32> = stamps.filter(is_behind).map(|(row, _)| row).collect();
            if rows.is_empty() {
                continue;
            }
            self.tile(&rows, &told)
                .catch_up(rule)
                .map_err(HeadError::torch("catch the centres up"))?;
        }
        Ok(true)
    }

    fn stamps(&self, rows: Range<usize>) -> Result<Vec<Stamp>, HeadError> {
        let stamps_r = self.table.stamps_c.narrow(0, rows.start as i64, rows.len() as i64);
        self.table.stamps(&stamps_r).map_err(HeadError::torch("copy the centres from the device"))
    }

    fn stamps_of(&self, rows: &[u32]) -> Result<Vec<Stamp>, HeadError> {
        let rows: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
        traffic::upload(&rows, self.device())
            .and_then(|rows_r| self.table.stamps_c.f_index_select(0, &rows_r))
            .and_then(|stamps_r| self.table.stamps(&stamps_r))
            .map_err(HeadError::torch("copy the centres from the device"))
    }

    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError> {
        let copy = |from: &Tensor, to: &mut [f32]| -> Result<(), TchError> {
            let width = from.size()[1] as usize;
            let to = to.chunks_mut(PIECE_ROWS * width);
            for (i, to) in to.enumerate() {
                let (start, len) = (rows.start + i * PIECE_ROWS, to.len() / width);
                let piece = from.narrow(0, start as i64, len as i64);
                let piece = piece.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.contiguous();
                with_elements(&piece, |values| to.copy_from_slice(values));
            }
            Ok(())
        };
        copy(&self.table.weight_cd, weight)
            .and_then(|()| copy(&self.table.state_cn, state))
            .map_err(HeadError::torch("copy the centres from the device"))
    }

    fn copy_out(&self, rows: &[u32]) -> Result<(Tensor, Tensor), HeadError> {
        let copy = |from: &Tensor| -> Result<Tensor, TchError> {
            let rows: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
            let rows_t = Tensor::f_from_slice(&rows)?.f_to_device(from.device())?;
            from.f_index_select(0, &rows_t)?.f_to_device(Device::Cpu)
        };
        copy(&self.table.weight_cd)
            .and_then(|weight_rd| Ok((weight_rd, copy(&self.table.state_cn)?)))
            .map_err(HeadError::torch("copy the centres from the device"))
    }

    fn import(
        &mut self,
        rows: &[u32],
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError> {
        let copy = |from: &[f32], to: &Tensor| -> Result<(), TchError> {
            let mut to = to.shallow_clone();
            let width = to.size()[1];
            let rows: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
            let rows_t = Tensor::f_from_slice(&rows)?.f_to_device(to.device())?;
            let values = Tensor::f_from_slice(from)?.f_view([rows.len() as i64, width])?;
            let values = values.f_to_device(to.device())?.f_to_kind(to.kind())?;
            to.f_index_copy_(0, &rows_t, &values).map(drop)
        };
        copy(weight, &self.table.weight_cd)
            .and_then(|()| copy(state, &self.table.state_cn))
            .map_err(HeadError::torch("copy the centres to the device"))?;
        let stamps: Vec<i32> = stamps.iter().map(|&stamp| stamp as i32).collect();
        let index: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
        let mut stamps_c = self.table.stamps_c.shallow_clone();
        let device = stamps_c.device();
        traffic::upload(&index, device)
            .and_then(|index| stamps_c.f_index_copy_(0, &index, &traffic::upload(&stamps, device)?))
            .map(drop)
            .map_err(HeadError::torch("copy the centres to the device"))
    }

    fn on_device(&mut self) -> Option<&mut DeviceStore> {
        Some(self)
    }
}

/// What rows have missed, once the first tile has brought it to the device.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Option<Missed>>>>);

impl Told {
    fn missed(&self, table: &Table, rule: &dyn UpdateRule) -> Result<Option<Missed>, TchError> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none() {
            *told = Some(table.missed(rule)?);
        }
        Ok(told.as_ref().and_then(|missed| missed.as_ref().map(Missed::handle)))
    }
}

/// A few rows of the table.
struct DeviceTile<'a> {
    frame: Frame,
    table: Table,
    ops: Arc<dyn RowOps>,
    /// Rows of the store, strictly ascending.
    rows: &'a [u32],
    told: Told,
    /// The rows as the device was told them, which both passes of a step use: nothing but their own
    /// update, the end of the tile, changes what they have missed.
    there: Option<Rows>,
}

impl DeviceStore {
    /// * `told`: shared by tiles among which no step is finished
    fn tile<'a>(&self, rows: &'a [u32], told: &Told) -> DeviceTile<'a> {
        let (table, ops) = (self.table.handle(), Arc::clone(&self.ops));
        DeviceTile { frame: self.frame, table, ops, rows, told: told.clone(), there: None }
    }
}

impl DeviceTile<'_> {
    /// Tells the device which rows it is about, and what they have missed.
    fn on_device(&mut self, rule: &dyn UpdateRule) -> Result<Rows, TchError> {
        if let Some(rows) = &self.there {
            return Ok(rows.handle());
        }
        let rows: Vec<i64> = self.rows.iter().map(|&row| row.into()).collect();
        let rows_t = traffic::upload(&rows, self.table.weight_cd.device())?;
        let rows = self.table.rows(rows_t, self.told.missed(&self.table, rule)?);
        self.there = Some(rows.handle());
        Ok(rows)
    }

    /// What decides the rounding of rows that are written with this stamp.
    fn keys(&self, stamp: Stamp) -> RowKeys {
        RowKeys(self.frame.rounding_base(stamp))
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<(), TchError> {
        let rows = self.on_device(rule)?;
        if rows.missed.is_some() {
            self.ops.catch_up(&rows, self.keys(rule.stamp()), rule.stamp())?;
            self.there = None;
        }
        Ok(())
    }

    fn try_update(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), TchError> {
        let rows = self.on_device(rule)?;
        let TileGradient { as_negatives_td, as_positives, unit_embeddings_gd } = *gradient;
        let device = as_negatives_td.device();
        let own_row = |pull: &PositiveGradient| i64::from(self.rows[pull.row]);
        let rows_o: Vec<i64> = as_positives.iter().map(own_row).collect();
        let samples_o: Vec<i32> = as_positives.iter().map(|pull| pull.sample as i32).collect();
        let mut slopes_g = vec![0f32; unit_embeddings_gd.size()[0] as usize];
        for pull in as_positives {
            slopes_g[pull.sample] = pull.slope;
        }
        let pulls = Pulls {
            rows_o: &traffic::upload(&rows_o, device)?,
            samples_o: &traffic::upload(&samples_o, device)?,
            slopes_g: &traffic::upload(&slopes_g, device)?,
            unit_embeddings_gd,
        };
        let steps = RowSteps {
            as_negatives_td,
            pulls: &pulls,
            motion: &rule.motion(lr),
            keys: self.keys(rule.stamp_after()),
            stamp_after: rule.stamp_after(),
            figures: None,
        };
        traffic::hand_over(1);
        self.ops.update(&rows, &steps)?;
        self.there = None;
        Ok(())
    }
}

impl CentreTile for DeviceTile<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn unit_rows(&mut self, rule: &dyn UpdateRule, unit_td: &mut Tensor) -> Result<(), HeadError> {
        debug_assert!(matches!(unit_td.kind(), Kind::Float | Kind::BFloat16));
        traffic::hand_over(1);
        self.on_device(rule)
            .and_then(|rows| self.ops.unit_rows(&rows, unit_td))
            .map_err(HeadError::torch("normalise a tile"))
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
        self.try_update(rule, gradient, lr).map_err(HeadError::torch("move a tile"))
    }
}
