//! Pair verification by the ten-fold protocol that LFW introduced, as `insightface` computes it.
//!
//! Legend: P = pairs, D = embedding, T = thresholds.

mod accuracy;
mod folds;
mod pca;
mod val;

pub use accuracy::{Accuracies, FoldAccuracy, k_fold, ten_fold};
pub use folds::{N_FOLDS, fold_ranges};
pub use pca::{ReducedFolds, ten_fold_pca};
pub use val::{FoldVal, ValAtFar, k_fold_val, val_at_far};

use crate::MetricError;

/// Sums original and mirrored embeddings in f64 and divides each row by its L2 norm.
///
/// * `original`, `mirrored`: `[N, D]` raw outputs of the network, row-major
///
/// A row whose sum is all zero stays zero. Returns `[N, D]`.
///
/// # Errors
///
/// [`MetricError::Length`] unless both are `[N, dim]`; [`MetricError::NotFinite`] names the first
/// value that is NaN or infinite.
pub fn fuse_mirrored(
    original: &[f32],
    mirrored: &[f32],
    dim: usize,
) -> Result<Vec<f64>, MetricError> {
    check_rows("mirrored embeddings", mirrored.len(), original.len())?;
    check_rows("embeddings", original.len(), original.len() / dim.max(1) * dim)?;
    for values in [original, mirrored] {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let value = f64::from(values[index]);
            return Err(MetricError::NotFinite { what: "embedding value", index, value });
        }
    }
    let mut fused: Vec<f64> =
        original.iter().zip(mirrored).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
    normalise_rows(&mut fused, dim);
    Ok(fused)
}

/// Squared L2 distance of two rows, in `[0, 4]` if both are of unit length.
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// L2 norm of a raw embedding, summed in f64. Their mean is what `insightface` logs as `XNorm`.
pub fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

fn normalise_rows(rows: &mut [f64], dim: usize) {
    for row in rows.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|v| *v /= norm);
        }
    }
}

fn check_rows(what: &'static str, len: usize, expected: usize) -> Result<(), MetricError> {
    if len == expected { Ok(()) } else { Err(MetricError::Length { what, len, expected }) }
}

fn check_pairs(distances: &[f64], same: &[bool]) -> Result<(), MetricError> {
    check_rows("labels", same.len(), distances.len())?;
    match distances.iter().position(|d| !d.is_finite()) {
        Some(index) => {
            Err(MetricError::NotFinite { what: "distance", index, value: distances[index] })
        }
        None => Ok(()),
    }
}

/// Mean and population standard deviation; both 0 of nothing.
fn mean_and_std(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_rows_have_unit_length_and_zero_rows_stay_zero() {
        let fused = fuse_mirrored(&[1.0, 4.0, 0.5, 0.0], &[2.0, 0.0, -0.5, 0.0], 2).unwrap();
        assert_eq!(fused, [0.6, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn a_broken_embedding_is_named() {
        let error = fuse_mirrored(&[1.0, f32::NAN], &[1.0, 1.0], 2).unwrap_err();
        assert_eq!(error.to_string(), "embedding value 1 is NaN, not a finite number");
        assert!(fuse_mirrored(&[1.0; 3], &[1.0; 3], 2).is_err());
        assert!(fuse_mirrored(&[1.0; 4], &[1.0; 2], 2).is_err());
        assert!(fuse_mirrored(&[1.0; 4], &[1.0; 4], 0).is_err());
    }
}
