//! `OUT/journal/`: what an unfinished pack has done so far, so that it can go on after anything.
//!
//! | file | |
//! |---|---|
//! | `job.json` | what is packed and how: [`JobRecord`]. Another job is not mixed with it |
//! | `labels.jsonl`, `left_out.jsonl` | names by label, and what the listing left out: [`record`] |
//! | `00000.json` … | a finished shard: [`ShardRecord`], written once its shard is on disk |
//! | `worker-0-of-4.json` | which shards are whose, where workers share the pack |
//! | `done.json` | what was packed, written just before the manifest |
//!
//! Every file is written beside, synced and renamed, and carries a checksum. `job.json` comes first and
//! says whose the folder is; until it is there, nothing else is. A shard counts only if its record and
//! its file are whole; everything else is packed again. The journal is removed once the manifest is in
//! place, `done.json` last. Who uses a journal has claimed its folder ([`pfc_durable::OwnedDir`]).

pub mod record;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_durable::{Access, DurableError, faults::is_of_system, remove_ours, sync_dir};
use pfc_shard::{
    Checksum, SHARDS_DIR,
    sealed::{self, SealedError},
};
use pfc_sources::{Source, exists, is_file};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{quarantine, summary::Summary, worker::Worker};
use crate::{IngestError, PackError};
pub use record::{Done, JobRecord, ShardFile, ShardRecord, WorkerRecord};

/// Name of the folder in that of a data set being packed.
pub const DIR: &str = "journal";

/// Name of the file that says what is packed.
pub const JOB_FILE: &str = "job.json";
const LABELS_FILE: &str = "labels.jsonl";
const LEFT_OUT_FILE: &str = "left_out.jsonl";
const DONE_FILE: &str = "done.json";
/// What earlier versions locked.
const LOCK_FILE: &str = "lock";

/// More shards than any data set has: of 1 MiB each they hold 16 TiB.
const SHARDS_MAX: u64 = 1 << 24;

/// The journal of a pack in one folder.
#[derive(Debug)]
pub struct Journal {
    out: PathBuf,
    dir: PathBuf,
    job: JobRecord,
    /// Which every record names, so that none of another job is taken for one of this.
    id: Checksum,
}

impl Journal {
    /// Begins the journal of `job` in `out`, or goes on with the one that is there.
    ///
    /// # Errors
    ///
    /// [`PackError::JobDiffers`] if that is of another job, [`PackError::DamagedJournal`], or
    /// [`IngestError`] if it cannot be written.
    pub fn open(
        out: &Path,
        job: JobRecord,
        source: &dyn Source,
        access: Access,
    ) -> Result<Journal, IngestError> {
        let mut journal = Journal::begin(out, job)?;
        let path = journal.dir.join(JOB_FILE);
        match read_sealed::<JobRecord>(&path)? {
            Some(found) if found == journal.job => {}
            Some(found) => {
                let (out, differences) = (out.into(), journal.job.differences(&found));
                let by_worker = access == Access::Shared;
                return Err(PackError::JobDiffers { out, differences, by_worker }.into());
            }
            None => sealed::write(&path, &journal.job)?,
        }
        journal.make_shards_dir()?;
        journal.write_list(LABELS_FILE, |out| record::write_labels(out, source))?;
        journal.write_list(LEFT_OUT_FILE, |out| record::write_left_out(out, source))?;
        Ok(journal)
    }

    /// Begins in `out` the journal of a job whose lists are those of `part`.
    pub fn open_like(part: &Journal, out: &Path) -> Result<Journal, IngestError> {
        let journal = Journal::begin(out, part.job.clone())?;
        let path = journal.dir.join(JOB_FILE);
        match read_sealed::<JobRecord>(&path)? {
            Some(found) if found != journal.job => {
                let (part, first) = (out.into(), part.out.clone());
                let differences = found.differences(&journal.job);
                return Err(PackError::PartDiffers { part, first, differences }.into());
            }
            _ => sealed::write(&path, &journal.job)?,
        }
        journal.make_shards_dir()?;
        for name in [LABELS_FILE, LEFT_OUT_FILE] {
            let from = part.dir.join(name);
            let bytes = fs::read(&from).map_err(IngestError::at("read", &from))?;
            pfc_durable::write(&journal.dir.join(name), &bytes)?;
        }
        Ok(journal)
    }

    /// Looks at the journal in `out`.
    ///
    /// # Errors
    ///
    /// [`PackError::NotAPart`] if there is none, [`PackError::DamagedJournal`], [`IngestError::Durable`].
    pub fn read(out: &Path) -> Result<Journal, IngestError> {
        let dir = out.join(DIR);
        let job: Option<JobRecord> = read_sealed(&dir.join(JOB_FILE))?;
        let job = job.ok_or_else(|| PackError::NotAPart { path: out.into() })?;
        // Whoever merges holds something of each shard and identity in memory, and the journal may be
        // from elsewhere. A label takes a line.
        let labels = dir.join(LABELS_FILE);
        let labels_bytes = match fs::metadata(&labels) {
            Err(error) if is_of_system(&error) => {
                return Err(IngestError::at("read", &labels)(error));
            }
            found => found.map_or(0, |found| found.len()),
        };
        if job.n_shards() > SHARDS_MAX || job.identities > labels_bytes {
            return Err(PackError::DamagedJournal { path: dir.join(JOB_FILE) }.into());
        }
        Ok(Journal { out: out.into(), dir, id: job.id(), job })
    }

    fn begin(out: &Path, job: JobRecord) -> Result<Journal, IngestError> {
        let dir = out.join(DIR);
        pfc_durable::create_dir_all(&dir)?;
        Ok(Journal { out: out.into(), dir, id: job.id(), job })
    }

    fn make_shards_dir(&self) -> Result<(), IngestError> {
        Ok(pfc_durable::create_dir_all(&self.out.join(SHARDS_DIR))?)
    }

    /// The folder of the data set.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// What is packed.
    pub fn job(&self) -> &JobRecord {
        &self.job
    }

    /// Number of shards.
    pub fn n_shards(&self) -> u64 {
        self.job.n_shards()
    }

    /// The record of a finished shard; nothing if there is none of this job. A damaged one is as
    /// good as none: what it says is found again by packing.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] for a fault of the system, which says nothing about the shard.
    pub fn shard(&self, index: u64) -> Result<Option<ShardRecord>, IngestError> {
        let path = self.shard_path(index);
        match sealed::read::<ShardRecord>(&path) {
            Ok(record) => {
                Ok(record.filter(|record| record.job == self.id && record.index == index))
            }
            Err(SealedError::Io(source)) if is_of_system(&source) => {
                Err(IngestError::at("read", &path)(source))
            }
            Err(error) => {
                tracing::warn!("{} {error}: shard {index} counts as not done", path.display());
                Ok(None)
            }
        }
    }

    /// Notes a finished shard, whose file is on disk.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn add(&self, mut record: ShardRecord) -> Result<(), IngestError> {
        record.job = self.id;
        Ok(sealed::write(&self.shard_path(record.index), &record)?)
    }

    fn shard_path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:05}.json"))
    }

    /// Notes which shards are whose.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn add_worker(&self, worker: Worker, shards: &Range<u64>) -> Result<(), IngestError> {
        let path = self.dir.join(format!("{}.json", worker.file_stem()));
        let Range { start, end } = *shards;
        Ok(sealed::write(&path, &WorkerRecord { worker: worker.to_string(), start, end })?)
    }

    /// The workers that began here, by first shard.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if the journal cannot be read.
    pub fn workers(&self) -> Result<Vec<WorkerRecord>, IngestError> {
        let mut workers: Vec<WorkerRecord> = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(IngestError::at("list", &self.dir))? {
            let entry = entry.map_err(IngestError::at("list", &self.dir))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("worker-") {
                workers.extend(read_sealed::<WorkerRecord>(&entry.path())?);
            }
        }
        workers.sort_by_key(|worker| (worker.start, worker.end));
        Ok(workers)
    }

    /// The names of all labels.
    pub fn labels_path(&self) -> PathBuf {
        self.dir.join(LABELS_FILE)
    }

    /// What the listing of the source left out.
    pub fn left_out_path(&self) -> PathBuf {
        self.dir.join(LEFT_OUT_FILE)
    }

    /// Notes that all that is missing is the manifest.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn set_done(&self, summary: &Summary) -> Result<(), IngestError> {
        let done = Done { job: self.id, summary: summary.clone() };
        Ok(sealed::write(&self.dir.join(DONE_FILE), &done)?)
    }

    fn write_list(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut pfc_durable::AtomicFile) -> std::io::Result<()>,
    ) -> Result<(), IngestError> {
        let path = self.dir.join(name);
        if exists(&path)? {
            // Of the same job, since that was written first.
            return Ok(());
        }
        let mut file = pfc_durable::AtomicFile::create(&path)?;
        write(&mut file).map_err(DurableError::at("write", &path))?;
        Ok(file.commit()?)
    }
}

/// Whether the folder `out` holds a job of ours, of whatever version: a file with our seal. Nothing else says
/// that the shards in a folder without a manifest may be written over or removed.
///
/// # Errors
///
/// [`PackError::NotAJob`] for a file of that name without a seal that is right, [`IngestError::Durable`] if the
/// system fails, which says nothing of the folder.
pub fn has_job(out: &Path) -> Result<bool, IngestError> {
    let path = out.join(DIR).join(JOB_FILE);
    match sealed::read::<IgnoredAny>(&path) {
        Ok(job) => Ok(job.is_some()),
        Err(SealedError::Io(source)) => Err(IngestError::at("read", &path)(source)),
        Err(SealedError::Damaged) => Err(PackError::NotAJob { path }.into()),
    }
}

/// Whether the job in `out` has the lists that are written right after it: a merge that was killed
/// between the two has brought nothing yet.
///
/// # Errors
///
/// As [`has_job`].
pub fn has_lists(out: &Path) -> Result<bool, IngestError> {
    let dir = out.join(DIR);
    Ok(has_job(out)? && is_file(&dir.join(LABELS_FILE))? && is_file(&dir.join(LEFT_OUT_FILE))?)
}

/// Whether a file in the folder of a journal is one of it.
pub fn is_file_name(name: &str) -> bool {
    let is_worker = |name: &str| {
        name.strip_prefix("worker-").and_then(|name| name.split_once("-of-")).is_some_and(
            |(i, n)| {
                [i, n]
                    .iter()
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
            },
        )
    };
    let is_record = |name: &str| is_number(name) || is_worker(name);
    [JOB_FILE, LABELS_FILE, LEFT_OUT_FILE, DONE_FILE, LOCK_FILE].contains(&name)
        || name.strip_suffix(".json").is_some_and(is_record)
}

/// What was packed, where the data set in `out` is finished but for its journal, and of this job.
///
/// # Errors
///
/// [`IngestError`] if the journal cannot be read.
pub fn finished(out: &Path, job: &JobRecord) -> Result<Option<Summary>, IngestError> {
    let done: Option<Done> = read_sealed(&out.join(DIR).join(DONE_FILE))?;
    Ok(done.filter(|done| done.job == job.id()).map(|done| done.summary))
}

/// The same, of whatever job it is.
///
/// # Errors
///
/// [`IngestError`] if the journal cannot be read.
pub fn finished_any(out: &Path) -> Result<Option<Summary>, IngestError> {
    let done: Option<Done> = read_sealed(&out.join(DIR).join(DONE_FILE))?;
    Ok(done.map(|done| done.summary))
}

/// Whether a journal tells of the data set in `out`; the last remains of one are removed.
///
/// # Errors
///
/// [`IngestError`] if they cannot be.
pub fn tells_of_dataset(out: &Path) -> Result<bool, IngestError> {
    if exists(&out.join(DIR).join(DONE_FILE))? {
        return Ok(true);
    }
    remove(out)?;
    Ok(false)
}

/// Removes the journal in `out`, if there is one; files of others that are in it stay.
///
/// # Errors
///
/// [`IngestError`] if it cannot be.
pub fn remove(out: &Path) -> Result<(), IngestError> {
    let dir = out.join(DIR);
    if !dir.is_dir() {
        return Ok(());
    }
    // The order tells a finished data set from an unfinished one, whenever this is cut short.
    remove_ours(&dir, |entry| entry.path != DONE_FILE && is_record(entry))?;
    remove_ours(&dir, is_record)?;
    match fs::remove_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
        removed => removed.map_err(IngestError::at("remove", &dir))?,
    }
    Ok(sync_dir(out)?)
}

/// Drops what an unfinished pack in `out` has done: last what says that it was ours.
///
/// # Errors
///
/// [`IngestError`] if it cannot be removed.
pub fn restart(out: &Path) -> Result<(), IngestError> {
    remove_ours(&out.join(SHARDS_DIR), |e| {
        e.is_temporary() || (e.is_file && is_shard_name(e.path))
    })?;
    remove_ours(out, |e| {
        let lists = [pfc_shard::IDENTITIES_FILE, quarantine::FILE];
        e.is_temporary() || (e.is_file && lists.contains(&e.path))
    })?;
    let dir = out.join(DIR);
    remove_ours(&dir, |entry| entry.path != JOB_FILE && is_record(entry))?;
    Ok(remove_ours(&dir, is_record)?)
}

/// Whether an entry of a journal's folder is one of it.
fn is_record(entry: pfc_durable::Entry<'_>) -> bool {
    entry.is_temporary() || (entry.is_file && is_file_name(entry.path))
}

/// Reads a file of a journal; nothing where there is none.
///
/// # Errors
///
/// [`PackError::DamagedJournal`] if the file is not what was written, [`IngestError::Durable`].
fn read_sealed<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IngestError> {
    sealed::read(path).map_err(|error| match error {
        SealedError::Io(source) => IngestError::at("read", path)(source),
        SealedError::Damaged => PackError::DamagedJournal { path: path.into() }.into(),
    })
}

/// `00000.arrow`, with five digits or more.
pub fn is_shard_name(name: &str) -> bool {
    name.strip_suffix(".arrow").is_some_and(is_number)
}

/// Five digits or more.
fn is_number(text: &str) -> bool {
    text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}
