//! Smooth noise over the plane, the same on every machine.
//!
//! Only `+ - * /` and shifts are used, which IEEE 754 rounds the same everywhere; the functions of a
//! platform's maths library are not.

use pfc_random::{GOLDEN_GAMMA, mix};

/// Smooth noise over the plane in `[0, 1)`: random values on the integer grid, blended between.
pub fn noise(key: u64, x: f32, y: f32) -> f32 {
    let (ix, iy) = (floor(x), floor(y));
    let (fx, fy) = (smooth(x - ix as f32), smooth(y - iy as f32));
    let upper = blend(grid(key, ix, iy), grid(key, ix + 1, iy), fx);
    let lower = blend(grid(key, ix, iy + 1), grid(key, ix + 1, iy + 1), fx);
    blend(upper, lower, fy)
}

/// The value in `[0, 1)` of one grid point.
pub fn grid(key: u64, x: i32, y: i32) -> f32 {
    let point = (u64::from(x as u32) << 32) | u64::from(y as u32);
    (mix(key ^ point.wrapping_mul(GOLDEN_GAMMA)) >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// A quarter of the time of `f32::floor` where the target has no instruction for it.
fn floor(x: f32) -> i32 {
    let towards_zero = x as i32;
    towards_zero - i32::from(towards_zero as f32 > x)
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn blend(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_equals_the_grid_on_the_grid() {
        assert_eq!(noise(5, 3.0, -2.0), grid(5, 3, -2));
    }
}
