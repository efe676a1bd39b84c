//! The folder of centres on disk: two sparse files and what vouches for them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek, statvfs};
use serde::{Deserialize, Serialize};

use super::{
    HeadError,
    config::HeadConfig,
    layout::Storage,
    memory::Memory,
    range::ClassRange,
    update::{Stamp, UNTOUCHED},
};

const FORMAT: u32 = 1;
const IDENTITY: &str = "centres.json";
const TIMES: &str = "times.json";
const ROWS: &str = "rows";
const STAMPS: &str = "stamps";

/// Bytes of the stamps of one row's two copies.
const STAMP_BYTES: u64 = 2 * size_of::<Stamp>() as u64;

/// What the file system hands out at least at a time, on all that are in common use.
const BLOCK_BYTES: usize = 4096;

/// Room that a step leaves free beyond what it needs, for the file system's own tables.
const ROOM_LEFT_BYTES: u64 = 64 << 20;

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

/// The part of a folder that belongs to one rank. Every row stands at a place that its class alone
/// decides, so that any number of ranks can use a folder that they all reach.
///
/// `centres.json` says what it is for, `rows` holds two copies of every row side by side, `stamps`
/// two times for each row (0: nothing is there), and `times.json` up to when that can be relied on.
#[derive(Debug)]
pub(super) struct CentreFolder {
    path: PathBuf,
    range: ClassRange,
    stride: usize,
    rows: Arc<File>,
    stamps: File,
    times: Times,
    /// Whether what the files held before is gone, or was restored.
    begun: bool,
    prefetch: Option<JoinHandle<()>>,
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
        let found: Option<Identity> = read_json(&identity_path)?;
        if let Some(found) = &found {
            identity.check(found, &identity_path)?;
        }
        let size = |bytes: u64| range.classes().checked_mul(bytes);
        let too_large = || HeadError::Memory { rows: range.len(), row_bytes: stride };
        let rows_size = size(stride as u64).ok_or_else(too_large)?;
        let rows = open_sized(&path.join(ROWS), rows_size)?;
        let stamps = open_sized(&path.join(STAMPS), size(STAMP_BYTES).ok_or_else(too_large)?)?;
        let times = read_json(&path.join(TIMES))?.unwrap_or_default();
        if found.is_none() {
            write_json(&identity_path, &identity)?;
        }
        let rows = Arc::new(rows);
        let path = path.to_path_buf();
        let (begun, prefetch) = (false, None);
        Ok(CentreFolder { path, range, stride, rows, stamps, times, begun, prefetch, _lock: lock })
    }

    /// The rank's rows and stamps as memory.
    pub fn map(&self) -> Result<(Memory, Memory), HeadError> {
        let map = |file: &File, name: &str, bytes: u64| {
            let n_bytes = self.range.len() * bytes as usize;
            Memory::of_file(file, self.range.first() * bytes, n_bytes)
                .map_err(HeadError::io("map", &self.path.join(name)))
        };
        Ok((map(&self.rows, ROWS, self.stride as u64)?, map(&self.stamps, STAMPS, STAMP_BYTES)?))
    }

    /// Clears what an earlier run left that never saved, unless this one has begun or was restored.
    /// Mappings then show zeros.
    pub fn begin(&mut self) -> Result<(), HeadError> {
        if self.begun {
            return Ok(());
        }
        if self.times.flushed > UNTOUCHED {
            let problem = format!("holds the centres of a run that has saved ({:?})", self.times);
            return Err(HeadError::CentreFile { path: self.path.clone(), problem });
        }
        self.clear(&self.stamps, STAMPS, STAMP_BYTES)?;
        self.clear(&self.rows, ROWS, self.stride as u64)?;
        self.begun = true;
        Ok(())
    }

    /// Gives this rank's part of a file back to the file system; it reads as zeros then.
    fn clear(&self, file: &File, name: &str, bytes: u64) -> Result<(), HeadError> {
        if self.range.is_empty() {
            return Ok(());
        }
        let (first, len) = (self.range.first() * bytes, self.range.len() as u64 * bytes);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(file, flags, first, len)
            .map_err(|errno| HeadError::io("clear", &self.path.join(name))(errno.into()))
    }

    /// Refuses a step for whose new rows the disk has no room: written through a mapping, they would
    /// end the process.
    ///
    /// * `n_new`: how many rows have no copy yet, counted only where room is short
    pub fn check_room(
        &self,
        step: u64,
        n_rows: usize,
        row_bytes: usize,
        n_new: impl FnOnce() -> usize,
    ) -> Result<(), HeadError> {
        let blocks_bytes = row_bytes.next_multiple_of(BLOCK_BYTES) as u64;
        let stat = statvfs(&self.path)
            .map_err(|errno| HeadError::io("ask for the room on", &self.path)(errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= n_rows as u64 * blocks_bytes + ROOM_LEFT_BYTES {
            return Ok(());
        }
        // Of short rows both copies share a block; of long ones the second takes blocks of its own.
        let n_growing = if self.stride <= BLOCK_BYTES { n_new() } else { n_rows };
        let needed = n_growing as u64 * blocks_bytes + ROOM_LEFT_BYTES;
        if free >= needed {
            return Ok(());
        }
        Err(HeadError::DiskFull { step, path: self.path.clone(), free, needed })
    }

    /// Has the system read rows into memory, in the background.
    ///
    /// * `starts`: where they begin, relative to this rank's first row
    pub fn prefetch(&mut self, starts: Vec<u64>, row_bytes: usize) {
        if self.prefetch.as_ref().is_some_and(|running| !running.is_finished()) {
            // The disk is behind as it is.
            return;
        }
        let (rows, first) = (Arc::clone(&self.rows), self.range.first() * self.stride as u64);
        let len = std::num::NonZeroU64::new(row_bytes as u64);
        let read = move || {
            for start in starts {
                // It is advice: where the system does not take it, the row is read when touched.
                let _ = fadvise(&*rows, first + start, len, Advice::WillNeed);
            }
        };
        self.prefetch = std::thread::Builder::new().name("prefetch".to_owned()).spawn(read).ok();
    }

    /// Rows first, then the stamps that vouch for them, then the time that vouches for the stamps.
    pub fn flush(&mut self, now: Stamp) -> Result<(), HeadError> {
        self.rows.sync_data().map_err(HeadError::io("sync", &self.path.join(ROWS)))?;
        self.stamps.sync_data().map_err(HeadError::io("sync", &self.path.join(STAMPS)))?;
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

    /// Goes back to the time `now`; returns where in the rank's stamps there may be any.
    pub fn restore(&mut self, now: Stamp) -> Result<Vec<Range<usize>>, HeadError> {
        let Times { protected, flushed } = self.times;
        if now == UNTOUCHED || (now != protected && now != flushed) {
            let problem = format!(
                "holds the centres as of step {protected} or {flushed} of the head, but the \
                 checkpoint needs step {now}"
            );
            return Err(HeadError::CentreFile { path: self.path.clone(), problem });
        }
        let stretches = self.stretches_with_data();
        self.set_times(Times { protected: now, flushed: now })?;
        self.begun = true;
        Ok(stretches)
    }

    /// The error of a row whose stamp cannot be.
    pub fn damaged(&self, row: usize, stamp: Stamp) -> HeadError {
        let class = self.range.first() + row as u64;
        let problem = format!("class {class} is of step {stamp}, which no row can be");
        HeadError::CentreFile { path: self.path.join(STAMPS), problem }
    }

    /// The parts of the rank's stamps that the file system has blocks for, in stamps; all of them
    /// where it cannot tell.
    fn stretches_with_data(&self) -> Vec<Range<usize>> {
        let first = self.range.first() * STAMP_BYTES;
        let end = first + self.range.len() as u64 * STAMP_BYTES;
        let mut stretches = Vec::new();
        let (stamp_bytes, mut at) = (size_of::<Stamp>() as u64, first);
        while at < end {
            let data = match seek(&self.stamps, SeekFrom::Data(at)) {
                Ok(data) if data < end => data.max(at),
                // No data from here on.
                Ok(_) | Err(rustix::io::Errno::NXIO) => break,
                Err(_) => at,
            };
            let hole = seek(&self.stamps, SeekFrom::Hole(data)).unwrap_or(end).clamp(data + 1, end);
            let stretch = (data - first) / stamp_bytes..(hole - first).div_ceil(stamp_bytes);
            stretches.push(stretch.start as usize..stretch.end as usize);
            at = hole;
        }
        stretches
    }
}

impl Drop for CentreFolder {
    fn drop(&mut self) {
        if let Some(running) = self.prefetch.take() {
            let _ = running.join();
        }
    }
}

impl Identity {
    fn of(config: &HeadConfig) -> Identity {
        let layout = config.row_layout();
        Identity {
            format: FORMAT,
            classes: config.classes,
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

/// Opens a file of `n_bytes`, which takes no room where nothing was written.
fn open_sized(path: &Path, n_bytes: u64) -> Result<File, HeadError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(HeadError::io("open", path))?;
    let found = file.metadata().map_err(HeadError::io("open", path))?.len();
    if found < n_bytes {
        file.set_len(n_bytes).map_err(HeadError::io("make room for", path))?;
    }
    Ok(file)
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
