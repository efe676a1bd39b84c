//! Pixels through an affine map.

use super::similarity::{AlignError, Matrix, align_to};
use crate::{Channels, ImageSize, Pixels, template::Point};

/// Width and height of a crop.
pub const CROP: usize = 112;

/// Rows from the top, pixels from the left, three bytes each.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    pixels: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> Image<'a> {
    /// `None` unless `pixels` holds exactly `width · height` pixels, both at least 1.
    pub fn new(pixels: &'a [u8], width: usize, height: usize) -> Option<Image<'a>> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && bytes == pixels.len()).then_some(Image { pixels, width, height })
    }

    /// The four pixels at (left, top) and right, below, and right below of it.
    fn square(&self, left: i64, top: i64) -> [[u8; 3]; 4] {
        let is_inside = (0..self.width as i64 - 1).contains(&left)
            && (0..self.height as i64 - 1).contains(&top);
        if !is_inside {
            let (right, bottom) = (left.saturating_add(1), top.saturating_add(1));
            return [(left, top), (right, top), (left, bottom), (right, bottom)]
                .map(|(x, y)| self.at(x, y));
        }
        let start = (top as usize * self.width + left as usize) * 3;
        let rows = [start, start + self.width * 3].map(|start| &self.pixels[start..start + 6]);
        let [[a, b], [c, d]] = rows.map(|row| [[row[0], row[1], row[2]], [row[3], row[4], row[5]]]);
        [a, b, c, d]
    }

    /// The pixel at (x, y), black outside of the image.
    fn at(&self, x: i64, y: i64) -> [u8; 3] {
        let inside = (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y);
        if !inside {
            return [0; 3];
        }
        let start = (y as usize * self.width + x as usize) * 3;
        [0, 1, 2].map(|channel| self.pixels[start + channel])
    }
}

/// The face with these landmarks, cut out of an upright image in the pose of the template. Beyond the
/// image it is black; grey stays grey.
///
/// # Errors
///
/// [`AlignError::NoPlace`] or [`AlignError::Degenerate`].
pub fn cut(pixels: &Pixels, points: &[Point; 5], size: ImageSize) -> Result<Pixels, AlignError> {
    let matrix = align_to(points, size)?;
    let rgb = pixels.to_rgb();
    let image = Image::new(&rgb, pixels.width as usize, pixels.height as usize);
    let warped = warp_to(&image.expect("pixels fill their size"), &matrix, size);
    let (width, height) = (size.width.into(), size.height.into());
    Ok(match pixels.channels {
        Channels::Rgb => Pixels::rgb(width, height, warped),
        Channels::Grey => Pixels::grey(width, height, warped.into_iter().step_by(3).collect()),
    })
}

/// The 112×112 crop into which `matrix` takes `image`; outside of the image it is black.
///
/// As [`warp_to`] with [`ImageSize::FACE`].
pub fn warp(image: &Image, matrix: &Matrix) -> Vec<u8> {
    warp_to(image, matrix, ImageSize::FACE)
}

/// The crop of `size` into which `matrix` takes `image`; outside of the image it is black.
///
/// `matrix` takes source to crop pixels and is inverted here. Bilinear, exact: `OpenCV` rounds
/// positions to 1/32 pixel and so differs by 0.25 levels on average. A `matrix` that cannot be
/// inverted gives a black crop; [`similarity`](super::similarity) never returns one.
///
/// Returns [`size.rgb_bytes()`](ImageSize::rgb_bytes) bytes, rows from the top.
pub fn warp_to(image: &Image, matrix: &Matrix, size: ImageSize) -> Vec<u8> {
    let mut crop = vec![0; size.rgb_bytes()];
    let Some(back) = invert(matrix) else { return crop };
    let width = usize::from(size.width).max(1);
    for (position, pixel) in crop.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = ((position % width) as f64, (position / width) as f64);
        let source = back.map(|row| row[0] * x + row[1] * y + row[2]);
        *pixel = sample(image, source);
    }
    crop
}

fn sample(image: &Image, [x, y]: [f64; 2]) -> [u8; 3] {
    let (left, top) = (floor(x), floor(y));
    let (right_share, bottom_share) = (x - left as f64, y - top as f64);
    let [a, b, c, d] = image.square(left, top);
    [0, 1, 2].map(|channel| {
        let [a, b, c, d] = [a, b, c, d].map(|pixel| f64::from(pixel[channel]));
        let upper = a + (b - a) * right_share;
        let lower = c + (d - c) * right_share;
        // Truncated by the cast: to the nearest. `round` is a call on processors without SSE 4.1.
        (upper + (lower - upper) * bottom_share + 0.5) as u8
    })
}

/// Saturating: a position far outside stays outside. `f64::floor` is a call where `round` is.
fn floor(x: f64) -> i64 {
    let towards_zero = x as i64;
    if (towards_zero as f64) > x { towards_zero.saturating_sub(1) } else { towards_zero }
}

pub(super) fn invert(m: &Matrix) -> Option<Matrix> {
    let [[a, b, c], [d, e, f]] = *m;
    let determinant = a * e - b * d;
    let inverse = [
        [e / determinant, -b / determinant, (b * f - c * e) / determinant],
        [-d / determinant, a / determinant, (c * d - a * f) / determinant],
    ];
    inverse.as_flattened().iter().all(|v| v.is_finite()).then_some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(crop: &[u8], x: usize, y: usize) -> [u8; 3] {
        let start = (y * CROP + x) * 3;
        crop[start..start + 3].try_into().unwrap()
    }

    #[test]
    fn the_identity_keeps_pixels_and_blackens_the_rest() {
        let image = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]].concat();
        let crop = warp(&Image::new(&image, 2, 2).unwrap(), &[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        assert_eq!(pixel(&crop, 1, 0), [40, 50, 60]);
        assert_eq!(pixel(&crop, 0, 1), [70, 80, 90]);
        assert_eq!(pixel(&crop, 2, 0), [0, 0, 0]);
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_its_neighbours_and_the_border_fades() {
        let image = [[100, 0, 0], [200, 0, 0]].concat();
        let crop = warp(&Image::new(&image, 2, 1).unwrap(), &[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]);
        // Crop pixel 0 lies at -0.5, 1 at 0.5, 2 at 1.5.
        assert_eq!([0, 1, 2].map(|x| pixel(&crop, x, 0)[0]), [50, 150, 100]);
    }

    #[test]
    fn a_crop_of_another_size_has_its_rows() {
        let image = [[9, 8, 7], [6, 5, 4]].concat();
        let size = ImageSize { width: 3, height: 1 };
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let crop = warp_to(&Image::new(&image, 2, 1).unwrap(), &identity, size);
        assert_eq!(crop, [9, 8, 7, 6, 5, 4, 0, 0, 0]);
    }

    #[test]
    fn an_image_that_does_not_fill_its_size_is_none() {
        assert!(Image::new(&[0; 11], 2, 2).is_none());
        assert!(Image::new(&[], 0, 2).is_none());
        assert!(Image::new(&[0; 12], usize::MAX, usize::MAX).is_none());
    }

    #[test]
    fn a_matrix_without_inverse_gives_black() {
        let crop = warp(&Image::new(&[255; 3], 1, 1).unwrap(), &[[0.0; 3]; 2]);
        assert!(crop.iter().all(|&byte| byte == 0));
    }
}
