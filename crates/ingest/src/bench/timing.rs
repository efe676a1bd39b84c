//! When it is measured: all stages in every round, so that a machine that slows down slows all.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use pfc_cli::{Progress, interrupt};

use super::stage::{Input, Room, Stage};
use crate::IngestError;

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
    /// [`IngestError::Interrupted`].
    pub fn measure(
        input: &Input<'_>,
        n_threads: usize,
        n_rounds: u32,
        quiet: bool,
    ) -> Result<Rates, IngestError> {
        let progress = Progress::new("bench", "rounds", n_rounds.into(), quiet);
        let mut rooms: Vec<Room> = (0..n_threads).map(|_| input.room()).collect();
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
                let elapsed = time(input, Stage::ALL[i], &mut rooms);
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

/// How long `stage` takes over all images, spread over as many threads as there are `rooms`.
fn time(input: &Input<'_>, stage: Stage, rooms: &mut [Room]) -> Duration {
    let n = input.len() as usize;
    if let [room] = rooms {
        let started = Instant::now();
        input.work(stage, 0..n, room);
        return started.elapsed();
    }
    let n_threads = rooms.len();
    let barrier = Barrier::new(n_threads + 1);
    std::thread::scope(|scope| {
        for (thread, room) in rooms.iter_mut().enumerate() {
            let part = n * thread / n_threads..n * (thread + 1) / n_threads;
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                input.work(stage, part, room);
                barrier.wait();
            });
        }
        barrier.wait();
        let started = Instant::now();
        barrier.wait();
        started.elapsed()
    })
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
