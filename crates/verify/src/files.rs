//! Files that are read whole: lists of pairs, and single images.

use std::{
    io::{Error, ErrorKind},
    path::Path,
};

use pfc_durable::faults::is_of_system;

use crate::VerifyError;

/// Reads a file whole.
///
/// # Errors
///
/// [`VerifyError::Durable`] if it cannot be read, is a device or a pipe, or has more than `bytes_max` bytes.
pub fn read_regular_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, VerifyError> {
    let refuse =
        |why: String| VerifyError::io("read", path)(Error::new(ErrorKind::InvalidInput, why));
    let metadata = std::fs::metadata(path).map_err(VerifyError::io("open", path))?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".to_owned()));
    }
    if metadata.len() > bytes_max {
        return Err(refuse(format!("{} bytes are more than {bytes_max}", metadata.len())));
    }
    std::fs::read(path).map_err(VerifyError::io("read", path))
}

/// Whether there is a file at `path`.
///
/// # Errors
///
/// [`VerifyError::Durable`] if the system fails, which says nothing of the path.
pub fn is_file(path: &Path) -> Result<bool, VerifyError> {
    match std::fs::metadata(path) {
        Err(error) if is_of_system(&error) => Err(VerifyError::io("look for", path)(error)),
        found => Ok(found.is_ok_and(|found| found.is_file())),
    }
}

/// A list as text; `path` and `layout` are for the error alone.
///
/// # Errors
///
/// [`VerifyError::Line`] with the first line that is not UTF-8.
pub fn utf8<'a>(
    path: &Path,
    bytes: &'a [u8],
    layout: &'static str,
) -> Result<&'a str, VerifyError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
        let problem = "it is not UTF-8 text".to_owned();
        VerifyError::Line { path: path.to_owned(), line, problem, layout }
    })
}
