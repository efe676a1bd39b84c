//! When it is measured: all stages in every round, so that a machine that slows down slows all.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use pfc_cli::{Progress, interrupt};
use rayon::ThreadPool;

use super::stage::{Input, Room, Stage};
use crate::{IngestError, threads};

/// Images a second of each stage in each round.
pub struct Rates {
    /// In the order of [`Stage::ALL`].
    rounds: Vec<[f64; 4]>,
}

impl Rates {
    /// Measures `n_rounds` times on `n_threads`, after one round that does not count.
    ///
    /// # Errors
    ///
    /// [`IngestError::Interrupted`], or [`IngestError::Threads`] if there are not so many.
    pub fn measure(
        input: &Input<'_>,
        n_threads: usize,
        n_rounds: u32,
        quiet: bool,
    ) -> Result<Rates, IngestError> {
        let progress = Progress::new("bench", "rounds", n_rounds.into(), quiet);
        let pool = threads::pool(n_threads)?;
        let rooms: Vec<Mutex<Room>> = (0..n_threads).map(|_| input.room().into()).collect();
        let mut rounds = Vec::new();
        for round in 0..=n_rounds {
            let mut rates = [0.0; 4];
            for turn in 0..rates.len() {
                if interrupt::requested() {
                    let (done, total) = (round.into(), n_rounds.into());
                    return Err(IngestError::Interrupted { done, total });
                }
                // Nobody always comes first.
                let i = (turn + round as usize) % rates.len();
                let elapsed = time(input, Stage::ALL[i], &pool, &rooms);
                rates[i] = input.len() as f64 / elapsed.as_secs_f64().max(1e-9);
            }
            if round > 0 {
                rounds.push(rates);
                progress.add(1);
            }
        }
        progress.finish();
        Ok(Rates { rounds })
    }

    /// The median rate of a stage.
    pub fn median(&self, stage: Stage) -> f64 {
        median(self.rounds.iter().map(|rates| rates[stage as usize]))
    }

    /// The median over the rounds of a stage's rate as a share of the bare decoder's.
    pub fn of_bare(&self, stage: Stage) -> f64 {
        let bare = Stage::Bare as usize;
        median(self.rounds.iter().map(|rates| rates[stage as usize] / rates[bare]))
    }
}

/// How long `stage` takes over all images, spread over the threads of `pool`, each with a room of its own.
fn time(input: &Input<'_>, stage: Stage, pool: &ThreadPool, rooms: &[Mutex<Room>]) -> Duration {
    let n = input.len() as usize;
    let started = Instant::now();
    pool.broadcast(|thread| {
        let (thread, n_threads) = (thread.index(), thread.num_threads());
        let part = n * thread / n_threads..n * (thread + 1) / n_threads;
        let mut room = rooms[thread].lock().unwrap_or_else(PoisonError::into_inner);
        input.work(stage, part, &mut room);
    });
    started.elapsed()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine ran half as fast in the second round.
        let rounds = vec![[100.0, 400.0, 90.0, 80.0], [50.0, 200.0, 45.0, 40.0]];
        let rates = Rates { rounds };
        assert_eq!(rates.of_bare(Stage::Read), 4.0);
        assert_eq!(rates.of_bare(Stage::Augment), 0.8);
        assert_eq!(rates.median(Stage::Bare), 100.0);
    }
}
