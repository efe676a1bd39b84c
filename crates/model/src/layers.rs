//! The layers that the networks are made of.

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

/// Two-dimensional convolution.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    groups: i64,
}

/// The shape of a [`Conv2d`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
    pub(crate) groups: i64,
}

impl ConvShape {
    /// 3×3 keeping the size at stride 1.
    pub(crate) fn three(inputs: i64, outputs: i64, stride: i64) -> ConvShape {
        ConvShape { inputs, outputs, kernel: 3, stride, padding: 1, groups: 1 }
    }

    /// 1×1.
    pub(crate) fn one(inputs: i64, outputs: i64, stride: i64) -> ConvShape {
        ConvShape { inputs, outputs, kernel: 1, stride, padding: 0, groups: 1 }
    }

    pub(crate) fn grouped(self, groups: i64) -> ConvShape {
        ConvShape { groups, ..self }
    }

    pub(crate) fn weight(&self) -> [i64; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }
}

impl Conv2d {
    pub(crate) fn new(state: &mut State, name: &str, shape: ConvShape, init: Init) -> Conv2d {
        let weight = state.parameter(format!("{name}.weight"), &shape.weight(), init);
        let ConvShape { stride, padding, groups, .. } = shape;
        Conv2d { weight, bias: None, stride, padding, groups }
    }

    /// With a bias, both as PyTorch starts them.
    pub(crate) fn with_bias(state: &mut State, name: &str, shape: ConvShape) -> Conv2d {
        let fan_in = shape.weight()[1..].iter().product();
        let init = Init::torch_default(fan_in);
        let conv = Conv2d::new(state, name, shape, init);
        let bias = state.parameter(format!("{name}.bias"), &[shape.outputs], init);
        Conv2d { bias: Some(bias), ..conv }
    }

    pub(crate) fn forward(&self, x_bchw: &Tensor, pass: &Pass) -> Tensor {
        let on_cpu = x_bchw.device() == Device::Cpu;
        if on_cpu && pass.precision == Precision::Bf16 && self.groups > 1 {
            return self.grouped_bf16_on_cpu(x_bchw, pass);
        }
        let [_, inputs, height, _] = self.shape();
        if on_cpu && pass.train && height == 1 && self.stride > 1 && inputs < LANES {
            // oneDNN's gradient at such a weight writes past its end: plain PyTorch crashes on it.
            let x_bchw = x_bchw.slice(2, None, None, self.stride).slice(3, None, None, self.stride);
            return self.convolve(&x_bchw, &self.weight, [1, 1], pass);
        }
        self.convolve(x_bchw, &self.weight, [self.stride, self.groups], pass)
    }

    /// oneDNN's bf16 kernels are several times slower than they could be on two grouped shapes.
    fn grouped_bf16_on_cpu(&self, x_bchw: &Tensor, pass: &Pass) -> Tensor {
        let [outputs, per_group, ..] = self.shape();
        if per_group == 1 && self.stride > 1 {
            // It has no kernel for this one's gradient at the input: 126 ms where f32 takes 39.
            let full = pass.full();
            let y = self.convolve(x_bchw, &self.weight, [self.stride, self.groups], &full);
            return pass.cast(&y);
        }
        let merged = LANES / per_group;
        let is_square = outputs == per_group * self.groups;
        if per_group > 1 && merged > 1 && is_square && self.groups % merged == 0 {
            // Groups narrower than a register are taken together, with zeros between them: the
            // same sums in half the time (MobileFaceNet's second layer: 204 ms, now 98).
            let weight = block_diagonal(&pass.cast(&self.weight), merged);
            return self.convolve(x_bchw, &weight, [self.stride, self.groups / merged], pass);
        }
        self.convolve(x_bchw, &self.weight, [self.stride, self.groups], pass)
    }

    /// Outputs, inputs of a group, height and width of the kernel.
    fn shape(&self) -> [i64; 4] {
        self.weight.size().try_into().expect("a convolution's weight has four axes")
    }

    fn convolve(
        &self,
        x: &Tensor,
        weight: &Tensor,
        stride_groups: [i64; 2],
        pass: &Pass,
    ) -> Tensor {
        let [stride, groups] = stride_groups;
        pass.cast(x).convolution(
            &pass.cast(weight),
            self.bias.as_ref().map(|bias| pass.cast(bias)),
            [stride; 2],
            [self.padding; 2],
            [1, 1],
            false,
            [0, 0],
            groups,
        )
    }
}

/// f32 numbers of an AVX-512 register.
const LANES: i64 = 16;

/// The weight of a convolution with `merged` times fewer groups that gives the same.
fn block_diagonal(weight: &Tensor, merged: i64) -> Tensor {
    let [outputs, per_group, height, width] =
        weight.size().try_into().expect("a convolution's weight has four axes");
    let options = (weight.kind(), weight.device());
    // Output o belongs to group o / per_group, which is the block o / per_group % merged.
    let blocks = Tensor::eye(merged, options)
        .repeat_interleave_self_int(per_group, 0, None)
        .repeat([outputs / (merged * per_group), 1])
        .view([outputs, merged, 1, 1, 1]);
    (weight.unsqueeze(1) * blocks).view([outputs, merged * per_group, height, width])
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

    fn pass(precision: Precision) -> Pass {
        Pass { train: true, precision, noise_seed: 0 }
    }

    /// Values that bf16 holds exactly, so that both ways start from the same.
    fn random(shape: &[i64], name: &str) -> Tensor {
        let n = shape.iter().product::<i64>() as usize;
        let values = Init::Normal { std: 1.0 }.values(1, name, n);
        let values = Tensor::from_slice(&values).view(shape);
        values.to_kind(Kind::BFloat16).to_kind(Kind::Float)
    }

    /// Output, gradient at the input and gradient at the parameter, for a random gradient above.
    fn with_gradients(
        x: &Tensor,
        parameter: &Tensor,
        layer: impl Fn(&Tensor) -> Tensor,
    ) -> [Tensor; 3] {
        let x = x.detach().set_requires_grad(true);
        let mut old = parameter.grad();
        if old.defined() {
            let _ = old.zero_();
        }
        let y = layer(&x).to_kind(Kind::Float);
        (&y * random(&y.size(), "gradient")).sum(Kind::Float).backward();
        [y.detach(), x.grad(), parameter.grad().copy()]
    }

    #[track_caller]
    fn check_close(found: &[Tensor], expected: &[Tensor], tolerance: f64) {
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs().max().double_value(&[]);
            let error = difference / expected.abs().max().double_value(&[]);
            assert!(error < tolerance, "tensor {i} is off by {error}");
        }
    }

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

    #[track_caller]
    fn check_conv(shape: ConvShape, side: i64, precision: Precision, tolerance: f64) {
        let mut state = State::new(Device::Cpu, Some(0));
        let layer = Conv2d::new(&mut state, "conv", shape, Init::Constant(0.0));
        let weight = random(&shape.weight(), "weight");
        tch::no_grad(|| layer.weight.shallow_clone().copy_(&weight));
        let x = random(&[2, shape.inputs, side, side], "x");
        let found = with_gradients(&x, &layer.weight, |x| layer.forward(x, &pass(precision)));
        let expected = with_gradients(&x, &layer.weight, |x| {
            let (stride, padding) = ([shape.stride; 2], [shape.padding; 2]);
            x.conv2d(&layer.weight, None::<Tensor>, stride, padding, [1, 1], shape.groups)
        });
        check_close(&found, &expected, tolerance);
    }

    /// Half a unit in the last of bf16's eight bits, twice: of the output and of a gradient.
    const BF16: f64 = 1.0 / 128.0;

    #[test]
    fn narrow_groups_taken_together_give_the_same() {
        check_conv(ConvShape::three(32, 32, 1).grouped(16), 6, Precision::Bf16, BF16);
        check_conv(ConvShape::three(64, 64, 2).grouped(16), 6, Precision::Bf16, BF16);
    }

    #[test]
    fn a_strided_depthwise_convolution_in_bf16_gives_the_same() {
        check_conv(ConvShape::three(24, 24, 2).grouped(24), 7, Precision::Bf16, BF16);
    }

    #[test]
    fn a_narrow_strided_pointwise_convolution_gives_the_same() {
        check_conv(ConvShape::one(8, 16, 2), 7, Precision::F32, 1e-5);
        check_conv(ConvShape::one(8, 16, 2), 8, Precision::F32, 1e-5);
    }

    #[test]
    fn bf16_keeps_master_weights_and_their_gradients_in_f32() {
        let mut state = State::new(Device::Cpu, Some(0));
        let conv = Conv2d::new(&mut state, "c", ConvShape::three(3, 4, 1), Init::Constant(0.1));
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
