//! Embeddings of the rows of a data set, from a file of any common kind.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_findings::State;
use pfc_mmap::Map;
use pfc_shard::Dataset;
use pfc_sources::Unread;

use crate::{
    EmbeddingError, arrow, kept,
    layout::{Layout, read_at},
    npy, npz, safetensors_file,
};

/// In place of a row of the file, for rows of the data set that have none.
const MISSING: u32 = u32::MAX;

/// Embeddings by row of a data set, left on disk: every read is one of the file.
#[derive(Debug)]
pub struct Embeddings {
    path: PathBuf,
    file: File,
    layout: Layout,
    /// The file's row for each row of the data set; the same where not given.
    order: Option<Vec<u32>>,
}

impl Embeddings {
    /// Opens a `.npy`, `.npz`, `.arrow` or `.safetensors` with a two-dimensional array of float16,
    /// float32 or float64. The names that a `.npz` or `.arrow` gives are compared with the sources.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] for a file that is none, or lacks a row.
    pub fn open(path: &Path) -> Result<Opened, EmbeddingError> {
        let file = File::open(path).map_err(DurableError::at("open", path))?;
        let bad = |what: String| EmbeddingError::rows(path, what);
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let found = match ending {
            "npy" => npy::open(&file).map(|layout| (layout, None, None)),
            "safetensors" => {
                let layout = safetensors(&Map::open(path)?);
                layout.map(|layout| (layout, None, None)).map_err(Unread::from)
            }
            "npz" => npz::open(&file),
            "arrow" | "feather" => arrow::open(&file),
            _ => Err("its name ends in none of .npy, .npz, .arrow, .safetensors".into()),
        };
        let (layout, names, spooled) = found.map_err(|unread| unread.at(path, bad))?;
        let file = spooled.unwrap_or(file);
        let embeddings = Embeddings { path: path.to_path_buf(), file, layout, order: None };
        Ok(Opened { embeddings, names })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers in an embedding.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// Tells this file from another: its path, size and time of change.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Durable`] if the file system does not say.
    pub fn identity(&self) -> Result<String, EmbeddingError> {
        let at = || DurableError::at("look at", &self.path);
        let metadata = self.file.metadata().map_err(at())?;
        let changed = metadata.modified().map_err(at())?;
        let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(format!("{} {} {}", self.path.display(), metadata.len(), since.as_nanos()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Embeddings there are.
    pub fn len(&self) -> u64 {
        self.order.as_ref().map_or(self.layout.rows, |order| order.len() as u64)
    }

    /// The embedding of `row`, with length 1, into `out` of [`dim`](Embeddings::dim) numbers.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] for a row that is not there, not finite or zero.
    pub fn read(&self, row: u64, out: &mut [f32]) -> Result<(), EmbeddingError> {
        let norm = self.read_as_is(row, out)?;
        if !norm.is_finite() || norm == 0.0 {
            let what = format!("row {} is zero or not finite", self.in_file(row)?);
            return Err(EmbeddingError::rows(&self.path, what));
        }
        out.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        Ok(())
    }

    /// The length (L2 norm) of the embedding of `row` as it is in the file; NaN of one that is not finite, and of a
    /// row that has none.
    ///
    /// * `scratch`: room for [`dim`](Embeddings::dim) numbers
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] if the file cannot be read.
    pub fn norm(&self, row: u64, scratch: &mut [f32]) -> Result<f32, EmbeddingError> {
        if self.in_file(row).is_err() {
            return Ok(f32::NAN);
        }
        let norm = self.read_as_is(row, scratch)?;
        Ok(if norm.is_finite() { norm as f32 } else { f32::NAN })
    }

    /// The row of the file that holds the embedding of a row.
    fn in_file(&self, row: u64) -> Result<u64, EmbeddingError> {
        let found = match &self.order {
            Some(order) => {
                order.get(row as usize).copied().filter(|at| *at != MISSING).map(u64::from)
            }
            None => Some(row).filter(|row| *row < self.layout.rows),
        };
        found.ok_or_else(|| EmbeddingError::rows(&self.path, format!("it has no row {row}")))
    }

    /// Reads an embedding, and tells its length.
    fn read_as_is(&self, row: u64, out: &mut [f32]) -> Result<f64, EmbeddingError> {
        read_at(&self.file, &self.layout, self.in_file(row)?, out)
            .map_err(DurableError::at("read", &self.path))?;
        Ok(out.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt())
    }

    /// Several rows one after another.
    ///
    /// # Errors
    ///
    /// As [`read`](Embeddings::read).
    pub fn rows(&self, rows: &[u64]) -> Result<Vec<f32>, EmbeddingError> {
        let mut data = vec![0.0; rows.len() * self.dim()];
        for (row, out) in rows.iter().zip(data.chunks_exact_mut(self.dim())) {
            self.read(*row, out)?;
        }
        Ok(data)
    }
}

/// The array of a safetensors file that holds the embeddings.
fn safetensors(file: &Map) -> Result<Layout, String> {
    let arrays = safetensors_file::arrays(file)?;
    safetensors_file::chosen(&arrays)?.1.check(file.len() as u64)
}

/// Writes a `.npy` of `rows` embeddings of `dim` numbers, each given by `read`; it appears once
/// complete, with its checksum beside it.
///
/// # Errors
///
/// Those of `read`, or of a failed write.
pub fn write_rows<E: From<EmbeddingError>>(
    path: &Path,
    rows: u64,
    dim: usize,
    read: impl Fn(u64, &mut [f32]) -> Result<(), E>,
) -> Result<(), E> {
    use std::io::Write;
    if let Some(folder) = path.parent() {
        pfc_durable::create_dir_all(folder).map_err(EmbeddingError::from)?;
    }
    let failed = |e| EmbeddingError::from(DurableError::at("write", path)(e));
    let mut file = pfc_durable::AtomicFile::create(path).map_err(EmbeddingError::from)?;
    file.write_all(&npy::write_header(rows, dim)).map_err(failed)?;
    let mut numbers = vec![0.0f32; dim];
    for row in 0..rows {
        read(row, &mut numbers)?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(failed)?;
    }
    file.commit().map_err(EmbeddingError::from)?;
    let start = npy::write_header(rows, dim).len() as u64;
    Ok(kept::write(path, &kept::Sum::of(path, start, dim)?)?)
}

/// A file, and who its rows are if it says so.
#[derive(Debug)]
pub struct Opened {
    embeddings: Embeddings,
    pub(crate) names: Option<Vec<String>>,
}

impl Opened {
    /// As they are in the file.
    pub fn in_order(self) -> Embeddings {
        self.embeddings
    }

    /// Those of the rows of `dataset`: by name where the file has names, else in row order.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] if a row has none, or their numbers differ.
    pub fn of(self, dataset: &Dataset) -> Result<Embeddings, EmbeddingError> {
        self.of_left(dataset, &State::of(dataset))
    }

    /// As [`of`](Opened::of), but rows that `state` leaves out need no embedding: what a reader of the
    /// data set embedded is enough.
    ///
    /// # Errors
    ///
    /// As [`of`](Opened::of).
    pub fn of_left(self, dataset: &Dataset, state: &State) -> Result<Embeddings, EmbeddingError> {
        let Opened { mut embeddings, names } = self;
        let bad = |what: String| EmbeddingError::rows(&embeddings.path, what);
        let Some(names) = names else {
            let (found, expected) = (embeddings.len(), dataset.len());
            let left = expected - state.n_dropped();
            if found != expected && found == left && u32::try_from(found).is_ok() {
                let mut next = 0;
                let number = |row: u64| {
                    let is_left = !state.is_dropped(row);
                    next += u32::from(is_left);
                    if is_left { next - 1 } else { MISSING }
                };
                embeddings.order = Some((0..expected).map(number).collect());
                return Ok(embeddings);
            }
            return match found == expected {
                true => Ok(embeddings),
                false if left < expected => Err(bad(format!(
                    "{found} embeddings for {expected} rows, of which decisions leave {left}"
                ))),
                false => Err(bad(format!("{found} embeddings for {expected} rows"))),
            };
        };
        let mut by_name: Vec<u32> = (0..names.len() as u32).collect();
        by_name.sort_by_key(|&i| &names[i as usize]);
        let mut order = Vec::with_capacity(dataset.len() as usize);
        for row in 0..dataset.len() {
            let source = dataset.get(row)?.source;
            let at = by_name.partition_point(|&i| names[i as usize].as_str() < source);
            let found = by_name.get(at).filter(|&&i| names[i as usize] == source);
            match found {
                Some(found) => order.push(*found),
                None if state.is_dropped(row) => order.push(MISSING),
                None => return Err(bad(format!("none is called `{source}`, row {row}"))),
            }
        }
        embeddings.order = Some(order);
        Ok(embeddings)
    }
}
