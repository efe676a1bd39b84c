//! Ctrl-C and SIGTERM as a flag that long work looks at between two units.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts listening: the first signal sets the flag, a second one ends the process at once.
///
/// Safe to call more than once.
///
/// # Errors
///
/// An I/O error if the operating system refuses the handler.
pub fn listen() -> std::io::Result<()> {
    if FLAG.get().is_some() {
        return Ok(());
    }
    let flag = FLAG.get_or_init(Arc::default);
    for signal in signal_hook::consts::TERM_SIGNALS {
        // Order matters: the conditional exit must see the flag as it was before this signal.
        signal_hook::flag::register_conditional_shutdown(*signal, 130, Arc::clone(flag))?;
        signal_hook::flag::register(*signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether the user has asked to stop.
pub fn requested() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}
