//! How many threads a command uses.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::IngestError;

/// Maximum number of threads, which is more than any machine has cores for.
const THREADS_MAX: u64 = 1024;

/// The `--threads` option.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Threads {
    /// Threads to work with, 1024 at most; 0 takes one per core
    ///
    /// The result does not depend on it.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=THREADS_MAX))]
    threads: u64,
}

impl Threads {
    /// A pool of that many threads. All work with rayon runs on such a pool, as rayon's own pool panics where
    /// threads cannot be started.
    ///
    /// # Errors
    ///
    /// [`IngestError::Threads`] if the system grants no more threads.
    pub fn pool(self) -> Result<ThreadPool, IngestError> {
        pool(self.threads as usize)
    }
}

/// A pool of `n` threads, or of one per core if that is 0.
///
/// # Errors
///
/// [`IngestError::Threads`] if the system grants no more threads.
pub fn pool(n: usize) -> Result<ThreadPool, IngestError> {
    let pool = ThreadPoolBuilder::new().num_threads(n).build();
    pool.map_err(|e| IngestError::Threads { n, source: std::io::Error::other(e) })
}
