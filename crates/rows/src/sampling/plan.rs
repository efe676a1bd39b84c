//! A draw block by block, which whoever has the numbers can carry out.

use pfc_shard::Permutation;
use rayon::prelude::*;

/// What each block of classes takes in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawPlan {
    /// In the order of the classes, all of them.
    pub shares: Vec<BlockShare>,
    /// Rows that they take together.
    pub n_rows: usize,
}

/// What one block of classes takes: all of its positives, and the first of the others in the order of the
/// [`Permutation`] of its length and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShare {
    /// First class of the block.
    pub first: u64,
    /// Number of classes, 1 or more.
    pub len: u64,
    /// Rows that the blocks before it take.
    pub slot: u64,
    /// Classes that are taken beside the positives.
    pub n_negatives: u64,
    /// Position of its first positive among all.
    pub first_positive: u64,
    /// Number of its positives.
    pub n_positives: u64,
    /// Key of the permutation.
    pub key: u64,
}

impl DrawPlan {
    /// The rows, strictly ascending; with all classes on one rank, a class is its row.
    ///
    /// * `positives`: those that the plan was made with
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[must_use]
    pub fn rows(&self, positives: &[u64]) -> Vec<u32> {
        let rows = |share: &BlockShare| -> Vec<u32> {
            share.classes(positives).into_iter().map(|class| class as u32).collect()
        };
        self.shares.par_iter().map(rows).collect::<Vec<_>>().concat()
    }
}

impl BlockShare {
    /// Its classes, ascending.
    pub(super) fn classes(&self, positives: &[u64]) -> Vec<u64> {
        let first_positive = self.first_positive as usize;
        let positives = &positives[first_positive..][..self.n_positives as usize];
        let order = Permutation::new(self.len, self.key);
        let mut places: Vec<(u64, u64)> =
            positives.iter().map(|&class| (order.invert(class - self.first), class)).collect();
        places.sort_unstable();
        let (end, n_inside) = prefix_with(self.n_negatives, &places);
        let drawn = (0..end).map(|place| self.first + order.apply(place));
        let others = places[n_inside..].iter().map(|&(_, class)| class);
        let mut classes: Vec<u64> = drawn.chain(others).collect();
        classes.sort_unstable();
        classes
    }
}

/// The shortest prefix of the order that holds `n_negatives` classes besides the positives, and
/// how many positives it holds.
fn prefix_with(n_negatives: u64, places: &[(u64, u64)]) -> (u64, usize) {
    let mut end = n_negatives;
    let mut n_inside = 0;
    for &(place, _) in places {
        if place >= end {
            break;
        }
        end += 1;
        n_inside += 1;
    }
    (end, n_inside)
}
