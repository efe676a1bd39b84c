//! Any supported format to pixels, upright.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use crate::{Channels, ImageError, Kind, Pixels, Sniffed, jpeg, sniff};

/// How large an image may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height at most, checked on the header before anything is decoded.
    pub pixels_max: u64,
}

/// Decodes an image and turns it upright by its EXIF orientation.
///
/// 16 bits a channel become 8, palettes become RGB, an alpha channel is dropped; grey stays grey.
/// A decoder that panics counts as one that failed.
///
/// # Errors
///
/// [`ImageError`], each variant for its reason.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Pixels, ImageError> {
    let kind = match sniff(bytes) {
        _ if bytes.is_empty() => return Err(ImageError::Empty),
        Sniffed::Image(kind) => kind,
        Sniffed::Unsupported(name) => return Err(ImageError::Unsupported(name)),
        Sniffed::NotAnImage => return Err(ImageError::NotAnImage),
    };
    // No state outlives the call but `bytes`, which is only read.
    catch_unwind(AssertUnwindSafe(|| decode_kind(bytes, kind, limits)))
        .unwrap_or_else(|_| Err(ImageError::Corrupt("the decoder panicked".into())))
}

fn decode_kind(bytes: &[u8], kind: Kind, limits: Limits) -> Result<Pixels, ImageError> {
    let format = match kind {
        Kind::Jpeg => return decode_jpeg(bytes, limits),
        Kind::Png => ImageFormat::Png,
        Kind::Bmp => ImageFormat::Bmp,
        Kind::Pnm => ImageFormat::Pnm,
        Kind::WebP => ImageFormat::WebP,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allocation(limits));
    let mut decoder = reader.into_decoder().map_err(|e| failed(&e))?;
    let (width, height) = decoder.dimensions();
    limits.check(width.into(), height.into())?;
    // An image without orientation data is upright; broken data is no reason to refuse it.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| failed(&e))?;
    Ok(upright(image, orientation))
}

fn decode_jpeg(bytes: &[u8], limits: Limits) -> Result<Pixels, ImageError> {
    let (width, height) = jpeg::size(bytes)?;
    limits.check(width.into(), height.into())?;
    let (pixels, exif) = jpeg::decode(bytes)?;
    let orientation = exif.as_deref().and_then(Orientation::from_exif_chunk);
    match orientation {
        None | Some(Orientation::NoTransforms) => Ok(pixels),
        Some(orientation) => Ok(upright(pixels.into(), orientation)),
    }
}

fn upright(mut image: DynamicImage, orientation: Orientation) -> Pixels {
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    if image.color().has_color() {
        Pixels::rgb(width, height, image.into_rgb8().into_raw())
    } else {
        Pixels::grey(width, height, image.into_luma8().into_raw())
    }
}

impl From<Pixels> for DynamicImage {
    fn from(pixels: Pixels) -> DynamicImage {
        let Pixels { width, height, channels, data } = pixels;
        let whole = "pixels hold width times height times channels bytes";
        match channels {
            Channels::Grey => GrayImage::from_raw(width, height, data).expect(whole).into(),
            Channels::Rgb => RgbImage::from_raw(width, height, data).expect(whole).into(),
        }
    }
}

impl Limits {
    fn check(self, width: u64, height: u64) -> Result<(), ImageError> {
        let pixels_max = self.pixels_max;
        if width == 0 || height == 0 {
            return Err(ImageError::Corrupt(format!("the header says {width}x{height} pixels")));
        }
        if width.saturating_mul(height) > pixels_max {
            return Err(ImageError::TooManyPixels { width, height, pixels_max });
        }
        Ok(())
    }
}

/// What the decoders may allocate: 16-bit RGBA in and out is the worst of the formats.
fn allocation(limits: Limits) -> image::Limits {
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(limits.pixels_max.saturating_mul(16).saturating_add(1 << 20));
    allocation
}

fn failed(error: &image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated
        }
        other => {
            let text = other.to_string();
            ImageError::Corrupt(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}
