//! One step of the head, from a batch of embeddings to a loss, its gradient and moved centres.

// G = global batch, D = embedding, O = positives of this rank.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::{
    BegunStep, Head, HeadError, HeadFigures, HeadOutput, Parts,
    batch::{BatchThere, GlobalBatch, Positive, Positives, classes_of, place_of, slot_of},
    centres::{Centres, DeviceStep, Drawn, Figures, HandedOver, Reading},
    comm::Communicator,
    config::HeadConfig,
    loss::{AngularMargin, Loss, ParameterStep, SampleLoss},
    sampling::{Draw, SampleError, SampledRows, Sampler, centres_of},
    softmax::{Derivatives, PartialSums, TiledSoftmax},
    timings::{Timings, timed},
    traffic,
};

/// A step whose loss has not been asked for.
pub(super) enum Begun {
    /// The device has yet to do it; nothing is noted of it.
    OnDevice(DeviceBegun),
    /// It is done, or has failed.
    Done(Result<HeadFigures, HeadError>),
}

/// What is to be noted of a step when its figures let the centres move.
pub(super) struct DeviceBegun {
    figures: Box<dyn Reading>,
    /// Images of each rank.
    rows_of_rank: Vec<usize>,
    step: u64,
    lr: f64,
}

impl Head {
    /// Loss and gradient of one batch, and one step of the centres.
    ///
    /// It is [`Head::begin_step`] and [`Head::finish_step`] one after the other.
    ///
    /// # Errors
    ///
    /// As those.
    pub fn step(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let BegunStep { grad_embeddings_bd, rows_sampled, timings } =
            self.begin_step(embeddings_bd, labels, step, lr)?;
        let HeadFigures { loss, mean_positive_cosine, positive_cosines_g } = self.finish_step()?;
        Ok(HeadOutput {
            loss,
            grad_embeddings_bd,
            mean_positive_cosine,
            positive_cosines_g,
            rows_sampled,
            timings,
        })
    }

    /// Loss and gradient of one batch, and one step of the centres, whose figures
    /// [`Head::finish_step`] gives.
    ///
    /// With centres on a device, a loss that is a margin alone, and ranks that exchange there, all of it is
    /// handed over to the device and nobody waits, but for the labels of other ranks: whoever goes on with the
    /// gradient there finishes the step later, at the latest when the next one begins. Elsewhere the step is
    /// done when this returns.
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
    /// Any [`HeadError`] about the batch, the sampler, the ranks, the loss or a row that is drawn; no
    /// centre was moved then. [`HeadError::Torch`] if memory runs out, and, in one step of 65,536, that of a
    /// row which is not drawn but brought up to date with all others, perhaps halfway: go back to a
    /// checkpoint. What the step before failed with, if it was not finished.
    pub fn begin_step(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<BegunStep, HeadError> {
        self.settle();
        if let Some(Begun::Done(former)) = self.begun.take() {
            former?;
        }
        let embeddings_bd = embeddings_bd.detach();
        if let Some(margin) = self.margin_on_device() {
            return self.begin_on_device(&embeddings_bd, labels, (step, lr), &margin);
        }
        let output = if self.parts.store.device() == Device::Cpu {
            let (workers, head) = (Arc::clone(&self.workers), &mut *self);
            workers.install(move || head.step_here(&embeddings_bd, labels, step, lr))?
        } else {
            // Each thread that uses a card gets a cuBLAS workspace on it, and one thread is enough to
            // launch what the card does.
            self.step_here(&embeddings_bd, labels, step, lr)?
        };
        let HeadOutput {
            loss,
            grad_embeddings_bd,
            mean_positive_cosine,
            positive_cosines_g,
            rows_sampled,
            timings,
        } = output;
        let figures = HeadFigures { loss, mean_positive_cosine, positive_cosines_g };
        self.begun = Some(Begun::Done(Ok(figures)));
        Ok(BegunStep { grad_embeddings_bd, rows_sampled, timings })
    }

    /// The figures of the step that has begun. If a device has it, this waits until the device knows them,
    /// which is before it has moved the centres.
    ///
    /// # Errors
    ///
    /// [`HeadError::EmbeddingNotFinite`] and [`HeadError::LossNotFinite`] where a device found it out: no
    /// centre was moved then, and the step counts for nothing. [`HeadError::Torch`] if the device fails.
    ///
    /// # Panics
    ///
    /// If no step has begun since the last one was finished.
    pub fn finish_step(&mut self) -> Result<HeadFigures, HeadError> {
        self.settle();
        match self.begun.take() {
            Some(Begun::Done(figures)) => figures,
            _ => panic!("no step has begun"),
        }
    }

    /// Notes what became of a step that a device has, if one has begun: before that, rows have moved of
    /// which nobody knows it.
    pub(super) fn settle(&mut self) {
        self.begun = match self.begun.take() {
            Some(Begun::OnDevice(begun)) => Some(Begun::Done(self.note(begun))),
            other => other,
        };
    }

    fn note(&mut self, begun: DeviceBegun) -> Result<HeadFigures, HeadError> {
        let DeviceBegun { figures, rows_of_rank, step, lr } = begun;
        traffic::wait();
        let figures = figures.wait().map_err(HeadError::torch("read the loss"))?;
        let Figures { loss, mean_cosine, not_finite, may_move } = figures;
        if let Some(sample) = not_finite {
            let (rank, row) = place_of(sample, &rows_of_rank);
            return Err(HeadError::EmbeddingNotFinite { step, rank, row });
        }
        if !may_move {
            return Err(HeadError::LossNotFinite { step, loss });
        }
        self.parts.rule.finish_step(lr);
        if self.parts.rule.must_catch_up() {
            self.catch_up()?;
        }
        Ok(HeadFigures { loss, mean_positive_cosine: mean_cosine, positive_cosines_g: Vec::new() })
    }

    /// The margin, if a device can do whole steps: ranks that exchange there, a loss that is no more than its
    /// margin, and exponentials that can be summed as they are.
    fn margin_on_device(&mut self) -> Option<AngularMargin> {
        let Parts { loss, store, comm, .. } = &mut self.parts;
        let is_there = store.on_device().is_some() && comm.exchanges_on(store.device());
        let margin = loss.angular_margin().filter(|_| is_there)?;
        (!TiledSoftmax::needs_offsets(&self.config, loss.as_ref())).then_some(*margin)
    }

    fn begin_on_device(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        (step, lr): (u64, f64),
        margin: &AngularMargin,
    ) -> Result<BegunStep, HeadError> {
        let (config, range) = (&self.config, self.range);
        let Parts { sampler, rule, store, comm, .. } = &mut self.parts;
        let mut timings = Timings::default();
        let there = (config, store.device());
        let BatchThere { embeddings_gd, labels_g, rows_of_rank } =
            timed(&mut timings.communication_ms, || {
                BatchThere::collect(embeddings_bd, labels, step, there, comm.as_mut())
            })?;
        let positives = classes_of(&labels_g);
        let draw = Draw { step, positives: &positives, range };
        let plan = sampler.plan(&draw);
        let rows = match &plan {
            Some(_) => Vec::new(),
            None => timed(&mut timings.sample_ms, || checked_rows(sampler.as_mut(), &draw))?,
        };
        let drawn = plan.as_ref().map_or(Drawn::Rows(&rows), Drawn::Plan);
        if let Some(saving) = &mut self.saving {
            // What a save has yet to copy before it moves, the host has to know.
            let of_plan = plan.as_ref().map(|plan| plan.rows(&positives));
            if saving.before_step(of_plan.as_ref().unwrap_or(&rows), store.as_ref())? {
                self.saving = None;
            }
        }
        let n_drawn = plan.as_ref().map_or(rows.len(), |plan| plan.n_rows);
        let mut n_of_all = [n_drawn as f64];
        if config.log_q && comm.world() > 1 {
            comm.all_reduce_sum(&mut n_of_all).map_err(HeadError::comm(step, "rows"))?;
        }
        let weight = if config.log_q { weight(config.classes, n_of_all[0]) } else { 1.0 };
        let rows_g: Vec<Option<u32>> = labels_g.iter().map(|&class| range.row_of(class)).collect();
        let asked = DeviceStep {
            config,
            margin,
            rule: rule.as_ref(),
            step,
            lr,
            rows_g: &rows_g,
            rows_of_rank: &rows_of_rank,
            positives: &positives,
            drawn,
            weight,
        };
        let store = store.on_device().expect("it was asked for before");
        let HandedOver { gradient_bd, figures } =
            store.hand_over(&embeddings_gd, &asked, comm.as_mut())?;
        self.begun = Some(Begun::OnDevice(DeviceBegun { figures, rows_of_rank, step, lr }));
        // Embeddings that are elsewhere are waited for.
        let grad_embeddings_bd = match embeddings_bd.device() {
            device if device == gradient_bd.device() => gradient_bd,
            _ => traffic::to_host(&gradient_bd)
                .and_then(|gradient_bd| gradient_bd.f_to_device(embeddings_bd.device()))
                .map_err(HeadError::torch("copy the gradient"))?,
        };
        Ok(BegunStep { grad_embeddings_bd, rows_sampled: n_drawn, timings })
    }

    fn step_here(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let (config, range, k) = (&self.config, self.range, self.config.margin.sub_centres());
        let Parts { sampler, loss, rule, store, comm } = &mut self.parts;
        let centres_device = store.device();
        let mut timings = Timings::default();
        let batch = timed(&mut timings.communication_ms, || {
            GlobalBatch::collect(embeddings_bd, labels, step, config, comm.as_mut())
        })?;
        let lengths_g = batch.lengths();
        loss.see_lengths(&lengths_g);
        let classes = timed(&mut timings.sample_ms, || {
            sampler.draw(&Draw { step, positives: &batch.classes(), range })
        });
        let classes = SampledRows::check(classes, range.len(), step)?;
        let rows = classes.centres(k);
        if let Some(saving) = &mut self.saving
            && saving.before_step(&rows, store.as_ref())?
        {
            self.saving = None;
        }
        store.prepare(&rows)?;
        let mut centres = Centres { store: store.as_mut(), rule: rule.as_ref() };
        let positives = timed(&mut timings.gather_ms, || {
            Positives::find(&batch, &range, (&classes, k), step, &mut centres)
        })?;
        if loss.wants_cosines() {
            let cosines_g = timed(&mut timings.communication_ms, || {
                cosines_of_all(&positives, lengths_g.len(), step, comm.as_mut())
            })?;
            loss.see_cosines(&cosines_g);
        }
        let of_loss = (config, loss.as_ref());
        let mut tiles = TiledSoftmax::new(of_loss, centres, &rows, &positives, &batch.unit_gd)?;
        let offsets_g = if TiledSoftmax::needs_offsets(config, loss.as_ref()) {
            let mut largest_g = tiles.largest_logits()?;
            comm.all_reduce_max(&mut largest_g).map_err(HeadError::comm(step, "logits"))?;
            Some(largest_g)
        } else {
            None
        };
        let negatives = tiles.forward(offsets_g.as_deref())?;

        let of_rank = OfRank {
            negatives: &negatives,
            positives: &positives,
            offsets_g: offsets_g.as_deref(),
            lengths_g: &lengths_g,
            n_classes: classes.as_slice().len(),
        };
        let forward = timed(&mut timings.communication_ms, || {
            Forward::collect(&of_rank, (config, loss.as_ref()), step, comm.as_mut())
        })?;
        let derivatives = forward.derivatives(&positives, loss.as_ref(), config.scale);
        let parts_gd = derivatives.by_unit_embeddings(&negatives.weighted_rows_gd, &positives);
        let grad_unit_bd = timed(&mut timings.communication_ms, || {
            comm.reduce_scatter_rows(&parts_gd, &batch.rows_of_rank)
                .map_err(HeadError::comm(step, "gradients"))
        })?;
        let mut grad_bd = batch.before_normalisation(&grad_unit_bd);
        if loss.moves_lengths() {
            let own = batch.own.clone().map(|sample| (sample, lengths_g[sample]));
            let by_length_b = forward.by_lengths(own, loss.as_ref(), config.scale);
            grad_bd = batch.add_by_length(&grad_bd, &by_length_b);
        }

        let mut tile_timings = tiles.backward(&derivatives, lr)?;
        if centres_device == Device::Cpu {
            tile_timings /= rayon::current_num_threads() as f64;
        }
        timings += tile_timings;
        if loss.has_parameter() {
            loss.move_parameter(&forward.parameter_step(config, lr));
        }
        rule.finish_step(lr);
        if store.wants_prefetch() {
            store.prefetch(&centres_of(&sampler.likely(step + 1, range), k));
        }
        let rows_sampled = rows.len();
        if rule.must_catch_up() {
            self.catch_up()?;
        }
        Ok(HeadOutput {
            loss: forward.loss,
            grad_embeddings_bd: grad_bd.to_device(embeddings_bd.device()),
            mean_positive_cosine: forward.mean_positive_cosine,
            positive_cosines_g: forward.cosines_g,
            rows_sampled,
            timings,
        })
    }
}

/// The rows of a sampler without a plan.
fn checked_rows(sampler: &mut dyn Sampler, draw: &Draw<'_>) -> Result<Vec<u32>, SampleError> {
    let rows = SampledRows::check(sampler.draw(draw), draw.range.len(), draw.step)?;
    for &class in draw.positives {
        if let Some(row) = draw.range.row_of(class) {
            slot_of(&rows, (class, row), draw.step)?;
        }
    }
    Ok(rows.into_rows())
}

/// The cosine of every sample with its own centre, `[G]`, in `[-1, 1]`.
fn cosines_of_all(
    positives: &Positives,
    n_samples: usize,
    step: u64,
    comm: &mut dyn Communicator,
) -> Result<Vec<f64>, HeadError> {
    // Each positive is on one rank; the others add 0.
    let mut cosines_g = vec![0.0; n_samples];
    for positive in &positives.list {
        cosines_g[positive.sample] = positive.cosine.clamp(-1.0, 1.0);
    }
    comm.all_reduce_sum(&mut cosines_g).map_err(HeadError::comm(step, "cosines"))?;
    Ok(cosines_g)
}

/// What one rank knows of every sample.
struct OfRank<'a> {
    negatives: &'a PartialSums,
    positives: &'a Positives,
    /// `[G]`; `None` for 0.
    offsets_g: Option<&'a [f64]>,
    /// `[G]`, lengths of the embeddings.
    lengths_g: &'a [f64],
    /// Classes drawn on this rank.
    n_classes: usize,
}

/// What every rank knows of every sample after they were joined.
struct Forward {
    samples_g: Vec<SampleLoss>,
    /// `[G]`, cosines of the samples with their own centres, in `[-1, 1]`.
    cosines_g: Vec<f64>,
    /// Sum of the negatives' slopes over all samples, for a parameter of the loss.
    parameter_sum: f64,
    /// What each negative counts for.
    weight: f64,
    /// Mean over the global batch.
    loss: f64,
    /// The same of the positives' cosines.
    mean_positive_cosine: f64,
}

impl Forward {
    /// Joins the ranks' parts in one collective.
    ///
    /// # Errors
    ///
    /// [`HeadError::Comm`] if that fails, [`HeadError::LossNotFinite`] on every rank.
    fn collect(
        rank: &OfRank<'_>,
        (config, loss): (&HeadConfig, &dyn Loss),
        step: u64,
        comm: &mut dyn Communicator,
    ) -> Result<Forward, HeadError> {
        // Each positive is on one rank; the others add 0.
        let n_samples = rank.lengths_g.len();
        let parameter_sum = rank.negatives.parameter_sums_g.iter().sum::<f64>();
        let numbers = [rank.n_classes as f64, parameter_sum];
        let mut joined = [&rank.negatives.sums_g[..], &vec![0.0; 2 * n_samples], &numbers].concat();
        for positive in &rank.positives.list {
            let offset = rank.offsets_g.map_or(0.0, |offsets_g| offsets_g[positive.sample]);
            let logit = config.scale * positive.target(loss).value;
            joined[n_samples + positive.sample] = logit - offset;
            joined[2 * n_samples + positive.sample] = positive.cosine;
        }
        comm.all_reduce_sum(&mut joined).map_err(HeadError::comm(step, "softmax sums"))?;
        let (sums_g, rest) = joined.split_at(n_samples);
        let (logits_g, rest) = rest.split_at(n_samples);
        let (cosines_g, numbers) = rest.split_at(n_samples);
        let weight = if config.log_q { weight(config.classes, numbers[0]) } else { 1.0 };
        let samples_g: Vec<SampleLoss> = sums_g
            .iter()
            .zip(logits_g)
            .map(|(&sum, &logit)| loss.combine(sum * weight, logit))
            .collect();
        let mut total = samples_g.iter().map(|sample| sample.loss).sum::<f64>();
        if loss.moves_lengths() {
            total +=
                rank.lengths_g.iter().map(|&length| loss.length_penalty(length).0).sum::<f64>();
        }
        let loss = total / n_samples as f64;
        if !loss.is_finite() {
            return Err(HeadError::LossNotFinite { step, loss });
        }
        let mean_positive_cosine = cosines_g.iter().sum::<f64>() / n_samples as f64;
        let cosines_g = cosines_g.iter().map(|cosine| cosine.clamp(-1.0, 1.0)).collect();
        let parameter_sum = numbers[1];
        Ok(Forward { samples_g, cosines_g, parameter_sum, weight, loss, mean_positive_cosine })
    }

    /// Derivatives by the cosines of this rank, with a softmax `s / N * p` by a negative's and
    /// `s / N * (p - 1)` by a positive's margined one.
    fn derivatives(&self, positives: &Positives, loss: &dyn Loss, scale: f64) -> Derivatives {
        let per_cosine = scale / self.samples_g.len() as f64;
        let factor = |sample: &SampleLoss| per_cosine * self.weight * sample.by_negatives;
        let factors_g: Vec<f64> = self.samples_g.iter().map(factor).collect();
        let slope = |positive: &Positive| {
            let by_positive = self.samples_g[positive.sample].by_positive;
            per_cosine * by_positive * positive.target(loss).slope
        };
        Derivatives {
            factors_g1: Tensor::from_slice(&factors_g).to_kind(Kind::Float).unsqueeze(1),
            slopes: positives.list.iter().map(slope).collect(),
        }
    }

    /// Derivatives by the lengths of some embeddings.
    fn by_lengths(
        &self,
        samples: impl Iterator<Item = (usize, f64)>,
        loss: &dyn Loss,
        scale: f64,
    ) -> Vec<f64> {
        let per_sample = 1.0 / self.samples_g.len() as f64;
        let by_length = |(sample, length): (usize, f64)| {
            let target = loss.target(sample, self.cosines_g[sample]);
            let by_logit = self.samples_g[sample].by_positive;
            let (_, by_penalty) = loss.length_penalty(length);
            per_sample * (scale * by_logit * target.by_length + by_penalty)
        };
        samples.map(by_length).collect()
    }

    fn parameter_step(&self, config: &HeadConfig, lr: f64) -> ParameterStep {
        let n_samples = self.samples_g.len() as f64;
        let by_positives = self.samples_g.iter().map(|sample| sample.by_positive).sum::<f64>();
        ParameterStep {
            by_positives: by_positives / n_samples,
            by_negatives: self.weight * self.parameter_sum / n_samples,
            lr,
            momentum: config.momentum,
            weight_decay: config.weight_decay,
        }
    }
}

/// How many classes a drawn negative stands for: each sample has `n_drawn - 1` negatives of
/// `classes - 1`, its own class being among the drawn ones.
fn weight(classes: u64, n_drawn: f64) -> f64 {
    if n_drawn > 1.0 { (classes as f64 - 1.0) / (n_drawn - 1.0) } else { 1.0 }
}
