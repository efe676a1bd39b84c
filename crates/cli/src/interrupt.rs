//! Signals that ask a program to stop, as a flag that long work looks at between two units.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
    iterator::Signals,
    low_level,
};

use crate::progress;

/// A signal that asked the program to stop.
///
/// A program that stopped because of it ends with [`exit_code`](Signal::exit_code), as shells have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Ctrl-C.
    pub const INTERRUPT: Signal = Signal(SIGINT);

    /// The signal of this number, if it is one of those that programs here answer: `SIGINT` (Ctrl-C),
    /// `SIGTERM` (`kill`, a scheduler), `SIGHUP` (a lost connection) and `SIGQUIT`.
    pub fn from_number(number: i32) -> Option<Signal> {
        ANSWERED.contains(&number).then_some(Signal(number))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// 128 and its number: 130 for `SIGINT`, 143 for `SIGTERM`, 129 for `SIGHUP`.
    pub fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(low_level::signal_name(self.0).unwrap_or("a signal"))
    }
}

const ANSWERED: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// The number of the signal that came, set before the flag.
static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
/// Whether the answer to a signal is left to another process.
static SILENT: AtomicBool = AtomicBool::new(false);
/// Whether the first signal ends the process.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Starts listening: the first signal sets the flag and is answered by a line on standard error, a
/// second one ends the process at once.
///
/// `SIGHUP` is left alone where it is ignored, as `nohup` has it. Safe to call more than once.
///
/// # Errors
///
/// An I/O error if the operating system refuses the handler.
pub fn listen() -> std::io::Result<()> {
    if FLAG.get().is_some() {
        return Ok(());
    }
    let came = CAME.get_or_init(Arc::default);
    let flag = FLAG.get_or_init(Arc::default);
    let signals = ANSWERED.into_iter().filter(|&signal| signal != SIGHUP || !is_ignored(signal));
    let signals: Vec<i32> = signals.collect();
    for &signal in &signals {
        // Order matters: the conditional exit must see the flag as it was before this signal.
        let code = Signal(signal).exit_code().into();
        flag::register_conditional_shutdown(signal, code, Arc::clone(flag))?;
        flag::register_usize(signal, Arc::clone(came), signal as usize)?;
        flag::register(signal, Arc::clone(flag))?;
    }
    answer(Signals::new(&signals)?)
}

/// Has a thread say at once that the first signal was heard, whatever the program is busy with.
fn answer(mut signals: Signals) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let work = move || {
        let Some(signal) = signals.forever().next() else { return };
        if AT_ONCE.load(Ordering::SeqCst) {
            // Other threads may be busy with what a process that ends in order would tear down.
            low_level::exit(Signal(signal).exit_code().into());
        }
        if !SILENT.load(Ordering::SeqCst) {
            progress::line(&format!(
                "{}: stopping once what is being written is whole; a second one stops at once",
                Signal(signal)
            ));
        }
    };
    thread.spawn(work).map(drop)
}

/// Whether the user has asked to stop.
pub fn requested() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The signal that asked to stop, if one has.
pub fn signal() -> Option<Signal> {
    let number = CAME.get()?.load(Ordering::SeqCst);
    Signal::from_number(i32::try_from(number).ok()?)
}

/// From now on the first signal ends the process, with the signal's exit code.
///
/// For commands that only read: nothing has to be made whole before they end. A signal that came
/// before this call ends the process here.
pub fn end_at_once() {
    AT_ONCE.store(true, Ordering::SeqCst);
    if let Some(signal) = signal() {
        low_level::exit(signal.exit_code().into());
    }
}

/// Leaves the answer to a signal to another process, such as the one that started this one, or out
/// where standard error is to stay empty.
pub fn answer_silently() {
    SILENT.store(true, Ordering::SeqCst);
}

/// Whether the system drops a signal of this process; `false` where it does not tell.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_shells_give() {
        let found = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].map(|n| {
            let signal = Signal::from_number(n).unwrap();
            (signal.to_string(), signal.exit_code())
        });
        let expected = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGQUIT", 131)];
        assert_eq!(found, expected.map(|(name, code)| (name.to_owned(), code)));
        assert_eq!(Signal::from_number(9), None);
    }
}
