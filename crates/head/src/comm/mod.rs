//! The collectives that the ranks of a head take part in.

// G = global batch, all ranks' rows in rank order; B = this rank's rows; D = embedding.

mod threads;

use tch::{Device, Tensor};

pub use threads::LocalMember;

use crate::elements::to_f64;

/// Why a collective failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// A rank gave up or disappeared.
    #[error("rank {rank} has left the group")]
    RankLeft {
        /// The first rank that left.
        rank: usize,
    },
    /// The transport failed.
    #[error("{operation} failed on rank {rank}: {cause}")]
    Transport {
        /// The collective operation.
        operation: &'static str,
        /// Rank that reports it.
        rank: usize,
        /// The transport's own words.
        cause: String,
    },
    /// A process group failed.
    #[error(transparent)]
    Group(#[from] pfc_c10d::C10dError),
}

/// Gives the rows of a collective that has begun, and waits as far as that one does.
pub type PendingRows<'a> = Box<dyn FnOnce() -> Result<Tensor, CommError> + 'a>;

/// The collectives that a head needs. Every rank of a group calls the same ones in the same order.
///
/// A group of one is [`Solo`], one of threads of a process [`LocalMember`]; processes make a group of theirs. Sums come out the same on every rank, and in every run with as many
/// ranks.
pub trait Communicator: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks, at least 1.
    fn world(&self) -> usize;

    /// Every rank's `values`, in rank order; their lengths may differ.
    ///
    /// # Errors
    ///
    /// [`CommError`] if a rank is gone or the transport fails, here and below.
    fn all_gather(&mut self, values: &[i64]) -> Result<Vec<Vec<i64>>, CommError>;

    /// Every rank's rows `[B, D]` f32 stacked in rank order to `[G, D]`.
    ///
    /// * `rows_of_rank`: B of each rank, as all ranks know it from [`Communicator::all_gather`]
    ///
    /// # Errors
    ///
    /// As above.
    fn all_gather_rows(
        &mut self,
        rows_bd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<Tensor, CommError>;

    /// Puts the element-wise sum over ranks into `values`, equally long on all.
    ///
    /// # Errors
    ///
    /// As above.
    fn all_reduce_sum(&mut self, values: &mut [f64]) -> Result<(), CommError>;

    /// Puts the element-wise maximum over ranks into `values`, equally long on all.
    ///
    /// # Errors
    ///
    /// As above.
    fn all_reduce_max(&mut self, values: &mut [f64]) -> Result<(), CommError>;

    /// This rank's rows `[B, D]` of the sum over ranks of `parts_gd`, `[G, D]` f32.
    ///
    /// # Errors
    ///
    /// As above.
    fn reduce_scatter_rows(
        &mut self,
        parts_gd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<Tensor, CommError>;

    /// Begins [`reduce_scatter_rows`](Communicator::reduce_scatter_rows), so that other work goes on meanwhile; no
    /// other collective is begun before its rows are taken.
    ///
    /// # Errors
    ///
    /// As above.
    fn begin_reduce_scatter_rows<'a>(
        &'a mut self,
        parts_gd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<PendingRows<'a>, CommError> {
        let rows_bd = self.reduce_scatter_rows(parts_gd, rows_of_rank)?;
        Ok(Box::new(move || Ok(rows_bd)))
    }

    /// Whether rows and numbers on `device` are exchanged there, in the order of what the device does and
    /// without a wait of the host. Where it is not so, they have to be on the CPU.
    fn exchanges_on(&self, device: Device) -> bool {
        device == Device::Cpu
    }

    /// The element-wise sum over ranks of `values`, f64 and equally long on all, on a device of
    /// [`exchanges_on`](Communicator::exchanges_on).
    ///
    /// # Errors
    ///
    /// As above.
    fn all_reduce_there(&mut self, values: &Tensor) -> Result<Tensor, CommError> {
        let mut sums = to_f64(values);
        self.all_reduce_sum(&mut sums)?;
        let sums = Tensor::from_slice(&sums).view(values.size().as_slice());
        Ok(sums.to_device(values.device()))
    }
}

/// The group of one rank, whose collectives do nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_gather(&mut self, values: &[i64]) -> Result<Vec<Vec<i64>>, CommError> {
        Ok(vec![values.to_vec()])
    }

    fn all_gather_rows(&mut self, rows_bd: &Tensor, _: &[usize]) -> Result<Tensor, CommError> {
        Ok(rows_bd.shallow_clone())
    }

    fn all_reduce_sum(&mut self, _: &mut [f64]) -> Result<(), CommError> {
        Ok(())
    }

    fn all_reduce_max(&mut self, _: &mut [f64]) -> Result<(), CommError> {
        Ok(())
    }

    fn reduce_scatter_rows(&mut self, parts_gd: &Tensor, _: &[usize]) -> Result<Tensor, CommError> {
        Ok(parts_gd.shallow_clone())
    }

    fn exchanges_on(&self, _: Device) -> bool {
        true
    }

    fn all_reduce_there(&mut self, values: &Tensor) -> Result<Tensor, CommError> {
        Ok(values.shallow_clone())
    }
}
