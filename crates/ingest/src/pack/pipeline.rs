//! From a source to a data set, in bounded memory: while one chunk of rows is written, the next is
//! read and prepared on all threads. Rows are written in their order, whoever prepared them.

use std::{ops::Range, path::Path};

use pfc_cli::{Progress, interrupt};
use pfc_shard::{DatasetSpec, DatasetWriter, Face, ImageSize, Permutation};
use rayon::prelude::*;

use super::{
    Order,
    prepare::{Prepared, Recipe, prepare, prepare_aligned},
    quarantine::Quarantine,
    summary::Summary,
};
use crate::{
    IngestError,
    landmarks::LandmarkTable,
    source::{Reject, Source},
};

/// Images per chunk. Two chunks of crops of 10 kB take 20 MB; the pause at the end of a chunk, when
/// threads wait for the last image, is a few in a thousand.
const CHUNK_IMAGES: u64 = 1024;

/// What to make of a source.
#[derive(Debug)]
pub struct Job {
    pub recipe: Recipe,
    pub order: Order,
    pub seed: u64,
    /// Where the faces are; without, images are crops already.
    pub landmarks: Option<LandmarkTable>,
}

/// One image, done or refused.
struct Row {
    entry: u64,
    result: Result<Prepared, Reject>,
}

/// Packs all of `source` into `dir`, on the current thread pool.
///
/// # Errors
///
/// [`IngestError`] if `dir` cannot be written, the user interrupts, or no image is usable. Single
/// bad images are no error.
pub fn run(
    job: &Job,
    source: &dyn Source,
    dir: &Path,
    spec: DatasetSpec,
    quiet: bool,
) -> Result<Summary, IngestError> {
    let total = source.index().len();
    let progress = Progress::new("pack", "images", total, quiet);
    let reader = Reader { job, source, order: Places::new(job, total), progress: &progress };
    let mut writer = Writer {
        source,
        size: spec.image_size,
        dataset: DatasetWriter::create(dir, spec)?,
        quarantine: Quarantine::create(dir)?,
        summary: Summary::default(),
        has_images: vec![false; source.index().n_identities()],
    };
    for left_out in source.left_out() {
        writer.quarantine.add(&left_out.source, &left_out.reject)?;
    }
    let mut rows = reader.chunk(0);
    for start in (0..total).step_by(CHUNK_IMAGES as usize) {
        if interrupt::requested() {
            return Err(super::interrupted(start, total));
        }
        let (written, next) =
            rayon::join(|| writer.write(rows), || reader.chunk(start + CHUNK_IMAGES));
        written?;
        rows = next;
        progress.note(writer.note());
    }
    let summary = writer.finish(total)?;
    progress.finish();
    Ok(summary)
}

/// Which entry of the source comes at which place.
enum Places {
    Random(Permutation),
    Source,
}

impl Places {
    fn new(job: &Job, total: u64) -> Places {
        match job.order {
            // A key of its own, so that an epoch of the same seed is no repetition of this order.
            Order::Random => Places::Random(Permutation::new(total, job.seed ^ PACK_KEY)),
            Order::Source => Places::Source,
        }
    }

    fn entry_at(&self, place: u64) -> u64 {
        match self {
            Places::Random(permutation) => permutation.apply(place),
            Places::Source => place,
        }
    }
}

/// "pfc-pack" as a number.
const PACK_KEY: u64 = u64::from_be_bytes(*b"pfc-pack");

struct Reader<'a> {
    job: &'a Job,
    source: &'a dyn Source,
    order: Places,
    progress: &'a Progress,
}

impl Reader<'_> {
    /// The rows from place `start` on; none past the end.
    fn chunk(&self, start: u64) -> Vec<Row> {
        let total = self.source.index().len();
        let places: Range<u64> = start.min(total)..(start + CHUNK_IMAGES).min(total);
        places.into_par_iter().map(|place| self.row(place)).collect()
    }

    fn row(&self, place: u64) -> Row {
        let entry = self.order.entry_at(place);
        let result = self.prepared(entry);
        self.progress.add(1);
        Row { entry, result }
    }

    fn prepared(&self, entry: u64) -> Result<Prepared, Reject> {
        let Some(landmarks) = &self.job.landmarks else {
            return prepare(self.source.read(entry)?, &self.job.recipe);
        };
        let points = landmarks.get(&self.source.path(entry)).ok_or(Reject::NoLandmarks)?;
        prepare_aligned(self.source.read(entry)?, &points, &self.job.recipe)
    }
}

struct Writer<'a> {
    source: &'a dyn Source,
    dataset: DatasetWriter,
    quarantine: Quarantine,
    summary: Summary,
    size: ImageSize,
    has_images: Vec<bool>,
}

impl Writer<'_> {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), IngestError> {
        let ImageSize { width, height } = self.size;
        for Row { entry, result } in rows {
            let path = self.source.path(entry);
            match result {
                Err(reject) => self.quarantine.add(&path, &reject)?,
                Ok(Prepared { image, passed_through, quality, hash }) => {
                    let label = self.source.index().label(entry);
                    let source = &path;
                    let image = &image;
                    self.dataset.push(Face {
                        image,
                        label,
                        source,
                        width,
                        height,
                        hash,
                        quality,
                    })?;
                    self.summary.add(passed_through);
                    self.has_images[label as usize] = true;
                }
            }
        }
        Ok(())
    }

    fn note(&self) -> String {
        match self.quarantine.n_quarantined {
            0 => String::new(),
            n => format!("{n} quarantined"),
        }
    }

    /// Closes the lists, then the data set: its manifest comes last.
    fn finish(self, total: u64) -> Result<Summary, IngestError> {
        let Writer { source, dataset, quarantine, mut summary, has_images, .. } = self;
        if dataset.is_empty() {
            let example = quarantine.first.unwrap_or_default();
            let path = source.name().into();
            return Err(IngestError::NothingUsable { path, n: total, example });
        }
        summary.quarantined = quarantine.n_quarantined;
        summary.skipped = quarantine.n_skipped;
        summary.identities = has_images.len() as u64;
        summary.identities_without_images = has_images.iter().filter(|&&has| !has).count() as u64;
        quarantine.commit()?;
        let manifest = dataset.finish(source.index().identities().collect())?;
        summary.shards = manifest.shards.len() as u64;
        summary.bytes = manifest.bytes();
        Ok(summary)
    }
}
