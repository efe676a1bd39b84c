//! Random numbers that depend on a key alone, never on the order in which they are asked for.
//!
//! Only `+ - * /`, shifts and `sqrt` are used, which IEEE 754 rounds the same everywhere; the
//! functions of a platform's maths library are not.

/// The odd constant of a Weyl sequence: 2^64 divided by the golden ratio.
pub const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scrambles 64 bits one to one (the finaliser of `SplitMix64`, Steele et al. 2014).
// Callers run it in loops that are compiled for several instruction sets.
#[inline(always)]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One 64-bit key out of several words; their order matters.
pub fn key(words: &[u64]) -> u64 {
    words.iter().fold(GOLDEN_GAMMA, |key, word| mix(key ^ mix(word.wrapping_add(GOLDEN_GAMMA))))
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
        mix(self.key.wrapping_add(self.count.wrapping_mul(GOLDEN_GAMMA)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finaliser_matches_the_published_sequence_of_seed_zero() {
        // First outputs of SplitMix64 seeded with 0, as listed with its reference code.
        assert_eq!(mix(GOLDEN_GAMMA), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(GOLDEN_GAMMA.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
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
}
