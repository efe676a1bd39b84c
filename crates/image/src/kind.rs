//! What a file is, from its first bytes.

/// Bytes that [`sniff`] wants to see, if the file has as many.
#[allow(dead_code)]
pub const SNIFF_BYTES: usize = 16;

/// An image format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// Windows bitmap.
    Bmp,
    /// PBM, PGM, PPM and PAM.
    Pnm,
    /// WebP.
    WebP,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// An image that is read.
    Image(Kind),
    /// An image of a format that is not, by name.
    Unsupported(&'static str),
    /// Something else.
    NotAnImage,
}

/// Tells the format from the first [`SNIFF_BYTES`] bytes; file names play no part.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Sniffed::Image(Kind::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Sniffed::Image(Kind::Png),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Sniffed::Image(Kind::Bmp),
        [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..] => Sniffed::Image(Kind::Pnm),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            Sniffed::Image(Kind::WebP)
        }
        [b'G', b'I', b'F', b'8', ..] => Sniffed::Unsupported("GIF"),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Sniffed::Unsupported("TIFF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => Sniffed::Unsupported("AVIF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', _, ..] => Sniffed::Unsupported("HEIC"),
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] | [0xff, 0x0a, ..] => {
            Sniffed::Unsupported("JPEG XL")
        }
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => Sniffed::Unsupported("JPEG 2000"),
        _ => Sniffed::NotAnImage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_tells_the_format() {
        assert_eq!(sniff(b"\xff\xd8\xff\xe0\0\x10JFIF"), Sniffed::Image(Kind::Jpeg));
        assert_eq!(sniff(b"P5\n112 112\n255\n"), Sniffed::Image(Kind::Pnm));
        assert_eq!(sniff(b"RIFF\x10\0\0\0WEBPVP8 "), Sniffed::Image(Kind::WebP));
        assert_eq!(sniff(b"GIF89a"), Sniffed::Unsupported("GIF"));
        assert_eq!(sniff(b"Portrait of"), Sniffed::NotAnImage);
        assert_eq!(sniff(b"BM is a prefix"), Sniffed::NotAnImage);
        assert_eq!(sniff(b""), Sniffed::NotAnImage);
    }
}
