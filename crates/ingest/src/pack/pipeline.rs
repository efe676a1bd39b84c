//! From a source to shards, in bounded memory: while one chunk of rows is written, the next is read
//! and prepared on all threads, each image from the bytes of its file to the bytes of its row. Rows
//! are written in their order, whoever prepared them.

use std::{
    borrow::Cow,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use pfc_cli::{Progress, interrupt};
use pfc_detect::{Detection, Finder};
use pfc_image::{
    Changes, Crop, ImageError, Kind, Pixels, Sniffed, align, align::Landmarks, decode_luma,
    decode_noting, encode_jpeg, jpeg, measure, sniff,
};
use pfc_shard::{
    DetectionRow, Face, IMAGE_BYTES_MAX, ImageSize, NOT_DETECTED, Permutation, Quality, ShardSpec,
    ShardWriter, hash::content_hash, shard_file,
};
use pfc_sources::{Alignment, Source};
use rayon::prelude::*;

use super::{
    Order,
    journal::{Journal, ShardFile, ShardRecord},
    quarantine::Line,
    resume::Standing,
};
use crate::{
    IngestError, PackError,
    reject::{Failure, Reject},
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
    pub alignment: Alignment,
    /// Finds the face to cut out of each image.
    pub finder: Option<Finder>,
}

impl Job {
    /// Reads and prepares image `entry` of `source`.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if this one image cannot be had or used, [`Failure::Fatal`] if the system
    /// fails, which says nothing of the image.
    pub fn prepare(&self, source: &dyn Source, entry: u64) -> Result<Prepared, Failure> {
        if let Some(finder) = &self.finder {
            return found(&source.read(entry)?, finder, &self.recipe, || source.path(entry));
        }
        let landmarks = self.alignment.landmarks(source, entry).map_err(Reject::from)?;
        prepare(source.read(entry)?, landmarks.as_ref(), &self.recipe)
            .map_err(|reject| Failure::of(reject, || source.path(entry)))
    }
}

/// One image, done or refused.
struct Row {
    entry: u64,
    result: Result<Prepared, Failure>,
}

/// Some places of a shard.
#[derive(Debug, Clone)]
struct Chunk {
    shard: u64,
    places: Range<u64>,
    /// Whether the shard ends with it.
    is_last: bool,
}

/// Packs the shards that are left to do, on the current thread pool, and notes each once it is on
/// disk. Adds their rows to `n_images`.
///
/// # Errors
///
/// [`IngestError`] if a shard cannot be written, the user interrupts, or the system fails while images
/// are read; finished shards stay. Single bad images are no error.
pub fn run(
    job: &Job,
    source: &dyn Source,
    journal: &Journal,
    standing: &Standing,
    n_images: &[AtomicU64],
    quiet: bool,
) -> Result<(), IngestError> {
    let Standing { todo, images_done, .. } = standing;
    let record = journal.job();
    let images = |shard: &u64| record.places(*shard).end - record.places(*shard).start;
    let total = images_done + todo.iter().map(images).sum::<u64>();
    let progress = Progress::new("pack", "images", total, quiet);
    progress.add(*images_done);
    let order = Places::new(job.order, job.seed, record.images);
    let reader = Reader { job, source, order, progress: &progress };
    let mut writer = Writer {
        source,
        journal,
        n_images,
        size: record.image_size,
        shard: None,
        record: ShardRecord::begin(0),
        n_finished: standing.n_done,
        images_finished: *images_done,
        n_quarantined: 0,
    };
    let mut chunks = todo.iter().flat_map(|shard| chunks(*shard, record.places(*shard)));
    let read = |chunk: Chunk| (reader.rows(&chunk), chunk);
    let mut current = chunks.next().map(read);
    while let Some((rows, chunk)) = current {
        if interrupt::requested() {
            let (done, shards) = (writer.images_finished, writer.n_finished);
            return Err(PackError::Interrupted { done, total, shards }.into());
        }
        let next = chunks.next();
        let (written, next) = rayon::join(|| writer.write(&chunk, rows), || next.map(read));
        written?;
        current = next;
        progress.note(writer.note());
    }
    progress.finish();
    Ok(())
}

fn chunks(shard: u64, places: Range<u64>) -> impl Iterator<Item = Chunk> {
    let end = places.end;
    places.step_by(CHUNK_IMAGES as usize).map(move |start| {
        let places = start..start.saturating_add(CHUNK_IMAGES).min(end);
        Chunk { shard, is_last: places.end == end, places }
    })
}

struct Reader<'a> {
    job: &'a Job,
    source: &'a dyn Source,
    order: Places,
    progress: &'a Progress,
}

impl Reader<'_> {
    fn rows(&self, chunk: &Chunk) -> Vec<Row> {
        chunk.places.clone().into_par_iter().map(|place| self.row(place)).collect()
    }

    fn row(&self, place: u64) -> Row {
        let entry = self.order.entry_at(place);
        let result = self.job.prepare(self.source, entry);
        self.progress.add(1);
        Row { entry, result }
    }
}

struct Writer<'a> {
    source: &'a dyn Source,
    journal: &'a Journal,
    n_images: &'a [AtomicU64],
    size: ImageSize,
    /// The file being written, once it has a row.
    shard: Option<ShardWriter>,
    /// What is known of the shard being written.
    record: ShardRecord,
    n_finished: u64,
    images_finished: u64,
    n_quarantined: u64,
}

impl Writer<'_> {
    fn write(&mut self, chunk: &Chunk, rows: Vec<Row>) -> Result<(), IngestError> {
        self.record.index = chunk.shard;
        for Row { entry, result } in rows {
            match result {
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Reject(reject)) => {
                    let line = Line::new(&self.source.path(entry), &reject);
                    self.n_quarantined += u64::from(!line.is_skip());
                    self.record.quarantine.push(line);
                }
                Ok(prepared) => self.push(entry, &prepared)?,
            }
        }
        if chunk.is_last { self.finish_shard() } else { Ok(()) }
    }

    fn push(&mut self, entry: u64, prepared: &Prepared) -> Result<(), IngestError> {
        let Prepared { image, passed_through, changes, quality, hash, detection } = prepared;
        let shard = match &mut self.shard {
            Some(shard) => shard,
            None => {
                let file = shard_file(self.record.index as usize);
                let spec = ShardSpec { image_size: self.size };
                self.shard.insert(ShardWriter::create(&self.journal.out().join(file), spec)?)
            }
        };
        let (label, source) = (self.source.index().label(entry), self.source.path(entry));
        let ImageSize { width, height } = self.size;
        let (hash, quality) = (*hash, *quality);
        shard.push(Face { image, label, source: &source, width, height, hash, quality })?;
        if let Some(found) = detection {
            self.record.add_detection(found);
        }
        self.record.changes.add(*changes);
        match passed_through {
            true => self.record.passed_through += 1,
            false => self.record.re_encoded += 1,
        }
        if let Some(n) = self.n_images.get(label as usize) {
            n.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// The file first, then the record that says it counts.
    fn finish_shard(&mut self) -> Result<(), IngestError> {
        let index = self.record.index;
        let mut record = std::mem::replace(&mut self.record, ShardRecord::begin(index));
        if let Some(shard) = self.shard.take() {
            let entry = shard.finish()?;
            let (rows, bytes, checksum) = (entry.rows, entry.bytes, entry.checksum);
            record.file = Some(ShardFile { rows, bytes, checksum });
        }
        self.journal.add(record)?;
        let places = self.journal.job().places(index);
        self.n_finished += 1;
        self.images_finished += places.end - places.start;
        Ok(())
    }

    fn note(&self) -> String {
        match self.n_quarantined {
            0 => String::new(),
            n => format!("{n} quarantined"),
        }
    }
}

/// Which entry of the source comes at which place; a function of the order, the seed and the number
/// of images alone.
#[derive(Debug)]
enum Places {
    Random(Permutation),
    Source,
}

impl Places {
    /// The places of `total` images.
    fn new(order: Order, seed: u64, total: u64) -> Places {
        match order {
            // A key of its own, so that an epoch of the same seed is no repetition of this order.
            Order::Random => Places::Random(Permutation::new(total, seed ^ PACK_KEY)),
            Order::Source => Places::Source,
        }
    }

    /// The entry at `place`.
    fn entry_at(&self, place: u64) -> u64 {
        match self {
            Places::Random(permutation) => permutation.apply(place),
            Places::Source => place,
        }
    }
}

/// "pfc-pack" as a number.
const PACK_KEY: u64 = u64::from_be_bytes(*b"pfc-pack");

/// What every image of a data set becomes.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Size, shape and limits.
    pub crop: pfc_image::Recipe,
    /// JPEG quality of what is encoded anew, 1 to 100.
    pub quality: u8,
    /// How much of an image that keeps its bytes is checked.
    pub validate: Validate,
}

/// How much of an image that keeps its bytes is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Validate {
    /// All: it is decoded, and its quality measured.
    #[default]
    Full,
    /// Its markers, its frame header and that it ends: several times faster. Damage within goes
    /// unnoticed, and the quality columns hold NaN: not measured.
    Header,
}

/// An image that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// A whole JPEG of the recipe's size.
    pub image: Vec<u8>,
    /// The pixels are those of the file: `image` is the file itself, byte for byte but for stray bytes
    /// between its segments and an end marker that it lacks.
    pub passed_through: bool,
    /// What was done to it.
    pub changes: Changes,
    pub quality: Quality,
    /// Content hash of `image`.
    pub hash: u128,
    /// Where the face lies in its photograph, if that is known.
    pub detection: Option<DetectionRow>,
}

/// Decodes and measures an image, as far as the recipe asks; keeps its bytes where they will do. With
/// the landmarks of a face in it, cuts that out.
///
/// # Errors
///
/// [`Reject::Image`] with the reason.
pub fn prepare(
    bytes: Vec<u8>,
    landmarks: Option<&Landmarks>,
    recipe: &Recipe,
) -> Result<Prepared, Reject> {
    if landmarks.is_none() && is_jpeg(&bytes) {
        match jpeg::as_stored(&bytes, recipe.crop.size)? {
            Some(Cow::Borrowed(_)) => return kept(bytes, recipe),
            Some(Cow::Owned(mended)) => return kept(mended, recipe),
            None => {}
        }
    }
    let Crop { pixels, changes } = recipe.crop.crop(&bytes, landmarks)?;
    drop(bytes);
    let image = encode_jpeg(&pixels, recipe.quality)?;
    let quality = measured(&pixels);
    let hash = content_hash(&image);
    let detection = landmarks.map(|points| row_of(None, points));
    Ok(Prepared { image, passed_through: false, changes, quality, hash, detection })
}

/// The row of a face in the table of detections; without score and box where only its landmarks are known.
fn row_of(found: Option<&Detection>, landmarks: &Landmarks) -> DetectionRow {
    let mut row = NOT_DETECTED;
    if let Some(found) = found {
        row[0] = found.score;
        row[1..5].copy_from_slice(&found.bounds);
    }
    row[5..].copy_from_slice(landmarks.as_flattened());
    row
}

/// Cuts out the face that a detector finds.
///
/// * `name`: of the image, for errors
fn found(
    bytes: &[u8],
    finder: &Finder,
    recipe: &Recipe,
    name: impl Fn() -> String,
) -> Result<Prepared, Failure> {
    let of_image = |error: ImageError| Failure::of(error.into(), &name);
    let (pixels, is_turned) = decode_noting(bytes, recipe.crop.limits).map_err(of_image)?;
    let detection = finder.one(&pixels)?.map_err(Reject::from)?.detection;
    let points = detection.landmarks.map(|point| point.map(f64::from));
    let crop = align::cut(&pixels, &points, recipe.crop.size);
    let crop = crop.map_err(|error| of_image(error.into()))?;
    let image = encode_jpeg(&crop, recipe.quality).map_err(of_image)?;
    let changes = Changes { is_turned, is_aligned: true, ..Changes::default() };
    let (quality, hash) = (measured(&crop), content_hash(&image));
    let detection = Some(row_of(Some(&detection), &detection.landmarks));
    Ok(Prepared { image, passed_through: false, changes, quality, hash, detection })
}

fn is_jpeg(bytes: &[u8]) -> bool {
    sniff(bytes) == Sniffed::Image(Kind::Jpeg) && bytes.len() <= IMAGE_BYTES_MAX
}

/// Keeps a JPEG of the right size, once its decoding has proved it.
fn kept(image: Vec<u8>, recipe: &Recipe) -> Result<Prepared, Reject> {
    let size = recipe.crop.size;
    let quality = match recipe.validate {
        Validate::Full => {
            let luma = decode_luma(&image)?;
            if luma.len() != usize::from(size.width) * usize::from(size.height) {
                return Err(ImageError::Corrupt("the decoder returned another size".into()).into());
            }
            measure(&luma, size.width.into())
        }
        Validate::Header => Quality::UNKNOWN,
    };
    let hash = content_hash(&image);
    let changes = Changes::default();
    Ok(Prepared { image, passed_through: true, changes, quality, hash, detection: None })
}

fn measured(pixels: &Pixels) -> Quality {
    measure(&pixels.luma(), pixels.width as usize)
}
