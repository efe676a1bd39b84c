//! The one way from the bytes of an image to a crop, and back to bytes.
//!
//! Every program that looks at a picture does it through this crate, so that the same file gives the
//! same pixels when it is packed, aligned, embedded, judged or shown:
//!
//! 1. [`sniff`]: the first bytes say which format it is; names play no part.
//! 2. [`decode`]: to 8-bit grey or RGB, upright by EXIF or XMP, strict about truncation. Its documentation
//!    states the rules for 16 bits, alpha, CMYK, palettes and animations.
//! 3. [`Recipe::crop`]: to one size, by five landmarks ([`align`]) or by resizing. An image of another
//!    shape is cut to its middle unless the recipe says otherwise; the filter is Lanczos with three
//!    lobes.
//! 4. [`normalise`]: to the numbers that networks take.
//!
//! A JPEG of the right size that is upright keeps its bytes ([`jpeg::as_stored`]) and is decoded
//! straight into the caller's buffer ([`decode_rgb`]), with the pixels that the long way gives.
//!
//! Bytes are taken to be hostile: nothing here panics, and memory is bounded by limits that are checked
//! on the header.

pub mod align;
pub mod jpeg;

mod crop;
mod decode;
mod error;
mod kind;
mod limits;
mod names;
mod normalise;
mod orientation;
mod pixels;
mod png;
mod quality;
mod resize;
mod size;
mod template;
mod turn;
mod xmp;

pub use crop::{Changes, Crop, Recipe, Tally};
pub use decode::{decode, decode_noting};
pub use error::ImageError;
pub use jpeg::{decode_luma, decode_rgb, encode as encode_jpeg, header as jpeg_header};
pub use kind::{Kind, SNIFF_BYTES, Sniffed, sniff};
pub use limits::Limits;
pub use names::{ImageFolder, LeadsOut, has_image_extension, with_extensions};
pub use normalise::{mirror_rgb, normalise};
pub use pixels::{Channels, Pixels};
pub use png::encode as encode_png;
pub use quality::{Exposure, Quality, exposure, measure};
pub use resize::{Fit, Part, resize, resize_part};
pub use size::ImageSize;
