//! The embeddings and labels of all ranks.

// G = global batch, D = embedding.

use rayon::prelude::*;

use crate::row::{self, LENGTH_LEAST};

/// The batch of all ranks.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Numbers of an embedding, D.
    pub(super) dim: usize,
    /// `[G, D]`, of unit length.
    pub(super) unit_gd: Vec<f32>,
    /// `[G]`, lengths before that.
    lengths_g: Vec<f32>,
    /// `[G]`, global class ids.
    pub(super) labels_g: Vec<u64>,
}

impl Batch {
    /// Normalises embeddings as torch does: those shorter than 1e-12 are divided by that.
    ///
    /// * `embeddings_gd`: `[G, D]`, finite
    /// * `labels_g`: `[G]`, global class ids
    ///
    /// # Panics
    ///
    /// If the lengths do not go together, or there is no sample.
    #[must_use]
    pub fn new(embeddings_gd: &[f32], labels_g: Vec<u64>) -> Batch {
        assert!(!labels_g.is_empty() && embeddings_gd.len().is_multiple_of(labels_g.len()));
        let dim = embeddings_gd.len() / labels_g.len();
        let mut unit_gd = embeddings_gd.to_vec();
        let length = |unit: &mut [f32]| {
            let length = row::dot(unit, unit).sqrt();
            unit.iter_mut().for_each(|value| *value /= length.max(LENGTH_LEAST));
            length
        };
        let lengths_g = unit_gd.par_chunks_exact_mut(dim).map(length).collect();
        Batch { dim, unit_gd, lengths_g, labels_g }
    }

    /// Number of samples, G.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels_g.len()
    }

    /// Whether there is no sample, which is never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels_g.is_empty()
    }

    /// The classes in the batch, ascending, each once.
    #[must_use]
    pub fn classes(&self) -> Vec<u64> {
        let mut classes = self.labels_g.clone();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    pub(super) fn unit(&self, sample: usize) -> &[f32] {
        &self.unit_gd[sample * self.dim..][..self.dim]
    }

    /// Sends the gradient by a unit embedding back through the normalisation.
    pub(super) fn before_normalisation(&self, sample: usize, gradient: &mut [f32]) {
        let (unit, length) = (self.unit(sample), self.lengths_g[sample]);
        // An embedding shorter than the least length was scaled by a constant.
        let along = if length < LENGTH_LEAST { 0.0 } else { row::dot(gradient, unit) };
        for (g, u) in gradient.iter_mut().zip(unit) {
            *g = (*g - along * u) / length.max(LENGTH_LEAST);
        }
    }
}
