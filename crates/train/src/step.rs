//! What is trained, and the arithmetic of one step.

// B = batch, D = embedding.

use std::time::Instant;

use pfc_model::{Backbone, IMAGE_SIZE, ModelError};
use tch::{Device, Tensor};

use crate::{
    TrainError,
    average::{Average, Statistics},
    config::Config,
    gradients::{Gradients, objective},
    head::{Head, Parts},
    loader::Batch,
    optimizer::{Optimizer, clip, global_norm},
    plan::{Plan, mix},
    ranks::Ranks,
    schedule::Schedule,
};

/// Backbone, head and optimizer of a run.
pub struct Trainer {
    /// The network.
    pub backbone: Backbone,
    /// The class centres.
    pub head: Head,
    /// What moves the network.
    pub optimizer: Optimizer,
    /// The running mean of its weights, if one is kept.
    pub average: Option<Average>,
    gradients: Gradients,
    schedule: Schedule,
    clip_norm: f64,
    head_lr_factor: f64,
    /// Parts that a step is computed in.
    n_parts: usize,
    /// Of the noise that stochastic layers draw: every rank draws its own.
    noise_seed: u64,
    rank: usize,
    world: usize,
    device: Device,
    /// Steps finished.
    pub n_done: u64,
}

/// What one step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepFigures {
    /// Mean loss of the batch.
    pub loss: f64,
    /// L2 norm of the backbone's gradient before clipping.
    pub grad_norm: f64,
    /// Mean cosine between an embedding and the centre of its own class.
    pub cavg: f64,
    /// Learning rate that the step used.
    pub lr: f64,
    /// Milliseconds that the head took.
    pub head_ms: f64,
    /// The part of it that went into exchanges between ranks.
    pub comm_ms: f64,
}

/// What the head tells of a step.
struct HeadFigures {
    loss: f64,
    cavg: f64,
    head_ms: f64,
    comm_ms: f64,
}

impl Trainer {
    /// The network that is measured and exported: the running mean where one is kept.
    pub fn measured(&self) -> &Backbone {
        self.average.as_ref().map_or(&self.backbone, Average::backbone)
    }

    /// Everything at its first value.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`], [`TrainError::Head`], [`TrainError::Value`] and
    /// [`TrainError::Ranks`].
    pub fn new(
        config: &Config,
        plan: &Plan,
        n_identities: u32,
        ranks: &Ranks,
    ) -> Result<Trainer, TrainError> {
        let device = config.train.device(ranks.local_rank())?;
        let seed = config.train.seed;
        let mut backbone = Backbone::new(&config.model.spec(), device, seed)?;
        backbone.set_precision(config.model.precision);
        let optimizer = Optimizer::new(backbone.named_parameters(), &config.optim);
        let average = Average::new(&backbone, config)?;
        let bucket_bytes = config.train.bucket_mib << 20;
        let gradients = Gradients::new(ranks, &optimizer.parameters(), bucket_bytes)?;
        let head_config = config.head_config(n_identities);
        let parts = Parts::on_device(&head_config, ranks.communicator(), device)?;
        let head = Head::with_parts(&head_config, parts)?;
        let schedule = schedule(config, plan);
        let clip_norm = config.optim.clip_norm;
        Ok(Trainer {
            backbone,
            head,
            optimizer,
            average,
            gradients,
            schedule,
            clip_norm,
            head_lr_factor: config.head.lr_factor,
            n_parts: config.train.accumulate,
            noise_seed: seed,
            rank: ranks.rank(),
            world: ranks.world(),
            device,
            n_done: 0,
        })
    }

    /// One step on one batch, of which every rank has its part: loss, gradients, weights.
    ///
    /// # Errors
    ///
    /// [`TrainError::Head`] for a loss, [`TrainError::GradientNotFinite`] for a gradient that is not
    /// finite, both on every rank: the weights of the backbone are then as before, and the run
    /// cannot go on. [`TrainError::Ranks`] if a rank is gone.
    pub fn step(&mut self, batch: &Batch) -> Result<StepFigures, TrainError> {
        let lr = self.schedule.at(self.n_done);
        let (head, mut gradients) =
            if self.n_parts == 1 { self.pass(batch, lr)? } else { self.pass_in_parts(batch, lr)? };
        let HeadFigures { loss, cavg, head_ms, comm_ms } = head;
        let grad_norm = global_norm(&gradients);
        if !grad_norm.is_finite() {
            return Err(self.not_finite(&gradients, loss));
        }
        if self.clip_norm > 0.0 {
            clip(&mut gradients, grad_norm, self.clip_norm);
        }
        self.optimizer.step(&mut gradients, lr)?;
        if let Some(average) = &mut self.average {
            average.take_in(&self.backbone);
        }
        self.n_done += 1;
        Ok(StepFigures { loss, grad_norm, cavg, lr, head_ms, comm_ms })
    }

    /// Forward, head and backward of the whole batch at once.
    fn pass(&mut self, batch: &Batch, lr: f64) -> Result<(HeadFigures, Vec<Tensor>), TrainError> {
        let embeddings_bd = self.forward(&self.images(batch, 0)?, 0);
        let (figures, grad_bd) = self.step_head(&embeddings_bd.detach(), &batch.labels, lr)?;
        let objective = objective(&embeddings_bd, &grad_bd);
        let gradients = self.gradients.of(&objective, &self.optimizer.parameters())?;
        Ok((figures, gradients))
    }

    /// The same in parts, of which one at a time is in memory. The head needs all embeddings at once,
    /// so every part passes forwards twice: first without what a pass backwards needs.
    fn pass_in_parts(
        &mut self,
        batch: &Batch,
        lr: f64,
    ) -> Result<(HeadFigures, Vec<Tensor>), TrainError> {
        let labels: Vec<i64> =
            (0..self.n_parts).flat_map(|part| self.labels(batch, part)).collect();
        let statistics = Statistics::of(&self.backbone);
        let mut embeddings = Vec::with_capacity(self.n_parts);
        for part in 0..self.n_parts {
            let images = self.images(batch, part)?;
            embeddings.push(tch::no_grad(|| self.forward(&images, part)));
        }
        // The second pass moves them.
        statistics.restore();
        let embeddings_bd = Tensor::cat(&embeddings, 0);
        let (figures, grad_bd) = self.step_head(&embeddings_bd, &labels, lr)?;
        let (mut gradients, mut start) = (None, 0);
        for part in 0..self.n_parts {
            let embeddings_bd = self.forward(&self.images(batch, part)?, part);
            let n_images = embeddings_bd.size()[0];
            let objective = objective(&embeddings_bd, &grad_bd.narrow(0, start, n_images));
            start += n_images;
            let (parameters, is_last) = (self.optimizer.parameters(), part + 1 == self.n_parts);
            gradients = self.gradients.add(&objective, &parameters, is_last)?;
        }
        Ok((figures, gradients.unwrap_or_default()))
    }

    /// The embeddings of one part of a step; the same whenever it is called for that part.
    fn forward(&mut self, images: &Tensor, part: usize) -> Tensor {
        let [rank, world] = [self.rank, self.world].map(|n| n as u64);
        let share = rank + world * part as u64;
        self.backbone.seed_noise(mix(self.noise_seed ^ mix(self.n_done)) ^ share);
        self.backbone.forward(images, true)
    }

    /// The labels of one part: every `n_parts`-th. As ranks share a step in the same way, R ranks with
    /// A parts normalise over the same images as any other R and A of the same product.
    fn labels<'a>(&self, batch: &'a Batch, part: usize) -> impl Iterator<Item = i64> + use<'a> {
        batch.labels.iter().copied().skip(part).step_by(self.n_parts)
    }

    fn step_head(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        lr: f64,
    ) -> Result<(HeadFigures, Tensor), TrainError> {
        let started = Instant::now();
        let lr = lr * self.head_lr_factor;
        let head = self.head.step(embeddings_bd, labels, self.n_done + 1, lr)?;
        let figures = HeadFigures {
            loss: head.loss,
            cavg: head.mean_positive_cosine,
            head_ms: started.elapsed().as_secs_f64() * 1e3,
            comm_ms: head.timings.communication_ms,
        };
        Ok((figures, head.grad_embeddings_bd))
    }

    /// The images of one part as a `[B, 3, 112, 112]` tensor whose memory is channels-last.
    fn images(&self, batch: &Batch, part: usize) -> Result<Tensor, ModelError> {
        let (n, n_parts) = (batch.labels.len() as i64, self.n_parts as i64);
        let images = Tensor::f_from_slice(&batch.images)
            .and_then(|images| images.f_view([n, IMAGE_SIZE, IMAGE_SIZE, 3]))
            .and_then(|images| images.f_slice(0, part as i64, n, n_parts))
            .and_then(|images| images.f_to_device(self.device))
            .and_then(|images| images.f_permute([0, 3, 1, 2]));
        images.map_err(|source| ModelError::Torch { op: "copy the images", source })
    }

    fn not_finite(&self, gradients: &[Tensor], loss: f64) -> TrainError {
        let is_broken = |g: &Tensor| !g.norm().double_value(&[]).is_finite();
        let first = gradients.iter().position(is_broken);
        let parameter = first.map_or("all together", |index| self.optimizer.name(index)).to_owned();
        TrainError::GradientNotFinite { step: self.n_done + 1, parameter, loss }
    }
}

fn schedule(config: &Config, plan: &Plan) -> Schedule {
    let optim = &config.optim;
    Schedule {
        kind: optim.schedule,
        base: optim.base_lr(plan.batch_size),
        n_warmup: plan.steps_in(optim.warmup_epochs),
        n_steps: plan.n_steps(),
        milestones: optim.milestones.iter().map(|epoch| plan.steps_in(*epoch)).collect(),
        gamma: optim.gamma,
    }
}
