//! Models for other programs: ONNX, TorchScript, and state dicts.

mod onnx;
mod torchscript;

pub use onnx::{OnnxOptions, onnx};
pub use torchscript::torchscript;

use std::path::Path;

use pfc_durable::{AtomicFile, DurableError};
use pfc_torchfile::{Dtype, StateEntry, StateWriter, TorchFileError};
use tch::{Kind, Tensor};

use crate::{Backbone, ModelError, bytes, tensors};

/// Writes the state dict as `torch.save` does; the reference loads it with `strict=True`.
///
/// * `half`: keeps real numbers in f16, which `load_state_dict` widens again
///
/// # Errors
///
/// [`ModelError::TorchFile`] and [`ModelError::Durable`].
pub fn pth(path: &Path, backbone: &Backbone, half: bool) -> Result<(), ModelError> {
    let tensors = state_dict(backbone, half);
    let failed = |error: TorchFileError| match error {
        TorchFileError::Io(source) => DurableError::at("write", path)(source).into(),
        source => ModelError::TorchFile { path: path.to_owned(), source },
    };
    let specs = tensors.iter().map(|(key, tensor)| StateEntry {
        key: key.clone(),
        dtype: match tensor.kind() {
            Kind::Half => Dtype::F16,
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        },
        shape: tensor.size().into_iter().map(|side| side as u64).collect(),
    });
    let file = AtomicFile::create(path)?;
    let mut writer = StateWriter::new(file, specs.collect()).map_err(failed)?;
    for (_, tensor) in &tensors {
        bytes::with_bytes(tensor, |bytes| writer.push(bytes)).map_err(failed)?;
    }
    writer.finish().map_err(failed)?.commit()?;
    Ok(())
}

/// Writes the state dict as safetensors.
///
/// * `half`: keeps real numbers in f16
///
/// # Errors
///
/// [`ModelError::Durable`].
pub fn safetensors(path: &Path, backbone: &Backbone, half: bool) -> Result<(), ModelError> {
    tensors::write(path, &state_dict(backbone, half)).map(drop)
}

fn state_dict(backbone: &Backbone, half: bool) -> Vec<(String, Tensor)> {
    let narrow = |tensor: Tensor| match tensor.kind() {
        Kind::Float if half => tensor.to_kind(Kind::Half),
        _ => tensor,
    };
    backbone.state_dict().into_iter().map(|(key, tensor)| (key, narrow(tensor))).collect()
}
