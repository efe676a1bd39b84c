//! A data set opened for reading.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Face, Identities, MANIFEST_FILE, Manifest, Shard, ShardEntry, ShardError, mmap::check_size,
    parallel,
};

/// A data set opened for reading, memory-mapped. `Send` and `Sync`: share one among all threads.
///
/// Shards are mapped and checked when a row of theirs is first read, so that opening takes
/// milliseconds however large the data set is; [`preload`](Dataset::preload) does it at once.
#[derive(Debug)]
pub struct Dataset {
    manifest: Manifest,
    identities: Identities,
    /// `ends[i]` is the number of rows in shards `0..=i`.
    ends: Vec<u64>,
    slots: Vec<Slot>,
    /// Checks the bytes of a shard before a row of it is given away.
    checks_bytes: bool,
}

/// A shard that may not have been looked at yet.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    shard: OnceLock<Shard>,
    /// Whether its bytes were found to be those that the manifest lists.
    is_whole: AtomicBool,
    /// Held by the thread that checks them, so that no other reads them too.
    checking: Mutex<()>,
}

impl Dataset {
    /// Opens the data set in `dir`: reads the manifest and the table of identities, and checks that
    /// every listed file exists and has its size.
    ///
    /// # Errors
    ///
    /// [`ShardError`] that names the first file at fault.
    pub fn open(dir: &Path) -> Result<Dataset, ShardError> {
        let manifest = Manifest::read(dir)?;
        check_claims(dir, &manifest)?;
        let identities = Identities::open(dir, &manifest)?;
        let slot = |s: &ShardEntry| Slot {
            path: dir.join(&s.file),
            shard: OnceLock::new(),
            is_whole: AtomicBool::new(false),
            checking: Mutex::new(()),
        };
        let slots: Vec<Slot> = manifest.shards.iter().map(slot).collect();
        // In parallel, since a network file system takes its time for each; collected before the
        // first fault is taken, so that it is the same one in every run.
        let sizes: Vec<Result<(), ShardError>> =
            parallel::map(slots.len(), |i| check_size(&slots[i].path, manifest.shards[i].bytes));
        sizes.into_iter().collect::<Result<(), ShardError>>()?;
        let ends = manifest.shards.iter().scan(0, |end, shard| {
            *end += shard.rows;
            Some(*end)
        });
        Ok(Dataset { ends: ends.collect(), identities, slots, manifest, checks_bytes: false })
    }

    /// The same, of which [`get`](Dataset::get) holds every shard against its checksum before it gives
    /// the first row away. For commands that write what they read to a new place: a flipped label or
    /// source would have a valid checksum there. Every shard is read once more, at the speed of the
    /// disk.
    #[must_use]
    pub fn checked(self) -> Dataset {
        Dataset { checks_bytes: true, ..self }
    }

    /// Maps and checks every shard now, in parallel, rather than when it is first read: afterwards
    /// [`get`](Dataset::get) fails for no row of the data set.
    ///
    /// Reads all columns but the images.
    ///
    /// # Errors
    ///
    /// [`ShardError`] for the first shard at fault.
    pub fn preload(&self) -> Result<(), ShardError> {
        let faults: Vec<Option<ShardError>> =
            parallel::map(self.slots.len(), |i| self.shard(i).err());
        faults.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// What the data set consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.manifest.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of identities; every label is below it.
    pub fn n_identities(&self) -> u32 {
        self.manifest.n_identities
    }

    /// Names and image counts of the identities.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The face at `row`, borrowed from the memory map. O(log shards), no allocation once the shard
    /// has been mapped.
    ///
    /// The label is below [`n_identities`](Dataset::n_identities) and the size is the manifest's;
    /// the image is as the disk has it (`verify` holds it against its hash).
    ///
    /// # Errors
    ///
    /// [`ShardError::NoSuchRow`], or what is wrong with the shard when its first row is read.
    pub fn get(&self, row: u64) -> Result<Face<'_>, ShardError> {
        let no_such_row = || ShardError::NoSuchRow { row, n_rows: self.len() };
        let (i, row_in_shard) = self.locate(row).ok_or_else(no_such_row)?;
        if self.checks_bytes {
            self.check_bytes(i)?;
        }
        self.shard(i)?.get(row_in_shard).ok_or_else(no_such_row)
    }

    fn check_bytes(&self, i: usize) -> Result<(), ShardError> {
        let Slot { path, is_whole, checking, .. } = &self.slots[i];
        if is_whole.load(Relaxed) {
            return Ok(());
        }
        // It guards no data, so that a panic of another holder changes nothing.
        let _checking = checking.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_whole.load(Relaxed) {
            self.manifest.shards[i].check_file(path, |_| ())?;
            is_whole.store(true, Relaxed);
        }
        Ok(())
    }

    /// Holds the number of rows of every label against the table of identities. Reads the labels of
    /// all rows (4 bytes each), in parallel: a flipped label is noticed, and it costs little.
    ///
    /// # Errors
    ///
    /// [`ShardError::Counts`] for the first identity that has other rows, and what is wrong with the
    /// first shard at fault.
    pub fn check_counts(&self) -> Result<(), ShardError> {
        let n = self.n_identities();
        let counts: Vec<AtomicU64> = (0..n).map(|_| AtomicU64::new(0)).collect();
        let of_shard = |i: usize| -> Result<(), ShardError> {
            for label in self.shard(i)?.labels() {
                // A shard's labels are in range, as checked when it is opened.
                counts[label as usize].fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let faults: Vec<Option<ShardError>> =
            parallel::map(self.slots.len(), |i| of_shard(i).err());
        if let Some(fault) = faults.into_iter().flatten().next() {
            return Err(fault);
        }
        for (label, count) in (0..).zip(&counts) {
            let (found, expected) = (count.load(Relaxed), self.identities.n_images(label));
            if found != expected {
                let name = self.identities.name(label).to_owned();
                return Err(ShardError::Counts { label, name, found, expected });
            }
        }
        Ok(())
    }

    /// The label of every row, in row order. Reads this column alone, in parallel; 4 bytes a row.
    ///
    /// # Errors
    ///
    /// [`ShardError`] for the first shard at fault.
    pub fn labels(&self) -> Result<Vec<u32>, ShardError> {
        let of_shard = |i: usize| Ok(self.shard(i)?.labels().collect());
        let labels: Vec<Result<Vec<u32>, ShardError>> = parallel::map(self.slots.len(), of_shard);
        Ok(labels.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// The rows of one identity, ascending. Reads the labels of all rows (4 bytes each), in parallel.
    ///
    /// # Errors
    ///
    /// [`ShardError`] for the first shard at fault.
    pub fn rows_of(&self, label: u32) -> Result<Vec<u64>, ShardError> {
        let of_shard = |i: usize| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            let labels = (start..).zip(self.shard(i)?.labels());
            Ok(labels.filter(|(_, of_row)| *of_row == label).map(|(row, _)| row).collect())
        };
        let rows: Vec<Result<Vec<u64>, ShardError>> = parallel::map(self.slots.len(), of_shard);
        Ok(rows.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Asks the system to read the image at `row` from disk ahead of its use; a loader that knows
    /// its order calls it some hundred rows ahead. Ignores rows that do not exist and faulty
    /// shards: [`get`](Dataset::get) reports them.
    pub fn will_need(&self, row: u64) {
        if let Some((i, row_in_shard)) = self.locate(row)
            && let Ok(shard) = self.shard(i)
        {
            shard.will_need(row_in_shard);
        }
    }

    /// Shard of `row` and the row's number there.
    fn locate(&self, row: u64) -> Option<(usize, u64)> {
        let i = self.ends.partition_point(|&end| end <= row);
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        (i < self.slots.len()).then(|| (i, row - start))
    }

    fn shard(&self, i: usize) -> Result<&Shard, ShardError> {
        let Slot { path, shard, .. } = &self.slots[i];
        if let Some(shard) = shard.get() {
            return Ok(shard);
        }
        // Two threads may do this at once; the second result is dropped.
        let opened = open_listed(path, &self.manifest.shards[i])?;
        opened.check_rows(self.manifest.n_identities, self.manifest.image_size)?;
        Ok(shard.get_or_init(|| opened))
    }
}

/// Checks that no shard lists more rows than it has bytes: readers allocate some bits or bytes for
/// every row before they have looked at all shards. (That the bytes are there is checked.)
fn check_claims(dir: &Path, manifest: &Manifest) -> Result<(), ShardError> {
    match manifest.shards.iter().find(|shard| shard.rows > shard.bytes) {
        None => Ok(()),
        Some(ShardEntry { file, rows, bytes, .. }) => Err(ShardError::BadManifest {
            path: dir.join(MANIFEST_FILE),
            what: format!("shard `{file}` has {rows} rows in {bytes} bytes"),
        }),
    }
}

/// Opens a shard that should be as `entry` lists it; its rows are not looked at.
pub(crate) fn open_listed(path: &Path, entry: &ShardEntry) -> Result<Shard, ShardError> {
    // Also the guard against mapping a file that shrank since the data set was opened.
    check_size(path, entry.bytes)?;
    let shard = Shard::open(path)?;
    let (found, expected) = (shard.len(), entry.rows);
    match found == expected {
        true => Ok(shard),
        false => Err(ShardError::RowCount { path: path.to_path_buf(), found, expected }),
    }
}
