//! The backward pass of the backbone, over all ranks.

// B = images of this rank, D = embedding.

use std::sync::Arc;

use pfc_c10d::Reducer;
use pfc_model::{Backbone, ModelError, Spared};
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

/// A pass forwards of the backbone, to be gone back through.
#[derive(Debug)]
pub enum Passed {
    /// That keeps all it needs: the embeddings `[B, D]` with their history.
    Kept(Tensor),
    /// That computes most of it again.
    Spared(Spared),
}

impl Passed {
    /// `[B, D]`, without their history.
    pub fn embeddings(&self) -> Tensor {
        match self {
            Passed::Kept(embeddings_bd) => embeddings_bd.detach(),
            Passed::Spared(spared) => spared.embeddings().shallow_clone(),
        }
    }
}

/// The way back.
#[derive(Debug)]
pub struct Way<'a> {
    /// What was passed through.
    pub backbone: &'a Backbone,
    /// How.
    pub passed: Passed,
    /// `[B, D]`, the gradient of the loss by the embeddings.
    pub grad_bd: &'a Tensor,
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
    pub fn of(&mut self, way: Way<'_>, parameters: &[&Tensor]) -> Result<Vec<Tensor>, TrainError> {
        Ok(self.add(way, parameters, true)?.unwrap_or_default())
    }

    /// Adds those of one part of a step; they are given back, and exchanged between ranks, once the
    /// last part is in.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn add(
        &mut self,
        way: Way<'_>,
        parameters: &[&Tensor],
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        match (&mut self.reducer, way) {
            (None, Way { passed: Passed::Kept(embeddings_bd), grad_bd, .. }) => {
                let sum = alone(&objective(&embeddings_bd, grad_bd), parameters)?;
                Ok(self.added(sum, is_last))
            }
            (_, way) => self.add_in_place(way, parameters, is_last),
        }
    }

    fn added(&mut self, mut sum: Vec<Tensor>, is_last: bool) -> Option<Vec<Tensor>> {
        for (sum, part) in sum.iter_mut().zip(self.parts.take().unwrap_or_default()) {
            *sum += part;
        }
        if is_last {
            return Some(sum);
        }
        self.parts = Some(sum);
        None
    }

    /// Where they gather in the parameters' `grad`.
    fn add_in_place(
        &mut self,
        Way { backbone, passed, grad_bd }: Way<'_>,
        parameters: &[&Tensor],
        is_last: bool,
    ) -> Result<Option<Vec<Tensor>>, TrainError> {
        if !self.begun {
            zero(parameters);
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
        match passed {
            Passed::Kept(embeddings_bd) => run(&embeddings_bd, grad_bd)?,
            Passed::Spared(spared) => spared.backward(backbone, grad_bd, run)?,
        }
        Ok(is_last.then(|| parameters.iter().map(|p| or_zeros(p.grad(), p)).collect()))
    }
}

/// The number whose derivative by the outputs is `gradient`: the way to hand the engine a gradient to
/// start from.
fn objective(output: &Tensor, gradient: &Tensor) -> Tensor {
    // The derivative of Σ y·g by y is g.
    (output * gradient).sum(output.kind())
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
    let gradients =
        Tensor::f_run_backward(&[objective], parameters, false, false).map_err(failed)?;
    Ok(gradients.into_iter().zip(parameters).map(|(g, p)| or_zeros(g, p)).collect())
}

/// A parameter that the pass did not use has no gradient.
fn or_zeros(gradient: Tensor, parameter: &Tensor) -> Tensor {
    if gradient.defined() { gradient } else { parameter.zeros_like() }
}

fn failed(source: tch::TchError) -> ModelError {
    ModelError::torch("compute the gradient")(source)
}
