//! Progress of long work: a bar with rate and time left, on a terminal only.

use std::{
    borrow::Cow,
    fmt,
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::units;

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
        "{{prefix}} {{bar:30}} {{human_pos}}/{{human_len}} {unit}  {{rate}}  {{left}} left  {{msg}}"
    );
    let style = ProgressStyle::with_template(&template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&rate(state.per_sec()));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&units::duration(state.eta().as_secs_f64()));
        })
}

/// Units in a second, with three digits: `526/s`, `6.74/s`; slower than one in a second, `14.8 s each`.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 99.95 => format!("{}/s", units::count(rate.round() as u64)),
        rate if rate >= 9.995 => format!("{rate:.1}/s"),
        rate if rate >= 0.995 => format!("{rate:.2}/s"),
        rate if rate > 0.0 => format!("{:.1} s each", 1.0 / rate),
        _ => "–/s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        let found = [23_042.772, 526.0512, 52.6, 6.744, 1.0, 0.0674, 0.0].map(rate);
        let expected = ["23,043/s", "526/s", "52.6/s", "6.74/s", "1.00/s", "14.8 s each", "–/s"];
        assert_eq!(found, expected);
    }
}
