//! Whether five points can be a face in this image.

use super::similarity::{AlignError, Matrix, RESIDUAL_MAX, align, residual};
use crate::template::Point;

/// Pixels of the image that a 112×112 crop spans at least. Eyes are a third of that apart.
const SIDE_MIN: f64 = 8.0;

/// Share of the crop that has to lie within the image. A face that the border cuts in half has 0.5.
const OVERLAP_MIN: f64 = 0.3;

/// Whether all five points lie between 0 and 1, so that they are fractions of width and height: a face
/// cannot be as small as one pixel.
pub fn are_fractions(points: &[Point; 5]) -> bool {
    let all = points.as_flattened();
    all.iter().all(|v| (0.0..=1.0).contains(v)) && all.iter().any(|v| *v > 0.0)
}

/// Refuses points that make no face, or none in an image of `width`×`height` pixels.
///
/// # Errors
///
/// [`AlignError`] with the number and its bound.
pub fn judge(points: &[Point; 5], width: u32, height: u32) -> Result<(), AlignError> {
    let matrix = align(points)?;
    let residual_found = residual(points)?;
    if residual_found > RESIDUAL_MAX {
        let is_swapped = fits_exchanged(points);
        return Err(AlignError::Misfit { residual: residual_found, is_swapped });
    }
    // The scale of the matrix is crop pixels per pixel of the image.
    let side = 112.0 / matrix[0][0].hypot(matrix[1][0]);
    if side < SIDE_MIN {
        return Err(AlignError::Small { side, side_min: SIDE_MIN });
    }
    let overlap = overlap(&matrix, f64::from(width), f64::from(height));
    if overlap < OVERLAP_MIN {
        return Err(AlignError::Outside { share: 1.0 - overlap, share_max: 1.0 - OVERLAP_MIN });
    }
    Ok(())
}

/// Whether the points are those of a more or less upright face once left and right are exchanged.
fn fits_exchanged(points: &[Point; 5]) -> bool {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = *points;
    let exchanged = [right_eye, left_eye, nose, right_mouth, left_mouth];
    let is_upright = |matrix: Matrix| matrix[0][0] > matrix[1][0].abs();
    residual(&exchanged).is_ok_and(|residual| residual <= RESIDUAL_MAX)
        && align(&exchanged).is_ok_and(is_upright)
}

/// The share of the crop that lies in the image, of 16×16 places.
fn overlap(matrix: &Matrix, width: f64, height: f64) -> f64 {
    const PLACES: usize = 16;
    let Some(back) = super::warp::invert(matrix) else { return 0.0 };
    let at = |i: usize| (i as f64 + 0.5) * 112.0 / PLACES as f64;
    let is_inside = |i: &usize| {
        let (x, y) = (at(i % PLACES), at(i / PLACES));
        let [x, y] = back.map(|row| row[0] * x + row[1] * y + row[2]);
        (-0.5..width - 0.5).contains(&x) && (-0.5..height - 0.5).contains(&y)
    };
    let n = (0..PLACES * PLACES).filter(is_inside).count();
    n as f64 / (PLACES * PLACES) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::TEMPLATE;

    /// The template in the middle of an image of 300×300, at half size.
    fn face() -> [Point; 5] {
        TEMPLATE.map(|[x, y]| [x / 2.0 + 120.0, y / 2.0 + 120.0])
    }

    #[track_caller]
    fn check(points: &[Point; 5], expected: &str) {
        let found = judge(points, 300, 300).map_or_else(|e| e.to_string(), |()| "good".into());
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn a_face_is_good_turned_at_the_border_and_seen_from_the_side() {
        check(&face(), "good");
        check(&face().map(|[x, y]| [300.0 - y, x]), "good");
        check(&face().map(|[x, y]| [x - 140.0, y]), "good");
        check(&face().map(|[x, y]| [(x - 148.0) * 0.5 + 148.0, y]), "good");
    }

    #[test]
    fn left_and_right_in_the_wrong_order_are_noticed() {
        let [a, b, c, d, e] = face();
        check(&[b, a, c, e, d], "left and right of the landmarks are exchanged");
        check(&[a, b, c, d, a], "the landmarks are ");
        check(&face().map(|[x, y]| [y, x]), "the landmarks are those of no face");
    }

    #[test]
    fn a_face_of_a_few_pixels_and_one_outside_of_the_image_are_refused() {
        check(&face().map(|[x, y]| [x / 20.0, y / 20.0]), "the face spans 2.8 pixels");
        // Of the 56 columns of the crop from 290 on, ten are in the image.
        check(&face().map(|[x, y]| [x + 170.0, y]), "8");
        check(&face().map(|[x, y]| [x + 900.0, y]), "100 % of the crop");
    }

    #[test]
    fn fractions_are_told_from_pixels() {
        assert!(are_fractions(&face().map(|[x, y]| [x / 300.0, y / 300.0])));
        assert!(!are_fractions(&face()));
        assert!(!are_fractions(&[[0.0; 2]; 5]));
        assert!(!are_fractions(&[[f64::NAN; 2]; 5]));
    }
}
