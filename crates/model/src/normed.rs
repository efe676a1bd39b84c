//! Layers with the normalisation that follows them, which evaluation can do without.

use tch::Tensor;

use crate::{
    conv::{Conv2d, ConvShape},
    graph::{Graph, Value},
    init::Init,
    layers::{BatchNorm, Linear, PRelu, Pass},
    state::State,
};

/// A convolution and its normalisation.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    conv: Conv2d,
    /// Gone once it is folded into the convolution.
    norm: Option<BatchNorm>,
}

impl ConvNorm {
    /// `names`: of the convolution and of the normalisation.
    pub(crate) fn new(
        state: &mut State,
        names: [&str; 2],
        shape: ConvShape,
        init: Init,
    ) -> ConvNorm {
        let conv = Conv2d::new(state, names[0], shape, init);
        ConvNorm { conv, norm: Some(BatchNorm::new(state, names[1], shape.outputs)) }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let y = self.conv.forward(x, pass);
        self.norm.as_ref().map_or_else(|| y.shallow_clone(), |norm| norm.forward(&y, pass))
    }

    /// As [`forward`](ConvNorm::forward), and rectifies what comes out.
    pub(crate) fn forward_rectified(&self, x: &Tensor, prelu: &PRelu, pass: &Pass) -> Tensor {
        let y = self.conv.forward(x, pass);
        match &self.norm {
            Some(norm) => norm.forward_rectified(&y, prelu, pass),
            None => prelu.forward(&y),
        }
    }

    /// Moves the running statistics into the convolution: evaluation only, from now on.
    pub(crate) fn fold(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_and_shift();
            self.conv.absorb(&scale, &shift);
        }
    }

    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let y = self.conv.emit(graph, x);
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.emit(graph, &y))
    }
}

/// A linear layer and its normalisation.
#[derive(Debug)]
pub(crate) struct LinearNorm {
    linear: Linear,
    /// Gone once it is folded into the layer.
    norm: Option<BatchNorm>,
}

impl LinearNorm {
    pub(crate) fn new(linear: Linear, norm: BatchNorm) -> LinearNorm {
        LinearNorm { linear, norm: Some(norm) }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let y = self.linear.forward(x, pass);
        self.norm.as_ref().map_or_else(|| y.shallow_clone(), |norm| norm.forward(&y, pass))
    }

    /// As [`ConvNorm::fold`], together with a normalisation `before` whose channels were flattened.
    pub(crate) fn fold(&mut self, before: Option<&BatchNorm>) {
        if let Some(before) = before {
            let (scale, shift) = before.scale_and_shift();
            self.linear.absorb_before(&scale, &shift);
        }
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_and_shift();
            self.linear.absorb(&scale, &shift);
        }
    }

    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let y = self.linear.emit(graph, x);
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.emit(graph, &y))
    }
}
