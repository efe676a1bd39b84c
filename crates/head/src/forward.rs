//! Loss and derivatives by the cosines, joined over ranks.

// G = global batch, D = embedding, O = positives of this rank.

use tch::{Kind, Tensor};

use super::{
    HeadError,
    comm::Communicator,
    loss::SampleSoftmax,
    positives::{Positive, Positives},
};

/// What one rank knows of the softmax of every sample.
pub(super) struct Parts<'a> {
    /// `[G]`, sum of `exp(logit - offset)` over this rank's negatives.
    pub sums_g: &'a [f64],
    pub positives: &'a Positives,
    /// `[G]`; `None` for 0.
    pub offsets_g: Option<&'a [f64]>,
    pub scale: f64,
    /// Rows drawn on this rank.
    pub n_rows: usize,
    /// Number of classes, if the negatives' sum is to stand for all of them.
    pub classes: Option<u64>,
}

/// What every rank knows of every sample after they were joined.
pub(super) struct Forward {
    softmax_g: Vec<SampleSoftmax>,
    /// What each negative counts for.
    weight: f64,
    /// Mean over the global batch.
    pub loss: f64,
    /// The same of the positives' cosines.
    pub mean_positive_cosine: f64,
}

/// Derivatives of the loss by the cosines.
pub(super) struct Derivatives {
    /// `[G, 1]` f32, what turns a negative's exponential into its derivative.
    pub factors_g1: Tensor,
    /// `[O]`, that of each positive of this rank.
    pub slopes: Vec<f64>,
}

impl Forward {
    /// Joins the ranks' parts in one exchange.
    ///
    /// # Errors
    ///
    /// [`HeadError::Comm`] if that fails, [`HeadError::LossNotFinite`] on every rank.
    pub fn collect(
        parts: &Parts<'_>,
        step: u64,
        comm: &mut dyn Communicator,
    ) -> Result<Forward, HeadError> {
        // Each positive is on one rank; the others add 0.
        let n_samples = parts.sums_g.len();
        let mut joined = [parts.sums_g, &vec![0.0; 2 * n_samples], &[parts.n_rows as f64]].concat();
        for positive in &parts.positives.list {
            let offset = parts.offsets_g.map_or(0.0, |offsets_g| offsets_g[positive.sample]);
            joined[n_samples + positive.sample] = parts.scale * positive.target.value - offset;
            joined[2 * n_samples + positive.sample] = positive.cosine;
        }
        comm.all_reduce_sum(&mut joined).map_err(HeadError::comm(step, "softmax sums"))?;
        let (sums_g, rest) = joined.split_at(n_samples);
        let (logits_g, rest) = rest.split_at(n_samples);
        let (cosines_g, n_drawn) = rest.split_at(n_samples);
        let weight = parts.classes.map_or(1.0, |classes| weight(classes, n_drawn[0]));
        let softmax_g: Vec<SampleSoftmax> = sums_g
            .iter()
            .zip(logits_g)
            .map(|(&sum, &logit)| SampleSoftmax::new(sum * weight, logit))
            .collect();
        let loss = softmax_g.iter().map(|sample| sample.loss).sum::<f64>() / n_samples as f64;
        if !loss.is_finite() {
            return Err(HeadError::LossNotFinite { step, loss });
        }
        let mean_positive_cosine = cosines_g.iter().sum::<f64>() / n_samples as f64;
        Ok(Forward { softmax_g, weight, loss, mean_positive_cosine })
    }

    /// Derivatives by the cosines of this rank: `s / N * p` by a negative's, `s / N * (p - 1)` by a
    /// positive's margined one.
    pub fn derivatives(&self, positives: &Positives, scale: f64) -> Derivatives {
        let per_cosine = scale / self.softmax_g.len() as f64;
        let factors_g: Vec<f64> = self
            .softmax_g
            .iter()
            .map(|sample| per_cosine * self.weight * sample.inverse_sum())
            .collect();
        let slope =
            |p: &Positive| -per_cosine * self.softmax_g[p.sample].p_negatives * p.target.slope;
        Derivatives {
            factors_g1: Tensor::from_slice(&factors_g).to_kind(Kind::Float).unsqueeze(1),
            slopes: positives.list.iter().map(slope).collect(),
        }
    }
}

/// How many classes a drawn negative stands for: each sample has `n_drawn - 1` negatives of
/// `classes - 1`, its own class being among the drawn ones.
fn weight(classes: u64, n_drawn: f64) -> f64 {
    if n_drawn > 1.0 { (classes as f64 - 1.0) / (n_drawn - 1.0) } else { 1.0 }
}

impl Derivatives {
    /// This rank's part of the gradient by the unit embeddings, `[G, D]` f32.
    ///
    /// * `weighted_rows_gd`: `[G, D]` f32, this rank's unit rows weighted by the exponentials
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
