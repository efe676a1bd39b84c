//! Why an image is not packed.

use pfc_detect::{DetectError, NoFace};
use pfc_image::ImageError;
use pfc_sources::ReadError;

use crate::IngestError;

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reject {
    /// The source leaves it out, or cannot read it.
    #[error(transparent)]
    Source(#[from] pfc_sources::Reject),
    /// Another line is about the same image.
    #[error("another line before it makes the same file")]
    ListedTwice,
    /// What the file holds is of no use.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The detector finds no face in it that can be used.
    #[error(transparent)]
    Face(#[from] NoFace),
}

impl Reject {
    /// A short fixed word for the reason, to count and filter by.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::Source(reject) => reject.reason(),
            Reject::ListedTwice => "listed_twice",
            Reject::Face(no_face) => no_face.reason(),
            Reject::Image(ImageError::TooManyPixels { .. }) => "too_large",
            Reject::Image(ImageError::Empty) => "empty",
            Reject::Image(ImageError::NotAnImage) => "not_an_image",
            Reject::Image(ImageError::Unsupported(_)) => "unsupported",
            Reject::Image(ImageError::Truncated) => "truncated",
            Reject::Image(ImageError::Landmarks(_)) => "landmarks",
            Reject::Image(
                ImageError::Corrupt(_)
                | ImageError::NotJpeg { .. }
                | ImageError::Size { .. }
                | ImageError::Buffer { .. }
                | ImageError::Memory { .. },
            ) => "corrupt",
        }
    }

    /// Whether it was never meant as an image of someone, so that leaving it out loses nothing.
    pub fn is_skip(&self) -> bool {
        matches!(self, Reject::Source(reject) if reject.is_skip())
    }
}

/// Why there is nothing to store of an image.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A fact about this image, which is left out.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// A fault of the system. It says nothing of the image, so that the command has to stop.
    #[error(transparent)]
    Fatal(#[from] IngestError),
}

impl Failure {
    /// What it means that the image called `name` cannot be used.
    pub fn of(reject: Reject, name: impl FnOnce() -> String) -> Failure {
        match reject {
            Reject::Image(source) if source.is_of_system() => {
                Failure::Fatal(IngestError::Memory { image: name(), source })
            }
            reject => Failure::Reject(reject),
        }
    }
}

impl From<DetectError> for Failure {
    fn from(error: DetectError) -> Failure {
        Failure::Fatal(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::Reject(reject) => Failure::Reject(reject.into()),
            ReadError::Fault(source) => Failure::Fatal(source.into()),
        }
    }
}
