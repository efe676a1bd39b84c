//! Random numbers that are a function of where they are used: no state, no order of drawing.

use pfc_random::GOLDEN_GAMMA;
pub use pfc_random::mix as scramble;

/// A key for `purpose` at `index`; keys of different seeds, purposes or indices are unrelated.
#[inline(always)]
pub fn key(seed: u64, purpose: Purpose, index: u64) -> u64 {
    // Each round makes its input count in all bits before the next is added.
    let seeded = scramble(seed.wrapping_add(GOLDEN_GAMMA));
    let purposed = scramble(seeded.wrapping_add(purpose as u64));
    scramble(purposed.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA)))
}

/// What a key is for, so that no two uses share one.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// The initial centre of the class with this index.
    InitialCentre = 1,
    /// The rows sampled in the step with this index.
    Sample = 2,
    /// The rounding of rows in the step with this index.
    Rounding = 3,
}

/// Pairs of draws that are computed side by side, in the lanes of vectors.
const PAIRS: usize = 16;

/// Fills `row` with independent draws from Normal(0, `deviation`²), a function of `key` alone.
///
/// Box-Muller on the halves of one 64-bit draw per pair. Only IEEE additions, products, quotients
/// and square roots are used, so every machine gets the same bits. No value is further from 0 than
/// 5.9 deviations, which 24 bits can express.
#[inline(always)]
pub fn fill_normal(key: u64, deviation: f32, row: &mut [f32]) {
    let mut blocks = row.chunks_exact_mut(2 * PAIRS);
    let mut first_pair = 1;
    for block in &mut blocks {
        block.copy_from_slice(&normal_pairs(key, first_pair, deviation));
        first_pair += PAIRS as u64;
    }
    let rest = blocks.into_remainder();
    if !rest.is_empty() {
        let n_rest = rest.len();
        rest.copy_from_slice(&normal_pairs(key, first_pair, deviation)[..n_rest]);
    }
}

/// Normal draws from 24-bit uniform ones, two each of a length and an angle.
///
/// In loops of one kind of operation each, which compilers turn into vectors; all in one loop was a
/// third as fast.
#[inline(always)]
fn normal_pairs(key: u64, first_pair: u64, deviation: f32) -> [f32; 2 * PAIRS] {
    let (mut length_bits, mut angle_bits) = ([0u32; PAIRS], [0u32; PAIRS]);
    for i in 0..PAIRS {
        let counter = (first_pair + i as u64).wrapping_mul(GOLDEN_GAMMA);
        let draw = scramble(key.wrapping_add(counter));
        (length_bits[i], angle_bits[i]) = ((draw >> 40) as u32, draw as u32 & 0xff_ffff);
    }
    let lengths = length_bits.map(|bits| {
        let uniform = (bits as f32 + 0.5) * (1.0 / 16_777_216.0);
        (-2.0 * ln(uniform)).sqrt() * deviation
    });
    let (mut even, mut odd) = ([0f32; PAIRS], [0f32; PAIRS]);
    for i in 0..PAIRS {
        let (sin, cos) = sin_cos(angle_bits[i]);
        (even[i], odd[i]) = (lengths[i] * cos, lengths[i] * sin);
    }
    let mut values = [0f32; 2 * PAIRS];
    for (i, pair) in values.as_chunks_mut().0.iter_mut().enumerate() {
        *pair = [even[i], odd[i]];
    }
    values
}

/// Natural logarithm of a normal `x` in `(0, 2]`, within 2e-7 relative or absolute.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)).
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let exponent = (shifted as i32) >> 23;
    let mantissa = f32::from_bits((shifted & 0x7f_ffff) + SQRT_HALF_BITS);
    // ln m = 2 artanh(s), whose series ends below f32's precision for |s| < 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let tail = s2 * (1.0 / 3.0 + s2 * (0.2 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * (s + s * tail)
}

const SQRT_HALF_BITS: u32 = 0x3f35_04f3;

/// Sine and cosine of an angle that runs once round the circle as `bits` runs over 24 bits.
#[inline(always)]
fn sin_cos(bits: u32) -> (f32, f32) {
    // The two high bits choose a quarter turn, the others an angle of at most an eighth.
    let part = (bits & 0x3f_ffff) as f32 * (1.0 / 4_194_304.0) - 0.5;
    let angle = part * std::f32::consts::FRAC_PI_2;
    let a2 = angle * angle;
    let sin = angle
        * (1.0 + a2 * (-1.0 / 6.0 + a2 * (1.0 / 120.0 + a2 * (-1.0 / 5040.0 + a2 / 362_880.0))));
    let cos = 1.0 + a2 * (-0.5 + a2 * (1.0 / 24.0 + a2 * (-1.0 / 720.0 + a2 * (1.0 / 40_320.0))));
    let quarter = bits >> 22 & 3;
    let (sin, cos) = if quarter & 1 == 1 { (cos, -sin) } else { (sin, cos) };
    if quarter & 2 == 2 { (-sin, -cos) } else { (sin, cos) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_exact_to_single_precision() {
        for i in 0..100_000u32 {
            let x = (i * 167 + 1) as f32 / 16_777_216.0;
            let expected = f64::from(x).ln();
            let error = (f64::from(ln(x)) - expected).abs();
            assert!(error <= 2e-7 * expected.abs().max(1.0), "ln {x}: {error}");
        }
    }

    #[test]
    fn the_angle_runs_round_the_circle_once() {
        for bits in (0..1u32 << 24).step_by(997) {
            let turn = f64::from(bits) / 16_777_216.0 * std::f64::consts::TAU;
            // Sines start at an eighth of a turn before the quarter they belong to.
            let (expected_sin, expected_cos) = (turn - std::f64::consts::FRAC_PI_4).sin_cos();
            let (sin, cos) = sin_cos(bits);
            assert!((f64::from(sin) - expected_sin).abs() < 2e-7, "{bits}");
            assert!((f64::from(cos) - expected_cos).abs() < 2e-7, "{bits}");
        }
    }

    #[test]
    fn the_draws_have_the_moments_of_a_normal_distribution() {
        let (rows, dim) = (400u64, 513);
        let mut row = vec![0.0; dim];
        let mut values = Vec::new();
        for class in 0..rows {
            fill_normal(key(3, Purpose::InitialCentre, class), 0.01, &mut row);
            values.extend(row.iter().map(|&v| f64::from(v) / 0.01));
        }
        let n = values.len() as f64;
        let moment = |power| values.iter().map(|v| v.powi(power)).sum::<f64>() / n;
        // Standard errors of the moments of n draws: sqrt(1, 2, 15, 96) / sqrt(n); five allowed.
        let bound = |variance: f64| 5.0 * (variance / n).sqrt();
        assert!(moment(1).abs() < bound(1.0));
        assert!((moment(2) - 1.0).abs() < bound(2.0));
        assert!(moment(3).abs() < bound(15.0));
        assert!((moment(4) - 3.0).abs() < bound(96.0));
        let within = values.iter().filter(|v| v.abs() < 1.0).count() as f64 / n;
        assert!((within - 0.682_689_5).abs() < bound(0.2166));
    }

    #[test]
    fn a_row_is_a_function_of_seed_and_class_alone() {
        let row_of = |seed, class| {
            let mut row = vec![0.0; 8];
            fill_normal(key(seed, Purpose::InitialCentre, class), 0.01, &mut row);
            row
        };
        assert_eq!(row_of(1, 5), row_of(1, 5));
        assert_ne!(row_of(1, 5), row_of(1, 6));
        assert_ne!(row_of(1, 5), row_of(2, 5));
        let sampling = key(1, Purpose::Sample, 5);
        assert_ne!(sampling, key(1, Purpose::InitialCentre, 5));
    }
}
