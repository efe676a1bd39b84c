//! Why there is no picture.

use crate::{ImageSize, align::AlignError};

/// Why an image is not usable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImageError {
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are those of no image format.
    #[error("the content is not an image")]
    NotAnImage,
    /// An image format that is not read.
    #[error("{0} images are not supported")]
    Unsupported(&'static str),
    /// More pixels than the limit, by its own header.
    #[error("{width}x{height} pixels are more than the {pixels_max} allowed")]
    TooManyPixels {
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
        /// Most pixels allowed.
        pixels_max: u64,
    },
    /// The file breaks off.
    #[error("the file is cut short")]
    Truncated,
    /// The bytes do not begin with the header of a JPEG.
    #[error("not a JPEG: {what}")]
    NotJpeg {
        /// What is missing.
        what: &'static str,
    },
    /// The decoder gave up.
    #[error("{0}")]
    Corrupt(String),
    /// The image has other dimensions than asked for.
    #[error("the image is {found} pixels, expected {expected}")]
    Size {
        /// Dimensions in the header.
        found: ImageSize,
        /// Dimensions asked for.
        expected: ImageSize,
    },
    /// The caller's buffer does not fit the dimensions asked for.
    #[error("the buffer has {found} bytes, expected {expected}: width · height · 3")]
    Buffer {
        /// Bytes of the buffer.
        found: usize,
        /// Bytes of an RGB image of the size asked for.
        expected: usize,
    },
    /// The landmarks make no face.
    #[error(transparent)]
    Landmarks(#[from] AlignError),
    /// The system refused the memory. This is no fault of the image.
    #[error(
        "there is no memory to decode {width}x{height} pixels, which takes up to {bytes} bytes"
    )]
    Memory {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// Bytes asked for.
        bytes: u64,
    },
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ImageError::Empty | ImageError::Truncated => "copy or download the file again",
            ImageError::NotAnImage | ImageError::NotJpeg { .. } => {
                "JPEG, PNG, WebP, BMP and PNM are read, whatever the file is called"
            }
            ImageError::Unsupported(_) => "convert it to JPEG or PNG",
            ImageError::TooManyPixels { .. } => "scale the image down, or raise the limit",
            ImageError::Corrupt(_) => "the file is damaged: copy or download it again",
            ImageError::Size { .. } => "`pfc-ingest pack` resizes crops to one size",
            ImageError::Landmarks(error) => return error.hint(),
            ImageError::Memory { .. } => {
                "use fewer threads, raise the memory limit of the process, or lower the largest \
                 number of pixels that is decoded"
            }
            ImageError::Buffer { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether the system failed, and not the image: the same image may be read later.
    pub fn is_of_system(&self) -> bool {
        matches!(self, ImageError::Memory { .. })
    }
}
