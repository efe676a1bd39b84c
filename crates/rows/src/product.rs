//! Products of f32 matrices, on the calling thread.

#![allow(unsafe_code)] // `gemm-f32` takes raw pointers

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

/// A matrix in row-major order, or one seen with its axes exchanged.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    numbers: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    is_exchanged: bool,
}

impl<'a> Matrix<'a> {
    /// Rows of `n_columns` numbers, one after the other.
    ///
    /// # Panics
    ///
    /// If `numbers` does not hold whole rows.
    #[must_use]
    pub fn new(numbers: &'a [f32], n_columns: usize) -> Matrix<'a> {
        assert!(n_columns > 0 && numbers.len().is_multiple_of(n_columns), "whole rows");
        let n_rows = numbers.len() / n_columns;
        Matrix { numbers, n_rows, n_columns, is_exchanged: false }
    }

    /// The same matrix with its axes exchanged.
    #[must_use]
    pub fn transposed(self) -> Matrix<'a> {
        let Matrix { numbers, n_rows, n_columns, is_exchanged } = self;
        Matrix { numbers, n_rows: n_columns, n_columns: n_rows, is_exchanged: !is_exchanged }
    }

    /// Numbers from one row to the next, and from one column to the next.
    fn strides(&self) -> (isize, isize) {
        match self.is_exchanged {
            false => (self.n_columns as isize, 1),
            true => (1, self.n_rows as isize),
        }
    }
}

/// What becomes of the numbers that a result holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// They are written over.
    Over,
    /// The product is added to them.
    Add,
}

/// Writes the product of `a`, `[M, K]`, and `b`, `[K, N]`, to `out`, `[M, N]` in row-major order.
///
/// # Panics
///
/// If the shapes do not go together.
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>, write: Write, out: &mut [f32]) {
    assert_eq!(a.n_columns, b.n_rows, "the inner axes");
    assert_eq!(out.len(), a.n_rows * b.n_columns, "the result");
    if out.is_empty() {
        return;
    }
    let ((a_rows, a_columns), (b_rows, b_columns)) = (a.strides(), b.strides());
    // The kernels prefer a result in columns, which the rows of `out` are of the transposed product:
    // its left side is `b` with exchanged axes, its right side `a`.
    // SAFETY: a `Matrix` has as many numbers as rows times columns, which `new` checks and `transposed` keeps,
    // so that every row and column at its strides is inside it. `out` has as many as the product, is
    // written at rows below N with stride 1 and columns below M with stride N, and borrowed mutably, so it
    // overlaps neither side. It is initialised, so it may be read.
    unsafe {
        get_gemm_fn()(
            b.n_columns,
            a.n_rows,
            a.n_columns,
            out.as_mut_ptr(),
            b.n_columns as isize,
            1,
            write == Write::Add,
            b.numbers.as_ptr(),
            b_rows,
            b_columns,
            a.numbers.as_ptr(),
            a_rows,
            a_columns,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_small_integers_are_exact_in_every_orientation() {
        let value = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.0;
        for (m, n, k) in [(1, 1, 1), (3, 5, 2), (17, 40, 33), (70, 20, 130)] {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i + 5)).collect();
            let transposed = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns * rows).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let expected: Vec<f32> = (0..m * n)
                .map(|i| (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum())
                .collect();
            for a in [Matrix::new(&a, k), Matrix::new(&at, m).transposed()] {
                for b in [Matrix::new(&b, n), Matrix::new(&bt, k).transposed()] {
                    let mut out = vec![f32::NAN; m * n];
                    multiply(a, b, Write::Over, &mut out);
                    assert_eq!(out, expected, "{m} {n} {k}");
                    multiply(a, b, Write::Add, &mut out);
                    assert!(out.iter().zip(&expected).all(|(o, e)| *o == 2.0 * e), "{m} {n} {k}");
                }
            }
        }
    }
}
