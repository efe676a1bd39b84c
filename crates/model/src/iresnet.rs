//! `IResNet`: residual blocks that start with a batch normalisation and end without activation.

// B = batch, E = embedding.

use tch::Tensor;

use crate::{
    IMAGE_SIZE,
    conv::{Conv2d, ConvShape},
    init::Init,
    layers::{BatchNorm, Linear, PRelu, Pass},
    state::State,
};

/// The reference draws every convolution from N(0, 0.1).
const CONV: Init = Init::Normal { std: 0.1 };

#[derive(Debug)]
pub(crate) struct IResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    prelu: PRelu,
    blocks: Vec<Block>,
    bn2: BatchNorm,
    fc: Linear,
    features: BatchNorm,
}

impl IResNet {
    pub(crate) fn new(
        state: &mut State,
        layers: [usize; 4],
        widths: [i64; 4],
        embedding: i64,
    ) -> IResNet {
        let conv1 = Conv2d::new(state, "conv1", ConvShape::three(3, widths[0], 1), CONV);
        let bn1 = BatchNorm::new(state, "bn1", widths[0]);
        let prelu = PRelu::new(state, "prelu", widths[0]);
        let mut blocks = Vec::new();
        let mut inputs = widths[0];
        for (stage, (&n_blocks, &outputs)) in layers.iter().zip(&widths).enumerate() {
            for i in 0..n_blocks {
                let name = format!("layer{}.{i}", stage + 1);
                blocks.push(Block::new(state, &name, inputs, outputs, i == 0));
                inputs = outputs;
            }
        }
        let bn2 = BatchNorm::new(state, "bn2", inputs);
        // Four stages halve the side four times.
        let flat = inputs * (IMAGE_SIZE / 16) * (IMAGE_SIZE / 16);
        let init = Init::torch_default(flat);
        let fc = Linear::new(state, "fc", [embedding, flat], init).with_bias(state, "fc", init);
        let features = BatchNorm::frozen_weight(state, "features", embedding);
        IResNet { conv1, bn1, prelu, blocks, bn2, fc, features }
    }

    /// `[B, 3, 112, 112]` to `[B, E]`; the last two layers are always f32, as in the reference.
    pub(crate) fn forward(&self, images: &Tensor, pass: &Pass) -> Tensor {
        let mut x = self.bn1.forward(&self.conv1.forward(images, pass), pass);
        x = self.prelu.forward(&x, pass);
        for block in &self.blocks {
            x = block.forward(&x, pass);
        }
        let flat = self.bn2.forward(&x, pass).flatten(1, -1);
        self.features.forward(&self.fc.forward(&flat, &pass.full()), pass)
    }
}

#[derive(Debug)]
struct Block {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    prelu: PRelu,
    conv2: Conv2d,
    bn3: BatchNorm,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    /// The first block of a stage halves the side and has a convolution in its shortcut.
    fn new(state: &mut State, name: &str, inputs: i64, outputs: i64, is_first: bool) -> Block {
        let stride = if is_first { 2 } else { 1 };
        let conv1 = ConvShape::three(inputs, outputs, 1);
        let conv2 = ConvShape::three(outputs, outputs, stride);
        Block {
            bn1: BatchNorm::new(state, &format!("{name}.bn1"), inputs),
            conv1: Conv2d::new(state, &format!("{name}.conv1"), conv1, CONV),
            bn2: BatchNorm::new(state, &format!("{name}.bn2"), outputs),
            prelu: PRelu::new(state, &format!("{name}.prelu"), outputs),
            conv2: Conv2d::new(state, &format!("{name}.conv2"), conv2, CONV),
            bn3: BatchNorm::new(state, &format!("{name}.bn3"), outputs),
            downsample: is_first.then(|| {
                let shape = ConvShape::one(inputs, outputs, stride);
                (
                    Conv2d::new(state, &format!("{name}.downsample.0"), shape, CONV),
                    BatchNorm::new(state, &format!("{name}.downsample.1"), outputs),
                )
            }),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let y = self.conv1.forward(&self.bn1.forward(x, pass), pass);
        let y = self.prelu.forward(&self.bn2.forward(&y, pass), pass);
        let y = self.bn3.forward(&self.conv2.forward(&y, pass), pass);
        match &self.downsample {
            Some((conv, bn)) => y + bn.forward(&conv.forward(x, pass), pass),
            None => y + x,
        }
    }
}
