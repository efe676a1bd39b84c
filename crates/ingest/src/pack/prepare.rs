//! One image from the bytes of its file to the bytes of its row.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pfc_image::{
    Fit, ImageError, ImageSize, Kind, Limits, Pixels, Sniffed, align::Point, check_outline, decode,
    decode_luma, encode_jpeg, jpeg_size, measure, resize, sniff,
};
use pfc_shard::{IMAGE_BYTES_MAX, Quality, hash::content_hash};

use crate::{align::crop, reject::Reject};

/// What every image of a data set becomes.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Width and height in pixels.
    pub side: u16,
    /// JPEG quality of what is encoded anew, 1 to 100.
    pub quality: u8,
    /// What becomes of images that are not square.
    pub fit: Fit,
    /// How large an image may be to be decoded.
    pub limits: Limits,
    /// How much of an image that keeps its bytes is checked.
    pub validate: Validate,
}

/// How much of an image that keeps its bytes is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Validate {
    /// All: it is decoded, and its quality measured.
    #[default]
    Full,
    /// Its markers, its frame header and that it ends: several times faster. Damage within goes
    /// unnoticed, and the quality columns hold NaN: not measured.
    Header,
}

/// An image that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// A whole JPEG of the recipe's size.
    pub image: Vec<u8>,
    /// `image` is the file itself, byte for byte.
    pub passed_through: bool,
    pub quality: Quality,
    /// Content hash of `image`.
    pub hash: u128,
}

/// Decodes and measures an image, as far as the recipe asks; keeps its bytes where they will do. With
/// the landmarks of a face in it, cuts that out.
///
/// # Errors
///
/// [`Reject::Landmarks`] or [`Reject::Image`] with the reason.
pub fn prepare(
    bytes: Vec<u8>,
    landmarks: Option<&[Point; 5]>,
    recipe: &Recipe,
) -> Result<Prepared, Reject> {
    if let Some(points) = landmarks {
        let size = ImageSize::square(recipe.side);
        return encoded(&crop(&bytes, points, size, recipe.limits)?, recipe);
    }
    if will_do(&bytes, recipe)? {
        let quality = match recipe.validate {
            Validate::Full => measure(&luma(&bytes, recipe)?, recipe.side.into()),
            Validate::Header => Quality::UNKNOWN,
        };
        let hash = content_hash(&bytes);
        return Ok(Prepared { image: bytes, passed_through: true, quality, hash });
    }
    let upright = decode(&bytes, recipe.limits)?;
    drop(bytes);
    encoded(&resize(upright, recipe.side.into(), recipe.fit)?, recipe)
}

fn encoded(pixels: &Pixels, recipe: &Recipe) -> Result<Prepared, Reject> {
    let image = encode_jpeg(pixels, recipe.quality)?;
    let quality = measure(&pixels.luma(), recipe.side.into());
    let hash = content_hash(&image);
    Ok(Prepared { image, passed_through: false, quality, hash })
}

/// Whether it is a JPEG of the right size, as far as its header tells and that it ends.
///
/// An EXIF orientation is not looked at: a crop of the final size is what its maker wanted.
fn will_do(bytes: &[u8], recipe: &Recipe) -> Result<bool, ImageError> {
    let side = u32::from(recipe.side);
    let is_jpeg = sniff(bytes) == Sniffed::Image(Kind::Jpeg);
    if !is_jpeg || bytes.len() > IMAGE_BYTES_MAX || jpeg_size(bytes)? != (side, side) {
        return Ok(false);
    }
    check_outline(bytes)?;
    Ok(true)
}

/// The luma of a JPEG, which proves that it decodes.
fn luma(bytes: &[u8], recipe: &Recipe) -> Result<Vec<u8>, ImageError> {
    let side = usize::from(recipe.side);
    // No state outlives the call but `bytes`, which is only read.
    let luma = catch_unwind(AssertUnwindSafe(|| decode_luma(bytes)))
        .unwrap_or_else(|_| Err(ImageError::Corrupt("the decoder panicked".into())))?;
    if luma.len() != side * side {
        return Err(ImageError::Corrupt("the decoder returned another size".into()));
    }
    Ok(luma)
}
