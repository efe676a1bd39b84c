//! Dot products of f32 rows, summed in f64.
//!
//! The product of two f32 numbers is exact in f64 and the order of the additions is fixed (eight
//! interleaved sums), so a dot product has the same bits on every machine, in either order of its
//! operands, and wherever it stands among others.

/// Interleaved sums: a power of two that fills the widest vector register in use.
const LANES: usize = 8;

/// Rows handled together: enough independent additions to hide their latency.
pub(crate) const GROUP: usize = 4;

/// Products of `query` with four rows of the same length.
///
/// Call it inside [`with_widest_vectors`], or it runs with the vectors of the baseline machine.
#[inline(always)]
pub(crate) fn dot4(query: &[f64], rows: [&[f32]; GROUP]) -> [f64; GROUP] {
    let mut sums = [[0.0; LANES]; GROUP];
    let (chunks, rest) = query.as_chunks::<LANES>();
    let rows = rows.map(|row| row[..query.len()].as_chunks::<LANES>());
    for (i, q) in chunks.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(&rows) {
            let row = &row.0[i];
            for lane in 0..LANES {
                sum[lane] += q[lane] * f64::from(row[lane]);
            }
        }
    }
    for (sum, row) in sums.iter_mut().zip(&rows) {
        for lane in 0..rest.len() {
            sum[lane] += rest[lane] * f64::from(row.1[lane]);
        }
    }
    sums.map(|s| ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])))
}

/// The product of two rows, with the same bits as from [`dot4`].
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut s = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (sum, (a, b)) in s.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Runs `work` compiled for the widest vectors that this machine has.
#[inline]
pub(crate) fn with_widest_vectors<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Writes `row` to `wide` in f64.
pub(crate) fn widen(row: &[f32], wide: &mut Vec<f64>) {
    wide.clear();
    wide.extend(row.iter().map(|&v| f64::from(v)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(dim: usize) -> Vec<Vec<f32>> {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
        (0..5).map(|r| (0..dim).map(|d| value(r * 4099 + d)).collect()).collect()
    }

    #[test]
    fn a_product_has_the_same_bits_alone_in_a_group_and_with_operands_swapped() {
        for dim in [1, 7, 8, 64, 513] {
            let rows = rows(dim);
            let mut wide = Vec::new();
            widen(&rows[0], &mut wide);
            let group = [&rows[1][..], &rows[2], &rows[3], &rows[4]];
            let narrow = dot4(&wide, group);
            assert_eq!(with_widest_vectors(|| dot4(&wide, group)), narrow);
            for (row, product) in group.iter().zip(narrow) {
                assert_eq!(dot(&rows[0], row).to_bits(), product.to_bits());
                assert_eq!(dot(row, &rows[0]).to_bits(), product.to_bits());
            }
        }
    }

    #[test]
    fn products_are_exact_where_f32_would_round() {
        // 1 + 2^-23 squared is 1 + 2^-22 + 2^-46, which f32 cannot hold.
        let a = [1.0 + f32::EPSILON];
        assert_eq!(dot(&a, &a), 1.0 + 2f64.powi(-22) + 2f64.powi(-46));
    }
}
