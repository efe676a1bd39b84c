//! The orientation that EXIF or XMP states, in each format that carries them.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use crate::xmp;

/// The tag of the orientation.
const ORIENTATION: u32 = 0x112;

/// The orientation by an EXIF block, with or without the words `Exif\0\0` before it, and an XMP packet.
/// What EXIF states counts, whatever it is; XMP is asked where EXIF is broken or says nothing of it. A number that
/// is no orientation leaves the image as it is.
pub fn of_blocks(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let stated = exif.and_then(stated).or_else(|| xmp.and_then(xmp::orientation));
    let stated = stated.and_then(|value| u8::try_from(value).ok());
    stated.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The number under the tag in the first folder of an EXIF block. It is a short by the standard, but some
/// programs write a byte or a long.
fn stated(block: &[u8]) -> Option<u32> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let is_little = match block.first_chunk::<4>()? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let number = |at: usize, n_bytes: usize| {
        let bytes = block.get(at..at.checked_add(n_bytes)?)?.iter();
        let push = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        Some(if is_little { bytes.rev().fold(0, push) } else { bytes.fold(0, push) })
    };
    let first = number(4, 4)? as usize;
    for i in 0..number(first, 2)? as usize {
        // Tag (2 bytes), type (2), count (4), value (4).
        let at = first.checked_add(2 + 12 * i)?;
        block.get(at..at.checked_add(12)?)?;
        if number(at, 2)? == ORIENTATION {
            return match number(at + 2, 2)? {
                1 | 6 | 7 => number(at + 8, 1),
                3 | 8 => number(at + 8, 2),
                4 | 9 => number(at + 8, 4),
                _ => None,
            };
        }
    }
    None
}

/// The orientation of a PNG. Its `eXIf` chunk may stand before or after the pixels. Before that chunk was
/// standardised in 2017, programs wrote the block as text, under a name that they still read. XMP is text too.
pub fn of_png(bytes: &[u8]) -> Orientation {
    let mut rest = bytes.get(8..).unwrap_or_default();
    let (mut own, mut as_text, mut xmp) = (None, None, None);
    // Length (4 bytes), name (4), data, checksum (4).
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((name, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        match name {
            b"eXIf" => own = own.or(Some(data)),
            b"tEXt" | b"zTXt" | b"iTXt" => match block_of_text(name, data) {
                Some((Block::Exif, block)) => as_text = as_text.or(Some(block)),
                Some((Block::Xmp, packet)) => xmp = xmp.or(Some(packet)),
                None => {}
            },
            _ => {}
        }
        rest = after.get(4..).unwrap_or_default();
    }
    let exif = own.filter(|block| stated(block).is_some()).or(as_text.as_deref());
    of_blocks(exif, xmp.as_deref())
}

/// What a text of a PNG holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Exif,
    Xmp,
}

/// Titles of texts that are a block, and whether it is written in hexadecimal digits, as `ImageMagick` does.
const TEXTS: [(&[u8], Block, bool); 4] = [
    (b"Raw profile type exif", Block::Exif, true),
    (b"Raw profile type APP1", Block::Exif, true),
    (b"Raw profile type xmp", Block::Xmp, true),
    (b"XML:com.adobe.xmp", Block::Xmp, false),
];

/// Bytes of such a text that are read: a block of a JPEG has 64 KiB at most, and two digits are a byte.
const TEXT_BYTES_MAX: u64 = 256 << 10;

/// The block in a chunk of text called `name`, if it holds one. Digits stand behind a line that names the kind
/// of the block and one with its length.
fn block_of_text(name: &[u8; 4], data: &[u8]) -> Option<(Block, Vec<u8>)> {
    let (title, data) = split_at_zero(data)?;
    let &(_, block, has_digits) = TEXTS.iter().find(|(known, ..)| *known == title)?;
    let (is_packed, data) = match name {
        b"tEXt" => (false, data),
        b"zTXt" => (true, data.get(1..)?),
        // Whether it is packed, how, its language, and the title in that language.
        _ => {
            let (_, after) = split_at_zero(data.get(2..)?)?;
            (data[0] == 1, split_at_zero(after)?.1)
        }
    };
    let mut text = Vec::new();
    // What could be unpacked before a damage counts: the decoder of the image judges the file.
    let _ = match is_packed {
        true => ZlibDecoder::new(data).take(TEXT_BYTES_MAX).read_to_end(&mut text),
        false => data.take(TEXT_BYTES_MAX).read_to_end(&mut text),
    };
    if !has_digits {
        return Some((block, text));
    }
    let mut lines = text.trim_ascii_start().splitn(3, |byte| *byte == b'\n').skip(2);
    let digits: Vec<u8> = lines.next()?.iter().filter_map(|&byte| hexadecimal(byte)).collect();
    Some((block, digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect()))
}

fn split_at_zero(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..at], &data[at + 1..]))
}

fn hexadecimal(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The orientation of a WebP.
pub fn of_webp(bytes: &[u8]) -> Orientation {
    let mut rest = bytes.get(12..).unwrap_or_default();
    let (mut exif, mut xmp) = (None, None);
    // Name (4 bytes), length (4), data, filled up to an even length.
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        match name {
            b"EXIF" => exif = exif.or(Some(data)),
            b"XMP " => xmp = xmp.or(Some(data)),
            _ => {}
        }
        rest = after.get(length % 2..).unwrap_or_default();
    }
    of_blocks(exif, xmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orientation(block: &[u8]) -> Orientation {
        of_blocks(Some(block), None)
    }

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

    /// The block as the hexadecimal text that `ImageMagick` writes.
    fn as_text(block: &[u8]) -> Vec<u8> {
        let digits: Vec<String> = block.iter().map(|byte| format!("{byte:02x}")).collect();
        let lines: Vec<String> = digits.chunks(36).map(|line| line.concat()).collect();
        format!("\nexif\n{:8}\n{}\n", block.len(), lines.join("\n")).into_bytes()
    }

    #[test]
    fn a_block_that_is_text_is_read_packed_or_not_unless_there_is_a_chunk_of_its_own() {
        use std::io::Write;
        let text = as_text(&[b"Exif\0\0", &block(6)[..]].concat());
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&text).unwrap();
        let packed = packed.finish().unwrap();
        let (first, last) = ((b"IHDR", &[0; 13][..]), (b"IDAT", &[7; 5][..]));
        for title in [&b"Raw profile type exif\0"[..], b"Raw profile type APP1\0"] {
            for (name, data) in [
                (b"tEXt", [title, &text[..]].concat()),
                (b"zTXt", [title, b"\0", &packed[..]].concat()),
                (b"iTXt", [title, b"\0\0en\0title\0", &text[..]].concat()),
                (b"iTXt", [title, b"\x01\0\0\0", &packed[..]].concat()),
            ] {
                let chunk = (name, &data[..]);
                assert_eq!(of_png(&png(&[first, chunk, last])), Orientation::Rotate90);
                let own = (b"eXIf", &block(3)[..]);
                assert_eq!(of_png(&png(&[first, chunk, last, own])), Orientation::Rotate180);
                // Whatever a chunk holds is read without a panic.
                for end in 0..data.len() {
                    of_png(&png(&[first, (name, &data[..end]), last]));
                }
            }
        }
        let comment = [b"Comment\0", &text[..]].concat();
        assert_eq!(of_png(&png(&[first, (b"tEXt", &comment), last])), Orientation::NoTransforms);
    }

    #[test]
    fn the_number_may_be_a_byte_a_short_or_a_long_in_either_order_and_behind_other_tags() {
        // (type, big-endian value, little-endian value)
        for (kind, big, little) in [
            (1, [6, 0, 0, 0], [6, 0, 0, 0]),
            (3, [0, 6, 0, 0], [6, 0, 0, 0]),
            (4, [0, 0, 0, 6], [6, 0, 0, 0]),
        ] {
            let other = [0x01, 0x0f, 0, 2, 0, 0, 0, 4, b'c', b'a', b'm', 0];
            let mut block = b"MM\0\x2a\0\0\0\x08\0\x02".to_vec();
            block.extend(other);
            block.extend([0x01, 0x12, 0, kind, 0, 0, 0, 1]);
            block.extend(big);
            assert_eq!(orientation(&block), Orientation::Rotate90, "type {kind}");
            let mut block = b"II\x2a\0\x0a\0\0\0\0\0\x01\0\x12\x01".to_vec();
            block.extend([kind, 0, 1, 0, 0, 0]);
            block.extend(little);
            assert_eq!(orientation(&block), Orientation::Rotate90, "type {kind}");
        }
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
    fn xmp_counts_where_exif_states_nothing() {
        let packet = &b"<x tiff:Orientation='6'/>"[..];
        let nothing = b"MM\0\x2a\0\0\0\x08\0\0";
        for (exif, expected) in [
            (None, Orientation::Rotate90),
            (Some(&nothing[..]), Orientation::Rotate90),
            (Some(&b"broken"[..]), Orientation::Rotate90),
            (Some(&block(1)[..]), Orientation::NoTransforms),
            (Some(&block(3)[..]), Orientation::Rotate180),
            // It is stated, if wrongly.
            (Some(&block(0)[..]), Orientation::NoTransforms),
        ] {
            assert_eq!(of_blocks(exif, Some(packet)), expected, "{exif:?}");
        }
        assert_eq!(of_blocks(None, Some(b"<x tiff:Orientation='9'/>")), Orientation::NoTransforms);
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
