//! What is trained, and the arithmetic of one step.

// B = batch, D = embedding.

use std::time::Instant;

use pfc_model::{Backbone, IMAGE_SIZE, ModelError};
use tch::{Device, Tensor};

use crate::{
    TrainError,
    config::Config,
    head::Head,
    loader::Batch,
    optimizer::{Sgd, clip, global_norm},
    plan::{Plan, mix},
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
    schedule: Schedule,
    clip_norm: f64,
    seed: u64,
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
}

impl Trainer {
    /// Everything at its first value.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`], [`TrainError::Head`] and [`TrainError::Value`].
    pub fn new(config: &Config, plan: &Plan, n_identities: u32) -> Result<Trainer, TrainError> {
        let device = config.train.device()?;
        let seed = config.train.seed;
        let mut backbone = Backbone::new(&config.model.spec(), device, seed)?;
        backbone.set_precision(config.model.precision);
        let sgd = Sgd::new(backbone.named_parameters(), &config.optim);
        let head = Head::new(&config.head_config(n_identities))?;
        let schedule = schedule(config, plan);
        let clip_norm = config.optim.clip_norm;
        Ok(Trainer { backbone, head, sgd, schedule, clip_norm, seed, device, n_done: 0 })
    }

    /// One step on one batch: loss, gradients, weights.
    ///
    /// # Errors
    ///
    /// [`TrainError::Head`] for a loss, [`TrainError::GradientNotFinite`] for a gradient that is not
    /// finite: the weights of the backbone are then as before, and the run cannot go on.
    pub fn step(&mut self, batch: &Batch) -> Result<StepFigures, TrainError> {
        let lr = self.schedule.at(self.n_done);
        self.backbone.seed_noise(mix(self.seed ^ mix(self.n_done)));

        let embeddings_bd = self.backbone.forward(&self.images(batch)?, true);

        let started = Instant::now();
        let detached_bd = embeddings_bd.detach();
        let head = self.head.step(&detached_bd, &batch.labels, self.n_done + 1, lr)?;
        let head_ms = started.elapsed().as_secs_f64() * 1e3;

        let mut gradients = self.gradients(&embeddings_bd, &head.grad_embeddings_bd)?;
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
        Ok(StepFigures { loss, grad_norm, cavg, lr, head_ms })
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

    /// The gradient of each parameter, given that of the embeddings.
    fn gradients(
        &self,
        embeddings_bd: &Tensor,
        grad_bd: &Tensor,
    ) -> Result<Vec<Tensor>, ModelError> {
        // The derivative of Σ e·g by e is g: the way to hand the engine a gradient to start from.
        let objective = (embeddings_bd * grad_bd).sum(embeddings_bd.kind());
        let parameters = self.sgd.parameters();
        let gradients = Tensor::f_run_backward(&[objective], &parameters, false, false)
            .map_err(|source| ModelError::Torch { op: "compute the gradient", source })?;
        // A parameter that the pass did not use has none.
        let or_zero = |(gradient, parameter): (Tensor, &&Tensor)| {
            if gradient.defined() { gradient } else { parameter.zeros_like() }
        };
        Ok(gradients.into_iter().zip(&parameters).map(or_zero).collect())
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
