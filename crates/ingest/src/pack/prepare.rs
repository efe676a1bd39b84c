//! One image from the bytes of its file to the bytes of its row.

use std::borrow::Cow;

use pfc_image::{
    Changes, Crop, ImageError, Kind, Pixels, Sniffed, align::Point, decode_luma, encode_jpeg, jpeg,
    measure, sniff,
};
use pfc_shard::{IMAGE_BYTES_MAX, Quality, hash::content_hash};
use pfc_sources::Source;

use crate::{landmarks::LandmarkTable, reject::Reject};

/// What every image of a data set becomes.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Size, shape and limits.
    pub crop: pfc_image::Recipe,
    /// JPEG quality of what is encoded anew, 1 to 100.
    pub quality: u8,
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

/// Whether faces are cut out of the images, and by whose landmarks.
#[derive(Debug)]
pub enum Alignment {
    /// Images are crops already.
    None,
    /// A list states them beside the paths of its images.
    OfSource,
    /// A list of their own.
    List(LandmarkTable),
}

impl Alignment {
    /// The five points of image `entry`; nothing if it is to be taken as it is.
    ///
    /// # Errors
    ///
    /// [`Reject::NoLandmarks`] if it should be aligned and cannot.
    pub fn points(&self, source: &dyn Source, entry: u64) -> Result<Option<[Point; 5]>, Reject> {
        let points = match self {
            Alignment::None => return Ok(None),
            Alignment::OfSource => source.landmarks(entry).map(|stated| {
                let (pairs, _) = stated.as_chunks::<2>();
                std::array::from_fn(|i| pairs[i].map(f64::from))
            }),
            Alignment::List(table) => table.get(&source.path(entry)),
        };
        points.map(Some).ok_or(Reject::NoLandmarks)
    }
}

/// An image that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// A whole JPEG of the recipe's size.
    pub image: Vec<u8>,
    /// The pixels are those of the file: `image` is the file itself, byte for byte but for stray bytes
    /// between its segments and an end marker that it lacks.
    pub passed_through: bool,
    /// What was done to it.
    pub changes: Changes,
    pub quality: Quality,
    /// Content hash of `image`.
    pub hash: u128,
}

/// Decodes and measures an image, as far as the recipe asks; keeps its bytes where they will do. With
/// the landmarks of a face in it, cuts that out.
///
/// # Errors
///
/// [`Reject::Image`] with the reason.
pub fn prepare(
    bytes: Vec<u8>,
    landmarks: Option<&[Point; 5]>,
    recipe: &Recipe,
) -> Result<Prepared, Reject> {
    if landmarks.is_none() && is_jpeg(&bytes) {
        match jpeg::as_stored(&bytes, recipe.crop.size)? {
            Some(Cow::Borrowed(_)) => return kept(bytes, recipe),
            Some(Cow::Owned(mended)) => return kept(mended, recipe),
            None => {}
        }
    }
    let Crop { pixels, changes } = recipe.crop.crop(&bytes, landmarks)?;
    drop(bytes);
    let image = encode_jpeg(&pixels, recipe.quality)?;
    let quality = measured(&pixels);
    let hash = content_hash(&image);
    Ok(Prepared { image, passed_through: false, changes, quality, hash })
}

fn is_jpeg(bytes: &[u8]) -> bool {
    sniff(bytes) == Sniffed::Image(Kind::Jpeg) && bytes.len() <= IMAGE_BYTES_MAX
}

/// Keeps a JPEG of the right size, once its decoding has proved it.
fn kept(image: Vec<u8>, recipe: &Recipe) -> Result<Prepared, Reject> {
    let size = recipe.crop.size;
    let quality = match recipe.validate {
        Validate::Full => {
            let luma = decode_luma(&image)?;
            if luma.len() != usize::from(size.width) * usize::from(size.height) {
                return Err(ImageError::Corrupt("the decoder returned another size".into()).into());
            }
            measure(&luma, size.width.into())
        }
        Validate::Header => Quality::UNKNOWN,
    };
    let hash = content_hash(&image);
    Ok(Prepared { image, passed_through: true, changes: Changes::default(), quality, hash })
}

fn measured(pixels: &Pixels) -> Quality {
    measure(&pixels.luma(), pixels.width as usize)
}
