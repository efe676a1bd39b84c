//! The orientation that EXIF states, in each format that carries EXIF.

use image::metadata::Orientation;

/// The orientation in an EXIF block, with or without the words `Exif\0\0` before it. A block that is
/// broken, or says nothing of it, leaves the image as it is.
pub fn orientation(block: &[u8]) -> Orientation {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    Orientation::from_exif_chunk(block).unwrap_or(Orientation::NoTransforms)
}

/// The orientation of a PNG. Its `eXIf` chunk may stand before or after the pixels.
pub fn of_png(bytes: &[u8]) -> Orientation {
    let mut rest = bytes.get(8..).unwrap_or_default();
    // Length (4 bytes), name (4), data, checksum (4).
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((name, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        if name == b"eXIf" {
            return orientation(data);
        }
        rest = after.get(4..).unwrap_or_default();
    }
    Orientation::NoTransforms
}

/// The orientation of a WebP.
pub fn of_webp(bytes: &[u8]) -> Orientation {
    let mut rest = bytes.get(12..).unwrap_or_default();
    // Name (4 bytes), length (4), data, filled up to an even length.
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        if name == b"EXIF" {
            return orientation(data);
        }
        rest = after.get(length % 2..).unwrap_or_default();
    }
    Orientation::NoTransforms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block in big-endian order: one entry, tag 0x112, a short.
    fn block(orientation: u8) -> Vec<u8> {
        let mut block = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0]);
        block
    }

    fn png(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, data) in chunks {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(*name);
            bytes.extend(*data);
            bytes.extend([0; 4]);
        }
        bytes
    }

    #[test]
    fn the_orientation_is_found_before_and_after_the_pixels() {
        let exif: &[u8] = &block(6);
        let (first, last) = ((b"IHDR", &[0; 13][..]), (b"IDAT", &[7; 5][..]));
        assert_eq!(of_png(&png(&[first, (b"eXIf", exif), last])), Orientation::Rotate90);
        assert_eq!(of_png(&png(&[first, last, (b"eXIf", exif)])), Orientation::Rotate90);
        assert_eq!(of_png(&png(&[first, last])), Orientation::NoTransforms);
    }

    #[test]
    fn a_webp_may_have_the_words_before_the_block_and_an_odd_chunk_before_it() {
        let block = [b"Exif\0\0", &block(8)[..]].concat();
        let mut bytes = b"RIFF\0\0\0\0WEBPVP8 \x03\0\0\0abc\0EXIF".to_vec();
        bytes.extend((block.len() as u32).to_le_bytes());
        bytes.extend(&block);
        assert_eq!(of_webp(&bytes), Orientation::Rotate270);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(of_webp(&bytes), Orientation::NoTransforms);
    }

    #[test]
    fn what_is_no_orientation_leaves_the_image_as_it_is() {
        for n in [0, 9, 200] {
            assert_eq!(orientation(&block(n)), Orientation::NoTransforms, "{n}");
        }
        for end in 0..22 {
            assert_eq!(orientation(&block(6)[..end]), Orientation::NoTransforms, "{end}");
        }
    }
}
