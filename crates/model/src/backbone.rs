//! The one type behind which every network stands.

// B = batch, E = embedding.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use tch::{Device, Kind, TchError, Tensor};

use crate::{
    Architecture, BackboneSpec, EMBEDDING_MAX, IMAGE_SIZE, ModelError, Precision,
    activation_checkpointing::CheckpointedForward,
    compiled::{self, CompiledPasses, Packages},
    graph::{Elements, Graph},
    init::Stream,
    layers::Pass,
    net::Net,
    state::{Start, State},
};

/// A network that turns aligned faces into embeddings.
///
/// Tensors handed out by the methods share their storage with the network: an optimizer that
/// changes them in place, under [`tch::no_grad`], trains the network.
pub struct Backbone {
    net: Net,
    state: State,
    architecture: Architecture,
    embedding: i64,
    device: Device,
    precision: Precision,
    noise: Stream,
    n_noisy: AtomicU64,
    /// What computes training passes in the place of `net`.
    compiled: Option<CompiledPasses>,
}

/// What is known of a network beside its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Description {
    pub(crate) architecture: Architecture,
    pub(crate) embedding: i64,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
}

impl Backbone {
    /// A fresh network, initialised as the reference does; the same `seed` gives the same weights
    /// on every machine.
    ///
    /// # Errors
    ///
    /// [`ModelError::EmbeddingSize`] and [`ModelError::Device`].
    pub fn new(spec: &BackboneSpec, device: Device, seed: u64) -> Result<Backbone, ModelError> {
        Backbone::with_architecture(spec.network.architecture(), spec.embedding, device, seed)
    }

    /// As [`new`](Backbone::new), for a network that has no name.
    ///
    /// # Errors
    ///
    /// [`ModelError::EmbeddingSize`] and [`ModelError::Device`].
    pub fn with_architecture(
        architecture: Architecture,
        embedding: i64,
        device: Device,
        seed: u64,
    ) -> Result<Backbone, ModelError> {
        Backbone::build(architecture, embedding, device, Start::Seed(seed))
    }

    /// A network with the weights of `tensors`, by state-dict key; `origin` names where they came
    /// from in errors.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Backbone::new) and [`load_state_dict`](Backbone::load_state_dict).
    pub fn from_state_dict<K: AsRef<str>>(
        spec: &BackboneSpec,
        device: Device,
        origin: &str,
        tensors: &[(K, Tensor)],
    ) -> Result<Backbone, ModelError> {
        // Left at zero: drawing 118 million first values only to overwrite them takes a second.
        let architecture = spec.network.architecture();
        let backbone = Backbone::build(architecture, spec.embedding, device, Start::Zeros)?;
        backbone.load_state_dict(origin, tensors)?;
        Ok(backbone)
    }

    /// As [`from_state_dict`](Backbone::from_state_dict), for an architecture that was told from the
    /// tensors themselves: nothing is allocated before all of them are found to fit.
    ///
    /// # Errors
    ///
    /// Those of [`from_state_dict`](Backbone::from_state_dict).
    pub fn from_tensors<K: AsRef<str>>(
        architecture: Architecture,
        embedding: i64,
        device: Device,
        origin: &str,
        tensors: &[(K, Tensor)],
    ) -> Result<Backbone, ModelError> {
        let shapes = Backbone::build(architecture, embedding, device, Start::Shapes)?;
        shapes.state.matched(origin, tensors)?;
        let backbone = Backbone::build(architecture, embedding, device, Start::Zeros)?;
        backbone.load_state_dict(origin, tensors)?;
        Ok(backbone)
    }

    /// Compares keys and shapes with those of a network, for which nothing is allocated.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`], [`ModelError::TensorShape`] and
    /// [`ModelError::EmbeddingSize`].
    pub(crate) fn check_shapes(
        architecture: Architecture,
        embedding: i64,
        origin: &str,
        shapes: &[(String, Vec<i64>)],
    ) -> Result<(), ModelError> {
        let own = Backbone::build(architecture, embedding, Device::Cpu, Start::Shapes)?;
        own.state.check_shapes(origin, shapes)
    }

    /// Key and shape of every tensor of a network.
    ///
    /// # Errors
    ///
    /// [`ModelError::EmbeddingSize`].
    pub(crate) fn own_shapes(
        architecture: Architecture,
        embedding: i64,
    ) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
        let own = Backbone::build(architecture, embedding, Device::Cpu, Start::Shapes)?;
        let shape = |(key, tensor): (String, Tensor)| (key, tensor.size());
        Ok(own.state_dict().into_iter().map(shape).collect())
    }

    /// The network's shapes alone, to count on: its tensors have no memory of their own.
    ///
    /// # Errors
    ///
    /// [`ModelError::EmbeddingSize`].
    pub fn shapes(spec: &BackboneSpec) -> Result<Backbone, ModelError> {
        let architecture = spec.network.architecture();
        Backbone::build(architecture, spec.embedding, Device::Cpu, Start::Shapes)
    }

    fn build(
        architecture: Architecture,
        embedding: i64,
        device: Device,
        start: Start,
    ) -> Result<Backbone, ModelError> {
        if !(1..=EMBEDDING_MAX).contains(&embedding) {
            return Err(ModelError::EmbeddingSize { value: embedding });
        }
        check_device(device)?;
        let mut state = State::new(device, start);
        let net = Net::new(&mut state, architecture, embedding);
        Ok(Backbone {
            net,
            state,
            architecture,
            embedding,
            device,
            precision: Precision::F32,
            noise: Stream::new(if let Start::Seed(seed) = start { seed } else { 0 }, "noise"),
            n_noisy: AtomicU64::new(0),
            compiled: None,
        })
    }

    /// Embeddings `[B, E]`, f32 and not normalised, of `images` `[B, 3, 112, 112]`: RGB, f32,
    /// `(x − 127.5) / 127.5`, on the device of the network.
    ///
    /// With `train`, normalisation takes the statistics of the batch and moves the running ones,
    /// and stochastic layers act; B must then be at least 2, as one image has no variance.
    ///
    /// # Panics
    ///
    /// If `images` has another shape or device.
    pub fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        check_images(images);
        match self.compiled.as_ref().filter(|_| train) {
            Some(compiled) => self.forward_compiled(compiled, images, true),
            None => self.net.forward(&channels_last(images), &self.next_pass(train)),
        }
    }

    // As the operators of tch do.
    #[expect(clippy::unwrap_used, reason = "`libtorch::guarded` makes an error of it")]
    fn forward_compiled(
        &self,
        compiled: &CompiledPasses,
        images: &Tensor,
        moves_statistics: bool,
    ) -> Tensor {
        let tensors = self.package_inputs();
        let forward = compiled.forward(&channels_last(images), &tensors).and_then(
            |(embeddings, statistics)| {
                if moves_statistics {
                    compiled::move_statistics(&tensors, &statistics)?;
                }
                Ok(embeddings)
            },
        );
        if moves_statistics {
            let counters = self.state.entries().iter().filter(|e| e.tensor.kind() == Kind::Int64);
            counters.for_each(|entry| drop(entry.tensor.shallow_clone().g_add_scalar_(1)));
        }
        forward.map_err(|error| TchError::Torch(error.to_string())).unwrap()
    }

    /// Has `packages` compute the passes in training from now on: loads them, which runs their code.
    ///
    /// # Errors
    ///
    /// Those of [`Packages::load`].
    pub fn set_compiled(&mut self, packages: Packages) -> Result<(), ModelError> {
        self.compiled = Some(packages.load(self)?);
        Ok(())
    }

    /// What a package takes after the images: every tensor but counters, in state-dict order.
    pub(crate) fn package_inputs(&self) -> Vec<(String, Tensor)> {
        let entries =
            self.state.entries().iter().filter(|entry| entry.tensor.kind() != Kind::Int64);
        entries.map(|entry| (entry.key.clone(), entry.tensor.shallow_clone())).collect()
    }

    /// As [`forward`](Backbone::forward) in training, but leaves the running statistics alone and
    /// records nothing for a backward pass.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn forward_unrecorded(&self, images: &Tensor) -> Tensor {
        check_images(images);
        if let Some(compiled) = &self.compiled {
            return tch::no_grad(|| self.forward_compiled(compiled, images, false));
        }
        let pass = Pass { moves_statistics: false, ..self.next_pass(true) };
        tch::no_grad(|| self.net.forward(&channels_last(images), &pass))
    }

    /// As [`forward`](Backbone::forward) in training with activation checkpointing: only the input of
    /// every `n_blocks`-th block is kept for the backward pass, which computes the rest again.
    ///
    /// # Panics
    ///
    /// As there, or if `n_blocks` is 0.
    pub fn forward_checkpointed(&self, images: &Tensor, n_blocks: usize) -> CheckpointedForward {
        check_images(images);
        CheckpointedForward::forward(
            &self.net,
            &channels_last(images),
            self.next_pass(true),
            n_blocks,
        )
    }

    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    fn next_pass(&self, train: bool) -> Pass {
        let n_noisy = if train { self.n_noisy.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let noise_seed = self.noise.at(n_noisy);
        Pass { train, moves_statistics: train, precision: self.precision, noise_seed }
    }

    /// What the large layers compute in from now on; parameters stay f32.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// What the large layers compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Makes the stochastic layers of the next training passes a function of `seed` alone, so that a
    /// resumed run draws what it would have drawn. Only the transformers have such layers.
    pub fn seed_noise(&mut self, seed: u64) {
        self.noise = Stream::new(seed, "noise");
        self.n_noisy = AtomicU64::new(0);
    }

    /// The shape of the network.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Numbers in an embedding.
    pub fn embedding(&self) -> i64 {
        self.embedding
    }

    /// Where the network computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The layers, of which none learns any more.
    pub(crate) fn frozen(self) -> (Net, Description) {
        let Backbone { net, state, architecture, embedding, device, precision, .. } = self;
        for entry in state.entries() {
            // In place, as the network shares the tensor.
            let _ = entry.tensor.set_requires_grad(false);
        }
        (net, Description { architecture, embedding, device, precision })
    }

    /// Multiply-accumulates of one image, by convolutions, linear layers and attention: what papers
    /// on these networks call FLOPs.
    pub fn n_macs(&self) -> u64 {
        let mut graph = Graph::default();
        self.net.emit(&mut graph);
        graph.macs
    }

    /// Bytes that normalisations, rectifiers and sums of one image move in both passes of training in bf16,
    /// one operator after the other; `None` of transformers, which spend their time otherwise.
    ///
    /// A number that is normalised is read twice and written forwards, and backwards read twice with its
    /// gradient, of which one is written: 8 times 2 bytes. One that is rectified is read and written
    /// forwards, and backwards read with its gradient, of which one is written, and so is one of the slope,
    /// which is read again: 14 bytes. Of one that is added two are read and one is written, in both passes:
    /// 12 bytes.
    pub fn elementwise_bytes(&self) -> Option<u64> {
        if let Architecture::Vit { .. } = self.architecture {
            return None;
        }
        let mut graph = Graph::default();
        self.net.emit(&mut graph);
        let Elements { normalised, rectified, added } = graph.elements;
        Some(16 * normalised + 14 * rectified + 12 * added)
    }

    /// Numbers that are parameters, frozen ones included, running statistics not.
    pub fn n_parameters(&self) -> u64 {
        self.state.parameters().map(|entry| entry.tensor.numel() as u64).sum()
    }

    /// The names of all parameters, frozen ones included, in state-dict order, which is that of
    /// `parameters()` of the reference's network in PyTorch.
    pub fn parameter_names(&self) -> Vec<&str> {
        self.state.parameters().map(|entry| entry.key.as_str()).collect()
    }

    /// The parameters that learn, in state-dict order, each with its gradient.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let trainable = self.state.entries().iter().filter(|entry| entry.trainable);
        trainable.map(|entry| (entry.key.clone(), entry.tensor.shallow_clone())).collect()
    }

    /// Every tensor, running statistics and counters included, in the reference's order. Counters are int64
    /// and in the host's memory, all else is on the network's device.
    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        let detached = |tensor: &Tensor| tensor.detach();
        let entries = self.state.entries().iter();
        entries.map(|entry| (entry.key.clone(), detached(&entry.tensor))).collect()
    }

    /// Copies `tensors` in, converting f16 and bf16 to f32: exactly the keys of
    /// [`state_dict`](Backbone::state_dict) in any order, or nothing is changed.
    /// `origin` names where they came from in errors.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`],
    /// [`ModelError::TensorShape`] and [`ModelError::TensorKind`], each for the first such tensor.
    pub fn load_state_dict<K: AsRef<str>>(
        &self,
        origin: &str,
        tensors: &[(K, Tensor)],
    ) -> Result<(), ModelError> {
        self.state.load(origin, tensors)
    }
}

impl fmt::Debug for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backbone")
            .field("architecture", &self.architecture)
            .field("embedding", &self.embedding)
            .field("device", &self.device)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}

fn check_images(images: &Tensor) {
    let side = IMAGE_SIZE;
    assert!(
        matches!(images.size()[..], [_, 3, h, w] if h == side && w == side),
        "images are {:?}, not [B, 3, {side}, {side}]",
        images.size()
    );
}

fn check_device(device: Device) -> Result<(), ModelError> {
    let available = match device {
        Device::Cpu => true,
        Device::Cuda(index) => (index as i64) < tch::Cuda::device_count(),
        _ => false,
    };
    let name = match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    };
    if available { Ok(()) } else { Err(ModelError::Device { device: name }) }
}

/// The same values with the channels of a pixel side by side in memory, which convolutions keep.
pub(crate) fn channels_last(images: &Tensor) -> Tensor {
    images.to_kind(Kind::Float).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Architecture =
        Architecture::IResNet { layers: [1, 1, 1, 1], widths: [8, 8, 16, 16] };

    fn tiny(seed: u64) -> Backbone {
        // Waiting for a second thread takes longer than these networks on a busy machine.
        tch::set_num_threads(1);
        Backbone::with_architecture(TINY, 16, Device::Cpu, seed).unwrap()
    }

    fn images(n: i64) -> Tensor {
        let values = Tensor::arange(n * 3 * 112 * 112, (Kind::Float, Device::Cpu)).sin();
        values.view([n, 3, 112, 112])
    }

    #[test]
    fn the_same_seed_gives_the_same_network() {
        let (a, b, c) = (tiny(3), tiny(3), tiny(4));
        for ((key, a), (_, b)) in a.state_dict().iter().zip(b.state_dict()) {
            assert_eq!(a, &b, "{key}");
        }
        assert_ne!(a.state_dict()[0].1, c.state_dict()[0].1);
    }

    #[test]
    fn a_fresh_network_starts_as_the_reference_s() {
        let backbone = tiny(0);
        let state = backbone.state_dict();
        let get = |key: &str| &state.iter().find(|(other, _)| other == key).unwrap().1;
        // 8 × 8 × 9 draws of N(0, 0.1), within five standard errors.
        let std = get("layer1.0.conv2.weight").std(true).double_value(&[]);
        assert!((std - 0.1).abs() < 5.0 * 0.1 / (2.0 * 576f64).sqrt(), "{std}");
        let bound = 1.0 / f64::from(16 * 49).sqrt();
        let largest = get("fc.weight").abs().max().double_value(&[]);
        assert!(largest <= bound && largest > 0.99 * bound, "{largest}");
        assert_eq!(get("prelu.weight").double_value(&[0]), 0.25);
        assert_eq!(get("bn1.running_var").double_value(&[0]), 1.0);
        assert_eq!(get("features.weight").double_value(&[0]), 1.0);
    }

    #[test]
    fn the_scale_of_the_last_normalisation_is_frozen() {
        let backbone = tiny(0);
        let learns = |key: &str| backbone.named_parameters().iter().any(|(other, _)| other == key);
        assert!(learns("features.bias") && !learns("features.weight"));
        backbone.forward(&images(2), true).square().sum(Kind::Float).backward();
        for (key, parameter) in backbone.named_parameters() {
            assert!(parameter.grad().defined(), "{key}");
        }
    }

    /// On paper, with e = 64·112², each stage a quarter as many numbers, half of them where a stage begins:
    /// normalised (3 + 8/4 + 8/8 + 8/16 + 6/32)·e + 512, rectified (2 + 3/4 + 3/8 + 3/16 + 1/32)·e, added
    /// 2·(1/4 + 1/8 + 1/16 + 1/32)·e.
    #[test]
    fn bytes_of_elementwise_operators_are_those_counted_on_paper() {
        let bytes = |name: &str| {
            let spec = BackboneSpec { network: name.parse().unwrap(), embedding: 512 };
            Backbone::shapes(&spec).unwrap().elementwise_bytes()
        };
        let e = 64 * 112 * 112;
        let on_paper = 16 * (e * 107 / 16 + 512) + 14 * (e * 107 / 32) + 12 * (e * 30 / 32);
        assert_eq!(bytes("r18"), Some(on_paper));
        assert_eq!(bytes("vit_t"), None);
    }

    #[test]
    fn parameters_changed_in_place_change_the_network() {
        let backbone = tiny(0);
        let before = tch::no_grad(|| backbone.forward(&images(1), false));
        tch::no_grad(|| {
            for (_, mut parameter) in backbone.named_parameters() {
                let _ = parameter.g_mul_scalar_(0.5);
            }
        });
        let after = tch::no_grad(|| backbone.forward(&images(1), false));
        assert_ne!(before, after);
    }

    #[test]
    fn an_embedding_does_not_depend_on_its_batch() {
        let backbone = tiny(0);
        let both = tch::no_grad(|| backbone.forward(&images(2), false));
        let one = tch::no_grad(|| backbone.forward(&images(2).narrow(0, 1, 1), false));
        assert!((both.get(1) - one.get(0)).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn wrong_weights_are_refused_by_key_and_change_nothing() {
        let backbone = tiny(0);
        let first = backbone.state_dict()[0].1.copy();
        let refuse = |tensors: &[(String, Tensor)]| {
            let error = backbone.load_state_dict("w.pth", tensors).unwrap_err();
            assert_eq!(backbone.state_dict()[0].1, first);
            error.to_string()
        };
        let good: Vec<(String, Tensor)> = tiny(1).state_dict();
        let copy = || -> Vec<(String, Tensor)> {
            good.iter().map(|(key, tensor)| (key.clone(), tensor.shallow_clone())).collect()
        };
        let mut missing = copy();
        missing.retain(|(key, _)| key != "bn2.bias");
        let message = refuse(&missing);
        assert_eq!(message, "w.pth: tensor `bn2.bias` of shape [16] is missing");
        let mut extra = copy();
        extra.push(("head.weight".to_owned(), Tensor::from_slice(&[1f32, 2.0])));
        let message = refuse(&extra);
        assert_eq!(
            message,
            "w.pth: tensor `head.weight` of shape [2] belongs to no part of the network"
        );
        let mut reshaped = copy();
        reshaped[0].1 = Tensor::zeros([8, 3, 5, 5], (Kind::Float, Device::Cpu));
        assert_eq!(
            refuse(&reshaped),
            "w.pth: tensor `conv1.weight` has shape [8, 3, 5, 5], but the network needs [8, 3, 3, 3]"
        );
        let mut integer = copy();
        integer[0].1 = integer[0].1.to_kind(Kind::Int64);
        assert_eq!(
            refuse(&integer),
            "w.pth: tensor `conv1.weight` is Int64, but the network needs a floating-point kind"
        );
        backbone.load_state_dict("w.pth", &good).unwrap();
        assert_eq!(backbone.state_dict()[0].1, good[0].1);
    }

    #[test]
    fn half_precision_weights_are_widened() {
        let backbone = tiny(0);
        let halves: Vec<(String, Tensor)> = tiny(1)
            .state_dict()
            .into_iter()
            .map(|(key, tensor)| {
                let kind = tensor.kind();
                (key, if kind == Kind::Float { tensor.to_kind(Kind::Half) } else { tensor })
            })
            .collect();
        backbone.load_state_dict("w", &halves).unwrap();
        let (_, conv1) = backbone.state_dict().remove(0);
        assert_eq!(conv1.kind(), Kind::Float);
        assert_eq!(conv1, halves[0].1.to_kind(Kind::Float));
    }

    #[test]
    fn an_impossible_embedding_size_or_device_is_refused() {
        for embedding in [-1, 0, EMBEDDING_MAX + 1] {
            let error = Backbone::with_architecture(TINY, embedding, Device::Cpu, 0).unwrap_err();
            assert!(matches!(error, ModelError::EmbeddingSize { value } if value == embedding));
        }
        let error = Backbone::with_architecture(TINY, 16, Device::Cuda(99), 0).unwrap_err();
        assert_eq!(error.to_string(), "device cuda:99 is not available");
        assert!(error.hint().unwrap().contains("nvidia-smi"));
    }

    #[test]
    fn a_transformer_s_noise_is_a_function_of_its_seed() {
        let vit = Architecture::Vit {
            dim: 16,
            depth: 2,
            heads: 2,
            patch: 28,
            drop_path: 0.5,
            mask: 0.25,
        };
        let mut backbone = Backbone::with_architecture(vit, 8, Device::Cpu, 0).unwrap();
        let mut run = |seed| {
            backbone.seed_noise(seed);
            let one = tch::no_grad(|| backbone.forward(&images(4), true));
            let two = tch::no_grad(|| backbone.forward(&images(4), true));
            (one, two)
        };
        let (a, b, other) = (run(1), run(1), run(2));
        assert_eq!(a, b);
        assert_ne!(a.0, a.1);
        assert_ne!(a.0, other.0);
    }
}
