//! Activation checkpointing: a forward pass that keeps little, and computes the rest again in the
//! backward pass.

// B = batch, E = embedding.

use std::ops::Range;

use tch::Tensor;

use crate::{Backbone, layers::Pass, net::Net};

/// A forward pass in training whose backward pass is still to come.
///
/// Only the input of each segment is in memory. The backward pass computes the last segment once more,
/// now recorded, and goes back through it; then the one before it. Normalisation moves
/// its running statistics in the first computation alone, and stochastic layers draw the same twice, so
/// that gradients and statistics are those of a pass that keeps everything.
#[derive(Debug)]
pub struct CheckpointedForward {
    pass: Pass,
    /// The parts of the network that each segment consists of, and what goes into it.
    segments: Vec<(Range<usize>, Tensor)>,
    embeddings_be: Tensor,
}

impl CheckpointedForward {
    pub(crate) fn forward(
        net: &Net,
        images: &Tensor,
        pass: Pass,
        n_blocks: usize,
    ) -> CheckpointedForward {
        let n_parts = net.n_parts();
        let mut segments = Vec::with_capacity(n_parts.div_ceil(n_blocks));
        let mut x = images.detach();
        tch::no_grad(|| {
            for start in (0..n_parts).step_by(n_blocks) {
                let parts = start..n_parts.min(start + n_blocks);
                let y = net.parts(parts.clone(), &x, &pass);
                segments.push((parts, std::mem::replace(&mut x, y)));
            }
        });
        CheckpointedForward { pass, segments, embeddings_be: x }
    }

    /// `[B, E]`, as [`Backbone::forward`](crate::Backbone::forward) gives them, without a history.
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings_be
    }

    /// The backward pass, from the last segment to the first: `run` gets the output of a segment and
    /// the gradient by it, and has to run autograd from there, adding to the `grad` of every leaf.
    ///
    /// * `backbone`: the one that gave this, with the weights that it had then
    /// * `grad_be`: `[B, E]`, the gradient by the embeddings
    ///
    /// # Errors
    ///
    /// The first error of `run`.
    pub fn backward<Error>(
        self,
        backbone: &Backbone,
        grad_be: &Tensor,
        mut run: impl FnMut(&Tensor, &Tensor) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let pass = Pass { moves_statistics: false, ..self.pass };
        let mut gradient = grad_be.detach();
        for (parts, input) in self.segments.into_iter().rev() {
            let is_first = parts.start == 0;
            let input = input.set_requires_grad(!is_first);
            let output = backbone.net().parts(parts, &input, &pass);
            run(&output, &gradient)?;
            if !is_first {
                gradient = input.grad();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::{Architecture, testing::random};

    const NETS: [Architecture; 3] = [
        Architecture::IResNet { layers: [1, 2, 1, 1], widths: [8, 8, 16, 16] },
        Architecture::MobileFaceNet { blocks: [1, 1, 1, 1], scale: 1 },
        Architecture::Vit { dim: 16, depth: 3, heads: 2, patch: 28, drop_path: 0.5, mask: 0.25 },
    ];

    fn network(architecture: Architecture) -> Backbone {
        // One thread: sums must be taken in the same order twice.
        tch::set_num_threads(1);
        let mut backbone = Backbone::with_architecture(architecture, 8, Device::Cpu, 3).unwrap();
        backbone.seed_noise(11);
        backbone
    }

    /// Of a gradient's largest number, as the known answers of narrow networks allow: kernels sum in
    /// another order where a gradient comes with other strides.
    const ROUNDING: f64 = 1e-4;
    /// Of the largest number of all gradients: those of biases that the next normalisation takes out
    /// again are rounding and nothing else.
    const NOTHING: f64 = 1e-6;

    /// Embeddings, gradients by name, and all tensors of the network after one pass.
    type Course = (Tensor, Vec<(String, Tensor)>, Vec<(String, Tensor)>);

    fn course(backbone: &Backbone, embeddings: Tensor) -> Course {
        let gradients = backbone.named_parameters().into_iter();
        let gradients = gradients.map(|(name, parameter)| (name, parameter.grad())).collect();
        (embeddings.detach(), gradients, backbone.state_dict())
    }

    fn kept(architecture: Architecture, images: &Tensor, grad_be: &Tensor) -> Course {
        let backbone = network(architecture);
        let embeddings = backbone.forward(images, true);
        (&embeddings * grad_be).sum(Kind::Float).backward();
        course(&backbone, embeddings)
    }

    fn checkpointed(
        architecture: Architecture,
        images: &Tensor,
        grad_be: &Tensor,
        n: usize,
    ) -> Course {
        let backbone = network(architecture);
        let forward = backbone.forward_checkpointed(images, n);
        let embeddings = forward.embeddings().copy();
        let mut run = |output: &Tensor, gradient: &Tensor| {
            (output * gradient).sum(output.kind()).f_backward()
        };
        forward.backward(&backbone, grad_be, &mut run).unwrap();
        course(&backbone, embeddings)
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    #[test]
    fn gradients_and_running_statistics_are_those_of_a_pass_that_keeps_everything() {
        let (images, grad_be) = (random(&[4, 3, 112, 112], "images"), random(&[4, 8], "grad"));
        for architecture in NETS {
            let (embeddings, gradients, state) = kept(architecture, &images, &grad_be);
            let largest_of_all = gradients.iter().map(|(_, g)| largest(g)).fold(0.0, f64::max);
            for n_blocks in [1, 2, 100] {
                let (found, found_gradients, found_state) =
                    checkpointed(architecture, &images, &grad_be, n_blocks);
                assert_eq!(found, embeddings, "{architecture:?} by {n_blocks}");
                for ((name, found), (_, expected)) in found_gradients.iter().zip(&gradients) {
                    let bound = (ROUNDING * largest(expected)).max(NOTHING * largest_of_all);
                    let error = largest(&(found - expected));
                    assert!(error <= bound, "{name} of {architecture:?}: {error:e} > {bound:e}");
                }
                for ((name, found), (_, expected)) in found_state.iter().zip(&state) {
                    assert_eq!(found, expected, "{name} of {architecture:?} by {n_blocks}");
                }
            }
        }
    }

    #[test]
    fn a_pass_that_is_not_to_be_seen_moves_nothing() {
        let images = random(&[4, 3, 112, 112], "images");
        for architecture in NETS {
            let (backbone, other) = (network(architecture), network(architecture));
            let embeddings = backbone.forward_unrecorded(&images);
            for ((name, found), (_, expected)) in
                backbone.state_dict().iter().zip(other.state_dict())
            {
                assert_eq!(found, &expected, "{name}");
            }
            assert_eq!(embeddings, other.forward(&images, true));
            assert!(!embeddings.requires_grad());
        }
    }
}
