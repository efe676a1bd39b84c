//! JPEG, read strictly: what a tolerant decoder would patch up in grey is damage here.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use crate::{Channels, ImageError, Pixels};

/// Width and height from the header; reads only segment headers and allocates nothing.
///
/// # Errors
///
/// [`ImageError::Corrupt`] if there is no frame header with positive dimensions.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let size = crate::outline::header(bytes).map_err(|e| ImageError::Corrupt(e.to_string()))?;
    Ok((size.width.into(), size.height.into()))
}

/// Whether the image has a whole header, a scan and an end; nothing is decoded.
///
/// # Errors
///
/// [`ImageError::Truncated`] or [`ImageError::Corrupt`].
pub fn check_outline(bytes: &[u8]) -> Result<(), ImageError> {
    if !ends_whole(bytes) {
        return Err(ImageError::Truncated);
    }
    let outline = crate::outline::check_outline(bytes);
    outline.map(|_| ()).map_err(|e| ImageError::Corrupt(e.to_string()))
}

/// Decodes the whole image, brightness and colour, and gives back the brightness.
///
/// Of the usual coding, YCbCr, the first component is the brightness, so that the conversion to RGB
/// and back is saved.
///
/// # Errors
///
/// [`ImageError::Truncated`] or [`ImageError::Corrupt`].
pub fn decode_luma(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut decoder = open(bytes, ColorSpace::YCbCr)?;
    match decoder.input_colorspace() {
        Some(ColorSpace::YCbCr) => {
            let ycbcr = decoder.decode().map_err(|e| reason(bytes, &e))?;
            Ok(ycbcr.as_chunks().0.iter().map(|&[y, _, _]| y).collect())
        }
        Some(ColorSpace::Luma) => {
            decoder.set_options(decoder.options().jpeg_set_out_colorspace(ColorSpace::Luma));
            decoder.decode().map_err(|e| reason(bytes, &e))
        }
        _ => Ok(decode(bytes)?.0.luma().into_owned()),
    }
}

/// Decodes to grey or RGB as the image is coded, and returns any EXIF block beside the pixels.
///
/// # Errors
///
/// [`ImageError::Truncated`] or [`ImageError::Corrupt`].
pub fn decode(bytes: &[u8]) -> Result<(Pixels, Option<Vec<u8>>), ImageError> {
    let failed = |e: &_| reason(bytes, e);
    let mut decoder = open(bytes, ColorSpace::RGB)?;
    let coded = decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr);
    let channels = if coded == ColorSpace::Luma { Channels::Grey } else { Channels::Rgb };
    if channels == Channels::Grey {
        decoder.set_options(decoder.options().jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let data = decoder.decode().map_err(|e| failed(&e))?;
    let exif = decoder.exif().cloned();
    let (width, height) = decoder.dimensions().unwrap_or_default();
    if data.len() != width * height * channels.count() {
        return Err(ImageError::Corrupt("the decoder returned another size".into()));
    }
    let (width, height) = (width as u32, height as u32);
    Ok((Pixels { width, height, channels, data }, exif))
}

/// Encodes at `quality` (1 to 100) with halved chroma (4:2:0), as cameras and the published face
/// sets have it; grey stays one channel.
///
/// # Errors
///
/// [`ImageError::TooManyPixels`] beyond 65,535 pixels a side, more than a JPEG can hold.
pub fn encode(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, ImageError> {
    let (Ok(width), Ok(height)) = (u16::try_from(pixels.width), u16::try_from(pixels.height))
    else {
        return Err(ImageError::TooManyPixels {
            width: pixels.width.into(),
            height: pixels.height.into(),
            pixels_max: u64::from(u16::MAX) * u64::from(u16::MAX),
        });
    };
    let mut bytes = Vec::with_capacity(pixels.data.len() / 4);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let colour = match pixels.channels {
        Channels::Grey => ColorType::Luma,
        Channels::Rgb => ColorType::Rgb,
    };
    encoder
        .encode(&pixels.data, width, height, colour)
        .map_err(|e| ImageError::Corrupt(e.to_string()))?;
    Ok(bytes)
}

/// A decoder past the headers.
fn open(bytes: &[u8], colour: ColorSpace) -> Result<JpegDecoder<ZCursor<&[u8]>>, ImageError> {
    if !ends_whole(bytes) {
        return Err(ImageError::Truncated);
    }
    // The caller has checked the dimensions against its own limit.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(colour);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| reason(bytes, &e))?;
    Ok(decoder)
}

/// Whether an end-of-image marker follows the last start of a scan; padding after it is harmless.
///
/// Neither marker can occur within coded data, where 0xff is always followed by 0.
fn ends_whole(bytes: &[u8]) -> bool {
    if bytes.ends_with(b"\xff\xd9") {
        return true;
    }
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

fn reason(bytes: &[u8], error: &zune_jpeg::errors::DecodeErrors) -> ImageError {
    if ends_whole(bytes) { ImageError::Corrupt(one_line(error)) } else { ImageError::Truncated }
}

fn one_line(error: &impl ToString) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(channels: Channels) -> Pixels {
        let n = channels.count() as u32;
        let data = (0..64 * 48 * n).map(|i| ((i / n) % 64 * 3 + (i / n) / 64) as u8).collect();
        Pixels { width: 64, height: 48, channels, data }
    }

    #[test]
    fn grey_and_colour_survive_a_round_trip_closely() {
        for channels in [Channels::Grey, Channels::Rgb] {
            let pixels = ramp(channels);
            let (back, _) = decode(&encode(&pixels, 95).unwrap()).unwrap();
            assert_eq!((back.width, back.height, back.channels), (64, 48, channels));
            let worst = pixels.data.iter().zip(&back.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(6), "{worst:?} of 255 at quality 95");
        }
    }

    #[test]
    fn luma_alone_is_the_luma_of_the_whole() {
        for (channels, bound) in [(Channels::Grey, 0), (Channels::Rgb, 2)] {
            let bytes = encode(&ramp(channels), 95).unwrap();
            let whole = decode(&bytes).unwrap().0.luma().into_owned();
            let luma = decode_luma(&bytes).unwrap();
            assert_eq!(luma.len(), whole.len());
            // Rounding on the way to RGB and back.
            let worst = luma.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(bound), "{channels:?}: {worst:?}");
        }
    }

    #[test]
    fn every_proper_prefix_is_refused() {
        let bytes = encode(&ramp(Channels::Rgb), 80).unwrap();
        assert!(decode_luma(&bytes).is_ok());
        for end in 0..bytes.len() - 1 {
            assert!(decode_luma(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn padding_after_the_end_is_harmless() {
        let mut bytes = encode(&ramp(Channels::Grey), 80).unwrap();
        bytes.extend([0; 7]);
        assert!(decode_luma(&bytes).is_ok());
    }
}
