//! How many threads a command uses.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::IngestError;

/// The `--threads` option.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Threads {
    /// Threads to work with; 0 takes one per core
    ///
    /// The result does not depend on it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

impl Threads {
    /// A pool of that many.
    ///
    /// # Errors
    ///
    /// [`IngestError::Io`] if the system grants no more threads.
    pub fn pool(self) -> Result<ThreadPool, IngestError> {
        ThreadPoolBuilder::new().num_threads(self.threads).build().map_err(|e| {
            IngestError::at("start threads", "pfc-ingest".as_ref())(std::io::Error::other(e))
        })
    }
}
