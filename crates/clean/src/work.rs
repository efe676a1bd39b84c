//! The input of all passes: the data set, and what was decided so far.

use pfc_findings::{Decision, State};
use pfc_shard::Dataset;
use serde_json::{Map, Value};

use crate::CleanError;

/// A data set being cleaned. Takes 4 bytes of memory per row, and 8 more for the rows that
/// [`groups`](Work::groups) sorts.
pub struct Work<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// Label of every row in the data set.
    pub labels: Vec<u32>,
    /// What was decided so far.
    pub state: State,
    /// What passes measured, to be printed and kept.
    pub notes: Map<String, Value>,
    /// Whether to show no progress bar.
    pub quiet: bool,
}

impl<'a> Work<'a> {
    /// Reads the labels.
    ///
    /// # Errors
    ///
    /// [`CleanError::Shard`] if they cannot be read.
    pub fn new(dataset: &'a Dataset, state: State, quiet: bool) -> Result<Work<'a>, CleanError> {
        let labels = dataset.labels()?;
        Ok(Work { dataset, labels, state, notes: Map::new(), quiet })
    }

    /// The identity of a row after all decisions so far; `None` if the row is left out.
    pub fn label(&self, row: u64) -> Option<u32> {
        self.state.label(row, *self.labels.get(row as usize)?)
    }

    /// The label of a row in the data set, whatever was decided since.
    pub fn own_label(&self, row: u64) -> u32 {
        self.labels.get(row as usize).copied().unwrap_or_default()
    }

    /// Applies decisions to what later passes see.
    ///
    /// # Errors
    ///
    /// [`CleanError::Contradiction`], which is a fault of the pass.
    pub fn apply(&mut self, decisions: &[Decision]) -> Result<(), CleanError> {
        let applied = self.state.apply(decisions);
        applied.map_err(|what| CleanError::Contradiction { what })
    }

    /// Rows that are not left out, by identity.
    pub fn groups(&self) -> Groups {
        let rows = 0..self.labels.len() as u64;
        let mut keyed: Vec<(u32, u64)> =
            rows.filter_map(|row| Some((self.label(row)?, row))).collect();
        rayon::slice::ParallelSliceMut::par_sort_unstable(keyed.as_mut_slice());
        let mut groups = Groups { labels: Vec::new(), starts: Vec::new(), rows: Vec::new() };
        for (label, row) in keyed {
            if groups.labels.last() != Some(&label) {
                groups.labels.push(label);
                groups.starts.push(groups.rows.len());
            }
            groups.rows.push(row);
        }
        groups
    }

    /// Rows that are not left out.
    pub fn n_rows_kept(&self) -> u64 {
        self.dataset.len() - self.state.n_dropped()
    }

    /// Identities that have such rows.
    pub fn n_identities_seen(&self) -> u64 {
        let mut seen = vec![false; self.state.n_identities() as usize];
        for row in 0..self.dataset.len() {
            if let Some(label) = self.label(row) {
                seen[label as usize] = true;
            }
        }
        seen.iter().filter(|seen| **seen).count() as u64
    }
}

/// Rows by identity. Only identities that have rows, in the order of their labels; rows ascend.
#[derive(Debug)]
pub struct Groups {
    /// Label of each identity.
    pub labels: Vec<u32>,
    starts: Vec<usize>,
    rows: Vec<u64>,
}

impl Groups {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of identities.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The rows of the identity at `place`.
    pub fn rows(&self, place: usize) -> &[u64] {
        let end = self.starts.get(place + 1).copied().unwrap_or(self.rows.len());
        &self.rows[self.starts[place]..end]
    }

    /// Every identity with its rows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u64])> {
        (0..self.len()).map(|place| (self.labels[place], self.rows(place)))
    }
}
