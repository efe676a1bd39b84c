//! The layers that the networks are made of, but for convolutions.

// B = batch, C = channels, H, W = height and width, D = features.

use tch::{Device, Kind, Tensor};

use crate::{init::Init, spec::Precision, state::State};

/// How one forward pass is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// Batch statistics instead of running ones, and stochastic layers active.
    pub(crate) train: bool,
    /// What the large layers compute in.
    pub(crate) precision: Precision,
    /// Picks the masks of stochastic layers.
    pub(crate) noise_seed: u64,
}

impl Pass {
    /// `tensor` in the precision of the large layers; its gradient comes back in its own kind.
    pub(crate) fn cast(&self, tensor: &Tensor) -> Tensor {
        match self.precision {
            Precision::F32 => tensor.to_kind(Kind::Float),
            Precision::Bf16 => tensor.to_kind(Kind::BFloat16),
        }
    }

    /// The same pass with every layer in f32.
    pub(crate) fn full(&self) -> Pass {
        Pass { precision: Precision::F32, ..*self }
    }
}

/// Batch normalisation over all axes but the second.
///
/// Parameters and statistics are f32 whatever the input's kind, and sums are taken in f32.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
    eps: f64,
}

/// PyTorch's default; the reference keeps it everywhere.
const MOMENTUM: f64 = 0.1;

impl BatchNorm {
    pub(crate) fn new(state: &mut State, name: &str, channels: i64) -> BatchNorm {
        let weight = state.parameter(format!("{name}.weight"), &[channels], Init::Constant(1.0));
        BatchNorm::with_weight(state, name, channels, weight)
    }

    /// Whose scale stays at 1.
    pub(crate) fn frozen_weight(state: &mut State, name: &str, channels: i64) -> BatchNorm {
        let weight = state.buffer(format!("{name}.weight"), &[channels], Init::Constant(1.0));
        BatchNorm::with_weight(state, name, channels, weight)
    }

    fn with_weight(state: &mut State, name: &str, channels: i64, weight: Tensor) -> BatchNorm {
        let c = &[channels];
        BatchNorm {
            weight,
            bias: state.parameter(format!("{name}.bias"), c, Init::Constant(0.0)),
            running_mean: state.buffer(format!("{name}.running_mean"), c, Init::Constant(0.0)),
            running_var: state.buffer(format!("{name}.running_var"), c, Init::Constant(1.0)),
            num_batches_tracked: state.counter(format!("{name}.num_batches_tracked")),
            eps: 1e-5,
        }
    }

    pub(crate) fn with_eps(self, eps: f64) -> BatchNorm {
        BatchNorm { eps, ..self }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        if pass.train {
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            pass.train,
            MOMENTUM,
            self.eps,
            true,
        )
    }
}

/// Leaky rectifier with one learnt slope per channel.
#[derive(Debug)]
pub(crate) struct PRelu {
    weight: Tensor,
}

impl PRelu {
    pub(crate) fn new(state: &mut State, name: &str, channels: i64) -> PRelu {
        let init = Init::Constant(0.25);
        PRelu { weight: state.parameter(format!("{name}.weight"), &[channels], init) }
    }

    pub(crate) fn forward(&self, x_bchw: &Tensor, pass: &Pass) -> Tensor {
        let weight = self.weight.to_kind(x_bchw.kind());
        if x_bchw.device() != Device::Cpu || !pass.train {
            return x_bchw.prelu(&weight);
        }
        // The same in vector instructions, backward too: PyTorch's own gradient on the CPU goes
        // element by element and takes three times as long as all of this.
        x_bchw.relu().lerp_tensor(x_bchw, &weight.view([1, -1, 1, 1]))
    }
}

/// Matrix product with an optional bias.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(state: &mut State, name: &str, shape: [i64; 2], init: Init) -> Linear {
        Linear { weight: state.parameter(format!("{name}.weight"), &shape, init), bias: None }
    }

    pub(crate) fn with_bias(self, state: &mut State, name: &str, init: Init) -> Linear {
        let outputs = self.weight.size()[0];
        Linear { bias: Some(state.parameter(format!("{name}.bias"), &[outputs], init)), ..self }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| pass.cast(bias));
        pass.cast(x).linear(&pass.cast(&self.weight), bias)
    }
}

/// Normalisation over the last axis, always in f32.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(crate) fn new(state: &mut State, name: &str, dim: i64) -> LayerNorm {
        LayerNorm {
            weight: state.parameter(format!("{name}.weight"), &[dim], Init::Constant(1.0)),
            bias: state.parameter(format!("{name}.bias"), &[dim], Init::Constant(0.0)),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let dim = self.weight.size();
        x.to_kind(Kind::Float).layer_norm(dim, Some(&self.weight), Some(&self.bias), 1e-5, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::{Conv2d, ConvShape};
    use crate::testing::{check_close, pass, random, with_gradients};

    #[test]
    fn prelu_and_its_gradients_equal_pytorch_s() {
        let mut state = State::new(Device::Cpu, Some(0));
        let layer = PRelu::new(&mut state, "prelu", 5);
        let slopes = Tensor::from_slice(&[0.25f32, -0.5, 0.0, 1.0, 1.75]);
        tch::no_grad(|| layer.weight.shallow_clone().copy_(&slopes));
        let x = random(&[2, 5, 4, 4], "x");
        let train = pass(Precision::F32);
        let found = with_gradients(&x, &layer.weight, |x| layer.forward(x, &train));
        let expected = with_gradients(&x, &layer.weight, |x| x.prelu(&layer.weight));
        check_close(&found, &expected, 1e-6);
        let at_zero = with_gradients(&x.zeros_like(), &layer.weight, |x| layer.forward(x, &train));
        let expected = with_gradients(&x.zeros_like(), &layer.weight, |x| x.prelu(&layer.weight));
        assert_eq!(at_zero[1], expected[1]);
    }

    #[test]
    fn bf16_keeps_master_weights_and_their_gradients_in_f32() {
        let mut state = State::new(Device::Cpu, Some(0));
        let shape = ConvShape::three(3, 4, 1);
        let conv = Conv2d::new(&mut state, "c", shape, Init::Constant(0.1));
        let bn = BatchNorm::new(&mut state, "b", 4);
        let prelu = PRelu::new(&mut state, "p", 4);
        let pass = pass(Precision::Bf16);
        let x = random(&[2, 3, 5, 5], "x");
        let y = prelu.forward(&bn.forward(&conv.forward(&x, &pass), &pass), &pass);
        assert_eq!(y.kind(), Kind::BFloat16);
        y.sum(Kind::Float).backward();
        for entry in state.entries().iter().filter(|entry| entry.trainable) {
            assert_eq!(entry.tensor.kind(), Kind::Float, "{}", entry.key);
            assert_eq!(entry.tensor.grad().kind(), Kind::Float, "{}", entry.key);
        }
        let counted = state.entries().iter().find(|entry| entry.tensor.kind() == Kind::Int64);
        assert_eq!(counted.unwrap().tensor.int64_value(&[]), 1);
    }

    #[test]
    fn evaluation_leaves_running_statistics_alone() {
        let mut state = State::new(Device::Cpu, Some(0));
        let bn = BatchNorm::new(&mut state, "bn", 2);
        let x = random(&[3, 2, 4, 4], "x");
        let eval = Pass { train: false, ..pass(Precision::F32) };
        // Mean 0 and variance 1 at first: the input comes back but for eps.
        check_close(&[bn.forward(&x, &eval)], &[x], 1e-4);
        assert_eq!(bn.num_batches_tracked.int64_value(&[]), 0);
        assert_eq!(bn.running_var.double_value(&[0]), 1.0);
    }
}
