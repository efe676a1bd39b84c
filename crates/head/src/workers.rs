//! The threads of a head, which work on its rows.

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::HeadError;

/// As many threads as libtorch would use for one operation, each of which runs libtorch's operations
/// alone.
///
/// A tile's reads, products and update then follow each other on one thread, without a barrier in
/// between. Sharing every operation among libtorch's OpenMP threads is slower by a half here: these
/// spin for milliseconds after each operation and take the cores from the threads that read rows.
pub(super) fn workers() -> Result<ThreadPool, HeadError> {
    let n_threads = tch::get_num_threads().max(1);
    let pool = ThreadPoolBuilder::new()
        .num_threads(n_threads as usize)
        .thread_name(|i| format!("head-{i}"))
        .build()
        .map_err(|source| HeadError::Threads { n_threads, source })?;
    pool.broadcast(|_| {
        // A thread takes over the common number when it first asks for it; only what is set after
        // that stays.
        let _ = tch::get_num_threads();
        tch::set_num_threads(1);
    });
    // The call above also changed the number that threads started later take over.
    tch::set_num_threads(n_threads);
    Ok(pool)
}
