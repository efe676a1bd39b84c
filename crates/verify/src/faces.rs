//! Faces held in memory: small while they wait, 112×112 RGB when they are needed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pfc_detect::{Finder, NoFace};
use pfc_image::{
    Changes, Crop, Fit, ImageError, ImageSize, Limits, Recipe, Tally, align, align::Landmarks,
    decode_noting,
};
use rayon::prelude::*;

use crate::VerifyError;

/// Side of the square, aligned faces that every network takes.
pub const FACE_SIDE: usize = pfc_model::IMAGE_SIZE as usize;
/// Bytes of one face: 112 × 112 pixels of R, G, B.
pub const FACE_BYTES: usize = FACE_SIDE * FACE_SIDE * 3;
/// The largest image file that is read: no face crop is near this size.
pub const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// Faces of one evaluation, each checked to decode.
///
/// A 112×112 image stays encoded (LFW: 30 MB instead of 290) and is decoded again when asked for.
#[derive(Debug)]
pub struct Faces {
    faces: Vec<Face>,
    changes: Tally,
    /// Images in which a detector found no face, and which count whole.
    n_without_face: u64,
}

#[derive(Debug)]
enum Face {
    Encoded(Vec<u8>),
    Rgb(Vec<u8>),
}

impl Faces {
    /// Decodes every image once, on all threads, and keeps it; what is not 112×112 or not upright is
    /// kept as pixels.
    ///
    /// * `read`: the encoded bytes of image `i`
    /// * `name`: what to call image `i` in errors
    ///
    /// # Errors
    ///
    /// The first image, in order, that cannot be read or decoded.
    pub fn load(
        n: usize,
        read: impl Fn(usize) -> Result<Vec<u8>, VerifyError> + Sync,
        name: impl Fn(usize) -> String + Sync,
    ) -> Result<Faces, VerifyError> {
        Faces::load_with(None, n, read, name)
    }

    /// As [`load`](Faces::load) of the faces that a detector finds. An image in which it finds none counts as it
    /// is, as without a detector: in a protocol every image counts.
    ///
    /// # Errors
    ///
    /// As [`load`](Faces::load), and [`VerifyError::Detect`].
    pub fn load_with(
        finder: Option<&Finder>,
        n: usize,
        read: impl Fn(usize) -> Result<Vec<u8>, VerifyError> + Sync,
        name: impl Fn(usize) -> String + Sync,
    ) -> Result<Faces, VerifyError> {
        let n_without_face = AtomicU64::new(0);
        let load = |i: usize| -> Result<(Face, Changes), VerifyError> {
            let bytes = read(i)?;
            if let Some(finder) = finder {
                match found(&bytes, finder, || name(i))? {
                    Ok(decoded) => return Ok((Face::Rgb(decoded.rgb), decoded.changes)),
                    Err(reason) => {
                        tracing::debug!("{}: {reason}", name(i));
                        n_without_face.fetch_add(1, Relaxed);
                    }
                }
            }
            let decoded =
                decode(&bytes).map_err(|reason| VerifyError::Image { image: name(i), reason })?;
            Ok(match decoded.changes == Changes::default() {
                true => (Face::Encoded(bytes), decoded.changes),
                false => (Face::Rgb(decoded.rgb), decoded.changes),
            })
        };
        // Collected as results first, so that the error is the first by index and not by time.
        let results: Vec<_> = (0..n).into_par_iter().map(load).collect();
        let loaded = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut changes = Tally::default();
        loaded.iter().for_each(|(_, change)| changes.add(*change));
        let faces = loaded.into_iter().map(|(face, _)| face).collect();
        Ok(Faces { faces, changes, n_without_face: n_without_face.into_inner() })
    }

    /// Number of faces.
    pub fn len(&self) -> usize {
        self.faces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.faces.is_empty()
    }

    /// Images in which a detector found no face, and which count whole.
    pub fn n_without_face(&self) -> u64 {
        self.n_without_face
    }

    /// What was done to them: how many were resized, turned, cut to another shape.
    pub fn changes(&self) -> &Tally {
        &self.changes
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

/// A face as every network takes it.
#[derive(Debug)]
pub struct Decoded {
    /// `[112, 112, 3]`, grey images with three equal channels.
    pub rgb: Vec<u8>,
    /// What was done to the image.
    pub changes: Changes,
}

/// Makes a face of the bytes of an image of any format and size, as `pfc-ingest pack` does:
/// [`pfc_image::Recipe::FACE`] is the rule of all programs.
///
/// # Errors
///
/// [`ImageError`]: unknown format, damage, truncation, or too many pixels.
pub fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    cut(bytes, None)
}

/// As [`decode`]; with landmarks, cuts out the face that has them.
///
/// # Errors
///
/// As [`decode`], and [`ImageError::Landmarks`] for landmarks that make no face in this image.
pub fn cut(bytes: &[u8], landmarks: Option<&Landmarks>) -> Result<Decoded, ImageError> {
    let Crop { pixels, changes } = Recipe::FACE.crop(bytes, landmarks)?;
    Ok(Decoded { rgb: pixels.into_rgb(), changes })
}

/// The face that a detector finds in a photograph, cut out as `pfc-ingest detect` does it; or why there is none.
///
/// * `name`: what to call the image in errors
///
/// # Errors
///
/// [`VerifyError::Image`] if it cannot be decoded, [`VerifyError::Detect`] if the detector fails.
pub fn found(
    bytes: &[u8],
    finder: &Finder,
    name: impl Fn() -> String,
) -> Result<Result<Decoded, NoFace>, VerifyError> {
    let of_image = |reason: ImageError| VerifyError::Image { image: name(), reason };
    let (pixels, is_turned) = decode_noting(bytes, Limits::DEFAULT).map_err(of_image)?;
    let landmarks = match finder.landmarks(&pixels)? {
        Ok(landmarks) => landmarks.map(|point| point.map(f64::from)),
        Err(reason) => return Ok(Err(reason)),
    };
    let face = align::cut(&pixels, &landmarks, ImageSize::FACE);
    let face = face.map_err(|error| of_image(error.into()))?;
    let changes = Changes { is_turned, is_aligned: true, ..Changes::default() };
    Ok(Ok(Decoded { rgb: face.into_rgb(), changes }))
}

/// Says once what was done to images beyond decoding them.
pub fn warn_of_changes(what: &str, changes: &Tally) {
    for sentence in changes.sentences(ImageSize::FACE, Fit::Crop) {
        tracing::warn!("{what}: {sentence}");
    }
}

/// Says in how many images a detector found no face.
pub fn warn_of_unfound(what: &str, faces: &Faces) {
    let (n, of) = (faces.n_without_face(), faces.len());
    if n > 0 {
        tracing::warn!(
            "{what}: the detector finds no usable face in {n} of {of} images, which count whole, as without \
             a detector"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
        assert_eq!(decoded.changes, Changes::default());
        assert_eq!(decoded.rgb[(5 * 112 + 9) * 3..][..3], [9, 5, 7]);
    }

    #[test]
    fn other_sizes_are_resized_and_counted() {
        let sizes = [112, 250, 64];
        let faces = Faces::load(3, |i| Ok(png(sizes[i], sizes[i])), |i| i.to_string()).unwrap();
        assert_eq!((faces.len(), faces.changes().resized), (3, 2));
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
