//! The threads that rayon works with where a program names none.

use std::error::Error;

use rayon::ThreadPoolBuilder;

use crate::Hinted;

/// Starts them: `n`, or one per core if that is 0. Where some run already, they stay as they are.
///
/// A program calls this before it works with rayon, which by itself would panic where the system grants no
/// threads.
///
/// # Errors
///
/// [`Hinted`] if the system grants fewer.
pub fn start_threads(n: usize) -> Result<(), Hinted> {
    let started = ThreadPoolBuilder::new().num_threads(n).build_global();
    // Without a source it says that threads run already.
    let Some(reason) = started.as_ref().err().and_then(Error::source) else { return Ok(()) };
    let wanted = if n == 0 { "a thread per core".into() } else { format!("{n} threads") };
    let hint = "this user or container may not start so many: raise the limit (`ulimit -u`, or that of the \
                container), or state fewer in RAYON_NUM_THREADS";
    Err(Hinted::new(format!("cannot start {wanted}: {reason}"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_run_already_stay() {
        start_threads(1).unwrap();
        start_threads(3).unwrap();
        assert_eq!(rayon::current_num_threads(), 1);
    }
}
