//! A few tiles that are worked on one after the other, by one thread.

// T = rows of one tile, G = global batch, D = embedding.

use tch::{Kind, TchError, Tensor};

use super::{
    HeadError,
    batch::to_f64,
    config::{HeadConfig, Precision},
    exponentials::{Exponentials, Logits},
    store::{CentreTile, Pull, TileGradient},
    timings::{Timings, timed},
    update::UpdateRule,
};

/// Tiles, and this lane's handles of the tensors that all lanes read.
pub(super) struct Lane<'a> {
    pub config: &'a HeadConfig,
    pub rule: &'a dyn UpdateRule,
    pub tiles: Vec<Tile<'a>>,
    /// `[G, D]` f32, on the device of the centres, as all tensors here.
    pub unit_embeddings_gd: Tensor,
    /// The same in the products' number format.
    pub operand_gd: Tensor,
    /// `[G]` f32, taken off each sample's logits; `None` for 0.
    pub offsets_g: Option<Tensor>,
    pub timings: Timings,
}

/// One tile of the step.
pub(super) struct Tile<'a> {
    pub rows: Box<dyn CentreTile + 'a>,
    /// Row of the tile and sample of each positive, in this order.
    pub own: Vec<(usize, usize)>,
    /// Position of the first of them among the positives of the step.
    pub first_positive: usize,
    /// Whether the exponentials are kept for the pass backwards.
    pub keeps: bool,
    /// `[T, G]`, `exp(logit - offset)`, 0 where no gradient flows to a negative.
    pub exp_tg: Option<Tensor>,
}

/// What the pass forwards finds in a lane.
pub(super) struct LaneSums {
    /// `[G]`, sum of `exp(logit - offset)` over the negatives.
    pub sums_g: Vec<f64>,
    /// `[G, D]` f32, the negatives' unit rows weighted by the same.
    pub weighted_rows_gd: Tensor,
}

/// The number format of the products.
pub(super) fn kind(config: &HeadConfig) -> Kind {
    match config.precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

impl Lane<'_> {
    /// The largest logit of each sample, `[G]`.
    pub fn largest_logits(&mut self) -> Result<Vec<f64>, HeadError> {
        let mut largest_g = vec![f64::NEG_INFINITY; self.n_samples()];
        let mut buffer_td = self.buffer()?;
        for t in 0..self.tiles.len() {
            let (_, cos_tg) = self.cosines(t, &mut buffer_td)?;
            let tile_g = to_f64(&cos_tg.clamp(-1.0, 1.0).amax([0i64], false));
            for (largest, cosine) in largest_g.iter_mut().zip(tile_g) {
                *largest = largest.max(self.config.scale * cosine);
            }
        }
        Ok(largest_g)
    }

    /// Sums of the exponentials, and rows weighted by them.
    pub fn forward(&mut self) -> Result<LaneSums, HeadError> {
        let mut sums_g = vec![0.0; self.n_samples()];
        let mut weighted_rows_gd = self.unit_embeddings_gd.zeros_like();
        let mut buffer_td = self.buffer()?;
        for t in 0..self.tiles.len() {
            let (unit_td, exp_tg, tile_sums_g) = self.exponentials(t, &mut buffer_td)?;
            for (sum, tile_sum) in sums_g.iter_mut().zip(tile_sums_g) {
                *sum += tile_sum;
            }
            timed(&mut self.timings.product_ms, || {
                add_product(&mut weighted_rows_gd, &exp_tg.tr(), &unit_td)
            })
            .map_err(HeadError::torch("add up a tile"))?;
            let tile = &mut self.tiles[t];
            tile.exp_tg = tile.keeps.then_some(exp_tg);
        }
        Ok(LaneSums { sums_g, weighted_rows_gd })
    }

    /// Gradients of the rows, tile by tile, each moving its rows at once.
    ///
    /// * `weighted_gd`: `[G, D]` in the products' format, unit embeddings times what turns an
    ///   exponential into the derivative of the loss by the cosine
    /// * `slopes`: that derivative for each of the step's positives
    pub fn backward(
        &mut self,
        weighted_gd: &Tensor,
        slopes: &[f64],
        lr: f64,
    ) -> Result<(), HeadError> {
        let gradient_td = self.buffer()?;
        let mut buffer_td = None;
        for t in 0..self.tiles.len() {
            let exp_tg = match self.tiles[t].exp_tg.take() {
                Some(exp_tg) => exp_tg,
                None => {
                    if buffer_td.is_none() {
                        buffer_td = Some(self.buffer()?);
                    }
                    let buffer_td = buffer_td.as_mut().expect("it was just made");
                    self.exponentials(t, buffer_td)?.1
                }
            };
            let as_negatives_td = gradient_td.narrow(0, 0, exp_tg.size()[0]);
            let _ = timed(&mut self.timings.product_ms, || {
                exp_tg.f_mm_out(&as_negatives_td, weighted_gd)
            })
            .map_err(HeadError::torch("multiply a tile"))?;
            let (rule, tile) = (self.rule, &mut self.tiles[t]);
            let gradient = TileGradient {
                as_negatives_td: &as_negatives_td,
                as_positives: &tile.pulls(slopes),
                unit_embeddings_gd: &self.unit_embeddings_gd,
            };
            timed(&mut self.timings.update_ms, || tile.rows.update(rule, &gradient, lr))?;
        }
        Ok(())
    }

    /// Unit rows `[T, D]` of tile `t`, its exponentials `[T, G]` and their sums `[G]`.
    fn exponentials(
        &mut self,
        t: usize,
        buffer_td: &mut Tensor,
    ) -> Result<(Tensor, Tensor, Vec<f64>), HeadError> {
        let (unit_td, cos_tg) = self.cosines(t, buffer_td)?;
        let tile = &mut self.tiles[t];
        let logits = Logits {
            cos_tg: &cos_tg,
            own: &tile.own,
            offsets_g: self.offsets_g.as_ref(),
            scale: self.config.scale,
            filter: self.config.interclass_filter,
        };
        let Exponentials { exp_tg, sums_g } =
            timed(&mut self.timings.softmax_ms, || tile.rows.exponentials(&logits))
                .map_err(HeadError::torch("take the exponentials of a tile"))?;
        Ok((unit_td, exp_tg, sums_g))
    }

    /// Unit rows `[T, D]` and cosines `[T, G]` of tile `t`, in the products' number format.
    fn cosines(&mut self, t: usize, buffer_td: &mut Tensor) -> Result<(Tensor, Tensor), HeadError> {
        let (rule, rows) = (self.rule, &mut self.tiles[t].rows);
        let mut unit_td = buffer_td.narrow(0, 0, rows.n_rows() as i64);
        timed(&mut self.timings.gather_ms, || rows.unit_rows(rule, &mut unit_td))?;
        let cos_tg =
            timed(&mut self.timings.product_ms, || unit_td.f_matmul(&self.operand_gd.tr()))
                .map_err(HeadError::torch("multiply a tile"))?;
        Ok((unit_td, cos_tg))
    }

    fn n_samples(&self) -> usize {
        self.unit_embeddings_gd.size()[0] as usize
    }

    /// Memory for the unit rows of one tile, or their gradient.
    fn buffer(&self) -> Result<Tensor, HeadError> {
        let n_rows = self.tiles.iter().map(|tile| tile.rows.n_rows()).max().unwrap_or(0);
        let shape = [n_rows as i64, self.config.dim as i64];
        Tensor::f_empty(shape, (kind(self.config), self.operand_gd.device()))
            .map_err(HeadError::torch("make room for a tile"))
    }
}

impl Tile<'_> {
    /// What its positives add to the gradient.
    fn pulls(&self, slopes: &[f64]) -> Vec<Pull> {
        let slopes = &slopes[self.first_positive..][..self.own.len()];
        let pull = |(&(row, sample), &slope): (&(usize, usize), &f64)| Pull {
            row,
            sample,
            slope: slope as f32,
        };
        self.own.iter().zip(slopes).map(pull).collect()
    }
}

/// Adds `a * b` to the f32 `sum`.
fn add_product(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<(), TchError> {
    let added = if a.kind() == sum.kind() {
        sum.f_addmm_(a, b)
    } else {
        a.f_matmul(b).and_then(|product| sum.f_add_(&product))
    };
    added.map(drop)
}
