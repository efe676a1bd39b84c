//! `MXNet` RecordIO files: a record's class is its identity.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use pfc_cli::{Progress, interrupt, units};
use pfc_recordio::{Fault, LABEL_EXACT_MAX, RecordError, RecordFile, RecordPaths, Salvage};
use rayon::prelude::*;

use crate::{
    catalogue::{People, warn_of_gaps},
    error::SourceError,
    file::{file_size, is_file},
    identities,
    index::Index,
    label::{Value, Who},
    reject::{ReadError, Reject},
    shards::{files, has_ending},
    source::{LeftOut, Source, nothing, stamp, write_paths},
};

/// Number of images after which the command looks for an interrupt and gives pages back to the system.
const CHUNK_IMAGES: u64 = 1 << 16;

/// Damage hits single records. If an index is wrong at this share of its places, it belongs to another file.
const MISPLACED_PERCENT_MAX: u64 = 5;

/// Stands for the class of a record without one.
const NO_CLASS: u32 = u32::MAX;

/// What becomes of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// It is an error.
    Refuse,
    /// Whatever is whole in it is read, and the damage listed.
    Salvage,
}

/// The images of `.rec` files, indexed.
///
/// Identities are called `id_CLASS`, as the folders of InsightFace's unpacking script are, and their
/// labels follow the classes: where these count from 0 without gaps, they are the labels. Images are
/// named by the keys of their records, those of several files also by their file. A table
/// `identities.tsv` beside the file gives the identities their names.
///
/// Memory: about 40 bytes per record, 0.7 GB for Glint360K.
pub struct RecordSource {
    name: String,
    files: Vec<RecordFile>,
    /// The position at which the images of each file begin.
    firsts: Vec<u64>,
    index: Index,
    /// For each entry its class, and its position among the images of all files.
    entries: Vec<(u32, u32)>,
    left_out: Vec<LeftOut>,
    n_read: AtomicU64,
}

impl RecordSource {
    /// Opens `files` or, without any, those that `raw` is: one, those of a pattern, or those in a folder,
    /// of which `train.rec` is the data set if it is there. Several files share one numbering of classes.
    /// Where identities are optional, a record needs no class.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if a file or its index cannot be read, the index is another file's or does not list
    /// all images, there is no image with a class, or the user interrupts.
    pub fn open(
        raw: &Path,
        files: Option<Vec<PathBuf>>,
        damaged: Damaged,
        people: People,
        quiet: bool,
    ) -> Result<RecordSource, SourceError> {
        let paths: Vec<RecordPaths> = record_paths(raw, files)?;
        let mut left_out = Vec::new();
        let mut files = Vec::new();
        for paths in &paths {
            files.push(match damaged {
                Damaged::Refuse => paths.open()?,
                Damaged::Salvage => salvaged(&paths.rec, &mut left_out)?,
            });
        }
        if let [first, _, ..] = &paths[..] {
            tracing::warn!(
                "{} files are read as one data set, from {} on: a class is the same person in all",
                paths.len(),
                first.rec.display()
            );
        }
        let mut source = RecordSource::index_files(raw, files, left_out, (damaged, people), quiet)?;
        if let Some(folder) = paths.first().and_then(|paths| paths.rec.parent()) {
            identities::rename(&mut source.index, folder, "id_")?;
        }
        Ok(source)
    }

    fn index_files(
        raw: &Path,
        files: Vec<RecordFile>,
        mut left_out: Vec<LeftOut>,
        (damaged, people): (Damaged, People),
        quiet: bool,
    ) -> Result<RecordSource, SourceError> {
        let name = raw.display().to_string();
        let mut firsts = Vec::with_capacity(files.len());
        let mut entries: Vec<(u32, u32)> = Vec::new();
        let mut nobodys: Vec<(u32, u32)> = Vec::new();
        let mut total = 0;
        for file in &files {
            let path = file.path().display();
            file.notes().iter().for_each(|note| tracing::warn!("{path}: {note}"));
            firsts.push(total);
            let (classes, bytes_found) = classes(file, damaged, quiet)?;
            check_index(file, &classes)?;
            warn_of_rounding(file, &classes);
            check_listed(file, bytes_found)?;
            for (position, reject) in without_class(file, &classes, damaged) {
                match reject {
                    Reject::NoLabel(_) if people == People::Optional => {
                        nobodys.push((NO_CLASS, (total + position) as u32));
                    }
                    reject => {
                        let source = format!("record {}", key(file, position, files.len() > 1));
                        left_out.push(LeftOut { source, reject });
                    }
                }
            }
            let end = total + classes.len() as u64;
            if end > u32::MAX.into() {
                let what = format!("more than {} images", u32::MAX);
                return Err(SourceError::TooMany { path: name, what });
            }
            let with_class = (total as u32..).zip(classes).filter(|(_, class)| *class != NO_CLASS);
            entries.extend(with_class.map(|(position, class)| (class, position)));
            total = end;
        }
        if entries.is_empty() && nobodys.is_empty() {
            return Err(nothing(&name, &left_out));
        }
        // By position where classes are equal, so that the images of an identity keep their order.
        entries.par_sort_unstable();
        let mut index = Index::default();
        let mut numbers = Vec::new();
        for images in entries.chunk_by(|a, b| a.0 == b.0) {
            let class = images[0].0;
            index.push(format!("id_{class}"), images.len() as u64);
            numbers.push(class.into());
        }
        if people == People::Needed {
            warn_of_gaps(&name, &numbers);
        }
        index.push_unknown(nobodys.len() as u64);
        entries.extend(nobodys);
        let n_read = AtomicU64::new(0);
        Ok(RecordSource { name, files, firsts, index, entries, left_out, n_read })
    }

    /// The file that an entry is in, and its position there.
    fn located(&self, entry: u64) -> (usize, u64) {
        let position = self.entries[entry as usize].1.into();
        let file = self.firsts.partition_point(|first| *first <= position) - 1;
        (file, position - self.firsts[file])
    }
}

impl Source for RecordSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        let class = self.entries[entry as usize].0;
        let (file, position) = self.located(entry);
        let key = key(&self.files[file], position, self.files.len() > 1);
        match class {
            NO_CLASS => format!("record {key}"),
            class => format!("id_{class}/{key}"),
        }
    }

    fn place(&self, entry: u64) -> u64 {
        self.entries[entry as usize].1.into()
    }

    fn stamp(&self, entry: u64) -> u128 {
        let (file, position) = self.located(entry);
        let offset = self.files[file].image_entry(position).map_or(position, |entry| entry.offset);
        stamp(&self.path(entry), &[offset, file_size(self.files[file].path())])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        write_paths(self, |_| 0, out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        let (file, position) = self.located(entry);
        // The images of a pack are spread over the files, which may be larger than memory.
        if self.n_read.fetch_add(1, Relaxed) % CHUNK_IMAGES == CHUNK_IMAGES - 1 {
            self.files.iter().for_each(RecordFile::release_pages);
        }
        let file = &self.files[file];
        let unreadable = |e: RecordError| Reject::Unreadable(e.to_string());
        let image = match self.entries[entry as usize].0 {
            // Its label is not a class, so that it is read like any other record.
            NO_CLASS => {
                let key = file.image_entry(position).map_or(position, |entry| entry.key);
                let record = file.by_key(key).map_err(unreadable)?;
                record.ok_or(Reject::Missing)?.image
            }
            _ => file.image(position).map_err(unreadable)?.image,
        };
        Ok(image.into_owned())
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

/// The files that `raw` is.
fn record_paths(raw: &Path, chosen: Option<Vec<PathBuf>>) -> Result<Vec<RecordPaths>, SourceError> {
    if let Some(paths) = RecordPaths::find(raw).filter(|_| chosen.is_none()) {
        return Ok(vec![paths]);
    }
    let with_index = |rec: PathBuf| {
        let idx = rec.with_extension("idx");
        let idx = is_file(&idx)?.then_some(idx);
        Ok(RecordPaths { rec, idx, property: None })
    };
    let files = match chosen {
        Some(files) => files,
        None => files(raw, |path| has_ending(path, &[".rec"]), "file .rec")?,
    };
    files.into_iter().map(with_index).collect()
}

/// Reads the whole records of a damaged file; the damaged stretches are added to `left_out`.
fn salvaged(rec: &Path, left_out: &mut Vec<LeftOut>) -> Result<RecordFile, SourceError> {
    let (file, salvage) = RecordFile::salvage(rec)?;
    let Salvage { damage, n_damaged, bytes_lost } = salvage;
    let path = rec.display();
    let name = rec.file_name().unwrap_or_default().to_string_lossy();
    let n_listed = damage.len() as u64;
    left_out.extend(damage.into_iter().map(|damage| LeftOut {
        source: format!("{name}: bytes {} to {}", damage.from, damage.resumes_at),
        reject: Reject::Damaged(format!("byte {}: {}", damage.offset, damage.fault)),
    }));
    if n_damaged > n_listed {
        let source = format!("{name}: {} further stretches", n_damaged - n_listed);
        left_out.push(LeftOut { source, reject: Reject::Damaged("not listed one by one".into()) });
    }
    match n_damaged {
        0 => tracing::warn!("{path}: no damage found; its .idx, if there is one, was not used"),
        _ => tracing::warn!(
            "{path}: {} with {} of damage; {} are whole",
            units::of(n_damaged, "stretch").replace("stretchs", "stretches"),
            units::bytes(bytes_lost),
            units::of(file.n_records(), "record")
        ),
    }
    Ok(file)
}

/// The class of the image at every position, [`NO_CLASS`] where it has none, and the bytes of the file that
/// these records take.
fn classes(
    file: &RecordFile,
    damaged: Damaged,
    quiet: bool,
) -> Result<(Vec<u32>, u64), SourceError> {
    let total = file.n_images();
    let bytes_found = AtomicU64::new(0);
    let progress = Progress::new("list", "images", total, quiet);
    let mut classes = Vec::with_capacity(total as usize);
    for start in (0..total).step_by(CHUNK_IMAGES as usize) {
        if interrupt::requested() {
            return Err(SourceError::Interrupted { path: file.path().display().to_string() });
        }
        let end = (start + CHUNK_IMAGES).min(total);
        let class = |position| {
            let offset = file.image_entry(position).map(|entry| entry.offset);
            bytes_found.fetch_add(offset.map_or(0, |at| file.record_bytes(at)), Relaxed);
            class(file, position, damaged).unwrap_or(NO_CLASS)
        };
        classes.par_extend((start..end).into_par_iter().map(class));
        file.release_pages();
        progress.add(end - start);
    }
    progress.finish();
    Ok((classes, bytes_found.into_inner()))
}

fn class(file: &RecordFile, position: u64, damaged: Damaged) -> Result<u32, Reject> {
    let face = file.image(position).map_err(|error| match error {
        RecordError::BadLabel { label, .. } => {
            let problem = Who::of(Some(Value::Float(label.into())), None).err();
            Reject::NoLabel(problem.unwrap_or_else(|| format!("label {label} is no class")))
        }
        error => Reject::Unreadable(error.to_string()),
    })?;
    // Where record 0 is lost, identity records can be told from images only by holding no image.
    if damaged == Damaged::Salvage && face.image.is_empty() {
        return Err(Reject::NoImage);
    }
    let class = u32::try_from(face.label).ok().filter(|class| *class != NO_CLASS);
    class
        .ok_or_else(|| Reject::NoLabel(format!("its class {} is not below {NO_CLASS}", face.label)))
}

/// Refuses an index that passes over images of its file, as one that was cut short does: they would be
/// lost. So does one that passes over record 0 alone, without which records of identities look like images.
///
/// * `bytes_found`: bytes of the images that it lists
fn check_listed(file: &RecordFile, bytes_found: u64) -> Result<(), SourceError> {
    if !file.has_index() {
        return Ok(());
    }
    // Record 0 and those of identities are listed as well.
    let others = file.other_entries().map(|entry| file.record_bytes(entry.offset));
    let bytes_of_others: u64 = others.sum();
    if bytes_found + bytes_of_others >= file.n_bytes() {
        return Ok(());
    }
    let path = file.path().to_path_buf();
    if let Some(offset) = file.announcement_not_listed() {
        return Err(SourceError::IndexWithoutFirst { path, offset });
    }
    let offsets = file.not_listed();
    let Some(&offset) = offsets.first() else { return Ok(()) };
    let n_unlisted = offsets.len() as u64;
    Err(SourceError::ShortIndex { path, n_unlisted, offset })
}

/// Refuses an index at whose offsets records are missing too often: it is another file's, or out of
/// date.
fn check_index(file: &RecordFile, classes: &[u32]) -> Result<(), SourceError> {
    let without = || (0..).zip(classes).filter(|(_, class)| **class == NO_CLASS);
    let n = classes.len() as u64;
    if !file.has_index() {
        return Ok(());
    }
    let is_elsewhere = |position| {
        let at =
            |fault: &Fault| matches!(fault, Fault::NoMagic { .. } | Fault::NoRecordStart { .. });
        let error = file.image(position).err();
        error.is_some_and(|e| matches!(e, RecordError::Damaged { fault, .. } if at(&fault)))
    };
    let n_missing = without().filter(|(position, _)| is_elsewhere(*position)).count() as u64;
    let is_often = n_missing > 2 && n_missing * 100 >= n * MISPLACED_PERCENT_MAX;
    if is_often || n_missing > 0 && 2 * n_missing >= n {
        let path = file.path().to_path_buf();
        return Err(SourceError::ForeignIndex { path, n_missing, n });
    }
    if n_missing > 0 {
        tracing::warn!(
            "{}: at {n_missing} of the {n} places that its .idx file lists no record begins; --salvage \
             ignores the index",
            file.path().display()
        );
    }
    Ok(())
}

fn warn_of_rounding(file: &RecordFile, classes: &[u32]) {
    let may_be_rounded =
        |class: &&u32| **class != NO_CLASS && u64::from(**class) >= LABEL_EXACT_MAX;
    let n_rounded = classes.iter().filter(may_be_rounded).count() as u64;
    if n_rounded > 0 {
        tracing::warn!(
            "{}: {} with a class of {LABEL_EXACT_MAX} or more, which RecordIO rounds: people of \
             neighbouring classes may be mixed",
            file.path().display(),
            units::of(n_rounded, "image")
        );
    }
}

/// The positions of the images without a class, each with its reason.
fn without_class(file: &RecordFile, classes: &[u32], damaged: Damaged) -> Vec<(u64, Reject)> {
    let without = (0..).zip(classes).filter(|(_, class)| **class == NO_CLASS);
    without.filter_map(|(at, _)| Some((at, class(file, at, damaged).err()?))).collect()
}

/// What an image is called among those of its class.
fn key(file: &RecordFile, position: u64, is_one_of_many: bool) -> String {
    let key = file.image_entry(position).map_or(position, |entry| entry.key);
    match file.path().file_stem().filter(|_| is_one_of_many) {
        Some(stem) => format!("{}/{key}", stem.to_string_lossy()),
        None => key.to_string(),
    }
}
