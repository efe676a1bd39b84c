//! The positives of a step that live on this rank, in full precision.

// O = samples of the global batch whose class is on this rank, P = distinct such classes,
// G = global batch, D = embedding.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    HeadError,
    batch::{GlobalBatch, to_f64},
    margin::{MarginLoss, Target},
    range::ClassRange,
    sampled::SampledRows,
    store::Centres,
};

/// One sample with its own centre.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positive {
    /// Position of the centre among the step's rows.
    pub slot: usize,
    /// Row of the global batch.
    pub sample: usize,
    /// Cosine of the two, not clamped.
    pub cosine: f64,
    /// What the loss makes of it; the slope is 0 where the clamp to `[-1, 1]` cut something off.
    pub target: Target,
}

/// All of them, in the order of the slots, then the samples.
pub(super) struct Positives {
    pub list: Vec<Positive>,
    /// `[O, D]` f32, the unit centre of each.
    pub unit_centres_od: Tensor,
}

impl Positives {
    /// Finds the samples of `batch` whose class is in `range` and takes their cosines, in f64 from
    /// unit vectors in f32: the margin acts here, so these do not come from the bf16 products.
    ///
    /// # Errors
    ///
    /// [`HeadError::Sample`] if a positive is not among `rows`, those of the step on this rank.
    pub fn find(
        batch: &GlobalBatch,
        range: &ClassRange,
        rows: &SampledRows,
        step: u64,
        loss: &dyn MarginLoss,
        centres: &mut Centres<'_>,
    ) -> Result<Positives, HeadError> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (sample, &class) in batch.labels_g.iter().enumerate() {
            let Some(row) = range.row_of(class) else { continue };
            let slot = rows.slot_of(row).ok_or_else(|| HeadError::Sample {
                step,
                problem: format!("class {class} is in the batch but not among them"),
            })?;
            places.push((slot, sample));
        }
        places.sort_unstable();
        let unit_centres_od = unit_centres(&places, rows.as_slice(), batch, centres)?;
        let samples: Vec<i64> = places.iter().map(|&(_, sample)| sample as i64).collect();
        let unit_od = batch.unit_gd.index_select(0, &Tensor::from_slice(&samples));
        let products_od = unit_od.to_kind(Kind::Double) * unit_centres_od.to_kind(Kind::Double);
        let cosines_o = products_od.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let list = places
            .iter()
            .zip(to_f64(&cosines_o))
            .map(|(&(slot, sample), cosine)| Positive {
                slot,
                sample,
                cosine,
                target: clamped_target(loss, sample, cosine),
            })
            .collect();
        Ok(Positives { list, unit_centres_od })
    }

    /// Positions in the list of those with a slot in `slots`.
    pub fn within(&self, slots: &Range<usize>) -> Range<usize> {
        let at = |slot| self.list.partition_point(|positive| positive.slot < slot);
        at(slots.start)..at(slots.end)
    }
}

fn clamped_target(loss: &dyn MarginLoss, sample: usize, cosine: f64) -> Target {
    let target = loss.target(sample, cosine.clamp(-1.0, 1.0));
    if cosine.abs() > 1.0 { Target { slope: 0.0, ..target } } else { target }
}

/// The unit centre of each place, `[O, D]` f32.
fn unit_centres(
    places: &[(usize, usize)],
    rows: &[u32],
    batch: &GlobalBatch,
    centres: &mut Centres<'_>,
) -> Result<Tensor, HeadError> {
    let mut distinct: Vec<u32> = Vec::new();
    let mut index_o = Vec::with_capacity(places.len());
    for &(slot, _) in places {
        if distinct.last() != Some(&rows[slot]) {
            distinct.push(rows[slot]);
        }
        index_o.push(distinct.len() as i64 - 1);
    }
    let dim = batch.unit_gd.size()[1];
    let device = centres.store.device();
    let mut unit_pd = Tensor::zeros([distinct.len() as i64, dim], (Kind::Float, device));
    for mut tile in centres.store.tiles(&distinct, distinct.len().max(1)) {
        tile.unit_rows(centres.rule, &mut unit_pd)?;
    }
    Ok(unit_pd.to_device(Device::Cpu).index_select(0, &Tensor::from_slice(&index_o)))
}
