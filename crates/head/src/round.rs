//! Stochastic rounding to bf16: up or down at random, right on average.

use half::bf16;

/// Writes each value as one of the two bf16 numbers around it, the nearer one more often, so that
/// the mean over keys is the value itself. Numbers that bf16 holds, and infinities, stay as they are;
/// a NaN stays one.
///
/// 16 random bits, a function of `key` and the position alone, are added below the bits that bf16
/// keeps; a carry rounds up.
#[inline(always)]
pub(super) fn stochastic(values: &[f32], key: u64, out: &mut [bf16]) {
    let (low, high) = (key as u32, (key >> 32) as u32);
    for (i, (out, value)) in out.iter_mut().zip(values).enumerate() {
        *out = bf16::from_bits(rounded(value.to_bits(), random_bits(i as u32, low, high)));
    }
}

#[inline(always)]
fn rounded(bits: u32, random: u32) -> u16 {
    const EXPONENT: u32 = 0x7f80_0000;
    let moved = (bits.wrapping_add(random)) >> 16;
    // Nothing may carry out of a NaN, whose quiet bit is set instead.
    let is_nan = bits & 0x7fff_ffff > EXPONENT;
    (if is_nan { bits >> 16 | 0x40 } else { moved }) as u16
}

/// 16 bits from two rounds of multiply and xor-shift: 32-bit steps, which every vector unit has.
#[inline(always)]
fn random_bits(position: u32, low: u32, high: u32) -> u32 {
    let mut x = low.wrapping_add(position.wrapping_mul(0x9e37_79b9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15) ^ high).wrapping_mul(0x846c_a68b);
    (x ^ (x >> 16)) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::scramble;

    fn round(value: f32, key: u64) -> f32 {
        let mut out = [bf16::ZERO; 40];
        stochastic(&[value; 40], key, &mut out);
        // A position of its own for each key.
        out[(key % 40) as usize].to_f32()
    }

    #[test]
    fn rounding_is_unbiased() {
        // A third, and a twentieth, of the way from one bf16 number to the next; and a negative one.
        for value in [1.0 + 1.0 / 384.0, 0.01 * (1.0 + 1.0 / 2560.0), -3.0e-5f32] {
            let n = 200_000u64;
            let draws: Vec<f64> =
                (0..n).map(|key| f64::from(round(value, scramble(key)))).collect();
            let mean = draws.iter().sum::<f64>() / n as f64;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors of the mean.
            let bound = 5.0 * (variance / n as f64).sqrt();
            assert!(variance > 0.0 && (mean - f64::from(value)).abs() < bound, "{value}: {mean}");
        }
    }

    #[test]
    fn one_key_rounds_neighbouring_elements_independently() {
        let value = 1.0 + 1.0 / 256.0; // half way
        let (mut both, mut ups, n) = (0.0, 0.0, 2000);
        for key in 0..n {
            let mut out = [bf16::ZERO; 64];
            stochastic(&[value; 64], scramble(key), &mut out);
            let up = out.map(|o| f64::from(u8::from(o > bf16::ONE)));
            ups += up.iter().sum::<f64>() / 64.0;
            both += up.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / 63.0;
        }
        // Standard errors: 0.5 / sqrt(128,000) and about 0.43 / sqrt(126,000).
        assert!((ups / n as f64 - 0.5).abs() < 0.007, "{ups}");
        assert!((both / n as f64 - 0.25).abs() < 0.007, "{both}");
    }

    #[test]
    fn small_steps_add_up_where_rounding_to_the_nearest_would_lose_them() {
        let (mut stochastic_sum, mut nearest_sum) = (1.0f32, 1.0f32);
        for step in 0..4000 {
            stochastic_sum = round(stochastic_sum + 1e-3, scramble(step));
            nearest_sum = bf16::from_f32(nearest_sum + 1e-3).to_f32();
        }
        assert_eq!(nearest_sum, 1.0);
        // 5 on average; the variance of a step is at most ulp^2 / 4 with an ulp of 1/32 at 5.
        assert!((stochastic_sum - 5.0).abs() < 1.0, "{stochastic_sum}");
    }

    #[test]
    fn exact_numbers_infinities_and_nans_stay() {
        for value in [0.0, -0.0, 1.5, -96.0, f32::INFINITY, f32::NEG_INFINITY] {
            assert!((0..100).all(|key| round(value, scramble(key)) == value), "{value}");
        }
        for bits in [0x7fff_ffffu32, 0xffff_ffff, 0x7f80_0001] {
            assert!((0..100).all(|key| round(f32::from_bits(bits), scramble(key)).is_nan()));
        }
    }
}
