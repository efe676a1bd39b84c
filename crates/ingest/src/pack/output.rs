//! Where a pack writes, which files in a data set's folder are ours, and how a pack's result takes
//! its place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pfc_cli::units;
use pfc_durable::{Access, AtomicDir, Entry, OwnedDir, check_apart, remove_ours};
use pfc_embeddings::{DIR as EMBEDDINGS_DIR, is_kept_name};
use pfc_findings::DECISIONS_DIR;
use pfc_shard::{IDENTITIES_FILE, MANIFEST_FILE, SHARDS_DIR};

use super::{
    journal::{self, JobRecord},
    quarantine,
    summary::Summary,
};
use crate::IngestError;

/// The folder to write, claimed for this process before anything in it was looked at.
#[derive(Debug)]
pub struct Output {
    place: Place,
    /// A data set is there, to be replaced once the new one is complete.
    has_dataset: bool,
    /// The folder was absent or empty.
    is_new: bool,
}

#[derive(Debug)]
enum Place {
    /// The folder itself.
    Here(OwnedDir),
    /// A folder beside a data set, in which its replacement grows.
    Beside(AtomicDir),
}

/// What may be done with what the folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// An unfinished pack of the same job goes on; a data set stays.
    Keep,
    /// A data set is replaced.
    Replace,
}

impl Output {
    /// Claims `out` and checks that it may be written, before any work is done.
    ///
    /// # Errors
    ///
    /// [`IngestError::Folder`] if another process writes there, if files of somebody else are in it,
    /// or if it lies in `raw` or around it; [`IngestError::DatasetExists`] if it holds a data set
    /// that is not to be replaced, and [`IngestError::DecisionsKept`] if that has decisions.
    pub fn claim(
        raw: &Path,
        out: &Path,
        access: Access,
        existing: Existing,
    ) -> Result<Output, IngestError> {
        check_apart(raw, out)?;
        let owned = OwnedDir::claim(out, access)?;
        let has_dataset = has_dataset(&owned)?;
        let is_new = owned.is_free()?;
        // With a journal it may be what this very pack wrote just before it was killed.
        if has_dataset && !journal::tells_of_dataset(owned.path())? {
            match existing {
                Existing::Keep => {
                    let path = out.to_path_buf();
                    return Err(IngestError::DatasetExists { path, may_force: true });
                }
                Existing::Replace => check_replaceable(owned.path())?,
            }
        }
        Ok(Output { place: Place::Here(owned), has_dataset, is_new })
    }

    fn out(&self) -> &Path {
        match &self.place {
            Place::Here(owned) => owned.path(),
            Place::Beside(beside) => beside.target().path(),
        }
    }

    /// A folder that exists on the disk that is written to, for temporary files.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if the current folder is gone.
    pub fn scratch(&self) -> Result<PathBuf, IngestError> {
        let path = std::path::absolute(self.out()).map_err(IngestError::at("find", self.out()))?;
        let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
        Ok(above.unwrap_or(&path).to_path_buf())
    }

    /// What `job` made if it was killed between the last write and the end. Otherwise the folder to
    /// write to is decided: a data set is replaced by one that grows beside it.
    ///
    /// # Errors
    ///
    /// [`IngestError::DatasetExists`] if there is another data set that is not to be replaced.
    pub fn finished(
        mut self,
        job: &JobRecord,
        existing: Existing,
    ) -> Result<(Output, Option<Summary>), IngestError> {
        let owned = match self.place {
            Place::Here(owned) if self.has_dataset => owned,
            place => return Ok((Output { place, ..self }, None)),
        };
        let summary = journal::finished(owned.path(), job)?;
        if summary.is_some() {
            owned.remove_left()?;
        } else if existing == Existing::Keep {
            let path = owned.path().to_path_buf();
            return Err(IngestError::DatasetExists { path, may_force: true });
        } else {
            check_replaceable(owned.path())?;
            let mut beside = owned.resume()?;
            if let Some(summary) = journal::finished(beside.path(), job)? {
                self.place = Place::Beside(beside);
                return Ok((self, Some(summary)));
            }
            if beside.path().join(MANIFEST_FILE).exists() || !journal::has_job(beside.path()) {
                // What an earlier run replaced, or less than a beginning.
                beside = beside.begin_anew()?;
            }
            self.place = Place::Beside(beside);
            return Ok((self, None));
        }
        self.place = Place::Here(owned);
        Ok((self, summary))
    }

    /// The folder to write to. It is made by who writes the first file, so that a failed start
    /// leaves nothing.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Here(owned) => owned.path(),
            Place::Beside(beside) => beside.path(),
        }
    }

    /// Puts a replacement in its place, and removes the old data set and the journal.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if it cannot be; either data set is then there.
    pub fn commit(self) -> Result<(), IngestError> {
        let out = self.out().to_path_buf();
        match self.place {
            Place::Here(_claimed) => journal::remove(&out),
            Place::Beside(beside) => {
                check_replaceable(&out)?;
                say_what_goes(&out)?;
                beside.commit_over(is_of_dataset)?;
                journal::remove(&out)
            }
        }
    }

    /// Removes what a pack without a usable image wrote.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if something cannot be removed.
    pub fn discard(self) -> Result<(), IngestError> {
        match self.place {
            Place::Beside(beside) => Ok(beside.discard()?),
            Place::Here(owned) => {
                journal::restart(owned.path())?;
                remove_ours(owned.path(), is_of_unfinished)?;
                if self.is_new {
                    // An empty folder that was there before goes as well; it costs nothing to make.
                    let _ = fs::remove_dir(owned.path());
                }
                Ok(())
            }
        }
    }
}

fn has_dataset(owned: &OwnedDir) -> Result<bool, IngestError> {
    let has_dataset = owned.path().join(MANIFEST_FILE).exists();
    if !has_dataset {
        check_unfinished(owned)?;
    }
    Ok(has_dataset)
}

/// Requires that a folder without a manifest is free, or holds an unfinished pack and nothing else.
///
/// # Errors
///
/// [`IngestError::Folder`] that names what is not ours; [`PackError::DamagedJournal`].
///
/// [`PackError::DamagedJournal`]: super::PackError::DamagedJournal
pub fn check_unfinished(owned: &OwnedDir) -> Result<(), IngestError> {
    if owned.is_free()? {
        return Ok(());
    }
    if !owned.path().is_dir() {
        return Ok(owned.check_free()?);
    }
    owned.check_ours(is_of_unfinished)?;
    // Names alone prove nothing: shards without the job they are of may be all that is left of
    // a data set. A pack that was killed before it wrote that leaves folders and temporary files.
    let is_begun = journal::has_job(owned.path());
    let is_empty =
        || pfc_durable::check_ours(owned.path(), |e| e.is_dir || e.is_temporary()).is_ok();
    match is_begun || is_empty() {
        true => Ok(()),
        false => Err(pfc_durable::FolderError::Taken { folder: owned.path().to_path_buf() }.into()),
    }
}

/// Requires that a data set's folder holds nothing that its replacement would destroy for good.
fn check_replaceable(dir: &Path) -> Result<(), IngestError> {
    let decisions = dir.join(DECISIONS_DIR);
    if fs::read_dir(&decisions).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(IngestError::DecisionsKept { path: decisions });
    }
    Ok(pfc_durable::check_ours(dir, is_of_dataset)?)
}

fn say_what_goes(dir: &Path) -> Result<(), IngestError> {
    let manifest = pfc_shard::Manifest::read(dir);
    let rows = manifest.map_or("a data set".into(), |m| units::of(m.rows, "image"));
    let computed = dir.join(EMBEDDINGS_DIR);
    let kept = fs::read_dir(&computed).map_or(0, |entries| entries.count());
    let embeddings = match kept {
        0 => String::new(),
        n => format!(" and {}", units::of(n as u64, "file of embeddings")),
    };
    tracing::warn!("{}: the old data set, {rows}{embeddings}, is removed", dir.display());
    Ok(())
}

/// Whether an entry of a data set's folder is one that `pack` or `merge` writes before the manifest.
pub fn is_of_unfinished(entry: Entry<'_>) -> bool {
    if entry.is_temporary() {
        return true;
    }
    match entry.path.split_once('/') {
        None if entry.is_dir => [SHARDS_DIR, journal::DIR].contains(&entry.path),
        None => entry.is_file && [IDENTITIES_FILE, quarantine::FILE].contains(&entry.path),
        Some((SHARDS_DIR, name)) => entry.is_file && journal::is_shard_name(name),
        Some((journal::DIR, name)) => entry.is_file && journal::is_file_name(name),
        Some(_) => false,
    }
}

/// Whether an entry of a data set's folder is one of ours, decisions left aside.
fn is_of_dataset(entry: Entry<'_>) -> bool {
    is_of_unfinished(entry)
        || match entry.path.split_once('/') {
            None if entry.is_dir => entry.path == EMBEDDINGS_DIR || entry.path == DECISIONS_DIR,
            None => entry.is_file && [MANIFEST_FILE, ".centres.part"].contains(&entry.path),
            Some((EMBEDDINGS_DIR, name)) => entry.is_file && is_kept_name(name),
            Some(_) => false,
        }
}
