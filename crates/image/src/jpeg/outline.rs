//! What the segments of a JPEG say before anything is decoded: its size, its orientation, and whether
//! it is whole.

use std::borrow::Cow;

use image::metadata::Orientation;

use super::{
    scan,
    segments::{START_OF_IMAGE, START_OF_SCAN, Segments, is_frame_header},
};
use crate::{ImageError, ImageSize, orientation};

/// A JPEG as its segments describe it. Reading it takes about a microsecond and allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Outline<'a> {
    bytes: &'a [u8],
    /// Width and height in the frame header, as the pixels are stored.
    pub size: ImageSize,
    /// How the stored pixels have to be turned.
    pub orientation: Orientation,
    /// Whether the image is coded in scans that refine each other.
    pub is_progressive: bool,
    /// Where the entropy-coded bytes of the first scan begin.
    scan: Option<usize>,
    /// Whether bytes lie between the segments that belong to none of them.
    has_strays: bool,
}

impl<'a> Outline<'a> {
    /// Reads the segments up to the first scan. Stray bytes between segments are passed over, as every
    /// other decoder does.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotJpeg`] if the bytes end before a frame header with positive dimensions.
    pub fn read(bytes: &'a [u8]) -> Result<Outline<'a>, ImageError> {
        let bad = |what| ImageError::NotJpeg { what };
        let mut segments = Segments::of(bytes).ok_or(bad("no start-of-image marker"))?;
        let (mut size, mut scan, mut is_progressive) = (None, None, false);
        let (mut exif, mut xmp) = (None, None);
        while let Some(segment) = segments.next() {
            match segment.marker {
                START_OF_SCAN => scan = Some(segments.at),
                marker if is_frame_header(marker) && size.is_none() => {
                    is_progressive = marker == PROGRESSIVE;
                    let found = frame_size(segment.payload);
                    size = Some(found.ok_or(bad("the frame header has no dimensions"))?);
                }
                APP1 => {
                    exif = exif.or_else(|| segment.payload.strip_prefix(EXIF));
                    xmp = xmp.or_else(|| segment.payload.strip_prefix(XMP));
                }
                _ => {}
            }
        }
        let size = size.ok_or(bad("no frame header"))?;
        let orientation = orientation::of_blocks(exif, xmp);
        let has_strays = segments.has_strays;
        Ok(Outline { bytes, size, orientation, is_progressive, scan, has_strays })
    }

    /// Width and height once the image is turned upright.
    pub fn upright_size(&self) -> ImageSize {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let ImageSize { width, height } = self.size;
        match self.orientation {
            Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => {
                ImageSize { width: height, height: width }
            }
            _ => self.size,
        }
    }

    /// Whether there is a scan and, behind it, the end marker. The decoder takes a scan that lost its
    /// last rows for a whole one, and fills them with grey.
    pub fn has_end(&self) -> bool {
        // Within the scans the two bytes stand for nothing else. There may be padding after them.
        let scans = self.scan.and_then(|start| self.bytes.get(start..));
        scans.is_some_and(|scans| scans.windows(2).rev().any(|pair| pair == END_OF_IMAGE))
    }

    /// The bytes as a strict decoder wants them: without stray bytes before the first scan, and with
    /// the end marker if that is all that is missing. Nearly always these are the bytes themselves.
    ///
    /// # Errors
    ///
    /// [`ImageError::Truncated`] if more is missing than the end marker.
    pub fn mended(&self) -> Result<Cow<'a, [u8]>, ImageError> {
        let scan = self.scan.ok_or(ImageError::Truncated)?;
        let has_end = self.has_end();
        if !has_end && !scan::is_complete(self.bytes) {
            return Err(ImageError::Truncated);
        }
        if has_end && !self.has_strays {
            return Ok(Cow::Borrowed(self.bytes));
        }
        let mut whole = Vec::with_capacity(self.bytes.len() + END_OF_IMAGE.len());
        whole.extend_from_slice(START_OF_IMAGE);
        for segment in Segments::of(self.bytes).into_iter().flatten() {
            let length = (segment.payload.len() as u16 + 2).to_be_bytes();
            whole.extend_from_slice(&[0xff, segment.marker, length[0], length[1]]);
            whole.extend_from_slice(segment.payload);
        }
        let scans = self.bytes.get(scan..).unwrap_or_default();
        if has_end {
            whole.extend_from_slice(scans);
        } else {
            // The end marker itself may have been cut in half.
            whole.extend_from_slice(scans.strip_suffix(b"\xff").unwrap_or(scans));
            whole.extend_from_slice(END_OF_IMAGE);
        }
        Ok(Cow::Owned(whole))
    }
}

const END_OF_IMAGE: &[u8] = b"\xff\xd9";
const PROGRESSIVE: u8 = 0xc2;
const APP1: u8 = 0xe1;
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Precision (1 byte), height (2), width (2).
fn frame_size(segment: &[u8]) -> Option<ImageSize> {
    let &[_, h1, h0, w1, w0, ..] = segment else { return None };
    let size =
        ImageSize { width: u16::from_be_bytes([w1, w0]), height: u16::from_be_bytes([h1, h0]) };
    (size.width > 0 && size.height > 0).then_some(size)
}
