//! An error with its own way out.

use std::{error::Error, fmt};

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
