//! `MagFace` (arXiv 2103.06627): a margin that grows with the length of the embedding, and a penalty that
//! pulls this length up, so that it comes to measure the quality of the image.

use std::f64::consts::PI;

use pfc_rows::margin::of_angle;

use super::{Loss, Target};

/// `psi = cos(theta + m(a))`, guarded past pi as in ArcFace, with `a` the length of the embedding cut to
/// `[l_a, u_a]` and `m(a)` linear from `l_margin` at `l_a` to `u_margin` at `u_a`; and
/// `lambda_g * (a / u_a^2 + 1 / a)` for every embedding.
///
/// The gradient flows through `a` where the length is not cut off, as in the authors' code.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Magface {
    /// Smallest and largest margin, in radians.
    margin: (f64, f64),
    /// Shortest and longest length that counts as itself.
    length: (f64, f64),
    lambda_g: f64,
    /// The length of each sample of the step.
    lengths_g: Vec<f64>,
}

impl Magface {
    pub fn new(margin: (f64, f64), length: (f64, f64), lambda_g: f64) -> Magface {
        Magface { margin, length, lambda_g, lengths_g: Vec::new() }
    }

    /// The length that counts, and its derivative by the length.
    fn cut(&self, length: f64) -> (f64, f64) {
        let (least, most) = self.length;
        let is_within = (least..=most).contains(&length);
        (length.clamp(least, most), f64::from(u8::from(is_within)))
    }
}

impl Loss for Magface {
    fn see_lengths(&mut self, lengths_g: &[f64]) {
        self.lengths_g = lengths_g.to_vec();
    }

    fn target(&self, sample: usize, cosine: f64) -> Target {
        let ((l_margin, u_margin), (l_a, u_a)) = (self.margin, self.length);
        let length = self.lengths_g.get(sample).copied().unwrap_or(l_a);
        let (a, by_length) = self.cut(length);
        let rise = (u_margin - l_margin) / (u_a - l_a);
        let m = l_margin + rise * (a - l_a);
        let (margined, by_margin) = if cosine.acos() + m > PI {
            (Target::new(cosine - m * m.sin(), 1.0), -(m.sin() + m * m.cos()))
        } else {
            (of_angle(cosine, 1.0, m), -(cosine.acos() + m).sin())
        };
        Target { by_length: by_margin * rise * by_length, ..margined }
    }

    fn moves_lengths(&self) -> bool {
        true
    }

    fn length_penalty(&self, length: f64) -> (f64, f64) {
        let (a, by_length) = self.cut(length);
        let squared = self.length.1.powi(2);
        let value = a / squared + 1.0 / a;
        let slope = (1.0 / squared - 1.0 / a.powi(2)) * by_length;
        (self.lambda_g * value, self.lambda_g * slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_falls_to_the_upper_length_and_rests_beyond_the_ends() {
        let loss = Magface::new((0.45, 0.8), (10.0, 110.0), 2.0);
        // At 20: 2 * (20 / 12100 + 1/20), slope 2 * (1 / 12100 - 1/400).
        let (value, slope) = loss.length_penalty(20.0);
        assert!((value - 2.0 * (20.0 / 12100.0 + 0.05)).abs() < 1e-12);
        assert!((slope - 2.0 * (1.0 / 12100.0 - 1.0 / 400.0)).abs() < 1e-12);
        assert_eq!(loss.length_penalty(5.0).1, 0.0);
        assert_eq!(loss.length_penalty(5.0), loss.length_penalty(2.0));
        let (_, at_the_top) = loss.length_penalty(110.0);
        assert!(at_the_top.abs() < 1e-12, "{at_the_top}");
    }
}
