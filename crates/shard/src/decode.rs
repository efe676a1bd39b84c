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
            DecodeError::NotJpeg { .. } | DecodeError::Broken { .. } => Some(
                "`pfc-ingest clean` leaves images out that cannot be decoded; `pfc-ingest verify \
                     --decode` lists them"
                    .into(),
            ),
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
    let outline = Outline::read(jpeg)?;
    if outline.size != size {
        return Err(DecodeError::Size { found: outline.size, expected: size });
    }
    if !outline.has_end() {
        return Err(DecodeError::Broken { what: "it is cut short: no end-of-image marker".into() });
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
    Ok(Outline::read(bytes)?.size)
}

/// What can be said of a JPEG without decoding it: every segment up to the first scan is whole, there
/// is a frame header among them, and an end-of-image marker after. Returns the image's size.
///
/// Reads the segment headers and the last bytes: a microsecond. Damage inside the scans goes
/// unnoticed.
///
/// # Errors
///
/// [`DecodeError::NotJpeg`] as [`header`]; [`DecodeError::Broken`] if the scan or the end is missing.
pub fn check_outline(bytes: &[u8]) -> Result<ImageSize, DecodeError> {
    let outline = Outline::read(bytes)?;
    let size = outline.size;
    match outline.has_end() {
        true => Ok(size),
        false => Err(DecodeError::Broken { what: "no scan, or no end-of-image marker".into() }),
    }
}

/// An image as its segments tell it.
struct Outline<'a> {
    size: ImageSize,
    /// The segments after the frame header.
    after_frame: Segments<'a>,
}

impl<'a> Outline<'a> {
    fn read(bytes: &'a [u8]) -> Result<Outline<'a>, DecodeError> {
        let bad = |what| DecodeError::NotJpeg { what };
        let rest = bytes.strip_prefix(START_OF_IMAGE).ok_or(bad("no start-of-image marker"))?;
        let mut segments = Segments { rest };
        let frame = segments.find(|s| is_frame_header(s.marker)).ok_or(bad("no frame header"))?;
        let size = frame_size(frame.payload).ok_or(bad("the frame header has no dimensions"))?;
        Ok(Outline { size, after_frame: segments })
    }

    /// Whether there is a scan and, behind it, the end marker. The decoder takes a scan that lost its
    /// last rows for a whole one, and fills them with grey.
    fn has_end(mut self) -> bool {
        let scan = self.after_frame.find(|s| s.marker == START_OF_SCAN);
        // Within the scans the two bytes stand for nothing else. There may be padding after them.
        scan.is_some_and(|s| s.rest.windows(2).rev().any(|pair| pair == END_OF_IMAGE))
    }
}

const START_OF_IMAGE: &[u8] = b"\xff\xd8";
const END_OF_IMAGE: &[u8] = b"\xff\xd9";
const START_OF_SCAN: u8 = 0xda;

/// The segments between the start of the image and its first scan, ending where they stop being
/// whole.
struct Segments<'a> {
    rest: &'a [u8],
}

struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
    /// What follows the segment.
    rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (marker, tail) = next_marker(self.rest)?;
        let (length, _) = tail.split_first_chunk::<2>()?;
        // The length counts its own two bytes.
        let (segment, rest) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        let payload = segment.get(2..)?;
        // After the scan's header come entropy-coded bytes, which are no segments.
        self.rest = if marker == START_OF_SCAN { &[] } else { rest };
        Some(Segment { marker, payload, rest })
    }
}

/// SOF0 to SOF15, but for the tables that share their range (DHT, JPG, DAC).
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// The marker at the start of `bytes`, after any fill bytes, and what follows it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xff")?;
    let fill = bytes.iter().take_while(|&&b| b == 0xff).count();
    let (&marker, rest) = bytes.get(fill..)?.split_first()?;
    Some((marker, rest))
}

/// Precision (1 byte), height (2), width (2).
fn frame_size(segment: &[u8]) -> Option<ImageSize> {
    let &[_, h1, h0, w1, w0, ..] = segment else { return None };
    let size =
        ImageSize { width: u16::from_be_bytes([w1, w0]), height: u16::from_be_bytes([h1, h0]) };
    (size.width > 0 && size.height > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder};

    use super::*;

    const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

    fn encode(pixels: &[u8], size: ImageSize, color: ColorType, quality: u8) -> Vec<u8> {
        let mut jpeg = Vec::new();
        let ImageSize { width, height } = size;
        Encoder::new(&mut jpeg, quality).encode(pixels, width, height, color).unwrap();
        jpeg
    }

    fn flat(rgb: [u8; 3]) -> Vec<u8> {
        encode(&rgb.repeat(16 * 8), SIZE, ColorType::Rgb, 95)
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
    fn the_outline_of_a_whole_image_is_whole_and_of_every_part_is_not() {
        let jpeg = flat([200, 30, 90]);
        assert_eq!(check_outline(&jpeg), Ok(SIZE));
        for end in 0..jpeg.len() - 1 {
            assert!(check_outline(&jpeg[..end]).is_err(), "{end} of {} bytes", jpeg.len());
        }
    }

    #[test]
    fn rows_come_from_top_to_bottom() {
        let half = |i: usize| if i < 16 * 4 { [255, 0, 0] } else { [0, 0, 255] };
        let pixels: Vec<u8> = (0..16 * 8).flat_map(half).collect();
        let jpeg = encode(&pixels, SIZE, ColorType::Rgb, 100);
        let mut out = vec![0; SIZE.rgb_bytes()];
        decode_rgb(&jpeg, SIZE, &mut out).unwrap();
        assert!(out[0] > 200 && out[2] < 60, "{:?}", &out[..3]);
        let last = &out[out.len() - 3..];
        assert!(last[0] < 60 && last[2] > 200, "{last:?}");
    }

    #[test]
    fn grey_is_expanded_to_three_equal_channels() {
        let ramp: Vec<u8> = (0..16 * 8).map(|i| (i % 16) as u8 * 16).collect();
        let jpeg = encode(&ramp, SIZE, ColorType::Luma, 100);
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
        assert_eq!(error, DecodeError::Size { found: SIZE, expected });
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
        let error = DecodeError::Size { found, expected: SIZE };
        assert_eq!(decode_rgb(&jpeg, SIZE, &mut out), Err(error));
    }

    #[test]
    fn a_buffer_of_another_size_is_an_error() {
        let error = decode_rgb(&flat([0; 3]), SIZE, &mut [0; 10]).unwrap_err();
        assert_eq!(error, DecodeError::Buffer { found: 10, expected: 384 });
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn what_is_no_jpeg_is_said_to_be_none() {
        for bytes in
            [&b""[..], b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
        {
            let error = header(bytes).unwrap_err();
            assert!(matches!(error, DecodeError::NotJpeg { .. }), "{bytes:?}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_cut_jpeg_is_an_error_at_every_length() {
        let jpeg = encode(&noise(), SIZE, ColorType::Rgb, 95);
        let mut out = vec![0; SIZE.rgb_bytes()];
        for n in 0..jpeg.len() {
            assert!(decode_rgb(&jpeg[..n], SIZE, &mut out).is_err(), "{n} of {}", jpeg.len());
        }
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
        jpeg.truncate(jpeg.len() - 2);
        let error = decode_rgb(&jpeg, SIZE, &mut vec![0; SIZE.rgb_bytes()]).unwrap_err();
        assert!(error.to_string().ends_with("no end-of-image marker"), "{error}");
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let jpeg = encode(&noise(), SIZE, ColorType::Rgb, 95);
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

    fn noise() -> Vec<u8> {
        let hash = |i: u32| crate::hash::content_hash(&i.to_le_bytes()) as u8;
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
