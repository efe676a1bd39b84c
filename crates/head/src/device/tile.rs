//! A few rows of the device's table.

// T = rows of the tile, D = embedding, G = global batch, O = positives of the tile.

use std::sync::Arc;

use tch::{Kind, TchError, Tensor};

use super::{
    Table,
    ops::{RowKeys, RowOps, RowSteps, Rows},
};
use crate::{
    HeadError,
    exponentials::{Exponentials, Logits},
    row_tile::Frame,
    store::{CentreTile, TileGradient},
    update::{Flow, Stamp, UpdateRule},
};

pub(super) struct DeviceTile<'a> {
    pub frame: Frame,
    pub table: Table,
    pub ops: Arc<dyn RowOps>,
    /// The store's row of the first stamp.
    pub first: usize,
    /// Rows of the store, strictly ascending.
    pub rows: &'a [u32],
    pub stamps: &'a mut [Stamp],
}

impl DeviceTile<'_> {
    fn on_device(&self, rule: &dyn UpdateRule) -> Result<Rows, TchError> {
        let device = self.table.weight_cd.device();
        let rows: Vec<i64> = self.rows.iter().map(|&row| row.into()).collect();
        let Table { weight_cd, state_cn } = self.table.handle();
        let rows_t = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
        let missed_t4 = match self.missed(rule) {
            Some(flows) => {
                Some(Tensor::f_from_slice(&flows)?.f_view([-1, 4])?.f_to_device(device)?)
            }
            None => None,
        };
        Ok(Rows { weight_cd, state_cn, rows_t, missed_t4 })
    }

    /// `ww, wv, vw, vv` of each row; `None` if no row has missed anything.
    fn missed(&self, rule: &dyn UpdateRule) -> Option<Vec<f32>> {
        let flow = |&row: &u32| rule.missed(self.stamps[row as usize - self.first]);
        if self.rows.iter().all(|row| flow(row).is_none()) {
            return None;
        }
        let numbers = |row| {
            let Flow { ww, wv, vw, vv } = flow(row).unwrap_or(Flow::IDENTITY);
            [ww, wv, vw, vv].map(|number| number as f32)
        };
        Some(self.rows.iter().flat_map(numbers).collect())
    }

    /// What decides the rounding of rows that are written with this stamp.
    fn keys(&self, stamp: Stamp) -> Result<RowKeys, TchError> {
        let keys: Vec<i64> = self
            .rows
            .iter()
            .map(|&row| self.frame.rounding_key(row as usize, stamp) as i64)
            .collect();
        Ok(RowKeys(Tensor::f_from_slice(&keys)?.f_to_device(self.table.weight_cd.device())?))
    }

    fn stamp_all(&mut self, stamp: Stamp) {
        for &row in self.rows {
            self.stamps[row as usize - self.first] = stamp;
        }
    }

    pub fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<(), TchError> {
        let rows = self.on_device(rule)?;
        if rows.missed_t4.is_some() {
            self.ops.catch_up(&rows, &self.keys(rule.stamp())?)?;
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
        let steps = RowSteps { gradient, motion: &motion, keys: &self.keys(rule.stamp_after())? };
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
        self.on_device(rule)
            .and_then(|rows| self.ops.unit_rows(&rows, unit_td))
            .map_err(HeadError::torch("normalise a tile"))
    }

    fn exponentials(&mut self, logits: &Logits<'_>) -> Result<Exponentials, TchError> {
        self.ops.exponentials(logits)
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
