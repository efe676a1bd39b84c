//! In which order an epoch visits the rows, and which of them a rank takes.

use crate::Permutation;

/// The order of one epoch: a function of (rows, seed, epoch) alone.
///
/// Position `p` of the epoch is row [`row_at(p)`](EpochOrder::row_at), whoever asks, so the order
/// does not depend on ranks, workers or where a run was resumed. O(1) memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOrder {
    permutation: Permutation,
    mirror_key: u64,
}

impl EpochOrder {
    /// The order in which `epoch` visits `len` rows. Seeds and epochs count in all their 64 bits.
    pub fn new(len: u64, seed: u64, epoch: u64) -> EpochOrder {
        let key = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), seed);
        let mirror_key = mix(mix(seed) ^ epoch);
        EpochOrder { permutation: Permutation::new(len, key), mirror_key }
    }

    /// Number of rows, and of positions.
    pub fn len(&self) -> u64 {
        self.permutation.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at `position` of the epoch. O(1), some tens of nanoseconds.
    ///
    /// # Panics
    ///
    /// If `position` is not below [`len`](EpochOrder::len).
    pub fn row_at(&self, position: u64) -> u64 {
        self.permutation.apply(position)
    }

    /// Whether the image at `position` is to be mirrored left to right: half of them are, other ones
    /// each epoch. A function of (seed, epoch, position) alone.
    pub fn mirrors(&self, position: u64) -> bool {
        mix(self.mirror_key ^ position) >> 63 == 1
    }

    /// What rank `rank` of `world` takes from position `start` to the end of the epoch: positions
    /// `start + rank`, `start + rank + world`, `start + rank + 2·world`, ….
    ///
    /// The first `k` items of all ranks together are the positions `start..start + k·world`, so a
    /// step of global batch G visits the same rows for every `world` that divides G, and a run that
    /// stopped at a position can go on from there with any other number of ranks. Near the end of
    /// the epoch ranks may differ by one item.
    ///
    /// # Panics
    ///
    /// If `rank` is not below `world`.
    pub fn share(&self, start: u64, rank: u32, world: u32) -> Share {
        assert!(rank < world, "rank {rank} of a world of {world}");
        Share { order: *self, next: start.checked_add(rank.into()), world: world.into() }
    }
}

/// Iterator over one rank's part of an epoch; see [`EpochOrder::share`].
#[derive(Debug, Clone)]
pub struct Share {
    order: EpochOrder,
    next: Option<u64>,
    world: u64,
}

/// One item of a [`Share`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Global position in the epoch.
    pub position: u64,
    /// The row to visit there.
    pub row: u64,
    /// Whether to mirror it, as [`EpochOrder::mirrors`] says.
    pub mirror: bool,
}

/// A number that looks random and is a function of `x`: what SplitMix64 gives from state `x`.
#[must_use]
pub fn mix(x: u64) -> u64 {
    pfc_random::mix(x.wrapping_add(pfc_random::GOLDEN_GAMMA))
}

impl Iterator for Share {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let position = self.next.filter(|&p| p < self.order.len())?;
        self.next = position.checked_add(self.world);
        let (row, mirror) = (self.order.row_at(position), self.order.mirrors(position));
        Some(Place { position, row, mirror })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.next.map_or(0, |p| self.order.len().saturating_sub(p));
        let n = usize::try_from(left.div_ceil(self.world)).unwrap_or(usize::MAX);
        (n, Some(n))
    }
}

impl ExactSizeIterator for Share {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn rows(share: Share) -> Vec<u64> {
        share.map(|place| place.row).collect()
    }

    #[test]
    fn an_epoch_visits_every_row_once() {
        let order = EpochOrder::new(1_000, 1, 2);
        let mut visited = rows(order.share(0, 0, 1));
        visited.sort_unstable();
        assert!(visited.into_iter().eq(0..1_000));
    }

    #[test]
    fn the_global_order_does_not_depend_on_the_number_of_ranks() {
        let order = EpochOrder::new(1_003, 1, 2);
        let start = 7;
        let alone: Vec<Place> = order.share(start, 0, 1).collect();
        for world in [2, 3, 4, 64, 2_000] {
            let mut together: Vec<Place> =
                (0..world).flat_map(|rank| order.share(start, rank, world)).collect();
            together.sort_by_key(|place| place.position);
            assert_eq!(together, alone, "{world} ranks");
        }
    }

    #[test]
    fn a_step_visits_the_same_rows_for_every_world_that_divides_the_batch() {
        let (order, batch, step) = (EpochOrder::new(500, 3, 0), 24, 5);
        let of = |world: u32| -> HashSet<u64> {
            let share = |rank| order.share(step * batch, rank, world);
            (0..world).flat_map(|r| rows(share(r)).into_iter().take(24 / world as usize)).collect()
        };
        let alone = of(1);
        assert_eq!(alone.len(), 24);
        [2, 3, 4, 6, 8, 12, 24].into_iter().for_each(|world| assert_eq!(of(world), alone));
    }

    #[test]
    fn a_share_resumes_at_any_position() {
        let order = EpochOrder::new(100, 3, 1);
        let whole: Vec<Place> = order.share(0, 1, 4).collect();
        assert_eq!(order.share(40, 1, 4).collect::<Vec<_>>(), whole[10..]);
    }

    #[test]
    fn epochs_and_seeds_are_not_interchangeable() {
        let order = |seed, epoch| rows(EpochOrder::new(50, seed, epoch).share(0, 0, 1));
        let all = [order(1, 2), order(2, 1), order(0, 3), order(3, 0), order(1 << 40, 0)];
        let distinct: HashSet<&Vec<u64>> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn about_half_of_the_images_are_mirrored_and_not_the_same_ones_each_epoch() {
        let mirrored = |epoch| -> HashSet<u64> {
            let order = EpochOrder::new(1000, 7, epoch);
            (0..1000).filter(|position| order.mirrors(*position)).collect()
        };
        let (first, second) = (mirrored(0), mirrored(1));
        // Four standard deviations of a fair coin thrown 1000 times.
        assert!((437..=563).contains(&first.len()), "{}", first.len());
        let both = first.intersection(&second).count();
        assert!((195..=305).contains(&both), "{both}");
    }

    /// The first outputs of splitmix64 with seed 0, as published with it.
    #[test]
    fn mix_is_splitmix64() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_share_knows_its_length_and_ends() {
        let order = EpochOrder::new(10, 0, 0);
        assert_eq!(order.share(0, 0, 3).len(), 4);
        assert_eq!(order.share(0, 2, 3).len(), 3);
        assert_eq!(order.share(10, 0, 3).len(), 0);
        assert_eq!(order.share(u64::MAX, 2, 3).next(), None);
        let mut last = order.share(9, 0, u32::MAX);
        assert_eq!(last.by_ref().count(), 1);
        assert_eq!(EpochOrder::new(0, 0, 0).share(0, 0, 1).next(), None);
    }
}
