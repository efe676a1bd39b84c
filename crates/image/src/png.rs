//! PNG, for pictures that must not lose anything.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

use crate::{ImageError, Pixels};

/// Encodes without loss; grey stays one channel.
///
/// # Errors
///
/// [`ImageError::Corrupt`] if the encoder refuses, which whole pixels never cause.
pub fn encode(pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(pixels.clone())
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| ImageError::Corrupt(e.to_string()))?;
    Ok(bytes.into_inner())
}
