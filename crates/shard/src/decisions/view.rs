//! The rows of a data set after decisions.

use std::collections::HashMap;

use super::{Action, Decision};
use crate::Dataset;

/// New identities that runs may name beyond those of the data set.
const NEW_IDENTITIES_MAX: u32 = 1 << 28;

/// What the rows of a data set are once decisions are applied: left out, or of which identity.
///
/// The last decision about a row counts. A merge moves all rows that are of its identity at the end,
/// and the identity it moves to may itself move.
#[derive(Debug, Clone)]
pub struct View {
    n_rows: u64,
    n_old: u32,
    dropped: Vec<u64>,
    n_dropped: u64,
    /// Rows with `keep`.
    pinned: HashMap<u64, ()>,
    relabelled: HashMap<u64, u32>,
    merged: HashMap<u32, u32>,
    n_new: u32,
}

impl View {
    /// Every row as it is.
    pub fn of(dataset: &Dataset) -> View {
        View::new(dataset.len(), dataset.n_identities())
    }

    /// Of `n_rows` rows of `n_identities` identities, every row as it is.
    pub fn new(n_rows: u64, n_identities: u32) -> View {
        View {
            n_rows,
            n_old: n_identities,
            dropped: vec![0; n_rows.div_ceil(64) as usize],
            n_dropped: 0,
            pinned: HashMap::new(),
            relabelled: HashMap::new(),
            merged: HashMap::new(),
            n_new: 0,
        }
    }

    /// Applies decisions in their order.
    ///
    /// # Errors
    ///
    /// Says which decision names a row or label that is not there, or merges in a circle.
    pub fn apply(&mut self, decisions: &[Decision]) -> Result<(), String> {
        for (i, decision) in decisions.iter().enumerate() {
            self.apply_one(decision).map_err(|what| format!("decision {i}: {what}"))?;
        }
        Ok(())
    }

    fn apply_one(&mut self, decision: &Decision) -> Result<(), String> {
        let Decision { row, label, target, .. } = *decision;
        if row >= self.n_rows {
            return Err(format!("row {row} of {}", self.n_rows));
        }
        match decision.action {
            Action::Suspect => {}
            Action::Drop => {
                self.set_dropped(row, true);
                self.pinned.remove(&row);
            }
            Action::Keep => {
                self.set_dropped(row, false);
                self.relabelled.remove(&row);
                self.pinned.insert(row, ());
            }
            Action::Relabel => {
                let target = self.known(target)?;
                self.set_dropped(row, false);
                self.relabelled.insert(row, target);
            }
            Action::Merge => {
                let target = self.known(target)?;
                let from = self.known(Some(label))?;
                // Anywhere on the way, not only at its end: `from` may have been merged before.
                if self.way(target).any(|on_the_way| on_the_way == from) {
                    return Err(format!("a merge of label {label} into itself"));
                }
                self.merged.insert(from, target);
            }
        }
        Ok(())
    }

    /// A label that exists, or the next new one.
    fn known(&mut self, label: Option<u32>) -> Result<u32, String> {
        let label = label.ok_or("no target")?;
        let end = self.n_identities();
        if label == end && self.n_new < NEW_IDENTITIES_MAX && end < u32::MAX - 1 {
            self.n_new += 1;
        } else if label >= end {
            return Err(format!("label {label} of {end} identities"));
        }
        Ok(label)
    }

    fn set_dropped(&mut self, row: u64, drop: bool) {
        let (word, bit) = ((row / 64) as usize, 1 << (row % 64));
        match (self.dropped[word] & bit != 0, drop) {
            (false, true) => self.n_dropped += 1,
            (true, false) => self.n_dropped -= 1,
            _ => return,
        }
        self.dropped[word] ^= bit;
    }

    /// Whether `row` is left out. Rows beyond the last are.
    pub fn is_dropped(&self, row: u64) -> bool {
        let word = self.dropped.get((row / 64) as usize);
        word.is_none_or(|word| word & (1 << (row % 64)) != 0)
    }

    /// Whether somebody said that `row` stays.
    pub fn is_pinned(&self, row: u64) -> bool {
        self.pinned.contains_key(&row)
    }

    /// The identity of `row`, whose label in the data set is `label`; `None` if it is left out.
    pub fn label(&self, row: u64, label: u32) -> Option<u32> {
        if self.is_dropped(row) {
            return None;
        }
        Some(self.resolve(self.relabelled.get(&row).copied().unwrap_or(label)))
    }

    /// Where merges lead from `label`.
    pub fn resolve(&self, label: u32) -> u32 {
        self.way(label).last().unwrap_or(label)
    }

    /// `label`, what it was merged into, and so on. No circle is let in, so this ends.
    fn way(&self, label: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(label), |label| self.merged.get(label).copied())
    }

    /// Every identity that was merged into another, with the one it came to, by label.
    pub fn merges(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<(u32, u32)> =
            self.merged.keys().map(|&label| (label, self.resolve(label))).collect();
        all.sort_unstable();
        all
    }

    /// Rows left out.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped
    }

    /// Rows relabelled one by one and not left out since.
    pub fn n_relabelled(&self) -> u64 {
        self.relabelled.keys().filter(|&&row| !self.is_dropped(row)).count() as u64
    }

    /// Labels are below this: those of the data set and the new ones.
    pub fn n_identities(&self) -> u32 {
        self.n_old + self.n_new
    }

    /// Identities of the data set itself.
    pub fn n_old(&self) -> u32 {
        self.n_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(action: Action, row: u64, label: u32, target: Option<u32>) -> Decision {
        Decision { target, ..Decision::new(row, label, action, "test") }
    }

    #[test]
    fn the_last_decision_about_a_row_counts() {
        let mut view = View::new(70, 3);
        view.apply(&[decide(Action::Drop, 69, 0, None), decide(Action::Drop, 1, 0, None)]).unwrap();
        assert_eq!((view.label(69, 0), view.label(2, 1), view.n_dropped()), (None, Some(1), 2));
        view.apply(&[decide(Action::Keep, 69, 0, None)]).unwrap();
        assert_eq!((view.label(69, 0), view.is_pinned(69), view.n_dropped()), (Some(0), true, 1));
        view.apply(&[decide(Action::Relabel, 1, 0, Some(2))]).unwrap();
        assert_eq!((view.label(1, 0), view.n_dropped(), view.n_relabelled()), (Some(2), 0, 1));
    }

    #[test]
    fn merges_lead_on_and_take_relabelled_rows_along() {
        let mut view = View::new(9, 4);
        let merge = |from, to| decide(Action::Merge, 0, from, Some(to));
        view.apply(&[merge(0, 1), merge(1, 2), decide(Action::Relabel, 8, 3, Some(0))]).unwrap();
        assert_eq!((view.label(0, 0), view.label(8, 3)), (Some(2), Some(2)));
        assert_eq!(view.merges(), [(0, 2), (1, 2)]);
        assert_eq!(
            view.apply(&[merge(2, 0)]).unwrap_err(),
            "decision 0: a merge of label 2 into itself"
        );
    }

    #[test]
    fn a_circle_through_an_identity_that_was_merged_before_is_none_either() {
        let mut view = View::new(9, 6);
        let merge = |from, to| decide(Action::Merge, 0, from, Some(to));
        view.apply(&[merge(0, 1), merge(5, 0)]).unwrap();
        assert_eq!(
            view.apply(&[merge(0, 5)]).unwrap_err(),
            "decision 0: a merge of label 0 into itself"
        );
        assert_eq!((view.resolve(0), view.resolve(5)), (1, 1));
    }

    #[test]
    fn new_identities_are_named_one_after_another() {
        let mut view = View::new(9, 4);
        view.apply(&[decide(Action::Relabel, 0, 3, Some(4))]).unwrap();
        view.apply(&[decide(Action::Relabel, 1, 3, Some(4))]).unwrap();
        assert_eq!(view.n_identities(), 5);
        assert!(view.apply(&[decide(Action::Relabel, 1, 3, Some(6))]).is_err());
        assert!(view.apply(&[decide(Action::Drop, 9, 3, None)]).is_err());
    }
}
