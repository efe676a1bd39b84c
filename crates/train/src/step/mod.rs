//! What is trained, and the arithmetic of one step.

// B = batch, D = embedding.

pub mod compiled;
pub mod gradients;

use std::time::Instant;

use pfc_autograd::lists;
use pfc_head::{Head, HeadFigures, Parts};
use pfc_model::{Backbone, ModelError};
use tch::{Device, Kind, TchError, Tensor};

use self::gradients::{BackwardInput, Gradients, RecordedForward};
use crate::{
    TrainError,
    config::Config,
    data::{
        loader::Batch,
        plan::{StepPlan, mix},
    },
    optim::{
        BackboneOptimizer, clip,
        ema::{Ema, running},
        global_norm,
        loss_scale::LossScale,
        lr::Schedule,
        overwrite,
    },
    ranks::Ranks,
};

/// Backbone, head and optimizer of a run.
pub struct Trainer {
    /// The network.
    pub backbone: Backbone,
    /// The class centres.
    pub head: Head,
    /// What moves the network.
    pub optimizer: BackboneOptimizer,
    /// The exponential moving average (EMA) of its weights, if one is kept.
    pub ema: Option<Ema>,
    /// What keeps f16 gradients in range.
    pub loss_scale: Option<LossScale>,
    gradients: Gradients,
    schedule: Schedule,
    /// Steps left out because they were not finite.
    pub left_out: LeftOut,
    clip_norm: f64,
    head_lr_factor: f64,
    /// Micro-batches that a step is computed in (gradient accumulation).
    n_micro_batches: usize,
    /// Activation checkpointing: blocks whose activations are computed again together; 0 keeps them all.
    recompute: usize,
    /// Base seed of drop-path and token masks, mixed with step, rank and micro-batch.
    noise_seed: u64,
    ranks: Ranks,
    device: Device,
    /// Whether the head has taken the step that is being taken, or a device has it.
    head_has_moved: bool,
    /// Steps finished.
    pub n_done: u64,
}

/// The figures of one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepFigures {
    /// Mean loss of the batch.
    pub loss: f64,
    /// L2 norm of the backbone's gradient before clipping; 0 if it overflowed.
    pub grad_norm: f64,
    /// What the loss was multiplied by, in f16.
    pub loss_scale: Option<f64>,
    /// Whether the gradient overflowed in f16, so that the backbone was left as it was.
    pub skipped: bool,
    /// Whether the step was left out as `optim.skip_nonfinite` has it; loss and cosine are 0 then, and
    /// count for no mean.
    pub not_finite: Option<NotFinite>,
    /// Mean cosine between an embedding and the centre of its own class.
    pub cavg: f64,
    /// How these cosines are spread over the global batch; all 0 where a device did the whole step.
    pub cosines: CosineCounts,
    /// Learning rate that the step used.
    pub lr: f64,
    /// That of the centres.
    pub head_lr: f64,
    /// Milliseconds that the head took; where centres are on a GPU, which goes on by itself, those of the
    /// host.
    pub head_ms: f64,
    /// The part of it that went into collectives.
    pub comm_ms: f64,
}

/// How many cosines lie in each of equal parts of `[-1, 1]`, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CosineCounts(pub [u32; CosineCounts::N_PARTS]);

impl CosineCounts {
    /// Parts of `[-1, 1]`, of 0.05 each.
    pub const N_PARTS: usize = 40;

    /// Counts `cosines`, those beyond the ends in the outermost parts.
    #[must_use]
    pub fn of(cosines: &[f64]) -> CosineCounts {
        let mut counts = CosineCounts::default();
        for cosine in cosines {
            let part = ((cosine + 1.0) / 2.0 * CosineCounts::N_PARTS as f64) as usize;
            counts.0[part.min(CosineCounts::N_PARTS - 1)] += 1;
        }
        counts
    }
}

impl Default for CosineCounts {
    fn default() -> CosineCounts {
        CosineCounts([0; CosineCounts::N_PARTS])
    }
}

/// A step that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite {
    /// What was not finite: `the loss`, `an embedding` or `the gradient`.
    pub what: &'static str,
    /// Steps left out one after the other, with this one.
    pub in_a_row: u64,
}

/// What the head took of one step.
struct HeadTimes {
    head_ms: f64,
    comm_ms: f64,
}

impl Trainer {
    /// The network that is measured and exported: the EMA where one is kept.
    pub fn measured(&self) -> &Backbone {
        self.ema.as_ref().map_or(&self.backbone, Ema::backbone)
    }

    /// A trainer before its first step: drawn weights, an optimizer at rest, centres that no step has
    /// moved.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`], [`TrainError::Head`], [`TrainError::Value`] and
    /// [`TrainError::Ranks`].
    pub fn new(
        config: &Config,
        plan: &StepPlan,
        n_identities: u32,
        ranks: &Ranks,
    ) -> Result<Trainer, TrainError> {
        let device = config.train.device(ranks.local_rank())?;
        let seed = config.train.seed;
        let mut backbone = Backbone::new(&config.model.spec(), device, seed)?;
        backbone.set_precision(config.model.precision.or_default());
        let place = [ranks.rank(), ranks.world()];
        if let Some(packages) = compiled::packages(config, plan, place, device)? {
            backbone.set_compiled(packages)?;
        }
        let optimizer = BackboneOptimizer::new(backbone.named_parameters(), &config.optim);
        let ema = Ema::new(&backbone, config)?;
        let bucket_bytes = config.train.bucket_mib << 20;
        let gradients = Gradients::new(ranks, &optimizer.named_parameters(), bucket_bytes)?;
        let head_config = config.head_config(n_identities);
        let parts = Parts::on_device(&head_config, ranks.communicator(), device)?;
        let head = Head::with_parts(&head_config, parts)?;
        let schedule = Schedule::of_run(config, plan);
        let clip_norm = config.optim.clip_norm;
        Ok(Trainer {
            backbone,
            head,
            optimizer,
            ema,
            loss_scale: LossScale::new(config),
            gradients,
            schedule,
            left_out: LeftOut::new(config.optim.skip_nonfinite),
            clip_norm,
            head_lr_factor: config.head.lr_factor,
            n_micro_batches: config.train.accumulate,
            recompute: config.train.recompute,
            noise_seed: seed,
            ranks: ranks.clone(),
            device,
            head_has_moved: false,
            n_done: 0,
        })
    }

    /// One step on one batch, of which every rank has its share: loss, gradients, weights.
    ///
    /// Where f16 gradients overflow, on whichever rank, the backbone's weights are left alone on all of them
    /// and the loss scale is lowered. Running statistics, what the loss remembers, and the centres, whose
    /// gradients are f32, have moved then.
    ///
    /// A loss or gradient that is not finite leaves the step out on all ranks, as often in a row as
    /// `optim.skip_nonfinite` allows: weights, running statistics and the optimizer are as before it.
    ///
    /// # Errors
    ///
    /// [`TrainError::Head`] for a loss, [`TrainError::GradientNotFinite`] for a gradient that is not
    /// finite, [`TrainError::TooManyLeftOut`] for one too many of them, all on every rank: the weights
    /// of the backbone are then as before, and the run cannot go on. [`TrainError::Ranks`] if a rank is
    /// gone.
    pub fn step(&mut self, batch: &Batch) -> Result<StepFigures, TrainError> {
        if !self.left_out.is_allowed() {
            return self.take_step(batch);
        }
        let before = Before::of(self)?;
        match self.take_step(batch) {
            Ok(figures) => {
                self.left_out.in_a_row = 0;
                Ok(figures)
            }
            Err(error) => {
                let Some(what) = error.not_finite() else { return Err(error) };
                before.restore(self)?;
                let in_a_row = self.left_out.count(error)?;
                let lr = self.schedule.at(self.n_done);
                self.n_done += 1;
                let not_finite = Some(NotFinite { what, in_a_row });
                let loss_scale = self.loss_scale.map(|scale| scale.factor());
                let zero = StepFigures { lr, loss_scale, not_finite, ..StepFigures::default() };
                Ok(zero)
            }
        }
    }

    fn take_step(&mut self, batch: &Batch) -> Result<StepFigures, TrainError> {
        let lr = self.schedule.at(self.n_done);
        let images = self.images(batch)?;
        let (head, mut gradients) = if self.n_micro_batches == 1 {
            self.pass(&images, &batch.labels, lr)?
        } else {
            self.pass_accumulated(&images, &batch.labels, lr)?
        };
        let HeadTimes { head_ms, comm_ms } = head;
        let loss_scale = self.loss_scale.map(|scale| scale.factor());
        if let Some(factor) = loss_scale {
            lists::divide(&gradients, factor).map_err(ModelError::torch("scale the gradient"))?;
        }
        let grad_norm = global_norm(&gradients)?;
        // The norm has waited for all that the device had to do until then.
        let HeadFigures { loss, mean_positive_cosine: cavg, positive_cosines_g } =
            self.head.finish_step()?;
        let figures = StepFigures {
            loss,
            grad_norm,
            loss_scale,
            skipped: false,
            not_finite: None,
            cavg,
            cosines: CosineCounts::of(&positive_cosines_g),
            lr,
            head_lr: lr * self.head_lr_factor,
            head_ms,
            comm_ms,
        };
        if !self.all_finite(grad_norm)? {
            if !self.loss_scale.as_mut().is_some_and(LossScale::record_overflow) {
                return Err(self.not_finite(&gradients, loss));
            }
            self.n_done += 1;
            return Ok(StepFigures { grad_norm: 0.0, skipped: true, ..figures });
        }
        if let Some(scale) = &mut self.loss_scale {
            scale.record_finite();
        }
        if self.clip_norm > 0.0 {
            clip(&mut gradients, grad_norm, self.clip_norm)?;
        }
        self.optimizer.step(&mut gradients, lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.backbone)?;
        }
        self.n_done += 1;
        Ok(figures)
    }

    /// Forward pass, head and backward pass of the whole batch at once.
    fn pass(
        &mut self,
        images: &Tensor,
        labels: &[i64],
        lr: f64,
    ) -> Result<(HeadTimes, Vec<Tensor>), TrainError> {
        let forward = self.forward(images, 0);
        let (times, grad_bd) = self.step_head(&forward.embeddings(), labels, lr)?;
        let input = BackwardInput { backbone: &self.backbone, forward, grad_bd: &grad_bd };
        let gradients = self.gradients.of(input, &self.optimizer.parameters())?;
        Ok((times, gradients))
    }

    /// The same by gradient accumulation, with the activations of one micro-batch at a time in memory.
    /// The head needs all embeddings at once, so every micro-batch has two forward passes: the first
    /// records nothing for a backward pass.
    fn pass_accumulated(
        &mut self,
        images: &Tensor,
        labels: &[i64],
        lr: f64,
    ) -> Result<(HeadTimes, Vec<Tensor>), TrainError> {
        let n_micro_batches = self.n_micro_batches;
        let labels_of = |micro| labels.iter().copied().skip(micro).step_by(n_micro_batches);
        let labels: Vec<i64> = (0..n_micro_batches).flat_map(labels_of).collect();
        let embeddings: Vec<Tensor> = (0..n_micro_batches)
            .map(|micro| {
                self.seed_noise(micro);
                // The second pass moves the running statistics.
                self.backbone.forward_unrecorded(&self.micro_batch(images, micro))
            })
            .collect();
        let (times, grad_bd) = self.step_head(&Tensor::cat(&embeddings, 0), &labels, lr)?;
        let (mut gradients, mut start) = (None, 0);
        for (micro, embeddings_bd) in embeddings.iter().enumerate() {
            let forward = self.forward(&self.micro_batch(images, micro), micro);
            let n_images = embeddings_bd.size()[0];
            let grad_bd = grad_bd.narrow(0, start, n_images);
            start += n_images;
            let input = BackwardInput { backbone: &self.backbone, forward, grad_bd: &grad_bd };
            let (parameters, is_last) = (self.optimizer.parameters(), micro + 1 == n_micro_batches);
            gradients = self.gradients.add(input, &parameters, is_last)?;
        }
        Ok((times, gradients.unwrap_or_default()))
    }

    /// The images of one micro-batch: every `n_micro_batches`-th. As ranks share a step in the same way,
    /// R ranks with A micro-batches normalise over the same images as any other R and A of the same
    /// product.
    fn micro_batch(&self, images: &Tensor, micro: usize) -> Tensor {
        images.slice(0, micro as i64, None, self.n_micro_batches as i64)
    }

    /// The forward pass of one micro-batch; the same whenever it is called for that one.
    fn forward(&mut self, images: &Tensor, micro: usize) -> RecordedForward {
        self.seed_noise(micro);
        match self.recompute {
            0 => RecordedForward::Whole(self.backbone.forward(images, true)),
            n_blocks => {
                RecordedForward::Checkpointed(self.backbone.forward_checkpointed(images, n_blocks))
            }
        }
    }

    fn seed_noise(&mut self, micro: usize) {
        let [rank, world] = [self.ranks.rank(), self.ranks.world()].map(|n| n as u64);
        let share = rank + world * micro as u64;
        self.backbone.seed_noise(mix(self.noise_seed ^ mix(self.n_done)) ^ share);
    }

    fn step_head(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        lr: f64,
    ) -> Result<(HeadTimes, Tensor), TrainError> {
        let started = Instant::now();
        let lr = lr * self.head_lr_factor;
        self.head_has_moved = false;
        let head = self.head.begin_step(embeddings_bd, labels, self.n_done + 1, lr)?;
        self.head_has_moved = true;
        let times = HeadTimes {
            head_ms: started.elapsed().as_secs_f64() * 1e3,
            comm_ms: head.timings.communication_ms,
        };
        let grad_bd = match self.loss_scale {
            Some(scale) => head.grad_embeddings_bd * scale.factor(),
            None => head.grad_embeddings_bd,
        };
        Ok((times, grad_bd))
    }

    /// The images as a `[B, 3, 112, 112]` tensor whose memory is channels-last. On a CPU it is the
    /// batch's own; to a GPU they are copied while this goes on, and are there before the step ends.
    fn images(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        images_on(self.device, &batch.images).map_err(ModelError::torch("copy the images"))
    }

    /// Whether the gradient is finite on every rank. Sums over ranks are the same on all; where the run
    /// may go on, and ranks must do the same whatever comes, they ask each other.
    fn all_finite(&self, grad_norm: f64) -> Result<bool, TrainError> {
        let is_finite = grad_norm.is_finite();
        if self.loss_scale.is_none() && !self.left_out.is_allowed() {
            return Ok(is_finite);
        }
        Ok(!self.ranks.any(!is_finite)?)
    }

    fn not_finite(&self, gradients: &[Tensor], loss: f64) -> TrainError {
        let is_broken = |g: &Tensor| !g.norm().double_value(&[]).is_finite();
        let first = gradients.iter().position(is_broken);
        let parameter = first.map_or("all together", |index| self.optimizer.name(index)).to_owned();
        TrainError::GradientNotFinite { step: self.n_done + 1, parameter, loss }
    }
}

/// Steps that were left out because their loss or gradient was not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// How many in a row the run bears.
    in_a_row_max: u64,
    in_a_row: u64,
}

impl LeftOut {
    fn new(in_a_row_max: u64) -> LeftOut {
        LeftOut { in_a_row_max, in_a_row: 0 }
    }

    fn is_allowed(&self) -> bool {
        self.in_a_row_max > 0
    }

    /// How many there were in a row, for a checkpoint.
    pub fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// Takes over what a checkpoint kept.
    pub fn recall(&mut self, in_a_row: u64) {
        self.in_a_row = in_a_row;
    }

    /// Counts one more; `error` ends the run if that is too many.
    fn count(&mut self, error: TrainError) -> Result<u64, TrainError> {
        if self.in_a_row >= self.in_a_row_max {
            let (n, error) = (self.in_a_row, Box::new(error));
            return Err(TrainError::TooManyLeftOut { n, error });
        }
        self.in_a_row += 1;
        Ok(self.in_a_row)
    }
}

/// A batch of images as the network takes them, `[B, 3, 112, 112]` f32 on `device`, normalised there if
/// they are still bytes: to the very bits that [`pfc_image::normalise`] gives.
///
/// * `images_nhwc`: `[B, 112, 112, 3]`, f32 and normalised, or u8
///
/// # Errors
///
/// That of libtorch if memory runs out.
pub fn images_on(device: Device, images_nhwc: &Tensor) -> Result<Tensor, TchError> {
    let options = (images_nhwc.kind(), device);
    let mut images_nhwc = images_nhwc.f_to_dtype_layout(options, true, false)?;
    if images_nhwc.kind() == Kind::Uint8 {
        // A divisor that is a number would become a factor on a GPU, whose rounding is another. Made there: a
        // copy from the host would wait for what the device has to do.
        let half_range = Tensor::f_full([1], 127.5, (Kind::Float, device))?;
        images_nhwc =
            images_nhwc.f_to_kind(Kind::Float)?.f_sub_scalar_(127.5)?.f_div_(&half_range)?;
    }
    images_nhwc.f_permute([0, 3, 1, 2])
}

/// What a step changes before its loss is known.
struct Before {
    /// Running statistics of the backbone, in the order of [`running`].
    statistics: Vec<Tensor>,
    loss_memory: Vec<f64>,
}

impl Before {
    fn of(trainer: &Trainer) -> Result<Before, ModelError> {
        let now = running(&trainer.backbone);
        let copied = tch::no_grad(|| -> Result<Vec<Tensor>, TchError> {
            let copies = now.iter().map(Tensor::f_empty_like).collect::<Result<Vec<_>, _>>()?;
            overwrite(&copies, &now)?;
            Ok(copies)
        });
        let statistics = copied.map_err(ModelError::torch("copy the running statistics"))?;
        Ok(Before { statistics, loss_memory: trainer.head.loss_memory() })
    }

    /// Puts it back. The loss's memory stays where the head has taken its step.
    fn restore(self, trainer: &mut Trainer) -> Result<(), ModelError> {
        tch::no_grad(|| overwrite(&running(&trainer.backbone), &self.statistics))
            .map_err(ModelError::torch("put the running statistics back"))?;
        if !trainer.head_has_moved {
            trainer.head.recall_loss(&self.loss_memory);
        }
        Ok(())
    }
}
