//! A view of embeddings, one a row.

use crate::MetricError;

/// `[N, D]` numbers, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    dim: usize,
}

impl<'a> Rows<'a> {
    /// `data` as rows of `dim` numbers.
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] if `dim` is 0 or does not divide the length of `data`.
    pub fn new(data: &'a [f32], dim: usize) -> Result<Rows<'a>, MetricError> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            let expected = data.len().checked_div(dim).unwrap_or(0) * dim;
            return Err(MetricError::Length { what: "rows", len: data.len(), expected });
        }
        Ok(Rows { data, dim })
    }

    /// Number of rows, N.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Numbers in a row, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All numbers, row by row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Row `index`, counted from 0.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.dim..(index + 1) * self.dim]
    }

    /// Indices of the rows whose numbers are all zero, which have no direction: a failed detection,
    /// as a rule. Their cosine similarity with any row counts as 0.
    pub fn zeros(&self) -> impl Iterator<Item = usize> + 'a {
        let rows = self.data.chunks_exact(self.dim).enumerate();
        rows.filter(|(_, row)| row.iter().all(|&v| v == 0.0)).map(|(index, _)| index)
    }

    /// Refuses the first number that is NaN or infinite.
    ///
    /// # Errors
    ///
    /// [`MetricError::NotFinite`] with `what` and the row's index.
    pub fn check_finite(&self, what: &'static str) -> Result<(), MetricError> {
        // A sum is finite only if every term is; it may overflow, so the slow look decides.
        let row_is_finite = |row: &&[f32]| row.iter().all(|v| v.is_finite());
        match self.data.chunks_exact(self.dim).position(|row| !row_is_finite(&row)) {
            None => Ok(()),
            Some(index) => {
                let bad = self.row(index).iter().find(|v| !v.is_finite());
                let value = bad.map_or(f64::NAN, |&v| f64::from(v));
                Err(MetricError::NotFinite { what, index, value })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_zeros_are_found_whatever_their_sign() {
        let data = [0.0, -0.0, 1.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, f32::MIN_POSITIVE, 0.0];
        let rows = Rows::new(&data, 2).unwrap();
        assert_eq!(rows.zeros().collect::<Vec<_>>(), [0, 3]);
    }
}
