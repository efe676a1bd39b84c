//! Rows that are near one another, found by exact products in tiles: no matrix of all pairs.

use std::{cmp::Ordering, ops::Range};

use rayon::prelude::*;

use crate::{Rows, product::products};

/// Side of a tile in rows: its products take a megabyte and stay in a core's cache.
const TILE: usize = 512;

/// Two rows and their product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// The lower row.
    pub a: u32,
    /// The higher row.
    pub b: u32,
    /// Their product: the cosine, if rows have length 1.
    pub score: f32,
}

/// Pairs of rows (a, b) with `a` in `block`, `b` above `a` and a product above `threshold`, by (a, b):
/// all that may be among the `k` best of a row, and no more than some of the others. A block at a time
/// lets the caller stop and go on between; [`Best`] puts the blocks together.
///
/// * `rows`: `[N, D]`, N below 2³²
/// * `allowed`: whether a pair counts, the lower row first
///
/// 2·D·|block|·N operations on all threads; memory for the pairs found, `k` for each row of a tile at
/// most, and a few megabytes a thread.
pub fn pairs_above(
    rows: Rows<'_>,
    block: Range<usize>,
    threshold: f32,
    k: usize,
    allowed: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Near> {
    let end = block.end.min(rows.len());
    let tiles: Vec<(usize, usize)> = (block.start..end)
        .step_by(TILE)
        .flat_map(|a| (a..rows.len()).step_by(TILE).map(move |b| (a, b)))
        .collect();
    let of_tile = |&(a, b): &(usize, usize)| {
        let (lhs, rhs) = (tile(rows, a, end), tile(rows, b, rows.len()));
        let mut out = vec![0.0; lhs.len() * rhs.len()];
        products(lhs, rhs, &mut out);
        let mut found = Vec::new();
        for (i, line) in out.chunks_exact(rhs.len()).enumerate() {
            // Most lines hold nothing, and finding that out vectorises.
            if line.iter().copied().fold(f32::NEG_INFINITY, f32::max) > threshold {
                let above = line.iter().enumerate().filter(|(_, score)| **score > threshold);
                let pairs = above.map(|(j, &score)| (a + i, b + j, score));
                let pairs = pairs.filter(|p| p.1 > p.0 && allowed(p.0, p.1));
                found.extend(pairs.map(|(a, b, score)| Near { a: a as u32, b: b as u32, score }));
            }
        }
        keep_best(&mut found, k);
        found
    };
    let mut found: Vec<Near> = tiles.par_iter().flat_map_iter(of_tile).collect();
    found.sort_unstable_by_key(|pair| (pair.a, pair.b));
    found
}

/// Drops pairs that are among the `k` best of neither of their rows.
fn keep_best(pairs: &mut Vec<Near>, k: usize) {
    if pairs.len() <= k {
        return;
    }
    let mut stays = vec![false; pairs.len()];
    for row_of in [|pair: &Near| pair.a, |pair: &Near| pair.b] {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_unstable_by(|&i, &j| {
            let (one, other) = (&pairs[i], &pairs[j]);
            row_of(one).cmp(&row_of(other)).then(better(one, other))
        });
        for of_row in order.chunk_by(|&i, &j| row_of(&pairs[i]) == row_of(&pairs[j])) {
            of_row.iter().take(k).for_each(|&i| stays[i] = true);
        }
    }
    let mut stays = stays.into_iter();
    pairs.retain(|_| stays.next().unwrap_or(false));
}

/// The better pair comes first: that of the higher score, of equal ones that of the lower rows.
fn better(one: &Near, other: &Near) -> Ordering {
    other.score.total_cmp(&one.score).then((one.a, one.b).cmp(&(other.a, other.b)))
}

/// The best pairs of every row, whatever the order in which they come. Memory: up to 12·k bytes a row.
#[derive(Debug)]
pub struct Best {
    k: usize,
    /// By row, the best first.
    rows: Vec<Vec<Near>>,
}

impl Best {
    /// Nothing so far, of `n` rows that keep `k` pairs each.
    pub fn new(n: usize, k: usize) -> Best {
        Best { k, rows: vec![Vec::new(); n] }
    }

    /// Takes a pair, which has not been taken before.
    ///
    /// # Panics
    ///
    /// If a row of it is beyond the last.
    pub fn add(&mut self, pair: Near) {
        for row in [pair.a, pair.b] {
            let best = &mut self.rows[row as usize];
            let at = best.partition_point(|other| better(other, &pair).is_lt());
            if at < self.k {
                best.insert(at, pair);
                best.truncate(self.k);
            }
        }
    }

    /// Pairs that are among the best of one of their rows, by (a, b).
    pub fn pairs(&self) -> Vec<Near> {
        let mut pairs: Vec<Near> = self.rows.iter().flatten().copied().collect();
        pairs.par_sort_unstable_by_key(|pair| (pair.a, pair.b));
        pairs.dedup_by_key(|pair| (pair.a, pair.b));
        pairs
    }
}

/// For every query the row with the greatest product among those that `allowed(query, row)`; of
/// equal ones the first. `None` where no row is allowed.
///
/// * `queries`: `[Q, D]`
/// * `rows`: `[N, D]`, N below 2³²
///
/// 2·D·Q·N operations on all threads, a megabyte of memory a thread.
pub fn nearest(
    queries: Rows<'_>,
    rows: Rows<'_>,
    allowed: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Option<(u32, f32)>> {
    let starts: Vec<usize> = (0..queries.len()).step_by(TILE).collect();
    let of_tile = |&q: &usize| {
        let lhs = tile(queries, q, queries.len());
        let mut best: Vec<Option<(u32, f32)>> = vec![None; lhs.len()];
        for r in (0..rows.len()).step_by(TILE) {
            let rhs = tile(rows, r, rows.len());
            let mut out = vec![0.0; lhs.len() * rhs.len()];
            products(lhs, rhs, &mut out);
            for (i, line) in out.chunks_exact(rhs.len()).enumerate() {
                for (j, &score) in line.iter().enumerate() {
                    if best[i].is_none_or(|(_, s)| score > s) && allowed(q + i, r + j) {
                        best[i] = Some(((r + j) as u32, score));
                    }
                }
            }
        }
        best
    };
    starts.par_iter().flat_map_iter(of_tile).collect()
}

fn tile(rows: Rows<'_>, start: usize, end: usize) -> Rows<'_> {
    let end = (start + TILE).min(end);
    let data = &rows.data()[start * rows.dim()..end * rows.dim()];
    Rows::new(data, rows.dim()).expect("whole rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors along the axes, and their mixtures.
    fn rows() -> Vec<f32> {
        let mut rows = vec![0.0; 1100 * 4];
        for (i, row) in rows.chunks_exact_mut(4).enumerate() {
            row[i % 3] = 1.0;
        }
        // Alone on the fourth axis, but for its twin.
        rows[5 * 4..6 * 4].copy_from_slice(&[0.0, 0.0, 0.0, 1.0]);
        rows[1090 * 4..1091 * 4].copy_from_slice(&[0.0, 0.0, 0.6, 0.8]);
        rows
    }

    #[test]
    fn pairs_across_tiles_are_found_once_each() {
        let data = rows();
        let rows = Rows::new(&data, 4).unwrap();
        let all = pairs_above(rows, 0..1100, 0.7, usize::MAX, |_, _| true);
        let of_five: Vec<_> = all.iter().filter(|p| p.a == 5 || p.b == 5).collect();
        assert_eq!(of_five, [&Near { a: 5, b: 1090, score: 0.8 }]);
        // Axes 0, 1, 2 have 367, 367 and 364 rows: 1100 less two, both of axis 2 and 1.
        let count = |n: usize| n * (n - 1) / 2;
        let n: Vec<usize> = (0..3)
            .map(|axis| data.chunks_exact(4).filter(|row| row[axis] == 1.0).count())
            .collect();
        assert_eq!(all.len(), n.iter().map(|&n| count(n)).sum::<usize>() + 1);
        let by_blocks: Vec<Near> = (0..1100)
            .step_by(300)
            .flat_map(|start| pairs_above(rows, start..start + 300, 0.7, usize::MAX, |_, _| true))
            .collect();
        assert_eq!(by_blocks, all);
    }

    #[test]
    fn of_a_crowd_every_row_keeps_its_best_pairs_and_no_row_is_cut_off() {
        // 1,300 rows on a quarter of a circle: the nearest of a row are its neighbours.
        let n = 1300;
        let angle = |i: usize| i as f32 / n as f32 * std::f32::consts::FRAC_PI_2;
        let data: Vec<f32> = (0..n).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect();
        let rows = Rows::new(&data, 2).unwrap();
        let mut best = Best::new(n, 2);
        for start in (0..n).step_by(400) {
            for pair in pairs_above(rows, start..start + 400, 0.0, 2, |a, b| (a + b) % 2 == 1) {
                best.add(pair);
            }
        }
        let pairs = best.pairs();
        // Neighbours are allowed; the first and the last row have one, and the second best of each is
        // three away.
        let is_expected = |p: &Near| matches!(p.b - p.a, 1 | 3);
        assert!(pairs.iter().all(is_expected), "{pairs:?}");
        assert_eq!(pairs.iter().filter(|p| p.b - p.a == 1).count(), n - 1);
        assert_eq!(pairs.iter().filter(|p| p.b - p.a == 3).count(), 2);
    }

    #[test]
    fn the_nearest_allowed_row_is_found() {
        let data = rows();
        let all = Rows::new(&data, 4).unwrap();
        let query = Rows::new(&data[5 * 4..6 * 4], 4).unwrap();
        assert_eq!(nearest(query, all, |_, row| row != 5), [Some((1090, 0.8))]);
        assert_eq!(nearest(query, all, |_, _| false), [None]);
    }
}
