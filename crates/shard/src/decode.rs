//! JPEG bytes to pixels in the caller's buffer.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use crate::ImageSize;

/// An image that is not the JPEG it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not begin with a JPEG header.
    #[error("not a JPEG: {what}")]
    NotJpeg {
        /// What is missing.
        what: &'static str,
    },
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
    /// The JPEG is truncated, corrupt, or of a kind that is not read.
    #[error("broken JPEG: {what}")]
    Broken {
        /// The decoder's reason.
        what: String,
    },
}

impl DecodeError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            DecodeError::NotJpeg { .. } | DecodeError::Broken { .. } => {
                Some("`pfc-ingest verify` tells whether the data set is damaged".into())
            }
            DecodeError::Size { .. } => Some("`pfc-ingest pack` resizes crops to one size".into()),
            DecodeError::Buffer { .. } => None,
        }
    }
}

/// Decodes a JPEG of exactly `size` into `out` as interleaved 8-bit RGB, row by row (HWC).
///
/// Grey images are expanded to three equal channels. The header is checked before anything is
/// allocated, so memory is bounded by `size`, whatever the bytes claim. Never panics.
///
/// # Errors
///
/// [`DecodeError`]; `out` then holds unspecified pixels.
pub fn decode_rgb(jpeg: &[u8], size: ImageSize, out: &mut [u8]) -> Result<(), DecodeError> {
    if out.len() != size.rgb_bytes() {
        return Err(DecodeError::Buffer { found: out.len(), expected: size.rgb_bytes() });
    }
    let found = header(jpeg)?;
    if found != size {
        return Err(DecodeError::Size { found, expected: size });
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(size.width.into())
        .set_max_height(size.height.into())
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_into(out).map_err(|e| DecodeError::Broken { what: e.to_string() })
}

/// Width and height from a JPEG's header. Reads only segment headers, allocates nothing.
///
/// # Errors
///
/// [`DecodeError::NotJpeg`] if the bytes end, or stop being JPEG segments, before a frame header
/// with positive dimensions.
pub fn header(bytes: &[u8]) -> Result<ImageSize, DecodeError> {
    let bad = |what| DecodeError::NotJpeg { what };
    let mut rest = bytes.strip_prefix(b"\xff\xd8").ok_or(bad("no start-of-image marker"))?;
    loop {
        let (marker, tail) = next_marker(rest).ok_or(bad("no frame header"))?;
        let (length, _) = tail.split_first_chunk::<2>().ok_or(bad("the header is cut short"))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let segment = tail.get(2..length).ok_or(bad("the header is cut short"))?;
        if is_frame_header(marker) {
            return frame_size(segment).ok_or(bad("the frame header has no dimensions"));
        }
        if marker == START_OF_SCAN {
            return Err(bad("no frame header before the image data"));
        }
        rest = &tail[length..];
    }
}

const START_OF_SCAN: u8 = 0xda;

/// SOF0 to SOF15, but for the tables that share their range (DHT, JPG, DAC).
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// The marker at the start of `bytes`, after any fill bytes, and what follows it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xff")?;
    let fill = bytes.iter().take_while(|&&b| b == 0xff).count();
    let (&marker, rest) = bytes[fill..].split_first()?;
    Some((marker, rest))
}

/// Precision (1 byte), height (2), width (2).
fn frame_size(segment: &[u8]) -> Option<ImageSize> {
    let &[_, h1, h0, w1, w0, ..] = segment else { return None };
    let size =
        ImageSize { width: u16::from_be_bytes([w1, w0]), height: u16::from_be_bytes([h1, h0]) };
    (size.width > 0 && size.height > 0).then_some(size)
}
