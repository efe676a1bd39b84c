//! Centres on the device that the rank computes on.

// C = rows of the rank, D = embedding, N = numbers of a row's state, T = rows of one tile,
// G = global batch, O = positives of the tile.

#[cfg(feature = "kernels")]
mod cuda;
#[cfg(feature = "kernels")]
mod nvrtc;
mod tensor_ops;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;
use tch::{Device, Kind, TchError, Tensor};

use super::{
    CentreStore, CentreTile, TileGradient, Tiling, file::cut, host::Frame, row::RowLayout,
};
use crate::{
    HeadError,
    config::{HeadConfig, default_tile_rows},
    elements::with_elements,
    loss::{Negatives, TileCosines},
    optim::{Stamp, UNTOUCHED, UpdateMap, UpdateRule},
    range::ClassRange,
    traffic,
};
use pfc_model::all_memory;
use tensor_ops::{RowKeys, RowOps, RowSteps, Rows, TensorOps};

/// Rows that are brought to the device, or caught up there, at a time.
const PIECE_ROWS: usize = 65_536;
/// Bytes of the exponentials of a tile, where it is not known how much memory the device has.
const TILE_BYTES: usize = 256 << 20;
/// As `head.tile_rows` allows.
const TILE_ROWS_MAX: usize = 1 << 24;

/// Rows of weight and optimizer state as two tensors of a device, all of them there from the start.
/// When each last moved is known to the host, which decides what it has missed.
///
/// Rows start at the values that they have in [`RowStore`](super::RowStore), and are rounded by the
/// same random bits; sums are added up in another order.
pub struct DeviceStore {
    frame: Frame,
    table: Table,
    stamps: Vec<Stamp>,
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
}

impl Table {
    fn handle(&self) -> Table {
        let (weight_cd, state_cn) = (self.weight_cd.shallow_clone(), self.state_cn.shallow_clone());
        Table { weight_cd, state_cn }
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
        let stamps = vec![UNTOUCHED; n_rows];
        let (ops, operations) = ops_of(device, layout.dim());
        let tile_bytes = all_memory(device).map_or(TILE_BYTES, |all| (all / 16) as usize);
        Ok(DeviceStore { frame, table, stamps, ops, operations, tile_bytes })
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_rows = self.stamps.len();
        (0..n_rows).step_by(PIECE_ROWS).map(move |start| start..(start + PIECE_ROWS).min(n_rows))
    }
}

impl Table {
    fn new(frame: &Frame, n_rows: usize, device: Device) -> Result<Table, TchError> {
        let (dim, n_state) = (frame.layout.dim(), frame.layout.n_state());
        let shape = |width: usize| [n_rows as i64, width as i64];
        let weight_cd = Tensor::f_empty(shape(dim), (frame.layout.weights().kind(), device))?;
        let state_cn = Tensor::f_zeros(shape(n_state), (frame.layout.states().kind(), device))?;
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
        Ok(Table { weight_cd, state_cn })
    }
}

impl CentreStore for DeviceStore {
    fn n_rows(&self) -> usize {
        self.stamps.len()
    }

    fn device(&self) -> Device {
        self.table.weight_cd.device()
    }

    fn operations(&self) -> &str {
        &self.operations
    }

    /// One tile unless memory says otherwise: whatever is done to it is handed over once, and the host
    /// waits for its sums once.
    fn tiling(&self, config: &HeadConfig, row_bytes: usize) -> Tiling {
        let kept_bytes = config.cache_mib << 20;
        if config.tile_rows != default_tile_rows() {
            return Tiling { tile_rows: config.tile_rows, kept_bytes };
        }
        let tile_rows = (self.tile_bytes / row_bytes.max(1)).clamp(config.tile_rows, TILE_ROWS_MAX);
        Tiling { tile_rows, kept_bytes: kept_bytes.max(self.tile_bytes) }
    }

    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>> {
        let DeviceStore { frame, table, stamps, ops, .. } = self;
        let mut stamps = &mut stamps[..];
        let mut done = 0;
        let tile = |rows: &'a [u32]| -> Box<dyn CentreTile + 'a> {
            let (first, end) = (rows[0] as usize, rows[rows.len() - 1] as usize + 1);
            let stamps = cut(&mut stamps, first - done, end - first);
            done = end;
            let (table, ops) = (table.handle(), Arc::clone(ops));
            Box::new(DeviceTile { frame: *frame, table, ops, first, rows, stamps, there: None })
        };
        rows.chunks(tile_rows).map(tile).collect()
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<bool, HeadError> {
        for piece in self.pieces() {
            let first = piece.start;
            let touched = |&row: &usize| self.stamps[row] != UNTOUCHED;
            let rows: Vec<u32> = piece.clone().filter(touched).map(|row| row as u32).collect();
            if rows.is_empty() {
                continue;
            }
            DeviceTile {
                frame: self.frame,
                table: self.table.handle(),
                ops: Arc::clone(&self.ops),
                first,
                rows: &rows,
                stamps: &mut self.stamps[piece],
                there: None,
            }
            .catch_up(rule)
            .map_err(HeadError::torch("catch the centres up"))?;
        }
        Ok(true)
    }

    fn stamp(&self, row: usize) -> Stamp {
        self.stamps[row]
    }

    fn stamps(&self, rows: Range<usize>) -> Vec<Stamp> {
        self.stamps[rows].to_vec()
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
        for (&row, &stamp) in rows.iter().zip(stamps) {
            self.stamps[row as usize] = stamp;
        }
        Ok(())
    }
}

/// A few rows of the table.
struct DeviceTile<'a> {
    frame: Frame,
    table: Table,
    ops: Arc<dyn RowOps>,
    /// The store's row of the first stamp.
    first: usize,
    /// Rows of the store, strictly ascending.
    rows: &'a [u32],
    stamps: &'a mut [Stamp],
    /// The rows as the device was told them, which both passes of a step use: nothing but their own
    /// update, the end of the tile, changes what they have missed.
    there: Option<Rows>,
}

impl DeviceTile<'_> {
    /// Tells the device which rows it is about, and what they have missed.
    fn on_device(&mut self, rule: &dyn UpdateRule) -> Result<Rows, TchError> {
        if let Some(rows) = &self.there {
            return Ok(rows.handle());
        }
        let device = self.table.weight_cd.device();
        let rows: Vec<i64> = self.rows.iter().map(|&row| row.into()).collect();
        let Table { weight_cd, state_cn } = self.table.handle();
        let rows_t = traffic::upload(&rows, device)?;
        let missed_t4 = match self.missed(rule) {
            Some(flows) => Some(traffic::upload(&flows, device)?.f_view([-1, 4])?),
            None => None,
        };
        let rows = Rows { weight_cd, state_cn, rows_t, missed_t4 };
        self.there = Some(rows.handle());
        Ok(rows)
    }

    /// `ww, wv, vw, vv` of each row; `None` if no row has missed anything.
    fn missed(&self, rule: &dyn UpdateRule) -> Option<Vec<f32>> {
        let mut any = false;
        let numbers = |&row: &u32| {
            let flow = rule.missed(self.stamps[row as usize - self.first]);
            any |= flow.is_some();
            let UpdateMap { ww, wv, vw, vv } = flow.unwrap_or(UpdateMap::IDENTITY);
            [ww, wv, vw, vv].map(|number| number as f32)
        };
        let flows = self.rows.iter().flat_map(numbers).collect();
        any.then_some(flows)
    }

    /// What decides the rounding of rows that are written with this stamp.
    fn keys(&self, stamp: Stamp) -> RowKeys {
        RowKeys(self.frame.rounding_base(stamp))
    }

    fn stamp_all(&mut self, stamp: Stamp) {
        self.there = None;
        for &row in self.rows {
            self.stamps[row as usize - self.first] = stamp;
        }
    }

    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<(), TchError> {
        let rows = self.on_device(rule)?;
        if rows.missed_t4.is_some() {
            self.ops.catch_up(&rows, self.keys(rule.stamp()))?;
            self.stamp_all(rule.stamp());
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
        let motion = rule.motion(lr);
        let steps = RowSteps { gradient, motion: &motion, keys: self.keys(rule.stamp_after()) };
        traffic::hand_over(1);
        self.ops.update(&rows, &steps)?;
        self.stamp_all(rule.stamp_after());
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
        // The sums of each stretch, and over all of them, which the host waits for.
        traffic::hand_over(2);
        traffic::wait();
        self.ops.exponentials(tile)
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
