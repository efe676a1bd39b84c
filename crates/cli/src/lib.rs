//! What the three programs share on the command line.
//!
//! Standard output is data; progress, logs and errors go to standard error.

// The one crate whose business it is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod completions;
mod ending;
mod exit;
mod front;
mod hint;
pub mod interrupt;
mod log;
pub mod number;
mod output;
mod progress;
mod replace;
mod threads;
pub mod time;
pub mod units;

pub use ending::leave;
pub use exit::{Outcome, exit, program};
pub use front::front;
pub use hint::{HintFinder, Hinted, hint_of};
pub use log::{Verbosity, init_log};
pub use output::{
    Format, Stdout, divert_stdout, print_json, print_table, print_text, stdout, table, tell,
};
pub use progress::Progress;
pub use replace::Replace;
pub use threads::start_threads;
