//! Which images make up which step: arithmetic alone, so that any step can be sought.

use pfc_shard::{EpochOrder, Place};

pub use pfc_shard::mix;

/// The steps of a run, a function of (images, batch, epochs, seed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPlan {
    /// Images of the data set, at least `batch_size`.
    pub n_images: u64,
    /// Images per step, at least 1.
    pub batch_size: u64,
    /// Times that the data set is gone through, unless `steps` decides.
    pub epochs: u64,
    /// Steps of the run, whatever epochs these make; 0 leaves it to `epochs`.
    pub steps: u64,
    /// Seed of order and mirroring.
    pub seed: u64,
}

impl StepPlan {
    /// Whole batches in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.n_images / self.batch_size
    }

    /// Steps of the run.
    pub fn n_steps(&self) -> u64 {
        match self.steps {
            0 => self.steps_per_epoch().saturating_mul(self.epochs),
            steps => steps,
        }
    }

    /// Epochs of the run, of which the last may be a part.
    pub fn n_epochs(&self) -> f64 {
        match self.steps {
            0 => self.epochs as f64,
            steps => steps as f64 / self.steps_per_epoch() as f64,
        }
    }

    /// The same for people, to three decimals: `2.5 epochs`.
    pub fn epochs(&self) -> String {
        let rounded = (self.n_epochs() * 1e3).round() / 1e3;
        format!("{rounded} epoch{}", if rounded == 1.0 { "" } else { "s" })
    }

    /// The epoch, from 0, that step `step` belongs to.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// Position in its epoch of the first image of step `step`.
    pub fn position_of(&self, step: u64) -> u64 {
        step % self.steps_per_epoch() * self.batch_size
    }

    /// Whether `n_done` finished steps complete an epoch.
    pub fn completes_epoch(&self, n_done: u64) -> bool {
        n_done > 0 && n_done.is_multiple_of(self.steps_per_epoch())
    }

    /// The steps nearest to `epochs` epochs.
    pub fn steps_in(&self, epochs: f64) -> u64 {
        (self.steps_per_epoch() as f64 * epochs).round() as u64
    }

    /// The images of step `step`, in order.
    pub fn places(&self, step: u64) -> impl Iterator<Item = Place> + use<> {
        self.places_of_rank(step, 0, 1)
    }

    /// Those of them that `rank` of `world` takes: every `world`-th, from the `rank`-th on.
    ///
    /// # Panics
    ///
    /// If `rank` is not below `world`.
    pub fn places_of_rank(
        &self,
        step: u64,
        rank: usize,
        world: usize,
    ) -> impl Iterator<Item = Place> + use<> {
        let order = EpochOrder::new(self.n_images, self.seed, self.epoch_of(step));
        let share = order.share(self.position_of(step), rank as u32, world as u32);
        share.take(self.images_of_rank(rank, world))
    }

    /// How many images of a step `rank` of `world` takes: the first ranks one more than the others
    /// where they do not divide the batch.
    pub fn images_of_rank(&self, rank: usize, world: usize) -> usize {
        (self.batch_size as usize).saturating_sub(rank).div_ceil(world)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PLAN: StepPlan =
        StepPlan { n_images: 1003, batch_size: 100, epochs: 3, steps: 0, seed: 7 };

    #[test]
    fn steps_epochs_and_positions_count_whole_batches() {
        assert_eq!((PLAN.steps_per_epoch(), PLAN.n_steps()), (10, 30));
        assert_eq!((PLAN.epoch_of(9), PLAN.epoch_of(10)), (0, 1));
        assert_eq!((PLAN.position_of(9), PLAN.position_of(10)), (900, 0));
        assert!(!PLAN.completes_epoch(0) && !PLAN.completes_epoch(9));
        assert!(PLAN.completes_epoch(10));
        assert_eq!(PLAN.steps_in(0.25), 3);
    }

    #[test]
    fn a_number_of_steps_takes_the_place_of_the_epochs() {
        let plan = StepPlan { steps: 25, ..PLAN };
        assert_eq!((plan.n_steps(), plan.n_epochs()), (25, 2.5));
        assert_eq!((plan.steps_per_epoch(), PLAN.n_epochs()), (10, 3.0));
        let third = StepPlan { n_images: 300, steps: 1, ..PLAN };
        assert_eq!(third.epochs(), "0.333 epochs");
        assert_eq!(StepPlan { steps: 10, ..PLAN }.epochs(), "1 epoch");
    }

    #[test]
    fn an_epoch_shows_no_image_twice_and_the_next_one_another_order() {
        let epoch = |e: u64| (e * 10..e * 10 + 10).flat_map(|s| PLAN.places(s)).map(|p| p.row);
        assert_eq!(epoch(0).collect::<BTreeSet<_>>().len(), 1000);
        assert_ne!(epoch(0).collect::<Vec<_>>(), epoch(1).collect::<Vec<_>>());
    }

    #[test]
    fn the_ranks_share_a_step_without_gap_or_overlap() {
        for world in [1, 2, 3, 7] {
            let of_rank = |rank| PLAN.places_of_rank(13, rank, world).collect::<Vec<_>>();
            let mut all: Vec<_> = (0..world).flat_map(of_rank).collect();
            all.sort_by_key(|place| place.position);
            assert_eq!(all, PLAN.places(13).collect::<Vec<_>>(), "{world} ranks");
            let sizes: Vec<_> = (0..world).map(|rank| PLAN.images_of_rank(rank, world)).collect();
            assert_eq!(sizes.iter().sum::<usize>(), 100);
            assert!(sizes[0] - sizes[world - 1] <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn about_half_of_the_images_are_mirrored_and_not_the_same_ones_each_epoch() {
        let mirrored = |e: u64| -> BTreeSet<u64> {
            let places = (e * 10..e * 10 + 10).flat_map(|s| PLAN.places(s));
            places.filter(|p| p.mirror).map(|p| p.row).collect()
        };
        let (first, second) = (mirrored(0), mirrored(1));
        // Four standard deviations of a fair coin thrown 1000 times.
        assert!((437..=563).contains(&first.len()), "{}", first.len());
        let both = first.intersection(&second).count();
        assert!((195..=305).contains(&both), "{both}");
    }
}
