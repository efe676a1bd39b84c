//! One face: an encoded crop and what is known of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::content_hash;

/// Bytes of one encoded image at most; a 112×112 crop takes about 10 kB.
pub const IMAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of one `source` at most.
pub const SOURCE_BYTES_MAX: usize = 64 << 10;

/// One row of a data set, borrowed: from the memory map when read, from the packer when written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face<'a> {
    /// The encoded image, a whole JPEG file.
    pub image: &'a [u8],
    /// Identity, in `0..n_identities`.
    pub label: u32,
    /// Where the image came from: a path relative to the packed folder, or a record key.
    pub source: &'a str,
    /// Width of the decoded image in pixels.
    pub width: u16,
    /// Height of the decoded image in pixels.
    pub height: u16,
    /// [`content_hash`] of `image`.
    pub hash: u128,
    /// How good the crop is.
    pub quality: Quality,
}

impl<'a> Face<'a> {
    /// A face whose hash is computed from `image` (at memory speed, about 1 µs per crop).
    pub fn new(
        image: &'a [u8],
        label: u32,
        source: &'a str,
        size: ImageSize,
        quality: Quality,
    ) -> Face<'a> {
        let ImageSize { width, height } = size;
        Face { image, label, source, width, height, hash: content_hash(image), quality }
    }

    /// Width and height of the decoded image.
    pub fn size(&self) -> ImageSize {
        ImageSize { width: self.width, height: self.height }
    }
}

/// Measures of a crop, kept as columns; the packer defines and computes them. Each may be NaN:
/// not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// How much fine detail the luma has; more is sharper.
    pub sharpness: f32,
    /// Mean luma.
    pub brightness: f32,
    /// Standard deviation of the luma.
    pub contrast: f32,
}

impl Quality {
    /// Of a crop that nobody has measured.
    pub const UNKNOWN: Quality =
        Quality { sharpness: f32::NAN, brightness: f32::NAN, contrast: f32::NAN };

    /// Whether every measure is a number.
    pub fn is_known(self) -> bool {
        !(self.sharpness.is_nan() || self.brightness.is_nan() || self.contrast.is_nan())
    }
}

/// Width and height of an image in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels per line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

impl ImageSize {
    /// The size that face recognition networks are built for.
    pub const FACE: ImageSize = ImageSize::square(112);

    /// A size with `side` pixels each way.
    pub const fn square(side: u16) -> ImageSize {
        ImageSize { width: side, height: side }
    }

    /// Bytes of such an image as interleaved 8-bit RGB.
    pub const fn rgb_bytes(self) -> usize {
        // u16 · u16 · 3 needs 34 bits: no overflow on the 64-bit machines the project runs on.
        self.width as usize * self.height as usize * 3
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
