//! The layers that the networks are made of, but for convolutions.

// B = batch, C = channels, H, W = height and width, D = features.

use tch::{Kind, Tensor};

use crate::{
    batch_norm::{self, Normalised, Parameters},
    graph::{Attribute, Graph, Value},
    init::Init,
    precision::Precision,
    state::State,
};

/// How one forward pass is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// Batch statistics instead of running ones, and stochastic layers active.
    pub(crate) train: bool,
    /// Whether a training pass moves the running statistics, as the first one over a batch does.
    pub(crate) moves_statistics: bool,
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
            Precision::F16 => tensor.to_kind(Kind::Half),
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
    name: String,
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
            name: name.to_owned(),
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

    /// What it does in evaluation, `x * scale + shift` per channel: both `[C]` in f64.
    pub(crate) fn scale_and_shift(&self) -> (Tensor, Tensor) {
        let double = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
        let scale = double(&self.weight) / (double(&self.running_var) + self.eps).sqrt();
        let shift = double(&self.bias) - double(&self.running_mean) * &scale;
        (scale, shift)
    }

    /// Keeps the shape.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let name = &self.name;
        if graph.plain_normalisation {
            let mut sides = vec![1; x.shape.len()];
            sides[0] = -1;
            let (scale, shift) = self.scale_and_shift();
            let scale = graph.numbers(format!("{name}.scale"), &scale.view(&sides[..]));
            let shift = graph.numbers(format!("{name}.shift"), &shift.view(&sides[..]));
            let scaled = format!("{name}.scaled");
            let scaled = graph.node("Mul", &scaled, &[&x.name, &scale], Vec::new(), &x.shape);
            return graph.node("Add", name, &[&scaled.name, &shift], Vec::new(), &x.shape);
        }
        let parts = [
            ("weight", &self.weight),
            ("bias", &self.bias),
            ("running_mean", &self.running_mean),
            ("running_var", &self.running_var),
        ];
        let parts = parts.map(|(part, tensor)| graph.numbers(format!("{name}.{part}"), tensor));
        let [weight, bias, mean, var] = parts.each_ref().map(String::as_str);
        let eps = vec![("epsilon", Attribute::Float(self.eps as f32))];
        let inputs = [&x.name, weight, bias, mean, var];
        graph.node("BatchNormalization", name, &inputs, eps, &x.shape)
    }

    /// Normalises, and rectifies what comes out.
    pub(crate) fn forward_rectified(&self, x: &Tensor, prelu: &PRelu, pass: &Pass) -> Tensor {
        if pass.train && batch_norm::takes(x) {
            return self.normalise(x, Some(&prelu.weight), pass);
        }
        prelu.forward(&self.forward(x, pass))
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        if pass.train && batch_norm::takes(x) {
            return self.normalise(x, None, pass);
        }
        // In training the batch's own statistics are used, whether or not there are running ones.
        let with_running = !pass.train || pass.moves_statistics;
        if pass.train && with_running {
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            with_running.then_some(&self.running_mean),
            with_running.then_some(&self.running_var),
            pass.train,
            MOMENTUM,
            self.eps,
            true,
        )
    }
}

impl BatchNorm {
    /// In training on a CPU.
    fn normalise(&self, x_bchw: &Tensor, slopes: Option<&Tensor>, pass: &Pass) -> Tensor {
        let (weight, bias) = (&self.weight, &self.bias);
        let parameters = Parameters { weight, bias, slopes, eps: self.eps };
        let Normalised { y_bchw, mean_c, variance_c } = batch_norm::normalise(x_bchw, &parameters);
        if pass.moves_statistics {
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
            tch::no_grad(|| {
                let _ = self.running_mean.shallow_clone().lerp_(&mean_c, MOMENTUM);
                let _ = self.running_var.shallow_clone().lerp_(&variance_c, MOMENTUM);
            });
        }
        y_bchw
    }
}

/// Leaky rectifier with one learnt slope per channel.
#[derive(Debug)]
pub(crate) struct PRelu {
    name: String,
    weight: Tensor,
}

impl PRelu {
    pub(crate) fn new(state: &mut State, name: &str, channels: i64) -> PRelu {
        let init = Init::Constant(0.25);
        let weight = state.parameter(format!("{name}.weight"), &[channels], init);
        PRelu { name: name.to_owned(), weight }
    }

    /// Keeps the shape `[C, H, W]`.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let slopes = self.weight.view([-1, 1, 1]);
        let slopes = graph.numbers(format!("{}.weight", self.name), &slopes);
        graph.node("PRelu", &self.name, &[&x.name, &slopes], Vec::new(), &x.shape)
    }

    /// In training on a CPU, where PyTorch's own gradient goes element by element, this is a part of
    /// [`BatchNorm::forward_rectified`].
    pub(crate) fn forward(&self, x_bchw: &Tensor) -> Tensor {
        x_bchw.prelu(&self.weight.to_kind(x_bchw.kind()))
    }
}

/// Matrix product with an optional bias.
#[derive(Debug)]
pub(crate) struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(state: &mut State, name: &str, shape: [i64; 2], init: Init) -> Linear {
        let weight = state.parameter(format!("{name}.weight"), &shape, init);
        Linear { name: name.to_owned(), weight, bias: None }
    }

    pub(crate) fn with_bias(self, state: &mut State, name: &str, init: Init) -> Linear {
        let outputs = self.weight.size()[0];
        Linear { bias: Some(state.parameter(format!("{name}.bias"), &[outputs], init)), ..self }
    }

    /// Multiplies each output by `scale` and adds `shift`, for good.
    pub(crate) fn absorb(&mut self, scale: &Tensor, shift: &Tensor) {
        let weight = self.weight.detach().to_kind(Kind::Double) * scale.unsqueeze(1);
        self.weight = weight.to_kind(Kind::Float);
        self.add_bias(scale, shift);
    }

    /// The same of its inputs, which are channels flattened: `[C, H, W]` in this order.
    pub(crate) fn absorb_before(&mut self, scale: &Tensor, shift: &Tensor) {
        let [outputs, inputs] = self.weight.size()[..] else { return };
        let area = inputs / scale.size()[0];
        let over_area =
            |per_channel: &Tensor| per_channel.repeat_interleave_self_int(area, 0, None);
        let weight = self.weight.detach().to_kind(Kind::Double);
        let shift = weight.mv(&over_area(shift));
        self.weight = (weight * over_area(scale)).to_kind(Kind::Float);
        let ones = Tensor::ones([outputs], (Kind::Double, shift.device()));
        self.add_bias(&ones, &shift);
    }

    fn add_bias(&mut self, scale: &Tensor, shift: &Tensor) {
        let bias = match &self.bias {
            Some(bias) => bias.detach().to_kind(Kind::Double) * scale + shift,
            None => shift.shallow_clone(),
        };
        self.bias = Some(bias.to_kind(Kind::Float));
    }

    /// Over the last axis.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let (name, sizes) = (&self.name, self.weight.size());
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = sizes[0];
        }
        graph.macs += (shape.iter().product::<i64>() * sizes[1]) as u64;
        let bias = self.bias.as_ref();
        if shape.len() == 1 {
            let weight = graph.numbers(format!("{name}.weight"), &self.weight);
            let bias = bias.map(|bias| graph.numbers(format!("{name}.bias"), bias));
            let inputs: Vec<&str> = [Some(&x.name), Some(&weight), bias.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            let transposed = vec![("transB", Attribute::Int(1))];
            return graph.node("Gemm", name, &inputs, transposed, &shape);
        }
        // Gemm knows two axes only.
        let weight = graph.numbers(format!("{name}.weight"), &self.weight.transpose(0, 1));
        let product = if bias.is_some() { format!("{name}.product") } else { name.clone() };
        let product = graph.node("MatMul", &product, &[&x.name, &weight], Vec::new(), &shape);
        let Some(bias) = bias else { return product };
        let bias = graph.numbers(format!("{name}.bias"), bias);
        graph.node("Add", name, &[&product.name, &bias], Vec::new(), &shape)
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| pass.cast(bias));
        pass.cast(x).linear(&pass.cast(&self.weight), bias)
    }
}

/// PyTorch's default, which the reference keeps.
const LAYER_EPS: f64 = 1e-5;

/// Normalisation over the last axis, always in f32.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(crate) fn new(state: &mut State, name: &str, dim: i64) -> LayerNorm {
        LayerNorm {
            name: name.to_owned(),
            weight: state.parameter(format!("{name}.weight"), &[dim], Init::Constant(1.0)),
            bias: state.parameter(format!("{name}.bias"), &[dim], Init::Constant(0.0)),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let dim = self.weight.size();
        x.to_kind(Kind::Float).layer_norm(
            dim,
            Some(&self.weight),
            Some(&self.bias),
            LAYER_EPS,
            true,
        )
    }

    /// Keeps the shape.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let weight = graph.numbers(format!("{}.weight", self.name), &self.weight);
        let bias = graph.numbers(format!("{}.bias", self.name), &self.bias);
        let attributes =
            vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(LAYER_EPS as f32))];
        let inputs = [&x.name, weight.as_str(), bias.as_str()];
        graph.node("LayerNormalization", &self.name, &inputs, attributes, &x.shape)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::conv::{Conv2d, ConvShape};
    use crate::state::Start;
    use crate::testing::{check_close, pass, random};

    #[test]
    fn bf16_and_f16_keep_master_weights_and_their_gradients_in_f32() {
        check_master_weights(Precision::Bf16, Kind::BFloat16);
        check_master_weights(Precision::F16, Kind::Half);
    }

    #[track_caller]
    fn check_master_weights(precision: Precision, kind: Kind) {
        let mut state = State::new(Device::Cpu, Start::Seed(0));
        let shape = ConvShape::three(3, 4, 1);
        let conv = Conv2d::new(&mut state, "c", shape, Init::Constant(0.1));
        let bn = BatchNorm::new(&mut state, "b", 4);
        let prelu = PRelu::new(&mut state, "p", 4);
        let pass = pass(precision);
        let x = random(&[2, 3, 5, 5], "x");
        let y = bn.forward_rectified(&conv.forward(&x, &pass), &prelu, &pass);
        assert_eq!(y.kind(), kind);
        y.sum(Kind::Float).backward();
        for entry in state.entries().iter().filter(|entry| entry.trainable) {
            assert_eq!(entry.tensor.kind(), Kind::Float, "{}", entry.key);
            assert_eq!(entry.tensor.grad().kind(), Kind::Float, "{}", entry.key);
        }
        let counted = state.entries().iter().find(|entry| entry.tensor.kind() == Kind::Int64);
        assert_eq!(counted.unwrap().tensor.int64_value(&[]), 1);
    }

    #[test]
    fn running_statistics_move_as_pytorch_moves_them() {
        let mut state = State::new(Device::Cpu, Start::Seed(0));
        let (bn, prelu) = (BatchNorm::new(&mut state, "bn", 6), PRelu::new(&mut state, "p", 6));
        let options = (Kind::Float, Device::Cpu);
        let (mean, var) = (Tensor::zeros([6], options), Tensor::ones([6], options));
        let train = pass(Precision::F32);
        for x in ["first", "second"].map(|name| random(&[3, 6, 5, 4], name) * 2.0 + 1.0) {
            let (weight, bias) = (Some(&bn.weight), Some(&bn.bias));
            let _ =
                x.batch_norm(weight, bias, Some(&mean), Some(&var), true, MOMENTUM, bn.eps, false);
            let _ = bn.forward_rectified(&x, &prelu, &train);
            let _ = bn.forward(&x, &Pass { moves_statistics: false, ..train });
        }
        check_close(&[bn.running_mean, bn.running_var], &[mean, var], 1e-6);
        assert_eq!(bn.num_batches_tracked.int64_value(&[]), 2);
    }

    #[test]
    fn evaluation_leaves_running_statistics_alone() {
        let mut state = State::new(Device::Cpu, Start::Seed(0));
        let bn = BatchNorm::new(&mut state, "bn", 2);
        let x = random(&[3, 2, 4, 4], "x");
        let eval = Pass { train: false, ..pass(Precision::F32) };
        // Mean 0 and variance 1 at first: the input comes back but for eps.
        check_close(&[bn.forward(&x, &eval)], &[x], 1e-4);
        assert_eq!(bn.num_batches_tracked.int64_value(&[]), 0);
        assert_eq!(bn.running_var.double_value(&[0]), 1.0);
    }
}
