//! The collectives that the ranks of a head take part in.

// G = global batch, all ranks' rows in rank order; B = this rank's rows; D = embedding.

mod threads;

use tch::Tensor;

pub use threads::LocalMember;

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
}
