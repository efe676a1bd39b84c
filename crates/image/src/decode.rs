//! Any supported format to pixels, upright.

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation,
};

use crate::{
    ImageError, Kind, Limits, Pixels, Sniffed, jpeg,
    limits::{caught, has_memory},
    orientation, sniff,
    turn::upright,
};

/// Decodes an image, whose format its first bytes decide, and turns it upright by the orientation that
/// its EXIF states or, where that states none, its XMP, as `Pillow` does.
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
///
/// # Errors
///
/// As [`decode`].
pub fn decode_noting(bytes: &[u8], limits: Limits) -> Result<(Pixels, bool), ImageError> {
    let kind = match sniff(bytes) {
        _ if bytes.is_empty() => return Err(ImageError::Empty),
        Sniffed::Image(kind) => kind,
        Sniffed::Unsupported(name) => return Err(ImageError::Unsupported(name)),
        Sniffed::NotAnImage => return Err(ImageError::NotAnImage),
    };
    let (format, orientation) = match kind {
        Kind::Jpeg => return jpeg::decode_noting(bytes, limits),
        Kind::Png => (ImageFormat::Png, orientation::of_png(bytes)),
        Kind::WebP if !is_whole_riff(bytes) => return Err(ImageError::Truncated),
        Kind::WebP => (ImageFormat::WebP, orientation::of_webp(bytes)),
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
