//! What is measured.

use std::{hint::black_box, ops::Range};

use pfc_image::{ImageError, ImageSize, decode_rgb, normalise};
use pfc_shard::{Dataset, EpochOrder};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use crate::IngestError;

/// Images of a batch: the output of a step of training lies in memory, not in a cache.
const BATCH_IMAGES: usize = 128;

/// Numbers of a batch at most, 256 MiB of them, where images are large.
const BATCH_NUMBERS_MAX: usize = 64 << 20;

/// Something whose speed is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The JPEG decoder alone, over bytes in memory.
    Bare,
    /// The bytes of each row, copied out of the data set.
    Read,
    /// Each row decoded.
    Decode,
    /// Each row decoded, mirrored if its place says so, and normalised into a batch.
    Augment,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Bare, Stage::Read, Stage::Decode, Stage::Augment];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Bare => "bare decoder",
            Stage::Read => "read",
            Stage::Decode => "read, decode",
            Stage::Augment => "read, decode, mirror, normalise",
        }
    }
}

/// The images that every stage works on, in the same order.
pub struct Input<'a> {
    dataset: &'a Dataset,
    order: EpochOrder,
    size: ImageSize,
    /// Their bytes, for the bare decoder.
    copies: Vec<Vec<u8>>,
}

impl Input<'_> {
    /// Copies the bytes of the first `n` images of `order`, and decodes each once to know that it
    /// can be.
    ///
    /// # Errors
    ///
    /// [`IngestError::NothingToMeasure`] without images, [`IngestError::Shard`] for one that cannot be
    /// read or decoded.
    pub fn read(dataset: &Dataset, order: EpochOrder, n: u64) -> Result<Input<'_>, IngestError> {
        let size = dataset.manifest().image_size;
        let mut rgb = vec![0; size.rgb_bytes()];
        let mut copies = Vec::new();
        for place in order.share(0, 0, 1).take(n as usize) {
            let row = place.row;
            let face = dataset.get(row)?;
            face.decode(row, &mut rgb)?;
            copies.push(face.image.to_vec());
        }
        match copies.is_empty() {
            true => Err(IngestError::NothingToMeasure),
            false => Ok(Input { dataset, order, size, copies }),
        }
    }

    /// Number of images.
    pub fn len(&self) -> u64 {
        self.copies.len() as u64
    }

    /// Mean size of their files.
    pub fn bytes_per_image(&self) -> f64 {
        let bytes: usize = self.copies.iter().map(Vec::len).sum();
        bytes as f64 / self.copies.len() as f64
    }

    /// Takes the images in `part` through `stage`. None fails that could be read before.
    pub fn work(&self, stage: Stage, part: Range<usize>, room: &mut Room) {
        if stage == Stage::Bare {
            for jpeg in &self.copies[part] {
                let _ = black_box(bare(jpeg, &mut room.rgb));
            }
            return;
        }
        let share = self.order.share(part.start as u64, 0, 1);
        for (i, visit) in self.dataset.faces(share).take(part.len()).enumerate() {
            let Ok(visit) = visit else { continue };
            if stage == Stage::Read {
                room.bytes.clear();
                room.bytes.extend_from_slice(visit.face.image);
                black_box(&room.bytes);
                continue;
            }
            let _ = black_box(decode_rgb(visit.face.image, self.size, &mut room.rgb));
            if stage == Stage::Augment {
                let n_images = room.batch.len() / room.rgb.len();
                let at = i % n_images * room.rgb.len();
                let out = &mut room.batch[at..at + room.rgb.len()];
                normalise(&room.rgb, self.size.width.into(), visit.place.mirror, out);
                black_box(out);
            }
        }
    }

    /// Buffers for one thread.
    pub fn room(&self) -> Room {
        let n = self.size.rgb_bytes();
        let n_images = (BATCH_NUMBERS_MAX / n).clamp(1, BATCH_IMAGES);
        Room { bytes: Vec::new(), rgb: vec![0; n], batch: vec![0.0; n * n_images] }
    }
}

/// Where a thread puts its results.
pub struct Room {
    bytes: Vec<u8>,
    rgb: Vec<u8>,
    batch: Vec<f32>,
}

/// The decoder as anyone would call it.
fn bare(jpeg: &[u8], rgb: &mut [u8]) -> Result<(), ImageError> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_into(rgb).map_err(|e| ImageError::Corrupt(e.to_string()))
}
