//! Why ranks could not meet, or a collective failed.

use std::time::Duration;

/// Why ranks could not meet, or a collective failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum C10dError {
    /// The environment contradicts itself.
    #[error("environment variable {variable} is `{value}`, but has to be {expected}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value; empty if it is not set.
        value: String,
        /// The values that it may have.
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
    #[error(
        "{operation} on rank {rank} did not end within {} s: {}",
        timeout.as_secs_f64(),
        waited_for(late)
    )]
    TimedOut {
        /// This rank.
        rank: usize,
        /// The collective operation.
        operation: &'static str,
        /// The group's timeout.
        timeout: Duration,
        /// The ranks that had not come to the operation; empty if all had.
        late: Vec<usize>,
    },
    /// A backward pass left parameters without a gradient.
    #[error("the backward pass gave no gradient to {}", some(parameters))]
    NoGradient {
        /// Their names.
        parameters: Vec<String>,
    },
    /// Several ranks use one GPU.
    #[error("rank {first} and rank {second} both use {device} of {host}")]
    SharedDevice {
        /// A rank.
        first: usize,
        /// Another one.
        second: usize,
        /// The GPU.
        device: String,
        /// Their machine.
        host: String,
    },
    /// The process may open too few files for that many ranks.
    #[error(
        "a rank of {world} needs about {needed} open files and sockets, but this process may have \
         {limit}"
    )]
    Files {
        /// Number of ranks.
        world: usize,
        /// Files and sockets needed, those that are open already included.
        needed: u64,
        /// The limit of the process, `RLIMIT_NOFILE`.
        limit: u64,
    },
    /// The process may start too few threads.
    #[error("a rank needs {needed} more threads than it has, which the system refuses: {cause}")]
    Threads {
        /// Threads needed beside those that run already.
        needed: usize,
        /// The system's reason.
        cause: String,
    },
    /// Another rank sent something that this one does not understand.
    #[error("rank {rank} sent {what} that this rank cannot read: {cause}")]
    Foreign {
        /// The other rank.
        rank: usize,
        /// What the operation was.
        what: &'static str,
        /// Why it cannot be read.
        cause: String,
    },
    /// The program was asked to stop while it waited for other ranks.
    #[error("rank {rank} was asked to stop while it waited in {operation}")]
    Stopped {
        /// This rank.
        rank: usize,
        /// What it waited in.
        operation: &'static str,
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
                 `--master` or MASTER_ADDR and MASTER_PORT name it, GLOO_SOCKET_IFNAME the network \
                 interface"
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
            C10dError::TimedOut { late, .. } if late.is_empty() => Some(
                "the network between the ranks may be at fault; the last checkpoint is whole, and \
                 `--resume` goes on from it"
                    .to_owned(),
            ),
            C10dError::TimedOut { .. } => Some(
                "look at what that process does, and at its machine; if it is only slow, raise the \
                 timeout"
                    .to_owned(),
            ),
            C10dError::NoGradient { .. } => Some(
                "a parameter that the network does not use must be frozen, as it can neither learn \
                 nor be summed over ranks"
                    .to_owned(),
            ),
            C10dError::SharedDevice { .. } => Some(
                "start as many ranks as the machine has GPUs, leave `train.device` at `auto` or \
                 `cuda`, and give each rank its own card where CUDA_VISIBLE_DEVICES is set"
                    .to_owned(),
            ),
            C10dError::Files { needed, .. } => Some(format!(
                "raise the limit of open files: `ulimit -n {}` in the shell that starts the ranks",
                needed.next_power_of_two().max(1024)
            )),
            C10dError::Threads { .. } => Some(
                "raise the limit of processes and threads: `ulimit -u` in the shell that starts the \
                 ranks shows it, and `pids.max` of a container"
                    .to_owned(),
            ),
            C10dError::Foreign { .. } => {
                Some("start the same version of this program on all machines".to_owned())
            }
            // The rank that gave up says it; whoever asked to stop knows why.
            C10dError::Aborted { .. } | C10dError::Stopped { .. } => None,
        }
    }
}

fn waited_for(late: &[usize]) -> String {
    match late {
        [] => "all ranks had come to it".to_owned(),
        [rank] => format!("rank {rank} has not come to it"),
        ranks => {
            let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
            format!("ranks {} have not come to it", ranks.join(", "))
        }
    }
}

/// The first few names of a list.
fn some(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        n => format!("{} and {n} more", shown.join(", ")),
    }
}
