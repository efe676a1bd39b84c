//! Errors that carry their way out, and how it is found in a chain of errors.

use std::{error::Error, fmt, io};

/// Looks for the way out in one error of a chain; [`hint_of`] makes one per error type.
pub type HintFinder = fn(&(dyn Error + 'static)) -> Option<String>;

/// An error that carries its own way out, for faults found in `main` itself.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    pub(crate) hint: String,
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

/// The fault within an error of a chain, also where it travels as an I/O error.
pub(crate) fn hinted<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a Hinted> {
    let within = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Hinted>();
    cause.downcast_ref::<Hinted>().or_else(within)
}
