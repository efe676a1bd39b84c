//! Rows that are near one another, found by exact products in tiles: no matrix of all pairs.

use std::ops::Range;

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

/// Every pair of rows (a, b) with `a` in `block`, `b` above `a` and a product above `threshold`, by
/// (a, b). A block at a time lets the caller stop and go on between.
///
/// * `rows`: `[N, D]`, N below 2³²
///
/// 2·D·|block|·N operations on all threads; memory for the pairs found and a megabyte a thread.
pub fn pairs_above(rows: Rows<'_>, block: Range<usize>, threshold: f32) -> Vec<Near> {
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
                let pairs = above.map(|(j, &score)| (a + i, b + j, score)).filter(|p| p.1 > p.0);
                found.extend(pairs.map(|(a, b, score)| Near { a: a as u32, b: b as u32, score }));
            }
        }
        found
    };
    let mut found: Vec<Near> = tiles.par_iter().flat_map_iter(of_tile).collect();
    found.sort_unstable_by_key(|pair| (pair.a, pair.b));
    found
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
        let all = pairs_above(rows, 0..1100, 0.7);
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
            .flat_map(|start| pairs_above(rows, start..start + 300, 0.7))
            .collect();
        assert_eq!(by_blocks, all);
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
