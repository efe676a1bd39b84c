//! Products of every f32 row with every other, whose bits depend on the two rows alone; those of the head, which
//! have other sides and add to what is there, are in `pfc-rows`.
//!
//! The `gemm` crate in front of it would compile kernels of five more number types.

#![allow(unsafe_code)] // `gemm-f32` takes raw pointers

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

use crate::Rows;

/// Depth of one accumulation: `gemm` keeps up to 512 in one chain on every machine, so that blocks
/// of this depth make a product's bits independent of its cache sizes.
const DEPTH: usize = 512;

/// Smallest tile side that `gemm` gives to its one general kernel; narrower ones take other paths,
/// which add in another order.
pub(crate) const SIDE_MIN: usize = 17;

/// Writes `[A, B]` products of every row of `a` with every row of `b`, row by row, on this thread.
///
/// Where both sides have at least [`SIDE_MIN`] rows, each product is the sum of chains of fused
/// multiply-adds over 512 elements: its bits depend on its two rows alone.
///
/// # Panics
///
/// If the rows differ in length or `out` does not hold A·B numbers.
pub(crate) fn products(a: Rows, b: Rows, out: &mut [f32]) {
    assert_eq!(a.dim(), b.dim());
    assert_eq!(out.len(), a.len() * b.len());
    let dim = a.dim();
    for start in (0..dim).step_by(DEPTH) {
        let depth = DEPTH.min(dim - start);
        let (lhs, rhs) = (b.data()[start..].as_ptr(), a.data()[start..].as_ptr());
        // The kernels prefer a result in columns, which the rows of `out` are of the transposed product.
        // SAFETY: `lhs` is read at rows below b.len() and columns below depth, at strides dim and 1
        // from column `start`, where start + depth <= dim: inside `b`; `rhs` likewise in `a`,
        // transposed. `dst` is written at rows below b.len() and columns below a.len(), which is all of
        // `out`, and borrowed mutably, so it overlaps neither. The first depth does not read it.
        unsafe {
            get_gemm_fn()(
                b.len(),
                a.len(),
                depth,
                out.as_mut_ptr(),
                b.len() as isize,
                1,
                start > 0,
                lhs,
                1,
                dim as isize,
                rhs,
                dim as isize,
                1,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_a_chain_of_fused_multiply_adds_wherever_it_stands() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
        for (n_a, n_b, dim) in [(17, 17, 3), (40, 70, 64), (130, 33, 512), (20, 100, 1300)] {
            let a: Vec<f32> = (0..n_a * dim).map(value).collect();
            let b: Vec<f32> = (0..n_b * dim).map(|i| value(i + 77)).collect();
            let (a, b) = (Rows::new(&a, dim).unwrap(), Rows::new(&b, dim).unwrap());
            let mut out = vec![f32::NAN; n_a * n_b];
            products(a, b, &mut out);
            for (i, product) in out.iter().enumerate() {
                let (a, b) = (a.row(i / n_b), b.row(i % n_b));
                let chain = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).fold(0.0f32, |sum, (a, b)| a.mul_add(*b, sum))
                };
                let blocks = a.chunks(DEPTH).zip(b.chunks(DEPTH));
                let expected = blocks.map(|(a, b)| chain(a, b)).sum::<f32>();
                assert_eq!(product.to_bits(), (0.0 + expected).to_bits(), "{n_a} {n_b} {dim}");
            }
        }
    }
}
