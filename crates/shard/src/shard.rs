//! One shard opened for reading.

use std::path::{Path, PathBuf};

use arrow_array::{
    BinaryArray, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray, UInt16Array,
    UInt32Array,
};
use pfc_mmap::Map;

use crate::{Face, ImageSize, Quality, ShardError, ipc, mmap, schema, table::column};

/// One shard file, memory-mapped, its structure checked: every row can be read.
///
/// Labels and sizes are a matter of the data set: see [`check_rows`](Shard::check_rows).
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Map,
    /// `ends[i]` is the number of rows in batches `0..=i`.
    ends: Vec<u64>,
    batches: Vec<Columns>,
}

impl Shard {
    /// Maps `path` and checks its magic, version, schema, offsets and strings, but not its images.
    ///
    /// # Errors
    ///
    /// [`ShardError::MissingFile`], [`ShardError::Malformed`], [`ShardError::Schema`],
    /// [`ShardError::UnsupportedFormat`] or [`ShardError::Durable`].
    pub fn open(path: &Path) -> Result<Shard, ShardError> {
        let map = mmap::open(path)?;
        let mut ends = Vec::new();
        let mut batches = Vec::new();
        let mut n_rows = 0;
        for batch in ipc::read_batches(path, &mmap::buffer(&map), &schema::FACES)? {
            // Rows take bytes of the file, so their number cannot overflow.
            n_rows += batch.num_rows() as u64;
            ends.push(n_rows);
            let columns = Columns::of(&batch).ok_or_else(|| ShardError::Malformed {
                path: path.to_path_buf(),
                what: "a column has another type than the schema says".into(),
            })?;
            batches.push(columns);
        }
        Ok(Shard { path: path.to_path_buf(), map, ends, batches })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The face at `row` of this file, borrowed from the memory map; `None` beyond the last.
    /// No allocation.
    pub fn get(&self, row: u64) -> Option<Face<'_>> {
        let i = self.ends.partition_point(|&end| end <= row);
        let columns = self.batches.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        columns.face(usize::try_from(row - start).ok()?)
    }

    /// The label of every row in order, reading this column alone.
    pub fn labels(&self) -> impl Iterator<Item = u32> + '_ {
        self.batches.iter().flat_map(|columns| columns.label.values().iter().copied())
    }

    /// Checks that labels are below `n_identities` and images of one size, reading these columns
    /// alone.
    ///
    /// # Errors
    ///
    /// [`ShardError::LabelOutOfRange`] or [`ShardError::RowSize`] for the first row that is not so.
    pub fn check_rows(&self, n_identities: u32, expected: ImageSize) -> Result<(), ShardError> {
        let mut row = 0;
        for columns in &self.batches {
            let Columns { label, width, height, .. } = columns;
            let sizes = width.values().iter().zip(height.values());
            for (&label, (&width, &height)) in label.values().iter().zip(sizes) {
                let path = || self.path.clone();
                if label >= n_identities {
                    let path = path();
                    return Err(ShardError::LabelOutOfRange { path, row, label, n_identities });
                }
                let found = ImageSize { width, height };
                if found != expected {
                    return Err(ShardError::RowSize { path: path(), row, found, expected });
                }
                row += 1;
            }
        }
        Ok(())
    }

    /// Asks the system to read the image at `row` ahead of its use.
    pub(crate) fn will_need(&self, row: u64) {
        if let Some(face) = self.get(row) {
            self.map.will_need(face.image);
        }
    }
}

/// The columns of one record batch; their buffers are slices of the memory map.
#[derive(Debug)]
struct Columns {
    image: BinaryArray,
    label: UInt32Array,
    source: StringArray,
    width: UInt16Array,
    height: UInt16Array,
    hash: FixedSizeBinaryArray,
    sharpness: Float32Array,
    brightness: Float32Array,
    contrast: Float32Array,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Option<Columns> {
        Some(Columns {
            image: column(batch, "image")?,
            label: column(batch, "label")?,
            source: column(batch, "source")?,
            width: column(batch, "width")?,
            height: column(batch, "height")?,
            hash: column(batch, "hash")?,
            sharpness: column(batch, "sharpness")?,
            brightness: column(batch, "brightness")?,
            contrast: column(batch, "contrast")?,
        })
    }

    fn face(&self, i: usize) -> Option<Face<'_>> {
        if i >= self.label.len() {
            return None;
        }
        Some(Face {
            image: self.image.value(i),
            label: self.label.value(i),
            source: self.source.value(i),
            width: self.width.value(i),
            height: self.height.value(i),
            hash: u128::from_be_bytes(self.hash.value(i).try_into().ok()?),
            quality: Quality {
                sharpness: self.sharpness.value(i),
                brightness: self.brightness.value(i),
                contrast: self.contrast.value(i),
            },
        })
    }
}
