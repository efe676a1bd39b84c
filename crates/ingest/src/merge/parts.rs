//! The folders that workers wrote: of one job, complete, undamaged; and bringing the shards of all of
//! them into one folder.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use pfc_cli::{Progress, interrupt};
use pfc_durable::{Access, AtomicFile, DurableError, FolderError, OwnedDir, sync_dir};
use pfc_shard::{SHARDS_DIR, ShardEntry};

use crate::{
    IngestError, PackError,
    pack::{
        journal::{self, JobRecord, Journal},
        name_shards,
        resume::{self, Standing},
    },
};

/// Faults of one part that are told.
const FAULTS_MAX: usize = 10;

/// The parts of one job, and which shard is in which.
pub struct Parts {
    /// At least one. If the output is one of them, it is the first.
    journals: Vec<Journal>,
    /// Whether the output is one of them.
    has_out: bool,
    /// The part that holds each shard.
    owners: Vec<usize>,
    /// Keep workers away. The output is claimed by the caller.
    _claims: Vec<Option<OwnedDir>>,
}

impl Parts {
    /// Opens the journals in `parts`, and that in `out`, which the caller has claimed, if there is one,
    /// and finds every shard once. Nobody writes to them until this is dropped.
    ///
    /// # Errors
    ///
    /// [`PackError`]: no part, another job, a shard that is missing or in two parts, or a worker
    /// still at work.
    pub fn open(out: &Path, parts: &[PathBuf]) -> Result<Parts, IngestError> {
        let mut journals = Vec::new();
        if parts.is_empty() || journal::has_lists(out)? {
            journals.push(Journal::read(out)?);
        }
        let has_out = !journals.is_empty();
        for part in parts.iter().filter(|part| !super::is_same(part, out)) {
            journals.push(Journal::read(part)?);
        }
        if journals.is_empty() {
            // Only the output itself was given, and it is no part.
            return Err(PackError::NotAPart { path: out.into() }.into());
        }
        let owners = Parts::find_owners(&journals, has_out)?;
        let others = journals.iter().skip(usize::from(has_out));
        let claims = others.map(|journal| claim(journal.out())).collect::<Result<_, _>>()?;
        Ok(Parts { journals, has_out, owners, _claims: claims })
    }

    fn find_owners(journals: &[Journal], has_out: bool) -> Result<Vec<usize>, IngestError> {
        let first = &journals[0];
        for journal in &journals[1..] {
            let differences = journal.job().differences(first.job());
            if journal.job() != first.job() {
                let (part, first) = (journal.out().into(), first.out().into());
                return Err(PackError::PartDiffers { part, first, differences }.into());
            }
        }
        let mut owners: Vec<Option<usize>> = vec![None; first.n_shards() as usize];
        for (part, journal) in journals.iter().enumerate() {
            let mut doubled = Vec::new();
            let mut doubled_with = 0;
            for (index, owner) in (0..).zip(&mut owners) {
                match owner {
                    _ if journal.shard(index)?.is_none() => {}
                    None => *owner = Some(part),
                    // What an interrupted merge brought there already.
                    Some(0) if has_out => {}
                    Some(other) => {
                        if doubled.is_empty() {
                            doubled_with = *other;
                        }
                        if *other == doubled_with {
                            doubled.push(index);
                        }
                    }
                }
            }
            if !doubled.is_empty() {
                return Err(PackError::DoubledShards {
                    first: journals[doubled_with].out().into(),
                    second: journal.out().into(),
                    shards: name_shards(&doubled),
                }
                .into());
            }
        }
        let missing: Vec<u64> =
            (0..).zip(&owners).filter(|(_, o)| o.is_none()).map(|(index, _)| index).collect();
        if !missing.is_empty() {
            return Err(name_missing(journals, &missing)?);
        }
        Ok(owners.into_iter().flatten().collect())
    }

    /// The job of them all.
    pub fn job(&self) -> &JobRecord {
        self.journals[0].job()
    }

    /// The one in the output.
    pub fn in_out(&self) -> Option<&Journal> {
        if self.has_out { self.journals.first() } else { None }
    }

    /// One of them.
    pub fn first(&self) -> &Journal {
        &self.journals[0]
    }

    /// The part that holds shard `index`.
    pub fn owner(&self, index: u64) -> &Journal {
        &self.journals[self.owners[index as usize]]
    }

    /// Reads every shard and compares it with its checksum; adds its labels to `n_images`.
    ///
    /// # Errors
    ///
    /// [`PackError::DamagedShards`] with the first faults of the first part that has some.
    pub fn check(&self, n_images: &[AtomicU64], quiet: bool) -> Result<(), IngestError> {
        for (part, journal) in self.journals.iter().enumerate() {
            let owned: Vec<u64> = (0..)
                .zip(&self.owners)
                .filter(|(_, owner)| **owner == part)
                .map(|(index, _)| index)
                .collect();
            let Standing { faults, .. } = resume::stand(journal, &owned, n_images, quiet)?;
            if !faults.is_empty() {
                let path = journal.out().into();
                let faults = faults.iter().take(FAULTS_MAX).map(ToString::to_string).collect();
                return Err(PackError::DamagedShards { path, faults }.into());
            }
        }
        Ok(())
    }
}

/// Claims a part. Where this user may not write, on a disk mounted read-only or in folders of
/// somebody else, no lock is to be had, and the part is read nevertheless.
fn claim(part: &Path) -> Result<Option<OwnedDir>, IngestError> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match OwnedDir::claim(part, Access::Alone) {
        Err(FolderError::Durable(error))
            if matches!(error.source.kind(), PermissionDenied | ReadOnlyFilesystem) =>
        {
            let part = part.display();
            tracing::warn!("{part}: cannot be locked here: no worker may be at work on it");
            Ok(None)
        }
        claimed => Ok(Some(claimed?)),
    }
}

fn name_missing(journals: &[Journal], missing: &[u64]) -> Result<IngestError, IngestError> {
    let mut of = Vec::new();
    for journal in journals {
        for worker in journal.workers()? {
            if missing.iter().any(|shard| (worker.start..worker.end).contains(shard)) {
                let out = journal.out().display();
                of.push(format!("worker {} of {out} has not finished", worker.worker));
            }
        }
    }
    if of.is_empty() {
        of.push("no worker that has them began in these folders".into());
    }
    let (shards, n_shards) = (name_shards(missing), journals[0].n_shards());
    Ok(PackError::MissingShards { shards, n_shards, of: of.join(", ") }.into())
}

/// Links or copies every shard that is not in the folder of `journal` yet, and notes it there.
///
/// # Errors
///
/// [`PackError::Interrupted`], or [`IngestError`] if a file cannot be linked or copied; what was
/// brought stays.
pub fn import(parts: &Parts, journal: &Journal, quiet: bool) -> Result<(), IngestError> {
    let n_shards = journal.n_shards();
    let progress = Progress::new("join", "shards", n_shards, quiet);
    for index in 0..n_shards {
        if interrupt::requested() {
            let (done, total) = (journal.job().places(index).start, journal.job().images);
            return Err(PackError::Interrupted { done, total, shards: index }.into());
        }
        let owner = parts.owner(index);
        if owner.out() != journal.out() {
            let Some(record) = owner.shard(index)? else {
                let path = owner.out().into();
                return Err(PackError::NotAPart { path }.into());
            };
            if let Some(entry) = record.entry() {
                bring(&entry, owner.out(), journal.out())?;
            }
            journal.add(record)?;
        }
        progress.add(1);
    }
    progress.finish();
    Ok(())
}

/// Shards are never changed in place, so that two folders can share one file.
fn bring(entry: &ShardEntry, part: &Path, out: &Path) -> Result<(), IngestError> {
    let (from, to) = (part.join(&entry.file), out.join(&entry.file));
    match fs::remove_file(&to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(IngestError::at("replace", &to))?,
    }
    let mut copy = AtomicFile::create(&to)?;
    // A link has the permissions of the part, which another umask may have left.
    let permissions = |path: &Path| fs::metadata(path).map(|of| of.permissions()).ok();
    let are_ours = permissions(copy.temporary_path()) == permissions(&from);
    if are_ours && fs::hard_link(&from, &to).is_ok() {
        return Ok(sync_dir(&out.join(SHARDS_DIR))?);
    }
    let mut source = File::open(&from).map_err(IngestError::at("open", &from))?;
    io::copy(&mut source, &mut copy).map_err(DurableError::at("write", &to))?;
    copy.commit()?;
    // What was read is what was checked only if the disk says the same twice.
    Ok(entry.check(out, |_| ())?)
}
