//! Stochastic gradient descent as PyTorch defines it, and the norm that gradients are clipped to.

use pfc_model::ModelError;
use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use crate::{config::BadValue, schedule::ScheduleKind};

/// Section `[optim]`: how weights move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Learning rate at the end of warm-up, above 0; the same for backbone and head.
    pub lr: f64,
    /// Share of the last velocity that is kept, in `[0, 1)`.
    pub momentum: f64,
    /// L2 decay added to every gradient, biases and normalisation included, as the reference does.
    pub weight_decay: f64,
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
}

impl Default for OptimConfig {
    fn default() -> OptimConfig {
        OptimConfig {
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 5e-4,
            clip_norm: 5.0,
            schedule: ScheduleKind::Poly1,
            warmup_epochs: 0.0,
            milestones: Vec::new(),
            gamma: 0.1,
        }
    }
}

impl OptimConfig {
    /// Refuses values that cannot train.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first of them.
    pub fn validate(&self, epochs: u64) -> Result<(), BadValue> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        BadValue::unless(positive(self.lr), "optim.lr", self.lr, "a number above 0")?;
        let is_share = (0.0..1.0).contains(&self.momentum);
        BadValue::unless(is_share, "optim.momentum", self.momentum, "at least 0 and below 1")?;
        let decay = self.weight_decay;
        BadValue::unless(not_negative(decay), "optim.weight_decay", decay, "0 or more")?;
        let clip = self.clip_norm;
        BadValue::unless(not_negative(clip), "optim.clip_norm", clip, "0 (off) or more")?;
        let warmup = self.warmup_epochs;
        let fits = not_negative(warmup) && warmup <= epochs as f64;
        let bound = format!("from 0 to train.epochs, {epochs}");
        BadValue::unless(fits, "optim.warmup_epochs", warmup, bound)?;
        BadValue::unless(positive(self.gamma), "optim.gamma", self.gamma, "a number above 0")?;
        let ascends = self.milestones.is_sorted() && self.milestones.iter().all(|m| positive(*m));
        let list = format!("{:?}", self.milestones);
        BadValue::unless(ascends, "optim.milestones", list, "epochs above 0, ascending")?;
        let falls = self.schedule != ScheduleKind::Step || !self.milestones.is_empty();
        let bound = "a list of epochs when optim.schedule is \"step\"";
        BadValue::unless(falls, "optim.milestones", "[]", bound)
    }
}

/// SGD with momentum and decay, no dampening: `v ← m·v + (g + d·w)`, `w ← w − lr·v`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    weight_decay: f64,
    /// Per parameter its name, itself and its velocity.
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    weight: Tensor,
    velocity: Tensor,
}

impl Sgd {
    /// An optimizer at rest for `parameters`, whose storage it will change in place.
    pub fn new(parameters: Vec<(String, Tensor)>, config: &OptimConfig) -> Sgd {
        let slots = parameters
            .into_iter()
            .map(|(name, weight)| Slot { name, velocity: weight.zeros_like(), weight })
            .collect();
        Sgd { momentum: config.momentum, weight_decay: config.weight_decay, slots }
    }

    /// The parameters, in the order that [`step`](Sgd::step) takes gradients in.
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.slots.iter().map(|slot| &slot.weight).collect()
    }

    /// The name of parameter `index` in that order.
    pub fn name(&self, index: usize) -> &str {
        &self.slots[index].name
    }

    /// Moves every parameter once. `gradients`, one per parameter, are used up.
    ///
    /// # Errors
    ///
    /// [`ModelError::Torch`], which only a lack of memory can bring about.
    pub fn step(&mut self, gradients: &mut [Tensor], lr: f64) -> Result<(), ModelError> {
        tch::no_grad(|| self.move_all(gradients, lr))
            .map_err(|source| ModelError::Torch { op: "move the weights", source })
    }

    fn move_all(&mut self, gradients: &mut [Tensor], lr: f64) -> Result<(), TchError> {
        let Some(first) = self.slots.first() else { return Ok(()) };
        // Tensors of one number: `addcmul_` with them is `target += factor · source` without the
        // copy of `source` that `target += &(source * factor)` would make.
        let on_device = |x: f64| Tensor::from(x as f32).f_to_device(first.weight.device());
        let (decay, minus_lr) = (on_device(self.weight_decay)?, on_device(-lr)?);
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            if self.weight_decay != 0.0 {
                let _ = gradient.f_addcmul_(&slot.weight, &decay)?;
            }
            let _ = slot.velocity.f_mul_scalar_(self.momentum)?.f_add_(gradient)?;
            let _ = slot.weight.f_addcmul_(&slot.velocity, &minus_lr)?;
        }
        Ok(())
    }

    /// The velocities by parameter name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let slots = self.slots.iter();
        slots.map(|slot| (slot.name.clone(), slot.velocity.shallow_clone())).collect()
    }

    /// Takes over the velocities of [`state`](Sgd::state); `origin` names their source in errors.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingTensor`] and [`ModelError::TensorShape`].
    pub fn load_state(
        &mut self,
        origin: &str,
        state: &[(String, Tensor)],
    ) -> Result<(), ModelError> {
        for slot in &mut self.slots {
            let (key, expected) = (slot.name.clone(), slot.velocity.size());
            let origin = origin.to_owned();
            let Some((_, source)) = state.iter().find(|(name, _)| *name == slot.name) else {
                return Err(ModelError::MissingTensor { origin, key, expected });
            };
            if source.size() != expected {
                let found = source.size();
                return Err(ModelError::TensorShape { origin, key, found, expected });
            }
            tch::no_grad(|| slot.velocity.copy_(source));
        }
        Ok(())
    }
}

/// L2 norm over all elements of all of `tensors` together, `NaN` or infinite if any element is.
pub fn global_norm(tensors: &[Tensor]) -> f64 {
    let norms: Vec<Tensor> = tensors.iter().map(Tensor::norm).collect();
    Tensor::stack(&norms, 0).norm().double_value(&[])
}

/// Scales `gradients`, whose [`global_norm`] is `norm`, to at most `norm_max`, as
/// `torch.nn.utils.clip_grad_norm_` does: by `norm_max / (norm + 1e-6)` where that is below 1.
pub fn clip(gradients: &mut [Tensor], norm: f64, norm_max: f64) {
    let factor = norm_max / (norm + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(tch::Kind::Double).reshape(-1)).unwrap()
    }

    #[track_caller]
    fn check(tensor: &Tensor, expected: &[f64]) {
        let found = numbers(tensor);
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near && found.len() == expected.len(), "{found:?}, expected {expected:?}");
    }

    fn optimizer(momentum: f64, weight_decay: f64) -> (Tensor, Sgd) {
        let weight = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        let config = OptimConfig { momentum, weight_decay, ..OptimConfig::default() };
        (weight.shallow_clone(), Sgd::new(vec![("w".to_owned(), weight)], &config))
    }

    /// On paper: v1 = g + d·w = (0.6, -0.2), w1 = w - v1/10; v2 = v1/2 + g + d·w1, w2 = w1 - v2/10.
    #[test]
    fn two_steps_with_momentum_and_decay_match_those_on_paper() {
        let (weight, mut sgd) = optimizer(0.5, 0.1);
        sgd.step(&mut [Tensor::from_slice(&[0.5_f32, 0.0])], 0.1).unwrap();
        check(&weight, &[0.94, -1.98]);
        sgd.step(&mut [Tensor::from_slice(&[0.5_f32, 0.0])], 0.1).unwrap();
        check(&sgd.state()[0].1, &[0.894, -0.298]);
        check(&weight, &[0.8506, -1.9502]);
    }

    #[test]
    fn an_optimizer_that_takes_over_a_state_goes_on_as_the_one_that_gave_it() {
        let (weight, mut sgd) = optimizer(0.9, 0.0);
        let gradient = || [Tensor::from_slice(&[0.25_f32, 1.0])];
        sgd.step(&mut gradient(), 0.1).unwrap();
        let saved: Vec<_> = sgd.state().iter().map(|(k, v)| (k.clone(), v.copy())).collect();
        let middle = weight.detach().copy();
        sgd.step(&mut gradient(), 0.1).unwrap();

        let (again, mut other) = optimizer(0.9, 0.0);
        tch::no_grad(|| again.shallow_clone().copy_(&middle));
        other.load_state("saved", &saved).unwrap();
        other.step(&mut gradient(), 0.1).unwrap();
        assert_eq!(numbers(&again), numbers(&weight));
    }

    #[test]
    fn a_state_of_another_network_is_refused() {
        let (_, mut sgd) = optimizer(0.9, 0.0);
        let error = sgd.load_state("a.safetensors", &[]).unwrap_err();
        assert!(matches!(error, ModelError::MissingTensor { .. }), "{error}");
        let state = [("w".to_owned(), Tensor::from_slice(&[1.0_f32]))];
        let error = sgd.load_state("a.safetensors", &state).unwrap_err();
        assert!(matches!(error, ModelError::TensorShape { .. }), "{error}");
    }

    #[test]
    fn the_norm_is_that_of_all_tensors_together_and_clipping_scales_them_all() {
        let three_four = || [Tensor::from_slice(&[3.0_f32]), Tensor::from_slice(&[0.0_f32, 4.0])];
        let mut gradients = three_four();
        let norm = global_norm(&gradients);
        assert_eq!(norm, 5.0);
        clip(&mut gradients, norm, 10.0);
        check(&gradients[1], &[0.0, 4.0]);
        clip(&mut gradients, norm, 1.0);
        check(&gradients[0], &[0.6]);
        check(&gradients[1], &[0.0, 0.8]);
    }

    #[test]
    fn the_norm_shows_a_number_that_is_none() {
        let with = |x: f32| [Tensor::from_slice(&[1.0_f32]), Tensor::from_slice(&[0.0, x])];
        assert!(global_norm(&with(f32::NAN)).is_nan());
        assert!(global_norm(&with(f32::INFINITY)).is_infinite());
    }
}
