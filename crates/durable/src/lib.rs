//! Files and folders that appear whole or not at all.
//!
//! Everything is written to a temporary name beside its target, synced, and renamed. A crash leaves
//! at most a name ending in `.tmp`, which no reader of the project opens.

mod dir;
mod error;
mod file;

pub use dir::AtomicDir;
pub use error::DurableError;
pub use file::{AtomicFile, write};

use std::{fs::File, path::Path};

/// Makes the entries of `dir` (new names, renames) survive a power cut.
///
/// # Errors
///
/// [`DurableError`] if the folder cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<(), DurableError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|f| f.sync_all()).map_err(DurableError::at("sync", dir))
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
