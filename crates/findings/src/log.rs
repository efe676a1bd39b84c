//! The files of the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_shard::{Checksum, Dataset, hash::content_hash, manifest_checksum};

use crate::{Decision, FindingsError, RunInfo, State, file};

/// Folder of the log in a data set's folder.
pub const DECISIONS_DIR: &str = "decisions";
/// Folder of the runs that were taken back, in that of the log.
const UNDONE_DIR: &str = "undone";
/// Maximum number of runs: up to here their names sort like their numbers.
const RUNS_MAX: usize = 1000;

/// The log of decisions of the data set in a folder.
#[derive(Debug)]
pub struct DecisionLog {
    dir: PathBuf,
    dataset: Checksum,
    n_runs: usize,
}

/// One run of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its number, from 0.
    pub number: usize,
    /// Who decided.
    pub info: RunInfo,
    /// What was decided.
    pub decisions: Vec<Decision>,
}

impl DecisionLog {
    /// Finds the runs of the data set in `dir`. Having none is not an error.
    ///
    /// # Errors
    ///
    /// [`FindingsError::Durable`], or [`FindingsError::MissingRun`] if a number is missing in between.
    pub fn open(dir: &Path) -> Result<DecisionLog, FindingsError> {
        let dataset = manifest_checksum(dir)?;
        let folder = dir.join(DECISIONS_DIR);
        let mut numbers = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(at("list", &folder, e)),
            Ok(entries) => entries
                .map(|entry| Ok(number_of(&entry?.file_name().to_string_lossy())))
                .filter_map(Result::transpose)
                .collect::<io::Result<Vec<usize>>>()
                .map_err(|e| at("list", &folder, e))?,
        };
        numbers.sort_unstable();
        let gap = (0..).zip(&numbers).find(|(expected, found)| expected != *found);
        if let Some((expected, _)) = gap {
            return Err(FindingsError::MissingRun { path: folder.join(name_of(expected)) });
        }
        Ok(DecisionLog { dir: dir.to_path_buf(), dataset, n_runs: numbers.len() })
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.n_runs
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n_runs == 0
    }

    /// The start of a run's description, which names the data set as it is.
    pub fn dataset(&self) -> Checksum {
        self.dataset
    }

    /// Run `number`, read and checked.
    ///
    /// # Errors
    ///
    /// [`FindingsError::NoSuchRun`], [`FindingsError::StaleDecisions`] if it is about another data set, or
    /// what is wrong with the file.
    pub fn read(&self, number: usize) -> Result<Run, FindingsError> {
        if number >= self.n_runs {
            return Err(FindingsError::NoSuchRun { number, n_runs: self.n_runs });
        }
        let path = self.path(number);
        let (info, decisions) = file::read(&path)?;
        if info.dataset != self.dataset {
            return Err(FindingsError::StaleDecisions { path });
        }
        Ok(Run { number, info, decisions })
    }

    /// All runs in order.
    ///
    /// # Errors
    ///
    /// As [`read`](DecisionLog::read), for the first at fault.
    pub fn runs(&self) -> Result<Vec<Run>, FindingsError> {
        (0..self.n_runs).map(|number| self.read(number)).collect()
    }

    /// What the rows of `dataset`, which lies in the log's folder, are after all runs. Memory: a bit
    /// a row and some bytes a decision.
    ///
    /// # Errors
    ///
    /// As [`read`](DecisionLog::read); [`FindingsError::Malformed`] for a row or label that the data
    /// set has not.
    pub fn state(&self, dataset: &Dataset) -> Result<State, FindingsError> {
        let mut state = State::of(dataset);
        for number in 0..self.n_runs {
            let run = self.read(number)?;
            let decisions = crate::old::translate(run.decisions, dataset)?;
            let bad = |what| FindingsError::Malformed { path: self.path(number), what };
            state.apply(&decisions).map_err(bad)?;
        }
        Ok(state)
    }

    /// Appends a run and returns its number.
    ///
    /// # Errors
    ///
    /// [`FindingsError::RunAdded`] if another process appended since the log was opened,
    /// [`FindingsError::BadRun`] beyond a thousand runs, or a failed write; the log is then as it was.
    pub fn append(
        &mut self,
        info: &RunInfo,
        decisions: &[Decision],
    ) -> Result<usize, FindingsError> {
        let number = self.n_runs;
        let path = self.path(number);
        if number >= RUNS_MAX {
            let what = format!("{RUNS_MAX} runs are the most: compact the data set");
            return Err(FindingsError::BadRun { path, what });
        }
        let folder = self.dir.join(DECISIONS_DIR);
        pfc_durable::create_dir_all(&folder)?;
        // The temporary file of a killed command.
        pfc_durable::sweep_all(&folder)?;
        file::write(&path, info, decisions)?;
        self.n_runs += 1;
        Ok(number)
    }

    /// Takes back the last run; its file moves to `decisions/undone` under its number and checksum.
    ///
    /// # Errors
    ///
    /// [`FindingsError::NoSuchRun`] if there is none, or what keeps the file from moving.
    pub fn undo(&mut self) -> Result<PathBuf, FindingsError> {
        let Some(number) = self.n_runs.checked_sub(1) else {
            return Err(FindingsError::NoSuchRun { number: 0, n_runs: 0 });
        };
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(|e| at("read", &path, e))?;
        let undone = self.dir.join(DECISIONS_DIR).join(UNDONE_DIR);
        pfc_durable::create_dir_all(&undone)?;
        let target = undone.join(format!("{number:03}-{:08x}.arrow", content_hash(&bytes) >> 96));
        pfc_durable::rename(&path, &target)?;
        self.n_runs = number;
        Ok(target)
    }

    /// Whether an entry of the log's folder is one of the log's.
    pub(crate) fn is_own(name: &str) -> bool {
        name == UNDONE_DIR || number_of(name).is_some()
    }

    /// Where run `number` lies.
    pub fn path(&self, number: usize) -> PathBuf {
        self.dir.join(DECISIONS_DIR).join(name_of(number))
    }
}

fn name_of(number: usize) -> String {
    format!("{number:03}.arrow")
}

/// The number in a name such as `007.arrow`.
fn number_of(name: &str) -> Option<usize> {
    let digits = name.strip_suffix(".arrow")?;
    let is_number = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

fn at(op: &'static str, path: &Path, source: io::Error) -> FindingsError {
    DurableError::at(op, path)(source).into()
}
