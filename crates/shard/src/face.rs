//! One face: an encoded crop and what is known of it.

use pfc_image::{ImageSize, Quality};

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
