//! The three margins of `SphereFace`, ArcFace and CosFace at once (arXiv 1801.07698, equation 4).

use super::{Loss, Target, of_angle};

/// `psi = cos(m1 * theta + m2) - m3`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Combined {
    pub m1: f64,
    pub m2: f64,
    pub m3: f64,
}

impl Loss for Combined {
    fn target(&self, _: usize, cosine: f64) -> Target {
        let Target { value, slope, .. } = of_angle(cosine, self.m1, self.m2);
        Target::new(value - self.m3, slope)
    }
}
