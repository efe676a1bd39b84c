//! Two-dimensional convolution, and ways around the slow spots of its CPU kernels.
//!
//! The times in the comments are milliseconds for 32 images on one core of an AMD Zen 4, forward
//! and backward, with libtorch 2.11.

// B = batch, C = channels, H, W = height and width.

use tch::{Device, Kind, Tensor};

use crate::{
    graph::{Attribute, Graph, Value},
    init::Init,
    layers::Pass,
    precision::Precision,
    state::State,
};

/// Two-dimensional convolution.
#[derive(Debug)]
pub(crate) struct Conv2d {
    name: String,
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
        Conv2d { name: name.to_owned(), weight, bias: None, stride, padding, groups }
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
        if on_cpu && self.groups > 1 {
            match pass.precision {
                Precision::Bf16 => return self.grouped_bf16_on_cpu(x_bchw, pass),
                Precision::F32 if pass.train => {
                    if let Some(y) = self.merged(x_bchw, pass) {
                        return y;
                    }
                }
                _ => {}
            }
        }
        let [_, inputs, height, _] = self.shape();
        if on_cpu && pass.train && height == 1 && self.stride > 1 && inputs < LANES {
            // oneDNN's gradient at such a weight writes past its end: plain PyTorch crashes on it.
            let x_bchw = x_bchw.slice(2, None, None, self.stride).slice(3, None, None, self.stride);
            return self.convolve(&x_bchw, &self.weight, [1, self.groups], pass);
        }
        self.convolve(x_bchw, &self.weight, [self.stride, self.groups], pass)
    }

    /// Multiplies each output channel by `scale` and adds `shift`, for good.
    pub(crate) fn absorb(&mut self, scale: &Tensor, shift: &Tensor) {
        let weight = self.weight.detach().to_kind(Kind::Double) * scale.view([-1, 1, 1, 1]);
        self.weight = weight.to_kind(Kind::Float);
        let bias = match &self.bias {
            Some(bias) => bias.detach().to_kind(Kind::Double) * scale + shift,
            None => shift.shallow_clone(),
        };
        self.bias = Some(bias.to_kind(Kind::Float));
    }

    /// `[C, H, W]` to `[outputs, H', W']`.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let [outputs, per_group, height, width] = self.shape();
        let side = |side: i64, kernel: i64| (side + 2 * self.padding - kernel) / self.stride + 1;
        let shape = [outputs, side(x.shape[1], height), side(x.shape[2], width)];
        graph.macs += (shape.iter().product::<i64>() * per_group * height * width) as u64;
        let mut inputs = vec![graph.numbers(format!("{}.weight", self.name), &self.weight)];
        if let Some(bias) = &self.bias {
            inputs.push(graph.numbers(format!("{}.bias", self.name), bias));
        }
        let attributes = vec![
            ("group", Attribute::Int(self.groups)),
            ("kernel_shape", Attribute::Ints(vec![height, width])),
            ("pads", Attribute::Ints(vec![self.padding; 4])),
            ("strides", Attribute::Ints(vec![self.stride; 2])),
        ];
        let inputs: Vec<&str> =
            std::iter::once(&x.name).chain(&inputs).map(String::as_str).collect();
        graph.node("Conv", &self.name, &inputs, attributes, &shape)
    }

    /// oneDNN's bf16 kernels are several times slower than they could be on two grouped shapes.
    fn grouped_bf16_on_cpu(&self, x_bchw: &Tensor, pass: &Pass) -> Tensor {
        let [_, per_group, ..] = self.shape();
        if per_group == 1 && self.stride > 1 {
            // It has no kernel for this one's gradient at the input: 126 ms where f32 takes 39.
            let full = pass.full();
            let y = self.convolve(x_bchw, &self.weight, [self.stride, self.groups], &full);
            return pass.cast(&y);
        }
        let merged = self.merged(x_bchw, pass);
        merged.unwrap_or_else(|| {
            self.convolve(x_bchw, &self.weight, [self.stride, self.groups], pass)
        })
    }

    /// Groups narrower than a register are taken together, with zeros between them: the same sums in
    /// half the time (MobileFaceNet's second layer: in bf16 204 ms, now 98). In f32, with as many
    /// channels together as AVX2 has lanes, most of that is saved at the gradient of the weight.
    fn merged(&self, x_bchw: &Tensor, pass: &Pass) -> Option<Tensor> {
        let [outputs, per_group, ..] = self.shape();
        // Wider ones than AVX2's cost f32 more products than they save, with AVX-512 too.
        let lanes = if pass.precision == Precision::F32 { LANES / 2 } else { LANES };
        let merged = lanes / per_group;
        let is_square = outputs == per_group * self.groups;
        if per_group == 1 || merged <= 1 || !is_square || self.groups % merged != 0 {
            return None;
        }
        let weight = block_diagonal(&pass.cast(&self.weight), merged);
        Some(self.convolve(x_bchw, &weight, [self.stride, self.groups / merged], pass))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Start;
    use crate::testing::{check_close, pass, random, with_gradients};

    /// A layer of `shape` with random weights, and random images for it.
    fn layer_and_images(shape: ConvShape, side: i64) -> (Conv2d, Tensor) {
        let mut state = State::new(Device::Cpu, Start::Seed(0));
        let layer = Conv2d::new(&mut state, "conv", shape, Init::Constant(0.0));
        let weight = random(&shape.weight(), "weight");
        tch::no_grad(|| layer.weight.shallow_clone().copy_(&weight));
        (layer, random(&[IMAGES, shape.inputs, side, side], "x"))
    }

    fn plain(shape: ConvShape, x: &Tensor, weight: &Tensor) -> Tensor {
        let (stride, padding) = ([shape.stride; 2], [shape.padding; 2]);
        x.conv2d(weight, None::<Tensor>, stride, padding, [1, 1], shape.groups)
    }

    #[track_caller]
    fn check_in_f32(shape: ConvShape, side: i64) {
        let (layer, x) = layer_and_images(shape, side);
        let found = with_gradients(&x, &layer.weight, |x| layer.forward(x, &pass(Precision::F32)));
        let expected = with_gradients(&x, &layer.weight, |x| plain(shape, x, &layer.weight));
        check_close(&found, &expected, 1e-5);
    }

    /// Half a unit in the last of the eight bits of a bf16 number, relative to the number.
    const ROUNDING: f64 = 1.0 / 256.0;

    const IMAGES: i64 = 2;

    /// Compares each number with the f32 convolution of the same (exactly representable) numbers.
    ///
    /// Inputs are exact in bf16, and products are summed in f32, so only stored sums are rounded. A
    /// kernel stores an output once. One that lowers the convolution to matrix products adds the
    /// gradient of an input from the kernel's `k * k` places, and the gradient of a weight from
    /// image after image, and stores each of these partial sums. A partial sum is at most the sum of
    /// its absolute terms, so `n` roundings move a number by at most `n * ROUNDING` times that sum.
    /// This holds for every processor, whichever kernel it takes.
    #[track_caller]
    fn check_in_bf16(shape: ConvShape, side: i64) {
        let (layer, x) = layer_and_images(shape, side);
        let found = with_gradients(&x, &layer.weight, |x| layer.forward(x, &pass(Precision::Bf16)));
        let expected = with_gradients(&x, &layer.weight, |x| plain(shape, x, &layer.weight));
        let terms = sums_of_absolute_terms(shape, &x, &layer.weight);
        let roundings = [1, shape.kernel * shape.kernel, IMAGES];
        for i in 0..3 {
            let bound = &terms[i] * (roundings[i] as f64 * ROUNDING) + 1e-5;
            let excess = ((&found[i] - &expected[i]).abs() - bound).max().double_value(&[]);
            assert!(excess <= 0.0, "tensor {i} is off by {excess} more than rounding explains");
        }
    }

    /// What [`with_gradients`] returns if every number that goes in is made positive.
    fn sums_of_absolute_terms(shape: ConvShape, x: &Tensor, weight: &Tensor) -> [Tensor; 3] {
        let x = x.abs().set_requires_grad(true);
        let weight = weight.detach().abs().set_requires_grad(true);
        let y = plain(shape, &x, &weight);
        (&y * random(&y.size(), "gradient").abs()).sum(Kind::Float).backward();
        [y.detach(), x.grad(), weight.grad()]
    }

    #[test]
    fn narrow_groups_taken_together_give_the_same() {
        check_in_bf16(ConvShape::three(32, 32, 1).grouped(16), 6);
        check_in_bf16(ConvShape::three(64, 64, 2).grouped(16), 6);
        check_in_f32(ConvShape::three(32, 32, 1).grouped(16), 6);
        check_in_f32(ConvShape::three(64, 64, 2).grouped(16), 6);
    }

    #[test]
    fn a_strided_depthwise_convolution_in_bf16_gives_the_same() {
        check_in_bf16(ConvShape::three(24, 24, 2).grouped(24), 7);
    }

    #[test]
    fn a_narrow_strided_pointwise_convolution_gives_the_same() {
        check_in_f32(ConvShape::one(8, 16, 2), 7);
        check_in_f32(ConvShape::one(8, 16, 2), 8);
    }
}
