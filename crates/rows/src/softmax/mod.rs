//! Loss and gradients of one batch over rows in memory, in tiles: the cosines of a tile exist at a time.
//!
//! A batch goes through [`Batch::new`], [`Pass::forward`] and, after the ranks have added up what each knows of
//! every sample ([`Pass::sums`]), [`Pass::join`], which gives the loss. [`Pass::by_embeddings`] and
//! [`Pass::by_rows`] are the two sides of the gradient. The result does not depend on the number of threads.

// G = global batch, D = embedding, S = rows drawn on this rank, T = rows of one tile, O = positives of this
// rank.

mod batch;
mod exponential;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    cross_entropy::SampleLoss,
    margin::{AngularMargin, Target},
    product::{Matrix, Write, multiply},
    range::ClassRange,
    row,
    sampling::{SampleError, SampledRows},
    store::{RowGradient, Rows},
    vectors,
};
pub use batch::Batch;
use exponential::{OWN, exponentials};

/// Rows of one tile.
const TILE_ROWS: usize = 1024;

/// Groups of tiles whose sums are added in order, so that results do not depend on the number of threads.
const GROUPS: usize = 32;

/// Rows whose exponentials are added in f32 before they go on in f64.
const SUM_ROWS: usize = 64;

/// The largest logit plus ln C whose exponentials can be summed in f32 as they are.
const EXPONENT_MAX: f64 = 88.0;

/// A margin softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarginSoftmax {
    /// What becomes of a positive's cosine.
    pub margin: AngularMargin,
    /// The factor s that turns cosines into logits.
    pub scale: f64,
    /// Cosine above which a negative counts as cosine 0 and passes nothing back; 0 for no such bound.
    pub filter: f64,
    /// Bound, in bytes, of the exponentials that are kept for the way back; tiles past it are computed twice.
    pub kept_bytes_max: usize,
}

/// One sample with its own centre.
#[derive(Debug, Clone, Copy)]
struct Positive {
    /// Position of the centre among the step's rows.
    slot: usize,
    /// Row of the global batch.
    sample: usize,
    /// Cosine of the two, not clamped.
    cosine: f64,
}

/// A batch on its way forwards and back.
#[derive(Debug)]
pub struct Pass {
    softmax: MarginSoftmax,
    batch: Batch,
    /// `[S]`
    rows: Vec<u32>,
    /// In the order of the slots, then the samples.
    positives: Vec<Positive>,
    /// `[O, D]`, the unit centre of each.
    unit_centres_od: Vec<f32>,
    /// `[G]`, taken off each sample's logits; `None` for 0.
    offsets_g: Option<Vec<f32>>,
    /// `[S, G]` or its beginning: what [`SampleLoss::by_negatives`] turns into derivatives by the logits.
    slopes_sg: Vec<f32>,
    /// `[G]`, sums over the negatives of this rank.
    sums_g: Vec<f64>,
    /// `[G, D]`, unit rows weighted by the slopes; empty if no gradient is wanted.
    weighted_gd: Vec<f32>,
    /// What turns slopes into derivatives by the cosines; of all ranks, after [`Pass::join`].
    derivatives: Derivatives,
}

#[derive(Debug, Default)]
struct Derivatives {
    /// `[G]`, factors of the negatives' slopes.
    factors_g: Vec<f64>,
    /// `[O]`, derivatives by the positives' cosines.
    slopes_o: Vec<f64>,
}

impl MarginSoftmax {
    /// Whether exponentials might overflow, so that [`Pass::forward`] needs each sample's largest logit.
    #[must_use]
    pub fn needs_offsets(&self, classes: u64) -> bool {
        self.scale + (classes as f64).ln() >= EXPONENT_MAX
    }
}

impl Pass {
    /// Finds the positives of this rank among the rows that were drawn, and takes their cosines.
    ///
    /// * `drawn`: rows of `rows`, which are the classes of `range`
    /// * `slopes_sg`: memory to use again, of any length
    ///
    /// # Errors
    ///
    /// [`SampleError`] if a class of the batch was not drawn.
    pub fn new(
        softmax: MarginSoftmax,
        batch: Batch,
        (drawn, range): (SampledRows, ClassRange),
        rows: &Rows<'_>,
        (step, slopes_sg): (u64, Vec<f32>),
    ) -> Result<Pass, SampleError> {
        let mut positives = Vec::new();
        for (sample, &class) in batch.labels_g.iter().enumerate() {
            let Some(row) = range.row_of(class) else { continue };
            let slot = drawn.slot_of(row).ok_or_else(|| SampleError {
                step,
                problem: format!("class {class} is in the batch but not among them"),
            })?;
            positives.push(Positive { slot, sample, cosine: 0.0 });
        }
        positives.sort_unstable_by_key(|positive| (positive.slot, positive.sample));
        let drawn = drawn.as_slice().to_vec();
        let dim = batch.dim;
        let mut unit_centres_od = vec![0.0; positives.len() * dim];
        let centres = positives.par_iter_mut().zip(unit_centres_od.par_chunks_exact_mut(dim));
        centres.for_each_init(
            || vec![0.0; dim],
            |scratch, (positive, unit)| {
                write_unit(rows, drawn[positive.slot] as usize, scratch, unit);
                // In f64: the margin acts here.
                let products = unit.iter().zip(batch.unit(positive.sample));
                positive.cosine = products.map(|(c, e)| f64::from(*c) * f64::from(*e)).sum();
            },
        );
        Ok(Pass {
            softmax,
            sums_g: vec![0.0; batch.len()],
            batch,
            rows: drawn,
            positives,
            unit_centres_od,
            offsets_g: None,
            slopes_sg,
            weighted_gd: Vec::new(),
            derivatives: Derivatives::default(),
        })
    }

    /// Number of rows, S.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The largest logit of each sample over the rows of this rank, `[G]`; minus infinity without rows.
    #[must_use]
    pub fn largest_logits(&self, rows: &Rows<'_>) -> Vec<f64> {
        let n_samples = self.batch.len();
        let of_tile = |tile: &[u32]| {
            let mut largest_g = vec![f64::NEG_INFINITY; n_samples];
            let mut buffer = TileBuffer::new(tile.len(), self.batch.dim);
            let mut cos_tg = vec![0.0; tile.len() * n_samples];
            self.cosines(rows, tile, &mut buffer, &mut cos_tg);
            for cos_g in cos_tg.chunks_exact(n_samples) {
                for (largest, cos) in largest_g.iter_mut().zip(cos_g) {
                    *largest = largest.max(self.softmax.scale * f64::from(cos.clamp(-1.0, 1.0)));
                }
            }
            largest_g
        };
        let none = || vec![f64::NEG_INFINITY; n_samples];
        let larger = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect();
        self.rows.par_chunks(TILE_ROWS).map(of_tile).reduce(none, larger)
    }

    /// Takes the sums over the negatives and, if a gradient is wanted, what it needs of them.
    ///
    /// * `offsets_g`: `[G]`, the largest logit of each sample over all ranks, where
    ///   [`MarginSoftmax::needs_offsets`]
    pub fn forward(&mut self, rows: &Rows<'_>, offsets_g: Option<&[f64]>, wants_gradient: bool) {
        let offsets = |offsets_g: &[f64]| offsets_g.iter().map(|&offset| offset as f32).collect();
        self.offsets_g = offsets_g.map(offsets);
        let (n_samples, dim) = (self.batch.len(), self.batch.dim);
        let tile_bytes = TILE_ROWS * n_samples * size_of::<f32>();
        let n_kept = self.softmax.kept_bytes_max / tile_bytes.max(1);
        let n_kept_rows = if wants_gradient { self.rows.len().min(n_kept * TILE_ROWS) } else { 0 };
        let mut slopes_sg = std::mem::take(&mut self.slopes_sg);
        slopes_sg.resize(n_kept_rows * n_samples, 0.0);
        let mut kept = slopes_sg.chunks_mut(TILE_ROWS * n_samples);
        let n_tiles = self.rows.len().div_ceil(TILE_ROWS);
        let n_groups = n_tiles.min(GROUPS);
        let mut groups: Vec<Vec<Tile<'_>>> = Vec::new();
        groups.resize_with(n_groups, Vec::new);
        for (t, rows) in self.rows.chunks(TILE_ROWS).enumerate() {
            groups[t * n_groups / n_tiles].push(Tile { rows, kept: kept.next() });
        }
        let this = &*self;
        let of_group = |tiles| this.forward_group(rows, tiles, wants_gradient);
        let found: Vec<_> = groups.into_par_iter().with_max_len(1).map(of_group).collect();
        let mut weighted_gd = vec![0.0; if wants_gradient { n_samples * dim } else { 0 }];
        let mut sums_g = vec![0.0; n_samples];
        for (group_sums_g, group_weighted_gd) in found {
            sums_g.iter_mut().zip(group_sums_g).for_each(|(sum, part)| *sum += part);
            weighted_gd.iter_mut().zip(group_weighted_gd).for_each(|(sum, part)| *sum += part);
        }
        (self.sums_g, self.weighted_gd, self.slopes_sg) = (sums_g, weighted_gd, slopes_sg);
    }

    /// Sums `[G]` and weighted unit rows `[G, D]` of some tiles one after the other.
    fn forward_group(
        &self,
        rows: &Rows<'_>,
        tiles: Vec<Tile<'_>>,
        wants_gradient: bool,
    ) -> (Vec<f64>, Vec<f32>) {
        let (n_samples, dim) = (self.batch.len(), self.batch.dim);
        let mut sums_g = vec![0.0; n_samples];
        let mut weighted_gd = vec![0.0; if wants_gradient { n_samples * dim } else { 0 }];
        let mut buffer = TileBuffer::new(TILE_ROWS.min(self.rows.len()), dim);
        let mut not_kept = Vec::new();
        for Tile { rows: tile, kept } in tiles {
            let slopes_tg = match kept {
                Some(kept) => kept,
                None => {
                    not_kept.resize(tile.len() * n_samples, 0.0);
                    &mut not_kept[..]
                }
            };
            self.slopes(rows, tile, &mut buffer, slopes_tg, &mut sums_g);
            if wants_gradient {
                let slopes_gt = Matrix::new(slopes_tg, n_samples).transposed();
                let unit_td = Matrix::new(buffer.unit(tile.len()), dim);
                multiply(slopes_gt, unit_td, Write::Add, &mut weighted_gd);
            }
        }
        (sums_g, weighted_gd)
    }

    /// Writes the slopes `[T, G]` of a tile's negatives and adds these to the sums; the tile's unit rows are in
    /// `buffer` then.
    fn slopes(
        &self,
        rows: &Rows<'_>,
        tile: &[u32],
        buffer: &mut TileBuffer,
        slopes_tg: &mut [f32],
        sums_g: &mut [f64],
    ) {
        self.cosines(rows, tile, buffer, slopes_tg);
        let first_slot = self.first_slot(tile);
        let n_samples = self.batch.len();
        for positive in &self.positives[self.positives_of(first_slot..first_slot + tile.len())] {
            slopes_tg[(positive.slot - first_slot) * n_samples + positive.sample] = OWN;
        }
        let MarginSoftmax { scale, filter, .. } = self.softmax;
        let (scale, filter) = (scale as f32, if filter > 0.0 { filter as f32 } else { OWN });
        let mut block_g = vec![0.0; n_samples];
        for rows_of_sum in slopes_tg.chunks_mut(SUM_ROWS * n_samples) {
            block_g.fill(0.0);
            vectors().dispatch(|| {
                for slopes_g in rows_of_sum.chunks_exact_mut(n_samples) {
                    match &self.offsets_g {
                        None => exponentials(slopes_g, (scale, filter), None, &mut block_g),
                        Some(o) => exponentials(slopes_g, (scale, filter), Some(o), &mut block_g),
                    }
                }
            });
            sums_g.iter_mut().zip(&block_g).for_each(|(sum, part)| *sum += f64::from(*part));
        }
    }

    /// Writes the cosines `[T, G]` of a tile, whose unit rows are in `buffer` then.
    fn cosines(&self, rows: &Rows<'_>, tile: &[u32], buffer: &mut TileBuffer, cos_tg: &mut [f32]) {
        let dim = self.batch.dim;
        let TileBuffer { unit_td, scratch } = buffer;
        let unit_td = &mut unit_td[..tile.len() * dim];
        vectors().dispatch(|| {
            rows.for_each(tile, |i, row| {
                write_unit(rows, row, scratch, &mut unit_td[i * dim..][..dim]);
            });
        });
        let embeddings_dg = Matrix::new(&self.batch.unit_gd, dim).transposed();
        multiply(Matrix::new(unit_td, dim), embeddings_dg, Write::Over, cos_tg);
    }

    /// What this rank knows of every sample, `[2 G]`: the sums over its negatives, then the logits of its
    /// positives, 0 for those of other ranks. All ranks add theirs up.
    #[must_use]
    pub fn sums(&self) -> Vec<f64> {
        let n_samples = self.batch.len();
        let mut sums = self.sums_g.clone();
        sums.resize(2 * n_samples, 0.0);
        for positive in &self.positives {
            let offset = self.offsets_g.as_ref().map_or(0.0, |o| f64::from(o[positive.sample]));
            let logit = self.softmax.scale * self.target(positive).value;
            sums[n_samples + positive.sample] = logit - offset;
        }
        sums
    }

    /// The mean loss over the global batch, NaN or infinite if the sums are.
    ///
    /// * `sums`: `[2 G]`, [`Pass::sums`] added up over all ranks
    pub fn join(&mut self, sums: &[f64]) -> f64 {
        let n_samples = self.batch.len();
        let (sums_g, logits_g) = sums.split_at(n_samples);
        let samples_g: Vec<SampleLoss> =
            sums_g.iter().zip(logits_g).map(|(&s, &l)| SampleLoss::softmax(s, l)).collect();
        let per_cosine = self.softmax.scale / n_samples as f64;
        let factor = |sample: &SampleLoss| per_cosine * sample.by_negatives;
        let slope = |positive: &Positive| {
            let by_logit = samples_g[positive.sample].by_positive;
            per_cosine * by_logit * self.target(positive).slope
        };
        self.derivatives = Derivatives {
            factors_g: samples_g.iter().map(factor).collect(),
            slopes_o: self.positives.iter().map(slope).collect(),
        };
        samples_g.iter().map(|sample| sample.loss).sum::<f64>() / n_samples as f64
    }

    /// What the margin makes of a positive; the slope is 0 where the clamp to `[-1, 1]` cut something off.
    fn target(&self, positive: &Positive) -> Target {
        let target = self.softmax.margin.target(positive.cosine.clamp(-1.0, 1.0));
        if positive.cosine.abs() > 1.0 { Target { slope: 0.0, ..target } } else { target }
    }

    /// This rank's part of the gradient by the embeddings, `[G, D]`; all ranks add theirs up.
    ///
    /// * `factor`: which the loss is multiplied by
    #[must_use]
    pub fn by_embeddings(&self, factor: f64) -> Vec<f32> {
        let dim = self.batch.dim;
        let mut gradient_gd = self.weighted_gd.clone();
        let Derivatives { factors_g, slopes_o } = &self.derivatives;
        for (gradient, of_sample) in gradient_gd.chunks_exact_mut(dim).zip(factors_g) {
            gradient.iter_mut().for_each(|value| *value *= (factor * of_sample) as f32);
        }
        let centres = self.unit_centres_od.chunks_exact(dim);
        for ((positive, slope), unit) in self.positives.iter().zip(slopes_o).zip(centres) {
            let gradient = &mut gradient_gd[positive.sample * dim..][..dim];
            row::add_scaled(gradient, (factor * slope) as f32, unit);
        }
        let samples = gradient_gd.par_chunks_exact_mut(dim).enumerate();
        samples.for_each(|(sample, gradient)| self.batch.before_normalisation(sample, gradient));
        gradient_gd
    }

    /// The gradient by the rows of this rank, and the sum of its squares. `rows` are as they were before.
    ///
    /// * `factor`: which the loss is multiplied by
    /// * `gradient_sd`: memory to use again, of any length
    #[must_use]
    pub fn by_rows(
        &self,
        rows: &Rows<'_>,
        factor: f64,
        mut gradient_sd: Vec<f32>,
    ) -> (RowGradient, f64) {
        let (n_samples, dim) = (self.batch.len(), self.batch.dim);
        let mut weighted_gd = self.batch.unit_gd.clone();
        for (unit, of_sample) in weighted_gd.chunks_exact_mut(dim).zip(&self.derivatives.factors_g)
        {
            unit.iter_mut().for_each(|value| *value *= (factor * of_sample) as f32);
        }
        gradient_sd.resize(self.rows.len() * dim, 0.0);
        let mut kept = self.slopes_sg.chunks(TILE_ROWS * n_samples);
        let n_tiles = self.rows.len().div_ceil(TILE_ROWS);
        let kept: Vec<Option<&[f32]>> = (0..n_tiles).map(|_| kept.next()).collect();
        let tiles = self.rows.par_chunks(TILE_ROWS);
        let tiles = tiles.zip(gradient_sd.par_chunks_mut(TILE_ROWS * dim)).zip(kept);
        let squares: Vec<f64> = tiles
            .map(|((tile, gradient_td), kept)| {
                let mut not_kept = Vec::new();
                let slopes_tg = kept.unwrap_or_else(|| {
                    not_kept.resize(tile.len() * n_samples, 0.0);
                    let mut buffer = TileBuffer::new(tile.len(), dim);
                    let mut sums_g = vec![0.0; n_samples];
                    self.slopes(rows, tile, &mut buffer, &mut not_kept, &mut sums_g);
                    &not_kept
                });
                let weighted_gd = Matrix::new(&weighted_gd, dim);
                multiply(Matrix::new(slopes_tg, n_samples), weighted_gd, Write::Over, gradient_td);
                self.finish_tile(rows, tile, factor, gradient_td)
            })
            .collect();
        (RowGradient { rows: self.rows.clone(), gradient_sd }, squares.iter().sum())
    }

    /// Adds the part of the positives to the gradient by a tile's unit rows, `[T, D]`, and sends it back
    /// through the normalisation. Returns the sum of its squares.
    fn finish_tile(
        &self,
        rows: &Rows<'_>,
        tile: &[u32],
        factor: f64,
        gradient_td: &mut [f32],
    ) -> f64 {
        let dim = self.batch.dim;
        let first_slot = self.first_slot(tile);
        let own = self.positives_of(first_slot..first_slot + tile.len());
        for (positive, slope) in
            self.positives[own.clone()].iter().zip(&self.derivatives.slopes_o[own])
        {
            let gradient = &mut gradient_td[(positive.slot - first_slot) * dim..][..dim];
            row::add_scaled(gradient, (factor * slope) as f32, self.batch.unit(positive.sample));
        }
        let mut scratch = vec![0.0; dim];
        let mut squares = 0.0;
        vectors().dispatch(|| {
            rows.for_each(tile, |i, row| {
                let gradient = &mut gradient_td[i * dim..][..dim];
                row::before_normalisation(gradient, rows.current(row, &mut scratch));
                squares += f64::from(row::dot(gradient, gradient));
            });
        });
        squares
    }

    /// The slot of a tile's first row.
    fn first_slot(&self, tile: &[u32]) -> usize {
        self.rows.partition_point(|&row| row < tile[0])
    }

    /// Positions in the list of the positives with a slot in `slots`.
    fn positives_of(&self, slots: Range<usize>) -> Range<usize> {
        let at = |slot| self.positives.partition_point(|positive| positive.slot < slot);
        at(slots.start)..at(slots.end)
    }

    /// The memory of the slopes, for the next batch.
    #[must_use]
    pub fn into_memory(self) -> Vec<f32> {
        self.slopes_sg
    }
}

/// Rows of one tile, and where their slopes are kept.
struct Tile<'a> {
    rows: &'a [u32],
    kept: Option<&'a mut [f32]>,
}

/// What one thread needs for a tile.
struct TileBuffer {
    /// `[T, D]`
    unit_td: Vec<f32>,
    /// `[D]`
    scratch: Vec<f32>,
}

impl TileBuffer {
    fn new(n_rows: usize, dim: usize) -> TileBuffer {
        TileBuffer { unit_td: vec![0.0; n_rows * dim], scratch: vec![0.0; dim] }
    }

    fn unit(&self, n_rows: usize) -> &[f32] {
        &self.unit_td[..n_rows * self.scratch.len()]
    }
}

/// Writes `w / max(|w|, 1e-12)`.
#[inline(always)]
fn write_unit(rows: &Rows<'_>, row: usize, scratch: &mut [f32], unit: &mut [f32]) {
    let weight = rows.current(row, scratch);
    let inverse_length = row::inverse_length(weight);
    for (out, w) in unit.iter_mut().zip(weight) {
        *out = w * inverse_length;
    }
}
