//! All rows of a rank, one after the other in memory that somebody else owns.

// D = embedding, C = rows of this rank.

use rayon::prelude::*;

use crate::{
    optim::{Dense, Motion, Stamp, UpdateMap, UpdateRule},
    row, vectors,
};

/// Rows that one thread takes at a time.
const PIECE: usize = 512;

/// Rows that are loaded into the cache together before any of them is computed on.
const TOUCH_ROWS: usize = 8;

/// The rows of a rank, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Numbers of a row, D.
    pub dim: usize,
    /// `[C, D]`.
    pub weight_cd: &'a [f32],
    /// `[C, N]`, N numbers of optimizer state a row: D is the momentum of SGD. Empty before the first step.
    pub state_cn: &'a [f32],
    /// `[C]`, when each row last moved.
    pub stamps_c: &'a [Stamp],
    /// The updates that rows may have missed; `None` if they miss none.
    pub history: Option<&'a Dense>,
}

/// The same, to be moved.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Numbers of a row, D.
    pub dim: usize,
    /// `[C, D]`.
    pub weight_cd: &'a mut [f32],
    /// `[C, N]`.
    pub state_cn: &'a mut [f32],
    /// `[C]`.
    pub stamps_c: &'a mut [Stamp],
    /// As in [`Rows`].
    pub history: Option<&'a Dense>,
}

/// The gradient of the loss by some rows.
#[derive(Debug, Clone, Default)]
pub struct RowGradient {
    /// `[S]`, rows of the rank, strictly ascending.
    pub rows: Vec<u32>,
    /// `[S, D]`, by the rows themselves, not by unit rows.
    pub gradient_sd: Vec<f32>,
}

impl<'a> Rows<'a> {
    /// Number of rows, C.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stamps_c.len()
    }

    /// Whether the rank has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stamps_c.is_empty()
    }

    /// The weight of a row with the updates that it has missed.
    ///
    /// * `scratch`: `[D]`, which holds the result if there are any
    #[inline(always)]
    pub(crate) fn current<'s>(&self, row: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        let weight = &self.weight_cd[row * self.dim..][..self.dim];
        let Some(flow) = self.missed(row) else { return weight };
        let momentum = &self.state_cn[row * self.dim..][..self.dim];
        let (ww, wv) = (flow.ww as f32, flow.wv as f32);
        for ((out, w), v) in scratch.iter_mut().zip(weight).zip(momentum) {
            *out = ww * w + wv * v;
        }
        scratch
    }

    #[inline(always)]
    fn missed(&self, row: usize) -> Option<UpdateMap> {
        self.history?.missed(self.stamps_c[row])
    }

    /// Calls `work` with the position of each of `rows`, a few of which are brought into the cache together.
    #[inline(always)]
    pub(crate) fn for_each(&self, rows: &[u32], mut work: impl FnMut(usize, usize)) {
        for (batch, rows) in rows.chunks(TOUCH_ROWS).enumerate() {
            for &row in rows {
                let at = row as usize * self.dim;
                touch(&self.weight_cd[at..][..self.dim]);
                if self.missed(row as usize).is_some() {
                    touch(&self.state_cn[at..][..self.dim]);
                }
            }
            for (i, &row) in rows.iter().enumerate() {
                work(batch * TOUCH_ROWS + i, row as usize);
            }
        }
    }
}

/// Loads a number of every cache line.
///
/// Rows are far apart in memory, and the work on one is too long for the processor to look ahead to the next;
/// loads with nothing in between wait for the memory all at once.
#[inline(always)]
fn touch(row: &[f32]) {
    /// Numbers of a cache line.
    const LINE: usize = 16;
    let seen = row.iter().step_by(LINE).fold(0, |seen, number| seen | number.to_bits());
    std::hint::black_box(seen);
}

/// A few rows next to each other, in the hands of one thread.
struct Piece<'a> {
    /// The row that the slices begin with.
    first: usize,
    weight: &'a mut [f32],
    state: &'a mut [f32],
    stamps: &'a mut [Stamp],
}

impl RowsMut<'_> {
    /// Takes a step of an optimizer with the rows of a gradient, after the updates that they have missed.
    ///
    /// * `factor`: which the gradient is multiplied by
    /// * `stamp`: what the rows have then
    ///
    /// # Panics
    ///
    /// If the gradient is not of rows of the rank, or the state does not go with the optimizer.
    pub fn step(self, gradient: &RowGradient, factor: f64, motion: &Motion, stamp: Stamp) {
        let RowsMut { dim, weight_cd, state_cn, stamps_c, history } = self;
        let n_state = state_cn.len() / stamps_c.len().max(1);
        let work = gradient.rows.chunks(PIECE).zip(gradient.gradient_sd.chunks(PIECE * dim));
        let pieces = pieces((weight_cd, dim), (state_cn, n_state), stamps_c, &gradient.rows);
        let work: Vec<_> = work.zip(pieces).collect();
        work.into_par_iter().for_each_init(
            || vec![0.0; dim],
            |scratch, ((rows, gradient), piece)| {
                let Piece { first, weight, state, stamps } = piece;
                vectors().dispatch(|| {
                    let gradients = gradient.chunks(TOUCH_ROWS * dim);
                    for (rows, gradients) in rows.chunks(TOUCH_ROWS).zip(gradients) {
                        for &row in rows {
                            touch(&weight[(row as usize - first) * dim..][..dim]);
                            touch(&state[(row as usize - first) * n_state..][..n_state]);
                        }
                        for (&row, gradient) in rows.iter().zip(gradients.chunks_exact(dim)) {
                            let at = row as usize - first;
                            let weight = &mut weight[at * dim..][..dim];
                            let state = &mut state[at * n_state..][..n_state];
                            if let Some(flow) = history.and_then(|h| h.missed(stamps[at])) {
                                row::advance(&flow, weight, state);
                            }
                            for (out, value) in scratch.iter_mut().zip(gradient) {
                                *out = factor as f32 * value;
                            }
                            row::step(motion, scratch, weight, state);
                            stamps[at] = stamp;
                        }
                    }
                });
            },
        );
    }

    /// Applies the updates that rows have missed to all of them. Takes time in proportion to their number.
    pub fn catch_up(self) {
        let RowsMut { dim, weight_cd, state_cn, stamps_c, history } = self;
        let Some(history) = history else { return };
        let now = history.stamp();
        let rows = weight_cd.par_chunks_mut(PIECE * dim).zip(state_cn.par_chunks_mut(PIECE * dim));
        rows.zip(stamps_c.par_chunks_mut(PIECE)).for_each(|((weight, state), stamps)| {
            vectors().dispatch(|| {
                let rows = weight.chunks_exact_mut(dim).zip(state.chunks_exact_mut(dim));
                for ((weight, state), stamp) in rows.zip(stamps) {
                    if let Some(flow) = history.missed(*stamp) {
                        row::advance(&flow, weight, state);
                    }
                    *stamp = now;
                }
            });
        });
    }
}

/// Cuts out the stretch from the first to the last of every [`PIECE`] of `rows`, which are strictly ascending.
fn pieces<'a>(
    (mut weight, dim): (&'a mut [f32], usize),
    (mut state, n_state): (&'a mut [f32], usize),
    mut stamps: &'a mut [Stamp],
    rows: &[u32],
) -> Vec<Piece<'a>> {
    let mut begin = 0;
    let mut piece = |rows: &[u32]| {
        let (first, end) = (rows[0] as usize, rows[rows.len() - 1] as usize + 1);
        let (skipped, n) = (first - begin, end - first);
        begin = end;
        Piece {
            first,
            weight: cut(&mut weight, skipped * dim, n * dim),
            state: cut(&mut state, skipped * n_state, n * n_state),
            stamps: cut(&mut stamps, skipped, n),
        }
    };
    rows.chunks(PIECE).map(&mut piece).collect()
}

/// Takes `n` elements off the front of a slice, after `skipped` that are left out.
fn cut<'a, T>(slice: &mut &'a mut [T], skipped: usize, n: usize) -> &'a mut [T] {
    let (_, rest) = std::mem::take(slice).split_at_mut(skipped);
    let (front, rest) = rest.split_at_mut(n);
    *slice = rest;
    front
}

impl RowGradient {
    /// The sum of this gradient times `factor` and `other`.
    #[must_use]
    pub fn sum(&self, factor: f64, other: &RowGradient, dim: usize) -> RowGradient {
        let mut rows = [&self.rows[..], &other.rows].concat();
        rows.sort_unstable();
        rows.dedup();
        let mut gradient_sd = vec![0.0; rows.len() * dim];
        gradient_sd.par_chunks_mut(dim).zip(&rows).for_each(|(sum, row)| {
            for (part, factor) in [(self, factor as f32), (other, 1.0)] {
                if let Ok(at) = part.rows.binary_search(row) {
                    row::add_scaled(sum, factor, &part.gradient_sd[at * dim..][..dim]);
                }
            }
        });
        RowGradient { rows, gradient_sd }
    }

    /// The sum of its squares.
    #[must_use]
    pub fn squares(&self) -> f64 {
        let pieces = self.gradient_sd.par_chunks(1 << 16);
        let sums: Vec<f64> =
            pieces.map(|piece| piece.iter().map(|g| f64::from(*g) * f64::from(*g)).sum()).collect();
        sums.iter().sum()
    }
}
