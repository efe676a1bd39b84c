//! Logs: `tracing` to standard error, warnings and up unless asked for more.

use std::io::IsTerminal;

use tracing_subscriber::{filter::Targets, fmt, prelude::*};

/// How much to say; flatten it into a program's top-level parser.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Verbosity {
    /// Say more on standard error: -v information, -vv debugging
    #[arg(short, long, global = true, display_order = 1001, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing on standard error but errors; no progress bar
    #[arg(short, long, global = true, display_order = 1002, conflicts_with = "verbose")]
    quiet: bool,
}

impl Verbosity {
    /// Whether progress and warnings are unwanted.
    pub fn is_quiet(self) -> bool {
        self.quiet
    }
}

/// Sends `tracing` events to standard error. `PFC_LOG` (`pfc_train=debug`) overrides the flags.
///
/// Later calls in one process do nothing, so tests can run programs in-process.
pub fn init_log(verbosity: Verbosity) {
    let level = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let own = std::env::var("PFC_LOG").ok();
    // Of what is not named, errors are said.
    let own = own.and_then(|targets| format!("error,{targets}").parse::<Targets>().ok());
    let filter = own.or_else(|| level.parse().ok()).unwrap_or_default();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour_is_wanted())
        .with_target(false)
        .without_time()
        // A standard error that is full or closed is nobody's loss; complaining about it there panics.
        .log_internal_errors(false);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Escape codes in a log file help nobody; `NO_COLOR` is how users say that they want none.
fn colour_is_wanted() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
