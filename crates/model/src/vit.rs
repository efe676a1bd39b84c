//! Vision transformer over 9×9 patches, without a class token.

// B = batch, L = tokens, K = tokens kept while training, D = width of a token, N = heads.

use tch::{Device, Kind, Tensor};

use crate::{
    IMAGE_SIZE,
    conv::{Conv2d, ConvShape},
    graph::{Attribute, Graph, Value},
    init::{Init, Stream, unit},
    layers::{BatchNorm, LayerNorm, Linear, Pass},
    normed::LinearNorm,
    state::State,
};

/// The reference truncates at ±2, a hundred deviations away.
const NARROW: Init = Init::Normal { std: 0.02 };
const HEAD_EPS: f64 = 2e-5;

/// The part of [`crate::Architecture::Vit`] that a constructor takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VitShape {
    pub(crate) dim: i64,
    pub(crate) depth: usize,
    pub(crate) heads: i64,
    pub(crate) patch: i64,
    pub(crate) drop_path: f64,
    pub(crate) mask: f64,
}

#[derive(Debug)]
pub(crate) struct Vit {
    pos_embed: Tensor,
    mask_token: Tensor,
    patch_embed: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
    feature: Head,
    mask: f64,
}

impl Vit {
    pub(crate) fn new(state: &mut State, shape: VitShape, embedding: i64) -> Vit {
        let VitShape { dim, depth, patch, .. } = shape;
        // The remainder at the right and the bottom is not seen.
        let tokens = (IMAGE_SIZE / patch) * (IMAGE_SIZE / patch);
        let pos_embed = state.parameter("pos_embed".to_owned(), &[1, tokens, dim], NARROW);
        // Without masking nothing uses it. The reference has it all the same, so that its state dicts
        // hold the key; a trainable parameter without a gradient would hold up the gradient reducer.
        let key = "mask_token".to_owned();
        let mask_token = match shape.mask > 0.0 {
            true => state.parameter(key, &[1, 1, dim], NARROW),
            false => state.buffer(key, &[1, 1, dim], NARROW),
        };
        let conv =
            ConvShape { kernel: patch, stride: patch, padding: 0, ..ConvShape::one(3, dim, 1) };
        let patch_embed = Conv2d::with_bias(state, "patch_embed.proj", conv);
        let blocks = (0..depth).map(|i| Block::new(state, i, shape)).collect();
        let norm = LayerNorm::new(state, "norm", dim);
        let feature = Head::new(state, dim * tokens, dim, embedding);
        Vit { pos_embed, mask_token, patch_embed, blocks, norm, feature, mask: shape.mask }
    }

    /// Parts that follow one another: the patches, the blocks, the head.
    pub(crate) fn n_parts(&self) -> usize {
        1 + self.blocks.len() + 1
    }

    /// One part; all of them take `[B, 3, 112, 112]` to `[B, E]`. The tokens between the blocks, the
    /// attention products and the head are always f32, as in the reference.
    pub(crate) fn part(&self, index: usize, x: &Tensor, pass: &Pass) -> Tensor {
        if index == 0 {
            let patches = self.patch_embed.forward(x, &pass.full());
            let x_bld = patches.flatten(2, -1).transpose(1, 2) + &self.pos_embed;
            return match self.hidden(&x_bld, pass) {
                Some(hidden) => hidden.kept(&x_bld),
                None => x_bld,
            };
        }
        if let Some(block) = self.blocks.get(index - 1) {
            return block.forward(x, index - 1, pass);
        }
        let mut x_bld = self.norm.forward(x);
        if let Some(hidden) = self.hidden(&x_bld, pass) {
            x_bld = hidden.refilled(&x_bld, &self.mask_token);
        }
        self.feature.forward(&x_bld.flatten(1, -1), pass)
    }

    /// The tokens that this pass leaves out, the same whenever they are drawn for it.
    fn hidden(&self, x: &Tensor, pass: &Pass) -> Option<Hidden> {
        let (n_images, n_tokens) = (x.size()[0], self.pos_embed.size()[1]);
        (pass.train && self.mask > 0.0)
            .then(|| Hidden::draw([n_images, n_tokens], self.mask, pass, x.device()))
    }

    pub(crate) fn fold(&mut self) {
        self.feature.first.fold(None);
        self.feature.second.fold(None);
    }

    pub(crate) fn emit(&self, graph: &mut Graph, images: &Value) -> Value {
        let patches = self.patch_embed.emit(graph, images);
        let (dim, tokens) = (patches.shape[0], patches.shape[1] * patches.shape[2]);
        let rows = graph.reshape("patch_embed.rows", &patches, &[dim, tokens]);
        let rows = graph.transpose("patch_embed.tokens", &rows, &[0, 2, 1], &[tokens, dim]);
        let places = graph.numbers("pos_embed".to_owned(), &self.pos_embed);
        let inputs = [rows.name.as_str(), &places];
        let mut x = graph.node("Add", "patch_embed.placed", &inputs, Vec::new(), &rows.shape);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.emit(graph, &x, i);
        }
        let x = self.norm.emit(graph, &x);
        let flat = graph.flatten("flatten", &x);
        let hidden = self.feature.first.emit(graph, &flat);
        self.feature.second.emit(graph, &hidden)
    }
}

/// Tokens left out of one training pass, different ones of every image.
struct Hidden {
    /// `[B, K]`: which tokens stay, in the order in which they go through the blocks.
    kept: Tensor,
    /// `[B, L]`: where each token is afterwards; from K on stand mask tokens.
    restore: Tensor,
}

impl Hidden {
    fn draw(size: [i64; 2], mask: f64, pass: &Pass, device: Device) -> Hidden {
        let [n_images, n_tokens] = size.map(|n| n as usize);
        let n_kept = (n_tokens as f64 * (1.0 - mask)) as usize;
        let stream = Stream::new(pass.noise_seed, "mask");
        let (mut kept, mut restore) = (Vec::new(), vec![0i64; n_images * n_tokens]);
        for image in 0..n_images {
            let first = image * n_tokens;
            let mut order: Vec<usize> = (0..n_tokens).collect();
            order.sort_by_key(|token| stream.at((first + token) as u64));
            for (place, token) in order.iter().enumerate() {
                restore[first + token] = place as i64;
            }
            kept.extend(order[..n_kept].iter().map(|&token| token as i64));
        }
        let tensor = |values: &[i64], columns: usize| {
            let shape = [n_images as i64, columns as i64];
            Tensor::from_slice(values).view(shape).to_device(device)
        };
        Hidden { kept: tensor(&kept, n_kept), restore: tensor(&restore, n_tokens) }
    }

    fn kept(&self, x_bld: &Tensor) -> Tensor {
        x_bld.gather(1, &over_width(&self.kept, x_bld), false)
    }

    fn refilled(&self, x_bkd: &Tensor, mask_token: &Tensor) -> Tensor {
        let [batch, n_kept, dim] = three(x_bkd);
        let n_hidden = self.restore.size()[1] - n_kept;
        let filled = Tensor::cat(&[x_bkd, &mask_token.expand([batch, n_hidden, dim], false)], 1);
        filled.gather(1, &over_width(&self.restore, x_bkd), false)
    }
}

/// Repeats token indices over the width of the tokens.
fn over_width(indices: &Tensor, x_bld: &Tensor) -> Tensor {
    let (size, dim) = (indices.size(), x_bld.size()[2]);
    indices.unsqueeze(-1).expand([size[0], size[1], dim], false)
}

fn three(x: &Tensor) -> [i64; 3] {
    x.size().try_into().expect("tokens have three axes")
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    drop_path: f64,
}

impl Block {
    fn new(state: &mut State, i: usize, shape: VitShape) -> Block {
        let VitShape { dim, depth, heads, drop_path, .. } = shape;
        let name = |part: &str| format!("blocks.{i}.{part}");
        let zero = Init::Constant(0.0);
        Block {
            norm1: LayerNorm::new(state, &name("norm1"), dim),
            norm2: LayerNorm::new(state, &name("norm2"), dim),
            qkv: Linear::new(state, &name("attn.qkv"), [3 * dim, dim], NARROW),
            proj: Linear::new(state, &name("attn.proj"), [dim, dim], NARROW).with_bias(
                state,
                &name("attn.proj"),
                zero,
            ),
            fc1: Linear::new(state, &name("mlp.fc1"), [4 * dim, dim], NARROW).with_bias(
                state,
                &name("mlp.fc1"),
                zero,
            ),
            fc2: Linear::new(state, &name("mlp.fc2"), [dim, 4 * dim], NARROW).with_bias(
                state,
                &name("mlp.fc2"),
                zero,
            ),
            heads,
            drop_path: drop_path * i as f64 / depth.saturating_sub(1).max(1) as f64,
        }
    }

    fn forward(&self, x_bld: &Tensor, i: usize, pass: &Pass) -> Tensor {
        let attended = self.attend(&self.norm1.forward(x_bld), pass);
        let x_bld = x_bld + self.dropped(&attended, 2 * i, pass);
        let hidden = self.fc1.forward(&self.norm2.forward(&x_bld), pass).relu6();
        let hidden = self.fc2.forward(&hidden, pass);
        &x_bld + self.dropped(&hidden, 2 * i + 1, pass)
    }

    fn attend(&self, x_bld: &Tensor, pass: &Pass) -> Tensor {
        let [_, tokens, dim] = three(x_bld);
        let qkv = self.qkv.forward(x_bld, pass).to_kind(Kind::Float);
        // The batch is left to be told from the rest, so that a recorded trace takes any.
        let qkv = qkv.view([-1, tokens, 3, self.heads, dim / self.heads]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]);
        let attended_bnld = Tensor::scaled_dot_product_attention(
            &qkv.get(0),
            &qkv.get(1),
            &qkv.get(2),
            None::<Tensor>,
            0.0,
            false,
            None,
            false,
        );
        let attended = attended_bnld.transpose(1, 2).reshape([-1, tokens, dim]);
        self.proj.forward(&attended, pass)
    }

    fn emit(&self, graph: &mut Graph, x: &Value, i: usize) -> Value {
        let name = |part: &str| format!("blocks.{i}.{part}");
        let y = self.norm1.emit(graph, x);
        let y = self.emit_attention(graph, &y, i);
        let x = graph.add(&name("attended"), x, &y);
        let y = self.norm2.emit(graph, &x);
        let y = self.fc1.emit(graph, &y);
        let bounds = [("low", 0.0f32), ("high", 6.0)].map(|(bound, value)| {
            graph.numbers(name(&format!("mlp.relu6.{bound}")), &Tensor::from(value))
        });
        let inputs = [y.name.as_str(), &bounds[0], &bounds[1]];
        let y = graph.node("Clip", &name("mlp.relu6"), &inputs, Vec::new(), &y.shape);
        let y = self.fc2.emit(graph, &y);
        graph.add(&name("out"), &x, &y)
    }

    fn emit_attention(&self, graph: &mut Graph, x: &Value, i: usize) -> Value {
        let name = |part: &str| format!("blocks.{i}.attn.{part}");
        let (tokens, dim) = (x.shape[0], x.shape[1]);
        let (heads, width) = (self.heads, dim / self.heads);
        let qkv = self.qkv.emit(graph, x);
        let qkv = graph.reshape(&name("heads"), &qkv, &[tokens, 3, heads, width]);
        let by_head = [heads, tokens, width];
        let [q, k, v] = [("q", 0), ("k", 1), ("v", 2)].map(|(part, index)| {
            let index = graph.integer(name(&format!("{part}.index")), index);
            let axis = vec![("axis", Attribute::Int(2))];
            let shape = [tokens, heads, width];
            let rows = name(&format!("{part}.rows"));
            let rows = graph.node("Gather", &rows, &[&qkv.name, &index], axis, &shape);
            // Keys are laid out for the product at once.
            let (axes, shape) = match part {
                "k" => ([0, 2, 3, 1], [heads, width, tokens]),
                _ => ([0, 2, 1, 3], by_head),
            };
            graph.transpose(&name(part), &rows, &axes, &shape)
        });
        // As the products of the reference's own count: queries with keys, weights with values.
        graph.macs += 2 * (tokens * tokens * dim) as u64;
        let square = [heads, tokens, tokens];
        let scale = Tensor::from((width as f64).sqrt().recip() as f32);
        let scale = graph.numbers(name("scale"), &scale);
        let q = graph.node("Mul", &name("q.scaled"), &[&q.name, &scale], Vec::new(), &q.shape);
        let logits =
            graph.node("MatMul", &name("logits"), &[&q.name, &k.name], Vec::new(), &square);
        let axis = vec![("axis", Attribute::Int(-1))];
        let weights = graph.node("Softmax", &name("weights"), &[&logits.name], axis, &square);
        let inputs = [weights.name.as_str(), &v.name];
        let mixed = graph.node("MatMul", &name("mixed"), &inputs, Vec::new(), &by_head);
        let rows = [tokens, heads, width];
        let mixed = graph.transpose(&name("mixed.rows"), &mixed, &[0, 2, 1, 3], &rows);
        let mixed = graph.reshape(&name("joined"), &mixed, &[tokens, dim]);
        self.proj.emit(graph, &mixed)
    }

    /// Stochastic depth: the branch of a whole image is left out, and the others weigh more.
    fn dropped(&self, branch: &Tensor, site: usize, pass: &Pass) -> Tensor {
        if !pass.train || self.drop_path == 0.0 {
            return branch.shallow_clone();
        }
        let keep = 1.0 - self.drop_path;
        let stream = Stream::new(pass.noise_seed, &format!("drop_path.{site}"));
        let scale = |image| {
            let stays = f64::from(unit(stream.at(image) >> 40)) < keep;
            if stays { (1.0 / keep) as f32 } else { 0.0 }
        };
        let n_images = branch.size()[0];
        let scales: Vec<f32> = (0..n_images as u64).map(scale).collect();
        let scales = on_device(&scales, branch.device()).view([n_images, 1, 1]);
        branch * scales.to_kind(branch.kind())
    }
}

fn on_device(values: &[f32], device: Device) -> Tensor {
    Tensor::from_slice(values).to_device(device)
}

/// Two linear layers, each with its normalisation.
#[derive(Debug)]
struct Head {
    first: LinearNorm,
    second: LinearNorm,
}

impl Head {
    fn new(state: &mut State, flat: i64, dim: i64, embedding: i64) -> Head {
        let mut layer = |i: usize, shape: [i64; 2]| {
            let linear = Linear::new(state, &format!("feature.{i}"), shape, NARROW);
            let norm = BatchNorm::new(state, &format!("feature.{}", i + 1), shape[0]);
            LinearNorm::new(linear, norm.with_eps(HEAD_EPS))
        };
        Head { first: layer(0, [dim, flat]), second: layer(2, [embedding, dim]) }
    }

    fn forward(&self, flat: &Tensor, pass: &Pass) -> Tensor {
        let full = pass.full();
        self.second.forward(&self.first.forward(flat, &full), &full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;
    use crate::state::Start;
    use crate::testing::pass;

    #[test]
    fn hidden_tokens_come_back_as_mask_tokens_in_their_places() {
        let x_bld = Tensor::arange(2 * 10 * 3, (Kind::Float, Device::Cpu)).view([2, 10, 3]);
        let pass = Pass { noise_seed: 5, ..pass(Precision::F32) };
        let hidden = Hidden::draw([2, 10], 0.25, &pass, Device::Cpu);
        let kept = hidden.kept(&x_bld);
        // int(10 * 0.75) as the reference counts.
        assert_eq!(kept.size(), [2, 7, 3]);
        let mask_token = Tensor::full([1, 1, 3], -1.0, (Kind::Float, Device::Cpu));
        let refilled = hidden.refilled(&kept, &mask_token);
        let is_hidden = refilled.eq(-1.0);
        assert_eq!(is_hidden.sum(Kind::Int64).int64_value(&[]), 2 * 3 * 3);
        assert_eq!(refilled, x_bld.masked_fill(&is_hidden, -1.0));
        let rows = is_hidden.all_dim(2, false);
        assert_ne!(rows.get(0), rows.get(1));
    }

    #[test]
    fn stochastic_depth_keeps_the_expectation() {
        let mut state = State::new(Device::Cpu, Start::Seed(0));
        let shape = VitShape { dim: 4, depth: 2, heads: 1, patch: 56, drop_path: 0.2, mask: 0.0 };
        let block = Block::new(&mut state, 1, shape);
        let pass = Pass { noise_seed: 9, ..pass(Precision::F32) };
        let ones = Tensor::ones([10_000, 1, 1], (Kind::Float, Device::Cpu));
        let dropped = block.dropped(&ones, 0, &pass);
        assert_eq!(dropped.max().double_value(&[]), 1.25);
        assert_eq!(dropped.min().double_value(&[]), 0.0);
        // The mean of 10,000 such draws has a standard error of 0.005.
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.025);
    }
}
