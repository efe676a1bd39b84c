//! How often each f32 value above a floor occurred.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Neighbouring f32 values that are stored together, 32 KiB of counts.
const PAGE: usize = 4096;

/// Values above this cannot be cosines, even rounded.
const VALUE_MAX: f32 = 1.01;

/// Exact counts of the values from a floor up to 1, for any number of occurrences.
///
/// Pages appear when first used: at most 64 MiB for each halving of the floor below 1, and far less
/// where values are sparse. A floor of zero or less is for small sets: the values around zero lie in
/// very many pages. Counting takes `&self` and any number of threads.
#[derive(Debug)]
pub struct KeyCounts {
    floor: f32,
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl KeyCounts {
    /// Nothing counted yet.
    ///
    /// `floor` is a number from -1 to 1; one outside is moved to the nearer end, NaN to -1.
    pub fn new(floor: f32) -> KeyCounts {
        let floor = if floor.is_nan() { -1.0 } else { floor.clamp(-1.0, 1.0) + 0.0 };
        let n_pages = (key(VALUE_MAX) - key(floor)) as usize / PAGE + 1;
        KeyCounts { floor, pages: (0..n_pages).map(|_| OnceLock::new()).collect() }
    }

    /// The lowest value that is counted.
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Counts those of `scores` that reach the floor; NaN does not.
    pub fn count(&self, scores: &[f32]) {
        const CHUNK: usize = 16;
        for chunk in scores.chunks(CHUNK) {
            if chunk.iter().fold(false, |any, score| any | (*score >= self.floor)) {
                chunk.iter().filter(|&&s| s >= self.floor).for_each(|&s| self.add(s, 1));
            }
        }
    }

    /// Adds `n` occurrences of `value`, which is at least the floor.
    pub fn add(&self, value: f32, n: u64) {
        // Zero has two encodings but is one value.
        let offset = (key(value.min(VALUE_MAX) + 0.0) - key(self.floor)) as usize;
        let page = self.pages[offset / PAGE]
            .get_or_init(|| (0..PAGE).map(|_| AtomicU64::new(0)).collect());
        page[offset % PAGE].fetch_add(n, Relaxed);
    }

    /// Values and how often each occurred, from high to low.
    pub fn iter(&self) -> impl Iterator<Item = (f32, u64)> + '_ {
        let pages = self.pages.iter().enumerate().rev();
        pages.filter_map(|(i, page)| Some((i, page.get()?))).flat_map(move |(i, page)| {
            let first = key(self.floor) + (i * PAGE) as u32;
            let counts = page.iter().enumerate().rev();
            counts
                .map(move |(j, n)| (value(first + j as u32), n.load(Relaxed)))
                .filter(|&(_, n)| n > 0)
        })
    }

    /// The values at rising `positions` (from 0) when the occurrences in all of `parts` are put in
    /// one row from high to low; fewer values than positions where the row ends before.
    ///
    /// All parts must have the same floor. One pass over the pages in use.
    pub fn nth_highest(parts: &[&KeyCounts], positions: &[u64]) -> Vec<f32> {
        let mut values = Vec::with_capacity(positions.len());
        let n_pages = parts.iter().map(|part| part.pages.len()).max().unwrap_or(0);
        let mut n_above = 0;
        for i in (0..n_pages).rev() {
            let pages: Vec<_> = parts.iter().filter_map(|part| part.pages.get(i)?.get()).collect();
            let at = |j: usize| pages.iter().map(|page| page[j].load(Relaxed)).sum::<u64>();
            let n_page: u64 = pages.iter().flat_map(|p| p.iter()).map(|n| n.load(Relaxed)).sum();
            let Some(&next) = positions.get(values.len()) else { break };
            if n_above + n_page <= next {
                n_above += n_page;
                continue;
            }
            for j in (0..PAGE).rev() {
                n_above += at(j);
                let value = value(key(parts[0].floor) + (i * PAGE + j) as u32);
                while positions.get(values.len()).is_some_and(|&position| position < n_above) {
                    values.push(value);
                }
            }
        }
        values
    }
}

/// Order-preserving code of an f32 that is no NaN.
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_sign_negative() { !bits } else { bits | 1 << 31 }
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 0 { !key } else { key & !(1 << 31) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_and_come_back() {
        let values = [-1.0, -0.25, -1e-30, 0.0, f32::MIN_POSITIVE, 0.3, 0.3f32.next_up(), 1.0];
        assert!(values.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert!(values.iter().all(|&v| value(key(v)) == v));
    }

    #[test]
    fn values_are_counted_exactly_and_only_from_the_floor() {
        let counts = KeyCounts::new(0.25);
        counts.count(&[0.25, 0.25f32.next_down(), 0.5, 0.5, 0.5f32.next_up(), f32::NAN, 1.0001]);
        let seen: Vec<_> = counts.iter().collect();
        assert_eq!(seen, [(1.0001, 1), (0.5f32.next_up(), 1), (0.5, 2), (0.25, 1)]);
    }

    #[test]
    fn the_nth_value_runs_through_all_parts() {
        let (a, b) = (KeyCounts::new(-0.5), KeyCounts::new(-0.5));
        a.count(&[0.9, 0.3, 0.3, -0.4]);
        b.count(&[0.5, 0.3, -0.0, 0.0]);
        let nth = |positions: &[u64]| KeyCounts::nth_highest(&[&a, &b], positions);
        assert_eq!(nth(&[0, 1, 2, 4, 5, 6, 7, 8]), [0.9, 0.5, 0.3, 0.3, 0.0, 0.0, -0.4]);
        assert_eq!(nth(&[2, 2, 7]), [0.3, 0.3, -0.4]);
        assert!(nth(&[8]).is_empty() && KeyCounts::nth_highest(&[], &[0]).is_empty());
    }

    #[test]
    fn any_floor_is_taken() {
        for floor in [f32::NAN, -7.0, -0.0, 7.0, f32::INFINITY] {
            let counts = KeyCounts::new(floor);
            counts.count(&[5.0, 1.0]);
            assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 2);
        }
    }
}
