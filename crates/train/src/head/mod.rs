//! The margin-softmax head of Partial FC (arXiv 2010.05222): class centres, loss and their update.

mod comm;
mod config;
mod error;

use tch::Tensor;

pub use comm::{CommError, Communicator, Solo};
pub use config::{ArcfaceGradient, HeadConfig, Margin, Precision, Update};
pub use error::HeadError;

/// Class centres with their momentum, and all that turns a batch of embeddings into a loss.
pub struct Head {
    config: HeadConfig,
}

/// What one step of the head gives back.
#[derive(Debug)]
pub struct HeadOutput {
    /// Mean loss over the global batch, the same on every rank.
    pub loss: f64,
    /// `[B, D]` f32, on the embeddings' device: the gradient of `loss` by this rank's embeddings.
    pub grad_embeddings_bd: Tensor,
    /// Mean cosine between an embedding and its own centre over the global batch, in `[-1, 1]`.
    pub mean_positive_cosine: f64,
    /// Rows of centres that took part on this rank.
    pub rows_sampled: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Wall-clock milliseconds of one step by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Drawing the rows.
    pub sample_ms: f64,
    /// Reading, catching up and normalising rows.
    pub gather_ms: f64,
    /// The three matrix products.
    pub product_ms: f64,
    /// Exponentials and their sums.
    pub softmax_ms: f64,
    /// Moving the centres.
    pub update_ms: f64,
    /// Exchanges between ranks.
    pub communication_ms: f64,
}

impl Head {
    /// A head in a world of one rank, every centre at its initial value.
    ///
    /// # Errors
    ///
    /// [`HeadError::Config`] if the configuration is out of bounds.
    pub fn new(config: &HeadConfig) -> Result<Head, HeadError> {
        config.validate()?;
        Ok(Head { config: config.clone() })
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// Loss and gradient of one batch, and one SGD step of the centres.
    ///
    /// * `embeddings_bd`: `[B, D]` f32, not normalised, any device; no gradient is recorded
    /// * `labels`: `[B]` global class ids
    /// * `step`: number of the step, which decides the rows drawn
    /// * `lr`: learning rate of the centres in this step
    ///
    /// # Errors
    ///
    /// Any [`HeadError`] but `Config`; the centres are then as before.
    pub fn step(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let _ = (embeddings_bd, labels, lr);
        Err(HeadError::LossNotFinite { step, loss: f64::NAN })
    }

    /// Gives every row the updates that were put off until it is next sampled.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached.
    pub fn catch_up(&mut self) -> Result<(), HeadError> {
        Ok(())
    }

    /// Catches up, then copies out all centres and their momentum.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached or memory runs out.
    pub fn state(&mut self) -> Result<Vec<(String, Tensor)>, HeadError> {
        Ok(Vec::new())
    }

    /// Puts back what [`Head::state`] gave.
    ///
    /// # Errors
    ///
    /// [`HeadError::State`] if a tensor is missing or of another shape; the head is then unchanged.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), HeadError> {
        let _ = state;
        Ok(())
    }
}
