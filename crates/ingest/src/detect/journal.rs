//! `journal/` in the folder that grows: what is done, and the records of finished chunks.
//!
//! `job.json` comes first and says what is done and how; `0.json`, `1.json`, … are chunks, each written once its
//! crops are. All carry checksums ([`sealed`]). The folder of the journal goes at the end.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError, faults::is_of_system};
use pfc_shard::{
    Checksum,
    hash::content_hash,
    sealed::{self, SealedError},
};
use pfc_sources::{Source, exists};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::record::{COLUMNS, ChunkRecord, JobRecord};
use crate::{
    IngestError, PackError,
    pack::quarantine::{Line, Quarantine},
};

/// Name of the journal's folder.
const DIR: &str = "journal";
const JOB_FILE: &str = "job.json";
/// Name of the table of faces.
pub const FACES_FILE: &str = "faces.csv";

/// The journal of one run.
#[derive(Debug)]
pub struct Journal {
    out: PathBuf,
    dir: PathBuf,
    /// Which every record names, so that none of another job is taken for one of this.
    job: Checksum,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    job: Checksum,
    number: u64,
    record: ChunkRecord,
}

/// Whether a folder that grows has a journal.
///
/// # Errors
///
/// [`IngestError::Source`] for a fault of the system.
pub fn has_job(out: &Path) -> Result<bool, IngestError> {
    Ok(exists(&out.join(DIR).join(JOB_FILE))?)
}

impl Journal {
    /// Begins the journal of `job` in the folder that grows, or goes on with the one that is there.
    ///
    /// * `target`: what the folder will be called, for errors
    ///
    /// # Errors
    ///
    /// [`PackError::JobDiffers`] if that is of another job, [`PackError::DamagedJournal`], or
    /// [`IngestError`] if it cannot be written.
    pub fn open(out: &Path, target: &Path, job: JobRecord) -> Result<Journal, IngestError> {
        let dir = out.join(DIR);
        pfc_durable::create_dir_all(&dir)?;
        let path = dir.join(JOB_FILE);
        match sealed::read::<JobRecord>(&path) {
            Ok(Some(found)) if found == job => {}
            Ok(Some(found)) => {
                let (out, differences) = (target.to_owned(), job.differences(&found));
                return Err(PackError::JobDiffers { out, differences, by_worker: false }.into());
            }
            Ok(None) => sealed::write(&path, &job)?,
            Err(SealedError::Io(source)) => return Err(IngestError::at("read", &path)(source)),
            Err(SealedError::Damaged) => return Err(PackError::DamagedJournal { path }.into()),
        }
        let json = serde_json::to_vec(&job).expect("strings and numbers become JSON");
        Ok(Journal { out: out.to_owned(), dir, job: Checksum(content_hash(&json)) })
    }

    /// The folder that grows.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The record of a finished chunk whose crops are all as they were written; nothing if there is none. A
    /// damaged one is as good as none: what it says is found again.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] for a fault of the system.
    pub fn chunk(&self, number: u64) -> Result<Option<ChunkRecord>, IngestError> {
        let Some(record) = self.read(number)? else { return Ok(None) };
        let is_whole = record
            .faces
            .par_iter()
            .map(|face| match fs::read(self.out.join(&face.crop)) {
                Ok(bytes) => Ok(Checksum(content_hash(&bytes)) == face.checksum),
                Err(error) if is_of_system(&error) => {
                    Err(IngestError::at("read", &self.out.join(&face.crop))(error))
                }
                Err(_) => Ok(false),
            })
            .collect::<Result<Vec<bool>, IngestError>>()?;
        Ok(is_whole.into_iter().all(|whole| whole).then_some(record))
    }

    fn read(&self, number: u64) -> Result<Option<ChunkRecord>, IngestError> {
        let path = self.path(number);
        match sealed::read::<Sealed>(&path) {
            Ok(found) => {
                let is_ours = |s: &Sealed| (s.job, s.number) == (self.job, number);
                Ok(found.filter(is_ours).map(|sealed| sealed.record))
            }
            Err(SealedError::Io(source)) if is_of_system(&source) => {
                Err(IngestError::at("read", &path)(source))
            }
            Err(_) => Ok(None),
        }
    }

    /// Notes a finished chunk, whose crops are written.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn add(&self, number: u64, record: ChunkRecord) -> Result<(), IngestError> {
        let sealed = Sealed { job: self.job, number, record };
        Ok(sealed::write(&self.path(number), &sealed)?)
    }

    /// Writes `faces.csv` and `quarantine.jsonl` from the records of all chunks, which `count` is shown.
    ///
    /// # Errors
    ///
    /// [`PackError::DamagedJournal`] if a record is gone, or [`IngestError::Durable`].
    pub fn write_tables(
        &self,
        n_chunks: u64,
        source: &dyn Source,
        mut count: impl FnMut(&ChunkRecord),
    ) -> Result<(), IngestError> {
        let path = self.out.join(FACES_FILE);
        let write = |error| IngestError::from(DurableError::at("write", &path)(error));
        let mut faces = AtomicFile::create(&path)?;
        let mut quarantine = Quarantine::create(&self.out)?;
        for left_out in source.left_out() {
            let reject = left_out.reject.clone().into();
            quarantine.add(&Line::new(&left_out.source, &reject))?;
        }
        let identities: Vec<&str> = source.index().identities().collect();
        let name = |label: u32| identities.get(label as usize).copied().unwrap_or_default();
        writeln!(faces, "{COLUMNS}").map_err(write)?;
        for number in 0..n_chunks {
            let path = self.path(number);
            let record = self.read(number)?.ok_or(PackError::DamagedJournal { path })?;
            for face in &record.faces {
                face.write(name(face.label), &mut faces).map_err(write)?;
            }
            record.quarantine.iter().try_for_each(|line| quarantine.add(line))?;
            count(&record);
        }
        faces.commit()?;
        quarantine.commit()
    }

    /// The first picture that gave no face, and why.
    pub fn first_reason(&self) -> Option<String> {
        let record = self.read(0).ok()??;
        record.quarantine.first().map(Line::sentence)
    }

    /// Removes the journal.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`].
    pub fn remove(&self) -> Result<(), IngestError> {
        fs::remove_dir_all(&self.dir).map_err(IngestError::at("remove", &self.dir))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number}.json"))
    }
}
