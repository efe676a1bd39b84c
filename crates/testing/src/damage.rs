//! Copies of sound bytes with something wrong in them, for whoever reads foreign bytes.

/// Bytes that readers of text or of binary files take for something of their own.
const BYTES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'\t', b' ', b',', b'"', b'9'];
/// What lengths and places are replaced by.
const WORDS: [[u8; 4]; 6] = [
    [0; 4],
    [0xff; 4],
    [0xff, 0xff, 0xff, 0x7f],
    [0x7f, 0xff, 0xff, 0xff],
    [0, 0, 0, 0x80],
    [1, 0, 0, 0],
];
/// Changes of one copy at most.
const CHANGES_MAX: usize = 6;

/// `n` copies of `seed`, in each of which one place or a few are changed, doubled or left out, or whose end is missing.
/// They are the same on every run. The first is the seed itself, and the second is empty.
pub fn damaged(seed: &[u8], n: usize) -> impl Iterator<Item = Vec<u8>> {
    let whole = [seed.to_vec(), Vec::new()];
    whole.into_iter().chain((0..n).map(move |copy| changed(seed, copy as u64))).take(n)
}

fn changed(seed: &[u8], copy: u64) -> Vec<u8> {
    let mut draw = Draw(copy.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.len() as u64);
    let mut bytes = seed.to_vec();
    for _ in 0..1 + draw.below(CHANGES_MAX) {
        change(&mut bytes, &mut draw);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, draw: &mut Draw) {
    if bytes.is_empty() {
        return;
    }
    let at = draw.below(bytes.len());
    let rest = bytes.len() - at;
    match draw.below(8) {
        0 => bytes[at] ^= 1 << draw.below(8),
        1 => bytes[at] = BYTES[draw.below(BYTES.len())],
        2 => bytes[at] = bytes[at].wrapping_add([1, 0xff][draw.below(2)]),
        3 => drop(bytes.remove(at)),
        4 => {
            let byte = bytes[at];
            bytes.insert(at, byte);
        }
        5 => {
            let n = rest.min(WORDS[0].len());
            bytes[at..at + n].copy_from_slice(&WORDS[draw.below(WORDS.len())][..n]);
        }
        6 => {
            // A stretch of another place.
            let from = draw.below(bytes.len());
            let n = (1 + draw.below(32)).min(rest).min(bytes.len() - from);
            bytes.copy_within(from..from + n, at);
        }
        _ => bytes.truncate(at),
    }
}

/// SplitMix64 (Steele et al. 2014).
struct Draw(u64);

impl Draw {
    /// From 0 up to `n`, which is above 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_differ_from_the_seed_and_each_other_and_are_the_same_again() {
        let seed: Vec<u8> = (0..200).collect();
        let copies: Vec<Vec<u8>> = damaged(&seed, 300).collect();
        assert_eq!(copies.len(), 300);
        assert_eq!((&copies[0], copies[1].len()), (&seed, 0));
        assert!(copies.iter().eq(damaged(&seed, 300).collect::<Vec<_>>().iter()));
        let others: std::collections::HashSet<&Vec<u8>> = copies[2..].iter().collect();
        assert!(others.len() > 250, "{}", others.len());
        assert!(copies.iter().any(|copy| copy.len() > seed.len()));
        assert_eq!(damaged(&[], 5).map(|copy| copy.len()).max(), Some(0));
    }
}
