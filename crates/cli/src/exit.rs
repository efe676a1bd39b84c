//! How a program runs and ends: one printer for errors and hints, and what each exit code means.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    HintFinder, Hinted, Verbosity,
    ending::Running,
    hint::hinted,
    init_log,
    interrupt::{self, Signal},
    print_text,
};

/// How a run that could run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to report: exit code 0.
    Clean,
    /// It ran and found faults (a failed `verify`): exit code 1.
    Findings,
    /// A signal stopped it before its end, and what it wrote is whole: the signal's exit code.
    Stopped(Signal),
}

/// Runs a program from its arguments to its exit code.
///
/// * `verbosity`: how much the arguments have it say
/// * `run`: the program itself
///
/// Faulty arguments end with code 2, as do a help text that cannot be written, memory that runs out, and
/// a library that calls `exit`.
pub fn program<C: Parser>(
    verbosity: impl FnOnce(&C) -> Verbosity,
    run: impl FnOnce(C) -> anyhow::Result<Outcome>,
    finders: &[HintFinder],
) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(message) => return exit(say(&message), finders),
    };
    let verbosity = verbosity(&cli);
    init_log(verbosity);
    if verbosity.is_quiet() {
        interrupt::answer_silently();
    }
    let ready = interrupt::listen().map_err(not_listening);
    let running = Running::begin();
    let result = ready.and_then(|()| run(cli));
    drop(running);
    exit(result, finders)
}

fn not_listening(error: io::Error) -> anyhow::Error {
    let hint = "this user or container may start no more threads or open no more files: raise the limit \
                (`ulimit -u`, `ulimit -n`, the container's number of processes), or run fewer programs at \
                once";
    Hinted::new(format!("cannot listen for signals: {error}"), hint).into()
}

/// Prints help, a version, or what is wrong with the arguments.
pub(crate) fn say(message: &clap::Error) -> anyhow::Result<Outcome> {
    if message.use_stderr() {
        let _ = message.print();
        return Err(Printed.into());
    }
    let text = message.render();
    match io::stdout().is_terminal() {
        true => print_text(text.ansi().to_string())?,
        false => print_text(text.to_string())?,
    }
    Ok(Outcome::Clean)
}

/// An error that was printed already.
#[derive(Debug)]
struct Printed;

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("see above")
    }
}

impl Error for Printed {}

/// Ends a program: 0 clean, 1 it ran and found faults, 2 it could not run, and 128 and the number of a
/// signal that stopped it (130 for Ctrl-C, 143 for `SIGTERM`, 129 for `SIGHUP`).
///
/// An error is printed to standard error as one `error:` line, one `cause:` line per source, and a
/// last `hint:` line from the first finder that knows an error of the chain. Once a signal has asked
/// the program to stop, an error is how it says that it did. A standard error that cannot be written
/// changes nothing of the exit code.
pub fn exit(result: anyhow::Result<Outcome>, finders: &[HintFinder]) -> ExitCode {
    match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Ok(Outcome::Stopped(signal)) => ExitCode::from(signal.exit_code()),
        Err(error) => {
            if !error.is::<Printed>() {
                let _ = io::stderr().write_all(render(&error, finders).as_bytes());
            }
            ExitCode::from(interrupt::signal().map_or(2, Signal::exit_code))
        }
    }
}

fn render(error: &anyhow::Error, finders: &[HintFinder]) -> String {
    use fmt::Write;
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain() {
        let line = cause.to_string();
        // A wrapper that only repeats its source says nothing new.
        if line == last {
            continue;
        }
        let label = if text.is_empty() { "error" } else { "  cause" };
        let _ = writeln!(text, "{label}: {line}");
        last = line;
    }
    let hint = error.chain().find_map(|cause| {
        let own = hinted(cause).map(|h| h.hint.clone());
        own.or_else(|| finders.iter().find_map(|find| find(cause)))
    });
    if let Some(hint) = hint {
        let _ = writeln!(text, "\nhint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hinted, hint_of};

    #[test]
    fn an_error_prints_its_causes_once_each_and_the_hint_last() {
        let root = Hinted::new("disk full", "free some space");
        let error = anyhow::Error::new(root).context("disk full").context("cannot pack `raw`");
        assert_eq!(
            render(&error, &[]),
            "error: cannot pack `raw`\n  cause: disk full\n\nhint: free some space\n"
        );
    }

    #[test]
    fn the_first_finder_that_knows_an_error_of_the_chain_gives_the_hint() {
        let io = io::Error::from(io::ErrorKind::NotFound);
        let error = anyhow::Error::new(io).context("cannot open `a`");
        let finder: HintFinder = |e| hint_of::<io::Error>(e, |_| Some("is the path right?".into()));
        assert!(render(&error, &[finder]).ends_with("\n\nhint: is the path right?\n"));
    }
}
