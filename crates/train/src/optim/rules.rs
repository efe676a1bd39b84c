//! How parameters move, as PyTorch's `SGD` and `AdamW` move them.

use pfc_autograd::lists;
use pfc_model::{ModelError, check_finite};
use tch::{TchError, Tensor};

use crate::config::{OptimConfig, OptimizerKind};

/// Number of steps taken, `[1]` i64, among the state of `AdamW`.
const STEPS: &str = "adamw.steps";

/// Moves the parameters of a network.
///
/// With g the gradient, w the weight, d the decay and t the number of the step from 1:
///
/// ```text
/// sgd    v = momentum·v + g + d·w;  w -= lr·v
/// adamw  w -= lr·d·w;  m = β1·m + (1 - β1)·g;  v = β2·v + (1 - β2)·g²
///        w -= lr / (1 - β1^t) · m / (sqrt(v / (1 - β2^t)) + eps)
/// ```
///
/// On a GPU libtorch's fused operators do this, a few launches for all parameters; on a CPU one operator
/// after the other, whose roundings runs of earlier releases have. The two differ by two roundings of a
/// number at most.
#[derive(Debug)]
pub struct BackboneOptimizer {
    rule: Rule,
    weight_decay: f64,
    slots: Vec<Slot>,
    n_steps: i64,
    /// Whether all parameters that decay alike are moved together.
    is_fused: bool,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Sgd { momentum: f64 },
    Adamw { beta1: f64, beta2: f64, eps: f64 },
}

/// A parameter with its state.
#[derive(Debug)]
struct Slot {
    name: String,
    weight: Tensor,
    decays: bool,
    /// The velocity of SGD, or the two moments of `AdamW`.
    state: Vec<(&'static str, Tensor)>,
}

impl BackboneOptimizer {
    /// An optimizer at rest for `parameters`, whose storage it will change in place.
    pub fn new(parameters: Vec<(String, Tensor)>, config: &OptimConfig) -> BackboneOptimizer {
        let (rule, suffixes): (Rule, &[&'static str]) = match config.optimizer {
            OptimizerKind::Sgd => (Rule::Sgd { momentum: config.momentum }, &[""]),
            OptimizerKind::Adamw => {
                let &OptimConfig { beta1, beta2, eps, .. } = config;
                (Rule::Adamw { beta1, beta2, eps }, &[".exp_avg", ".exp_avg_sq"])
            }
        };
        let slot = |(name, weight): (String, Tensor)| Slot {
            decays: config.decay_all || is_matrix(&name, &weight),
            state: suffixes.iter().map(|suffix| (*suffix, weight.zeros_like())).collect(),
            name,
            weight,
        };
        let slots: Vec<Slot> = parameters.into_iter().map(slot).collect();
        // The fused SGD keeps no velocity where nothing of it is used.
        let can_be_fused = match rule {
            Rule::Sgd { momentum } => momentum > 0.0,
            Rule::Adamw { .. } => true,
        };
        let is_on_gpu = slots.first().is_some_and(|slot| slot.weight.device().is_cuda());
        let is_fused = can_be_fused && is_on_gpu;
        BackboneOptimizer { rule, weight_decay: config.weight_decay, slots, n_steps: 0, is_fused }
    }

    /// The parameters, in the order that [`step`](BackboneOptimizer::step) takes gradients in.
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.slots.iter().map(|slot| &slot.weight).collect()
    }

    /// The same, each with its name.
    pub fn named_parameters(&self) -> Vec<(&str, &Tensor)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.weight)).collect()
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
        self.n_steps += 1;
        tch::no_grad(|| match self.rule {
            _ if self.is_fused => self.move_fused(gradients, lr),
            Rule::Sgd { momentum } => self.move_by_sgd(gradients, lr, momentum),
            Rule::Adamw { beta1, beta2, eps } => {
                self.move_by_adamw(gradients, lr, [beta1, beta2], eps)
            }
        })
        .map_err(ModelError::torch("move the weights"))
    }

    /// All parameters that decay, and then all others.
    fn move_fused(&self, gradients: &mut [Tensor], lr: f64) -> Result<(), TchError> {
        for (slot, gradient) in self.slots.iter().zip(gradients.iter_mut()) {
            lay_out(gradient, &slot.weight)?;
        }
        for decays in [true, false] {
            let is_one = |(slot, _): &(&Slot, &Tensor)| slot.decays == decays;
            let slots = || self.slots.iter().zip(&*gradients).filter(is_one);
            let weights: Vec<&Tensor> = slots().map(|(slot, _)| &slot.weight).collect();
            let own: Vec<&Tensor> = slots().map(|(_, gradient)| gradient).collect();
            let state =
                |i: usize| -> Vec<&Tensor> { slots().map(|(slot, _)| &slot.state[i].1).collect() };
            let weight_decay = if decays { self.weight_decay } else { 0.0 };
            match self.rule {
                _ if weights.is_empty() => {}
                Rule::Sgd { momentum } => {
                    let rule = lists::Sgd { lr, momentum, weight_decay };
                    lists::sgd(&weights, &own, &state(0), rule)?;
                }
                Rule::Adamw { beta1, beta2, eps } => {
                    let rule = lists::Adamw { lr, beta1, beta2, weight_decay, eps };
                    lists::adamw(
                        &weights,
                        &own,
                        [&state(0)[..], &state(1)[..]],
                        self.n_steps,
                        rule,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn move_by_sgd(
        &mut self,
        gradients: &mut [Tensor],
        lr: f64,
        momentum: f64,
    ) -> Result<(), TchError> {
        let Some(first) = self.slots.first() else { return Ok(()) };
        // Tensors of one number: `addcmul_` with them is `target += factor · source` without the
        // copy of `source` that `target += &(source * factor)` would make.
        let on_device = |x: f64| Tensor::from(x as f32).f_to_device(first.weight.device());
        let (decay, minus_lr) = (on_device(self.weight_decay)?, on_device(-lr)?);
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            if self.weight_decay != 0.0 && slot.decays {
                let _ = gradient.f_addcmul_(&slot.weight, &decay)?;
            }
            let velocity = &mut slot.state[0].1;
            let _ = velocity.f_mul_scalar_(momentum)?.f_add_(gradient)?;
            let _ = slot.weight.f_addcmul_(velocity, &minus_lr)?;
        }
        Ok(())
    }

    fn move_by_adamw(
        &mut self,
        gradients: &mut [Tensor],
        lr: f64,
        [beta1, beta2]: [f64; 2],
        eps: f64,
    ) -> Result<(), TchError> {
        let t = self.n_steps as f64;
        let (scale, root) = (lr / (1.0 - beta1.powf(t)), (1.0 - beta2.powf(t)).sqrt());
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            if slot.decays {
                let _ = slot.weight.f_mul_scalar_(1.0 - lr * self.weight_decay)?;
            }
            let [(_, mean), (_, square)] = &mut slot.state[..] else { unreachable!("two moments") };
            let _ = mean.f_lerp_(gradient, 1.0 - beta1)?;
            // The gradient is used up: its square takes its place.
            let _ = square.f_lerp_(&gradient.f_square_()?, 1.0 - beta2)?;
            let divisor = square.f_sqrt()?.f_div_scalar_(root)?.f_add_scalar_(eps)?;
            let _ = slot.weight.f_sub_(&mean.f_div(&divisor)?.f_mul_scalar_(scale)?)?;
        }
        Ok(())
    }

    /// The state by name: a parameter's own for SGD's velocities, with a suffix for moments.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let of_slot = |slot: &Slot| -> Vec<(String, Tensor)> {
            let named = slot.state.iter();
            named.map(|(s, t)| (format!("{}{s}", slot.name), t.shallow_clone())).collect()
        };
        let mut state: Vec<(String, Tensor)> = self.slots.iter().flat_map(of_slot).collect();
        if matches!(self.rule, Rule::Adamw { .. }) {
            state.push((STEPS.to_owned(), Tensor::from_slice(&[self.n_steps])));
        }
        state
    }

    /// Takes over what [`state`](BackboneOptimizer::state) gave; `origin` names its source in errors.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingTensor`] and [`ModelError::TensorShape`]; [`ModelError::NotFinite`] for a number
    /// that no parameter could go on from.
    pub fn load_state(
        &mut self,
        origin: &str,
        state: &[(String, Tensor)],
    ) -> Result<(), ModelError> {
        let find = |key: String, expected: Vec<i64>| {
            let origin = origin.to_owned();
            match state.iter().find(|(name, _)| *name == key) {
                Some((_, source)) if source.size() == expected => Ok(source),
                Some((_, source)) => {
                    let found = source.size();
                    Err(ModelError::TensorShape { origin, key, found, expected })
                }
                None => Err(ModelError::MissingTensor { origin, key, expected }),
            }
        };
        for slot in &mut self.slots {
            for (suffix, tensor) in &mut slot.state {
                let key = format!("{}{suffix}", slot.name);
                let source = find(key.clone(), tensor.size())?;
                check_finite(origin, &key, source)?;
                tch::no_grad(|| tensor.copy_(source));
            }
        }
        if matches!(self.rule, Rule::Adamw { .. }) {
            self.n_steps = find(STEPS.to_owned(), vec![1])?.int64_value(&[0]);
        }
        Ok(())
    }
}

/// Gives `gradient` the strides of its weight, as fused operators want it. Kernels of convolutions may come in
/// other orders than the weights are kept in; those of 1×1 have several descriptions of one order.
fn lay_out(gradient: &mut Tensor, weight: &Tensor) -> Result<(), TchError> {
    let strides = weight.stride();
    if gradient.stride() == strides {
        return Ok(());
    }
    // The strides of axes of one element lead nowhere.
    let leads = |tensor: &Tensor| -> Vec<i64> {
        let axes = tensor.size().into_iter().zip(tensor.stride());
        axes.filter(|&(size, _)| size != 1).map(|(_, stride)| stride).collect()
    };
    *gradient = if leads(gradient) == leads(weight) {
        gradient.f_as_strided(weight.size().as_slice(), strides.as_slice(), None)?
    } else {
        let mut laid_out = weight.f_empty_like()?;
        laid_out.f_copy_(gradient)?;
        laid_out
    };
    Ok(())
}

/// Whether a parameter multiplies what passes through the network: a matrix or the kernel of a
/// convolution, not a bias, scale, slope or position.
fn is_matrix(name: &str, weight: &Tensor) -> bool {
    weight.dim() >= 2 && !name.contains("pos_embed") && !name.contains("mask_token")
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

    fn optimizer(config: &OptimConfig) -> (Tensor, BackboneOptimizer) {
        let weight = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        (weight.shallow_clone(), BackboneOptimizer::new(vec![("w".to_owned(), weight)], config))
    }

    fn sgd(momentum: f64, weight_decay: f64) -> OptimConfig {
        OptimConfig { momentum, weight_decay, ..OptimConfig::default() }
    }

    fn adamw(weight_decay: f64) -> OptimConfig {
        let optimizer = OptimizerKind::Adamw;
        let (beta1, beta2, eps) = (0.5, 0.75, 0.5);
        OptimConfig { optimizer, beta1, beta2, eps, weight_decay, ..OptimConfig::default() }
    }

    /// On paper: v1 = g + d·w = (0.6, -0.2), w1 = w - v1/10; v2 = v1/2 + g + d·w1, w2 = w1 - v2/10.
    #[test]
    fn two_steps_with_momentum_and_decay_match_those_on_paper() {
        let (weight, mut sgd) = optimizer(&sgd(0.5, 0.1));
        sgd.step(&mut [Tensor::from_slice(&[0.5_f32, 0.0])], 0.1).unwrap();
        check(&weight, &[0.94, -1.98]);
        sgd.step(&mut [Tensor::from_slice(&[0.5_f32, 0.0])], 0.1).unwrap();
        check(&sgd.state()[0].1, &[0.894, -0.298]);
        check(&weight, &[0.8506, -1.9502]);
    }

    /// On paper, lr 0.1, d 0.5, g = (2, 0): w·0.95; m = 1, v = 1, t = 1: m/(1 - β1) = 2 and
    /// v/(1 - β2) = 4, so w -= 0.1·2/(2 + 0.5). Then g = 0: m = 0.5, v = 0.75, 1 - β1² = 0.75 and
    /// 1 - β2² = 0.4375, so w·0.95 - 0.1·(0.5/0.75)/(sqrt(0.75/0.4375) + 0.5).
    #[test]
    fn two_steps_of_adamw_match_those_on_paper() {
        let (weight, mut adamw) = optimizer(&adamw(0.5));
        adamw.step(&mut [Tensor::from_slice(&[2.0_f32, 0.0])], 0.1).unwrap();
        check(&weight, &[0.87, -1.9]);
        adamw.step(&mut [Tensor::from_slice(&[0.0_f32, 0.0])], 0.1).unwrap();
        let moved = 0.1 * (0.5 / 0.75) / ((0.75_f64 / 0.4375).sqrt() + 0.5);
        check(&weight, &[0.87 * 0.95 - moved, -1.9 * 0.95]);
    }

    /// The wave that `seed` begins, in the shapes of a network and with the strides of a GPU.
    fn parameters(seed: f64) -> Vec<(String, Tensor)> {
        let shapes: [(&str, &[i64]); 4] = [
            ("conv.weight", &[6, 4, 3, 3]),
            ("conv1x1.weight", &[6, 4, 1, 1]),
            ("bn.weight", &[6]),
            ("fc.weight", &[5, 6]),
        ];
        let options = (tch::Kind::Float, tch::Device::Cpu);
        let parameter = |(i, (name, shape)): (usize, &(&str, &[i64]))| {
            let angles = Tensor::arange(shape.iter().product::<i64>(), options);
            let tensor = (angles * (seed + i as f64)).sin().view(*shape);
            let is_kernel = shape.len() == 4;
            let tensor = match is_kernel {
                true => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
                false => tensor,
            };
            ((*name).to_owned(), tensor)
        };
        shapes.iter().enumerate().map(parameter).collect()
    }

    /// Weights and state after three steps whose gradients have the strides of a CPU.
    fn after_three_steps(config: &OptimConfig, is_fused: bool) -> Vec<Tensor> {
        let mut optimizer = BackboneOptimizer::new(parameters(1.0), config);
        optimizer.is_fused = is_fused;
        for step in 0..3 {
            let mut gradients: Vec<Tensor> = parameters(2.0 + f64::from(step))
                .into_iter()
                .map(|(_, gradient)| gradient.contiguous())
                .collect();
            optimizer.step(&mut gradients, 0.1).unwrap();
        }
        let weights = optimizer.parameters().into_iter().map(Tensor::copy);
        weights.chain(optimizer.state().iter().map(|(_, tensor)| tensor.copy())).collect()
    }

    /// Whether a product is rounded before it is added differs: up to two roundings a step.
    #[test]
    fn a_fused_optimizer_moves_as_one_operator_after_the_other() {
        let bound = 6.0 * f64::from(f32::EPSILON);
        for config in [sgd(0.9, 5e-4), sgd(0.9, 0.0), adamw(0.05)] {
            for decay_all in [true, false] {
                let config = OptimConfig { decay_all, ..config.clone() };
                let [plain, fused] = [false, true].map(|fused| after_three_steps(&config, fused));
                assert_eq!(plain.len(), fused.len());
                for (plain, fused) in plain.iter().zip(&fused) {
                    let worst = (plain - fused).abs().max().double_value(&[]);
                    assert!(worst <= bound, "{worst:e} is more than {bound:e}");
                }
            }
        }
    }

    #[test]
    fn gradients_get_the_strides_of_their_weights_and_keep_their_numbers() {
        let as_cudnn_has_it = Tensor::ones([6, 4, 1, 1], tch::kind::FLOAT_CPU).as_strided(
            [6, 4, 1, 1],
            [4, 1, 4, 4],
            None,
        );
        let parameters = parameters(1.0).into_iter();
        for (name, weight) in parameters.chain([("1x1".to_owned(), as_cudnn_has_it)]) {
            let mut gradient = Tensor::empty(weight.size().as_slice(), tch::kind::FLOAT_CPU);
            gradient.copy_(&(&weight * 2.0));
            lay_out(&mut gradient, &weight).unwrap();
            assert_eq!(gradient.stride(), weight.stride(), "{name}");
            assert_eq!(gradient, &weight * 2.0, "{name}");
        }
    }

    #[test]
    fn only_matrices_decay_if_not_all_do() {
        let named = |name: &str, shape: &[i64]| {
            (name.to_owned(), Tensor::ones(shape, (tch::Kind::Float, tch::Device::Cpu)))
        };
        let parameters =
            [named("fc.weight", &[1, 2]), named("bn.weight", &[2]), named("pos_embed", &[1, 2])];
        for config in [sgd(0.0, 0.5), adamw(0.5)] {
            let config = OptimConfig { decay_all: false, ..config };
            let copies = parameters.iter().map(|(name, w)| (name.clone(), w.copy())).collect();
            let mut optimizer = BackboneOptimizer::new(copies, &config);
            let mut zeros: Vec<Tensor> = parameters.iter().map(|(_, w)| w.zeros_like()).collect();
            optimizer.step(&mut zeros, 0.1).unwrap();
            let after = optimizer.parameters();
            check(after[0], &[0.95, 0.95]);
            check(after[1], &[1.0, 1.0]);
            check(after[2], &[1.0, 1.0]);
        }
    }

    #[test]
    fn an_optimizer_that_takes_over_a_state_goes_on_as_the_one_that_gave_it() {
        for config in [sgd(0.9, 0.0), adamw(0.1)] {
            let (weight, mut first) = optimizer(&config);
            let gradient = || [Tensor::from_slice(&[0.25_f32, 1.0])];
            first.step(&mut gradient(), 0.1).unwrap();
            let saved: Vec<_> = first.state().iter().map(|(k, v)| (k.clone(), v.copy())).collect();
            let middle = weight.detach().copy();
            first.step(&mut gradient(), 0.1).unwrap();

            let (again, mut other) = optimizer(&config);
            tch::no_grad(|| again.shallow_clone().copy_(&middle));
            other.load_state("saved", &saved).unwrap();
            other.step(&mut gradient(), 0.1).unwrap();
            assert_eq!(numbers(&again), numbers(&weight));
        }
    }

    #[test]
    fn a_state_of_another_network_is_refused() {
        let (_, mut sgd) = optimizer(&sgd(0.9, 0.0));
        let error = sgd.load_state("a.safetensors", &[]).unwrap_err();
        assert!(matches!(error, ModelError::MissingTensor { .. }), "{error}");
        let state = [("w".to_owned(), Tensor::from_slice(&[1.0_f32]))];
        let error = sgd.load_state("a.safetensors", &state).unwrap_err();
        assert!(matches!(error, ModelError::TensorShape { .. }), "{error}");
    }

    #[test]
    fn a_state_with_a_number_that_is_not_finite_is_refused_by_name() {
        for (config, key) in [(sgd(0.9, 0.0), "w"), (adamw(0.1), "w.exp_avg_sq")] {
            for bad in [f64::NAN, f64::INFINITY] {
                let (_, first) = optimizer(&config);
                let state = first.state();
                let (_, tensor) = state.iter().find(|(found, _)| found == key).unwrap();
                let _ = tensor.get(1).fill_(bad);
                let (_, mut other) = optimizer(&config);
                let error = other.load_state("a.safetensors", &state).unwrap_err().to_string();
                let expected =
                    format!("a.safetensors: tensor `{key}` has 1 of 2 numbers that are not finite");
                assert_eq!(error, expected);
            }
        }
    }
}
