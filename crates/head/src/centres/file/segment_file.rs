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

use crate::{
    HeadError,
    centres::memory::Memory,
    optim::{Stamp, UNTOUCHED},
};

/// What is known of a place.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(in crate::centres) struct Entry {
    /// 1 + the global id of the class whose row lies here; 0 while the place is free.
    class_plus_1: u64,
    /// When each copy of the row was written, [`UNTOUCHED`] for never. In memory there is one copy.
    pub stamps: [Stamp; 2],
}

impl Entry {
    pub fn new(class: u64) -> Entry {
        Entry { class_plus_1: class + 1, stamps: [UNTOUCHED; 2] }
    }

    /// The class whose row lies here.
    pub fn class(&self) -> Option<u64> {
        self.class_plus_1.checked_sub(1)
    }

    /// Number and stamp of the row's newest copy.
    #[inline(always)]
    pub fn newest(&self) -> (usize, Stamp) {
        let [first, second] = self.stamps;
        if second > first { (1, second) } else { (0, first) }
    }
}

const ROWS: &str = "rows";
const PLACES: &str = "places";

const ENTRY_BYTES: u64 = size_of::<Entry>() as u64;

/// Room that is made at most beyond what is needed: few pieces, each in one stretch of the disk.
const ROOM_BYTES: u64 = 64 << 20;

/// The rows of a stretch of classes, `rows-FIRST-END`, and what lies where, `places-FIRST-END`.
/// Both end with zeros for the classes that have not come yet, which take no room.
#[derive(Debug)]
pub(in crate::centres) struct SegmentFile {
    folder: PathBuf,
    /// Global ids.
    classes: Range<u64>,
    /// Bytes of a row.
    stride: u64,
    rows: Arc<File>,
    places: File,
    /// Places that the file system has set room aside for.
    n_ready: u64,
}

impl SegmentFile {
    /// Opens the files of `classes` in `folder`, or makes both.
    pub fn open(
        folder: &Path,
        classes: Range<u64>,
        stride: usize,
    ) -> Result<SegmentFile, HeadError> {
        let rows_path = path(folder, ROWS, &classes);
        if !rows_path.exists() && path(folder, PLACES, &classes).exists() {
            let problem = "is missing, but the list of what lies in it is there".to_owned();
            return Err(HeadError::CentreFile { path: rows_path, problem });
        }
        let (n_places, stride) = (classes.end - classes.start, stride as u64);
        let open = |name: &str, bytes: u64| {
            let n_bytes = n_places.checked_mul(bytes).ok_or(HeadError::Memory {
                rows: usize::try_from(n_places).unwrap_or(usize::MAX),
                row_bytes: bytes as usize,
            })?;
            open_sized(&path(folder, name, &classes), n_bytes)
        };
        let (rows, places) = (Arc::new(open(ROWS, stride)?), open(PLACES, ENTRY_BYTES)?);
        let folder = folder.to_path_buf();
        Ok(SegmentFile { folder, classes, stride, rows, places, n_ready: 0 })
    }

    /// The stretches of classes that `folder` has files for, in order.
    pub fn list(folder: &Path) -> Result<Vec<Range<u64>>, HeadError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(HeadError::io("read", folder))? {
            let name = entry.map_err(HeadError::io("read", folder))?.file_name();
            found.extend(name.to_str().and_then(classes_of));
        }
        found.sort_by_key(|classes| (classes.start, classes.end));
        Ok(found)
    }

    /// Removes the files of `classes`, if they are there.
    pub fn remove(folder: &Path, classes: &Range<u64>) -> Result<(), HeadError> {
        for name in [ROWS, PLACES] {
            let path = path(folder, name, classes);
            match fs::remove_file(&path) {
                // Another rank that has no use for them either was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(HeadError::io("remove", &path))?,
            }
        }
        Ok(())
    }

    /// The classes whose rows may lie here, global ids.
    pub fn classes(&self) -> &Range<u64> {
        &self.classes
    }

    /// The file of the rows.
    pub fn rows(&self) -> &Arc<File> {
        &self.rows
    }

    /// Rows and entries as memory.
    pub fn map(&self) -> Result<(Memory, Memory), HeadError> {
        let n_places = self.n_places() as usize;
        let map = |file: &File, name: &str, bytes: u64| {
            Memory::of_file(file, n_places * bytes as usize)
                .map_err(HeadError::io("map", &self.path(name)))
        };
        Ok((map(&self.rows, ROWS, self.stride)?, map(&self.places, PLACES, ENTRY_BYTES)?))
    }

    /// Told that the first `n_places` places have been written to before.
    pub fn set_used(&mut self, n_places: usize) {
        self.n_ready = n_places as u64;
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
        let generous = (needed + ahead).min(self.n_places());
        let end = match self.set_aside(generous) {
            Err(Errno::NOSPC) if generous > needed => self.set_aside(needed).map(|()| needed),
            done => done.map(|()| generous),
        };
        self.n_ready = end.map_err(|errno| self.refused(errno, needed))?;
        Ok(())
    }

    fn set_aside(&self, end: u64) -> Result<(), Errno> {
        for (file, _, bytes) in self.files() {
            let (at, len) = (self.n_ready * bytes, (end - self.n_ready) * bytes);
            match fallocate(file, FallocateFlags::KEEP_SIZE, at, len) {
                Err(Errno::OPNOTSUPP) => write_zeros(file, at, len)?,
                done => done?,
            }
        }
        Ok(())
    }

    fn refused(&self, errno: Errno, n_places: u64) -> HeadError {
        if errno != Errno::NOSPC && errno != Errno::DQUOT {
            return HeadError::io("make room in", &self.path(ROWS))(errno.into());
        }
        let free = statvfs(&self.folder).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
        let n_new = n_places - self.n_ready;
        let needed = n_new * (self.stride + ENTRY_BYTES);
        HeadError::DiskFull { path: self.folder.clone(), n_new, free, needed }
    }

    /// Rows first, then the entries that vouch for them.
    pub fn sync(&self) -> Result<(), HeadError> {
        for (file, name, _) in self.files() {
            file.sync_data().map_err(HeadError::io("sync", &self.path(name)))?;
        }
        Ok(())
    }

    /// The stretches of places that may be in use: where the file system has data, or everywhere if
    /// it cannot tell.
    pub fn stretches(&self) -> Vec<Range<usize>> {
        let (mut stretches, end) = (Vec::new(), self.n_places() * ENTRY_BYTES);
        let mut at = 0;
        while at < end {
            let data = match seek(&self.places, SeekFrom::Data(at)) {
                Ok(data) if data < end => data.max(at),
                // No data from here on.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let hole = seek(&self.places, SeekFrom::Hole(data)).unwrap_or(end);
            let hole = hole.clamp(data + 1, end);
            stretches.push((data / ENTRY_BYTES) as usize..hole.div_ceil(ENTRY_BYTES) as usize);
            at = hole;
        }
        stretches
    }

    /// The error of a place whose entry cannot be.
    pub fn damaged(&self, place: usize, problem: &str) -> HeadError {
        let problem = format!("place {place} {problem}");
        HeadError::CentreFile { path: self.path(PLACES), problem }
    }

    fn n_places(&self) -> u64 {
        self.classes.end - self.classes.start
    }

    fn files(&self) -> [(&File, &'static str, u64); 2] {
        [(&self.rows, ROWS, self.stride), (&self.places, PLACES, ENTRY_BYTES)]
    }

    fn path(&self, name: &str) -> PathBuf {
        path(&self.folder, name, &self.classes)
    }
}

fn path(folder: &Path, name: &str, classes: &Range<u64>) -> PathBuf {
    folder.join(format!("{name}-{}-{}", classes.start, classes.end))
}

/// The classes in the name of a file of places.
fn classes_of(name: &str) -> Option<Range<u64>> {
    let (first, end) = name.strip_prefix(PLACES)?.strip_prefix('-')?.split_once('-')?;
    let classes = first.parse().ok()?..end.parse().ok()?;
    let canonical = format!("{PLACES}-{}-{}", classes.start, classes.end) == name;
    (canonical && classes.start < classes.end).then_some(classes)
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

/// Sets room aside where the file system has no call for it.
fn write_zeros(file: &File, at: u64, len: u64) -> Result<(), Errno> {
    let zeros = vec![0; 1 << 20];
    let mut done = 0;
    while done < len {
        let n_bytes = (len - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..n_bytes as usize], at + done)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        done += n_bytes;
    }
    Ok(())
}

/// A thread that tells the system which rows will be needed.
#[derive(Debug, Default)]
pub(in crate::centres) struct Prefetch {
    running: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Has the system read rows into memory, in the background.
    ///
    /// * `starts`: number of the file and where in it a row begins
    pub fn read(&mut self, files: Vec<Arc<File>>, starts: Vec<(usize, u64)>, row_bytes: usize) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            // The disk is behind as it is.
            return;
        }
        let len = NonZeroU64::new(row_bytes as u64);
        let read = move || {
            for (file, start) in starts {
                // It is advice: where the system does not take it, the row is read when touched.
                let _ = fadvise(&*files[file], start, len, Advice::WillNeed);
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
