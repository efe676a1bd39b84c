//! MobileFaceNet: inverted residuals with depthwise convolutions.

// B = batch, E = embedding.

use tch::Tensor;

use crate::{
    conv::ConvShape,
    graph::{Graph, Value},
    init::Init,
    layers::{BatchNorm, Linear, PRelu, Pass},
    normed::{ConvNorm, LinearNorm},
    state::State,
};

/// Channels before the pooling.
const SEPARATED: i64 = 512;

#[derive(Debug)]
pub(crate) struct MobileFaceNet {
    layers: Vec<Layer>,
    conv_sep: ConvBlock,
    gdc: ConvNorm,
    linear: LinearNorm,
}

#[derive(Debug)]
enum Layer {
    Conv(ConvBlock),
    /// One block that halves the side.
    Down(Box<DepthWise>),
    /// Blocks with a shortcut each.
    Residual(Vec<DepthWise>),
}

impl MobileFaceNet {
    pub(crate) fn new(
        state: &mut State,
        blocks: [usize; 4],
        scale: i64,
        embedding: i64,
    ) -> MobileFaceNet {
        let (narrow, wide) = (64 * scale, 128 * scale);
        let stem = ConvBlock::new(state, "layers.0", ConvShape::three(3, narrow, 2));
        let second = match blocks[0] {
            // 64 groups, whatever the width: not depthwise.
            1 => Layer::Conv(ConvBlock::new(
                state,
                "layers.1",
                ConvShape::three(narrow, narrow, 1).grouped(64),
            )),
            n => residual(state, "layers.1", n, narrow, 128),
        };
        let layers = vec![
            Layer::Conv(stem),
            second,
            down(state, "layers.2", [narrow, 128, narrow]),
            residual(state, "layers.3", blocks[1], narrow, 128),
            down(state, "layers.4", [narrow, 256, wide]),
            residual(state, "layers.5", blocks[2], wide, 256),
            down(state, "layers.6", [wide, 512, wide]),
            residual(state, "layers.7", blocks[3], wide, 256),
        ];
        let conv_sep = ConvBlock::new(state, "conv_sep", ConvShape::one(wide, SEPARATED, 1));
        let pool = ConvShape { kernel: 7, padding: 0, ..ConvShape::three(SEPARATED, SEPARATED, 1) };
        let gdc = linear_block(state, "features.layers.0", pool.grouped(SEPARATED));
        let shape = [embedding, SEPARATED];
        let linear = Linear::new(state, "features.layers.2", shape, Init::kaiming_fan_out(&shape));
        let bn = BatchNorm::new(state, "features.layers.3", embedding);
        MobileFaceNet { layers, conv_sep, gdc, linear: LinearNorm::new(linear, bn) }
    }

    /// Parts that follow one another: the layers, and what comes after them.
    pub(crate) fn n_parts(&self) -> usize {
        self.layers.len() + 1
    }

    /// One part; all of them take `[B, 3, 112, 112]` to `[B, E]`. From `conv_sep` on always f32, as in
    /// the reference.
    pub(crate) fn part(&self, index: usize, x: &Tensor, pass: &Pass) -> Tensor {
        if let Some(layer) = self.layers.get(index) {
            return match layer {
                Layer::Conv(block) => block.forward(x, pass),
                Layer::Down(block) => block.forward(x, pass),
                Layer::Residual(blocks) => {
                    blocks.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, pass) + x)
                }
            };
        }
        let full = pass.full();
        let x = self.gdc.forward(&self.conv_sep.forward(x, &full), &full).flatten(1, -1);
        self.linear.forward(&x, &full)
    }

    pub(crate) fn fold(&mut self) {
        for layer in &mut self.layers {
            match layer {
                Layer::Conv(block) => block.conv.fold(),
                Layer::Down(block) => block.fold(),
                Layer::Residual(blocks) => blocks.iter_mut().for_each(DepthWise::fold),
            }
        }
        self.conv_sep.conv.fold();
        self.gdc.fold();
        self.linear.fold(None);
    }

    pub(crate) fn emit(&self, graph: &mut Graph, images: &Value) -> Value {
        let mut x = images.clone();
        for layer in &self.layers {
            x = match layer {
                Layer::Conv(block) => block.emit(graph, &x),
                Layer::Down(block) => block.emit(graph, &x),
                Layer::Residual(blocks) => blocks.iter().fold(x, |x, block| {
                    let y = block.emit(graph, &x);
                    graph.add(&format!("{}.sum", block.name), &y, &x)
                }),
            };
        }
        let x = self.conv_sep.emit(graph, &x);
        let x = self.gdc.emit(graph, &x);
        let flat = graph.flatten("flatten", &x);
        self.linear.emit(graph, &flat)
    }
}

fn down(state: &mut State, name: &str, channels: [i64; 3]) -> Layer {
    Layer::Down(Box::new(DepthWise::new(state, name, channels, 2)))
}

fn residual(state: &mut State, name: &str, n: usize, channels: i64, groups: i64) -> Layer {
    let block =
        |i| DepthWise::new(state, &format!("{name}.layers.{i}"), [channels, groups, channels], 1);
    Layer::Residual((0..n).map(block).collect())
}

/// Convolution, normalisation, activation.
#[derive(Debug)]
struct ConvBlock {
    conv: ConvNorm,
    prelu: PRelu,
}

impl ConvBlock {
    fn new(state: &mut State, name: &str, shape: ConvShape) -> ConvBlock {
        let conv = linear_block(state, name, shape);
        let prelu = PRelu::new(state, &format!("{name}.layers.2"), shape.outputs);
        ConvBlock { conv, prelu }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        self.conv.forward_rectified(x, &self.prelu, pass)
    }

    fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let y = self.conv.emit(graph, x);
        self.prelu.emit(graph, &y)
    }
}

/// Convolution and normalisation.
fn linear_block(state: &mut State, name: &str, shape: ConvShape) -> ConvNorm {
    let init = Init::kaiming_fan_out(&shape.weight());
    let names = [format!("{name}.layers.0"), format!("{name}.layers.1")];
    ConvNorm::new(state, names.each_ref().map(String::as_str), shape, init)
}

/// Expand by 1×1, convolve each channel by 3×3, project by 1×1.
#[derive(Debug)]
struct DepthWise {
    name: String,
    expand: ConvBlock,
    depthwise: ConvBlock,
    project: ConvNorm,
}

impl DepthWise {
    /// `channels`: of the input, between, of the output.
    fn new(state: &mut State, name: &str, channels: [i64; 3], stride: i64) -> DepthWise {
        let [inputs, between, outputs] = channels;
        let depthwise = ConvShape::three(between, between, stride).grouped(between);
        DepthWise {
            name: name.to_owned(),
            expand: ConvBlock::new(
                state,
                &format!("{name}.layers.0"),
                ConvShape::one(inputs, between, 1),
            ),
            depthwise: ConvBlock::new(state, &format!("{name}.layers.1"), depthwise),
            project: linear_block(
                state,
                &format!("{name}.layers.2"),
                ConvShape::one(between, outputs, 1),
            ),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let x = self.depthwise.forward(&self.expand.forward(x, pass), pass);
        self.project.forward(&x, pass)
    }

    fn fold(&mut self) {
        self.expand.conv.fold();
        self.depthwise.conv.fold();
        self.project.fold();
    }

    fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let y = self.expand.emit(graph, x);
        let y = self.depthwise.emit(graph, &y);
        self.project.emit(graph, &y)
    }
}
