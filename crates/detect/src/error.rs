//! Why no faces are looked for.

use std::path::PathBuf;

use pfc_image::ImageError;
use pfc_onnx::OnnxError;

/// A detector that cannot be used, or fails. No fact about a picture is one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The file is no ONNX model that takes pictures, or the runtime fails.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A network whose outputs are those of no detector that is known.
    #[error("{}: no face detector that is known: {reason}; its outputs are {outputs}", path.display())]
    NotADetector {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
        /// Their names and shapes.
        outputs: String,
    },
    /// A network whose outputs have other shapes for another picture than were recognised.
    #[error("{}: the outputs for a picture of {width}x{height} cannot be read: {reason}", path.display())]
    Outputs {
        /// The file.
        path: PathBuf,
        /// Columns given to the network.
        width: usize,
        /// Rows given to the network.
        height: usize,
        /// What does not fit.
        reason: String,
    },
    /// A picture that cannot be scaled.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl DetectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            DetectError::Onnx(OnnxError::Input { .. }) => Some(
                "a detector has one input of four dimensions, one of them the 3 channels, and runs on \
                 one picture at a time"
                    .to_owned(),
            ),
            DetectError::Onnx(error) => error.hint(),
            DetectError::NotADetector { .. } => Some(
                "SCRFD and RetinaFace with five landmarks, YuNet of 2023 and CenterFace are read; \
                 docs/photographs.md says where to get them"
                    .to_owned(),
            ),
            DetectError::Outputs { .. } => Some(
                "export the network with open height and width, or with one fixed size of multiples of 32"
                    .to_owned(),
            ),
            DetectError::Image(error) => error.hint(),
        }
    }
}
