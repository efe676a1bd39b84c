//! `AdaFace` (arXiv 2204.00964): a margin that follows the length of the embedding, which follows the
//! quality of the image.

use std::f64::consts::PI;

use super::{Loss, Target};

/// Lengths beyond these are taken for these, as in the authors' code.
const NORM_LEAST: f64 = 1e-3;
const NORM_MOST: f64 = 100.0;
/// The margined angle keeps this distance from 0 and pi.
const ANGLE_LEAST: f64 = 1e-3;
/// What the running mean and deviation of the lengths begin with, as in the authors' code.
const FIRST_MEAN: f64 = 20.0;
const FIRST_DEVIATION: f64 = 100.0;

/// `s * (cos(theta - m*q) - (m + m*q))` with q the length of the embedding, standardised over the
/// batches so far, times h, cut to `[-1, 1]`.
///
/// The lengths are taken over the global batch, so that the ranks do not matter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adaface {
    m: f64,
    h: f64,
    /// Weight of the newest batch in mean and deviation.
    alpha: f64,
    mean: f64,
    deviation: f64,
    /// q of each sample of the step.
    quality_g: Vec<f64>,
}

impl Adaface {
    pub fn new(m: f64, h: f64, alpha: f64) -> Adaface {
        let (mean, deviation) = (FIRST_MEAN, FIRST_DEVIATION);
        Adaface { m, h, alpha, mean, deviation, quality_g: Vec::new() }
    }
}

impl Loss for Adaface {
    fn see_lengths(&mut self, lengths_g: &[f64]) {
        let norms: Vec<f64> = lengths_g.iter().map(|n| n.clamp(NORM_LEAST, NORM_MOST)).collect();
        let n = norms.len() as f64;
        let mean = norms.iter().sum::<f64>() / n;
        self.mean += self.alpha * (mean - self.mean);
        if norms.len() > 1 {
            let squares = norms.iter().map(|norm| (norm - mean).powi(2)).sum::<f64>();
            let deviation = (squares / (n - 1.0)).sqrt();
            self.deviation += self.alpha * (deviation - self.deviation);
        }
        let quality = |norm: &f64| {
            ((norm - self.mean) / (self.deviation + ANGLE_LEAST) * self.h).clamp(-1.0, 1.0)
        };
        self.quality_g = norms.iter().map(quality).collect();
    }

    fn target(&self, sample: usize, cosine: f64) -> Target {
        target_of_quality(self.m, self.quality_g.get(sample).copied().unwrap_or(0.0), cosine)
    }

    fn memory(&self) -> Vec<f64> {
        vec![self.mean, self.deviation]
    }

    fn remember(&mut self, memory: &[f64]) {
        if let &[mean, deviation] = memory {
            (self.mean, self.deviation) = (mean, deviation);
        }
    }
}

/// The target of an image of quality q; of average quality, 0, it is CosFace's.
fn target_of_quality(m: f64, quality: f64, cosine: f64) -> Target {
    let theta = cosine.acos();
    let margined = theta - m * quality;
    let angle = margined.clamp(ANGLE_LEAST, PI - ANGLE_LEAST);
    // Cut off, the angle no longer depends on the cosine.
    let slope = if angle == margined { angle.sin() / theta.sin().max(ANGLE_LEAST) } else { 0.0 };
    Target::new(angle.cos() - (m + m * quality), slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On paper: with alpha 1, mean 2 and deviation 1 of (1, 2, 3), h 0.5 and 0.001 to divide by
    /// safely, q = 0.5·(-1, 0, 1)/1.001.
    #[test]
    fn margins_follow_the_lengths() {
        let mut loss = Adaface::new(0.4, 0.5, 1.0);
        loss.see_lengths(&[1.0, 2.0, 3.0]);
        let q = 0.5 / 1.001;
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        let theta = PI / 3.0;
        near(loss.target(0, 0.5).value, (theta + 0.4 * q).cos() - 0.4 * (1.0 - q));
        near(loss.target(1, 0.5).value, 0.5 - 0.4);
        near(loss.target(1, 0.5).slope, 1.0);
        near(loss.target(2, 0.5).value, (theta - 0.4 * q).cos() - 0.4 * (1.0 + q));
        near(loss.target(2, 0.5).slope, (theta - 0.4 * q).sin() / theta.sin());
    }

    #[test]
    fn mean_and_deviation_run_over_the_batches_and_can_be_carried_on() {
        let mut loss = Adaface::new(0.4, 0.333, 0.01);
        loss.see_lengths(&[10.0, 30.0]);
        let memory = loss.memory();
        assert!((memory[0] - 20.0).abs() < 1e-12, "{memory:?}");
        assert!((memory[1] - (99.0 + 0.01 * 200f64.sqrt())).abs() < 1e-12, "{memory:?}");
        let mut other = Adaface::new(0.4, 0.333, 0.01);
        other.remember(&memory);
        loss.see_lengths(&[5.0]);
        other.see_lengths(&[5.0]);
        assert_eq!(loss, other);
    }

    #[test]
    fn the_slope_is_the_derivative() {
        for quality in [-1.0, -0.3, 0.0, 0.7, 1.0] {
            for i in -95..=95 {
                let (cosine, h) = (f64::from(i) / 100.0, 1e-6);
                let value = |c| target_of_quality(0.4, quality, c).value;
                let numeric = (value(cosine + h) - value(cosine - h)) / (2.0 * h);
                let theta = cosine.acos() - 0.4 * quality;
                let near_end = (theta - ANGLE_LEAST).abs().min((theta - PI + ANGLE_LEAST).abs());
                let slope = target_of_quality(0.4, quality, cosine).slope;
                assert!(near_end < 1e-3 || (slope - numeric).abs() < 1e-4, "{quality} {cosine}");
            }
        }
    }
}
