//! Images of any supported format in, pixels and JPEG bytes out. Bytes are taken to be hostile:
//! nothing here panics, and memory is bounded by limits that are checked on the header.

mod decode;
mod jpeg;
mod kind;
mod pixels;
mod png;
mod quality;
mod resize;

pub use decode::{Limits, decode};
pub use jpeg::{check_outline, decode_luma, encode as encode_jpeg, size as jpeg_size};
pub use kind::{Kind, Sniffed, has_image_extension, sniff};
pub use pixels::{Channels, Pixels};
pub use png::encode as encode_png;
pub use quality::measure;
pub use resize::{Fit, resize};

/// Why an image is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The decoder gave up.
    #[error("{0}")]
    Corrupt(String),
}
