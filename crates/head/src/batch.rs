//! The global batch: every rank's embeddings and labels, checked and normalised, and those of its
//! samples whose own centre lives on this rank.

// G = global batch, B = this rank's part of it, D = embedding, O = samples of the global batch whose
// class is on this rank, P = distinct such classes.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    HeadError,
    centres::{Centres, row::LENGTH_LEAST},
    comm::Communicator,
    config::HeadConfig,
    elements::to_f64,
    loss::{MarginLoss, Target},
    range::ClassRange,
    sampling::SampledRows,
};

/// What all ranks feed the head in one step.
pub(super) struct GlobalBatch {
    /// `[G]`, global class ids, all below the number of classes.
    pub labels_g: Vec<u64>,
    /// `[G, D]` f32 on the CPU, of unit length.
    pub unit_gd: Tensor,
    /// `[G, 1]` f32, lengths of the embeddings before that.
    lengths_g1: Tensor,
    /// B of each rank.
    pub rows_of_rank: Vec<usize>,
    /// This rank's rows of the global batch.
    pub own: Range<usize>,
}

impl GlobalBatch {
    /// Collects and checks the batch of all ranks.
    ///
    /// # Errors
    ///
    /// [`HeadError`] that names step, rank and row, on every rank the same one, except that the
    /// shape of a batch is checked by its own rank alone.
    pub fn collect(
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        config: &HeadConfig,
        comm: &mut dyn Communicator,
    ) -> Result<GlobalBatch, HeadError> {
        check_shape(embeddings_bd, labels, step, config)?;
        let labels_of_rank = comm.all_gather(labels).map_err(HeadError::comm(step, "labels"))?;
        let labels_g = check_labels(&labels_of_rank, step, config)?;
        let rows_of_rank: Vec<usize> = labels_of_rank.iter().map(Vec::len).collect();
        if labels_g.is_empty() {
            let found = "empty on every rank".to_owned();
            return Err(HeadError::BatchShape {
                step,
                found,
                expected: "a row or more".to_owned(),
            });
        }
        let first: usize = rows_of_rank[..comm.rank()].iter().sum();
        let own = first..first + labels.len();
        let own_bd =
            embeddings_bd.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let raw_gd = comm
            .all_gather_rows(&own_bd, &rows_of_rank)
            .map_err(HeadError::comm(step, "embeddings"))?;
        let lengths_g1 = raw_gd.norm_scalaropt_dim(2, [1i64], true);
        check_finite(&lengths_g1, &rows_of_rank, step)?;
        let unit_gd = raw_gd / lengths_g1.clamp_min(f64::from(LENGTH_LEAST));
        Ok(GlobalBatch { labels_g, unit_gd, lengths_g1, rows_of_rank, own })
    }

    /// Lengths of all embeddings, `[G]`.
    pub fn lengths(&self) -> Vec<f64> {
        to_f64(&self.lengths_g1)
    }

    /// The classes in the batch, ascending, each once.
    pub fn classes(&self) -> Vec<u64> {
        let mut classes = self.labels_g.clone();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Sends this rank's gradient by its unit embeddings, `[B, D]`, back through the normalisation.
    pub fn before_normalisation(&self, grad_unit_bd: &Tensor) -> Tensor {
        let (first, n) = (self.own.start as i64, self.own.len() as i64);
        let unit_bd = self.unit_gd.narrow(0, first, n);
        let lengths_b1 = self.lengths_g1.narrow(0, first, n);
        let least = f64::from(LENGTH_LEAST);
        // An embedding shorter than the least length was scaled by a constant.
        let normalised_b1 = lengths_b1.ge(least).to_kind(Kind::Float);
        let along_b1 =
            (grad_unit_bd * &unit_bd).sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
                * normalised_b1;
        (grad_unit_bd - along_b1 * unit_bd) / lengths_b1.clamp_min(least)
    }
}

fn check_shape(
    embeddings_bd: &Tensor,
    labels: &[i64],
    step: u64,
    config: &HeadConfig,
) -> Result<(), HeadError> {
    let shape = embeddings_bd.size();
    if shape == [labels.len() as i64, config.dim as i64] {
        return Ok(());
    }
    Err(HeadError::BatchShape {
        step,
        found: format!("{shape:?} with {} labels", labels.len()),
        expected: format!("[B, {}] with B labels", config.dim),
    })
}

fn check_labels(
    labels_of_rank: &[Vec<i64>],
    step: u64,
    config: &HeadConfig,
) -> Result<Vec<u64>, HeadError> {
    let classes = config.classes;
    let mut labels_g = Vec::new();
    for (rank, labels) in labels_of_rank.iter().enumerate() {
        for (row, &label) in labels.iter().enumerate() {
            match u64::try_from(label) {
                Ok(class) if class < classes => labels_g.push(class),
                _ => {
                    return Err(HeadError::LabelOutOfRange { step, rank, row, label, classes });
                }
            }
        }
    }
    Ok(labels_g)
}

fn check_finite(lengths_g1: &Tensor, rows_of_rank: &[usize], step: u64) -> Result<(), HeadError> {
    let Some(mut row) = to_f64(lengths_g1).iter().position(|length| !length.is_finite()) else {
        return Ok(());
    };
    for (rank, &n_rows) in rows_of_rank.iter().enumerate() {
        if row < n_rows {
            return Err(HeadError::EmbeddingNotFinite { step, rank, row });
        }
        row -= n_rows;
    }
    Ok(())
}

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
