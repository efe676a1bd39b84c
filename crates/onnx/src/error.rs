//! Why a model cannot be opened or run.

use std::path::PathBuf;

use pfc_durable::{DurableError, faults::says_no_memory};

/// How a reason begins that is a build of onnxruntime without the provider that is asked for.
pub(crate) const MISSING: &str = "the onnxruntime that is loaded has no ";

/// An ONNX model that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file that is no ONNX model.
    #[error("{}: not an ONNX model: {reason}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// How to make an ONNX file of it, where that is known.
        way_out: Option<String>,
    },
    /// Weights in another file that cannot be read.
    #[error(
        "{}: its tensor `{}` lies in the file `{}`: {reason}",
        path.display(), tensor.escape_debug(), location.escape_debug()
    )]
    External {
        /// The model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file that it names.
        location: String,
        /// Why it cannot be read.
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
    /// A model with several outputs that may be embeddings, or without the one that is asked for.
    #[error("{}: which of its outputs is the embedding cannot be told: {reason}", path.display())]
    Outputs {
        /// The file.
        path: PathBuf,
        /// What they are.
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
    /// Weights that are no numbers.
    #[error("{}: tensor `{tensor}` has {n_bad} of {n} numbers that are NaN", path.display())]
    NanWeights {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
        /// How many of its numbers are NaN.
        n_bad: usize,
        /// How many it has.
        n: usize,
    },
    /// A model that answers with NaN or infinity.
    #[error("{}: its embedding of image {image} of those given is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The image, from 0.
        image: usize,
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
            OnnxError::Durable(error) => error.hint(),
            OnnxError::Refused { reason, .. } | OnnxError::Run { reason, .. }
                if says_no_memory(reason) =>
            {
                Some(
                    "end other programs, give the job more memory (`ulimit -v` shows a bound), or \
                     choose a smaller network"
                        .to_owned(),
                )
            }
            OnnxError::Refused { reason, .. } if reason.starts_with(MISSING) => Some(
                "name the library of a build for GPUs, such as that of Python's package \
                 onnxruntime-gpu, in ORT_DYLIB_PATH; the processor needs none"
                    .to_owned(),
            ),
            OnnxError::Runtime { .. } => Some(
                "`scripts/setup` fetches it; or name the library in ORT_DYLIB_PATH (in Python's \
                 package onnxruntime it is capi/libonnxruntime.so.*); where it is there, this process may \
                 not map as much memory as it takes (`ulimit -v`)"
                    .to_owned(),
            ),
            OnnxError::NotOnnx { way_out: Some(way_out), .. } => Some(way_out.clone()),
            OnnxError::NotOnnx { .. } => Some(
                "it was cut short, or it is another kind of file: compare its size with the \
                 original"
                    .to_owned(),
            ),
            OnnxError::External { path, location, .. } => {
                let name = path.file_name().unwrap_or(path.as_os_str()).display();
                let location = location.escape_debug();
                Some(format!(
                    "exporters write large models as two files: put `{location}` beside `{name}`, under \
                     the name that it had; or join them in Python: `import onnx; \
                     onnx.save(onnx.load(\"{name}\"), \"joined.onnx\")`"
                ))
            }
            OnnxError::Outputs { .. } => {
                Some("name the embedding among them with --output NAME".to_owned())
            }
            OnnxError::Input { reason, .. } if reason.contains("inputs, ") => Some(
                "one input takes the faces, and one beside it may take their five landmarks, [N, 5, 2]: export \
                 the network with all others as constants"
                    .to_owned(),
            ),
            OnnxError::Input { .. } => Some(
                "an embedding network has one input of four dimensions, one of them the 3 channels, or 1; \
                 --input-size states a size that the file leaves open"
                    .to_owned(),
            ),
            OnnxError::NanWeights { .. } => Some(
                "the run that these weights come from diverged, or the file was damaged: take another \
                 file, or an earlier checkpoint"
                    .to_owned(),
            ),
            OnnxError::NotFinite { .. } => Some(
                "its weights are damaged, or half precision is too narrow for this network: try \
                 another file, or one in f32"
                    .to_owned(),
            ),
            OnnxError::Output { .. } => Some(
                "an embedding network gives one row of numbers per face: export the backbone \
                 alone, without detector or classifier, or name the output with --output NAME"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_known_is_not_said_to_be_cut_short() {
        let hint = |reason: &str, way_out: Option<&str>| {
            let (reason, way_out) = (reason.to_owned(), way_out.map(str::to_owned));
            OnnxError::NotOnnx { path: "m.h5".into(), reason, way_out }.hint()
        };
        let known = crate::foreign::named("m.h5".as_ref(), b"\x89HDF\r\n\x1a\n").unwrap();
        assert_eq!(hint(&known.reason, Some(&known.way_out)).as_ref(), Some(&known.way_out));
        assert!(hint("failed to decode", None).unwrap().starts_with("it was cut short"));
    }
}
