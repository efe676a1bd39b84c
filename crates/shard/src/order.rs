//! In which order an epoch visits the rows, and which of them a rank takes.

use crate::Permutation;

/// The order of one epoch: a function of (rows, seed, epoch) alone.
///
/// Position `p` of the epoch is row [`row_at(p)`](EpochOrder::row_at), whoever asks, so the order
/// does not depend on ranks, workers or where a run was resumed. O(1) memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOrder {
    permutation: Permutation,
}

impl EpochOrder {
    /// The order in which `epoch` visits `len` rows. Seeds and epochs count in all their 64 bits.
    pub fn new(len: u64, seed: u64, epoch: u64) -> EpochOrder {
        let key = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), seed);
        EpochOrder { permutation: Permutation::new(len, key) }
    }

    /// Number of rows, and of positions.
    pub fn len(&self) -> u64 {
        self.permutation.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at `position` of the epoch. O(1), about 20 ns.
    ///
    /// # Panics
    ///
    /// If `position` is not below [`len`](EpochOrder::len).
    pub fn row_at(&self, position: u64) -> u64 {
        self.permutation.apply(position)
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
}

impl Iterator for Share {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let position = self.next.filter(|&p| p < self.order.len())?;
        self.next = position.checked_add(self.world);
        Some(Place { position, row: self.order.row_at(position) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.next.map_or(0, |p| self.order.len().saturating_sub(p));
        let n = usize::try_from(left.div_ceil(self.world)).unwrap_or(usize::MAX);
        (n, Some(n))
    }
}

impl ExactSizeIterator for Share {}
