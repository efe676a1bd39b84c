//! The backward pass of the backbone, over all ranks.

// B = images of this rank, D = embedding.

use std::sync::Arc;

use pfc_c10d::Reducer;
use pfc_model::ModelError;
use tch::Tensor;

use crate::{TrainError, ranks::Ranks};

/// Makes the gradients of all parameters from those of the embeddings.
#[derive(Debug)]
pub struct Gradients {
    /// What sums them over the ranks while the pass runs; `None` for one rank.
    reducer: Option<Reducer>,
    /// Of the parts of a step so far.
    parts: Option<Vec<Tensor>>,
    /// Whether a part of a step is in the parameters' `grad`.
    begun: bool,
}

/// The number whose derivative by the embeddings is `grad_bd`: the way to hand the engine a gradient
/// to start from.
pub fn objective(embeddings_bd: &Tensor, grad_bd: &Tensor) -> Tensor {
    // The derivative of Σ e·g by e is g.
    (embeddings_bd * grad_bd).sum(embeddings_bd.kind())
}

impl Gradients {
    /// The way for `ranks` to get the gradients of `parameters`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Ranks`].
    pub fn new(
        ranks: &Ranks,
        parameters: &[&Tensor],
        bucket_bytes: usize,
    ) -> Result<Gradients, TrainError> {
        let reducer = match ranks.group() {
            Some(group) => Some(Reducer::new(Arc::clone(group), parameters, bucket_bytes)?),
            None => None,
        };
        Ok(Gradients { reducer, parts: None, begun: false })
    }

    /// The gradient of the global loss by each of `parameters`, the same on every rank.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if the pass fails, [`TrainError::Ranks`] if a rank is gone.
    pub fn of(
        &mut self,
        objective: &Tensor,
        parameters: &[&Tensor],
    ) -> Result<Vec<Tensor>, TrainError> {
        Ok(self.add(objective, parameters, true)?.unwrap_or_default())
    }

    /// Adds those of one part of a step; they are given back, and exchanged between ranks, once the
    /// last part is in.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn add(
        &mut self,
        objective: &Tensor,
        parameters: &[&Tensor],
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        let Some(reducer) = &mut self.reducer else {
            let mut sum = alone(objective, parameters)?;
            for (sum, part) in sum.iter_mut().zip(self.parts.take().unwrap_or_default()) {
                *sum += part;
            }
            return Ok(if is_last {
                Some(sum)
            } else {
                self.parts = Some(sum);
                None
            });
        };
        if !self.begun {
            zero(parameters);
        }
        self.begun = !is_last;
        if is_last {
            reducer.backward(objective)?;
            return Ok(Some(parameters.iter().map(|parameter| parameter.grad()).collect()));
        }
        objective
            .f_backward()
            .map_err(|source| ModelError::Torch { op: "compute the gradient", source })?;
        Ok(None)
    }
}

/// Gradients are zeroed and never replaced: they are views of what is exchanged.
fn zero(parameters: &[&Tensor]) {
    for parameter in parameters {
        let mut grad = parameter.grad();
        if grad.defined() {
            let _ = grad.zero_();
        }
    }
}

fn alone(objective: &Tensor, parameters: &[&Tensor]) -> Result<Vec<Tensor>, ModelError> {
    let gradients = Tensor::f_run_backward(&[objective], parameters, false, false)
        .map_err(|source| ModelError::Torch { op: "compute the gradient", source })?;
    // A parameter that the pass did not use has none.
    let or_zero = |(gradient, parameter): (Tensor, &&Tensor)| {
        if gradient.defined() { gradient } else { parameter.zeros_like() }
    };
    Ok(gradients.into_iter().zip(parameters).map(or_zero).collect())
}
