//! Softmax over the sampled rows in tiles: the logits of one tile exist at a time.

// T = rows of one tile, S = rows of the step on this rank, G = global batch, D = embedding.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    HeadError,
    batch::to_f64,
    config::{HeadConfig, Precision},
    positives::{Positive, Positives},
    store::{Centres, Pull, TileGradient},
    timings::{Timings, timed},
};

/// The largest logit plus ln C whose exponentials can be summed in f32 as they are.
const EXPONENT_MAX: f64 = 88.0;

/// One step's rows and batch, and the exponentials that are kept between the two passes.
pub(super) struct TiledSoftmax<'a> {
    pub config: &'a HeadConfig,
    pub centres: Centres<'a>,
    /// `[S]`, strictly ascending.
    pub rows: &'a [u32],
    pub positives: &'a Positives,
    /// `[G, D]` f32.
    pub unit_embeddings_gd: &'a Tensor,
    pub timings: &'a mut Timings,
}

/// What the pass forwards finds on this rank.
pub(super) struct Negatives {
    /// `[G]`, sum of `exp(logit - offset)` over the negatives.
    pub sums_g: Vec<f64>,
    /// `[G, D]` f32, the negatives' unit rows weighted by the same.
    pub weighted_rows_gd: Tensor,
    /// Per tile `[T, G]`, the same without the positives and what the filter took for noise; `None`
    /// where the cache was full.
    kept: Vec<Option<Tensor>>,
}

/// Weighted exponentials of one tile.
struct Tile {
    /// `[T, D]`, unit rows.
    unit_td: Tensor,
    /// `[T, G]`, `exp(logit - offset)`, 0 where no gradient flows to a negative.
    exp_tg: Tensor,
    /// `[G]`, sums over the tile, with what the filter took for noise.
    sums_g: Vec<f64>,
}

impl TiledSoftmax<'_> {
    /// Whether exponentials might overflow, so that each sample's largest logit is needed first.
    ///
    /// `|s * cos| <= s`, so that holds for none of the usual scales: 64 + ln(1e10) < 88.
    pub fn needs_offsets(config: &HeadConfig) -> bool {
        config.scale + (config.classes as f64).ln() >= EXPONENT_MAX
    }

    /// The largest logit of each sample over this rank's rows, `[G]`; minus infinity without rows.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if rows cannot be reached or memory runs out, here and below.
    pub fn largest_logits(&mut self) -> Result<Vec<f64>, HeadError> {
        let mut largest_g = vec![f64::NEG_INFINITY; self.n_samples()];
        let embeddings_gd = self.operand(self.unit_embeddings_gd);
        let mut buffer_td = self.buffer();
        for tile in self.tiles() {
            let (_, cos_tg) = self.cosines(tile, &embeddings_gd, &mut buffer_td)?;
            let tile_g = to_f64(&cos_tg.clamp(-1.0, 1.0).amax([0i64], false));
            for (largest, cosine) in largest_g.iter_mut().zip(tile_g) {
                *largest = largest.max(self.config.scale * cosine);
            }
        }
        Ok(largest_g)
    }

    /// First pass: sums of the exponentials, and rows weighted by them.
    ///
    /// * `offsets_g`: `[G]`, taken off each sample's logits; `None` for 0
    ///
    /// # Errors
    ///
    /// As above.
    pub fn forward(&mut self, offsets_g: Option<&[f64]>) -> Result<Negatives, HeadError> {
        let n_samples = self.n_samples();
        let embeddings_gd = self.operand(self.unit_embeddings_gd);
        let offsets_g = offsets_tensor(offsets_g);
        let mut buffer_td = self.buffer();
        let mut sums_g = vec![0.0; n_samples];
        let mut weighted_rows_gd = self.unit_embeddings_gd.zeros_like();
        let mut kept = Vec::new();
        let mut cache_bytes = self.config.cache_mib << 20;
        for tile in self.tiles() {
            let tile =
                self.exponentials(tile, &embeddings_gd, offsets_g.as_ref(), &mut buffer_td)?;
            for (sum, tile_sum) in sums_g.iter_mut().zip(&tile.sums_g) {
                *sum += tile_sum;
            }
            timed(&mut self.timings.product_ms, || {
                add_product(&mut weighted_rows_gd, &tile.exp_tg.tr(), &tile.unit_td)
            })?;
            let tile_bytes = tile.exp_tg.numel() * tile.exp_tg.kind().elt_size_in_bytes();
            let fits = tile_bytes <= cache_bytes;
            cache_bytes -= if fits { tile_bytes } else { 0 };
            kept.push(fits.then_some(tile.exp_tg));
        }
        Ok(Negatives { sums_g, weighted_rows_gd, kept })
    }

    /// Second pass: gradients of the rows, tile by tile, each moving its rows at once.
    ///
    /// * `factors_g1`: `[G, 1]` f32, what turns an exponential into the derivative of the loss by
    ///   the cosine
    /// * `slopes`: that derivative for each of the positives
    ///
    /// # Errors
    ///
    /// As above.
    pub fn backward(
        &mut self,
        negatives: Negatives,
        factors_g1: &Tensor,
        slopes: &[f64],
        (offsets_g, lr): (Option<&[f64]>, f64),
    ) -> Result<(), HeadError> {
        let embeddings_gd = self.operand(self.unit_embeddings_gd);
        // The factor goes with the embeddings, of which there are fewer than exponentials.
        let weighted_gd = self.operand(&(self.unit_embeddings_gd * factors_g1));
        let offsets_g = offsets_tensor(offsets_g);
        let pulls = self.pulls(slopes);
        let mut buffer_td = None;
        for (range, kept) in self.tiles().into_iter().zip(negatives.kept) {
            let exp_tg = match kept {
                Some(exp_tg) => exp_tg,
                None => {
                    let buffer_td = buffer_td.get_or_insert_with(|| self.buffer());
                    let offsets_g = offsets_g.as_ref();
                    self.exponentials(range.clone(), &embeddings_gd, offsets_g, buffer_td)?.exp_tg
                }
            };
            let as_negatives_td = &timed(&mut self.timings.product_ms, || {
                exp_tg.f_matmul(&weighted_gd).map_err(HeadError::torch("multiply a tile"))
            })?;
            let at = |slot| pulls.partition_point(|pull| pull.slot < slot);
            let as_positives = &pulls[at(range.start)..at(range.end)];
            let unit_embeddings_gd = self.unit_embeddings_gd;
            let gradient = TileGradient { as_negatives_td, as_positives, unit_embeddings_gd };
            let (rows, first_slot) = (&self.rows[range.clone()], range.start);
            timed(&mut self.timings.update_ms, || {
                let Centres { store, rule } = &mut self.centres;
                store.update(rows, first_slot, &gradient, (*rule, lr))
            })?;
        }
        Ok(())
    }

    fn pulls(&self, slopes: &[f64]) -> Vec<Pull> {
        let pull = |(positive, &slope): (&Positive, &f64)| Pull {
            slot: positive.slot,
            sample: positive.sample,
            slope: slope as f32,
        };
        self.positives.list.iter().zip(slopes).map(pull).collect()
    }

    fn exponentials(
        &mut self,
        range: Range<usize>,
        embeddings_gd: &Tensor,
        offsets_g: Option<&Tensor>,
        buffer_td: &mut Tensor,
    ) -> Result<Tile, HeadError> {
        let (unit_td, cos_tg) = self.cosines(range.clone(), embeddings_gd, buffer_td)?;
        let (config, n_samples) = (self.config, self.n_samples());
        let own_tg = self.positives.within(range.clone()).iter();
        let own_tg: Vec<i64> =
            own_tg.map(|p| ((p.slot - range.start) * n_samples + p.sample) as i64).collect();
        let (exp_tg, sums_g) = timed(&mut self.timings.softmax_ms, || {
            exponentials(cos_tg, &own_tg, offsets_g, config)
                .map_err(HeadError::torch("take the exponentials of a tile"))
        })?;
        Ok(Tile { unit_td, exp_tg, sums_g })
    }

    /// Unit rows and cosines of one tile, in the products' number format.
    fn cosines(
        &mut self,
        range: Range<usize>,
        embeddings_gd: &Tensor,
        buffer_td: &mut Tensor,
    ) -> Result<(Tensor, Tensor), HeadError> {
        let rows = &self.rows[range];
        let mut unit_td = buffer_td.narrow(0, 0, rows.len() as i64);
        timed(&mut self.timings.gather_ms, || self.centres.unit_rows(rows, &mut unit_td))?;
        let cos_tg = timed(&mut self.timings.product_ms, || {
            unit_td.f_matmul(&embeddings_gd.tr()).map_err(HeadError::torch("multiply a tile"))
        })?;
        Ok((unit_td, cos_tg))
    }

    fn n_samples(&self) -> usize {
        self.unit_embeddings_gd.size()[0] as usize
    }

    /// The slots of each tile.
    fn tiles(&self) -> Vec<Range<usize>> {
        let (n_rows, tile_rows) = (self.rows.len(), self.config.tile_rows);
        (0..n_rows).step_by(tile_rows).map(|start| start..(start + tile_rows).min(n_rows)).collect()
    }

    fn operand(&self, tensor: &Tensor) -> Tensor {
        tensor.to_kind(kind(self.config.precision))
    }

    /// Memory for the unit rows of one tile.
    fn buffer(&self) -> Tensor {
        let n_rows = self.rows.len().min(self.config.tile_rows) as i64;
        let kind = kind(self.config.precision);
        Tensor::empty([n_rows, self.config.dim as i64], (kind, Device::Cpu))
    }
}

/// `exp(s * cos - offset)` with the entries `own_tg`, flat, set to 0, and the sums over the tile.
fn exponentials(
    cos_tg: Tensor,
    own_tg: &[i64],
    offsets_g: Option<&Tensor>,
    config: &HeadConfig,
) -> Result<(Tensor, Vec<f64>), tch::TchError> {
    let kind = cos_tg.kind();
    let mut exp_tg = cos_tg.to_kind(Kind::Float);
    // Beyond 1 there is only rounding. The clamp cuts the gradient off there, which is not worth a
    // mask: at cosine 1 the rest of the gradient, across the row, is of the rounding's size.
    let _ = exp_tg.f_clamp_(-1.0, 1.0)?;
    let noise_tg = (config.interclass_filter > 0.0).then(|| exp_tg.gt(config.interclass_filter));
    if let Some(noise_tg) = &noise_tg {
        let _ = exp_tg.f_masked_fill_(noise_tg, 0.0)?;
    }
    let _ = exp_tg.f_mul_scalar_(config.scale)?;
    if let Some(offsets_g) = offsets_g {
        let _ = exp_tg.f_sub_(offsets_g)?;
    }
    let _ = exp_tg.f_exp_()?;
    if !own_tg.is_empty() {
        let _ = exp_tg.f_view(-1)?.f_index_fill_(0, &Tensor::from_slice(own_tg), 0.0)?;
    }
    let sums_g = to_f64(&exp_tg.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?);
    if let Some(noise_tg) = &noise_tg {
        // It stays in the sum as cosine 0 and passes nothing back.
        let _ = exp_tg.f_masked_fill_(noise_tg, 0.0)?;
    }
    Ok((exp_tg.f_to_kind(kind)?, sums_g))
}

/// Adds `a * b` to the f32 `sum`.
fn add_product(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<(), HeadError> {
    let added = if a.kind() == sum.kind() {
        sum.f_addmm_(a, b)
    } else {
        a.f_matmul(b).and_then(|product| sum.f_add_(&product))
    };
    added.map(drop).map_err(HeadError::torch("add up a tile"))
}

fn offsets_tensor(offsets_g: Option<&[f64]>) -> Option<Tensor> {
    offsets_g.map(|offsets_g| Tensor::from_slice(offsets_g).to_kind(Kind::Float))
}

fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}
