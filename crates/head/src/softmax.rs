//! The negatives of a step in tiles: the cosines of one tile exist at a time.

// T = rows of one tile, S = rows of the step on this rank, G = global batch, D = embedding.

use rayon::prelude::*;
use tch::{Device, Kind, TchError, Tensor};

use super::{
    HeadError,
    batch::Positives,
    centres::{CentreTile, Centres, PositiveGradient, TileGradient, Tiling},
    config::HeadConfig,
    elements::to_f64,
    loss::{Loss, Negatives, TileCosines},
    optim::UpdateRule,
    product::add_product,
    timings::{Timings, timed},
    traffic,
};

/// The largest logit plus ln C whose exponentials can be summed in f32 as they are.
const EXPONENT_MAX: f64 = 88.0;

/// Groups of a step: how many threads can share the work. The number is fixed and their sums are
/// added in order, so that results do not depend on the number of threads.
const GROUPS: usize = 32;

/// One step's rows in tiles, and the slopes that are kept between the two passes.
pub(super) struct TiledSoftmax<'a> {
    groups: Vec<TileGroup<'a>>,
    /// `[G, D]` f32, on the device of the centres.
    unit_embeddings_gd: Tensor,
}

impl<'a> TiledSoftmax<'a> {
    /// * `rows`: `[S]`, the step's rows on this rank, strictly ascending
    /// * `unit_embeddings_gd`: `[G, D]` f32
    ///
    /// # Errors
    ///
    /// [`HeadError::Torch`] if the device has no memory.
    pub fn new(
        (config, loss): (&'a HeadConfig, &'a dyn Loss),
        centres: Centres<'a>,
        rows: &'a [u32],
        positives: &Positives,
        unit_embeddings_gd: &Tensor,
    ) -> Result<TiledSoftmax<'a>, HeadError> {
        let Centres { store, rule } = centres;
        let device = store.device();
        let unit_embeddings_gd = traffic::to_device(unit_embeddings_gd, device)
            .map_err(HeadError::torch("copy the embeddings"))?;
        traffic::hand_over(1);
        let operand_gd = unit_embeddings_gd.to_kind(config.precision.kind());
        let n_samples = unit_embeddings_gd.size()[0] as usize;
        let row_bytes = n_samples * operand_gd.kind().elt_size_in_bytes();
        let Tiling { tile_rows, kept_bytes } = store.tiling(config, row_bytes);
        // A tile holds all sub-centres of a class or none.
        let k = config.margin.sub_centres();
        let tile_rows = (tile_rows / k).max(1) * k;
        let n_tiles = rows.len().div_ceil(tile_rows);
        // Another device works on one tile after the other, on all of its own threads.
        let n_groups = n_tiles.min(if device == Device::Cpu { GROUPS } else { 1 });
        let new_group = |_| TileGroup {
            config,
            loss,
            rule,
            tiles: Vec::new(),
            unit_embeddings_gd: unit_embeddings_gd.shallow_clone(),
            operand_gd: operand_gd.shallow_clone(),
            offsets_g: None,
            timings: Timings::default(),
        };
        let mut groups: Vec<TileGroup<'a>> = (0..n_groups).map(new_group).collect();
        let n_kept = kept_bytes / (tile_rows * row_bytes).max(1);
        for (t, rows) in store.tiles(rows, tile_rows).into_iter().enumerate() {
            let tile = new_tile(rows, t * tile_rows, positives, t < n_kept);
            groups[t * n_groups / n_tiles].tiles.push(tile);
        }
        Ok(TiledSoftmax { groups, unit_embeddings_gd })
    }

    /// Whether exponentials might overflow, so that each sample's largest logit is needed first.
    ///
    /// `|s * cos| <= s`, so with most losses it is so for none of the usual scales: 64 + ln(1e10) < 88.
    pub fn needs_offsets(config: &HeadConfig, loss: &dyn Loss) -> bool {
        let largest = loss.largest_negative();
        largest > 0.0 && config.scale * largest + (config.classes as f64).ln() >= EXPONENT_MAX
    }

    /// The largest logit of each sample over this rank's rows, `[G]`; minus infinity without rows.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if rows cannot be reached or memory runs out, here and below.
    pub fn largest_logits(&mut self) -> Result<Vec<f64>, HeadError> {
        let mut largest_g = vec![f64::NEG_INFINITY; self.unit_embeddings_gd.size()[0] as usize];
        let groups = self.groups.par_iter_mut().with_max_len(1).map(TileGroup::largest_logits);
        for group_g in groups.collect::<Result<Vec<_>, _>>()? {
            for (largest, logit) in largest_g.iter_mut().zip(group_g) {
                *largest = largest.max(logit);
            }
        }
        Ok(largest_g)
    }

    /// First pass: what the negatives add to each sample, and rows weighted by their slopes.
    ///
    /// * `offsets_g`: `[G]`, taken off each sample's logits; `None` for 0
    ///
    /// # Errors
    ///
    /// As above.
    pub fn forward(&mut self, offsets_g: Option<&[f64]>) -> Result<PartialSums, HeadError> {
        if let Some(offsets_g) = offsets_g {
            let offsets_g = Tensor::from_slice(offsets_g).to_kind(Kind::Float);
            let offsets_g = traffic::to_device(&offsets_g, self.unit_embeddings_gd.device())
                .map_err(HeadError::torch("copy the largest logits"))?;
            for group in &mut self.groups {
                group.offsets_g = Some(offsets_g.shallow_clone());
            }
        }
        let mut sums = PartialSums::zeros(&self.unit_embeddings_gd);
        let groups = self.groups.par_iter_mut().with_max_len(1).map(TileGroup::forward);
        for group in groups.collect::<Result<Vec<_>, _>>()? {
            add(&mut sums.sums_g, &group.sums_g);
            add(&mut sums.parameter_sums_g, &group.parameter_sums_g);
            traffic::hand_over(1);
            sums.weighted_rows_gd += group.weighted_rows_gd;
        }
        sums.weighted_rows_gd = traffic::to_host(&sums.weighted_rows_gd)
            .map_err(HeadError::torch("copy the gradient"))?;
        Ok(sums)
    }

    /// Second pass: gradients of the rows, and their update. Returns where the time of both passes
    /// went, in thread time.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn backward(mut self, by_cosine: &Derivatives, lr: f64) -> Result<Timings, HeadError> {
        // The factor goes with the embeddings, of which there are fewer than exponentials.
        let device = self.unit_embeddings_gd.device();
        let factors_g1 = traffic::to_device(&by_cosine.factors_g1, device)
            .map_err(HeadError::torch("copy the factors"))?;
        // Scaled, and in the products' format.
        traffic::hand_over(2);
        let weighted_gd = &self.unit_embeddings_gd * factors_g1;
        let handles: Vec<Tensor> = self
            .groups
            .iter()
            .map(|group| weighted_gd.to_kind(group.config.precision.kind()))
            .collect();
        let slopes = &by_cosine.slopes[..];
        let groups = self.groups.par_iter_mut().zip(handles).with_max_len(1);
        groups
            .map(|(group, weighted_gd)| group.backward(&weighted_gd, slopes, lr))
            .collect::<Result<(), _>>()?;
        let mut timings = Timings::default();
        for group in &self.groups {
            timings += group.timings;
        }
        Ok(timings)
    }
}

fn new_tile<'a>(
    rows: Box<dyn CentreTile + 'a>,
    first_slot: usize,
    positives: &Positives,
    keeps: bool,
) -> Tile<'a> {
    let own = positives.within(&(first_slot..first_slot + rows.n_rows()));
    Tile {
        rows,
        first_positive: own.start,
        own: positives.list[own].iter().map(|p| (p.slot - first_slot, p.sample)).collect(),
        keeps,
        slopes_tg: None,
    }
}

/// Derivatives of the loss by the cosines.
pub(super) struct Derivatives {
    /// `[G, 1]` f32, what turns a negative's slope into the derivative by its cosine.
    pub factors_g1: Tensor,
    /// `[O]`, that of each positive of this rank.
    pub slopes: Vec<f64>,
}

impl Derivatives {
    /// This rank's part of the gradient by the unit embeddings, `[G, D]` f32.
    ///
    /// * `weighted_rows_gd`: `[G, D]` f32, this rank's unit rows weighted by the negatives' slopes
    pub fn by_unit_embeddings(&self, weighted_rows_gd: &Tensor, positives: &Positives) -> Tensor {
        let samples: Vec<i64> = positives.list.iter().map(|p| p.sample as i64).collect();
        let slopes_o1 = Tensor::from_slice(&self.slopes).to_kind(Kind::Float).unsqueeze(1);
        let pulls_od = &positives.unit_centres_od * slopes_o1;
        (weighted_rows_gd * &self.factors_g1).index_add_(
            0,
            &Tensor::from_slice(&samples),
            &pulls_od,
        )
    }
}

/// Tiles, and this group's handles of the tensors that all groups read.
struct TileGroup<'a> {
    pub config: &'a HeadConfig,
    pub loss: &'a dyn Loss,
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
struct Tile<'a> {
    pub rows: Box<dyn CentreTile + 'a>,
    /// Row of the tile and sample of each positive, in this order.
    pub own: Vec<(usize, usize)>,
    /// Position of the first of them among the positives of the step.
    pub first_positive: usize,
    /// Whether the slopes are kept for the pass backwards.
    pub keeps: bool,
    /// `[T, G]`, see [`Negatives::slopes_tg`].
    pub slopes_tg: Option<Tensor>,
}

/// What the pass forwards finds in a group.
pub(super) struct PartialSums {
    /// `[G]`, see [`Negatives::sums_g`].
    pub sums_g: Vec<f64>,
    /// `[G]`, see [`Negatives::parameter_sums_g`]; zeros if the loss has no parameter.
    pub parameter_sums_g: Vec<f64>,
    /// `[G, D]` f32, the negatives' unit rows weighted by their slopes.
    pub weighted_rows_gd: Tensor,
}

impl PartialSums {
    /// * `unit_embeddings_gd`: `[G, D]`, whose shape and device the sum of rows has
    fn zeros(unit_embeddings_gd: &Tensor) -> PartialSums {
        traffic::hand_over(1);
        let zeros_g = vec![0.0; unit_embeddings_gd.size()[0] as usize];
        let weighted_rows_gd = unit_embeddings_gd.zeros_like();
        PartialSums { sums_g: zeros_g.clone(), parameter_sums_g: zeros_g, weighted_rows_gd }
    }
}

/// Adds `others`, which may be empty, to `sums`.
fn add(sums: &mut [f64], others: &[f64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

impl TileGroup<'_> {
    /// The largest logit of each sample, `[G]`.
    pub fn largest_logits(&mut self) -> Result<Vec<f64>, HeadError> {
        let mut largest_g = vec![f64::NEG_INFINITY; self.n_samples()];
        let mut buffer_td = self.buffer()?;
        for t in 0..self.tiles.len() {
            let (_, cos_tg) = self.cosines(t, &mut buffer_td)?;
            traffic::wait();
            let values_tg = self
                .shaped(&cos_tg.clamp(-1.0, 1.0))
                .map_err(HeadError::torch("shape the negatives of a tile"))?;
            for (largest, value) in largest_g.iter_mut().zip(to_f64(&values_tg.amax([0i64], false)))
            {
                *largest = largest.max(self.config.scale * value);
            }
        }
        Ok(largest_g)
    }

    /// The values that the loss puts in the place of cosines.
    fn shaped(&self, cos_tg: &Tensor) -> Result<Tensor, TchError> {
        let cos_tg = cos_tg.f_to_kind(Kind::Float)?;
        Ok(self.loss.shape(&cos_tg)?.map_or(cos_tg, |shaped| shaped.values_tg))
    }

    /// What the negatives add to each sample, and rows weighted by their slopes.
    pub fn forward(&mut self) -> Result<PartialSums, HeadError> {
        let mut sums = PartialSums::zeros(&self.unit_embeddings_gd);
        let mut buffer_td = self.buffer()?;
        for t in 0..self.tiles.len() {
            let (unit_td, negatives) = self.negatives(t, &mut buffer_td)?;
            add(&mut sums.sums_g, &negatives.sums_g);
            add(&mut sums.parameter_sums_g, &negatives.parameter_sums_g);
            let slopes_tg = negatives.slopes_tg;
            timed(&mut self.timings.product_ms, || {
                add_product(&mut sums.weighted_rows_gd, &slopes_tg.tr(), &unit_td)
            })
            .map_err(HeadError::torch("add up a tile"))?;
            let tile = &mut self.tiles[t];
            tile.slopes_tg = tile.keeps.then_some(slopes_tg);
        }
        Ok(sums)
    }

    /// Gradients of the rows, tile by tile, each moving its rows at once.
    ///
    /// * `weighted_gd`: `[G, D]` in the products' format, unit embeddings times what turns a
    ///   negative's slope into the derivative of the loss by its cosine
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
            let slopes_tg = match self.tiles[t].slopes_tg.take() {
                Some(slopes_tg) => slopes_tg,
                None => {
                    if buffer_td.is_none() {
                        buffer_td = Some(self.buffer()?);
                    }
                    let buffer_td = buffer_td.as_mut().expect("it was just made");
                    self.negatives(t, buffer_td)?.1.slopes_tg
                }
            };
            let as_negatives_td = gradient_td.narrow(0, 0, slopes_tg.size()[0]);
            traffic::hand_over(1);
            let _ = timed(&mut self.timings.product_ms, || {
                slopes_tg.f_mm_out(&as_negatives_td, weighted_gd)
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

    /// Unit rows `[T, D]` of tile `t`, and what the loss makes of their cosines.
    fn negatives(
        &mut self,
        t: usize,
        buffer_td: &mut Tensor,
    ) -> Result<(Tensor, Negatives), HeadError> {
        let (unit_td, cos_tg) = self.cosines(t, buffer_td)?;
        let tile = &mut self.tiles[t];
        let cosines = TileCosines {
            cos_tg: &cos_tg,
            own: &tile.own,
            own_there: None,
            offsets_g: self.offsets_g.as_ref(),
            scale: self.config.scale,
            filter: self.config.interclass_filter,
            rows_of_class: 1,
        };
        let negatives = timed(&mut self.timings.softmax_ms, || {
            if self.loss.shapes_negatives() {
                self.loss.negatives(&cosines)
            } else {
                tile.rows.exponentials(&cosines)
            }
        });
        Ok((unit_td, negatives.map_err(HeadError::torch("take the exponentials of a tile"))?))
    }

    /// Unit rows `[T, D]` and cosines `[T, G]` of tile `t`, in the products' number format.
    fn cosines(&mut self, t: usize, buffer_td: &mut Tensor) -> Result<(Tensor, Tensor), HeadError> {
        let (rule, rows) = (self.rule, &mut self.tiles[t].rows);
        let mut unit_td = buffer_td.narrow(0, 0, rows.n_rows() as i64);
        timed(&mut self.timings.gather_ms, || rows.unit_rows(rule, &mut unit_td))?;
        traffic::hand_over(1);
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
        Tensor::f_empty(shape, (self.config.precision.kind(), self.operand_gd.device()))
            .map_err(HeadError::torch("make room for a tile"))
    }
}

impl Tile<'_> {
    /// What its positives add to the gradient.
    fn pulls(&self, slopes: &[f64]) -> Vec<PositiveGradient> {
        let slopes = &slopes[self.first_positive..][..self.own.len()];
        let pull = |(&(row, sample), &slope): (&(usize, usize), &f64)| PositiveGradient {
            row,
            sample,
            slope: slope as f32,
        };
        self.own.iter().zip(slopes).map(pull).collect()
    }
}
