//! A backbone that only embeds: normalisations folded away, nothing that learns.

// B = batch, E = embedding.

use tch::{Device, Tensor};

use crate::{
    Architecture, Backbone, Precision,
    backbone::{Description, channels_last},
    graph::{Graph, Value},
    layers::Pass,
    net::Net,
};

/// What a [`Backbone`] becomes when it is only used.
///
/// Its weights are other numbers than the backbone's: every normalisation that directly follows a
/// convolution or a linear layer is part of that layer now. Embeddings are the same up to rounding.
#[derive(Debug)]
pub struct Inference {
    net: Net,
    architecture: Architecture,
    embedding: i64,
    device: Device,
    precision: Precision,
}

impl Backbone {
    /// What the network becomes when it is only used: faster, and the same up to rounding.
    #[must_use]
    pub fn into_inference(self) -> Inference {
        let (mut net, description) = self.frozen();
        net.fold();
        let Description { architecture, embedding, device, precision } = description;
        Inference { net, architecture, embedding, device, precision }
    }
}

impl Inference {
    /// Embeddings `[B, E]`, f32 and not normalised, of `images` `[B, 3, 112, 112]`, as
    /// [`Backbone::forward`] in evaluation.
    ///
    /// # Panics
    ///
    /// If libtorch refuses the images, for their shape or device.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let precision = self.precision;
        let pass = Pass { train: false, moves_statistics: false, precision, noise_seed: 0 };
        tch::no_grad(|| self.net.forward(&channels_last(images), &pass))
    }

    /// What the large layers compute in from now on.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Numbers in an embedding.
    pub fn embedding(&self) -> i64 {
        self.embedding
    }

    /// The shape of the network.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Where the network computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The network from normalised `images` on, and its output.
    pub(crate) fn emit_from(&self, graph: &mut Graph, images: &Value) -> Value {
        self.net.emit_from(graph, images)
    }
}

impl From<Backbone> for Inference {
    fn from(backbone: Backbone) -> Inference {
        backbone.into_inference()
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// With statistics that are not those of a fresh network, which would hide a mistake.
    fn trained(architecture: Architecture) -> Backbone {
        let backbone = Backbone::with_architecture(architecture, 16, Device::Cpu, 5).unwrap();
        tch::no_grad(|| {
            for (i, (key, mut tensor)) in backbone.state_dict().into_iter().enumerate() {
                let wave = || {
                    let n = tensor.numel() as i64;
                    let angles = Tensor::arange(n, (Kind::Float, Device::Cpu)) + i as f64;
                    angles.sin().view_as(&tensor)
                };
                if key.ends_with("running_var") {
                    tensor.copy_(&(wave() * 0.4 + 1.0));
                } else if key.ends_with("running_mean") || key.ends_with("bias") {
                    tensor.copy_(&(wave() * 0.3));
                }
            }
        });
        backbone
    }

    #[track_caller]
    fn check_folded(architecture: Architecture) {
        let backbone = trained(architecture);
        let images = Tensor::arange(2 * 3 * 112 * 112, (Kind::Float, Device::Cpu)).sin();
        let images = images.view([2, 3, 112, 112]);
        let expected = tch::no_grad(|| backbone.forward(&images, false));
        let found = backbone.into_inference().forward(&images);
        let error = (&found - &expected).abs().max().double_value(&[]);
        let error = error / expected.abs().max().double_value(&[]);
        assert!(error < 1e-5, "{architecture:?}: {error}");
    }

    #[test]
    fn folding_changes_no_embedding() {
        check_folded(Architecture::IResNet { layers: [1, 2, 1, 1], widths: [8, 8, 16, 16] });
        check_folded(Architecture::MobileFaceNet { blocks: [1, 1, 1, 1], scale: 1 });
        check_folded(Architecture::MobileFaceNet { blocks: [2, 1, 1, 1], scale: 1 });
        check_folded(Architecture::Vit {
            dim: 16,
            depth: 1,
            heads: 2,
            patch: 28,
            drop_path: 0.1,
            mask: 0.1,
        });
    }
}
