//! The backward pass of the backbone, over all ranks.

// B = batch of this rank, D = embedding.

use std::sync::Arc;

use pfc_c10d::Reducer;
use pfc_model::ModelError;
use tch::Tensor;

use crate::{TrainError, ranks::Ranks};

/// How gradients come about.
#[derive(Debug)]
pub enum Gradients {
    /// On this process alone.
    Alone,
    /// Summed over the ranks while the pass runs.
    Summed(Box<Reducer>),
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
        let Some(group) = ranks.group() else { return Ok(Gradients::Alone) };
        let reducer = Reducer::new(Arc::clone(group), parameters, bucket_bytes)?;
        Ok(Gradients::Summed(Box::new(reducer)))
    }

    /// The gradient of the global loss by each of `parameters`, given that by this rank's embeddings;
    /// the same on every rank.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if the pass fails, [`TrainError::Ranks`] if a rank is gone.
    pub fn of(
        &mut self,
        embeddings_bd: &Tensor,
        grad_bd: &Tensor,
        parameters: &[&Tensor],
    ) -> Result<Vec<Tensor>, TrainError> {
        // The derivative of Σ e·g by e is g: the way to hand the engine a gradient to start from.
        let objective = (embeddings_bd * grad_bd).sum(embeddings_bd.kind());
        match self {
            Gradients::Alone => Ok(alone(&objective, parameters)?),
            Gradients::Summed(reducer) => {
                for parameter in parameters {
                    let mut grad = parameter.grad();
                    if grad.defined() {
                        let _ = grad.zero_();
                    }
                }
                reducer.backward(&objective)?;
                Ok(parameters.iter().map(|parameter| parameter.grad()).collect())
            }
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
