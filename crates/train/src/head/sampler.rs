//! Which rows of centres take part in a step.

use pfc_shard::Permutation;
use rayon::prelude::*;

use super::{
    HeadError,
    random::{Purpose, key},
    range::ClassRange,
};

/// What a sampler is asked.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Training step.
    pub step: u64,
    /// Global ids of the classes in the global batch, ascending, each once.
    pub positives: &'a [u64],
    /// The classes of this rank.
    pub range: ClassRange,
}

/// Chooses the rows of centres of a step.
pub trait Sampler: Send {
    /// This rank's rows, counted from the start of its range, strictly ascending; every positive of
    /// the range is among them.
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32>;

    /// Rows that the draw of `step` will most likely hold, ascending, as far as they can be told
    /// without its labels.
    fn likely(&mut self, step: u64, range: ClassRange) -> Vec<u32> {
        let _ = (step, range);
        Vec::new()
    }
}

/// All positives, and negatives drawn uniformly without replacement (PPRN, arXiv 2010.05222).
///
/// # Definition
///
/// With `n = floor(r * C)` and P positives over all ranks, the classes are put in the order of a
/// [`Permutation`] of `0..C` keyed by (seed, step), and the first `n - P` of it that are not
/// positive join the positives. So the set has exactly n classes (P, if that is more), each set of
/// negatives is equally likely, and whether a class is in it depends on the seed, the step, the
/// labels of the global batch and the class, not on the number of ranks.
///
/// # Cost
///
/// O(n + P log P) time, none of it proportional to C unless r is 1, and memory for this rank's rows.
#[derive(Debug, Clone)]
pub struct Pprn {
    rows_per_step: u64,
    seed: u64,
}

impl Pprn {
    /// A sampler of `rows_per_step` classes over all ranks; the number of classes or more takes all.
    #[must_use]
    pub fn new(rows_per_step: u64, seed: u64) -> Pprn {
        Pprn { rows_per_step, seed }
    }
}

impl Sampler for Pprn {
    fn draw(&mut self, draw: &Draw<'_>) -> Vec<u32> {
        let Draw { step, positives, range } = *draw;
        if self.rows_per_step >= range.classes() {
            return (0..range.len() as u32).collect();
        }
        let n_negatives = self.rows_per_step.saturating_sub(positives.len() as u64);
        if n_negatives == 0 {
            return positives.iter().filter_map(|&class| range.row_of(class)).collect();
        }
        let order = Permutation::new(range.classes(), key(self.seed, Purpose::Sample, step));
        let mut places: Vec<(u64, u64)> =
            positives.iter().map(|&class| (order.invert(class), class)).collect();
        places.sort_unstable();
        let (end, n_inside) = prefix_with(n_negatives, &places);
        let mut rows: Vec<u32> =
            (0..end).into_par_iter().filter_map(|place| range.row_of(order.apply(place))).collect();
        rows.extend(places[n_inside..].iter().filter_map(|&(_, class)| range.row_of(class)));
        rows.par_sort_unstable();
        rows
    }

    fn likely(&mut self, step: u64, range: ClassRange) -> Vec<u32> {
        // Without positives; those of the step push a few of these out.
        self.draw(&Draw { step, positives: &[], range })
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

/// Holds a sampler to its promise.
pub(super) fn check_rows(rows: &[u32], step: u64, n_rows: usize) -> Result<(), HeadError> {
    let problem = if let Some(at) = rows.windows(2).position(|pair| pair[0] >= pair[1]) {
        format!("row {} follows row {}", rows[at + 1], rows[at])
    } else if let Some(&last) = rows.last().filter(|&&last| last as usize >= n_rows) {
        format!("row {last} is past the last of {n_rows}")
    } else {
        return Ok(());
    };
    Err(HeadError::Sample { step, problem })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        fn any_number_of_ranks_draws_the_same_classes(
            classes in 1u64..2000,
            share in 0.0f64..=1.0,
            step: u64,
            world in 1usize..9,
            labels in proptest::collection::btree_set(0u64..2000, 0..50),
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
    fn sampling_a_handful_of_the_largest_head_touches_only_a_handful() {
        // With any work or memory per class this would take 16 GiB and half a minute.
        let classes = u64::from(u32::MAX);
        let set = draw_solo(1000, classes, 3, &[classes - 1]);
        assert_eq!(set.len(), 1000);
        assert_eq!(set.last(), Some(&(classes - 1)));
    }
}
