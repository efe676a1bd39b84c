//! The two files of a segment of centres on disk.

use std::{
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroU64,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use bytemuck::{Pod, Zeroable};
use rustix::{
    fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek, statvfs},
    io::Errno,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    HeadError,
    centres::memory::Memory,
    optim::{Stamp, UNTOUCHED},
};

/// Copies of a row that a file has room for: two checkpoints can be gone back to, and the third copy
/// is the one that steps write to. In memory there is one.
pub(crate) const COPIES: usize = 3;

/// What is known of a place. `docs/centres.md` describes it byte by byte.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Entry {
    /// 1 + the global id of the class whose row lies here; 0 while the place is free.
    pub class_plus_1: u32,
    /// Always 0.
    pub reserved: u32,
    /// When each copy of the row was written, [`UNTOUCHED`] for never.
    pub stamps: [Stamp; COPIES],
    /// A checksum of each copy, its class and its stamp; 0 for a copy that was never written.
    pub sums: [u32; COPIES],
}

impl Entry {
    pub fn new(class: u64) -> Entry {
        // Classes are below `u32::MAX`, which the configuration is checked for.
        let class_plus_1 = class as u32 + 1;
        Entry { class_plus_1, reserved: 0, stamps: [UNTOUCHED; COPIES], sums: [0; COPIES] }
    }

    /// The class whose row lies here.
    pub fn class(&self) -> Option<u64> {
        self.class_plus_1.checked_sub(1).map(u64::from)
    }

    /// Number and stamp of the row's newest copy; copy 0 and [`UNTOUCHED`] if there is none.
    #[inline(always)]
    pub fn newest(&self) -> (usize, Stamp) {
        let [a, b, c] = self.stamps;
        let (copy, stamp) = if b > a { (1, b) } else { (0, a) };
        if c > stamp { (2, c) } else { (copy, stamp) }
    }

    /// The newest copy that is no newer than `time`, with its stamp.
    #[inline(always)]
    pub fn newest_at(&self, time: Stamp) -> Option<(usize, Stamp)> {
        let mut newest = (0, UNTOUCHED);
        for (copy, &stamp) in self.stamps.iter().enumerate() {
            if stamp <= time && stamp > newest.1 {
                newest = (copy, stamp);
            }
        }
        (newest.1 != UNTOUCHED).then_some(newest)
    }

    /// Whether this checksum of a copy is that of `bytes`.
    #[inline(always)]
    pub fn vouches_for(&self, copy: usize, bytes: &[u8]) -> bool {
        self.sums[copy] == self.sum_of(self.stamps[copy], bytes)
    }

    /// The checksum of a copy: the low half of XXH3-64, seeded with class and stamp.
    #[inline(always)]
    pub fn sum_of(&self, stamp: Stamp, bytes: &[u8]) -> u32 {
        let seed = u64::from(self.class_plus_1) << 32 | u64::from(stamp);
        xxh3_64_with_seed(bytes, seed) as u32
    }

    /// Drops every copy that is newer than `time`; whether there was one.
    pub fn forget_after(&mut self, time: Stamp) -> bool {
        let mut any = false;
        for (stamp, sum) in self.stamps.iter_mut().zip(&mut self.sums) {
            if *stamp > time {
                (*stamp, *sum, any) = (UNTOUCHED, 0, true);
            }
        }
        any
    }

    /// What the entry adds to the sum of its block: a hash of its place, its class, and stamp and
    /// checksum of the newest copy that is no newer than `time`.
    pub fn digest_at(&self, place: u32, time: Stamp) -> u64 {
        let (copy, stamp) = self.newest_at(time).unwrap_or((0, UNTOUCHED));
        let sum = if stamp == UNTOUCHED { 0 } else { self.sums[copy] };
        let numbers = [place, self.class_plus_1, stamp, sum].map(u32::to_le);
        xxh3_64_with_seed(bytemuck::cast_slice(&numbers), self.reserved.into())
    }

    pub fn digest(&self, place: u32) -> u64 {
        self.digest_at(place, Stamp::MAX)
    }
}

const ROWS: &str = "rows";
const PLACES: &str = "places";

pub(crate) const ENTRY_BYTES: u64 = size_of::<Entry>() as u64;

/// Room that is made at most beyond what is needed: few pieces, each in one stretch of the disk.
const ROOM_BYTES: u64 = 64 << 20;

#[cfg(test)]
thread_local! {
    /// Stands in for a disk that is full from so many places on, for what this thread does.
    pub(crate) static FULL_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(u64::MAX) };
    /// Is told what this thread does to files.
    pub(crate) static WATCHER: std::cell::RefCell<Option<Watcher>> =
        const { std::cell::RefCell::new(None) };
}

#[cfg(test)]
type Watcher = Box<dyn FnMut(&Event)>;

/// What was done to a file of a folder.
#[cfg(test)]
pub(crate) enum Event {
    /// It was synced.
    Synced(PathBuf),
    /// It was replaced as a whole, and the folder synced.
    Replaced,
    /// It was written to.
    Moved,
}

#[cfg(test)]
pub(crate) fn tell(event: &Event) {
    WATCHER.with_borrow_mut(|watcher| {
        if let Some(watcher) = watcher {
            watcher(event);
        }
    });
}

/// What tells the files of a folder apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName {
    /// The classes whose rows may lie in it, global ids.
    pub classes: Range<u64>,
    /// The time at which the file was begun: another number of ranks begins others.
    pub born: Stamp,
}

impl FileName {
    /// Where the file of this kind is.
    pub fn path(&self, folder: &Path, kind: &str) -> PathBuf {
        let FileName { classes: Range { start, end }, born } = self;
        folder.join(format!("{kind}-{start}-{end}-{born}"))
    }

    /// The name that a file of this kind has; `None` for any other file.
    fn of(file_name: &str, kind: &str) -> Option<FileName> {
        let mut numbers = file_name.strip_prefix(kind)?.strip_prefix('-')?.split('-');
        let (start, end) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let name = FileName { classes: start..end, born: numbers.next()?.parse().ok()? };
        let is_canonical = name.path(Path::new(""), kind) == Path::new(file_name);
        (is_canonical && start < end).then_some(name)
    }

    /// Whether both may hold rows of one class.
    pub fn overlaps(&self, classes: &Range<u64>) -> bool {
        self.classes.start < classes.end && classes.start < self.classes.end
    }

    fn n_places(&self) -> u64 {
        self.classes.end - self.classes.start
    }
}

/// Who opens the files, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// They must not be there, and are made.
    Create,
    /// They must be there.
    Write,
    /// They must be there, and stay as they are.
    Read,
}

/// The rows of a stretch of classes, `rows-FIRST-END-BORN`, and what lies where,
/// `places-FIRST-END-BORN`. Both end with zeros for the classes that have not come yet, which take no
/// room.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    folder: PathBuf,
    name: FileName,
    /// Bytes of a row, all copies.
    stride: u64,
    rows: Arc<File>,
    places: File,
    access: Access,
    /// Places that the file system has set room aside for.
    n_ready: u64,
}

impl SegmentFile {
    /// Opens the two files.
    ///
    /// # Errors
    ///
    /// [`HeadError::CentresDamaged`] if one is missing or of another size, [`HeadError::Durable`] if it is
    /// there though it should not be.
    pub fn open(
        folder: &Path,
        name: FileName,
        stride: usize,
        access: Access,
    ) -> Result<SegmentFile, HeadError> {
        let (n_places, stride) = (name.n_places(), stride as u64);
        let open = |kind: &str, bytes: u64| {
            let n_bytes = n_places.checked_mul(bytes).ok_or(HeadError::Memory {
                rows: usize::try_from(n_places).unwrap_or(usize::MAX),
                row_bytes: bytes as usize,
            })?;
            open_sized(&name.path(folder, kind), n_bytes, access)
        };
        let (rows, places) = (Arc::new(open(ROWS, stride)?), open(PLACES, ENTRY_BYTES)?);
        Ok(SegmentFile {
            folder: folder.to_path_buf(),
            name,
            stride,
            rows,
            places,
            access,
            n_ready: 0,
        })
    }

    /// The files that `folder` has, in order.
    pub fn list(folder: &Path) -> Result<Vec<FileName>, HeadError> {
        let mut found: Vec<FileName> = Vec::new();
        for entry in fs::read_dir(folder).map_err(HeadError::io("read", folder))? {
            let file_name = entry.map_err(HeadError::io("read", folder))?.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            let name = [ROWS, PLACES].iter().find_map(|kind| FileName::of(file_name, kind));
            found.extend(name.filter(|name| !found.contains(name)));
        }
        found.sort_by_key(|name| (name.classes.start, name.classes.end, name.born));
        Ok(found)
    }

    /// Removes the files of this name, if they are there.
    pub fn remove(folder: &Path, name: &FileName) -> Result<(), HeadError> {
        for kind in [ROWS, PLACES] {
            let path = name.path(folder, kind);
            match fs::remove_file(&path) {
                // Another rank that has no use for them either was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(HeadError::io("remove", &path))?,
            }
        }
        Ok(())
    }

    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// The classes whose rows may lie here, global ids.
    pub fn classes(&self) -> &Range<u64> {
        &self.name.classes
    }

    /// Bytes of a row, all copies.
    pub fn stride(&self) -> usize {
        self.stride as usize
    }

    /// The file of the rows.
    pub fn rows(&self) -> &Arc<File> {
        &self.rows
    }

    /// Rows and entries as memory. Where the files are only read, what is written to it stays there.
    pub(super) fn map(&self) -> Result<(Memory, Memory), HeadError> {
        let n_places = self.name.n_places() as usize;
        let map = |file: &File, kind: &str, bytes: u64| {
            let n_bytes = n_places * bytes as usize;
            let mapped = match self.access {
                Access::Read => Memory::of_file_apart(file, n_bytes),
                Access::Create | Access::Write => Memory::of_file(file, n_bytes),
            };
            mapped.map_err(HeadError::io("map", &self.path(kind)))
        };
        Ok((map(&self.rows, ROWS, self.stride)?, map(&self.places, PLACES, ENTRY_BYTES)?))
    }

    /// Has the file system set room aside for the first `n_places` places.
    ///
    /// # Errors
    ///
    /// [`HeadError::DiskFull`] if there is none.
    pub fn make_room(&mut self, n_places: usize) -> Result<(), HeadError> {
        let needed = n_places as u64;
        if needed <= self.n_ready {
            return Ok(());
        }
        let ahead = needed.min(ROOM_BYTES / self.stride);
        let generous = (needed + ahead).min(self.name.n_places());
        let end = match self.set_aside(generous) {
            Err(Errno::NOSPC) if generous > needed => self.set_aside(needed).map(|()| needed),
            done => done.map(|()| generous),
        };
        self.n_ready = end.map_err(|errno| self.refused(errno, needed))?;
        Ok(())
    }

    fn set_aside(&self, end: u64) -> Result<(), Errno> {
        #[cfg(test)]
        if end > FULL_AT.get() {
            return Err(Errno::NOSPC);
        }
        for (file, _, bytes) in self.files() {
            let (at, len) = (self.n_ready * bytes, (end - self.n_ready) * bytes);
            match fallocate(file, FallocateFlags::KEEP_SIZE, at, len) {
                Err(Errno::OPNOTSUPP) => fill_holes(file, at, len)?,
                done => done?,
            }
        }
        Ok(())
    }

    fn refused(&self, errno: Errno, n_places: u64) -> HeadError {
        if !matches!(errno, Errno::NOSPC | Errno::DQUOT) {
            return HeadError::io("make room in", &self.path(ROWS))(errno.into());
        }
        let free = statvfs(&self.folder).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
        let n_new = n_places - self.n_ready;
        let needed = n_new * (self.stride + ENTRY_BYTES);
        let path = self.folder.clone();
        match errno {
            Errno::DQUOT => HeadError::QuotaFull { path, n_new, needed },
            _ => HeadError::DiskFull { path, n_new, free, needed },
        }
    }

    /// Rows first, then the entries that vouch for them.
    pub fn sync(&self) -> Result<(), HeadError> {
        for (file, kind, _) in self.files() {
            file.sync_data().map_err(HeadError::io("sync", &self.path(kind)))?;
            #[cfg(test)]
            tell(&Event::Synced(self.path(kind)));
        }
        Ok(())
    }

    /// The error of a place whose entry cannot be.
    pub fn damaged_entry(&self, place: usize, problem: &str) -> HeadError {
        let problem = format!("place {place} {problem}");
        HeadError::CentresDamaged { path: self.path(PLACES), problem }
    }

    /// The error of some places that are not those of the checkpoint.
    pub fn damaged_entries(&self, places: Range<usize>) -> HeadError {
        let Range { start, end } = places;
        let problem = format!("places {start} to {} are not those of the checkpoint", end - 1);
        HeadError::CentresDamaged { path: self.path(PLACES), problem }
    }

    /// Where the rows are.
    pub fn rows_path(&self) -> PathBuf {
        self.path(ROWS)
    }

    fn files(&self) -> [(&File, &'static str, u64); 2] {
        [(&self.rows, ROWS, self.stride), (&self.places, PLACES, ENTRY_BYTES)]
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.name.path(&self.folder, kind)
    }
}

/// The error of a row that its checksum does not vouch for.
///
/// * `path`: the file of the rows
pub(crate) fn damaged_row(path: &Path, place: usize, class: u64) -> HeadError {
    let problem = format!(
        "place {place} does not hold the row of class {class} as it was written: its checksum differs"
    );
    HeadError::CentresDamaged { path: path.to_path_buf(), problem }
}

/// Opens a file of `n_bytes`, which takes no room where nothing was written.
fn open_sized(path: &Path, n_bytes: u64, access: Access) -> Result<File, HeadError> {
    let refused = |problem: String| HeadError::CentresDamaged { path: path.to_path_buf(), problem };
    let writes = access != Access::Read;
    let is_new = access == Access::Create;
    let file = match OpenOptions::new().read(true).write(writes).create_new(is_new).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused("is missing, but the checkpoint needs it".to_owned()));
        }
        opened => opened.map_err(HeadError::io("open", path))?,
    };
    if is_new {
        file.set_len(n_bytes).map_err(HeadError::io("make room for", path))?;
    }
    let found = file.metadata().map_err(HeadError::io("open", path))?.len();
    if found != n_bytes {
        return Err(refused(format!("has {found} bytes, but must have {n_bytes}")));
    }
    Ok(file)
}

/// Sets room aside where the file system has no call for it: writes zeros where nothing is yet.
fn fill_holes(file: &File, at: u64, len: u64) -> Result<(), Errno> {
    let (zeros, end) = (vec![0; 1 << 20], at + len);
    let mut next = at;
    while next < end {
        let hole = seek(file, SeekFrom::Hole(next))?.min(end);
        // No data after the hole is an error of its own.
        let data = seek(file, SeekFrom::Data(hole)).unwrap_or(end).min(end);
        let mut done = hole;
        while done < data {
            let n_bytes = (data - done).min(zeros.len() as u64);
            file.write_all_at(&zeros[..n_bytes as usize], done)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            done += n_bytes;
        }
        next = data;
    }
    Ok(())
}

/// A thread that tells the system which rows will be needed.
#[derive(Debug, Default)]
pub(crate) struct Prefetch {
    running: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Has the system read rows into memory, in the background.
    ///
    /// * `starts`: where in the file each row begins
    pub fn read(&mut self, file: Arc<File>, starts: Vec<u64>, row_bytes: usize) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            // The disk is behind as it is.
            return;
        }
        let len = NonZeroU64::new(row_bytes as u64);
        let read = move || {
            for start in starts {
                // It is advice: where the system does not take it, the row is read when touched.
                let _ = fadvise(&*file, start, len, Advice::WillNeed);
            }
        };
        self.running = std::thread::Builder::new().name("prefetch".to_owned()).spawn(read).ok();
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use pfc_durable::DurableError;

    use super::*;

    #[test]
    fn only_the_names_that_are_written_are_read() {
        let name = FileName { classes: 5..300, born: 7 };
        assert_eq!(FileName::of("rows-5-300-7", ROWS), Some(name));
        for other in [
            "rows-5-300",
            "rows-5-300-7-1",
            "rows-05-300-7",
            "rows-300-5-7",
            "places-5-300-7",
            "rows-5-300-+7",
        ] {
            assert_eq!(FileName::of(other, ROWS), None, "{other}");
        }
    }

    #[test]
    fn holes_are_filled_and_data_between_them_are_not_touched() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = open_sized(&path, 1 << 20, Access::Create).unwrap();
        file.write_all_at(&[7; 8192], 1 << 18).unwrap();
        fill_holes(&file, 4096, (1 << 19) - 4096).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[1 << 18..][..8192].iter().all(|&b| b == 7));
        assert_eq!(bytes.iter().filter(|&&b| b != 0).count(), 8192);
        assert!(file.metadata().unwrap().blocks() * 512 >= (1 << 19) - 4096);
    }

    #[test]
    fn a_quota_that_is_used_up_is_not_taken_for_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let name = FileName { classes: 0..4, born: 1 };
        let files = SegmentFile::open(folder.path(), name, 64, Access::Create).unwrap();
        assert!(matches!(files.refused(Errno::NOSPC, 2), HeadError::DiskFull { n_new: 2, .. }));
        let path = files.rows_path().display().to_string();
        let quota = files.refused(Errno::DQUOT, 2);
        assert!(matches!(quota, HeadError::QuotaFull { n_new: 2, .. }), "{quota:?}");
        assert!(quota.to_string().contains("quota") && quota.hint().is_some(), "{quota}");
        let error = files.refused(Errno::FBIG, 2);
        assert_eq!(error.to_string(), format!("{path}: cannot make room in"));
        let HeadError::Durable(DurableError { source, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(source.raw_os_error(), Some(Errno::FBIG.raw_os_error()));
        assert!(error.hint().unwrap().contains("ulimit -f"), "{error:?}");
    }
}
