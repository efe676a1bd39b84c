//! `IResNet`: residual blocks that start with a batch normalisation and end without activation.

// B = batch, E = embedding.

use tch::Tensor;

use crate::{
    IMAGE_SIZE,
    conv::ConvShape,
    graph::{Graph, Value},
    init::Init,
    layers::{BatchNorm, Linear, PRelu, Pass},
    normed::{ConvNorm, LinearNorm},
    state::State,
};

/// The reference draws every convolution from N(0, 0.1).
const CONV: Init = Init::Normal { std: 0.1 };

#[derive(Debug)]
pub(crate) struct IResNet {
    conv1: ConvNorm,
    prelu: PRelu,
    blocks: Vec<Block>,
    /// Gone once it is folded into `fc`.
    bn2: Option<BatchNorm>,
    fc: LinearNorm,
}

impl IResNet {
    pub(crate) fn new(
        state: &mut State,
        layers: [usize; 4],
        widths: [i64; 4],
        embedding: i64,
    ) -> IResNet {
        let conv1 = ConvShape::three(3, widths[0], 1);
        let conv1 = ConvNorm::new(state, ["conv1", "bn1"], conv1, CONV);
        let prelu = PRelu::new(state, "prelu", widths[0]);
        let mut blocks = Vec::new();
        let mut inputs = widths[0];
        for (stage, (&n_blocks, &outputs)) in layers.iter().zip(&widths).enumerate() {
            for i in 0..n_blocks {
                let name = format!("layer{}.{i}", stage + 1);
                blocks.push(Block::new(state, name, inputs, outputs, i == 0));
                inputs = outputs;
            }
        }
        let bn2 = Some(BatchNorm::new(state, "bn2", inputs));
        // Four stages halve the side four times.
        let flat = inputs * (IMAGE_SIZE / 16) * (IMAGE_SIZE / 16);
        let init = Init::torch_default(flat);
        let fc = Linear::new(state, "fc", [embedding, flat], init).with_bias(state, "fc", init);
        let features = BatchNorm::frozen_weight(state, "features", embedding);
        IResNet { conv1, prelu, blocks, bn2, fc: LinearNorm::new(fc, features) }
    }

    /// Parts that follow one another: the first layer, the blocks, the last layers.
    pub(crate) fn n_parts(&self) -> usize {
        1 + self.blocks.len() + 1
    }

    /// One part; all of them take `[B, 3, 112, 112]` to `[B, E]`. The last two layers are always f32,
    /// as in the reference.
    pub(crate) fn part(&self, index: usize, x: &Tensor, pass: &Pass) -> Tensor {
        if index == 0 {
            return self.conv1.forward_rectified(x, &self.prelu, pass);
        }
        if let Some(block) = self.blocks.get(index - 1) {
            return block.forward(x, pass);
        }
        let x = self.bn2.as_ref().map_or_else(|| x.shallow_clone(), |bn2| bn2.forward(x, pass));
        self.fc.forward(&x.flatten(1, -1), &pass.full())
    }

    /// Folds what can be: a normalisation before a padded convolution cannot, as zeros of the
    /// padding are not normalised.
    pub(crate) fn fold(&mut self) {
        self.conv1.fold();
        self.blocks.iter_mut().for_each(Block::fold);
        self.fc.fold(self.bn2.take().as_ref());
    }

    pub(crate) fn emit(&self, graph: &mut Graph, images: &Value) -> Value {
        let x = self.conv1.emit(graph, images);
        let mut x = self.prelu.emit(graph, &x);
        for block in &self.blocks {
            x = block.emit(graph, &x);
        }
        if let Some(bn2) = &self.bn2 {
            x = bn2.emit(graph, &x);
        }
        let flat = graph.flatten("flatten", &x);
        self.fc.emit(graph, &flat)
    }
}

#[derive(Debug)]
struct Block {
    name: String,
    bn1: BatchNorm,
    conv1: ConvNorm,
    prelu: PRelu,
    conv2: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Block {
    /// The first block of a stage halves the side and has a convolution in its shortcut.
    fn new(state: &mut State, name: String, inputs: i64, outputs: i64, is_first: bool) -> Block {
        let stride = if is_first { 2 } else { 1 };
        let part = |part: &str| format!("{name}.{part}");
        let conv = |state: &mut State, names: [&str; 2], shape| {
            ConvNorm::new(state, [&part(names[0]), &part(names[1])], shape, CONV)
        };
        let three = ConvShape::three;
        let bn1 = BatchNorm::new(state, &part("bn1"), inputs);
        let conv1 = conv(state, ["conv1", "bn2"], three(inputs, outputs, 1));
        let prelu = PRelu::new(state, &part("prelu"), outputs);
        let conv2 = conv(state, ["conv2", "bn3"], three(outputs, outputs, stride));
        let shortcut = ConvShape::one(inputs, outputs, stride);
        let downsample = is_first.then(|| conv(state, ["downsample.0", "downsample.1"], shortcut));
        Block { bn1, conv1, prelu, conv2, downsample, name }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let y = self.bn1.forward(x, pass);
        let y = self.conv1.forward_rectified(&y, &self.prelu, pass);
        let y = self.conv2.forward(&y, pass);
        match &self.downsample {
            Some(downsample) => y + downsample.forward(x, pass),
            None => y + x,
        }
    }

    fn fold(&mut self) {
        let Block { conv1, conv2, downsample, .. } = self;
        [Some(conv1), Some(conv2), downsample.as_mut()]
            .into_iter()
            .flatten()
            .for_each(ConvNorm::fold);
    }

    fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let y = self.bn1.emit(graph, x);
        let y = self.conv1.emit(graph, &y);
        let y = self.prelu.emit(graph, &y);
        let y = self.conv2.emit(graph, &y);
        let sum = format!("{}.sum", self.name);
        match &self.downsample {
            Some(downsample) => {
                let shortcut = downsample.emit(graph, x);
                graph.add(&sum, &y, &shortcut)
            }
            None => graph.add(&sum, &y, x),
        }
    }
}
