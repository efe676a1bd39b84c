//! The protocol's optional step: embeddings projected on principal components.

use std::ops::Range;

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rayon::prelude::*;

use super::{
    Accuracies, N_FOLDS,
    accuracy::summarise,
    fold_ranges,
    folds::{Counts, Grid},
    normalise_rows, squared_distance,
};
use crate::MetricError;

/// Ten-fold accuracy after PCA.
///
/// Per fold the principal components of both sides of the other nine folds are kept; every
/// embedding is centred, projected and brought to unit length again.
///
/// * `sides`: `[2·P, D]` unit embeddings, pair i in rows 2i and 2i+1
/// * `same`: `[P]` whether the pair is genuine
/// * `components`: how many to keep
///
/// # Errors
///
/// As [`ReducedFolds::new`].
pub fn ten_fold_pca(
    sides: &[f64],
    dim: usize,
    same: &[bool],
    components: usize,
) -> Result<Accuracies, MetricError> {
    Ok(ReducedFolds::new(sides, dim, same, components)?.accuracies(None))
}

/// The pairs as each fold sees them, after the projection fitted on the others.
///
/// Memory: 10·P places on the grid of thresholds.
#[derive(Debug)]
pub struct ReducedFolds<'a> {
    same: &'a [bool],
    grid: Grid,
    /// By fold: its pairs, and where the distances of all lie on the grid.
    folds: Vec<(Range<usize>, Vec<u16>)>,
}

impl<'a> ReducedFolds<'a> {
    /// Projects all pairs for each fold; arguments as of [`ten_fold_pca`].
    ///
    /// Exact (no randomised solver): O(10·(P·D² + D³)) time, on all threads.
    ///
    /// # Errors
    ///
    /// [`MetricError::Components`] unless `1 ≤ components ≤ min(D, rows of nine folds)`, and as
    /// [`ten_fold`](super::ten_fold).
    pub fn new(
        sides: &[f64],
        dim: usize,
        same: &'a [bool],
        components: usize,
    ) -> Result<ReducedFolds<'a>, MetricError> {
        super::check_rows("embeddings", sides.len(), 2 * same.len() * dim)?;
        let ranges = fold_ranges(same.len(), N_FOLDS)?;
        let n_rows = 2 * (same.len() - ranges[0].len());
        if components == 0 || components > dim.min(n_rows) {
            return Err(MetricError::Components { components, n_rows, dim });
        }
        let grid = Grid::accuracy();
        let place = |test: Range<usize>| {
            let distances = projected_distances(sides, dim, test.clone(), components);
            (test, grid.place(&distances))
        };
        let folds = ranges.into_par_iter().map(place).collect();
        Ok(ReducedFolds { same, grid, folds })
    }

    /// The accuracy of each fold at the threshold that is best on the others, where pair i counts
    /// `weights[i]` times, or once. The projections stay. O(10·P).
    pub fn accuracies(&self, weights: Option<&[u64]>) -> Accuracies {
        let judge = |(test, places): &(Range<usize>, Vec<u16>)| {
            let count = |range| Counts::of(&self.grid, places, self.same, weights, range);
            let test = count(test.clone());
            (count(0..self.same.len()).without(&test), test)
        };
        let judged = self.folds.iter().map(judge).filter(|(_, test)| test.n_pairs() > 0);
        summarise(&self.grid, judged.collect())
    }
}

/// Distance of each pair after the projection fitted on all pairs outside `test`.
fn projected_distances(
    sides: &[f64],
    dim: usize,
    test: Range<usize>,
    components: usize,
) -> Vec<f64> {
    // nalgebra stores columns, so a row-major [N, D] slice is its [D, N] matrix.
    let before = &sides[..2 * test.start * dim];
    let after = &sides[2 * test.end * dim..];
    let training = DMatrix::from_column_slice(
        dim,
        (before.len() + after.len()) / dim,
        &[before, after].concat(),
    );
    let mean: DVector<f64> = training.column_mean();
    let basis = principal_components(training, &mean, components);
    let mut all = DMatrix::from_column_slice(dim, sides.len() / dim, sides);
    all.column_iter_mut().for_each(|mut column| column -= &mean);
    let mut projected = basis.tr_mul(&all);
    let rows = projected.as_mut_slice();
    normalise_rows(rows, components);
    rows.chunks_exact(2 * components)
        .map(|pair| squared_distance(&pair[..components], &pair[components..]))
        .collect()
}

/// `[D, components]`: the directions of largest variance of the columns of `samples`.
fn principal_components(
    mut samples: DMatrix<f64>,
    mean: &DVector<f64>,
    components: usize,
) -> DMatrix<f64> {
    samples.column_iter_mut().for_each(|mut column| column -= mean);
    let covariance = &samples * samples.transpose();
    let eigen = SymmetricEigen::new(covariance);
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(components);
    eigen.eigenvectors.select_columns(&order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_is_the_direction_of_largest_variance() {
        let samples =
            DMatrix::from_column_slice(2, 4, &[2.0, 2.0, -2.0, -2.0, 0.1, -0.1, -0.1, 0.1]);
        let mean = samples.column_mean();
        let basis = principal_components(samples, &mean, 1);
        let direction = 0.5_f64.sqrt();
        assert!((basis[0].abs() - direction).abs() < 1e-12 && (basis[0] - basis[1]).abs() < 1e-12);
    }

    #[test]
    fn more_components_than_dimensions_are_refused() {
        let error = ten_fold_pca(&[0.0; 80], 4, &[true; 10], 5).unwrap_err();
        assert_eq!(error.to_string(), "cannot keep 5 principal components of 18 rows of 4 values");
        assert!(ten_fold_pca(&[0.0; 80], 4, &[true; 10], 0).is_err());
    }
}
