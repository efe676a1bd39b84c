//! Positives and negatives drawn at random, as Partial FC has it.

use std::ops::Range;

use rayon::prelude::*;

use super::{BlockShare, Draw, DrawPlan, Sampler};
use crate::{
    range::ClassRange,
    rng::{Purpose, key},
};

/// All positives, and negatives drawn at random without replacement (PPRN, arXiv 2010.05222).
///
/// # Definition
///
/// With `n = floor(r * C)` and P positives over all ranks, `n - P` of the `C - P` other classes join
/// the positives, so that the set has exactly n classes (P, if that is more). Classes are cut into
/// blocks of `2^b`, b the least that leaves at most 1,024 of them but 12 or more; the last may be
/// shorter. The others are counted through from class 0, and the k-th stands for the stretch from
/// `k q` to `(k + 1) q`, `q = (n - P) / (C - P)`; shifted by a number from 0 to 1 that the seed and
/// the step decide, a block takes as many as there are whole numbers in its stretches. Which ones:
/// the block's classes are put in the order of a [`Permutation`](pfc_shard::Permutation) keyed by (seed, step, block), and
/// the first that are not positive are taken.
///
/// So every negative is equally likely, each block has its share of them to within one, and within
/// a block each set is equally likely. (`arcface_torch` does the same with one block a rank.)
/// Whether a class is in the set depends on the seed, the step, the labels of the global batch and
/// the class, not on the number of ranks.
///
/// # Cost
///
/// Of a rank that holds a share of 1/W: O(n / W + P log P) time, for its own blocks alone (those at
/// either end of it are gone through as a whole), and memory for its rows.
#[derive(Debug, Clone)]
pub struct Pprn {
    rows_per_step: u64,
    seed: u64,
}

const BLOCKS_MAX: u64 = 1024;
const BLOCK_BITS_MIN: u32 = 12;

impl Pprn {
    /// A sampler of `rows_per_step` classes over all ranks; the number of classes or more takes all.
    #[must_use]
    pub fn new(rows_per_step: u64, seed: u64) -> Pprn {
        Pprn { rows_per_step, seed }
    }
}

impl Sampler for Pprn {
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32> {
        let Draw { positives, range, .. } = *draw;
        if self.rows_per_step >= range.classes() {
            return (0..range.len() as u32).collect();
        }
        let n_negatives = self.rows_per_step.saturating_sub(positives.len() as u64);
        if n_negatives == 0 {
            return positives.iter().filter_map(|&class| range.row_of(class)).collect();
        }
        if range.is_empty() {
            return Vec::new();
        }
        let blocks = self.blocks(draw, n_negatives);
        let rows: Vec<Vec<u32>> =
            blocks.own().into_par_iter().map(|block| blocks.draw(block)).collect();
        rows.concat()
    }

    fn plan(&mut self, draw: &Draw<'_>) -> Option<DrawPlan> {
        let (n_positives, classes) = (draw.positives.len() as u64, draw.range.classes());
        if draw.range.len() as u64 != classes {
            return None;
        }
        let n_negatives = self.rows_per_step.min(classes).saturating_sub(n_positives);
        let blocks = self.blocks(draw, n_negatives);
        let mut n_rows = 0;
        let share = |block| {
            let share = BlockShare { slot: n_rows, ..blocks.share(block) };
            n_rows += share.n_negatives + share.n_positives;
            share
        };
        let shares = blocks.own().map(share).collect();
        Some(DrawPlan { shares, n_rows: n_rows as usize })
    }

    fn likely(&mut self, step: u64, range: ClassRange) -> Vec<u32> {
        // Without positives; those of the step push a few of these out.
        self.draw(&Draw { step, positives: &[], range })
    }
}

impl Pprn {
    fn blocks<'a>(&self, draw: &Draw<'a>, n_negatives: u64) -> Blocks<'a> {
        let Draw { step, positives, range } = *draw;
        Blocks {
            block_bits: block_bits(range.classes()),
            n_negatives,
            key: key(self.seed, Purpose::Sample, step),
            positives,
            range,
        }
    }
}

/// The least number of bits whose blocks are no more than there may be.
fn block_bits(classes: u64) -> u32 {
    let block_len = classes.div_ceil(BLOCKS_MAX).next_power_of_two();
    block_len.ilog2().max(BLOCK_BITS_MIN)
}

/// One draw, block by block.
struct Blocks<'a> {
    block_bits: u32,
    n_negatives: u64,
    key: u64,
    positives: &'a [u64],
    range: ClassRange,
}

impl Blocks<'_> {
    /// The numbers of the blocks that this rank has a part in; it has one at least.
    fn own(&self) -> Range<u64> {
        let ids = self.range.ids();
        ids.start >> self.block_bits..((ids.end - 1) >> self.block_bits) + 1
    }

    /// What a block takes, as if it were the first of all.
    fn share(&self, block: u64) -> BlockShare {
        let first = block << self.block_bits;
        let end = (first + (1 << self.block_bits)).min(self.range.classes());
        let first_positive = self.n_positive_before(first);
        BlockShare {
            first,
            len: end - first,
            slot: 0,
            n_negatives: self.n_drawn_before(end) - self.n_drawn_before(first),
            first_positive: first_positive as u64,
            n_positives: (self.n_positive_before(end) - first_positive) as u64,
            key: key(self.key, Purpose::Sample, block),
        }
    }

    /// The rows of this rank in a block, ascending.
    fn draw(&self, block: u64) -> Vec<u32> {
        let classes = self.share(block).classes(self.positives);
        classes.into_iter().filter_map(|class| self.range.row_of(class)).collect()
    }

    fn n_positive_before(&self, class: u64) -> usize {
        self.positives.partition_point(|&positive| positive < class)
    }

    /// How many negatives are drawn of the classes before this one: exactly all of them before the
    /// last, and on average the same share of any stretch.
    fn n_drawn_before(&self, class: u64) -> u64 {
        let n_others = u128::from(self.range.classes() - self.positives.len() as u64);
        if n_others == 0 {
            return 0;
        }
        let n_before = u128::from(class - self.n_positive_before(class) as u64);
        let shift = (u128::from(self.key) * n_others) >> u64::BITS;
        ((n_before * u128::from(self.n_negatives) + shift) / n_others) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draw(
        sampler: &mut Pprn,
        classes: u64,
        (rank, world): (usize, usize),
        (step, positives): (u64, &[u64]),
    ) -> Vec<u64> {
        let range = ClassRange::of_rank(classes, rank, world);
        let rows = sampler.draw(&Draw { step, positives, range });
        rows.into_iter().map(|row| range.first() + u64::from(row)).collect()
    }

    fn draw_solo(rows: u64, classes: u64, step: u64, positives: &[u64]) -> Vec<u64> {
        draw(&mut Pprn::new(rows, 7), classes, (0, 1), (step, positives))
    }

    proptest! {
        #[test]
        fn the_set_is_exactly_as_large_as_asked_and_holds_every_positive(
            classes in 1u64..3000,
            share in 0.0f64..=1.0,
            step: u64,
            labels in proptest::collection::btree_set(0u64..3000, 0..200),
        ) {
            let positives: Vec<u64> = labels.into_iter().filter(|&c| c < classes).collect();
            let rows = (share * classes as f64).floor() as u64;
            let set = draw_solo(rows, classes, step, &positives);
            prop_assert!(set.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(set.len() as u64, rows.max(positives.len() as u64));
            prop_assert!(set.iter().all(|&class| class < classes));
            prop_assert!(positives.iter().all(|class| set.binary_search(class).is_ok()));
        }

        #[test]
        fn a_plan_that_is_carried_out_elsewhere_gives_the_rows_of_the_draw(
            classes in 1u64..9000,
            share in 0.0f64..=1.0,
            step: u64,
            labels in proptest::collection::btree_set(0u64..9000, 0..200),
        ) {
            let positives: Vec<u64> = labels.into_iter().filter(|&c| c < classes).collect();
            let mut sampler = Pprn::new((share * classes as f64).floor() as u64, 7);
            let range = ClassRange::of_rank(classes, 0, 1);
            let draw = Draw { step, positives: &positives, range };
            let plan = sampler.plan(&draw).unwrap();
            let rows = sampler.draw(&draw);
            prop_assert_eq!(plan.n_rows, rows.len());
            prop_assert_eq!(plan.rows(&positives), rows);
            let mut slot = 0;
            for share in &plan.shares {
                prop_assert_eq!(share.slot, slot);
                slot += share.n_negatives + share.n_positives;
            }
            let two = Draw { range: ClassRange::of_rank(classes.max(2), 0, 2), ..draw };
            prop_assert!(sampler.plan(&two).is_none());
        }

        #[test]
        fn any_number_of_ranks_draws_the_same_classes(
            classes in 1u64..40_000,
            share in 0.0f64..=1.0,
            step: u64,
            world in 1usize..9,
            labels in proptest::collection::btree_set(0u64..40_000, 0..50),
        ) {
            let positives: Vec<u64> = labels.into_iter().filter(|&c| c < classes).collect();
            let mut sampler = Pprn::new((share * classes as f64).floor() as u64, 7);
            let mut of_ranks = |world| -> Vec<u64> {
                (0..world)
                    .flat_map(|r| draw(&mut sampler, classes, (r, world), (step, &positives)))
                    .collect()
            };
            prop_assert_eq!(of_ranks(world), of_ranks(1));
        }
    }

    #[test]
    fn negatives_are_drawn_equally_often() {
        let (classes, rows, steps) = (500u64, 50, 4000);
        let positives = [3, 77, 400];
        let mut hits = vec![0f64; classes as usize];
        for step in 0..steps {
            for class in draw_solo(rows, classes, step, &positives) {
                hits[class as usize] += 1.0;
            }
        }
        let share = (rows as f64 - 3.0) / (classes as f64 - 3.0);
        let expected = share * steps as f64;
        let variance = expected * (1.0 - share);
        let mut chi_squared = 0.0;
        for (class, &n) in hits.iter().enumerate() {
            if positives.contains(&(class as u64)) {
                assert_eq!(n, steps as f64);
            } else {
                chi_squared += (n - expected).powi(2) / variance;
            }
        }
        // 496 degrees of freedom: mean 496, deviation 31.5; five deviations either way.
        assert!((chi_squared - 496.0).abs() < 160.0, "{chi_squared}");
    }

    #[test]
    fn a_draw_depends_on_seed_and_step() {
        let first = draw_solo(100, 1000, 1, &[5]);
        assert_eq!(first, draw_solo(100, 1000, 1, &[5]));
        assert_ne!(first, draw_solo(100, 1000, 2, &[5]));
        assert_ne!(first, draw(&mut Pprn::new(100, 8), 1000, (0, 1), (1, &[5])));
    }

    #[test]
    fn pairs_of_classes_meet_as_often_as_chance_has_it() {
        let (classes, rows, steps) = (40u64, 10, 20_000);
        let mut meetings = 0.0;
        for step in 0..steps {
            let set = draw_solo(rows, classes, step, &[]);
            meetings += f64::from(u8::from(set.contains(&8) && set.contains(&9)));
        }
        let expected = 10.0 * 9.0 / (40.0 * 39.0);
        let deviation = (expected * (1.0 - expected) / steps as f64).sqrt();
        assert!((meetings / steps as f64 - expected).abs() < 5.0 * deviation);
    }

    #[test]
    fn every_block_has_its_share_and_no_more() {
        // 244 blocks of 4,096 classes and one of 576; at 0.01 a full one has 40.96 of 10,000.
        let set = draw_solo(10_000, 1_000_000, 3, &[]);
        assert_eq!(block_bits(1_000_000), 12);
        for block in 0..244u64 {
            let n_drawn = set.iter().filter(|&&class| class >> 12 == block).count();
            assert!((40..=41).contains(&n_drawn), "block {block}: {n_drawn}");
        }
    }

    #[test]
    fn a_block_is_at_most_a_thousandth_of_a_large_head() {
        assert_eq!(block_bits(1), 12);
        // 100,000,000 / 1024 = 97,657 classes, below 2^17.
        assert_eq!(block_bits(100_000_000), 17);
        assert_eq!(block_bits(u64::from(u32::MAX)), 22);
    }

    #[test]
    fn a_rank_of_a_thousand_draws_its_own_share_alone() {
        // 400 million rows in all: a rank that went through them would take minutes.
        let range = ClassRange::of_rank(u64::from(u32::MAX), 3, 1000);
        let rows = Pprn::new(400_000_000, 7).draw(&Draw { step: 1, positives: &[], range });
        // A draw from the blocks at its ends is a matter of chance: the deviation is some 400.
        assert!((398_000..=402_000).contains(&rows.len()), "{}", rows.len());
    }

    #[test]
    fn sampling_a_handful_of_the_largest_head_touches_only_a_handful() {
        // With any work or memory per class this would take 16 GiB and half a minute.
        let classes = u64::from(u32::MAX);
        let set = draw_solo(1000, classes, 3, &[classes - 1]);
        assert_eq!(set.len(), 1000);
        assert_eq!(set.last(), Some(&(classes - 1)));
    }
}
