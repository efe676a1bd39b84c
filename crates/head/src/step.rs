//! One step of the head, from a batch of embeddings to a loss, its gradient and moved centres.

// G = global batch, D = embedding, O = positives of this rank.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Kind, Tensor};

use super::{
    Head, HeadError, HeadOutput, Parts,
    batch::{GlobalBatch, Positive, Positives},
    centres::Centres,
    comm::Communicator,
    sampling::{Draw, SampledRows},
    softmax::{Derivatives, TiledSoftmax},
    timings::{Timings, timed},
};

impl Head {
    /// Loss and gradient of one batch, and one step of the centres.
    ///
    /// Every rank calls it with its part of the batch, which may be empty on some of them.
    ///
    /// * `embeddings_bd`: `[B, D]`, not normalised, any device; no gradient is recorded
    /// * `labels`: `[B]` global class ids
    /// * `step`: number of the step, which decides the rows drawn
    /// * `lr`: learning rate of the centres in this step
    ///
    /// # Errors
    ///
    /// Any [`HeadError`] about the batch, the sampler, the ranks or the loss; no centre was moved
    /// then. [`HeadError::Torch`] if memory runs out, perhaps halfway: go back to a checkpoint.
    pub fn step(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let embeddings_bd = embeddings_bd.detach();
        let workers = Arc::clone(&self.workers);
        workers.install(move || self.step_on_worker(&embeddings_bd, labels, step, lr))
    }

    fn step_on_worker(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let (config, range) = (&self.config, self.range);
        let Parts { sampler, loss, rule, store, comm } = &mut self.parts;
        let mut timings = Timings::default();
        let batch = timed(&mut timings.communication_ms, || {
            GlobalBatch::collect(embeddings_bd, labels, step, config, comm.as_mut())
        })?;
        loss.prepare(&batch.lengths());
        let rows = timed(&mut timings.sample_ms, || {
            sampler.draw(&Draw { step, positives: &batch.classes(), range })
        });
        let sampled = SampledRows::check(rows, range.len(), step)?;
        let rows = sampled.as_slice();
        if let Some(saving) = &mut self.saving
            && saving.before_step(rows, store.as_ref())?
        {
            self.saving = None;
        }
        store.prepare(rows)?;
        let mut centres = Centres { store: store.as_mut(), rule: rule.as_ref() };
        let positives = timed(&mut timings.gather_ms, || {
            Positives::find(&batch, &range, &sampled, step, loss.as_ref(), &mut centres)
        })?;
        let mut tiles = TiledSoftmax::new(config, centres, rows, &positives, &batch.unit_gd);
        let offsets_g = if TiledSoftmax::needs_offsets(config) {
            let mut largest_g = tiles.largest_logits()?;
            comm.all_reduce_max(&mut largest_g).map_err(HeadError::comm(step, "logits"))?;
            Some(largest_g)
        } else {
            None
        };
        let negatives = tiles.forward(offsets_g.as_deref())?;

        let of_rank = OfRank {
            sums_g: &negatives.sums_g,
            positives: &positives,
            offsets_g: offsets_g.as_deref(),
            scale: config.scale,
            n_rows: rows.len(),
            classes: config.log_q.then_some(config.classes),
        };
        let forward = timed(&mut timings.communication_ms, || {
            Forward::collect(&of_rank, step, comm.as_mut())
        })?;
        let derivatives = forward.derivatives(&positives, config.scale);
        let parts_gd = derivatives.by_unit_embeddings(&negatives.weighted_rows_gd, &positives);
        let grad_unit_bd = timed(&mut timings.communication_ms, || {
            comm.reduce_scatter_rows(&parts_gd, &batch.rows_of_rank)
                .map_err(HeadError::comm(step, "gradients"))
        })?;

        let mut tile_timings = tiles.backward(&derivatives, lr)?;
        tile_timings /= rayon::current_num_threads() as f64;
        timings += tile_timings;
        rule.finish_step(lr);
        if store.wants_prefetch() {
            store.prefetch(&sampler.likely(step + 1, range));
        }
        if rule.must_catch_up() {
            self.catch_up()?;
        }
        Ok(HeadOutput {
            loss: forward.loss,
            grad_embeddings_bd: batch
                .before_normalisation(&grad_unit_bd)
                .to_device(embeddings_bd.device()),
            mean_positive_cosine: forward.mean_positive_cosine,
            rows_sampled: rows.len(),
            timings,
        })
    }
}

/// What one rank knows of the softmax of every sample.
struct OfRank<'a> {
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
struct Forward {
    softmax_g: Vec<SampleSoftmax>,
    /// What each negative counts for.
    weight: f64,
    /// Mean over the global batch.
    pub loss: f64,
    /// The same of the positives' cosines.
    pub mean_positive_cosine: f64,
}

impl Forward {
    /// Joins the ranks' parts in one exchange.
    ///
    /// # Errors
    ///
    /// [`HeadError::Comm`] if that fails, [`HeadError::LossNotFinite`] on every rank.
    fn collect(
        parts: &OfRank<'_>,
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
    fn derivatives(&self, positives: &Positives, scale: f64) -> Derivatives {
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

/// The least probability whose logarithm is taken, as in `arcface_torch`: no sample loses more than
/// 69.08.
const PROBABILITY_LEAST: f64 = 1e-30;

/// One sample's softmax: the negatives' sum is taken over all ranks, the positive's logit is known
/// exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SampleSoftmax {
    /// `ln sum exp(logit - offset)` over all classes of the step, the positive's included.
    log_sum: f64,
    /// Probability of all negatives together: `1 - p_y`, without cancellation where `p_y` nears 1.
    pub p_negatives: f64,
    /// `-ln max(p_y, 1e-30)`.
    pub loss: f64,
}

impl SampleSoftmax {
    /// * `negatives`: `sum exp(logit - offset)` over the negatives, 0 or more
    /// * `logit`: the positive's, less the same offset
    fn new(negatives: f64, logit: f64) -> SampleSoftmax {
        let log_negatives = negatives.ln();
        // ln((e^n + e^l) / e^l) = ln(1 + e^(n - l)), which keeps its digits where it is near 0.
        let lead = log_negatives - logit;
        let loss = lead.max(0.0) + (-lead.abs()).exp().ln_1p();
        let loss_max = -PROBABILITY_LEAST.ln();
        let log_sum = logit + loss;
        SampleSoftmax {
            log_sum,
            p_negatives: (log_negatives - log_sum).exp(),
            // Not `min`, which would hide a NaN.
            loss: if loss > loss_max { loss_max } else { loss },
        }
    }

    /// `1 / sum exp(logit - offset)`: what turns a negative's exponential into its probability.
    fn inverse_sum(&self) -> f64 {
        (-self.log_sum).exp()
    }
}

/// As many threads as libtorch would use for one operation, each of which runs libtorch's operations
/// alone.
///
/// A tile's reads, products and update then follow each other on one thread, without a barrier in
/// between. Sharing every operation among libtorch's OpenMP threads is slower by a half here: these
/// spin for milliseconds after each operation and take the cores from the threads that read rows.
pub(super) fn workers() -> Result<ThreadPool, HeadError> {
    let n_threads = tch::get_num_threads().max(1);
    let pool = ThreadPoolBuilder::new()
        .num_threads(n_threads as usize)
        .thread_name(|i| format!("head-{i}"))
        .build()
        .map_err(|source| HeadError::Threads { n_threads, source })?;
    pool.broadcast(|_| {
        // A thread takes over the common number when it first asks for it; only what is set after
        // that stays.
        let _ = tch::get_num_threads();
        tch::set_num_threads(1);
    });
    // The call above also changed the number that threads started later take over.
    tch::set_num_threads(n_threads);
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(softmax: SampleSoftmax, loss: f64, p_negatives: f64) {
        assert!((softmax.loss - loss).abs() <= 1e-12 * loss.max(1e-300), "{softmax:?}");
        let bound = 1e-12 * p_negatives;
        assert!((softmax.p_negatives - p_negatives).abs() <= bound, "{softmax:?}");
    }

    #[test]
    fn equal_parts_share_the_probability() {
        let softmax = SampleSoftmax::new(3.0, 0.0);
        check(softmax, 4f64.ln(), 0.75);
        assert!((softmax.inverse_sum() - 0.25).abs() < 1e-15);
    }

    #[test]
    fn a_sure_sample_keeps_its_last_digits() {
        // 1 - p = 1e-20 is far below what 1 - p can express in f64, let alone f32.
        check(SampleSoftmax::new(1.0, 20.0 * 10f64.ln()), 1e-20, 1e-20);
    }

    #[test]
    fn a_hopeless_sample_loses_what_the_least_probability_allows() {
        check(SampleSoftmax::new(1.0, -100.0), 30.0 * 10f64.ln(), 1.0);
    }

    #[test]
    fn a_sample_without_negatives_loses_nothing() {
        check(SampleSoftmax::new(0.0, 5.0), 0.0, 0.0);
    }

    #[test]
    fn a_sum_that_is_not_a_number_shows_in_the_loss() {
        assert!(!SampleSoftmax::new(f64::NAN, 0.0).loss.is_finite());
    }
}
