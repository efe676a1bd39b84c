//! The folder of centres on disk: who uses it, and which checkpoints its files can go back to.
//!
//! `docs/centres.md` describes the folder byte by byte.

mod segment;
mod segment_file;

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_durable::manifest::{self, Seal};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::row::RowLayout;
use crate::{
    HeadError,
    config::{HeadConfig, Storage},
    optim::{Stamp, UNTOUCHED},
    range::ClassRange,
};
use segment::BLOCK_PLACES;
pub(crate) use segment::PlacedRow;
pub(crate) use segment::Segment;
use segment_file::{Access, SegmentFile};
pub(crate) use segment_file::{COPIES, ENTRY_BYTES, Entry, FileName, Prefetch, damaged_row};
#[cfg(test)]
pub(crate) use segment_file::{Event, FULL_AT, WATCHER};

const FORMAT: u32 = 3;
const IDENTITY: &str = "centres.json";

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

/// Which checkpoints the files of one name can go back to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times {
    /// Copies that the two last checkpoints need are not written over; 0 for no checkpoint.
    protected: [Stamp; 2],
    /// As of this time too every row is on disk, until the next step.
    flushed: Stamp,
}

/// [`Times`] as a file holds them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedTimes {
    protected: [Stamp; 2],
    flushed: Stamp,
    /// XXH3-64 of the three numbers, 4 bytes each, as 16 hexadecimal digits.
    check: String,
}

/// What a checkpoint says of one pair of files, so that nothing else can stand in for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub(crate) name: FileName,
    /// Places in use.
    pub(crate) n_used: usize,
    /// The sum of each block of their entries.
    pub(crate) blocks: Vec<u64>,
}

impl FileRecord {
    /// A record that can be, whatever a checkpoint holds.
    pub(crate) fn new(name: FileName, n_used: u64, blocks: Vec<u64>) -> Result<FileRecord, String> {
        let Range { start, end } = name.classes;
        if start >= end || end > u64::from(u32::MAX) {
            return Err(format!("names a file of classes {start} to {end}"));
        }
        if n_used > end - start || blocks.len() as u64 != n_used.div_ceil(BLOCK_PLACES as u64) {
            let n_blocks = blocks.len();
            return Err(format!(
                "has {n_blocks} sums for {n_used} of the {} places of a file",
                end - start
            ));
        }
        Ok(FileRecord { name, n_used: n_used as usize, blocks })
    }
}

/// A folder of centres, as one rank uses it: the rank writes to one pair of files alone.
///
/// Where classes were spread differently over ranks before, the rows of then are copied out of the
/// files of then, which stay until no checkpoint needs them.
#[derive(Debug)]
pub(super) struct CentreFolder {
    path: PathBuf,
    identity: Identity,
    range: ClassRange,
    stride: usize,
    own: Option<FileName>,
    times: Times,
    /// The rank's lock on the folder, which lasts as long as the rank.
    _lock: File,
}

impl CentreFolder {
    /// Opens the folder, or makes it. Nothing but a lock is written to it.
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
        if path.join(IDENTITY).exists() {
            identity.check_in(path)?;
        }
        let path = path.to_path_buf();
        Ok(CentreFolder {
            path,
            identity,
            range,
            stride,
            own: None,
            times: Times::default(),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The times of the two checkpoints whose copies must stay, the older one first.
    pub fn protected(&self) -> [Stamp; 2] {
        self.times.protected
    }

    /// Whether the rank has files, new ones or those of a checkpoint.
    pub fn has_begun(&self) -> bool {
        self.own.is_some()
    }

    /// Begins files for a new run, after removing what an earlier one left that never saved.
    ///
    /// * `born`: the time of the first row
    /// * `go_on`: whether the rows come from a checkpoint of this very folder
    pub fn begin(&mut self, born: Stamp, go_on: bool) -> Result<Option<Segment>, HeadError> {
        let own = FileName { classes: self.range.ids(), born };
        if !go_on {
            self.check_free()?;
        }
        for name in SegmentFile::list(&self.path)? {
            if name.overlaps(&own.classes) && (!go_on || name == own) {
                remove(&self.path, &name)?;
            }
        }
        if self.range.is_empty() {
            return Ok(None);
        }
        match self.path.join(IDENTITY).exists() {
            true => self.identity.check_in(&self.path)?,
            false => {
                pfc_durable::write(&self.path.join(IDENTITY), &manifest::seal(&self.identity))?;
            }
        }
        self.own = Some(own.clone());
        self.set_times(Times::default())?;
        let files = SegmentFile::open(&self.path, own, self.stride, Access::Create)?;
        Segment::of_file(files).map(Some)
    }

    /// Refuses a new run over files of its classes that a checkpoint may need. Nothing is written.
    pub fn check_free(&self) -> Result<(), HeadError> {
        let all = SegmentFile::list(&self.path)?.into_iter();
        all.filter(|name| name.overlaps(&self.range.ids()))
            .try_for_each(|name| self.refuse_saved(&name))
    }

    fn refuse_saved(&self, name: &FileName) -> Result<(), HeadError> {
        let Some(Times { protected: [_, newest], .. }) = read_times(&self.path, name)? else {
            let problem = "is missing, so it is not known whether the rows beside it were saved";
            return Err(damaged(times_path(&self.path, name), problem));
        };
        // What was flushed and not protected belongs to a first checkpoint that was never completed.
        if newest == UNTOUCHED {
            return Ok(());
        }
        let problem =
            format!("holds the centres of a run that has saved, at step {newest} of the head");
        Err(HeadError::CentreFile { path: self.path.clone(), problem })
    }

    /// Goes back to the time `now` in the files of `record`, which hold this rank's classes.
    pub fn restore(&mut self, record: &FileRecord, now: Stamp) -> Result<Segment, HeadError> {
        let FileRecord { name, n_used, blocks } = record;
        let times = check_times(&self.path, &self.identity, name, now)?;
        let [_, newer] = times.protected;
        // A later checkpoint than that of `now` is given up.
        let older = if now == newer { times.protected[0] } else { newer.min(now) };
        let files = SegmentFile::open(&self.path, name.clone(), self.stride, Access::Write)?;
        let mut segment = Segment::of_file(files)?;
        segment.take_up(*n_used, blocks, now)?;
        self.own = Some(name.clone());
        self.set_times(Times { protected: [older, now], flushed: now })?;
        segment.go_back(now)?;
        #[cfg(test)]
        segment_file::tell(&Event::Moved);
        Ok(segment)
    }

    /// Records that all rows as of `now` are on disk. The caller has synced them.
    pub fn flushed(&mut self, now: Stamp) -> Result<(), HeadError> {
        self.set_times(Times { flushed: now, ..self.times })
    }

    /// Keeps what the checkpoint of `now` and the one before it need, and removes files that neither
    /// does.
    pub fn protect(&mut self, now: Stamp) -> Result<(), HeadError> {
        let [_, newer] = self.times.protected;
        if newer == now {
            return Ok(());
        }
        self.set_times(Times { protected: [newer, now], flushed: now })?;
        // A checkpoint of the time at which the files were begun needs those that they were made of.
        let Some(own) = self.own.clone().filter(|own| newer > own.born) else { return Ok(()) };
        for name in SegmentFile::list(&self.path)? {
            if name != own && name.overlaps(&own.classes) {
                remove(&self.path, &name)?;
            }
        }
        Ok(())
    }

    fn set_times(&mut self, times: Times) -> Result<(), HeadError> {
        if let Some(own) = &self.own {
            write_json(&times_path(&self.path, own), &SealedTimes::of(&times))?;
            #[cfg(test)]
            segment_file::tell(&Event::Replaced);
        }
        self.times = times;
        Ok(())
    }
}

/// Whether a folder has the centres of a head.
pub(crate) fn holds_centres(folder: &Path) -> bool {
    folder.join(IDENTITY).exists()
}

/// Opens the files of `record` as they were at `now`, to be read.
///
/// # Errors
///
/// [`HeadError::CentreFile`] if the folder belongs to another head or does not go back to `now`,
/// [`HeadError::CentresDamaged`] if a file is lost or is not what the checkpoint had.
pub(crate) fn open_saved(
    path: &Path,
    config: &HeadConfig,
    stride: usize,
    record: &FileRecord,
    now: Stamp,
) -> Result<Segment, HeadError> {
    check_times(path, &Identity::of(config), &record.name, now)?;
    let files = SegmentFile::open(path, record.name.clone(), stride, Access::Read)?;
    let mut segment = Segment::of_file(files)?;
    segment.take_up(record.n_used, &record.blocks, now)?;
    Ok(segment)
}

/// The times of files that can go back to `now`.
fn check_times(
    path: &Path,
    identity: &Identity,
    name: &FileName,
    now: Stamp,
) -> Result<Times, HeadError> {
    identity.check_in(path)?;
    let Some(times) = read_times(path, name)? else {
        return Err(damaged(times_path(path, name), "is missing, but the checkpoint needs it"));
    };
    let Times { protected: [older, newer], flushed } = times;
    if now == UNTOUCHED || ![older, newer, flushed].contains(&now) {
        let held = match (older, newer) {
            (UNTOUCHED, UNTOUCHED) => "of no checkpoint".to_owned(),
            (UNTOUCHED, newer) => format!("as of step {newer} of the head"),
            (older, newer) => format!("as of steps {older} and {newer} of the head"),
        };
        let problem = format!("holds the centres {held}, but the checkpoint needs step {now}");
        return Err(HeadError::CentreFile { path: times_path(path, name), problem });
    }
    Ok(times)
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

    fn check_in(&self, folder: &Path) -> Result<(), HeadError> {
        let path = folder.join(IDENTITY);
        let text = read(&path)?
            .ok_or_else(|| damaged(path.clone(), "is missing, but the checkpoint needs it"))?;
        if manifest::check(&text) == Seal::Broken {
            return Err(damaged(path, "does not have the checksum that it states"));
        }
        let found: Identity = manifest::parse(&text).map_err(|error| foreign(&path, &error))?;
        self.check(&found, path)
    }

    fn check(&self, found: &Identity, path: PathBuf) -> Result<(), HeadError> {
        if found.format != self.format {
            let problem = format!(
                "is in format {}, but this version reads and writes format {FORMAT}",
                found.format
            );
            return Err(HeadError::CentreFile { path, problem });
        }
        let fields = |identity: &Identity| match serde_json::to_value(identity) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (wanted, found) = (fields(self), fields(found));
        for (key, value) in &wanted {
            if found.get(key) != Some(value) {
                let found = found.get(key).unwrap_or(&serde_json::Value::Null);
                let problem = format!("`{key}` is {found}, but the head has {value}");
                return Err(HeadError::CentreFile { path, problem });
            }
        }
        Ok(())
    }
}

impl SealedTimes {
    fn of(times: &Times) -> SealedTimes {
        let Times { protected, flushed } = *times;
        SealedTimes { protected, flushed, check: check_of(times) }
    }
}

fn check_of(times: &Times) -> String {
    let [older, newer] = times.protected;
    let numbers = [older, newer, times.flushed].map(u32::to_le);
    format!("{:016x}", xxh3_64(bytemuck::cast_slice(&numbers)))
}

fn times_path(folder: &Path, name: &FileName) -> PathBuf {
    name.path(folder, "times")
}

fn read_times(folder: &Path, name: &FileName) -> Result<Option<Times>, HeadError> {
    let path = times_path(folder, name);
    let Some(SealedTimes { protected, flushed, check }) = read_json(&path)? else {
        return Ok(None);
    };
    let times = Times { protected, flushed };
    match check == check_of(&times) {
        true => Ok(Some(times)),
        false => Err(damaged(path, "does not have the checksum that it states")),
    }
}

/// Removes the files of this name, if they are there; last what says that they were never saved.
fn remove(folder: &Path, name: &FileName) -> Result<(), HeadError> {
    SegmentFile::remove(folder, name)?;
    let path = times_path(folder, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(HeadError::io("remove", &path)),
    }
}

fn lock(path: &Path, range: ClassRange) -> Result<File, HeadError> {
    let lock_path = path.join(format!("lock-{}", range.first()));
    // A file of that name that somebody else wrote keeps what is in it.
    let file = File::options().append(true).create(true).open(&lock_path);
    let file = file.map_err(HeadError::io("create", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(HeadError::CentresInUse { path: path.to_path_buf() })
        }
        Err(fs::TryLockError::Error(source)) => Err(HeadError::io("lock", &lock_path)(source)),
    }
}

fn damaged(path: PathBuf, problem: &str) -> HeadError {
    HeadError::CentresDamaged { path, problem: problem.to_owned() }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, HeadError> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| foreign(path, &error))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, HeadError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(HeadError::io("read", path)),
    }
}

fn foreign(path: &Path, error: &serde_json::Error) -> HeadError {
    damaged(path.to_path_buf(), &format!("is not what a head writes: {error}"))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HeadError> {
    let bytes = serde_json::to_vec(value).expect("numbers and names become JSON");
    Ok(pfc_durable::write(path, &bytes)?)
}
