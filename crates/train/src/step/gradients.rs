//! The backward pass of the backbone, over all ranks.

// B = images of this rank, D = embedding.

use std::sync::Arc;

use pfc_autograd::lists;
use pfc_c10d::{C10dError, Reducer};
use pfc_model::{Backbone, CheckpointedForward, ModelError};
use tch::Tensor;

use crate::{TrainError, ranks::Ranks};

/// Makes the gradients of all parameters from those of the embeddings.
#[derive(Debug)]
pub struct Gradients {
    /// The parameters' names, for errors.
    names: Vec<String>,
    /// Sums the gradients over the ranks while the backward pass runs; `None` for one process alone.
    reducer: Option<Reducer>,
    /// The sum over the micro-batches of a step so far (gradient accumulation).
    accumulated: Option<Vec<Tensor>>,
    /// Whether a micro-batch of this step is in the parameters' `grad`.
    begun: bool,
}

/// A recorded forward pass of the backbone.
#[derive(Debug)]
pub enum RecordedForward {
    /// All activations are kept: the embeddings `[B, D]` with their history.
    Whole(Tensor),
    /// Most activations are computed again in the backward pass (activation checkpointing).
    Checkpointed(CheckpointedForward),
}

impl RecordedForward {
    /// `[B, D]`, without their history.
    pub fn embeddings(&self) -> Tensor {
        match self {
            RecordedForward::Whole(embeddings_bd) => embeddings_bd.detach(),
            RecordedForward::Checkpointed(forward) => forward.embeddings().shallow_clone(),
        }
    }
}

/// What one backward pass starts from.
#[derive(Debug)]
pub struct BackwardInput<'a> {
    /// The network.
    pub backbone: &'a Backbone,
    /// Its recorded forward pass.
    pub forward: RecordedForward,
    /// `[B, D]`, the gradient of the loss by the embeddings.
    pub grad_bd: &'a Tensor,
}

impl Gradients {
    /// Prepares for the gradients of `parameters`, each with its name. Every rank calls it.
    ///
    /// * `bucket_bytes`: gradients that one collective sums at a time
    ///
    /// # Errors
    ///
    /// [`TrainError::Ranks`].
    pub fn new(
        ranks: &Ranks,
        parameters: &[(&str, &Tensor)],
        bucket_bytes: usize,
    ) -> Result<Gradients, TrainError> {
        let names = parameters.iter().map(|(name, _)| (*name).to_owned()).collect();
        let reducer = match ranks.group() {
            Some(group) => Some(Reducer::new(Arc::clone(group), parameters, bucket_bytes)?),
            None => None,
        };
        Ok(Gradients { names, reducer, accumulated: None, begun: false })
    }

    /// The gradient of the global loss by each of `parameters`, the same on every rank.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if the pass fails, [`TrainError::Ranks`] if a rank is gone or a parameter
    /// got no gradient.
    pub fn of(
        &mut self,
        input: BackwardInput<'_>,
        parameters: &[&Tensor],
    ) -> Result<Vec<Tensor>, TrainError> {
        Ok(self.add(input, parameters, true)?.unwrap_or_default())
    }

    /// Adds the gradients of one micro-batch (gradient accumulation). With the last one of a step they
    /// are summed over the ranks and returned.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn add(
        &mut self,
        input: BackwardInput<'_>,
        parameters: &[&Tensor],
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        match (&mut self.reducer, input) {
            (
                None,
                BackwardInput { forward: RecordedForward::Whole(embeddings_bd), grad_bd, .. },
            ) => {
                let sum = alone(&objective(&embeddings_bd, grad_bd), parameters)?;
                self.added(self.complete(sum)?, is_last)
            }
            (_, input) => self.add_in_place(input, parameters, is_last),
        }
    }

    fn added(
        &mut self,
        sum: Vec<Tensor>,
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        if let Some(before) = self.accumulated.take() {
            tch::no_grad(|| lists::add(&sum, &before)).map_err(failed)?;
        }
        if is_last {
            return Ok(Some(sum));
        }
        self.accumulated = Some(sum);
        Ok(None)
    }

    /// As [`add`](Gradients::add), where the sum is in the parameters' `grad`.
    fn add_in_place(
        &mut self,
        BackwardInput { backbone, forward, grad_bd }: BackwardInput<'_>,
        parameters: &[&Tensor],
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        if !self.begun {
            zero(parameters)?;
        }
        self.begun = !is_last;
        let mut reducer = self.reducer.as_mut().filter(|_| is_last);
        if let Some(reducer) = &mut reducer {
            reducer.begin()?;
        }
        let mut run = |output: &Tensor, gradient: &Tensor| -> Result<(), TrainError> {
            let objective = objective(output, gradient);
            match &mut reducer {
                Some(reducer) => Ok(reducer.backward(&objective)?),
                None => Ok(objective.f_backward().map_err(failed)?),
            }
        };
        match forward {
            RecordedForward::Whole(embeddings_bd) => run(&embeddings_bd, grad_bd)?,
            RecordedForward::Checkpointed(forward) => forward.backward(backbone, grad_bd, run)?,
        }
        if let Some(reducer) = &mut reducer {
            reducer.finish()?;
        }
        let gradients = || parameters.iter().map(|parameter| parameter.grad()).collect();
        is_last.then(|| self.complete(gradients())).transpose()
    }

    /// Refuses gradients of which one is missing: a parameter that the network does not use would not
    /// learn, and on several ranks would keep the gradients of others from being summed.
    fn complete(&self, gradients: Vec<Tensor>) -> Result<Vec<Tensor>, TrainError> {
        let missing = gradients.iter().zip(&self.names).filter(|(gradient, _)| !gradient.defined());
        let parameters: Vec<String> = missing.map(|(_, name)| name.clone()).collect();
        if parameters.is_empty() {
            return Ok(gradients);
        }
        Err(C10dError::NoGradient { parameters }.into())
    }
}

/// The number whose derivative by the outputs is `gradient`, from which autograd can start.
fn objective(output: &Tensor, gradient: &Tensor) -> Tensor {
    // The derivative of Σ y·g by y is g.
    (output * gradient).sum(output.kind())
}

/// Gradients are zeroed and never replaced: they are views of the buckets that are all-reduced.
fn zero(parameters: &[&Tensor]) -> Result<(), ModelError> {
    let gradients = parameters.iter().map(|parameter| parameter.grad());
    let gradients: Vec<Tensor> = gradients.filter(Tensor::defined).collect();
    lists::zero(&gradients).map_err(failed)
}

fn alone(objective: &Tensor, parameters: &[&Tensor]) -> Result<Vec<Tensor>, ModelError> {
    Tensor::f_run_backward(&[objective], parameters, false, false).map_err(failed)
}

fn failed(source: tch::TchError) -> ModelError {
    ModelError::torch("compute the gradient")(source)
}
