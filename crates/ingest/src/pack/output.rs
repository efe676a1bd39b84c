//! Where a pack writes, and how its result takes its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pfc_durable::AtomicDir;
use pfc_shard::{IDENTITIES_FILE, MANIFEST_FILE, SHARDS_DIR};

use super::quarantine;
use crate::IngestError;

/// The folder being written.
pub enum Output {
    /// The final folder itself; it is no data set until its manifest is written, last.
    InPlace {
        out: PathBuf,
        /// It did not exist before.
        is_new: bool,
    },
    /// A folder beside a data set that stays whole until the new one is.
    Replacement(AtomicDir),
}

impl Output {
    /// Checks that `out` may be written, before any work is done.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if it holds a data set and `force` is not given, if it holds anything else
    /// than what an interrupted pack left, or if it lies in `raw` or around it.
    pub fn open(raw: &Path, out: &Path, force: bool) -> Result<Output, IngestError> {
        check_apart(raw, out)?;
        let has_manifest = out.join(MANIFEST_FILE).exists();
        if has_manifest && !force {
            return Err(IngestError::DatasetExists { path: out.to_path_buf() });
        }
        if !has_manifest && !holds_at_most_leftovers(out).map_err(IngestError::at("list", out))? {
            return Err(IngestError::OutputExists { path: out.to_path_buf() });
        }
        let out = out.to_path_buf();
        if has_manifest {
            return Ok(Output::Replacement(AtomicDir::create(&out)?));
        }
        // The folder is made by who writes the first file, so that a failed start leaves nothing.
        let is_new = !out.exists();
        Ok(Output::InPlace { out, is_new })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        match self {
            Output::InPlace { out, .. } => out,
            Output::Replacement(beside) => beside.path(),
        }
    }

    /// A folder that exists on the disk that is written to, for temporary files.
    ///
    /// # Errors
    ///
    /// [`IngestError::Io`] if the current folder is gone.
    pub fn scratch(&self) -> Result<PathBuf, IngestError> {
        let path =
            std::path::absolute(self.path()).map_err(IngestError::at("find", self.path()))?;
        let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
        Ok(above.unwrap_or(&path).to_path_buf())
    }

    /// Puts a replacement in its place; the old data set is removed last.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if it cannot be; the old data set is then still there.
    pub fn commit(self) -> Result<(), IngestError> {
        let Output::Replacement(beside) = self else { return Ok(()) };
        Ok(beside.commit_over()?)
    }

    /// Removes what a failed pack wrote, as far as it is certain to be its own.
    pub fn discard(self) {
        match self {
            Output::InPlace { out, is_new: true } => {
                let _ = fs::remove_dir_all(out);
            }
            Output::InPlace { out, is_new: false } => {
                let _ = fs::remove_dir_all(out.join(SHARDS_DIR));
                let _ = fs::remove_file(out.join(IDENTITIES_FILE));
                let _ = fs::remove_file(out.join(quarantine::FILE));
            }
            Output::Replacement(_) => {}
        }
    }
}

/// Nothing, or only names that a pack writes before its manifest.
fn holds_at_most_leftovers(out: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let is_temporary = name.starts_with('.') && name.ends_with(".tmp");
        if !is_temporary && ![SHARDS_DIR, IDENTITIES_FILE, quarantine::FILE].contains(&&*name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A data set inside its own input would be packed the next time; an input inside the output could
/// be removed with it.
///
/// # Errors
///
/// [`IngestError::OutputInsideInput`].
pub fn check_apart(raw: &Path, out: &Path) -> Result<(), IngestError> {
    let (Ok(raw_real), Some(out_real)) = (raw.canonicalize(), resolve(out)) else { return Ok(()) };
    if out_real.starts_with(&raw_real) || raw_real.starts_with(&out_real) {
        let (out, raw) = (out.to_path_buf(), raw.to_path_buf());
        return Err(IngestError::OutputInsideInput { out, raw });
    }
    Ok(())
}

/// The real path of something that need not exist yet.
fn resolve(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|p| p.exists())?;
    let rest = path.strip_prefix(existing).ok()?;
    Some(existing.canonicalize().ok()?.join(rest))
}
