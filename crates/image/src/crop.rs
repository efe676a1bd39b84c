//! From the bytes of an image to a crop of one size: the same steps in every program.

use serde::{Deserialize, Serialize};

use crate::{
    Fit, ImageError, ImageSize, Limits, Pixels,
    align::{self, Landmarks, Point},
    decode::decode_noting,
    resize,
};

/// How any image becomes a crop of one size.
///
/// It is decoded, turned upright, and then, with the five landmarks of a face, cut out by them; else
/// it is resized with the one filter of [`resize`] unless it has the size already. Grey stays grey.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Width and height of the crop.
    pub size: ImageSize,
    /// What becomes of an image of another shape than the crop's.
    pub fit: Fit,
    /// How large an image may be.
    pub limits: Limits,
}

impl Recipe {
    /// 112×112, the middle of what is not square, up to 50 million pixels: what every program does
    /// unless it is told otherwise.
    pub const FACE: Recipe =
        Recipe { size: ImageSize::FACE, fit: Fit::Crop, limits: Limits::DEFAULT };

    /// The crop that becomes of the image in `bytes`.
    ///
    /// * `landmarks`: of the face to cut out. Points that all lie between 0 and 1 are taken for
    ///   fractions of the image's width and height, which [`Changes`] says.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; [`ImageError::Landmarks`] also for landmarks that make no face in this image.
    pub fn crop(&self, bytes: &[u8], landmarks: Option<&Landmarks>) -> Result<Crop, ImageError> {
        let (pixels, is_turned) = decode_noting(bytes, self.limits)?;
        let mut changes = Changes { is_turned, ..Changes::default() };
        let pixels = match landmarks {
            Some(landmarks) => {
                let (width, height) = (pixels.width, pixels.height);
                let points = points(landmarks);
                changes.is_aligned = true;
                changes.had_fractions = align::are_fractions(&points);
                let points = match changes.had_fractions {
                    true => points.map(|[x, y]| [x * f64::from(width), y * f64::from(height)]),
                    false => points,
                };
                align::judge(&points, width, height)?;
                align::cut(&pixels, &points, self.size)?
            }
            None => {
                let ImageSize { width, height } = self.size;
                let (width, height) = (u32::from(width), u32::from(height));
                changes.is_resized = (pixels.width, pixels.height) != (width, height);
                let has_shape = u64::from(pixels.width) * u64::from(height)
                    == u64::from(pixels.height) * u64::from(width);
                changes.is_reshaped = !has_shape;
                resize(pixels, self.size, self.fit)?
            }
        };
        Ok(Crop { pixels, changes })
    }

    /// As [`crop`](Recipe::crop) by `landmarks`, which are taken as they are, however they lie: for
    /// protocols in which every face counts.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; [`ImageError::Landmarks`] for points that no transform takes to the template.
    pub fn crop_unjudged(&self, bytes: &[u8], landmarks: &Landmarks) -> Result<Crop, ImageError> {
        let (pixels, is_turned) = decode_noting(bytes, self.limits)?;
        let changes = Changes { is_turned, is_aligned: true, ..Changes::default() };
        Ok(Crop { pixels: align::cut(&pixels, &points(landmarks), self.size)?, changes })
    }
}

fn points(landmarks: &Landmarks) -> [Point; 5] {
    landmarks.map(|point| point.map(f64::from))
}

/// A crop, and what was done to make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crop {
    /// Exactly as large as the recipe says.
    pub pixels: Pixels,
    /// What was done.
    pub changes: Changes,
}

/// What was done to an image beyond decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// It was turned by the orientation in its EXIF or XMP.
    pub is_turned: bool,
    /// It had another size.
    pub is_resized: bool,
    /// It had another shape, so that something was cut off, filled up or squeezed.
    pub is_reshaped: bool,
    /// It was cut out by landmarks.
    pub is_aligned: bool,
    /// Its landmarks were taken for fractions of width and height.
    pub had_fractions: bool,
}

/// Counts of changes, for one message at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Images counted.
    pub images: u64,
    /// Those turned by the orientation in their EXIF or XMP.
    pub turned: u64,
    /// Those that had another size, without landmarks.
    pub resized: u64,
    /// Those of the resized that had another shape as well.
    pub reshaped: u64,
    /// Those whose landmarks were taken for fractions.
    pub fractions: u64,
}

impl Tally {
    /// Counts one image.
    pub fn add(&mut self, changes: Changes) {
        self.images += 1;
        self.turned += u64::from(changes.is_turned);
        self.resized += u64::from(changes.is_resized);
        self.reshaped += u64::from(changes.is_reshaped);
        self.fractions += u64::from(changes.had_fractions);
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &Tally) {
        self.images += other.images;
        self.turned += other.turned;
        self.resized += other.resized;
        self.reshaped += other.reshaped;
        self.fractions += other.fractions;
    }

    /// What a person should know of it, a sentence each: images that were probably no aligned faces,
    /// and guesses that were made. Nothing if all images were as they should be.
    ///
    /// * `size`: of the crops
    /// * `fit`: what was done with images of another shape
    pub fn sentences(&self, size: ImageSize, fit: Fit) -> Vec<String> {
        let mut sentences = Vec::new();
        let of = format!("of {} {}", self.images, plural(self.images, "image"));
        if self.resized > 0 {
            let were = was(self.resized);
            let shape = match self.reshaped {
                0 => String::new(),
                n => format!(" ({n} of another shape, {})", fit.describe()),
            };
            sentences.push(format!(
                "{} {of} {were} not {size} and {were} resized{shape}: networks expect faces that are \
                 aligned, so give landmarks if these are not",
                self.resized
            ));
        }
        if self.turned > 0 {
            let were = was(self.turned);
            sentences.push(format!(
                "{} {of} {were} turned upright by the orientation in EXIF or XMP",
                self.turned
            ));
        }
        if self.fractions > 0 {
            sentences.push(format!(
                "the landmarks of {} {of} lie between 0 and 1 and were taken for fractions of width \
                 and height",
                self.fractions
            ));
        }
        sentences
    }
}

fn was(n: u64) -> &'static str {
    if n == 1 { "was" } else { "were" }
}

fn plural(n: u64, noun: &str) -> String {
    if n == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_once_and_only_what_was_done() {
        let mut tally = Tally::default();
        tally.add(Changes::default());
        assert!(tally.sentences(ImageSize::FACE, Fit::Crop).is_empty());
        tally.add(Changes { is_resized: true, is_reshaped: true, ..Changes::default() });
        tally.add(Changes { is_turned: true, had_fractions: true, ..Changes::default() });
        let sentences = tally.sentences(ImageSize::FACE, Fit::Crop);
        assert_eq!(sentences.len(), 3);
        let resized = "1 of 3 images was not 112x112 and was resized (1 of another shape, cut to the \
                       middle): ";
        assert!(sentences[0].starts_with(resized), "{}", sentences[0]);
        let mut twice = tally;
        twice.merge(&tally);
        assert_eq!((twice.images, twice.turned, twice.fractions), (6, 2, 2));
    }
}
