//! Colours as three numbers, black 0 to white 1, in the space that JPEG stores.

use std::ops::{Add, Mul};

/// Red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colour {
    pub red: f32,
    pub green: f32,
    pub blue: f32,
}

impl Colour {
    pub const fn new(red: f32, green: f32, blue: f32) -> Colour {
        Colour { red, green, blue }
    }

    pub const fn grey(value: f32) -> Colour {
        Colour::new(value, value, value)
    }

    /// `self` at 0, `other` at 1.
    pub fn towards(self, other: Colour, share: f32) -> Colour {
        self * (1.0 - share) + other * share
    }

    /// Along a row of colours: the first at 0, the last at 1, blended between.
    pub fn along(row: &[Colour], position: f32) -> Colour {
        let last = row.len() - 1;
        let scaled = position.clamp(0.0, 1.0) * last as f32;
        let left = (scaled as usize).min(last.saturating_sub(1));
        row[left].towards(row[(left + 1).min(last)], scaled - left as f32)
    }

    /// Brightness as the eye weighs it (ITU-R BT.601).
    pub fn luma(self) -> f32 {
        0.299 * self.red + 0.587 * self.green + 0.114 * self.blue
    }
}

impl Add for Colour {
    type Output = Colour;
    fn add(self, other: Colour) -> Colour {
        Colour::new(self.red + other.red, self.green + other.green, self.blue + other.blue)
    }
}

impl Mul<f32> for Colour {
    type Output = Colour;
    fn mul(self, factor: f32) -> Colour {
        Colour::new(self.red * factor, self.green * factor, self.blue * factor)
    }
}

/// How much of a pixel lies inside an edge, from its distance in pixels (inside is negative).
pub fn inside(distance_px: f32) -> f32 {
    (0.5 - distance_px).clamp(0.0, 1.0)
}

/// As [`inside`], for an edge that fades over `width_px`.
pub fn inside_soft(distance_px: f32, width_px: f32) -> f32 {
    let t = (0.5 - distance_px / width_px).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A smooth hill of height 1 at the origin that ends on the ellipse of radii `rx`, `ry`.
pub fn hill(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let (x, y) = (x / rx, y / ry);
    let t = (1.0 - x * x - y * y).max(0.0);
    t * t
}

/// Roughly the distance to an ellipse's edge, negative inside; good near the edge.
pub fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let (u, v) = (x / rx, y / ry);
    ((u * u + v * v).sqrt() - 1.0) * rx.min(ry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_colours_starts_at_its_first_and_ends_at_its_last() {
        let row = [Colour::grey(0.0), Colour::grey(0.5), Colour::grey(0.75)];
        assert_eq!(Colour::along(&row, 0.0), row[0]);
        assert_eq!(Colour::along(&row, 0.25), Colour::grey(0.25));
        assert_eq!(Colour::along(&row, 1.0), row[2]);
        assert_eq!(Colour::along(&row[..1], 0.7), row[0]);
    }

    #[test]
    fn an_edge_covers_half_a_pixel() {
        assert_eq!(inside(0.0), 0.5);
        assert_eq!(inside(-1.0), 1.0);
        assert_eq!(ellipse(3.0, 0.0, 3.0, 9.0), 0.0);
    }
}
