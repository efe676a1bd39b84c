//! In which order batches go through a data set.

use pfc_shard::EpochOrder;

use crate::failure::Failure;

/// The rank that reads, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// This rank.
    pub rank: u64,
    /// All ranks.
    pub world: u64,
}

impl Rank {
    /// Checks that the rank is one of the world's.
    ///
    /// # Errors
    ///
    /// If `rank` is not below `world`.
    pub fn new(rank: u64, world: u64) -> Result<Rank, Failure> {
        match rank < world {
            true => Ok(Rank { rank, world }),
            false => Err(Failure::value(
                format!("rank {rank} of a world of {world}"),
                "ranks run from 0 to world - 1",
            )),
        }
    }

    /// How many of `n` positions the rank takes: `rank`, `rank + world`, ….
    pub fn share(self, n: u64) -> u64 {
        n.saturating_sub(self.rank).div_ceil(self.world)
    }

    /// The position of the rank's item `k`, which is below its share.
    pub fn position(self, k: u64) -> u64 {
        self.rank + k * self.world
    }
}

/// The images of an epoch.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// As training visits them.
    Training(EpochOrder),
    /// As they are stored, none mirrored.
    Stored(u64),
}

impl Order {
    /// Number of images.
    pub fn len(&self) -> u64 {
        match self {
            Order::Training(order) => order.len(),
            Order::Stored(len) => *len,
        }
    }

    /// The image at a position, and whether training mirrors it.
    pub fn at(&self, position: u64) -> (usize, bool) {
        match self {
            Order::Training(order) => (order.row_at(position) as usize, order.mirrors(position)),
            Order::Stored(_) => (position as usize, false),
        }
    }
}

/// Which images make up which batch of a rank.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The epoch.
    pub order: Order,
    /// The rank.
    pub rank: Rank,
    /// Images of a batch on one rank, at least 1.
    pub batch_size: u64,
    /// Leaves out what does not fill a batch on every rank, so that all have as many batches.
    pub drop_last: bool,
}

impl Plan {
    /// Batches of the rank.
    pub fn n_batches(&self) -> u64 {
        let n = self.order.len();
        match self.drop_last {
            true => n / self.batch_size.saturating_mul(self.rank.world),
            false => self.rank.share(n).div_ceil(self.batch_size),
        }
    }

    /// The images of a batch, which is below [`n_batches`](Plan::n_batches), in order.
    pub fn images(&self, batch: u64) -> impl ExactSizeIterator<Item = (usize, bool)> + use<> {
        let Plan { order, rank, batch_size, .. } = *self;
        let first = batch * batch_size;
        let n = rank.share(order.len()).saturating_sub(first).min(batch_size);
        (0..n as usize).map(move |k| order.at(rank.position(first + k as u64)))
    }
}
