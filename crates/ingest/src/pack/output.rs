//! Where a pack writes, and how its result takes its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pfc_durable::AtomicDir;
use pfc_shard::{IDENTITIES_FILE, MANIFEST_FILE, SHARDS_DIR};

use super::{
    journal::{self, JobRecord},
    quarantine,
    summary::Summary,
};
use crate::IngestError;

/// Where to write.
#[derive(Debug)]
pub struct Output {
    out: PathBuf,
    /// A data set is there, to be replaced once the new one is complete.
    has_dataset: bool,
    /// The folder beside a data set in which its replacement grows.
    beside: Option<AtomicDir>,
    /// The folder did not exist before.
    is_new: bool,
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
        let has_dataset = out.join(MANIFEST_FILE).exists();
        // With a journal it may be what this very pack wrote just before it was killed.
        if has_dataset && !journal::tells_of_dataset(out)? && !force {
            return Err(IngestError::DatasetExists { path: out.to_path_buf() });
        }
        if !has_dataset {
            check_unused(out)?;
        }
        let is_new = !out.exists();
        Ok(Output { out: out.to_path_buf(), has_dataset, beside: None, is_new })
    }

    /// A folder that exists on the disk that is written to, for temporary files.
    ///
    /// # Errors
    ///
    /// [`IngestError::Io`] if the current folder is gone.
    pub fn scratch(&self) -> Result<PathBuf, IngestError> {
        let path = std::path::absolute(&self.out).map_err(IngestError::at("find", &self.out))?;
        let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
        Ok(above.unwrap_or(&path).to_path_buf())
    }

    /// What `job` made of `raw` if it was killed between the last write and the end.
    ///
    /// # Errors
    ///
    /// [`IngestError::DatasetExists`] if there is another data set that is not to be replaced.
    pub fn finished(
        &mut self,
        job: &JobRecord,
        force: bool,
    ) -> Result<Option<Summary>, IngestError> {
        if !self.has_dataset {
            return Ok(None);
        }
        if let Some(summary) = journal::finished(&self.out, job)? {
            AtomicDir::remove_resumable(&self.out)?;
            return Ok(Some(summary));
        }
        if !force {
            return Err(IngestError::DatasetExists { path: self.out.clone() });
        }
        let beside = AtomicDir::resume(&self.out)?;
        if !beside.path().join(MANIFEST_FILE).exists() {
            return Ok(None);
        }
        if let Some(summary) = journal::finished(beside.path(), job)? {
            self.beside = Some(beside);
            return Ok(Some(summary));
        }
        // What was replaced by an earlier run.
        AtomicDir::remove_resumable(&self.out)?;
        Ok(None)
    }

    /// The folder to write to. It is made by who writes the first file, so that a failed start
    /// leaves nothing.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if a folder beside a data set cannot be made.
    pub fn path(&mut self) -> Result<&Path, IngestError> {
        if self.has_dataset && self.beside.is_none() {
            self.beside = Some(AtomicDir::resume(&self.out)?);
        }
        Ok(self.beside.as_ref().map_or(&*self.out, AtomicDir::path))
    }

    /// Puts a replacement in its place, and removes the old data set and the journal.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if it cannot be; either data set is then there.
    pub fn commit(self) -> Result<(), IngestError> {
        if let Some(beside) = self.beside {
            beside.commit_over()?;
        }
        journal::remove(&self.out)
    }

    /// Removes what a pack without a usable image wrote, as far as it is certain to be its own.
    pub fn discard(self) {
        if let Some(beside) = self.beside {
            drop(beside);
            let _ = AtomicDir::remove_resumable(&self.out);
        } else if self.is_new {
            let _ = fs::remove_dir_all(self.out);
        } else {
            let _ = fs::remove_dir_all(self.out.join(SHARDS_DIR));
            let _ = fs::remove_dir_all(self.out.join(journal::DIR));
            let _ = fs::remove_file(self.out.join(IDENTITIES_FILE));
            let _ = fs::remove_file(self.out.join(quarantine::FILE));
        }
    }
}

/// Checks that `out` holds at most what an interrupted pack left.
///
/// # Errors
///
/// [`IngestError::OutputExists`] or [`IngestError::Io`].
pub fn check_unused(out: &Path) -> Result<(), IngestError> {
    match holds_at_most_leftovers(out).map_err(IngestError::at("list", out))? {
        true => Ok(()),
        false => Err(IngestError::OutputExists { path: out.to_path_buf() }),
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
        let ours = [SHARDS_DIR, IDENTITIES_FILE, quarantine::FILE, journal::DIR];
        if !is_temporary && !ours.contains(&&*name) {
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
