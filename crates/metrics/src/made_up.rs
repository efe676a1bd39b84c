//! Numbers for tests that look random and are always the same.

/// 31 bits of a hash of `i`.
pub fn hashed(i: u64) -> u64 {
    (i ^ 0x5555).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

/// Number `i` of a sequence between -1 and 1.
pub fn value(i: u64) -> f32 {
    (hashed(i) % 2001) as f32 / 1000.0 - 1.0
}

/// `n` numbers of that sequence from `start` on.
pub fn values(start: u64, n: usize) -> Vec<f32> {
    (start..start + n as u64).map(value).collect()
}
