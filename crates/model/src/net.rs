//! The families of networks behind one type.

use std::ops::Range;

use tch::Tensor;

use crate::{
    Architecture, IMAGE_SIZE,
    graph::{Graph, Value},
    iresnet::IResNet,
    layers::Pass,
    mobilefacenet::MobileFaceNet,
    state::State,
    vit::{Vit, VitShape},
};

/// Name of a graph's input, as in the reference's exports.
pub(crate) const INPUT: &str = "data";

#[derive(Debug)]
pub(crate) enum Net {
    IResNet(IResNet),
    MobileFaceNet(MobileFaceNet),
    Vit(Vit),
}

impl Net {
    /// Registers all tensors with `state`, in state-dict order.
    pub(crate) fn new(state: &mut State, architecture: Architecture, embedding: i64) -> Net {
        match architecture {
            Architecture::IResNet { layers, widths } => {
                Net::IResNet(IResNet::new(state, layers, widths, embedding))
            }
            Architecture::MobileFaceNet { blocks, scale } => {
                Net::MobileFaceNet(MobileFaceNet::new(state, blocks, scale, embedding))
            }
            Architecture::Vit { dim, depth, heads, patch, drop_path, mask } => {
                let shape = VitShape { dim, depth, heads, patch, drop_path, mask };
                Net::Vit(Vit::new(state, shape, embedding))
            }
        }
    }

    pub(crate) fn forward(&self, images: &Tensor, pass: &Pass) -> Tensor {
        self.parts(0..self.n_parts(), images, pass)
    }

    /// Parts that follow one another, each a function of what the one before gives.
    pub(crate) fn n_parts(&self) -> usize {
        match self {
            Net::IResNet(net) => net.n_parts(),
            Net::MobileFaceNet(net) => net.n_parts(),
            Net::Vit(net) => net.n_parts(),
        }
    }

    /// Some of the parts, from what the one before them gives: the images for the first.
    pub(crate) fn parts(&self, range: Range<usize>, x: &Tensor, pass: &Pass) -> Tensor {
        range.fold(x.shallow_clone(), |x, index| match self {
            Net::IResNet(net) => net.part(index, &x, pass),
            Net::MobileFaceNet(net) => net.part(index, &x, pass),
            Net::Vit(net) => net.part(index, &x, pass),
        })
    }

    /// Moves normalisations into the layers before them: evaluation only, from now on.
    pub(crate) fn fold(&mut self) {
        tch::no_grad(|| match self {
            Net::IResNet(net) => net.fold(),
            Net::MobileFaceNet(net) => net.fold(),
            Net::Vit(net) => net.fold(),
        });
    }

    /// The whole network in evaluation, from [`INPUT`] on, and its output.
    pub(crate) fn emit(&self, graph: &mut Graph) -> Value {
        let images = Value::new(INPUT, &[3, IMAGE_SIZE, IMAGE_SIZE]);
        self.emit_from(graph, &images)
    }

    /// As [`emit`](Net::emit), of normalised images that other nodes give.
    pub(crate) fn emit_from(&self, graph: &mut Graph, images: &Value) -> Value {
        match self {
            Net::IResNet(net) => net.emit(graph, images),
            Net::MobileFaceNet(net) => net.emit(graph, images),
            Net::Vit(net) => net.emit(graph, images),
        }
    }
}
