//! Section `[optim]`: how weights move.

use serde::{Deserialize, Serialize};

use super::{section::section, value::BadValue};

/// The largest scale: f32, in which the last layers compute, has room for what it does to gradients.
pub const LOSS_SCALE_MAX: f64 = (1_u64 << 32) as f64;

/// What moves the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// SGD with momentum and L2 decay.
    #[default]
    Sgd,
    /// Adam with decoupled decay (arXiv 1711.05101).
    Adamw,
}

section! {
    /// Section `[optim]`: how weights move.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct OptimConfig {
        /// What moves the backbone: sgd or adamw.
        pub optimizer: OptimizerKind,
        /// Learning rate at the end of warm-up, above 0; that of the head is this times
        /// `head.lr_factor`.
        pub lr: f64,
        /// The batch that `lr` is meant for: it is multiplied by `train.batch_size` over this. 0 takes
        /// `lr` as it is, as InsightFace does since 2022; until then it was 512.
        pub lr_batch: u64,
        /// Share of the last velocity that is kept, in `[0, 1)`.
        pub momentum: f64,
        /// For adamw: decay of the mean gradient, in `[0, 1)`.
        pub beta1: f64,
        /// For adamw: decay of the mean square, in `[0, 1)`.
        pub beta2: f64,
        /// For adamw: added to the root of the mean square, above 0.
        pub eps: f64,
        /// Decay: under sgd added to every gradient as `weight_decay · w`, under adamw taken off the
        /// weights as `lr · weight_decay · w`.
        pub weight_decay: f64,
        /// Whether biases, normalisation, slopes and position embeddings decay too, as in the reference.
        pub decay_all: bool,
        /// Decay of the exponential moving average (EMA) of the weights, which is then what is measured and
        /// exported; in `[0, 1)`, 0 turns it off.
        pub ema: f64,
        /// The backbone's gradient is scaled down to this L2 norm where it is longer; 0 turns it off.
        pub clip_norm: f64,
        /// How the learning rate falls: poly1, poly2, step, cosine, constant.
        pub schedule: ScheduleKind,
        /// Epochs over which the learning rate first rises in a line from 0.
        pub warmup_epochs: f64,
        /// For `step`: the epochs at whose start the learning rate falls, ascending.
        pub milestones: Vec<f64>,
        /// For `step`: what it is multiplied by.
        pub gamma: f64,
        /// With `model.precision = "f16"`: what the loss is multiplied by at first, so that small gradients
        /// do not vanish; from 1 to 2^32. Where gradients overflow the weights stay as they are and this is
        /// halved; running statistics, those of AdaFace and the centres, whose gradients are f32, have
        /// moved.
        pub loss_scale: f64,
        /// Steps without an overflow after which it is doubled.
        pub loss_scale_steps: u64,
        /// Steps in a row that may be left out because their loss or gradient is not finite, on whichever
        /// rank; the run ends at the next one. 0 ends it at the first. Network and optimizer are then as
        /// before the step; centres too, unless the gradient alone was at fault.
        pub skip_nonfinite: u64,
    }
}

impl Default for OptimConfig {
    fn default() -> OptimConfig {
        OptimConfig {
            optimizer: OptimizerKind::Sgd,
            lr: 0.1,
            lr_batch: 0,
            momentum: 0.9,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 5e-4,
            decay_all: true,
            ema: 0.0,
            clip_norm: 5.0,
            schedule: ScheduleKind::Poly1,
            warmup_epochs: 0.0,
            milestones: Vec::new(),
            gamma: 0.1,
            // GradScaler's first value, and arcface_torch's growth_interval.
            loss_scale: 65536.0,
            loss_scale_steps: 100,
            skip_nonfinite: 0,
        }
    }
}

impl OptimConfig {
    /// Refuses values that cannot train.
    ///
    /// * `epochs`: of the run; infinite where its length is not known yet
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first of them.
    pub fn validate(&self, epochs: f64) -> Result<(), BadValue> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        BadValue::unless(positive(self.lr), "optim.lr", self.lr, "a number above 0")?;
        for (key, share) in [
            ("optim.momentum", self.momentum),
            ("optim.beta1", self.beta1),
            ("optim.beta2", self.beta2),
            ("optim.ema", self.ema),
        ] {
            BadValue::unless((0.0..1.0).contains(&share), key, share, "at least 0 and below 1")?;
        }
        BadValue::unless(positive(self.eps), "optim.eps", self.eps, "a number above 0")?;
        let decay = self.weight_decay;
        BadValue::unless(not_negative(decay), "optim.weight_decay", decay, "0 or more")?;
        let clip = self.clip_norm;
        BadValue::unless(not_negative(clip), "optim.clip_norm", clip, "0 (off) or more")?;
        let warmup = self.warmup_epochs;
        let fits = not_negative(warmup) && warmup <= epochs;
        let bound = match epochs.is_finite() {
            true => format!("from 0 to train.epochs, {epochs}"),
            false => "0 or more".to_owned(),
        };
        BadValue::unless(fits, "optim.warmup_epochs", warmup, bound)?;
        BadValue::unless(positive(self.gamma), "optim.gamma", self.gamma, "a number above 0")?;
        let ascends = self.milestones.is_sorted() && self.milestones.iter().all(|m| positive(*m));
        let list = format!("{:?}", self.milestones);
        BadValue::unless(ascends, "optim.milestones", list, "epochs above 0, ascending")?;
        let falls = self.schedule != ScheduleKind::Step || !self.milestones.is_empty();
        let bound = "a list of epochs when optim.schedule is \"step\"";
        BadValue::unless(falls, "optim.milestones", "[]", bound)?;
        let scale = self.loss_scale;
        let fits = (1.0..=LOSS_SCALE_MAX).contains(&scale);
        BadValue::unless(fits, "optim.loss_scale", scale, format!("from 1 to {LOSS_SCALE_MAX}"))?;
        let steps = self.loss_scale_steps;
        BadValue::unless(steps > 0, "optim.loss_scale_steps", steps, "1 or more")
    }

    /// The learning rate at the end of warm-up for batches of `batch_size` images.
    pub fn base_lr(&self, batch_size: u64) -> f64 {
        match self.lr_batch {
            0 => self.lr,
            n => self.lr * batch_size as f64 / n as f64,
        }
    }
}

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// A straight line to 0 at the last step; what InsightFace does since 2023-04.
    #[default]
    Poly1,
    /// The same line squared; what InsightFace's tables of 2022 were made with.
    Poly2,
    /// Multiplied by `gamma` at each of `milestones`.
    Step,
    /// Half a cosine wave to 0 at the last step.
    Cosine,
    /// No fall.
    Constant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_grows_with_the_batch_where_that_is_asked_for() {
        let lr = |lr_batch| OptimConfig { lr_batch, ..OptimConfig::default() }.base_lr(1024);
        assert_eq!((lr(0), lr(512), lr(1024)), (0.1, 0.2, 0.1));
    }
}
