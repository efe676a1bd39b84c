//! Work on many files at once, where there are threads for it.

use std::{error::Error, sync::OnceLock};

use rayon::prelude::*;

/// The results of `work` for `0..n`, in order: on the current pool, on rayon's global one, or, where
/// the system grants no threads for that, one after the other.
pub fn map<R: Send>(n: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    match has_pool() {
        true => (0..n).into_par_iter().map(&work).collect(),
        false => (0..n).map(work).collect(),
    }
}

/// Whether rayon can be used on this thread. Left alone it would panic where it gets no threads.
fn has_pool() -> bool {
    static HAS_GLOBAL: OnceLock<bool> = OnceLock::new();
    let has_global = || match rayon::ThreadPoolBuilder::new().build_global() {
        Ok(()) => true,
        // Without a source somebody else has made it before.
        Err(error) => error.source().is_none(),
    };
    rayon::current_thread_index().is_some() || *HAS_GLOBAL.get_or_init(has_global)
}
