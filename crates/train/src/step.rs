//! What is trained, and the arithmetic of one step.

// B = batch, D = embedding.

use std::time::Instant;

use pfc_model::{Backbone, IMAGE_SIZE, ModelError};
use tch::{Device, Tensor};

use crate::{
    TrainError,
    config::Config,
    gradients::Gradients,
    head::{Head, Parts},
    loader::Batch,
    optimizer::{Sgd, clip, global_norm},
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
    pub sgd: Sgd,
    gradients: Gradients,
    schedule: Schedule,
    clip_norm: f64,
    /// Of the noise that stochastic layers draw: every rank draws its own.
    noise_seed: u64,
    rank: u64,
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

impl Trainer {
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
        let sgd = Sgd::new(backbone.named_parameters(), &config.optim);
        let gradients = Gradients::new(ranks, &sgd.parameters(), config.train.bucket_mib << 20)?;
        let head_config = config.head_config(n_identities);
        let parts = Parts::of_config(&head_config, ranks.communicator())?;
        let head = Head::with_parts(&head_config, parts)?;
        let schedule = schedule(config, plan);
        let clip_norm = config.optim.clip_norm;
        Ok(Trainer {
            backbone,
            head,
            sgd,
            gradients,
            schedule,
            clip_norm,
            noise_seed: seed,
            rank: ranks.rank() as u64,
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
        self.backbone.seed_noise(mix(self.noise_seed ^ mix(self.n_done)) ^ self.rank);

        let embeddings_bd = self.backbone.forward(&self.images(batch)?, true);

        let started = Instant::now();
        let detached_bd = embeddings_bd.detach();
        let head = self.head.step(&detached_bd, &batch.labels, self.n_done + 1, lr)?;
        let head_ms = started.elapsed().as_secs_f64() * 1e3;

        let grad_bd = &head.grad_embeddings_bd;
        let mut gradients = self.gradients.of(&embeddings_bd, grad_bd, &self.sgd.parameters())?;
        let grad_norm = global_norm(&gradients);
        if !grad_norm.is_finite() {
            return Err(self.not_finite(&gradients, head.loss));
        }
        if self.clip_norm > 0.0 {
            clip(&mut gradients, grad_norm, self.clip_norm);
        }
        self.sgd.step(&mut gradients, lr)?;

        self.n_done += 1;
        let (loss, cavg) = (head.loss, head.mean_positive_cosine);
        let comm_ms = head.timings.communication_ms;
        Ok(StepFigures { loss, grad_norm, cavg, lr, head_ms, comm_ms })
    }

    /// The batch as a `[B, 3, 112, 112]` tensor whose memory is channels-last.
    fn images(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        let n = batch.labels.len() as i64;
        let images = Tensor::f_from_slice(&batch.images)
            .and_then(|images| images.f_to_device(self.device))
            .and_then(|images| images.f_view([n, IMAGE_SIZE, IMAGE_SIZE, 3]))
            .and_then(|images| images.f_permute([0, 3, 1, 2]));
        images.map_err(|source| ModelError::Torch { op: "copy the images", source })
    }

    fn not_finite(&self, gradients: &[Tensor], loss: f64) -> TrainError {
        let is_broken = |g: &Tensor| !g.norm().double_value(&[]).is_finite();
        let first = gradients.iter().position(is_broken);
        let parameter = first.map_or("all together", |index| self.sgd.name(index)).to_owned();
        TrainError::GradientNotFinite { step: self.n_done + 1, parameter, loss }
    }
}

fn schedule(config: &Config, plan: &Plan) -> Schedule {
    let optim = &config.optim;
    Schedule {
        kind: optim.schedule,
        base: optim.lr,
        n_warmup: plan.steps_in(optim.warmup_epochs),
        n_steps: plan.n_steps(),
        milestones: optim.milestones.iter().map(|epoch| plan.steps_in(*epoch)).collect(),
        gamma: optim.gamma,
    }
}
