//! What becomes of the cosines of a row's negatives.

// G = global batch.

/// Stands in the place of a positive's cosine, which has no part in the negatives' sum.
pub(super) const OWN: f32 = 2.0;

/// Turns the cosines of one row into slopes, and adds what the negatives add to the samples' sums.
///
/// A filtered negative stays in the sum as cosine 0 and passes nothing back.
#[inline(always)]
pub(super) fn exponentials(
    slopes_g: &mut [f32],
    (scale, filter): (f32, f32),
    offsets_g: Option<&[f32]>,
    sums_g: &mut [f32],
) {
    let one = |slope: &mut f32, offset: f32, sum: &mut f32| {
        let cosine = *slope;
        let is_noise = cosine > filter;
        let clamped = if is_noise { 0.0 } else { cosine.clamp(-1.0, 1.0) };
        let value = exp(scale * clamped - offset);
        let value = if cosine == OWN { 0.0 } else { value };
        *sum += value;
        *slope = if is_noise { 0.0 } else { value };
    };
    match offsets_g {
        None => slopes_g.iter_mut().zip(sums_g).for_each(|(slope, sum)| one(slope, 0.0, sum)),
        Some(offsets_g) => {
            let samples = slopes_g.iter_mut().zip(offsets_g).zip(sums_g);
            samples.for_each(|((slope, offset), sum)| one(slope, *offset, sum));
        }
    }
}

/// `e^x` within 3e-7 relative for x from -87 to 88, and of the nearer end beyond; without a branch, so that
/// it is done in vectors. A NaN stays one.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: a number added to it is rounded to a whole one, which is then in its last bits.
    const ROUNDING: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of which has few digits, so that its products are exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDING;
    let n = shifted - ROUNDING;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // The series up to r^7 / 7!, whose rest is 5e-9 for |r| < 0.35.
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0)));
    let value = 1.0 + (r + r * r * (0.5 + r * tail));
    value * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_f64() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "{x}: {found:e} {expected:e}");
        }
        assert!(exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) < 1.7e-38);
    }
}
