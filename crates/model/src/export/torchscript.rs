//! TorchScript: the network recorded while it runs.

use std::path::Path;

use pfc_durable::AtomicFile;
use tch::{CModule, Kind, Tensor};

use crate::{IMAGE_SIZE, Inference, ModelError};

/// Records the network, normalisations folded, as a program that takes batches of any size.
///
/// The input is `[B, 3, 112, 112]`, RGB, normalised as for training.
///
/// # Errors
///
/// [`ModelError::Torch`] and [`ModelError::Durable`].
pub fn torchscript(path: &Path, inference: &Inference) -> Result<(), ModelError> {
    let shape = [2, 3, IMAGE_SIZE, IMAGE_SIZE];
    let example = Tensor::zeros(shape, (Kind::Float, inference.device()));
    let mut record = |inputs: &[Tensor]| vec![inference.forward(&inputs[0])];
    let module = CModule::create_by_tracing("Backbone", "forward", &[example], &mut record)
        .map_err(ModelError::torch("record the network"))?;
    let file = AtomicFile::create(path)?;
    module.save(file.temporary_path()).map_err(ModelError::torch("save the recorded network"))?;
    file.commit()?;
    Ok(())
}
