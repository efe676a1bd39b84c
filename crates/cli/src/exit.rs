//! How a program ends: one printer for errors and hints, three exit codes.

use std::{error::Error, fmt, process::ExitCode};

/// How a run that could run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to report: exit code 0.
    Clean,
    /// It ran and found faults (a failed `verify`): exit code 1.
    Findings,
}

/// Looks for the way out in one error of a chain; [`hint_of`] makes one per error type.
pub type HintFinder = fn(&(dyn Error + 'static)) -> Option<String>;

/// An error that carries its own way out, for faults found in `main` itself.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
}

impl Hinted {
    /// `message` says what is wrong, `hint` what to do about it; neither ends in a full stop.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Hinted {
        Hinted { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Hinted {}

/// A finder for errors of type `E`, from its own `hint` function.
///
/// ```
/// # use std::error::Error;
/// # #[derive(Debug)] struct Full;
/// # impl std::fmt::Display for Full { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("full") } }
/// # impl Error for Full {}
/// # impl Full { fn hint(&self) -> Option<String> { Some("free some space".into()) } }
/// let finders: &[pfc_cli::HintFinder] = &[|e| pfc_cli::hint_of::<Full>(e, Full::hint)];
/// assert_eq!(finders[0](&Full).as_deref(), Some("free some space"));
/// ```
pub fn hint_of<E: Error + 'static>(
    error: &(dyn Error + 'static),
    hint: impl Fn(&E) -> Option<String>,
) -> Option<String> {
    error.downcast_ref::<E>().and_then(hint)
}

/// Ends a program: 0 clean, 1 it ran and found faults, 2 it could not run.
///
/// An error is printed to standard error as one `error:` line, one `cause:` line per source, and a
/// last `hint:` line from the first finder that knows an error of the chain.
pub fn exit(result: anyhow::Result<Outcome>, finders: &[HintFinder]) -> ExitCode {
    match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", render(&error, finders));
            ExitCode::from(2)
        }
    }
}

/// `pfc-ingest inspect out | head -1` is no fault.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
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
        let own = cause.downcast_ref::<Hinted>().map(|h| h.hint.clone());
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
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = anyhow::Error::new(io).context("cannot open `a`");
        let finder: HintFinder =
            |e| hint_of::<std::io::Error>(e, |_| Some("is the path right?".into()));
        assert!(render(&error, &[finder]).ends_with("\n\nhint: is the path right?\n"));
    }
}
