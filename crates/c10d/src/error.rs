//! Why ranks could not meet or exchange something.

use std::time::Duration;

/// Why ranks could not meet or exchange something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum C10dError {
    /// The environment contradicts itself.
    #[error("environment variable {variable} is `{value}`, but has to be {expected}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it holds; empty if it is not set.
        value: String,
        /// What it could hold.
        expected: String,
    },
    /// The ranks did not find each other.
    #[error("rank {rank} of {world} did not meet the others at {address}: {cause}")]
    Rendezvous {
        /// This rank.
        rank: usize,
        /// Ranks that there should be.
        world: usize,
        /// Host and port of rank 0.
        address: String,
        /// libtorch's own words.
        cause: String,
    },
    /// Another rank ended without a word.
    #[error("rank {gone} is gone: {operation} on rank {rank} cannot end")]
    Gone {
        /// The rank that ended.
        gone: usize,
        /// The collective operation.
        operation: &'static str,
        /// This rank.
        rank: usize,
    },
    /// An operation failed while all ranks are there, as far as is known.
    #[error("{operation} failed on rank {rank}: {cause}")]
    Failed {
        /// This rank.
        rank: usize,
        /// The collective operation.
        operation: &'static str,
        /// libtorch's own words.
        cause: String,
    },
    /// An operation took longer than the group allows.
    #[error("{operation} on rank {rank} did not end within {} s", timeout.as_secs_f64())]
    TimedOut {
        /// This rank.
        rank: usize,
        /// The collective operation.
        operation: &'static str,
        /// The group's timeout.
        timeout: Duration,
    },
    /// Another rank gave up.
    #[error("rank {by} stopped: {reason}")]
    Aborted {
        /// The first rank that gave up.
        by: usize,
        /// Its reason.
        reason: String,
    },
}

impl C10dError {
    /// The way out, for the causes that have a common one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            C10dError::Environment { .. } => Some(
                "start the ranks with `--nproc-per-node`, `torchrun` or `srun`, which set RANK, \
                 WORLD_SIZE, MASTER_ADDR and MASTER_PORT together"
                    .to_owned(),
            ),
            C10dError::Rendezvous { world, address, .. } => Some(format!(
                "all {world} ranks have to be started within the timeout and must reach {address}; \
                 MASTER_ADDR and MASTER_PORT name it, GLOO_SOCKET_IFNAME the network interface"
            )),
            C10dError::Gone { gone, .. } => Some(format!(
                "rank {gone} crashed, was killed or lost its machine: what it said last, or `dmesg` \
                 there, may say why; the last checkpoint is whole, and `--resume` goes on from it"
            )),
            C10dError::Failed { .. } => Some(
                "the network between the ranks may be at fault; the last checkpoint is whole, and \
                 `--resume` goes on from it"
                    .to_owned(),
            ),
            C10dError::TimedOut { .. } => Some(
                "a rank hangs or is much slower than the others; if that is expected, raise the \
                 timeout"
                    .to_owned(),
            ),
            // The rank that gave up says it.
            C10dError::Aborted { .. } => None,
        }
    }
}
