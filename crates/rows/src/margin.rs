//! Margins: what becomes of the cosine of a sample and its own centre.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// What a loss makes of one positive's cosine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The value psi that takes the cosine's place; the logit is `s * psi`.
    pub value: f64,
    /// The derivative of psi by the cosine that is sent back.
    pub slope: f64,
    /// The derivative of psi by the length of the embedding; 0 where no gradient flows to it.
    pub by_length: f64,
}

impl Target {
    /// A target that does not depend on the length of the embedding.
    #[must_use]
    pub fn new(value: f64, slope: f64) -> Target {
        Target { value, slope, by_length: 0.0 }
    }
}

/// The derivative of ArcFace's logit by the cosine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArcfaceGradient {
    /// `s * sin(theta + m) / sin(theta)`. Past `theta + m = pi`, where the cosine would rise again,
    /// the logit goes on as `s * (cos(theta) - m * sin(m))`.
    #[default]
    Exact,
    /// `s`, and no guard past pi: what `arcface_torch` trains with.
    StraightThrough,
}

/// A margin that depends on the angle alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AngularMargin {
    /// `psi = cos(theta) - m` (CosFace, arXiv 1801.09414).
    Cosface {
        /// The margin m, in cosine.
        m: f64,
    },
    /// `psi = cos(theta + m)` (ArcFace, arXiv 1801.07698).
    Arcface {
        /// The margin m, in radians.
        m: f64,
        /// Which derivative is sent back.
        gradient: ArcfaceGradient,
    },
    /// `psi = cos(m1 * theta + m2) - m3`: the three margins of `SphereFace`, ArcFace and CosFace at once
    /// (arXiv 1801.07698, equation 4).
    Combined {
        /// Factor on the angle.
        m1: f64,
        /// Radians added to the angle.
        m2: f64,
        /// Cosine taken off.
        m3: f64,
    },
}

impl AngularMargin {
    /// The margined value of a cosine in `[-1, 1]`, with its derivative.
    #[must_use]
    pub fn target(&self, cosine: f64) -> Target {
        match *self {
            AngularMargin::Cosface { m } => Target::new(cosine - m, 1.0),
            AngularMargin::Arcface { m, gradient: ArcfaceGradient::StraightThrough } => {
                Target::new((cosine.acos() + m).cos(), 1.0)
            }
            AngularMargin::Arcface { m, gradient: ArcfaceGradient::Exact } => guarded(cosine, m),
            AngularMargin::Combined { m1, m2, m3 } => {
                let Target { value, slope, .. } = of_angle(cosine, m1, m2);
                Target::new(value - m3, slope)
            }
        }
    }
}

/// `cos(theta + m)` up to `theta + m = pi`. Past it the cosine would rise again and reward a larger
/// angle, so `cos(theta) - m * sin(m)` goes on in its place.
#[must_use]
pub fn guarded(cosine: f64, m: f64) -> Target {
    if cosine.acos() + m > PI {
        return Target::new(cosine - m * m.sin(), 1.0);
    }
    of_angle(cosine, 1.0, m)
}

/// `cos(m1 * theta + m2)` and its derivative `m1 * sin(m1 * theta + m2) / sin(theta)` by the cosine.
#[must_use]
pub fn of_angle(cosine: f64, m1: f64, m2: f64) -> Target {
    let theta = cosine.acos();
    let (sin, value) = (m1 * theta + m2).sin_cos();
    Target::new(value, m1 * sin / theta.sin().max(SINE_LEAST))
}

/// Keeps the slope finite where embedding and centre are parallel. The slope multiplies a vector of
/// length sin(theta), so the gradient vanishes there anyhow; below this the sine of an angle between
/// two f32 unit vectors is rounding noise (square root of twice 2^-23 is 5e-4).
pub const SINE_LEAST: f64 = 1e-3;
