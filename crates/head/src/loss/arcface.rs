//! ArcFace (arXiv 1801.07698): a margin in angle.

use std::f64::consts::PI;

use super::{Loss, Target, of_angle};
use crate::config::ArcfaceGradient;

/// `psi = cos(theta + m)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arcface {
    pub m: f64,
    pub gradient: ArcfaceGradient,
}

impl Loss for Arcface {
    fn target(&self, _: usize, cosine: f64) -> Target {
        match self.gradient {
            ArcfaceGradient::StraightThrough => Target::new((cosine.acos() + self.m).cos(), 1.0),
            ArcfaceGradient::Exact => guarded(cosine, self.m),
        }
    }
}

/// `cos(theta + m)` up to `theta + m = pi`. Past it the cosine would rise again and reward a larger
/// angle, so `cos(theta) - m * sin(m)` goes on in its place.
pub(super) fn guarded(cosine: f64, m: f64) -> Target {
    if cosine.acos() + m > PI {
        return Target::new(cosine - m * m.sin(), 1.0);
    }
    of_angle(cosine, 1.0, m)
}
