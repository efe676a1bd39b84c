//! Writing one shard.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray,
    UInt16Array, UInt32Array,
    builder::{BinaryBuilder, StringBuilder},
};
use arrow_buffer::Buffer;
use arrow_schema::ArrowError;

use crate::{
    Face, IMAGE_BYTES_MAX, ImageSize, SOURCE_BYTES_MAX, ShardEntry, ShardError,
    ipc_writer::IpcWriter, schema,
};

/// Bytes of a record batch, which is buffered until it is full. Large enough that a shard has few
/// batches (each costs about 1.5 kB when mapped), small enough to write several shards at once.
const BATCH_BYTES: u64 = 16 << 20;

/// Bytes that a row takes besides its image and source: offsets, label, size, hash and quality.
const ROW_FIXED_BYTES: u64 = 4 + 4 + 4 + 2 + 2 + 16 + 12;

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSpec {
    /// Size of every image.
    pub image_size: ImageSize,
}

/// Writes one shard: to a temporary file that gets its name in [`finish`](ShardWriter::finish).
/// Dropped before, it leaves nothing behind.
///
/// An image is copied once, into the buffer of its record batch, and hashed as that is written.
/// The same rows give the same bytes.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    spec: ShardSpec,
    out: IpcWriter,
    batch: Batch,
    n_rows: u64,
    n_bytes: u64,
}

impl ShardWriter {
    /// Opens a temporary file beside `path`, whose folder must exist.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] if the folder is missing or not writable.
    pub fn create(path: &Path, spec: ShardSpec) -> Result<ShardWriter, ShardError> {
        Ok(ShardWriter {
            path: path.to_path_buf(),
            spec,
            out: IpcWriter::create(path, &schema::FACES)?,
            batch: Batch::default(),
            n_rows: 0,
            n_bytes: 0,
        })
    }

    /// Appends a row and returns its number in this file. `face.hash` is taken as it is: build the
    /// face with [`Face::new`], or pass on the hash that was read with it.
    ///
    /// # Errors
    ///
    /// [`ShardError::RowSize`] or [`ShardError::RowTooLarge`] refuse the row;
    /// [`ShardError::Durable`] and [`ShardError::Arrow`] mean that the file cannot be written.
    /// Nothing was appended; after a failed write nothing can be.
    pub fn push(&mut self, face: Face<'_>) -> Result<u64, ShardError> {
        self.check(&face)?;
        let bytes = row_bytes(&face);
        if self.batch.n_bytes > 0 && self.batch.n_bytes + bytes > BATCH_BYTES {
            self.flush()?;
        }
        self.batch.push(&face, bytes);
        self.n_bytes += bytes;
        self.n_rows += 1;
        Ok(self.n_rows - 1)
    }

    /// Number of rows pushed.
    pub fn len(&self) -> u64 {
        self.n_rows
    }

    /// Whether no row was pushed.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Bytes of the rows pushed; the file has a few kB more.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Writes the footer, syncs, and gives the file its name. The entry's `file` is the file's
    /// name without its folder.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] or [`ShardError::Arrow`]; the file then does not appear.
    pub fn finish(mut self) -> Result<ShardEntry, ShardError> {
        if self.batch.n_bytes > 0 {
            self.flush()?;
        }
        let (bytes, checksum) = self.out.finish()?;
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(ShardEntry { file, rows: self.n_rows, bytes, checksum })
    }

    /// Whether `face` may be appended.
    pub(crate) fn check(&self, face: &Face<'_>) -> Result<(), ShardError> {
        let (row, expected) = (self.n_rows, self.spec.image_size);
        if face.size() != expected {
            let (path, found) = (self.path.clone(), face.size());
            return Err(ShardError::RowSize { path, row, found, expected });
        }
        let too_large = |what, bytes, max| {
            Err(ShardError::RowTooLarge { path: self.path.clone(), row, what, bytes, max })
        };
        let (image, source) = (face.image.len(), face.source.len());
        match () {
            () if image > IMAGE_BYTES_MAX => too_large("an image", image, IMAGE_BYTES_MAX),
            () if source > SOURCE_BYTES_MAX => too_large("a source", source, SOURCE_BYTES_MAX),
            () => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), ShardError> {
        let batch = std::mem::take(&mut self.batch).into_record_batch();
        self.out.write(batch)
    }
}

/// What `face` adds to a shard.
pub(crate) fn row_bytes(face: &Face<'_>) -> u64 {
    ROW_FIXED_BYTES + face.image.len() as u64 + face.source.len() as u64
}

/// Columns of the record batch being filled.
#[derive(Debug, Default)]
struct Batch {
    n_bytes: u64,
    image: BinaryBuilder,
    label: Vec<u32>,
    source: StringBuilder,
    width: Vec<u16>,
    height: Vec<u16>,
    hash: Vec<u8>,
    sharpness: Vec<f32>,
    brightness: Vec<f32>,
    contrast: Vec<f32>,
}

impl Batch {
    fn push(&mut self, face: &Face<'_>, bytes: u64) {
        self.n_bytes += bytes;
        self.image.append_value(face.image);
        self.label.push(face.label);
        self.source.append_value(face.source);
        self.width.push(face.width);
        self.height.push(face.height);
        self.hash.extend_from_slice(&face.hash.to_be_bytes());
        self.sharpness.push(face.quality.sharpness);
        self.brightness.push(face.quality.brightness);
        self.contrast.push(face.quality.contrast);
    }

    /// The columns in the order of the schema; no bytes are copied.
    fn into_record_batch(mut self) -> Result<RecordBatch, ArrowError> {
        let hash = Buffer::from_vec(self.hash);
        let image: BinaryArray = self.image.finish();
        let source: StringArray = self.source.finish();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(image),
            Arc::new(UInt32Array::from(self.label)),
            Arc::new(source),
            Arc::new(UInt16Array::from(self.width)),
            Arc::new(UInt16Array::from(self.height)),
            Arc::new(FixedSizeBinaryArray::try_new(schema::HASH_BYTES, hash, None)?),
            Arc::new(Float32Array::from(self.sharpness)),
            Arc::new(Float32Array::from(self.brightness)),
            Arc::new(Float32Array::from(self.contrast)),
        ];
        RecordBatch::try_new(schema::FACES.clone(), columns)
    }
}
