//! The least-squares similarity transform between two sets of points.

use crate::{
    ImageSize,
    template::{Point, TEMPLATE},
};

/// A 2×3 matrix `M` that takes source to crop pixels: `[x' y'] = M [x y 1]`.
pub type Matrix = [[f64; 3]; 2];

/// Mean distance from the template, in pixels of a 112×112 crop, beyond which five points are no face.
/// The faces of LFW have 0.2 to 11; points in another order, or with x and y mixed up, 13 to 21.
pub const RESIDUAL_MAX: f64 = 12.0;

/// Why landmarks give no crop.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum AlignError {
    /// A coordinate that is NaN, infinite or far outside of any image.
    #[error("landmark {index} is at ({}, {}), which is no place in an image", point[0], point[1])]
    NoPlace {
        /// Which landmark, from 0.
        index: usize,
        /// Its coordinates.
        point: Point,
    },
    /// All five landmarks (nearly) in one place, or so arranged that the best scale is zero.
    #[error("the five landmarks do not span a face")]
    Degenerate,
    /// The points are too far from those of any face.
    #[error(
        "{} ({residual:.1} pixels off in a crop of 112, at most {:.0} allowed)",
        if *is_swapped {
            "left and right of the landmarks are exchanged"
        } else {
            "the landmarks are those of no face"
        },
        RESIDUAL_MAX
    )]
    Misfit {
        /// Their mean distance from the template, in pixels of a 112×112 crop.
        residual: f64,
        /// Whether they would fit with left and right exchanged.
        is_swapped: bool,
    },
    /// A face too small to see.
    #[error("the face spans {side:.1} pixels of the image, at least {side_min:.0} are needed")]
    Small {
        /// Pixels of the image that the crop spans.
        side: f64,
        /// The fewest allowed.
        side_min: f64,
    },
    /// A face beside the image.
    #[error(
        "{:.0} % of the crop lie outside of the image, at most {:.0} % allowed",
        share * 100.0, share_max * 100.0
    )]
    Outside {
        /// The share outside, 0 to 1.
        share: f64,
        /// The largest allowed.
        share_max: f64,
    },
}

impl AlignError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            AlignError::Misfit { is_swapped: true, .. } => {
                "left and right are meant as seen in the image: exchange the eyes, and the corners of \
                 the mouth"
            }
            AlignError::Outside { .. } => {
                "the points are pixels of the upright image at its full size: was it resized or turned \
                 after the landmarks were found?"
            }
            _ => {
                "landmarks are x y of left eye, right eye, nose, left and right corner of the mouth, \
                 in pixels of the image"
            }
        };
        Some(hint.to_owned())
    }
}

/// Beyond this no image reaches, and squares still are exact enough.
const COORDINATE_MAX: f64 = 1e6;

/// The transform that brings `landmarks` closest to the [`TEMPLATE`].
///
/// # Errors
///
/// As [`similarity`].
pub fn align(landmarks: &[Point; 5]) -> Result<Matrix, AlignError> {
    align_to(landmarks, ImageSize::FACE)
}

/// The transform that brings `landmarks` closest to the template of a crop of `size`.
///
/// # Errors
///
/// As [`similarity`].
pub fn align_to(landmarks: &[Point; 5], size: ImageSize) -> Result<Matrix, AlignError> {
    similarity(landmarks, &size.template())
}

/// How far landmarks are from those of a face: the mean distance to the [`TEMPLATE`] after
/// [`align`], in pixels of the 112×112 crop. The faces of LFW have 0.2 to 11, half of them up to
/// 2.4; their points in another order, or x and y mixed up, 13 to 21.
///
/// # Errors
///
/// As [`similarity`].
pub fn residual(landmarks: &[Point; 5]) -> Result<f64, AlignError> {
    let matrix = align(landmarks)?;
    let distances = landmarks.iter().zip(&TEMPLATE).map(|(point, target)| {
        let [x, y] = matrix.map(|row| row[0] * point[0] + row[1] * point[1] + row[2]);
        (x - target[0]).hypot(y - target[1])
    });
    Ok(distances.sum::<f64>() / TEMPLATE.len() as f64)
}

/// The turn, uniform scale and shift that take `from` closest to `to`: least sum of squared
/// distances, never a mirror image (Umeyama 1991, which in the plane has this closed form).
///
/// With both sets centred and points read as complex numbers, the best factor is
/// `Σ conj(from)·to / Σ |from|²`; it turns and scales but cannot mirror.
///
/// # Errors
///
/// [`AlignError::NoPlace`] for a coordinate that is not finite or beyond a million,
/// [`AlignError::Degenerate`] if `from` is one point, or the best scale is below a millionth.
pub fn similarity(from: &[Point; 5], to: &[Point; 5]) -> Result<Matrix, AlignError> {
    let out_of_place = |p: &Point| !p.iter().all(|v| v.abs() <= COORDINATE_MAX);
    if let Some(index) = from.iter().position(out_of_place) {
        return Err(AlignError::NoPlace { index, point: from[index] });
    }
    let (from_mean, to_mean) = (mean(from), mean(to));
    let (mut spread, mut along, mut across) = (0.0, 0.0, 0.0);
    for (f, t) in from.iter().zip(to) {
        let [fx, fy] = [f[0] - from_mean[0], f[1] - from_mean[1]];
        let [tx, ty] = [t[0] - to_mean[0], t[1] - to_mean[1]];
        spread += fx * fx + fy * fy;
        along += fx * tx + fy * ty;
        across += fx * ty - fy * tx;
    }
    let (cos, sin) = (along / spread, across / spread);
    // `spread` of zero gives NaN, which fails this comparison too.
    if !(cos.hypot(sin) > 1e-6 && cos.hypot(sin) < 1e6) {
        return Err(AlignError::Degenerate);
    }
    Ok([
        [cos, -sin, to_mean[0] - cos * from_mean[0] + sin * from_mean[1]],
        [sin, cos, to_mean[1] - sin * from_mean[0] - cos * from_mean[1]],
    ])
}

/// Five landmarks out of 68 in the iBUG 300-W order, as dlib and others predict them and as
/// `InsightFace`'s IJB script reduces them. Counted from 0: each eye is the middle of its corners (36
/// and 39, 42 and 45), then the tip of the nose (30) and the outer corners of the mouth (48, 54).
pub fn five_of_68(points: &[Point; 68]) -> [Point; 5] {
    let middle = |a: usize, b: usize| {
        [(points[a][0] + points[b][0]) / 2.0, (points[a][1] + points[b][1]) / 2.0]
    };
    [middle(36, 39), middle(42, 45), points[30], points[48], points[54]]
}

fn mean(points: &[Point; 5]) -> Point {
    let sum = points.iter().fold([0.0, 0.0], |s, p| [s[0] + p[0], s[1] + p[1]]);
    sum.map(|v| v / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(m: &Matrix, p: Point) -> Point {
        m.map(|row| row[0] * p[0] + row[1] * p[1] + row[2])
    }

    #[test]
    fn a_turned_scaled_and_shifted_template_is_brought_back() {
        // By 90 degrees: (x, y) to (-2y + 300, 2x - 10).
        let moved = TEMPLATE.map(|[x, y]| [-2.0 * y + 300.0, 2.0 * x - 10.0]);
        let m = align(&moved).unwrap();
        for (from, to) in moved.iter().zip(&TEMPLATE) {
            let back = apply(&m, *from);
            assert!((back[0] - to[0]).hypot(back[1] - to[1]) < 1e-10, "{back:?} {to:?}");
        }
        assert!((m[0][0]).abs() < 1e-12 && (m[0][1] - 0.5).abs() < 1e-12, "{m:?}");
    }

    #[test]
    fn a_mirrored_face_is_not_mirrored_back() {
        let mirrored = TEMPLATE.map(|[x, y]| [112.0 - x, y]);
        let m = align(&mirrored).unwrap();
        let determinant = m[0][0] * m[1][1] - m[0][1] * m[1][0];
        assert!(determinant > 0.0, "{m:?}");
    }

    #[test]
    fn landmarks_of_a_face_fit_and_others_do_not() {
        let mut shuffled = TEMPLATE;
        shuffled.swap(0, 4);
        assert!(residual(&TEMPLATE.map(|[x, y]| [3.0 * x, 3.0 * y + 9.0])).unwrap() < 1e-9);
        assert!(residual(&shuffled).unwrap() > 20.0);
    }

    #[test]
    fn five_equal_landmarks_are_refused() {
        assert_eq!(align(&[[7.0, 7.0]; 5]), Err(AlignError::Degenerate));
    }

    #[test]
    fn a_landmark_that_is_no_number_is_named() {
        let mut points = TEMPLATE;
        points[3][1] = f64::NAN;
        let error = align(&points).unwrap_err();
        assert!(error.to_string().starts_with("landmark 3 is at (41.5493, NaN)"), "{error}");
    }

    #[test]
    fn the_eyes_of_68_landmarks_are_the_middles_of_their_corners() {
        let mut points = [[0.0; 2]; 68];
        (points[36], points[39]) = ([1.0, 3.0], [3.0, 5.0]);
        (points[30], points[54]) = ([9.0, 8.0], [7.0, 6.0]);
        let five = five_of_68(&points);
        assert_eq!((five[0], five[2], five[4]), ([2.0, 4.0], [9.0, 8.0], [7.0, 6.0]));
    }
}
