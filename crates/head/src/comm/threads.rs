//! Ranks as threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tch::{Kind, Tensor};

use super::{CommError, Communicator};

/// One rank of a group whose ranks are threads of this process.
///
/// A member that is dropped while others wait ends their wait with an error.
pub struct LocalMember {
    rank: usize,
    world: usize,
    group: Arc<Group>,
}

struct Group {
    state: Mutex<State>,
    changed: Condvar,
}

/// One collective: every rank puts something down, then every rank takes all of it.
struct State {
    given: Vec<Option<Deposit>>,
    taken_by: Vec<bool>,
    left: Option<usize>,
}

#[derive(Clone)]
enum Deposit {
    Integers(Arc<[i64]>),
    Reals(Arc<[f64]>),
    Rows(Arc<[f32]>),
}

impl LocalMember {
    /// The members of a group of `world` ranks, in rank order, one for each thread.
    #[must_use]
    pub fn group(world: usize) -> Vec<LocalMember> {
        let state = State { given: vec![None; world], taken_by: vec![false; world], left: None };
        let group = Arc::new(Group { state: Mutex::new(state), changed: Condvar::new() });
        (0..world).map(|rank| LocalMember { rank, world, group: Arc::clone(&group) }).collect()
    }

    /// Gives `deposit` and takes everyone's, in rank order.
    fn exchange(&self, deposit: Deposit) -> Result<Vec<Deposit>, CommError> {
        // The collective before this one is over when all have taken from it.
        let mut state = self.wait_until(|state| state.given[self.rank].is_none())?;
        state.given[self.rank] = Some(deposit);
        drop(state);
        self.group.changed.notify_all();
        let mut state = self.wait_until(|state| state.given.iter().all(Option::is_some))?;
        let all = state.given.iter().flatten().cloned().collect();
        state.taken_by[self.rank] = true;
        if state.taken_by.iter().all(|&taken| taken) {
            state.given.fill(None);
            state.taken_by.fill(false);
        }
        drop(state);
        self.group.changed.notify_all();
        Ok(all)
    }

    fn wait_until(
        &self,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, CommError> {
        // No code that can panic runs under the lock.
        let mut state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if ready(&state) {
                return Ok(state);
            }
            if let Some(rank) = state.left {
                return Err(CommError::RankLeft { rank });
            }
            state = self.group.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn reduce(
        &self,
        values: &mut [f64],
        combine: impl Fn(f64, f64) -> f64,
    ) -> Result<(), CommError> {
        let all = self.exchange(Deposit::Reals(Arc::from(&*values)))?;
        for (rank, deposit) in all.iter().enumerate() {
            let Deposit::Reals(theirs) = deposit else { return Err(self.out_of_step()) };
            for (value, &other) in values.iter_mut().zip(theirs.iter()) {
                *value = if rank == 0 { other } else { combine(*value, other) };
            }
        }
        Ok(())
    }

    /// Everyone's rows as f32, in rank order.
    fn exchange_rows(&self, rows: &Tensor) -> Result<Vec<Arc<[f32]>>, CommError> {
        let mut values = vec![0f32; rows.numel()];
        rows.to_kind(Kind::Float).contiguous().copy_data(&mut values, rows.numel());
        let all = self.exchange(Deposit::Rows(values.into()))?;
        let all = all.into_iter().map(|deposit| match deposit {
            Deposit::Rows(rows) => Ok(rows),
            _ => Err(self.out_of_step()),
        });
        all.collect()
    }

    fn out_of_step(&self) -> CommError {
        CommError::Transport {
            operation: "exchange",
            rank: self.rank,
            cause: "the ranks called different operations".to_owned(),
        }
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        let mut state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left.get_or_insert(self.rank);
        drop(state);
        self.group.changed.notify_all();
    }
}

impl Communicator for LocalMember {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_gather(&mut self, values: &[i64]) -> Result<Vec<Vec<i64>>, CommError> {
        let all = self.exchange(Deposit::Integers(values.into()))?;
        let lists = all.into_iter().map(|deposit| match deposit {
            Deposit::Integers(values) => Ok(values.to_vec()),
            _ => Err(self.out_of_step()),
        });
        lists.collect()
    }

    fn all_gather_rows(&mut self, rows_bd: &Tensor, _: &[usize]) -> Result<Tensor, CommError> {
        let dim = rows_bd.size()[1];
        let all = self.exchange_rows(rows_bd)?;
        Ok(Tensor::from_slice(&all.concat()).view([-1, dim]))
    }

    fn all_reduce_sum(&mut self, values: &mut [f64]) -> Result<(), CommError> {
        self.reduce(values, |a, b| a + b)
    }

    fn all_reduce_max(&mut self, values: &mut [f64]) -> Result<(), CommError> {
        self.reduce(values, f64::max)
    }

    fn reduce_scatter_rows(
        &mut self,
        parts_gd: &Tensor,
        rows_of_rank: &[usize],
    ) -> Result<Tensor, CommError> {
        let dim = parts_gd.size()[1];
        let all = self.exchange_rows(parts_gd)?;
        let first: usize = rows_of_rank[..self.rank].iter().sum();
        let values = first * dim as usize..(first + rows_of_rank[self.rank]) * dim as usize;
        let mut sum = vec![0f32; values.len()];
        for part in &all {
            for (sum, value) in sum.iter_mut().zip(&part[values.clone()]) {
                *sum += value;
            }
        }
        Ok(Tensor::from_slice(&sum).view([-1, dim]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `work` on every rank of a group and returns what each made of it.
    fn on_ranks<T: Send>(world: usize, work: impl Fn(LocalMember) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = LocalMember::group(world)
                .into_iter()
                .map(|member| scope.spawn(|| work(member)))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_rank_gets_every_ranks_values_over_many_rounds() {
        let sums = on_ranks(3, |mut member| {
            let mut sum = 0;
            for round in 0..100 {
                let mine = vec![member.rank() as i64 + 10 * round; member.rank()];
                let all = member.all_gather(&mine).unwrap();
                assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 2]);
                sum += all.concat().iter().sum::<i64>();
            }
            sum
        });
        // Each round holds one 1 + 10 r and two of 2 + 10 r: 5 + 30 r.
        assert_eq!(sums, [500 + 30 * 4950; 3]);
    }

    #[test]
    fn sums_maxima_and_slices_are_those_of_all_ranks() {
        on_ranks(2, |mut member| {
            let mine = member.rank() as f64;
            let mut values = [1.0 + mine, -mine];
            member.all_reduce_sum(&mut values).unwrap();
            assert_eq!(values, [3.0, -1.0]);
            let mut values = [mine, -mine];
            member.all_reduce_max(&mut values).unwrap();
            assert_eq!(values, [1.0, 0.0]);
            // Rank 0 owns one row, rank 1 two; both hold parts of all three.
            let part = Tensor::from_slice(&[1f32, 2.0, 3.0]).view([3, 1]) * (mine + 1.0);
            let own = member.reduce_scatter_rows(&part, &[1, 2]).unwrap();
            let expected: &[f32] = if member.rank() == 0 { &[3.0] } else { &[6.0, 9.0] };
            assert_eq!(own.reshape([-1]), Tensor::from_slice(expected));
            let all = member.all_gather_rows(&own, &[1, 2]).unwrap();
            assert_eq!(all, Tensor::from_slice(&[3f32, 6.0, 9.0]).view([3, 1]));
        });
    }

    #[test]
    fn a_rank_that_leaves_ends_the_wait_of_the_others() {
        let outcomes = on_ranks(3, |mut member| {
            if member.rank() == 1 {
                return Ok(Vec::new());
            }
            member.all_gather(&[1])
        });
        assert_eq!(outcomes[0], Err(CommError::RankLeft { rank: 1 }));
        assert_eq!(outcomes[2], Err(CommError::RankLeft { rank: 1 }));
    }
}
