//! The positive's logit: margin losses as functions of one cosine.

mod adaface;
mod tile;

use std::f64::consts::PI;

use super::config::{ArcfaceGradient, Margin};
use adaface::{Adaface, target_of_quality};
pub use tile::{Exponentials, Logits};

/// What a loss makes of one positive's cosine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The value psi that takes the cosine's place; the logit is `s * psi`.
    pub value: f64,
    /// The derivative of psi by the cosine that is sent back.
    pub slope: f64,
}

/// A margin softmax loss: everything it does happens to the positives' cosines.
///
/// The negatives' logits are `s * cos` in all of them, so any loss goes with any sampler. A loss
/// that adapts to the batch sees the feature norms first.
pub trait MarginLoss: Send {
    /// Told once a step, before any [`MarginLoss::target`].
    ///
    /// * `feature_norms`: `[G]`, the embeddings' lengths, all ranks' rows in rank order
    fn prepare(&mut self, feature_norms: &[f64]) {
        let _ = feature_norms;
    }

    /// The margined value and its slope.
    ///
    /// * `sample`: row of the global batch
    /// * `cosine`: of that row's embedding and its own centre, in `[-1, 1]`
    fn target(&self, sample: usize, cosine: f64) -> Target;

    /// What a resumed run has to know beside the configuration; nothing for most losses.
    fn memory(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Takes over what [`MarginLoss::memory`] gave.
    fn remember(&mut self, memory: &[f64]) {
        let _ = memory;
    }
}

impl Margin {
    /// The loss that a head computes by.
    pub(super) fn loss(&self) -> Box<dyn MarginLoss> {
        match *self {
            Margin::Adaface { m, h, alpha } => Box::new(Adaface::new(m, h, alpha)),
            other => Box::new(other),
        }
    }
}

impl MarginLoss for Margin {
    fn target(&self, _: usize, cosine: f64) -> Target {
        match *self {
            Margin::Cosface { m } => Target { value: cosine - m, slope: 1.0 },
            Margin::Arcface { m, gradient: ArcfaceGradient::StraightThrough } => {
                Target { value: (cosine.acos() + m).cos(), slope: 1.0 }
            }
            Margin::Arcface { m, gradient: ArcfaceGradient::Exact } => {
                // Past pi the cosine would rise again and reward a larger angle.
                if cosine.acos() + m > PI {
                    return Target { value: cosine - m * m.sin(), slope: 1.0 };
                }
                of_angle(cosine, 1.0, m)
            }
            Margin::Combined { m1, m2, m3 } => {
                let Target { value, slope } = of_angle(cosine, m1, m2);
                Target { value: value - m3, slope }
            }
            // By itself a margin has seen no batch, in which every length is the average one.
            Margin::Adaface { m, .. } => target_of_quality(m, 0.0, cosine),
        }
    }
}

/// `cos(m1 * theta + m2)` and its derivative `m1 * sin(m1 * theta + m2) / sin(theta)` by the cosine.
fn of_angle(cosine: f64, m1: f64, m2: f64) -> Target {
    let theta = cosine.acos();
    let (sin, value) = (m1 * theta + m2).sin_cos();
    Target { value, slope: m1 * sin / theta.sin().max(SINE_LEAST) }
}

/// Keeps the slope finite where embedding and centre are parallel. The slope multiplies a vector of
/// length sin(theta), so the gradient vanishes there anyhow; below this the sine of an angle between
/// two f32 unit vectors is rounding noise (square root of twice 2^-23 is 5e-4).
const SINE_LEAST: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Margin = Margin::Arcface { m: 0.5, gradient: ArcfaceGradient::Exact };
    const STRAIGHT: Margin = Margin::Arcface { m: 0.5, gradient: ArcfaceGradient::StraightThrough };

    #[track_caller]
    fn check(margin: Margin, cosine: f64, value: f64, slope: f64) {
        let target = margin.target(0, cosine);
        assert!((target.value - value).abs() < 1e-12, "{margin:?} at {cosine}: {target:?}");
        assert!((target.slope - slope).abs() < 1e-12, "{margin:?} at {cosine}: {target:?}");
    }

    #[test]
    fn the_losses_match_values_worked_by_hand() {
        check(Margin::Cosface { m: 0.4 }, 0.7, 0.3, 1.0);
        // theta = pi/3: cos(pi/3 + pi/6) = 0, slope sin(pi/2) / sin(pi/3) = 2 / sqrt(3).
        let sixth = PI / 6.0;
        let arcface = |gradient| Margin::Arcface { m: sixth, gradient };
        check(arcface(ArcfaceGradient::Exact), 0.5, 0.0, 2.0 / 3f64.sqrt());
        check(arcface(ArcfaceGradient::StraightThrough), 0.5, 0.0, 1.0);
        // 2 * pi/6 + pi/6 = pi/2: value 0 - 0.1, slope 2 * 1 / (1/2) = 4.
        check(Margin::Combined { m1: 2.0, m2: sixth, m3: 0.1 }, sixth.cos(), -0.1, 4.0);
    }

    #[test]
    fn past_pi_the_exact_loss_falls_on_and_the_straight_one_turns_back() {
        let theta = 3.0f64;
        check(EXACT, theta.cos(), theta.cos() - 0.5 * 0.5f64.sin(), 1.0);
        check(STRAIGHT, theta.cos(), 3.5f64.cos(), 1.0);
        assert!(STRAIGHT.target(0, -1.0).value > STRAIGHT.target(0, 2.6f64.cos()).value);
        let mut last = f64::INFINITY;
        for i in 0..=1000 {
            let value = EXACT.target(0, (PI * f64::from(i) / 1000.0).cos()).value;
            assert!(value < last, "{i}");
            last = value;
        }
    }

    #[test]
    fn the_slope_is_the_derivative() {
        let combined = Margin::Combined { m1: 1.2, m2: 0.3, m3: 0.1 };
        for margin in [EXACT, combined, Margin::Cosface { m: 0.35 }] {
            for i in -90..=99 {
                let (cosine, h) = (f64::from(i) / 100.0, 1e-6);
                let [below, above] = [cosine - h, cosine + h].map(|c| margin.target(0, c).value);
                let slope = margin.target(0, cosine).slope;
                let numeric = (above - below) / (2.0 * h);
                // The guard of ArcFace begins at cos(pi - 0.5) = -0.878 with a step.
                let at_guard = (cosine + 0.5f64.cos()).abs() < 0.01;
                assert!(at_guard || (slope - numeric).abs() < 1e-5, "{margin:?} at {cosine}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_give_finite_slopes() {
        for margin in [EXACT, STRAIGHT, Margin::Combined { m1: 1.5, m2: 0.5, m3: 0.2 }] {
            for cosine in [-1.0, 1.0] {
                let Target { value, slope } = margin.target(0, cosine);
                assert!(value.is_finite() && slope.is_finite(), "{margin:?} at {cosine}");
            }
        }
    }
}
