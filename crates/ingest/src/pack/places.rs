//! Which image of the source comes at which place of the output.

use pfc_shard::Permutation;

use super::Order;

/// Which entry of the source comes at which place; a function of the order, the seed and the number
/// of images alone.
#[derive(Debug)]
pub enum Places {
    Random(Permutation),
    Source,
}

impl Places {
    /// The places of `total` images.
    pub fn new(order: Order, seed: u64, total: u64) -> Places {
        match order {
            // A key of its own, so that an epoch of the same seed is no repetition of this order.
            Order::Random => Places::Random(Permutation::new(total, seed ^ PACK_KEY)),
            Order::Source => Places::Source,
        }
    }

    /// The entry at `place`.
    pub fn entry_at(&self, place: u64) -> u64 {
        match self {
            Places::Random(permutation) => permutation.apply(place),
            Places::Source => place,
        }
    }
}

/// "pfc-pack" as a number.
const PACK_KEY: u64 = u64::from_be_bytes(*b"pfc-pack");
