//! The head's collectives over a process group.

// G = global batch, all ranks' rows in rank order; B = this rank's rows; L = rows of the rank that
// has most; W = ranks; D = embedding.

use std::sync::Arc;

use pfc_c10d::{ProcessGroup, Reduce};
use tch::{Device, Tensor};

use pfc_head::{CommError, Communicator, PendingRows};

/// A rank of a process group, as the head sees it.
#[derive(Debug)]
pub struct GroupMember {
    group: Arc<ProcessGroup>,
}

impl GroupMember {
    /// This process's rank of `group`.
    #[must_use]
    pub fn new(group: Arc<ProcessGroup>) -> GroupMember {
        GroupMember { group }
    }

    fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<(), CommError> {
        let joined = self.group.all_reduce(Tensor::from_slice(values), reduce)?;
        joined.copy_data(values, values.len());
        Ok(())
    }
}

impl Communicator for GroupMember {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world(&self) -> usize {
        self.group.world()
    }

    fn all_gather(&mut self, values: &[i64]) -> Result<Vec<Vec<i64>>, CommError> {
        let parts = self.group.all_gather_bytes(bytemuck::cast_slice(values))?;
        Ok(parts.iter().map(|part| bytemuck::pod_collect_to_vec(part)).collect())
    }

    fn all_gather_rows(
        &mut self,
        rows_bd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<Tensor, CommError> {
        let longest = longest(rows_of_rank);
        if rows_of_rank.iter().all(|&n| n as i64 == longest) {
            return Ok(self.group.all_gather(rows_bd)?);
        }
        let all = self.group.all_gather(&padded(rows_bd, longest))?;
        let blocks = rows_of_rank.iter().enumerate();
        let parts: Vec<Tensor> =
            blocks.map(|(rank, &n)| all.narrow(0, rank as i64 * longest, n as i64)).collect();
        Ok(Tensor::cat(&parts, 0))
    }

    fn all_reduce_sum(&mut self, values: &mut [f64]) -> Result<(), CommError> {
        self.all_reduce(values, Reduce::Sum)
    }

    fn all_reduce_max(&mut self, values: &mut [f64]) -> Result<(), CommError> {
        self.all_reduce(values, Reduce::Max)
    }

    fn reduce_scatter_rows(
        &mut self,
        parts_gd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<Tensor, CommError> {
        self.begin_reduce_scatter_rows(parts_gd, rows_of_rank)?()
    }

    fn begin_reduce_scatter_rows<'a>(
        &'a mut self,
        parts_gd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<PendingRows<'a>, CommError> {
        let longest = longest(rows_of_rank);
        if rows_of_rank.iter().all(|&n| n as i64 == longest) {
            let pending = self.group.start_reduce_scatter(parts_gd)?;
            return Ok(Box::new(move || Ok(pending.in_order()?)));
        }
        let mut first = 0;
        let mut blocks = Vec::with_capacity(rows_of_rank.len());
        for &n in rows_of_rank {
            blocks.push(padded(&parts_gd.narrow(0, first, n as i64), longest));
            first += n as i64;
        }
        let own = rows_of_rank[self.rank()] as i64;
        let pending = self.group.start_reduce_scatter(&Tensor::cat(&blocks, 0))?;
        Ok(Box::new(move || Ok(pending.in_order()?.narrow(0, 0, own))))
    }

    /// By NCCL on GPUs, which ranks that compute there have joined with.
    fn exchanges_on(&self, _: Device) -> bool {
        true
    }

    fn all_reduce_there(&mut self, values: &Tensor) -> Result<Tensor, CommError> {
        // A copy, as the sum takes the place of what is summed.
        Ok(self.group.start_all_reduce(values.copy(), Reduce::Sum)?.in_order()?)
    }
}

fn longest(rows_of_rank: &[usize]) -> i64 {
    rows_of_rank.iter().copied().max().unwrap_or(0) as i64
}

/// `rows_bd` with rows of zeros after them, `[L, D]`.
fn padded(rows_bd: &Tensor, longest: i64) -> Tensor {
    let shape = rows_bd.size();
    let missing_xd =
        Tensor::zeros([longest - shape[0], shape[1]], (rows_bd.kind(), rows_bd.device()));
    Tensor::cat(&[rows_bd.shallow_clone(), missing_xd], 0)
}
