//! Random numbers that depend on a key alone, never on the order in which they are asked for.
//!
//! Only `+ - * /`, shifts and `sqrt` are used, which IEEE 754 rounds the same everywhere; the
//! functions of a platform's maths library are not.

/// The odd constant of a Weyl sequence: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scrambles 64 bits one to one (the finaliser of `SplitMix64`, Steele et al. 2014).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One 64-bit key out of several words; their order matters.
pub fn key(words: &[u64]) -> u64 {
    words.iter().fold(GOLDEN, |key, word| mix(key ^ mix(word.wrapping_add(GOLDEN))))
}

/// An endless sequence of numbers under one key.
#[derive(Debug, Clone)]
pub struct Stream {
    key: u64,
    count: u64,
}

impl Stream {
    /// The sequence that belongs to `words`.
    pub fn new(words: &[u64]) -> Stream {
        Stream { key: key(words), count: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.count += 1;
        mix(self.key.wrapping_add(self.count.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Mean 0, variance 1, within ±3.47: the sum of four uniform numbers.
    pub fn normal(&mut self) -> f32 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.0) * 1.732_050_8
    }

    /// True with probability `share`.
    pub fn chance(&mut self, share: f32) -> bool {
        self.unit() < share
    }

    /// Uniform in `0..n`; `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }
}

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
    (mix(key ^ point.wrapping_mul(GOLDEN)) >> 40) as f32 * (1.0 / 16_777_216.0)
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
    fn the_finaliser_matches_the_published_sequence_of_seed_zero() {
        // First outputs of SplitMix64 seeded with 0, as listed with its reference code.
        assert_eq!(mix(GOLDEN), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(GOLDEN.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_key_depends_on_the_order_of_its_words() {
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
        assert_ne!(key(&[0]), key(&[0, 0]));
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut stream = Stream::new(&[7]);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&stream.unit()));
            assert!(stream.below(3) < 3);
            assert!(stream.normal().abs() < 3.5);
        }
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut stream = Stream::new(&[1]);
        let values: Vec<f64> = (0..40_000).map(|_| f64::from(stream.normal())).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        // Five standard errors of each estimate at 40,000 samples.
        assert!(mean.abs() < 0.025, "{mean}");
        assert!((variance - 1.0).abs() < 0.035, "{variance}");
    }

    #[test]
    fn noise_equals_the_grid_on_the_grid() {
        assert_eq!(noise(5, 3.0, -2.0), grid(5, 3, -2));
    }
}
