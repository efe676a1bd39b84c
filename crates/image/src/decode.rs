//! Any supported format to pixels, upright.

use std::{hint::black_box, io::Cursor};

use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage,
    metadata::Orientation,
};

use crate::{Channels, ImageError, Kind, Pixels, Sniffed, exif, jpeg, sniff};

/// How large an image may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height at most, checked on the header before anything is decoded.
    pub pixels_max: u64,
}

impl Limits {
    /// What every program allows unless it is told otherwise: 50 million pixels.
    pub const DEFAULT: Limits = Limits { pixels_max: 50_000_000 };
}

/// Decodes an image, whose format its first bytes decide, and turns it upright by its EXIF
/// orientation.
///
/// * 16 bits of a channel become the 8 nearest; palettes become RGB; grey stays grey.
/// * An alpha channel is dropped: the colours below it are what `OpenCV` and `Pillow` show as well.
/// * CMYK and YCCK become RGB.
/// * Of an animation the first frame counts.
/// * What is cut short or damaged is refused, but for a JPEG that lacks its end marker alone or has
///   stray bytes between its segments.
///
/// # Errors
///
/// [`ImageError`], each variant for its reason. A decoder that panics counts as one that failed.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Pixels, ImageError> {
    Ok(decode_noting(bytes, limits)?.0)
}

/// As [`decode`], and whether the image was turned.
pub(crate) fn decode_noting(bytes: &[u8], limits: Limits) -> Result<(Pixels, bool), ImageError> {
    let kind = match sniff(bytes) {
        _ if bytes.is_empty() => return Err(ImageError::Empty),
        Sniffed::Image(kind) => kind,
        Sniffed::Unsupported(name) => return Err(ImageError::Unsupported(name)),
        Sniffed::NotAnImage => return Err(ImageError::NotAnImage),
    };
    let (format, orientation) = match kind {
        Kind::Jpeg => return jpeg::decode_noting(bytes, limits),
        Kind::Png => (ImageFormat::Png, exif::of_png(bytes)),
        Kind::WebP if !is_whole_riff(bytes) => return Err(ImageError::Truncated),
        Kind::WebP => (ImageFormat::WebP, exif::of_webp(bytes)),
        Kind::Bmp => (ImageFormat::Bmp, Orientation::NoTransforms),
        Kind::Pnm => (ImageFormat::Pnm, Orientation::NoTransforms),
    };
    let pixels = decode_as(bytes, format, orientation, limits)?;
    Ok((pixels, orientation != Orientation::NoTransforms))
}

/// Whether all bytes are there that the header of a RIFF file counts. The decoder does not miss chunks after
/// the picture, such as the one that says how it is turned. The last byte may be padding.
fn is_whole_riff(bytes: &[u8]) -> bool {
    let Some(&[a, b, c, d]) = bytes.get(4..8) else { return false };
    let counted = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
    bytes.len() as u64 + 1 >= counted
}

fn decode_as(
    bytes: &[u8],
    format: ImageFormat,
    orientation: Orientation,
    limits: Limits,
) -> Result<Pixels, ImageError> {
    caught(|| {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(allocation(limits));
        let decoder = reader.into_decoder().map_err(|e| failed(&e))?;
        let (width, height) = decoder.dimensions();
        limits.check(width.into(), height.into())?;
        // What the decoder returns, the same in 8 bits, and once more if it is turned.
        let n_pixels = u64::from(width) * u64::from(height);
        let is_8_bit = matches!(
            decoder.original_color_type(),
            ExtendedColorType::L8 | ExtendedColorType::Rgb8
        );
        let is_turned = orientation != Orientation::NoTransforms;
        let copies = u64::from(!is_8_bit) + u64::from(is_turned);
        let n_bytes = decoder.total_bytes().saturating_add(n_pixels.saturating_mul(3 * copies));
        has_memory(width, height, n_bytes)?;
        let image = DynamicImage::from_decoder(decoder).map_err(|e| failed(&e))?;
        let pixels = if image.color().has_color() {
            Pixels::rgb(width, height, image.into_rgb8().into_raw())
        } else {
            Pixels::grey(width, height, image.into_luma8().into_raw())
        };
        Ok(upright(pixels, orientation))
    })
}

/// Turns the pixels that a file stores as its orientation says.
pub(crate) fn upright(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let channels = pixels.channels;
    let mut image = DynamicImage::from(pixels);
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    match channels {
        Channels::Rgb => Pixels::rgb(width, height, image.into_rgb8().into_raw()),
        Channels::Grey => Pixels::grey(width, height, image.into_luma8().into_raw()),
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
    /// Refuses dimensions beyond the limit.
    pub(crate) fn check(self, width: u64, height: u64) -> Result<(), ImageError> {
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

/// Runs a decoder, which only reads the bytes it is given; its panic becomes an error.
pub(crate) fn caught<T>(decoder: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    pfc_durable::faults::catch(decoder)
        .unwrap_or_else(|panic| Err(ImageError::Corrupt(panic.to_string())))
}

/// Asks the system whether it would give so many bytes. Decoders end the whole process when memory is
/// refused to them, so that it is better refused here; small images are not worth the question.
///
/// # Errors
///
/// [`ImageError::Memory`].
pub(crate) fn has_memory(width: u32, height: u32, n_bytes: u64) -> Result<(), ImageError> {
    const ASKED_FOR_MIN: u64 = 4 << 20;
    if n_bytes < ASKED_FOR_MIN {
        return Ok(());
    }
    let mut room: Vec<u8> = Vec::new();
    let given = usize::try_from(n_bytes).is_ok_and(|n| room.try_reserve_exact(n).is_ok());
    // Unused memory must not be optimised away together with the question.
    black_box(&mut room);
    match given {
        true => Ok(()),
        false => Err(ImageError::Memory { width, height, bytes: n_bytes }),
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
