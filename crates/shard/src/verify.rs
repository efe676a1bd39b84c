//! Every byte of a data set against what the manifest and the rows say of it.

use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use pfc_durable::DurableError;
use pfc_image::{ImageError, ImageSize, jpeg_header};
use rayon::prelude::*;

use crate::{
    Checksum, Face, FileEntry, Identities, Manifest, SHARDS_DIR, Shard, ShardEntry, ShardError,
    dataset::open_listed,
    hash::{content_hash, file_checksum},
    mmap::check_size,
};

/// The error of a sector that cannot be read, on all systems that we run on.
const EIO: i32 = 5;

/// Findings kept per file; the rest are counted. Whoever sees a thousand needs the file replaced.
const FINDINGS_PER_FILE_MAX: usize = 1_000;

/// What is wrong with one file or one row.
#[derive(Debug)]
pub struct Finding {
    /// The file, relative to the data set's folder.
    pub file: PathBuf,
    /// The row, when it is known.
    pub row: Option<RowPlace>,
    /// What is wrong.
    pub fault: Fault,
}

/// Where a row is. Both numbers start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// Row in the file.
    pub in_file: u64,
    /// Row in the data set, the argument of [`Dataset::get`](crate::Dataset::get).
    pub in_dataset: u64,
}

/// One kind of damage.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file is absent, unreadable, cut short, or not what the format asks for.
    #[error("{0}")]
    File(ShardError),
    /// The file's bytes have changed since it was written.
    #[error("has checksum {found}, but the manifest lists {expected}; {}", where_changed(*.n_images_damaged))]
    Checksum {
        /// Checksum of the file.
        found: Checksum,
        /// Checksum in the manifest.
        expected: Checksum,
        /// How many images differ from their hashes; unknown if rows cannot be read.
        n_images_damaged: Option<u64>,
    },
    /// The image's bytes have changed, or its hash has.
    #[error("its image does not match its hash")]
    Image,
    /// The image matches its hash, but is no JPEG.
    #[error("its image is {0}")]
    Header(ImageError),
    /// The image matches its hash and has a JPEG's header, but no pixels can be had of it.
    #[error("its image cannot be decoded: {0}")]
    Undecodable(ImageError),
    /// The file lies among those of the data set, but belongs to none.
    #[error("is not listed in the manifest")]
    Stray,
    /// The image matches its hash, but has another size than the row says.
    #[error("its image is {found} pixels, but the row says {expected}")]
    ImageSize {
        /// Size in the JPEG header.
        found: ImageSize,
        /// Size in the columns.
        expected: ImageSize,
    },
    /// The row has another size than the manifest says.
    #[error("is {found} pixels, but the manifest says {expected}")]
    RowSize {
        /// Size in the columns.
        found: ImageSize,
        /// Size in the manifest.
        expected: ImageSize,
    },
    /// The row's identity does not exist.
    #[error("has label {label}, but the manifest lists {n_identities} identities")]
    Label {
        /// Its label.
        label: u32,
        /// Labels are below this.
        n_identities: u32,
    },
    /// An identity has more or fewer rows than the table of identities says.
    #[error("identity {label} (`{name}`) has {expected} images here, but {found} rows")]
    Count {
        /// The identity.
        label: u32,
        /// Its first name.
        name: String,
        /// Rows with this label.
        found: u64,
        /// Images in the table.
        expected: u64,
    },
}

fn where_changed(n_images_damaged: Option<u64>) -> String {
    match n_images_damaged {
        None => "its rows cannot be read".into(),
        Some(0) => "every image matches its hash, so the change is in the other columns".into(),
        Some(n) => format!("{n} of its images differ from their hashes"),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // These errors name the file themselves.
        if let Fault::File(error) = &self.fault {
            return write!(f, "{error}");
        }
        write!(f, "{}: ", self.file.display())?;
        if let Some(RowPlace { in_file, in_dataset }) = self.row {
            write!(f, "row {in_file} (row {in_dataset} of the data set): ")?;
        }
        write!(f, "{}", self.fault)
    }
}

/// What [`verify_with`] looks at beside what [`verify`] does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checks {
    /// Whether every image is decoded, which takes some 100 µs each.
    pub decode: bool,
}

/// What [`verify`] looked at and found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The manifest that the files were held against.
    pub manifest: Manifest,
    /// Rows that could be examined.
    pub rows: u64,
    /// Bytes of the files that could be read.
    pub bytes: u64,
    /// Number of faults; more than `findings` holds if one file has over a thousand.
    pub n_faults: u64,
    /// Faults in the order of files and rows, the same for every number of threads.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.n_faults == 0
    }
}

/// Checks every file and row of the data set in `dir`, in parallel: sizes and checksums against the
/// manifest, the structure of every file, every image against its hash and its JPEG header, labels
/// and sizes, the number of images per identity, and that there are no other files among the shards.
///
/// `on_progress` is called from several threads with the number of bytes just read; the calls add
/// up to at most [`Manifest::bytes`]. Reads everything once; hashing is faster than most disks.
///
/// # Errors
///
/// [`ShardError`] if the manifest itself cannot be read, or the system fails: it has no memory or
/// file descriptors, or a disk of the network does not answer. Whatever else is wrong is a finding, a
/// sector that cannot be read among them.
pub fn verify(dir: &Path, on_progress: impl Fn(u64) + Sync) -> Result<VerifyReport, ShardError> {
    verify_with(dir, Checks::default(), on_progress)
}

/// As [`verify`], and what `checks` asks for.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_with(
    dir: &Path,
    checks: Checks,
    on_progress: impl Fn(u64) + Sync,
) -> Result<VerifyReport, ShardError> {
    let manifest = Manifest::read(dir)?;
    let identities = Identities::open(dir, &manifest);
    on_progress(identities.as_ref().map_or(0, |_| manifest.identities.bytes));
    // Counted only if the table is whole; its length is then bounded by the size of its file.
    let n_counts = identities.as_ref().map_or(0, Identities::len);
    let counts: Vec<AtomicU64> = (0..n_counts).map(|_| AtomicU64::new(0)).collect();

    let firsts = manifest.shards.iter().scan(0, |next, shard| {
        let first = *next;
        *next += shard.rows;
        Some(first)
    });
    let jobs: Vec<(&ShardEntry, u64)> = manifest.shards.iter().zip(firsts).collect();
    let examine = |&(entry, first_row): &(&ShardEntry, u64)| {
        let job = Job { dir, manifest: &manifest, entry, first_row, counts: &counts, checks };
        job.examine(&on_progress)
    };
    let files: Vec<FileReport> = jobs.par_iter().map(examine).collect::<Result<_, _>>()?;

    let table = examine_identities(&manifest, identities, &files, &counts)?;
    let others = manifest.others.iter().map(|file| examine_other(dir, file, &on_progress));
    let mut others: Vec<FileReport> = others.collect::<Result<_, _>>()?;
    others.extend(strays(dir, &manifest)?);
    let mut report =
        VerifyReport { manifest, rows: 0, bytes: 0, n_faults: 0, findings: Vec::new() };
    for file in std::iter::once(table).chain(files).chain(others) {
        report.rows += file.rows;
        report.bytes += file.bytes;
        report.n_faults += file.n_faults;
        report.findings.extend(file.findings);
    }
    Ok(report)
}

/// What was found in one file.
#[derive(Debug, Default)]
struct FileReport {
    file: PathBuf,
    rows: u64,
    bytes: u64,
    n_faults: u64,
    findings: Vec<Finding>,
}

impl FileReport {
    fn of(file: &str) -> FileReport {
        FileReport { file: PathBuf::from(file), ..FileReport::default() }
    }

    fn add(&mut self, row: Option<RowPlace>, fault: Fault) {
        self.n_faults += 1;
        if self.findings.len() < FINDINGS_PER_FILE_MAX {
            self.findings.push(Finding { file: self.file.clone(), row, fault });
        }
    }
}

/// One shard to be examined.
struct Job<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    entry: &'a ShardEntry,
    first_row: u64,
    counts: &'a [AtomicU64],
    checks: Checks,
}

impl Job<'_> {
    fn examine(&self, on_progress: &(impl Fn(u64) + Sync)) -> Result<FileReport, ShardError> {
        let mut report = FileReport::of(&self.entry.file);
        let path = self.dir.join(&self.entry.file);
        // Read rather than mapped, so that a bad sector is an error and not a signal.
        let checksum = check_size(&path, self.entry.bytes).and_then(|()| {
            Ok(file_checksum(&path, |n| {
                report.bytes += n;
                on_progress(n);
            })?)
        });
        let sum = match checksum {
            Ok(sum) => sum,
            Err(error) => {
                report.add(None, Fault::File(found(error)?));
                return Ok(report);
            }
        };
        let mut rows = FileReport::of(&self.entry.file);
        let shard = open_listed(&path, self.entry);
        let n_images_damaged = match &shard {
            Ok(shard) => Some(self.examine_rows(shard, &mut rows)?),
            Err(_) => None,
        };
        let expected = self.entry.checksum;
        if sum != expected {
            report.add(None, Fault::Checksum { found: sum, expected, n_images_damaged });
        }
        if let Err(error) = shard {
            report.add(None, Fault::File(found(error)?));
        }
        report.rows = rows.rows;
        report.n_faults += rows.n_faults;
        report.findings.append(&mut rows.findings);
        Ok(report)
    }

    /// Adds what is wrong with single rows; returns how many images differ from their hashes.
    fn examine_rows(&self, shard: &Shard, report: &mut FileReport) -> Result<u64, ShardError> {
        let mut n_images_damaged = 0;
        let mut rgb = Vec::new();
        report.rows = shard.len();
        for in_file in 0..shard.len() {
            let Some(face) = shard.get(in_file) else { continue };
            let place = RowPlace { in_file, in_dataset: self.first_row + in_file };
            if let Some(count) = self.counts.get(face.label as usize) {
                count.fetch_add(1, Relaxed);
            }
            let mut is_whole = true;
            for fault in self.row_faults(&face) {
                n_images_damaged += u64::from(matches!(fault, Fault::Image));
                report.add(Some(place), fault);
                is_whole = false;
            }
            if self.checks.decode && is_whole {
                rgb.resize(face.size().rgb_bytes(), 0);
                match face.decode(place.in_dataset, &mut rgb) {
                    Err(ShardError::Undecodable { source, .. }) if !source.is_of_system() => {
                        report.add(Some(place), Fault::Undecodable(source));
                    }
                    decoded => decoded?,
                }
            }
        }
        Ok(n_images_damaged)
    }

    fn row_faults(&self, face: &Face<'_>) -> impl Iterator<Item = Fault> {
        let (label, n_identities) = (face.label, self.manifest.n_identities);
        let label = (label >= n_identities).then_some(Fault::Label { label, n_identities });
        let (found, expected) = (face.size(), self.manifest.image_size);
        let size = (found != expected).then_some(Fault::RowSize { found, expected });
        [label, size, image_fault(face)].into_iter().flatten()
    }
}

fn image_fault(face: &Face<'_>) -> Option<Fault> {
    if content_hash(face.image) != face.hash {
        return Some(Fault::Image);
    }
    match jpeg_header(face.image) {
        Err(error) => Some(Fault::Header(error)),
        Ok(found) if found != face.size() => {
            Some(Fault::ImageSize { found, expected: face.size() })
        }
        Ok(_) => None,
    }
}

/// A file that is listed beside the shards.
fn examine_other(
    dir: &Path,
    entry: &FileEntry,
    on_progress: &impl Fn(u64),
) -> Result<FileReport, ShardError> {
    let mut report = FileReport::of(&entry.file);
    let checked = entry.check(dir, |n| {
        report.bytes += n;
        on_progress(n);
    });
    if let Err(error) = checked {
        report.add(None, Fault::File(found(error)?));
    }
    Ok(report)
}

/// An error of reading a file as a finding, unless it says nothing of the file. A sector that cannot
/// be read is what this looks for.
fn found(error: ShardError) -> Result<ShardError, ShardError> {
    let is_bad_sector = |error: &ShardError| matches!(error, ShardError::Durable(error) if error.source.raw_os_error() == Some(EIO));
    if error.is_of_system() && !is_bad_sector(&error) { Err(error) } else { Ok(error) }
}

/// Files among the shards that the manifest does not list, by name.
fn strays(dir: &Path, manifest: &Manifest) -> Result<Vec<FileReport>, ShardError> {
    let listed: HashSet<&str> = manifest.shards.iter().map(|shard| &*shard.file).collect();
    let folder = dir.join(SHARDS_DIR);
    let mut files = Vec::new();
    let at = |error| found(DurableError::at("list", &folder)(error).into());
    match fs::read_dir(&folder) {
        // Shards that cannot be listed are missed one by one.
        Err(error) => drop(at(error)?),
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Err(error) => drop(at(error)?),
                    Ok(entry) => {
                        let name = entry.file_name();
                        files.push(format!("{SHARDS_DIR}/{}", name.to_string_lossy()));
                    }
                }
            }
        }
    }
    files.retain(|file| !listed.contains(file.as_str()));
    files.sort();
    let report = |file: String| {
        let mut report = FileReport::of(&file);
        report.add(None, Fault::Stray);
        report
    };
    Ok(files.into_iter().map(report).collect())
}

fn examine_identities(
    manifest: &Manifest,
    identities: Result<Identities, ShardError>,
    files: &[FileReport],
    counts: &[AtomicU64],
) -> Result<FileReport, ShardError> {
    let mut report = FileReport::of(&manifest.identities.file);
    let identities = match identities {
        Ok(identities) => identities,
        Err(error) => {
            report.add(None, Fault::File(found(error)?));
            return Ok(report);
        }
    };
    report.bytes = manifest.identities.bytes;
    // With rows missing every count would differ, and say nothing new.
    if files.iter().map(|f| f.rows).sum::<u64>() != manifest.rows {
        return Ok(report);
    }
    for (label, count) in (0..).zip(counts) {
        let (found, expected) = (count.load(Relaxed), identities.n_images(label));
        if found != expected {
            let name = identities.name(label).to_owned();
            report.add(None, Fault::Count { label, name, found, expected });
        }
    }
    Ok(report)
}
