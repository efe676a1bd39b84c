//! What every worker must know before the first shard: where shards are cut, and what is packed.
//!
//! A shard is a range of places of a fixed length, so that no worker needs to know how large the
//! images of the others are. The length is asked for, or follows from a sample of the images, which
//! is the same for whoever has the same input; it also tells whether that has changed.

use std::io;

use pfc_shard::{
    Checksum, DatasetSpec, Permutation,
    hash::{HashingWriter, content_hash},
};
use pfc_sources::Source;
use rayon::prelude::*;

use super::{
    journal::{JobRecord, record},
    pipeline::Job,
};
use crate::{IngestError, reject::Failure};

/// Images in the sample. JPEG sizes of one set differ by a third or so, so that their mean is known
/// to 2 %, and 256 are read and decoded in the blink of an eye.
const SAMPLE_IMAGES: u64 = 256;

/// "sampling" as a number: the sample is random, but the same every time.
const SAMPLE_KEY: u64 = u64::from_be_bytes(*b"sampling");

/// Bytes of a row besides its image and its source.
const ROW_FIXED_BYTES: u64 = 44;

/// A row's bytes where the sample holds no usable image: those of a 112x112 crop.
const ROW_BYTES_DEFAULT: u64 = 10_000;

/// How large shards are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardSize {
    /// Images in each but the last.
    Images(u64),
    /// Bytes, about.
    Bytes(u64),
}

/// Reads the sample, on the current thread pool, and decides where shards are cut.
///
/// # Errors
///
/// [`IngestError`] if the system fails while the sample is read.
pub fn plan(
    job: &Job,
    source: &dyn Source,
    spec: DatasetSpec,
    size: ShardSize,
) -> Result<JobRecord, IngestError> {
    let index = source.index();
    let sample = sample(job, source)?;
    let shard_images = match size {
        ShardSize::Images(images) => images,
        ShardSize::Bytes(bytes) => (bytes / sample.row_bytes).clamp(1, u32::MAX.into()),
    };
    Ok(JobRecord {
        tool: spec.tool,
        arguments: spec.arguments,
        sources: spec.sources,
        image_size: spec.image_size,
        seed: spec.seed,
        shard_bytes: spec.shard_bytes,
        images: index.len(),
        identities: index.n_identities() as u64,
        names: checksum(source),
        sample: sample.checksum,
        row_bytes: sample.row_bytes,
        shard_images,
        labels_list: record::measure(|out| record::write_labels(out, source)),
        left_out_list: record::measure(|out| record::write_left_out(out, source)),
    })
}

struct Sample {
    /// Mean over all, those left out included.
    row_bytes: u64,
    checksum: Checksum,
}

fn sample(job: &Job, source: &dyn Source) -> Result<Sample, IngestError> {
    let total = source.index().len();
    let random = Permutation::new(total, SAMPLE_KEY);
    let n = total.min(SAMPLE_IMAGES);
    let images: Vec<(u64, [u128; 2])> = (0..n)
        .into_par_iter()
        .map(|i| image(job, source, random.apply(i)))
        .collect::<Result<_, _>>()?;
    let bytes: u64 = images.iter().map(|(bytes, _)| bytes).sum();
    let row_bytes = if bytes == 0 { ROW_BYTES_DEFAULT } else { (bytes / n).max(1) };
    let hashes = images.iter().flat_map(|(_, hashes)| hashes).flat_map(|hash| hash.to_be_bytes());
    let hashes: Vec<u8> = hashes.collect();
    Ok(Sample { row_bytes, checksum: Checksum(content_hash(&hashes)) })
}

/// Bytes of a row, and hashes of its name and its image; of an image that is left out, 0.
fn image(job: &Job, source: &dyn Source, entry: u64) -> Result<(u64, [u128; 2]), IngestError> {
    let name = source.path(entry);
    let (bytes, hash) = match job.prepare(source, entry) {
        Ok(row) => ((row.image.len() + name.len()) as u64 + ROW_FIXED_BYTES, row.hash),
        Err(Failure::Reject(_)) => (0, 0),
        Err(Failure::Fatal(error)) => return Err(error),
    };
    Ok((bytes, [content_hash(name.as_bytes()), hash]))
}

/// Of all names, in the order of their labels.
fn checksum(source: &dyn Source) -> Checksum {
    let mut out = HashingWriter::new(io::sink());
    // A sink takes everything.
    let _ = source.write_names(&mut out);
    out.finish().2
}
