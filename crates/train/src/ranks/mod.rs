//! The processes that train together: this one alone, or one of a group.

mod communicator;
pub(crate) mod launch;

use std::{sync::Arc, time::Duration};

use pfc_c10d::{C10dError, GroupOptions, Pending, ProcessGroup, Reduce, Rendezvous};
use pfc_cli::interrupt;
use serde::{Serialize, de::DeserializeOwned};
use tch::{Device, Kind, Tensor};

pub use communicator::GroupMember;

use pfc_head::{Communicator, Solo};

/// The ranks of a run, seen from one of them.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    group: Option<Arc<ProcessGroup>>,
}

/// A collective that is under way: which flags are set on any rank.
#[must_use]
pub struct PendingFlags<'a, const N: usize> {
    own: [bool; N],
    pending: Option<Pending<'a>>,
}

impl Ranks {
    /// This process alone.
    #[must_use]
    pub fn solo() -> Ranks {
        Ranks::default()
    }

    /// Meets the other ranks of `place`, which may be the only one of its group; without a place this
    /// process is alone.
    ///
    /// * `device`: what this rank computes on; NCCL carries out the collectives of a GPU
    ///
    /// # Errors
    ///
    /// [`C10dError`] if the ranks do not all come, do not belong together, or two share a GPU.
    pub fn join(
        place: Option<&Rendezvous>,
        timeout: Duration,
        device: Device,
    ) -> Result<Ranks, C10dError> {
        let Some(place) = place else { return Ok(Ranks::solo()) };
        let options = options(timeout, device.is_cuda());
        let group = ProcessGroup::join(place, options)?;
        let id = match device {
            // Where libtorch does not tell it, NCCL refuses a shared card later, in its own words.
            Device::Cuda(index) => pfc_c10d::device_id(index).ok(),
            _ => None,
        };
        group.check_devices(id.as_deref())?;
        Ok(Ranks::of_group(group))
    }

    /// Meets the other ranks of `place` for no other purpose than to tell them why this one cannot take
    /// part. Returns the first rank that gave up, whose reason is the one to be read.
    pub(crate) fn decline(place: &Rendezvous, timeout: Duration, reason: &str) -> usize {
        ProcessGroup::decline(place, options(timeout, false), reason)
    }

    /// From now on a signal is obeyed between steps, when all ranks have agreed to stop and the run is
    /// saved. Before, there is nothing to save, and no wait for another rank goes on after one.
    pub fn stop_between_steps(&self) {
        if let Some(group) = &self.group {
            group.stop_between_operations();
        }
    }

    /// The ranks of a group.
    #[must_use]
    pub fn of_group(group: ProcessGroup) -> Ranks {
        Ranks { group: Some(Arc::new(group)) }
    }

    /// The group, unless this process is alone.
    #[must_use]
    pub fn group(&self) -> Option<&Arc<ProcessGroup>> {
        self.group.as_ref()
    }

    /// This rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rank())
    }

    /// Number of ranks.
    #[must_use]
    pub fn world(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.world())
    }

    /// Number of this rank on its machine, which is that of its GPU.
    #[must_use]
    pub fn local_rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.place().local_rank)
    }

    /// Whether this is the rank that writes and reports.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The collectives that the head uses.
    #[must_use]
    pub fn communicator(&self) -> Box<dyn Communicator> {
        match &self.group {
            Some(group) => Box::new(GroupMember::new(Arc::clone(group))),
            None => Box::new(Solo),
        }
    }

    /// Starts a collective that finds out which of `own` are true on any rank.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone or has given up, here and below.
    pub fn start_any<const N: usize>(
        &self,
        own: [bool; N],
    ) -> Result<PendingFlags<'_, N>, C10dError> {
        let pending = match &self.group {
            Some(group) => {
                let flags = Tensor::from_slice(&own.map(i64::from));
                Some(group.start_all_reduce(flags, Reduce::Max)?)
            }
            None => None,
        };
        Ok(PendingFlags { own, pending })
    }

    /// Whether `own` is true on any rank.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn any(&self, own: bool) -> Result<bool, C10dError> {
        let [any] = self.start_any([own])?.wait()?;
        Ok(any)
    }

    /// Every rank's value, in rank order.
    ///
    /// # Errors
    ///
    /// As above, and [`C10dError::Foreign`] if another rank sends something else, as an other version would.
    ///
    /// # Panics
    ///
    /// If `own` does not become JSON, as plain structs of this crate do.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>, C10dError> {
        let Some(group) = &self.group else { return Ok(vec![own]) };
        let bytes = serde_json::to_vec(&own).expect("plain structs become JSON");
        let all = group.all_gather_bytes(&bytes)?;
        all.iter().enumerate().map(|(rank, bytes)| parse(rank, bytes)).collect()
    }

    /// The first rank's value; what the others give does not matter.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn of_first<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T, C10dError> {
        let all = self.gather(own)?;
        Ok(all.into_iter().next().expect("there is a first rank"))
    }

    /// Every rank's numbers one after the other; their counts may differ.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn gather_f32(&self, own: &[f32]) -> Result<Vec<f32>, C10dError> {
        let Some(group) = &self.group else { return Ok(own.to_vec()) };
        let parts = group.all_gather_bytes(bytemuck::cast_slice(own))?;
        Ok(parts.iter().flat_map(|part| bytemuck::pod_collect_to_vec::<u8, f32>(part)).collect())
    }

    /// Overwrites `tensors` with the first rank's, in one broadcast for each place that they are in: the
    /// host's memory and the device.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn copy_from_first(&self, tensors: &[Tensor]) -> Result<(), C10dError> {
        let Some(group) = &self.group else { return Ok(()) };
        for on_host in [true, false] {
            let is_there = |tensor: &&Tensor| (tensor.device() == Device::Cpu) == on_host;
            let there: Vec<&Tensor> = tensors.iter().filter(is_there).collect();
            if there.is_empty() {
                continue;
            }
            let bytes: Vec<Tensor> = there.iter().map(|tensor| as_bytes(tensor)).collect();
            let lengths: Vec<i64> = bytes.iter().map(|bytes| bytes.numel() as i64).collect();
            let first = group.broadcast(&Tensor::cat(&bytes, 0), 0)?;
            let parts = first.split_with_sizes(lengths.as_slice(), 0);
            tch::no_grad(|| {
                for (tensor, part) in there.iter().zip(parts) {
                    // A copy, as numbers may not begin anywhere in a row of bytes.
                    let numbers = part.copy().view_dtype(tensor.kind()).view(&tensor.size()[..]);
                    tensor.shallow_clone().copy_(&numbers);
                }
            });
        }
        Ok(())
    }

    /// Waits until every rank has come here.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn meet(&self) -> Result<(), C10dError> {
        self.group.as_ref().map_or(Ok(()), |group| group.barrier())
    }

    /// Tells the other ranks that this one cannot go on. Returns the first that has said so, whose reason
    /// is the one to be read.
    pub fn give_up(&self, reason: &str) -> usize {
        self.group.as_ref().map_or(0, |group| group.abort(reason))
    }
}

impl<const N: usize> PendingFlags<'_, N> {
    /// Waits for the collective: for each flag, whether it is true on any rank.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone or has given up.
    pub fn wait(self) -> Result<[bool; N], C10dError> {
        match self.pending {
            Some(pending) => {
                let flags = pending.wait()?;
                Ok(std::array::from_fn(|i| flags.int64_value(&[i as i64]) != 0))
            }
            None => Ok(self.own),
        }
    }
}

fn options(timeout: Duration, nccl: bool) -> GroupOptions {
    GroupOptions { timeout, nccl, asked_to_stop: interrupt::requested }
}

fn parse<T: DeserializeOwned>(rank: usize, bytes: &[u8]) -> Result<T, C10dError> {
    serde_json::from_slice(bytes).map_err(|error| C10dError::Foreign {
        rank,
        what: "a value",
        cause: error.to_string(),
    })
}

/// A tensor's numbers as a row of bytes.
fn as_bytes(tensor: &Tensor) -> Tensor {
    tensor.detach().contiguous().reshape([-1]).view_dtype(Kind::Uint8)
}
