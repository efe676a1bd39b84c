//! Faces held in memory: small while they wait, 112×112 RGB when they are needed.

use std::io::Cursor;

use image::{ImageReader, Limits, imageops::FilterType};
use rayon::prelude::*;

use crate::EvalError;

/// Side of the square, aligned faces that every network takes.
pub const FACE_SIDE: usize = pfc_model::IMAGE_SIZE as usize;
/// Bytes of one face: 112 × 112 pixels of R, G, B.
pub const FACE_BYTES: usize = FACE_SIDE * FACE_SIDE * 3;
/// No file of a face crop is near this size.
pub(crate) const IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Larger images are refused: a face crop has no reason to be, and a hostile header has.
const SIDE_MAX: u32 = 8192;
/// What a decoder may allocate.
const DECODE_BYTES_MAX: u64 = 256 << 20;

/// Faces of one evaluation, each checked to decode.
///
/// A 112×112 image stays encoded (LFW: 30 MB instead of 290) and is decoded again when asked for.
#[derive(Debug)]
pub struct Faces {
    faces: Vec<Face>,
    n_resized: usize,
}

#[derive(Debug)]
enum Face {
    Encoded(Vec<u8>),
    Rgb(Vec<u8>),
}

impl Faces {
    /// Decodes every image once, on all threads, and keeps it; other sizes are resized to 112×112.
    ///
    /// * `read`: the encoded bytes of image `i`
    /// * `name`: what to call image `i` in errors
    ///
    /// # Errors
    ///
    /// The first image, in order, that cannot be read or decoded.
    pub fn load(
        n: usize,
        read: impl Fn(usize) -> Result<Vec<u8>, EvalError> + Sync,
        name: impl Fn(usize) -> String + Sync,
    ) -> Result<Faces, EvalError> {
        let load = |i: usize| -> Result<(Face, bool), EvalError> {
            let bytes = read(i)?;
            let decoded =
                decode(&bytes).map_err(|reason| EvalError::Image { image: name(i), reason })?;
            Ok(match decoded.resized_from {
                None => (Face::Encoded(bytes), false),
                Some(_) => (Face::Rgb(decoded.rgb), true),
            })
        };
        // Collected as results first, so that the error is the first by index and not by time.
        let results: Vec<_> = (0..n).into_par_iter().map(load).collect();
        let loaded = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        let n_resized = loaded.iter().filter(|(_, resized)| *resized).count();
        Ok(Faces { faces: loaded.into_iter().map(|(face, _)| face).collect(), n_resized })
    }

    /// Number of faces.
    pub fn len(&self) -> usize {
        self.faces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.faces.is_empty()
    }

    /// How many were not 112×112 and had to be resized.
    pub fn n_resized(&self) -> usize {
        self.n_resized
    }

    /// Pixels `[range, 112, 112, 3]`, decoded on all threads.
    ///
    /// # Panics
    ///
    /// If `range` reaches beyond the faces.
    pub fn rgb(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let mut pixels = vec![0; range.len() * FACE_BYTES];
        let faces = self.faces[range].par_iter();
        faces.zip(pixels.par_chunks_exact_mut(FACE_BYTES)).for_each(|(face, out)| match face {
            Face::Rgb(rgb) => out.copy_from_slice(rgb),
            Face::Encoded(bytes) => {
                let decoded = decode(bytes).expect("`load` has decoded these bytes before");
                out.copy_from_slice(&decoded.rgb);
            }
        });
        pixels
    }
}

/// A decoded face.
#[derive(Debug)]
pub struct Decoded {
    /// `[112, 112, 3]`, grey images with three equal channels, transparency dropped.
    pub rgb: Vec<u8>,
    /// Width and height in the file, if they were not 112×112.
    pub resized_from: Option<(u32, u32)>,
}

/// Decodes an image of a known format to 112×112 RGB.
///
/// # Errors
///
/// What the decoder says: unknown format, damage, or more than 8192 pixels a side.
pub fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let rgb = decode_rgb(bytes)?;
    let side = FACE_SIDE as u32;
    let size = rgb.dimensions();
    if size == (side, side) {
        return Ok(Decoded { rgb: rgb.into_raw(), resized_from: None });
    }
    if size.0 == 0 || size.1 == 0 {
        return Err("the image has no pixels".to_owned());
    }
    let resized = image::imageops::resize(&rgb, side, side, FilterType::Triangle);
    Ok(Decoded { rgb: resized.into_raw(), resized_from: Some(size) })
}

/// Decodes an image of a known format as it is.
pub(crate) fn decode_rgb(bytes: &[u8]) -> Result<image::RgbImage, String> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    Ok(reader.decode().map_err(|e| e.to_string())?.into_rgb8())
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Luma, Rgb, RgbImage};

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]));
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_face_of_the_right_size_is_untouched() {
        let decoded = decode(&png(112, 112)).unwrap();
        assert_eq!(decoded.resized_from, None);
        assert_eq!(decoded.rgb[(5 * 112 + 9) * 3..][..3], [9, 5, 7]);
    }

    #[test]
    fn other_sizes_are_resized_and_counted() {
        let sizes = [112, 250, 64];
        let faces = Faces::load(3, |i| Ok(png(sizes[i], sizes[i])), |i| i.to_string()).unwrap();
        assert_eq!((faces.len(), faces.n_resized()), (3, 2));
        assert_eq!(faces.rgb(1..3).len(), 2 * FACE_BYTES);
    }

    #[test]
    fn a_grey_image_has_three_equal_channels() {
        let mut bytes = Cursor::new(Vec::new());
        let grey = image::GrayImage::from_fn(112, 112, |x, _| Luma([x as u8]));
        grey.write_to(&mut bytes, ImageFormat::Pnm).unwrap();
        assert_eq!(decode(bytes.get_ref()).unwrap().rgb[9..12], [3, 3, 3]);
    }

    #[test]
    fn the_first_damaged_image_is_named() {
        let read = |i: usize| {
            let mut bytes = png(112, 112);
            if i > 0 {
                bytes.truncate(60);
            }
            Ok(bytes)
        };
        let error = Faces::load(3, read, |i| format!("face {i}")).unwrap_err();
        assert!(error.to_string().starts_with("face 1: cannot decode the image: "), "{error}");
    }
}
