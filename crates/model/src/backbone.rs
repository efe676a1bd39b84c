//! The one type behind which every network stands.

// B = batch, E = embedding.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use tch::{Device, Kind, Tensor};

use crate::{
    Architecture, BackboneSpec, EMBEDDING_MAX, IMAGE_SIZE, ModelError, Precision,
    allocator::keep_freed_memory,
    init::Stream,
    iresnet::IResNet,
    layers::Pass,
    mobilefacenet::MobileFaceNet,
    state::State,
    vit::{Vit, VitShape},
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
}

#[derive(Debug)]
enum Net {
    IResNet(IResNet),
    MobileFaceNet(MobileFaceNet),
    Vit(Vit),
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
        Backbone::build(architecture, embedding, device, Some(seed))
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
        let backbone = Backbone::build(spec.network.architecture(), spec.embedding, device, None)?;
        backbone.load_state_dict(origin, tensors)?;
        Ok(backbone)
    }

    fn build(
        architecture: Architecture,
        embedding: i64,
        device: Device,
        seed: Option<u64>,
    ) -> Result<Backbone, ModelError> {
        if !(1..=EMBEDDING_MAX).contains(&embedding) {
            return Err(ModelError::EmbeddingSize { value: embedding });
        }
        check_device(device)?;
        keep_freed_memory();
        let mut state = State::new(device, seed);
        let net = match architecture {
            Architecture::IResNet { layers, widths } => {
                Net::IResNet(IResNet::new(&mut state, layers, widths, embedding))
            }
            Architecture::MobileFaceNet { blocks, scale } => {
                Net::MobileFaceNet(MobileFaceNet::new(&mut state, blocks, scale, embedding))
            }
            Architecture::Vit { dim, depth, heads, patch, drop_path, mask } => {
                let shape = VitShape { dim, depth, heads, patch, drop_path, mask };
                Net::Vit(Vit::new(&mut state, shape, embedding))
            }
        };
        Ok(Backbone {
            net,
            state,
            architecture,
            embedding,
            device,
            precision: Precision::F32,
            noise: Stream::new(seed.unwrap_or(0), "noise"),
            n_noisy: AtomicU64::new(0),
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
        let side = IMAGE_SIZE;
        assert!(
            matches!(images.size()[..], [_, 3, h, w] if h == side && w == side),
            "images are {:?}, not [B, 3, {side}, {side}]",
            images.size()
        );
        let n_noisy = if train { self.n_noisy.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let noise_seed = self.noise.at(n_noisy);
        let pass = Pass { train, precision: self.precision, noise_seed };
        let images = channels_last(images);
        match &self.net {
            Net::IResNet(net) => net.forward(&images, &pass),
            Net::MobileFaceNet(net) => net.forward(&images, &pass),
            Net::Vit(net) => net.forward(&images, &pass),
        }
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

    /// The parameters that learn, in state-dict order, each with its gradient.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let trainable = self.state.entries().iter().filter(|entry| entry.trainable);
        trainable.map(|entry| (entry.key.clone(), entry.tensor.shallow_clone())).collect()
    }

    /// Every tensor, running statistics and counters (int64) included, in the reference's order.
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
fn channels_last(images: &Tensor) -> Tensor {
    images.to_kind(Kind::Float).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
