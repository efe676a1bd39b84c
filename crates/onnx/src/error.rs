//! Why a model cannot be opened or run.

use std::{io, path::PathBuf};

/// An ONNX model that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The operating system refused.
    #[error("{}: cannot read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that is no ONNX model.
    #[error("{}: not an ONNX model: {reason}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model whose input takes no images, or none that can be told.
    #[error("{}: its input takes no faces: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the input is.
        reason: String,
    },
    /// A model whose output is no embedding.
    #[error("{}: its output is no embedding: {reason}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the output is.
        reason: String,
    },
    /// onnxruntime cannot be loaded.
    #[error("cannot load onnxruntime: {reason}")]
    Runtime {
        /// Where it was looked for, and what came of it.
        reason: String,
    },
    /// onnxruntime refuses the model.
    #[error("{}: onnxruntime refuses the model: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Its message.
        reason: String,
    },
    /// onnxruntime failed on images.
    #[error("onnxruntime failed on {n} images: {reason}")]
    Run {
        /// Images of the batch.
        n: usize,
        /// Its message.
        reason: String,
    },
    /// Pixels that do not make the stated number of faces.
    #[error("{found} bytes of pixels for {n} faces, which take {expected}")]
    Pixels {
        /// Faces stated.
        n: usize,
        /// Bytes given.
        found: usize,
        /// Bytes that `n` faces take.
        expected: usize,
    },
}

impl OnnxError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            OnnxError::Runtime { .. } => Some(
                "`scripts/setup` fetches it; or name the library in ORT_DYLIB_PATH (in Python's \
                 package onnxruntime it is capi/libonnxruntime.so.*)"
                    .to_owned(),
            ),
            OnnxError::NotOnnx { .. } => Some(
                "it was cut short, or it is another kind of file: compare its size with the \
                 original"
                    .to_owned(),
            ),
            OnnxError::Input { .. } => Some(
                "an embedding network has one input of four dimensions, three of its channels; \
                 --input-size states a size that the file leaves open"
                    .to_owned(),
            ),
            OnnxError::Output { .. } => Some(
                "an embedding network gives one row of numbers per face: export the backbone \
                 alone, without detector or classifier"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
