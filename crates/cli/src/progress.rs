//! Progress of long work: a bar with rate and time left, on a terminal only.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar that draws nothing unless standard error is a terminal. Cheap to clone and share.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

/// The bars that are on the screen, the last one on top, for lines that come from elsewhere.
static SHOWN: Mutex<Vec<ProgressBar>> = Mutex::new(Vec::new());

fn shown() -> MutexGuard<'static, Vec<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints a line to standard error, clear of a progress bar that may be there. A standard error that is
/// closed or full is nobody's loss.
pub(crate) fn line(text: &str) {
    let print = || drop(writeln!(std::io::stderr(), "{text}"));
    let top = shown().last().cloned();
    match top {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

impl Progress {
    /// A bar for `total` units of work (`"images"`), labelled by what is done (`"pack"`).
    ///
    /// Hidden when `quiet`, or when standard error is not a terminal.
    pub fn new(label: &'static str, unit: &'static str, total: u64, quiet: bool) -> Progress {
        if quiet || !std::io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(style(unit));
        bar.set_prefix(label);
        shown().push(bar.clone());
        Progress { bar }
    }

    /// Adds `n` finished units.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Replaces the text after the figures.
    pub fn note(&self, text: impl Into<Cow<'static, str>>) {
        self.bar.set_message(text);
    }

    /// Runs `print` with the bar out of the way, so that lines do not tear.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        if !self.bar.is_hidden() {
            shown().pop();
        }
        self.bar.finish_and_clear();
    }
}

fn style(unit: &'static str) -> ProgressStyle {
    let template = format!(
        "{{prefix}} {{bar:30}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  \
         {{eta_precise}} left  {{msg}}"
    );
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
