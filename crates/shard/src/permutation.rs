//! A permutation of any length that needs no table: a Feistel network with cycle walking.

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
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

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

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
