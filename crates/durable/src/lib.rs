//! Files and folders that appear whole or not at all.
//!
//! Everything is written to a temporary name beside its target, synced, and renamed. A crash leaves
//! at most a name ending in `.tmp`, which no reader of the project opens.

mod dir;
mod error;
pub mod faults;
mod file;

pub use dir::AtomicDir;
pub use error::DurableError;
pub use file::{AtomicFile, write};

use std::{
    fs::{self, File},
    path::Path,
};

/// Makes the entries of `dir` (new names, renames) survive a power cut.
///
/// # Errors
///
/// [`DurableError`] if the folder cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<(), DurableError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|f| f.sync_all()).map_err(DurableError::at("sync", dir))
}

/// Makes the folder `dir` and those above it, whose names then survive a power cut.
///
/// # Errors
///
/// [`DurableError`] if one cannot be made or synced.
pub fn create_dir_all(dir: &Path) -> Result<(), DurableError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|a| !a.exists()).collect();
    fs::create_dir_all(dir).map_err(DurableError::at("create", dir))?;
    missing.into_iter().try_for_each(|made| sync_dir(parent(made)))
}

/// Gives a finished file another name on the same file system, replacing what has that name.
///
/// # Errors
///
/// [`DurableError`] if it cannot be renamed or a folder not be synced.
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(DurableError::at("rename", from))?;
    sync_dir(parent(to))?;
    sync_dir(parent(from))
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
