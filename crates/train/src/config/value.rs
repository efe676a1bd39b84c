//! Values out of their bounds.

use std::{borrow::Cow, fmt::Display, path::Path};

/// A value out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, but has to be {bound}")]
pub struct BadValue {
    key: Cow<'static, str>,
    value: String,
    bound: String,
}

impl BadValue {
    /// `key` as `section.name`; `bound` completes "has to be".
    pub fn new(
        key: impl Into<Cow<'static, str>>,
        value: impl Display,
        bound: impl Into<String>,
    ) -> BadValue {
        let value = value.to_string();
        // A number of hundreds of digits is read by nobody.
        let value = match value.parse::<f64>() {
            Ok(number) if value.len() > 24 => format!("{number:e}"),
            _ => value,
        };
        BadValue { key: key.into(), value, bound: bound.into() }
    }

    /// An error unless `holds`.
    ///
    /// # Errors
    ///
    /// The value that does not hold.
    pub fn unless(
        holds: bool,
        key: &'static str,
        value: impl Display,
        bound: impl Into<String>,
    ) -> Result<(), BadValue> {
        if holds { Ok(()) } else { Err(BadValue::new(key, value, bound)) }
    }

    /// The bound, if it is of this key.
    pub(super) fn bound_of(self, key: &str) -> Option<String> {
        (self.key == key).then_some(self.bound)
    }

    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let key = &self.key;
        Some(format!("change it in the file, or for one run with `--set {key}=VALUE`"))
    }
}

/// Whether a key that holds a path was set.
pub(crate) fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Refuses a path that was left empty.
pub(crate) fn require_path(key: &'static str, path: &Path) -> Result<(), BadValue> {
    BadValue::unless(is_given(path), key, "not set", "the path of a folder or file")
}
