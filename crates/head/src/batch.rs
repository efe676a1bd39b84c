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
    loss::{Loss, Target},
    range::ClassRange,
    sampling::{SampleError, SampledRows, centres_of},
    traffic,
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
        let first: usize = rows_of_rank[..comm.rank()].iter().sum();
        let own = first..first + labels.len();
        let own_bd = traffic::to_host(&embeddings_bd.detach())
            .map_err(HeadError::torch("copy the embeddings"))?
            .contiguous();
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

    /// Adds the gradient by the lengths of this rank's embeddings to the one by the embeddings, `[B, D]`.
    ///
    /// * `by_length_b`: `[B]`
    pub fn add_by_length(&self, grad_bd: &Tensor, by_length_b: &[f64]) -> Tensor {
        let unit_bd = self.unit_gd.narrow(0, self.own.start as i64, self.own.len() as i64);
        let by_length_b1 = Tensor::from_slice(by_length_b).to_kind(Kind::Float).unsqueeze(1);
        grad_bd + unit_bd * by_length_b1
    }

    /// The classes in the batch, ascending, each once.
    pub fn classes(&self) -> Vec<u64> {
        classes_of(&self.labels_g)
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

/// What all ranks feed the head in a step that devices do as a whole.
pub(super) struct BatchThere {
    /// `[G, D]`: of several ranks on the device, in f32, of one as it was given. Nobody knows yet whether they
    /// are finite.
    pub embeddings_gd: Tensor,
    /// `[G]`, global class ids, all below the number of classes.
    pub labels_g: Vec<u64>,
    /// B of each rank.
    pub rows_of_rank: Vec<usize>,
}

impl BatchThere {
    /// Collects the batch of all ranks: labels on the hosts, embeddings on the devices.
    ///
    /// # Errors
    ///
    /// As [`GlobalBatch::collect`], but for embeddings that are not finite.
    pub fn collect(
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        (config, device): (&HeadConfig, Device),
        comm: &mut dyn Communicator,
    ) -> Result<BatchThere, HeadError> {
        check_shape(embeddings_bd, labels, step, config)?;
        let labels_of_rank = comm.all_gather(labels).map_err(HeadError::comm(step, "labels"))?;
        let labels_g = check_labels(&labels_of_rank, step, config)?;
        let rows_of_rank: Vec<usize> = labels_of_rank.iter().map(Vec::len).collect();
        if comm.world() == 1 {
            let embeddings_gd = embeddings_bd.shallow_clone();
            return Ok(BatchThere { embeddings_gd, labels_g, rows_of_rank });
        }
        let own_bd = traffic::to_device(embeddings_bd, device)
            .and_then(|own_bd| own_bd.f_to_kind(Kind::Float)?.f_contiguous())
            .map_err(HeadError::torch("copy the embeddings"))?;
        let embeddings_gd = comm
            .all_gather_rows(&own_bd, &rows_of_rank)
            .map_err(HeadError::comm(step, "embeddings"))?;
        Ok(BatchThere { embeddings_gd, labels_g, rows_of_rank })
    }
}

/// The rank whose sample it is, and its row there.
pub(super) fn place_of(sample: usize, rows_of_rank: &[usize]) -> (usize, usize) {
    let mut first = 0;
    for (rank, &n_rows) in rows_of_rank.iter().enumerate() {
        if sample < first + n_rows {
            return (rank, sample - first);
        }
        first += n_rows;
    }
    (rows_of_rank.len(), sample - first)
}

/// The classes of some samples, ascending, each once.
pub(super) fn classes_of(labels_g: &[u64]) -> Vec<u64> {
    let mut classes = labels_g.to_vec();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// The slot of a class of the batch among the step's.
///
/// # Errors
///
/// [`SampleError`] if the sampler has left it out.
pub(super) fn slot_of(
    classes: &SampledRows,
    (class, row): (u64, u32),
    step: u64,
) -> Result<usize, SampleError> {
    classes.slot_of(row).ok_or_else(|| SampleError {
        step,
        problem: format!("class {class} is in the batch but not among them"),
    })
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
    if labels_g.is_empty() {
        let (found, expected) = ("empty on every rank".to_owned(), "a row or more".to_owned());
        return Err(HeadError::BatchShape { step, found, expected });
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

/// One sample with its own centre: of several, the nearest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positive {
    /// Position of the centre among the step's rows.
    pub slot: usize,
    /// Row of the global batch.
    pub sample: usize,
    /// Cosine of the two, not clamped.
    pub cosine: f64,
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
    /// * `classes`: those of the step on this rank, each with `k` centres
    ///
    /// # Errors
    ///
    /// [`HeadError::Sample`] if a positive is not among them.
    pub fn find(
        batch: &GlobalBatch,
        range: &ClassRange,
        (classes, k): (&SampledRows, usize),
        step: u64,
        centres: &mut Centres<'_>,
    ) -> Result<Positives, HeadError> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (sample, &class) in batch.labels_g.iter().enumerate() {
            let Some(row) = range.row_of(class) else { continue };
            places.push((slot_of(classes, (class, row), step)?, sample));
        }
        places.sort_unstable();
        // Candidates: the k centres of each sample's class, in a row.
        let unit_cd = unit_centres(&places, (classes.as_slice(), k), batch, centres)?;
        let samples: Vec<i64> =
            places.iter().flat_map(|&(_, sample)| vec![sample as i64; k]).collect();
        let embeddings_cd = batch.unit_gd.index_select(0, &Tensor::from_slice(&samples));
        let products_cd = embeddings_cd.to_kind(Kind::Double) * unit_cd.to_kind(Kind::Double);
        let cosines = to_f64(&products_cd.sum_dim_intlist([1i64].as_slice(), false, Kind::Double));
        let positive = |(&(slot, sample), cosines): (&(usize, usize), &[f64])| {
            let (nearest, &cosine) =
                (0..).zip(cosines).max_by(|a, b| a.1.total_cmp(b.1)).expect("k is 1 or more");
            Positive { slot: slot * k + nearest, sample, cosine }
        };
        let list: Vec<Positive> = places.iter().zip(cosines.chunks(k)).map(positive).collect();
        Ok(if k == 1 {
            Positives { list, unit_centres_od: unit_cd }
        } else {
            Positives::nearest(list, &unit_cd, k)
        })
    }

    /// Brings the nearest centres into order.
    ///
    /// * `list`: a positive for each `k` rows of `unit_cd`
    fn nearest(list: Vec<Positive>, unit_cd: &Tensor, k: usize) -> Positives {
        let mut order: Vec<(usize, Positive)> = list.into_iter().enumerate().collect();
        order.sort_unstable_by_key(|(_, positive)| (positive.slot, positive.sample));
        let candidate = |(i, positive): &(usize, Positive)| (i * k + positive.slot % k) as i64;
        let candidates: Vec<i64> = order.iter().map(candidate).collect();
        let unit_centres_od = unit_cd.index_select(0, &Tensor::from_slice(&candidates));
        Positives {
            list: order.into_iter().map(|(_, positive)| positive).collect(),
            unit_centres_od,
        }
    }

    /// Positions in the list of those with a slot in `slots`.
    pub fn within(&self, slots: &Range<usize>) -> Range<usize> {
        let at = |slot| self.list.partition_point(|positive| positive.slot < slot);
        at(slots.start)..at(slots.end)
    }
}

impl Positive {
    /// What the loss makes of it; the slope is 0 where the clamp to `[-1, 1]` cut something off.
    pub fn target(&self, loss: &dyn Loss) -> Target {
        let target = loss.target(self.sample, self.cosine.clamp(-1.0, 1.0));
        if self.cosine.abs() > 1.0 { Target { slope: 0.0, ..target } } else { target }
    }
}

/// The `k` unit centres of each place one after the other, `[O k, D]` f32.
fn unit_centres(
    places: &[(usize, usize)],
    (classes, k): (&[u32], usize),
    batch: &GlobalBatch,
    centres: &mut Centres<'_>,
) -> Result<Tensor, HeadError> {
    let mut distinct: Vec<u32> = Vec::new();
    let mut index = Vec::with_capacity(places.len() * k);
    for &(slot, _) in places {
        if distinct.last() != Some(&classes[slot]) {
            distinct.push(classes[slot]);
        }
        let first = (distinct.len() - 1) * k;
        index.extend((first..first + k).map(|row| row as i64));
    }
    let rows = centres_of(&distinct, k);
    let dim = batch.unit_gd.size()[1];
    let device = centres.store.device();
    let mut unit_pd = Tensor::zeros([rows.len() as i64, dim], (Kind::Float, device));
    for mut tile in centres.store.tiles(&rows, rows.len().max(1)) {
        tile.unit_rows(centres.rule, &mut unit_pd)?;
    }
    let unit_pd = traffic::to_host(&unit_pd).map_err(HeadError::torch("copy centres"))?;
    Ok(unit_pd.index_select(0, &Tensor::from_slice(&index)))
}
