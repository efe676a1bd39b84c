//! Where a pack writes, which files in a data set's folder are ours, and how a pack's result takes
//! its place: from the journal of a pack whose shards are all there to a data set.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use pfc_cli::units;
use pfc_durable::{Access, AtomicDir, Entry, FolderError, OwnedDir, check_apart, remove_ours};
use pfc_embeddings::{DIR as EMBEDDINGS_DIR, is_kept_name};
use pfc_findings::DECISIONS_DIR;
use pfc_shard::{
    DETECTIONS_FILE, DetectionRow, IDENTITIES_FILE, MANIFEST_FILE, QUALITY_DIR, SHARDS_DIR,
    ShardEntry, assemble, is_quality_name, write_detections,
};
use pfc_sources::exists;

use super::{
    journal::{self, JobRecord, Journal, ShardRecord, record},
    quarantine::{self, Line, Quarantine},
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
            if exists(&beside.path().join(MANIFEST_FILE))? || !journal::has_job(beside.path())? {
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
    let has_dataset = exists(&owned.path().join(MANIFEST_FILE))?;
    if !has_dataset {
        check_unfinished(owned)?;
    }
    Ok(has_dataset)
}

/// Requires that a folder without a manifest is free, or holds an unfinished pack and nothing else.
///
/// # Errors
///
/// [`IngestError::Folder`] that names what is not ours; [`PackError::NotAJob`].
///
/// [`PackError::NotAJob`]: super::PackError::NotAJob
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
    if journal::has_job(owned.path())? {
        return Ok(());
    }
    match pfc_durable::check_ours(owned.path(), |e| e.is_dir || e.is_temporary()) {
        Err(FolderError::Foreign { .. }) => Err(owned.taken().into()),
        empty => Ok(empty?),
    }
}

/// Requires that a data set's folder holds nothing that its replacement would destroy for good.
fn check_replaceable(dir: &Path) -> Result<(), IngestError> {
    let decisions = dir.join(DECISIONS_DIR);
    if n_entries(&decisions, |_| true)? > 0 {
        return Err(IngestError::DecisionsKept { path: decisions });
    }
    Ok(pfc_durable::check_ours(dir, is_of_dataset)?)
}

fn say_what_goes(dir: &Path) -> Result<(), IngestError> {
    let manifest = pfc_shard::Manifest::read(dir);
    // A damaged data set may be replaced.
    let mut goes = vec![manifest.map_or("a data set".into(), |m| units::of(m.rows, "image"))];
    let is_of_embeddings = |name: &str| !name.ends_with(".sum");
    match n_entries(&dir.join(EMBEDDINGS_DIR), is_of_embeddings)? {
        0 => {}
        n => goes.push(format!("{} of embeddings", units::of(n, "file"))),
    }
    if n_entries(&dir.join(QUALITY_DIR), |_| true)? > 0 {
        goes.push("the measures of its quality".to_owned());
    }
    let last = goes.pop().unwrap_or_default();
    let goes = if goes.is_empty() { last } else { format!("{} and {last}", goes.join(", ")) };
    tracing::warn!("{}: the old data set, {goes}, is removed", dir.display());
    Ok(())
}

/// How many entries of a folder have a name that counts; none if it is not there.
fn n_entries(dir: &Path, counts: impl Fn(&str) -> bool) -> Result<u64, IngestError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(IngestError::at("list", dir))?,
    };
    let mut n = 0;
    for entry in entries {
        let entry = entry.map_err(IngestError::at("list", dir))?;
        n += u64::from(counts(&entry.file_name().to_string_lossy()));
    }
    Ok(n)
}

/// Whether an entry of a data set's folder is one that `pack` or `merge` writes before the manifest.
pub fn is_of_unfinished(entry: Entry<'_>) -> bool {
    if entry.is_temporary() {
        return true;
    }
    match entry.path.split_once('/') {
        None if entry.is_dir => [SHARDS_DIR, journal::DIR].contains(&entry.path),
        None => {
            entry.is_file
                && [IDENTITIES_FILE, DETECTIONS_FILE, quarantine::FILE].contains(&entry.path)
        }
        Some((SHARDS_DIR, name)) => entry.is_file && journal::is_shard_name(name),
        Some((journal::DIR, name)) => entry.is_file && journal::is_file_name(name),
        Some(_) => false,
    }
}

/// Whether an entry of a data set's folder is one of ours, decisions left aside.
fn is_of_dataset(entry: Entry<'_>) -> bool {
    is_of_unfinished(entry)
        || match entry.path.split_once('/') {
            None if entry.is_dir => {
                [EMBEDDINGS_DIR, DECISIONS_DIR, QUALITY_DIR].contains(&entry.path)
            }
            None => entry.is_file && [MANIFEST_FILE, ".centres.part"].contains(&entry.path),
            Some((EMBEDDINGS_DIR, name)) => entry.is_file && is_kept_name(name),
            Some((QUALITY_DIR, name)) => entry.is_file && is_quality_name(name),
            Some(_) => false,
        }
}

/// Writes the quarantine list, the table of identities, and the manifest last. The journal stays.
///
/// * `n_images`: rows of each label
///
/// # Errors
///
/// [`IngestError::NothingUsable`] if there is not one row, or [`IngestError`] if something cannot be
/// written or the journal is damaged.
pub fn finish(journal: &Journal, n_images: &[u64]) -> Result<Summary, IngestError> {
    let (out, job) = (journal.out(), journal.job());
    let mut list = Quarantine::create(out)?;
    record::read_lines(&journal.left_out_path(), job.left_out_list, |line: Line| list.add(&line))?;
    let mut shards: Vec<ShardEntry> = Vec::new();
    let mut summary = Summary::default();
    for index in 0..journal.n_shards() {
        let record = record(journal, index)?;
        record.quarantine.iter().try_for_each(|line| list.add(line))?;
        record.count_in(&mut summary);
        shards.extend(record.entry());
    }
    if shards.is_empty() {
        let (path, n) = (job.sources.first().into_iter().collect(), job.images);
        let example = list.first.unwrap_or_default();
        return Err(IngestError::NothingUsable { path, n, example });
    }
    summary.quarantined = list.n_quarantined;
    summary.skipped = list.n_skipped;
    summary.identities = job.identities;
    summary.identities_without_images = Some(n_images.iter().filter(|n| **n == 0).count() as u64);
    list.commit()?;
    write_found(journal, &shards)?;
    remove_strays(journal, &shards)?;
    let names = record::read_labels(&journal.labels_path(), job.labels_list)?;
    journal.set_done(&summary)?;
    let count = |label: u32| n_images.get(label as usize).copied().unwrap_or(0);
    assemble(out, job.spec(), shards, &names, count)?;
    Ok(summary)
}

/// Writes where the faces were found, if a detector found them.
fn write_found(journal: &Journal, shards: &[ShardEntry]) -> Result<(), IngestError> {
    let first = (0..journal.n_shards()).map(|index| record(journal, index)?.detections());
    let mut has_any = false;
    for rows in first {
        has_any |= !rows?.is_empty();
        if has_any {
            break;
        }
    }
    if !has_any {
        return Ok(());
    }
    let n_rows = shards.iter().map(|shard| shard.rows).sum();
    let rows = (0..journal.n_shards()).flat_map(|index| {
        let rows = record(journal, index).and_then(|record| record.detections());
        let rows: Vec<Result<DetectionRow, IngestError>> = match rows {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        rows
    });
    write_detections(journal.out(), n_rows, rows)
}

/// What the shards of one worker hold.
///
/// # Errors
///
/// [`IngestError`] if the journal is damaged.
pub fn summarize(journal: &Journal, shards: std::ops::Range<u64>) -> Result<Summary, IngestError> {
    let mut summary = Summary { identities: journal.job().identities, ..Summary::default() };
    for index in shards {
        let record = record(journal, index)?;
        record.count_in(&mut summary);
        summary.skipped += record.quarantine.iter().filter(|line| line.is_skip()).count() as u64;
        summary.quarantined +=
            record.quarantine.iter().filter(|line| !line.is_skip()).count() as u64;
    }
    Ok(summary)
}

fn record(journal: &Journal, index: u64) -> Result<ShardRecord, IngestError> {
    journal.shard(index)?.ok_or_else(|| {
        let path = journal.out().join(journal::DIR).join(format!("{index:05}.json"));
        super::PackError::DamagedJournal { path }.into()
    })
}

/// Removes what killed processes left beside the shards.
fn remove_strays(journal: &Journal, shards: &[ShardEntry]) -> Result<(), IngestError> {
    let listed: HashSet<&str> = shards.iter().filter_map(|s| s.file.rsplit('/').next()).collect();
    let is_stray = |entry: Entry<'_>| {
        let is_shard = entry.is_file && journal::is_shard_name(entry.path);
        entry.is_temporary() || (is_shard && !listed.contains(entry.path))
    };
    remove_ours(&journal.out().join(SHARDS_DIR), is_stray)?;
    Ok(remove_ours(journal.out(), |entry| entry.is_temporary())?)
}
