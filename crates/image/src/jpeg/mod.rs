//! JPEG, read strictly: what a tolerant decoder would patch up in grey is damage here.

mod outline;
mod scan;
mod segments;

use std::borrow::Cow;

use image::metadata::Orientation;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
pub use outline::Outline;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use crate::{
    Channels, ImageError, ImageSize, Limits, Pixels,
    limits::{caught, has_memory},
    turn::upright,
};

/// Width and height from a JPEG's header, as the pixels are stored. Reads only segment headers,
/// allocates nothing.
///
/// # Errors
///
/// [`ImageError::NotJpeg`] if the bytes end, or stop being JPEG segments, before a frame header
/// with positive dimensions.
pub fn header(bytes: &[u8]) -> Result<ImageSize, ImageError> {
    Ok(Outline::read(bytes)?.size)
}

/// Decodes a JPEG that is `size` when upright into `out` as interleaved 8-bit RGB, row by row (HWC).
///
/// Grey images are expanded to three equal channels. The header is checked before anything is
/// allocated, so memory is bounded by `size`, whatever the bytes claim. Never panics.
///
/// # Errors
///
/// [`ImageError`]; `out` then holds unspecified pixels.
pub fn decode_rgb(jpeg: &[u8], size: ImageSize, out: &mut [u8]) -> Result<(), ImageError> {
    if out.len() != size.rgb_bytes() {
        return Err(ImageError::Buffer { found: out.len(), expected: size.rgb_bytes() });
    }
    let outline = Outline::read(jpeg)?;
    let found = outline.upright_size();
    if found != size {
        return Err(ImageError::Size { found, expected: size });
    }
    let whole = outline.mended()?;
    caught(|| {
        if outline.orientation == Orientation::NoTransforms {
            return open(&whole, ColorSpace::RGB)?.decode_into(out).map_err(|e| corrupt(&e));
        }
        let pixels = upright(pixels(&whole, &outline)?, outline.orientation);
        match pixels.channels {
            Channels::Rgb => out.copy_from_slice(&pixels.data),
            Channels::Grey => {
                out.as_chunks_mut().0.iter_mut().zip(pixels.data).for_each(|(p, v)| *p = [v; 3]);
            }
        }
        Ok(())
    })
}

/// Decodes to grey or RGB as the image is coded, and turns it upright; says whether it did.
///
/// # Errors
///
/// [`ImageError`].
pub fn decode_noting(bytes: &[u8], limits: Limits) -> Result<(Pixels, bool), ImageError> {
    let outline = Outline::read(bytes)?;
    let ImageSize { width, height } = outline.size;
    limits.check(width.into(), height.into())?;
    let whole = outline.mended()?;
    let is_turned = outline.orientation != Orientation::NoTransforms;
    // Of a progressive image all coefficients, two bytes each, are held at once.
    let bytes_per_pixel = 3 * (1 + u64::from(is_turned)) + 8 * u64::from(outline.is_progressive);
    let n_pixels = u64::from(width) * u64::from(height);
    has_memory(width.into(), height.into(), n_pixels * bytes_per_pixel)?;
    let pixels = caught(|| Ok(upright(pixels(&whole, &outline)?, outline.orientation)))?;
    Ok((pixels, is_turned))
}

/// The bytes of a JPEG that can be stored as they are: of this size without being turned. Stray bytes
/// and a missing end marker are put right on the way. `None` if it has to be encoded anew.
///
/// Only the segments are looked at, which takes about a microsecond; [`decode_luma`] proves the rest.
///
/// # Errors
///
/// [`ImageError::NotJpeg`] or [`ImageError::Truncated`].
pub fn as_stored(bytes: &[u8], size: ImageSize) -> Result<Option<Cow<'_, [u8]>>, ImageError> {
    let outline = Outline::read(bytes)?;
    if outline.size != size || outline.orientation != Orientation::NoTransforms {
        return Ok(None);
    }
    outline.mended().map(Some)
}

/// Decodes the whole image, brightness and colour, and gives back the brightness, as stored.
///
/// Of the usual coding, YCbCr, the first component is the brightness, so that the conversion to RGB
/// and back is saved.
///
/// # Errors
///
/// [`ImageError`].
pub fn decode_luma(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
    let outline = Outline::read(bytes)?;
    let whole = outline.mended()?;
    caught(|| {
        let mut decoder = open(&whole, ColorSpace::YCbCr)?;
        match decoder.input_colorspace() {
            Some(ColorSpace::YCbCr) => {
                let ycbcr = decoder.decode().map_err(|e| corrupt(&e))?;
                Ok(ycbcr.as_chunks().0.iter().map(|&[y, _, _]| y).collect())
            }
            Some(ColorSpace::Luma) => {
                decoder.set_options(decoder.options().jpeg_set_out_colorspace(ColorSpace::Luma));
                decoder.decode().map_err(|e| corrupt(&e))
            }
            _ => Ok(pixels(&whole, &outline)?.luma().into_owned()),
        }
    })
}

/// The pixels as they are stored.
fn pixels(whole: &[u8], outline: &Outline<'_>) -> Result<Pixels, ImageError> {
    let mut decoder = open(whole, ColorSpace::RGB)?;
    let coded = decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr);
    let channels = if coded == ColorSpace::Luma { Channels::Grey } else { Channels::Rgb };
    if channels == Channels::Grey {
        decoder.set_options(decoder.options().jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let ImageSize { width, height } = outline.size;
    let n_bytes = usize::from(width) * usize::from(height) * channels.count();
    let data = decoder.decode().map_err(|e| corrupt(&e))?;
    if data.len() != n_bytes {
        return Err(ImageError::Corrupt("the decoder returned another size".into()));
    }
    Ok(Pixels { width: width.into(), height: height.into(), channels, data })
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
fn open(whole: &[u8], colour: ColorSpace) -> Result<JpegDecoder<ZCursor<&[u8]>>, ImageError> {
    // The caller has checked the dimensions against its own limit.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(colour);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(whole), options);
    decoder.decode_headers().map_err(|e| corrupt(&e))?;
    Ok(decoder)
}

fn corrupt(error: &impl ToString) -> ImageError {
    let text = error.to_string();
    ImageError::Corrupt(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Pixels, ImageError> {
        Ok(decode_noting(bytes, Limits::DEFAULT)?.0)
    }

    fn ramp(channels: Channels) -> Pixels {
        let n = channels.count() as u32;
        let data = (0..64 * 48 * n).map(|i| ((i / n) % 64 * 3 + (i / n) / 64) as u8).collect();
        Pixels { width: 64, height: 48, channels, data }
    }

    #[test]
    fn grey_and_colour_survive_a_round_trip_closely() {
        for channels in [Channels::Grey, Channels::Rgb] {
            let pixels = ramp(channels);
            let back = decode(&encode(&pixels, 95).unwrap()).unwrap();
            assert_eq!((back.width, back.height, back.channels), (64, 48, channels));
            let worst = pixels.data.iter().zip(&back.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(6), "{worst:?} of 255 at quality 95");
        }
    }

    #[test]
    fn luma_alone_is_the_luma_of_the_whole() {
        for (channels, bound) in [(Channels::Grey, 0), (Channels::Rgb, 2)] {
            let bytes = encode(&ramp(channels), 95).unwrap();
            let whole = decode(&bytes).unwrap().luma().into_owned();
            let luma = decode_luma(&bytes).unwrap();
            assert_eq!(luma.len(), whole.len());
            // Rounding on the way to RGB and back.
            let worst = luma.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(bound), "{channels:?}: {worst:?}");
        }
    }

    const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

    fn encoded(pixels: &[u8], size: ImageSize, color: ColorType, quality: u8) -> Vec<u8> {
        let mut jpeg = Vec::new();
        let ImageSize { width, height } = size;
        Encoder::new(&mut jpeg, quality).encode(pixels, width, height, color).unwrap();
        jpeg
    }

    fn flat(rgb: [u8; 3]) -> Vec<u8> {
        encoded(&rgb.repeat(16 * 8), SIZE, ColorType::Rgb, 95)
    }

    #[track_caller]
    fn check_pixels(jpeg: &[u8], expected: impl Fn(usize) -> [u8; 3], tolerance: u8) {
        let mut out = vec![0; SIZE.rgb_bytes()];
        decode_rgb(jpeg, SIZE, &mut out).unwrap();
        for (i, pixel) in out.chunks_exact(3).enumerate() {
            let near = pixel.iter().zip(expected(i)).all(|(&a, b)| a.abs_diff(b) <= tolerance);
            assert!(near, "pixel {i} is {pixel:?}, expected {:?}", expected(i));
        }
    }

    #[test]
    fn a_flat_colour_comes_back_as_red_green_blue() {
        check_pixels(&flat([200, 30, 90]), |_| [200, 30, 90], 2);
    }

    #[test]
    fn rows_come_from_top_to_bottom() {
        let half = |i: usize| if i < 16 * 4 { [255, 0, 0] } else { [0, 0, 255] };
        let pixels: Vec<u8> = (0..16 * 8).flat_map(half).collect();
        let jpeg = encoded(&pixels, SIZE, ColorType::Rgb, 100);
        let mut out = vec![0; SIZE.rgb_bytes()];
        decode_rgb(&jpeg, SIZE, &mut out).unwrap();
        assert!(out[0] > 200 && out[2] < 60, "{:?}", &out[..3]);
        let last = &out[out.len() - 3..];
        assert!(last[0] < 60 && last[2] > 200, "{last:?}");
    }

    #[test]
    fn grey_is_expanded_to_three_equal_channels() {
        let ramp: Vec<u8> = (0..16 * 8).map(|i| (i % 16) as u8 * 16).collect();
        let jpeg = encoded(&ramp, SIZE, ColorType::Luma, 100);
        check_pixels(&jpeg, |i| [ramp[i]; 3], 3);
    }

    #[test]
    fn the_header_has_width_and_height() {
        assert_eq!(header(&flat([0; 3])), Ok(SIZE));
    }

    #[test]
    fn another_size_is_an_error_before_anything_is_decoded() {
        let expected = ImageSize::square(8);
        let mut out = vec![0; expected.rgb_bytes()];
        let error = decode_rgb(&flat([0; 3]), expected, &mut out).unwrap_err();
        assert_eq!(error, ImageError::Size { found: SIZE, expected });
        assert_eq!(error.to_string(), "the image is 16x8 pixels, expected 8x8");
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_header_that_claims_65535_pixels_allocates_nothing() {
        let mut jpeg = flat([0; 3]);
        let frame = jpeg.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].fill(0xff);
        let mut out = vec![0; SIZE.rgb_bytes()];
        let found = ImageSize::square(u16::MAX);
        let error = ImageError::Size { found, expected: SIZE };
        assert_eq!(decode_rgb(&jpeg, SIZE, &mut out), Err(error));
    }

    #[test]
    fn a_buffer_of_another_size_is_an_error() {
        let error = decode_rgb(&flat([0; 3]), SIZE, &mut [0; 10]).unwrap_err();
        assert_eq!(error, ImageError::Buffer { found: 10, expected: 384 });
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn what_is_no_jpeg_is_said_to_be_none() {
        for bytes in
            [&b""[..], b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
        {
            let error = header(bytes).unwrap_err();
            assert!(matches!(error, ImageError::NotJpeg { .. }), "{bytes:?}");
            assert!(error.hint().is_some());
        }
    }

    /// Baseline with and without restarts and halved chroma, progressive, grey.
    fn kinds() -> Vec<Vec<u8>> {
        let mut kinds = Vec::new();
        for (sampling, restart, is_progressive) in [
            (SamplingFactor::F_1_1, 0, false),
            (SamplingFactor::F_2_2, 0, false),
            (SamplingFactor::F_2_1, 3, false),
            (SamplingFactor::F_2_2, 0, true),
            (SamplingFactor::F_1_1, 2, true),
        ] {
            for colour in [ColorType::Rgb, ColorType::Luma] {
                let n = if colour == ColorType::Rgb { 3 } else { 1 };
                let noise: Vec<u8> = (0..37 * 29 * n).map(hash).collect();
                let mut jpeg = Vec::new();
                let mut encoder = Encoder::new(&mut jpeg, 70);
                encoder.set_sampling_factor(sampling);
                encoder.set_progressive(is_progressive);
                if restart > 0 {
                    encoder.set_restart_interval(restart);
                }
                encoder.encode(&noise, 37, 29, colour).unwrap();
                kinds.push(jpeg);
            }
        }
        kinds
    }

    #[test]
    fn only_the_end_marker_may_be_missing() {
        for (i, jpeg) in kinds().iter().enumerate() {
            let whole = decode(jpeg).unwrap();
            for n in 0..jpeg.len() {
                match decode(&jpeg[..n]) {
                    Ok(pixels) => {
                        assert!(n >= jpeg.len() - 2, "kind {i}: {n} of {} bytes", jpeg.len());
                        assert_eq!(pixels, whole);
                    }
                    Err(_) => assert!(n < jpeg.len() - 2, "kind {i}: {n} of {}", jpeg.len()),
                }
            }
        }
    }

    #[test]
    fn what_zeros_fill_up_is_cut_short() {
        for (i, jpeg) in kinds().iter().enumerate() {
            for end in (jpeg.len() / 2..jpeg.len() - 2).step_by(7) {
                let mut bytes = jpeg[..end].to_vec();
                bytes.resize(jpeg.len(), 0);
                assert_eq!(decode(&bytes), Err(ImageError::Truncated), "kind {i}: {end}");
            }
        }
    }

    #[test]
    fn stray_bytes_between_segments_change_nothing_and_are_not_stored() {
        let size = ImageSize { width: 37, height: 29 };
        for jpeg in kinds() {
            let table = jpeg.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
            for stray in [&b"ab"[..], b"\0\0\0\0\0\0\0\0\0", b"\xff\0q", b"\xff\xd0"] {
                let bytes = [&jpeg[..table], stray, &jpeg[table..]].concat();
                assert_eq!(decode(&bytes), decode(&jpeg), "{stray:?}");
                let stored = as_stored(&bytes, size).unwrap().unwrap();
                assert_eq!(stored.as_ref(), jpeg, "{stray:?}");
            }
            let without_end = &jpeg[..jpeg.len() - 2];
            assert_eq!(as_stored(without_end, size).unwrap().unwrap().as_ref(), jpeg);
        }
    }

    #[test]
    fn an_image_that_is_turned_or_of_another_size_is_not_stored_as_it_is() {
        let jpeg = flat([200, 30, 90]);
        let block = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        let length = (block.len() as u16 + 2).to_be_bytes();
        let turned = [&jpeg[..2], b"\xff\xe1", &length, block, &jpeg[2..]].concat();
        assert!(as_stored(&jpeg, SIZE).unwrap().is_some());
        assert!(as_stored(&turned, SIZE).unwrap().is_none());
        assert!(as_stored(&jpeg, ImageSize::FACE).unwrap().is_none());
    }

    #[test]
    fn padding_after_the_end_is_no_fault() {
        let mut jpeg = flat([200, 30, 90]);
        jpeg.extend([0; 7]);
        check_pixels(&jpeg, |_| [200, 30, 90], 2);
    }

    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end_of_the_image() {
        let whole = flat([200, 30, 90]);
        let mut jpeg = whole[..2].to_vec();
        jpeg.extend(b"\xff\xe1\0\x06\xff\xd8\xff\xd9");
        jpeg.extend(&whole[2..]);
        check_pixels(&jpeg, |_| [200, 30, 90], 2);
        jpeg.truncate(jpeg.len() - 3);
        let error = decode_rgb(&jpeg, SIZE, &mut vec![0; SIZE.rgb_bytes()]).unwrap_err();
        assert_eq!(error, ImageError::Truncated);
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let jpeg = encoded(&noise(), SIZE, ColorType::Rgb, 95);
        let mut out = vec![0; SIZE.rgb_bytes()];
        for i in 0..jpeg.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut bytes = jpeg.clone();
                bytes[i] ^= flip;
                let _ = header(&bytes);
                let _ = decode_rgb(&bytes, SIZE, &mut out);
            }
        }
    }

    fn hash(i: u32) -> u8 {
        (i.wrapping_mul(0x9e37_79b9) >> 16) as u8
    }

    fn noise() -> Vec<u8> {
        (0..16 * 8 * 3).map(hash).collect()
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail: Vec<u8>) {
            let mut jpeg = flat([1, 2, 3]);
            let scan = jpeg.windows(2).position(|m| m == [0xff, 0xda]).unwrap();
            let mut out = vec![0; SIZE.rgb_bytes()];
            let _ = decode_rgb(&tail, SIZE, &mut out);
            jpeg.truncate(scan + 14);
            jpeg.extend(tail);
            let _ = decode_rgb(&jpeg, SIZE, &mut out);
        }
    }
}
