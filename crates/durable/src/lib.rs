//! Files and folders that appear whole or not at all, and who may write them.
//!
//! Everything is written to a temporary name beside its target, synced, and renamed. A crash leaves
//! at most `.NAME.tmp` and `.NAME.lock` of a folder and `.NAME.XXXXXX.tmp` of a file, which no reader
//! of the project opens and which the next command for the same target finds: see [`OwnedDir`] and
//! [`sweep`]. Permissions are those of any new file: what the process's umask leaves.

mod dir;
mod error;
pub mod faults;
mod file;
mod lock;
pub mod manifest;
mod owned;
pub mod watch;

pub use dir::AtomicDir;
pub use error::{DurableError, FolderError, limit};
pub use file::{AtomicFile, sweep, sweep_all, write, write_output};
pub use lock::Access;
pub use owned::{Entry, OwnedDir, check_apart, check_ours, is_temporary_name, remove_ours};

use watch::{Done, tell};

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Makes the entries of `dir` (new names, renames) survive a power cut.
///
/// # Errors
///
/// [`DurableError`] if the folder cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<(), DurableError> {
    in_synced_dir(dir, || Ok(()))
}

/// Runs `change`, which gives something in `dir` a name, and makes the name survive a power cut.
///
/// The folder is opened first: where that fails, as for a process without file descriptors, nothing
/// has appeared, and the caller may say so.
fn in_synced_dir<R>(
    dir: &Path,
    change: impl FnOnce() -> Result<R, DurableError>,
) -> Result<R, DurableError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let opened = File::open(dir).map_err(DurableError::at("sync", dir))?;
    let result = change()?;
    opened.sync_all().map_err(DurableError::at("sync", dir))?;
    tell(Done::NamesSynced(dir));
    Ok(result)
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
    in_synced_dir(parent(from), || {
        in_synced_dir(parent(to), || {
            fs::rename(from, to).map_err(DurableError::at("rename", from))?;
            tell(Done::Changed(to));
            Ok(())
        })
    })
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `.NAME.ENDING` beside a file or folder called NAME.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = hidden(path);
    name.push(ending);
    parent(path).join(name)
}

/// Bytes of a target's name that a temporary name repeats: with an ending, all of it may be longer
/// than names can be.
const NAME_BYTES_MAX: usize = 200;

/// `.NAME.`, to which an ending is added; of a longer name its hash.
fn hidden(path: &Path) -> OsString {
    let name = path.file_name().unwrap_or_default();
    let mut hidden = OsString::from(".");
    if name.len() <= NAME_BYTES_MAX {
        hidden.push(name);
    } else {
        // FNV-1a, which stays the same in every version of the program and of the library.
        let hash = name.as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hidden.push(format!("{hash:016x}"));
    }
    hidden.push(".");
    hidden
}
