//! Who the labels are: the table of identities.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::ArrowError;

use crate::{
    Checksum, FileEntry, IDENTITIES_FILE, Manifest, ShardError, hash::content_hash, ipc,
    ipc_writer::IpcWriter, mmap, mmap::check_size, names::IdentityNames, schema, table::column,
};

/// A record batch of the table ends at so many identities, or bytes of names.
const BATCH_IDENTITIES: u32 = 1 << 16;
const BATCH_BYTES: usize = 16 << 20;

/// Names and image counts of a data set's identities, by label. Memory-mapped.
#[derive(Debug)]
pub struct Identities {
    /// `ends[i]` is the number of identities in batches `0..=i`.
    ends: Vec<u32>,
    batches: Vec<Columns>,
    /// Every (label, number among its names), by name and then label; made at the first look-up.
    by_name: OnceLock<Vec<(u32, u32)>>,
}

#[derive(Debug)]
struct Columns {
    names: ListArray,
    names_flat: StringArray,
    n_images: UInt64Array,
}

impl Identities {
    /// Opens and checks the table that `manifest` lists.
    pub(crate) fn open(dir: &Path, manifest: &Manifest) -> Result<Identities, ShardError> {
        let path = dir.join(&manifest.identities.file);
        let (found, expected) =
            (checksum(&path, &manifest.identities)?, manifest.identities.checksum);
        if found != expected {
            return Err(ShardError::Checksum { path, found, expected });
        }
        let identities = Identities::read(&path)?;
        let (found, expected) = (identities.len(), manifest.n_identities);
        if found != expected {
            let (found, expected) = (found.into(), expected.into());
            return Err(ShardError::RowCount { path, found, expected });
        }
        let count = |label| identities.n_images(label);
        let n_images = (0..identities.len()).map(count).fold(0, u64::saturating_add);
        if n_images != manifest.rows {
            let rows = manifest.rows;
            let what = format!("its identities have {n_images} images, the manifest lists {rows}");
            return Err(ShardError::Malformed { path, what });
        }
        Ok(identities)
    }

    fn read(path: &Path) -> Result<Identities, ShardError> {
        let bad =
            |what: &str| ShardError::Malformed { path: path.to_path_buf(), what: what.into() };
        let map = mmap::open(path)?;
        let mut identities =
            Identities { ends: Vec::new(), batches: Vec::new(), by_name: OnceLock::new() };
        for batch in ipc::read_batches(path, &mmap::buffer(&map), &schema::IDENTITIES)? {
            let start = identities.len();
            let end = u32::try_from(batch.num_rows()).ok().and_then(|n| start.checked_add(n));
            let end = end.ok_or_else(|| bad("it has more identities than labels can count"))?;
            let labels: Option<UInt32Array> = column(&batch, "label");
            if !labels.is_some_and(|l| l.values().iter().copied().eq(start..end)) {
                return Err(bad("its labels do not count up from 0"));
            }
            let columns = Columns::of(&batch).ok_or_else(|| bad("an identity has no name"))?;
            identities.ends.push(end);
            identities.batches.push(columns);
        }
        Ok(identities)
    }

    /// Number of identities.
    pub fn len(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first name of identity `label`. O(log batches), no allocation.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](Identities::len).
    pub fn name(&self, label: u32) -> &str {
        self.names(label).next().expect("every identity has a name, as checked when opened")
    }

    /// All names of identity `label`: more than one after identities were merged.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](Identities::len).
    pub fn names(&self, label: u32) -> impl ExactSizeIterator<Item = &str> {
        let (columns, i) = self.locate(label);
        let offsets = columns.names.value_offsets();
        // Offsets are not negative, as checked when opened.
        let (start, end) = (offsets[i] as usize, offsets[i + 1] as usize);
        (start..end).map(|k| columns.names_flat.value(k))
    }

    /// Number of rows of identity `label`.
    ///
    /// # Panics
    ///
    /// If `label` is not below [`len`](Identities::len).
    pub fn n_images(&self, label: u32) -> u64 {
        let (columns, i) = self.locate(label);
        columns.n_images.value(i)
    }

    /// The identity that has `name`, the lowest label if there are several. The first call sorts
    /// all names, the others are binary searches.
    pub fn label_of(&self, name: &str) -> Option<u32> {
        let by_name = self.by_name.get_or_init(|| {
            let names_of = |label| (0..self.names(label).len() as u32).map(move |k| (label, k));
            let mut all: Vec<(u32, u32)> = (0..self.len()).flat_map(names_of).collect();
            all.sort_by_key(|&entry| self.entry_name(entry));
            all
        });
        let i = by_name.partition_point(|&entry| self.entry_name(entry) < name);
        by_name.get(i).filter(|&&entry| self.entry_name(entry) == name).map(|&(label, _)| label)
    }

    fn entry_name(&self, (label, k): (u32, u32)) -> &str {
        self.names(label).nth(k as usize).expect("entries are made of names that exist")
    }

    fn locate(&self, label: u32) -> (&Columns, usize) {
        let n = self.len();
        assert!(label < n, "label {label} of {n} identities");
        let i = self.ends.partition_point(|&end| end <= label);
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        (&self.batches[i], (label - start) as usize)
    }
}

impl Columns {
    /// `None` if a column has another type or an identity no name.
    fn of(batch: &RecordBatch) -> Option<Columns> {
        let names: ListArray = column(batch, "names")?;
        let names_flat = names.values().as_any().downcast_ref::<StringArray>()?.clone();
        let all_named = names.value_offsets().windows(2).all(|o| o[0] < o[1]);
        all_named.then_some(Columns { names, names_flat, n_images: column(batch, "n_images")? })
    }
}

/// Size checked, then hashed.
fn checksum(path: &Path, entry: &FileEntry) -> Result<Checksum, ShardError> {
    check_size(path, entry.bytes)?;
    Ok(Checksum(content_hash(&mmap::buffer(&mmap::open(path)?))))
}

/// Writes the table: label `i` has the names given for it and `n_images(i)` images.
pub(crate) fn write(
    path: &Path,
    identities: &IdentityNames,
    n_images: impl Fn(u32) -> u64,
) -> Result<FileEntry, ShardError> {
    let fault = |what| ShardError::IdentityName { path: PathBuf::from(path), what };
    identities.check().map_err(fault)?;
    let mut out = IpcWriter::create(path, &schema::IDENTITIES)?;
    let mut start = 0;
    while start < identities.len() {
        let end = batch_end(identities, start);
        out.write(record_batch(identities, start..end, &n_images))?;
        start = end;
    }
    let (bytes, checksum) = out.finish()?;
    Ok(FileEntry { file: IDENTITIES_FILE.into(), bytes, checksum })
}

fn batch_end(identities: &IdentityNames, start: u32) -> u32 {
    let (mut end, mut bytes) = (start, 0);
    while end < identities.len() && end - start < BATCH_IDENTITIES && bytes < BATCH_BYTES {
        bytes += identities.names(end).map(str::len).sum::<usize>();
        end += 1;
    }
    end
}

fn record_batch(
    identities: &IdentityNames,
    labels: std::ops::Range<u32>,
    n_images: impl Fn(u32) -> u64,
) -> Result<RecordBatch, ArrowError> {
    let lengths = labels.clone().map(|label| identities.names(label).len());
    let names: StringArray =
        labels.clone().flat_map(|label| identities.names(label)).map(Some).collect();
    let names = ListArray::try_new(
        schema::name_field(),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(names),
        None,
    )?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(labels.clone())),
        Arc::new(names),
        Arc::new(UInt64Array::from_iter_values(labels.map(n_images))),
    ];
    RecordBatch::try_new(schema::IDENTITIES.clone(), columns)
}
