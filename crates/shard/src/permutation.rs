//! A permutation of any length that needs no table: a Feistel network with cycle walking.

use pfc_random::{GOLDEN_GAMMA, mix};

/// A bijection on `0..len`, chosen by a 64-bit key. 80 bytes, whatever `len` is.
///
/// # Definition
///
/// All arithmetic is on `u64` and wraps. `mix(x)` is the finaliser of SplitMix64 (variant 13 of
/// Stafford's mixers): `x ^= x >> 30; x *= 0xbf58476d1ce4e5b9; x ^= x >> 27;
/// x *= 0x94d049bb133111eb; x ^= x >> 31`. Round key `i` of 8 is
/// `mix(key + (i + 1) · 0x9e3779b97f4a7c15)`.
///
/// Numbers below `2^b`, with `b` the least number of bits that holds `len - 1`, are cut into
/// `right`, the low `⌈b/2⌉` bits, and `left`, the rest. Rounds 0, 2, 4, 6 do
/// `left ^= mix(right + key_i)` and rounds 1, 3, 5, 7 `right ^= mix(left + key_i)`, each cut to the
/// bits of its half. A result outside `0..len` goes through again; as `len > 2^(b-1)`, that takes
/// fewer than two turns on average.
///
/// The definition is part of format 1: a change would change the order of every resumed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    keys: [u64; ROUNDS],
    right_bits: u32,
    left_bits: u32,
}

const ROUNDS: usize = 8;

impl Permutation {
    /// The permutation of `0..len` with the given key; every `len` is valid.
    pub fn new(len: u64, key: u64) -> Permutation {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let right_bits = bits.div_ceil(2);
        let keys = std::array::from_fn(|i| {
            mix(key.wrapping_add((i as u64 + 1).wrapping_mul(GOLDEN_GAMMA)))
        });
        Permutation { len, keys, right_bits, left_bits: bits - right_bits }
    }

    /// Number of values permuted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to permute.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `i` goes.
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Permutation::len).
    pub fn apply(&self, i: u64) -> u64 {
        self.walk(i, Permutation::encrypt)
    }

    /// Where `i` comes from: `invert(apply(i)) == i`.
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Permutation::len).
    pub fn invert(&self, i: u64) -> u64 {
        self.walk(i, Permutation::decrypt)
    }

    /// Repeats `turn` until the value is back in range; it returns, since `turn` is a bijection on a
    /// finite set and `i` itself, which is in range, is on the cycle.
    fn walk(&self, i: u64, turn: impl Fn(&Permutation, u64) -> u64) -> u64 {
        assert!(i < self.len, "{i} is not below {}", self.len);
        let mut value = turn(self, i);
        while value >= self.len {
            value = turn(self, value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for keys in self.keys.chunks_exact(2) {
            left ^= self.left_mask() & mix(right.wrapping_add(keys[0]));
            right ^= self.right_mask() & mix(left.wrapping_add(keys[1]));
        }
        self.join(left, right)
    }

    fn decrypt(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.split(value);
        for keys in self.keys.chunks_exact(2).rev() {
            right ^= self.right_mask() & mix(left.wrapping_add(keys[1]));
            left ^= self.left_mask() & mix(right.wrapping_add(keys[0]));
        }
        self.join(left, right)
    }

    fn split(&self, value: u64) -> (u64, u64) {
        (value >> self.right_bits, value & self.right_mask())
    }

    fn join(&self, left: u64, right: u64) -> u64 {
        left << self.right_bits | right
    }

    /// Halves have at most 32 bits, so the shifts cannot overflow.
    fn right_mask(&self) -> u64 {
        (1 << self.right_bits) - 1
    }

    fn left_mask(&self) -> u64 {
        (1 << self.left_bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_bijection(len: u64, key: u64) {
        let permutation = Permutation::new(len, key);
        let mut seen = vec![false; len as usize];
        for i in 0..len {
            let value = permutation.apply(i);
            assert!(
                !std::mem::replace(&mut seen[value as usize], true),
                "{value} twice, len {len}"
            );
            assert_eq!(permutation.invert(value), i, "len {len}");
        }
    }

    #[test]
    fn it_is_a_bijection_for_every_length_to_300() {
        (0..300).for_each(|len| (0..3).for_each(|key| check_bijection(len, key)));
    }

    #[test]
    fn it_is_a_bijection_around_powers_of_two_and_for_primes() {
        for bits in 9..17 {
            (-1..=1).for_each(|d| check_bijection((1u64 << bits).wrapping_add_signed(d), 7));
        }
        [997, 7_919, 65_537, 104_729].into_iter().for_each(|prime| check_bijection(prime, 8));
    }

    #[test]
    fn it_gives_the_answers_of_the_python_definition() {
        let vectors = include_str!("../tests/vectors/permutation.tsv").lines().skip(1);
        for line in vectors {
            let v: Vec<u64> = line.split('\t').map(|n| n.parse().unwrap()).collect();
            assert_eq!(Permutation::new(v[0], v[1]).apply(v[2]), v[3], "{line}");
        }
    }

    #[test]
    fn every_order_of_three_comes_up_about_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        for key in 0..6_000 {
            let p = Permutation::new(3, key);
            *counts.entry([p.apply(0), p.apply(1), p.apply(2)]).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // 1000 expected each, standard deviation 29: six of them is never left by chance.
        assert!(counts.values().all(|n| (826..=1_174).contains(n)), "{counts:?}");
    }

    /// Pearson's statistic over a table of where the first, second, ... tenth of the input goes.
    #[test]
    fn inputs_spread_evenly_over_the_range() {
        let len = 100_003;
        let permutation = Permutation::new(len, 99);
        let cell = |i: u64| (i * 10 / len) as usize;
        let mut table = [[0u32; 10]; 10];
        (0..len).for_each(|i| table[cell(i)][cell(permutation.apply(i))] += 1);
        let expected = len as f64 / 100.0;
        let squares = table.iter().flatten().map(|&n| (f64::from(n) - expected).powi(2));
        let chi_squared: f64 = squares.sum::<f64>() / expected;
        // 81 degrees of freedom: mean 81, standard deviation 12.7. Far below would be too regular.
        assert!((30.0..150.0).contains(&chi_squared), "{chi_squared}");
    }

    #[test]
    fn neighbours_do_not_stay_neighbours() {
        let len = 1 << 20;
        let permutation = Permutation::new(len, 5);
        let step = |i| permutation.apply(i).abs_diff(permutation.apply(i + 1));
        let near = (0..100_000).filter(|&i| step(i) <= 10).count();
        // Probability 20 / 2^20 each: two of 100,000 are expected.
        assert!(near < 15, "{near}");
    }

    #[test]
    fn keys_that_differ_in_one_bit_give_unrelated_orders() {
        let len = 10_007;
        for bit in 0..64 {
            let (a, b) = (Permutation::new(len, 0), Permutation::new(len, 1 << bit));
            let fixed = (0..len).filter(|&i| a.apply(i) == b.apply(i)).count();
            // One is expected of two random orders; Poisson with mean 1 exceeds 10 once in 10^8.
            assert!(fixed <= 10, "bit {bit}: {fixed}");
        }
    }

    proptest! {
        #[test]
        fn invert_undoes_apply_at_any_length(len in 1u64.., key: u64, i: u64) {
            let i = i % len;
            let permutation = Permutation::new(len, key);
            prop_assert!(permutation.apply(i) < len);
            prop_assert_eq!(permutation.invert(permutation.apply(i)), i);
            prop_assert_eq!(permutation.apply(permutation.invert(i)), i);
        }
    }
}
