//! Softmax over the sampled rows in tiles: the logits of one tile exist at a time.

// T = rows of one tile, S = rows of the step on this rank, G = global batch, D = embedding.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{
    HeadError,
    config::HeadConfig,
    forward::Derivatives,
    lane::{Lane, LaneSums, Tile, kind},
    positives::Positives,
    store::{CentreTile, Centres},
    timings::Timings,
};

/// The largest logit plus ln C whose exponentials can be summed in f32 as they are.
const EXPONENT_MAX: f64 = 88.0;

/// Lanes of a step: how many threads can share the work. The number is fixed and their sums are
/// added in order, so that results do not depend on the number of threads.
const LANES: usize = 32;

/// One step's rows in tiles, and the exponentials that are kept between the two passes.
pub(super) struct TiledSoftmax<'a> {
    lanes: Vec<Lane<'a>>,
    /// `[G, D]` f32, on the device of the centres.
    unit_embeddings_gd: Tensor,
}

impl<'a> TiledSoftmax<'a> {
    /// * `rows`: `[S]`, the step's rows on this rank, strictly ascending
    /// * `unit_embeddings_gd`: `[G, D]` f32
    pub fn new(
        config: &'a HeadConfig,
        centres: Centres<'a>,
        rows: &'a [u32],
        positives: &Positives,
        unit_embeddings_gd: &Tensor,
    ) -> TiledSoftmax<'a> {
        let Centres { store, rule } = centres;
        let device = store.device();
        let unit_embeddings_gd = unit_embeddings_gd.to_device(device);
        let operand_gd = unit_embeddings_gd.to_kind(kind(config));
        let n_tiles = rows.len().div_ceil(config.tile_rows);
        // Another device works on one tile after the other, on all of its own threads.
        let n_lanes = n_tiles.min(if device == Device::Cpu { LANES } else { 1 });
        let new_lane = |_| Lane {
            config,
            rule,
            tiles: Vec::new(),
            unit_embeddings_gd: unit_embeddings_gd.shallow_clone(),
            operand_gd: operand_gd.shallow_clone(),
            offsets_g: None,
            timings: Timings::default(),
        };
        let mut lanes: Vec<Lane<'a>> = (0..n_lanes).map(new_lane).collect();
        let n_samples = unit_embeddings_gd.size()[0] as usize;
        let tile_bytes = config.tile_rows * n_samples * operand_gd.kind().elt_size_in_bytes();
        let n_kept = (config.cache_mib << 20) / tile_bytes.max(1);
        for (t, rows) in store.tiles(rows, config.tile_rows).into_iter().enumerate() {
            let tile = new_tile(rows, t * config.tile_rows, positives, t < n_kept);
            lanes[t * n_lanes / n_tiles].tiles.push(tile);
        }
        TiledSoftmax { lanes, unit_embeddings_gd }
    }

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
        let mut largest_g = vec![f64::NEG_INFINITY; self.unit_embeddings_gd.size()[0] as usize];
        let lanes = self.lanes.par_iter_mut().with_max_len(1).map(Lane::largest_logits);
        for lane_g in lanes.collect::<Result<Vec<_>, _>>()? {
            for (largest, logit) in largest_g.iter_mut().zip(lane_g) {
                *largest = largest.max(logit);
            }
        }
        Ok(largest_g)
    }

    /// First pass: sums of the exponentials over the negatives, and rows weighted by them.
    ///
    /// * `offsets_g`: `[G]`, taken off each sample's logits; `None` for 0
    ///
    /// # Errors
    ///
    /// As above.
    pub fn forward(&mut self, offsets_g: Option<&[f64]>) -> Result<LaneSums, HeadError> {
        if let Some(offsets_g) = offsets_g {
            let offsets_g = Tensor::from_slice(offsets_g)
                .to_kind(Kind::Float)
                .to_device(self.unit_embeddings_gd.device());
            for lane in &mut self.lanes {
                lane.offsets_g = Some(offsets_g.shallow_clone());
            }
        }
        let mut sums_g = vec![0.0; self.unit_embeddings_gd.size()[0] as usize];
        let mut weighted_rows_gd = self.unit_embeddings_gd.zeros_like();
        let lanes = self.lanes.par_iter_mut().with_max_len(1).map(Lane::forward);
        for lane in lanes.collect::<Result<Vec<_>, _>>()? {
            for (sum, lane_sum) in sums_g.iter_mut().zip(lane.sums_g) {
                *sum += lane_sum;
            }
            weighted_rows_gd += lane.weighted_rows_gd;
        }
        Ok(LaneSums { sums_g, weighted_rows_gd: weighted_rows_gd.to_device(Device::Cpu) })
    }

    /// Second pass: gradients of the rows, and their update. Returns where the time of both passes
    /// went, in thread time.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn backward(mut self, by_cosine: &Derivatives, lr: f64) -> Result<Timings, HeadError> {
        // The factor goes with the embeddings, of which there are fewer than exponentials.
        let factors_g1 = by_cosine.factors_g1.to_device(self.unit_embeddings_gd.device());
        let weighted_gd = &self.unit_embeddings_gd * factors_g1;
        let handles: Vec<Tensor> =
            self.lanes.iter().map(|lane| weighted_gd.to_kind(kind(lane.config))).collect();
        let slopes = &by_cosine.slopes[..];
        let lanes = self.lanes.par_iter_mut().zip(handles).with_max_len(1);
        lanes
            .map(|(lane, weighted_gd)| lane.backward(&weighted_gd, slopes, lr))
            .collect::<Result<(), _>>()?;
        let mut timings = Timings::default();
        for lane in &self.lanes {
            timings += lane.timings;
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
        exp_tg: None,
    }
}
