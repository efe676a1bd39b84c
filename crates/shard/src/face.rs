//! One face: an encoded crop and what is known of it.

use pfc_image::{ImageSize, Quality, decode_rgb};

use crate::{ShardError, hash::content_hash};

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

    /// Refuses an image whose bytes are not those that were packed: what copies a row checks what it
    /// reads, so that no damage gets a hash of its own.
    ///
    /// * `row`: in the data set, for the error
    ///
    /// # Errors
    ///
    /// [`ShardError::DamagedImage`].
    pub fn check(&self, row: u64) -> Result<(), ShardError> {
        match content_hash(self.image) == self.hash {
            true => Ok(()),
            false => Err(ShardError::DamagedImage { row, face: self.shown() }),
        }
    }

    /// Decodes the image.
    ///
    /// * `row`: in the data set, for the error
    /// * `rgb`: room for `size().rgb_bytes()` bytes of red, green, blue
    ///
    /// # Errors
    ///
    /// [`ShardError::Undecodable`]; [`ShardError::is_of_image`] tells a fact about the image from a fault
    /// of the system.
    pub fn decode(&self, row: u64, rgb: &mut [u8]) -> Result<(), ShardError> {
        decode_rgb(self.image, self.size(), rgb).map_err(|source| ShardError::Undecodable {
            row,
            face: self.shown(),
            source,
        })
    }

    /// The source, which is foreign text, for a message.
    fn shown(&self) -> String {
        self.source.escape_debug().to_string()
    }
}
