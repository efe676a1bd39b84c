//! The folder of centres on disk: files of rows and what vouches for them.

mod segment_file;

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::row::RowLayout;
use crate::{
    HeadError,
    config::{HeadConfig, Storage},
    optim::{Stamp, UNTOUCHED},
    range::ClassRange,
};
pub(super) use segment_file::{Entry, Prefetch, SegmentFile};

const FORMAT: u32 = 2;
const IDENTITY: &str = "centres.json";
const TIMES: &str = "times.json";

/// What a folder is for; a run with another value of any of these cannot use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    classes: u64,
    dim: usize,
    seed: u64,
    weights: Storage,
    state: Storage,
    state_numbers: usize,
}

/// Up to when the rows are safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    /// As of this time every row is there: none of these copies is written over.
    protected: Stamp,
    /// As of this time too, until the next step.
    flushed: Stamp,
}

/// A folder of centres, as one rank uses it.
///
/// `centres.json` says what it is for, and `times.json` up to when its rows can be relied on. A rank
/// puts new rows into the files that are named by its classes. Where these were spread differently
/// over ranks before, it finds the rows of then in the files of then, so that any number of ranks
/// can go on with a folder that they all reach.
#[derive(Debug)]
pub(super) struct CentreFolder {
    path: PathBuf,
    range: ClassRange,
    stride: usize,
    times: Times,
    /// Whether what the files held before is gone, or was restored.
    begun: bool,
    /// Held for as long as the rank lives.
    _lock: File,
}

impl CentreFolder {
    /// Opens the folder, or makes it.
    ///
    /// * `stride`: bytes from one row to the next
    pub fn open(
        path: &Path,
        config: &HeadConfig,
        range: ClassRange,
        stride: usize,
    ) -> Result<CentreFolder, HeadError> {
        fs::create_dir_all(path).map_err(HeadError::io("create", path))?;
        let lock = lock(path, range)?;
        let identity = Identity::of(config);
        let identity_path = path.join(IDENTITY);
        match read_json(&identity_path)? {
            Some(found) => identity.check(&found, &identity_path)?,
            None => write_json(&identity_path, &identity)?,
        }
        let times = read_json(&path.join(TIMES))?.unwrap_or_default();
        let path = path.to_path_buf();
        Ok(CentreFolder { path, range, stride, times, begun: false, _lock: lock })
    }

    /// Makes room for a new run and removes what an earlier one left that never saved. `None` if
    /// that was done before, or a run was restored.
    pub fn begin(&mut self) -> Result<Option<SegmentFile>, HeadError> {
        if self.begun {
            return Ok(None);
        }
        // What was flushed and not protected belongs to a first checkpoint that was never completed.
        if self.times.protected > UNTOUCHED {
            let problem = format!(
                "holds the centres of a run that has saved, at step {} of the head",
                self.times.protected
            );
            return Err(HeadError::CentreFile { path: self.path.clone(), problem });
        }
        for classes in self.files_of_others()?.into_iter().chain([self.range.ids()]) {
            SegmentFile::remove(&self.path, &classes)?;
        }
        if self.times != Times::default() {
            self.set_times(Times::default())?;
        }
        let own = SegmentFile::open(&self.path, self.range.ids(), self.stride)?;
        self.begun = true;
        Ok(Some(own))
    }

    /// Goes back to the time `now`; returns the files that may hold rows of this rank, its own last.
    pub fn restore(&mut self, now: Stamp) -> Result<Vec<SegmentFile>, HeadError> {
        let Times { protected, flushed } = self.times;
        if now == UNTOUCHED || (now != protected && now != flushed) {
            let problem = format!(
                "holds the centres as of step {protected} or {flushed} of the head, but the \
                 checkpoint needs step {now}"
            );
            return Err(HeadError::CentreFile { path: self.path.clone(), problem });
        }
        let of_others = self.files_of_others()?.into_iter();
        let open = |classes| SegmentFile::open(&self.path, classes, self.stride);
        let files = of_others.chain([self.range.ids()]).map(open).collect::<Result<_, _>>()?;
        self.set_times(Times { protected: now, flushed: now })?;
        self.begun = true;
        Ok(files)
    }

    /// Files with classes of this rank that belonged to ranks with other classes beside them.
    fn files_of_others(&self) -> Result<Vec<Range<u64>>, HeadError> {
        let (own, all) = (self.range.ids(), self.range.classes());
        let mut found = SegmentFile::list(&self.path)?;
        found.retain(|classes| {
            let overlaps = classes.start < own.end && own.start < classes.end;
            *classes != own && overlaps && classes.end <= all
        });
        Ok(found)
    }

    /// Vouches for all rows as of `now`, which were synced.
    pub fn flushed(&mut self, now: Stamp) -> Result<(), HeadError> {
        self.set_times(Times { flushed: now, ..self.times })
    }

    pub fn protect(&mut self, now: Stamp) -> Result<(), HeadError> {
        self.set_times(Times { protected: now, flushed: now })
    }

    fn set_times(&mut self, times: Times) -> Result<(), HeadError> {
        write_json(&self.path.join(TIMES), &times)?;
        self.times = times;
        Ok(())
    }
}

impl Identity {
    fn of(config: &HeadConfig) -> Identity {
        let layout = RowLayout::of_config(config);
        Identity {
            format: FORMAT,
            classes: config.classes * config.margin.sub_centres() as u64,
            dim: config.dim,
            seed: config.seed,
            weights: layout.weights(),
            state: layout.states(),
            state_numbers: layout.n_state(),
        }
    }

    fn check(&self, found: &Identity, path: &Path) -> Result<(), HeadError> {
        let fields = |identity: &Identity| match serde_json::to_value(identity) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (wanted, found) = (fields(self), fields(found));
        for (key, value) in &wanted {
            if found.get(key) != Some(value) {
                let found = found.get(key).unwrap_or(&serde_json::Value::Null);
                let problem = format!("`{key}` is {found}, but the head has {value}");
                return Err(HeadError::CentreFile { path: path.to_path_buf(), problem });
            }
        }
        Ok(())
    }
}

fn lock(path: &Path, range: ClassRange) -> Result<File, HeadError> {
    let lock_path = path.join(format!("lock-{}", range.first()));
    let file = File::create(&lock_path).map_err(HeadError::io("create", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(HeadError::CentresInUse { path: path.to_path_buf() })
        }
        Err(fs::TryLockError::Error(source)) => {
            Err(HeadError::Io { op: "lock", path: lock_path, source })
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, HeadError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(HeadError::io("read", path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| HeadError::CentreFile {
        path: path.to_path_buf(),
        problem: format!("is not what a head writes: {error}"),
    })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HeadError> {
    let bytes = serde_json::to_vec(value).expect("numbers and names become JSON");
    pfc_durable::write(path, &bytes).map_err(|error| HeadError::CentreFile {
        path: path.to_path_buf(),
        problem: error.to_string(),
    })
}
