//! Width and height of a crop, and where the landmarks of a face belong in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::template::{Point, TEMPLATE};

/// Width and height of a crop in pixels, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels per row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl ImageSize {
    /// What networks are trained on.
    pub const FACE: ImageSize = ImageSize::square(112);

    /// A crop of `side` pixels each way.
    pub const fn square(side: u16) -> ImageSize {
        ImageSize { width: side, height: side }
    }

    /// Bytes of such a crop as interleaved 8-bit RGB.
    pub const fn rgb_bytes(self) -> usize {
        // u16 · u16 · 3 needs 34 bits: no overflow on the 64-bit machines the project runs on.
        self.width as usize * self.height as usize * 3
    }

    /// Where the five landmarks belong.
    ///
    /// The [`TEMPLATE`] is scaled by height / 112 and centred from left to right, which for
    /// multiples of 112 is what `InsightFace` does, and for 96×112 (`SphereFace`, `CosFace`) the
    /// template that it was widened from. Multiples of 128, as `InsightFace` has them, show more
    /// around the face instead: a margin of 1/16 at each side and 1/8 at the bottom.
    pub fn template(self) -> [Point; 5] {
        let (width, height) = (f64::from(self.width), f64::from(self.height));
        let is_wide = self.width == self.height
            && !self.width.is_multiple_of(112)
            && self.width.is_multiple_of(128);
        let scale = height / if is_wide { 128.0 } else { 112.0 };
        let left = (width - 112.0 * scale) / 2.0;
        TEMPLATE.map(|[x, y]| [x * scale + left, y * scale])
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(size: ImageSize, expected_left_eye: Point) {
        let [x, y] = size.template()[0];
        let [x_expected, y_expected] = expected_left_eye;
        assert!((x - x_expected).hypot(y - y_expected) < 1e-9, "{x} {y}");
    }

    #[test]
    fn multiples_of_112_scale_the_template() {
        assert_eq!(ImageSize::FACE.template(), TEMPLATE);
        check(ImageSize::square(224), [76.5892, 103.3926]);
        // A multiple of both: the first rule of the reference holds.
        check(ImageSize::square(896), [306.3568, 413.5704]);
    }

    #[test]
    fn multiples_of_128_keep_a_margin() {
        check(ImageSize::square(128), [46.2946, 51.6963]);
        check(ImageSize::square(256), [92.5892, 103.3926]);
    }

    #[test]
    fn the_narrow_crop_of_sphereface_has_its_own_published_points() {
        let size = ImageSize { width: 96, height: 112 };
        check(size, [30.2946, 51.6963]);
        let [x, y] = size.template()[4];
        assert!((x - 62.7299).hypot(y - 92.2041) < 1e-9);
    }
}
