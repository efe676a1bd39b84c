//! Tables read part by part: a row group of Parquet, or an Arrow file, at a time.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    parquet_to_arrow_schema,
};

use super::{
    columns::{Columns, RowImage},
    parquet_file::ParquetFile,
};
use crate::{
    arrow_file::ArrowFile,
    catalogue::People,
    columns::ColumnChoice,
    error::SourceError,
    file::check_size,
    label::Who,
    reject::Reject,
    source::LeftOut,
    spool::{EXPANSION_MAX, Spool, unpacked_max},
    unread::Unread,
};

/// Rows are decoded in batches of about so many bytes.
const BATCH_BYTES: i64 = 8 << 20;
const BATCH_ROWS_MAX: i64 = 1024;
/// Bytes of a batch each of whose rows were as large as a page: values that many rows have in common are kept once in a
/// file, and in full for each row here.
const BATCH_BYTES_MAX: i64 = 256 << 20;

/// The key under which Hugging Face's libraries describe a table.
const FEATURES_KEY: &str = "huggingface";

/// A file of tables, and how it is read.
pub struct Table {
    columns: Columns,
    layout: Layout,
    people: People,
    /// Bytes of images that may still come out of the file.
    left: AtomicU64,
}

enum Layout {
    Parquet(ArrowReaderMetadata),
    ArrowFile,
    ArrowStream,
}

/// A row that was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Whose it is, or why nobody's.
    pub who: Result<Who, String>,
    /// Where among what was unpacked its image begins, or the path of that.
    pub start: u64,
    /// How long it is.
    pub n_bytes: u32,
    /// It is a path.
    pub is_path: bool,
}

/// What a part of a table holds.
#[derive(Debug, Default)]
pub struct Part {
    /// By row; nothing for a row left out.
    pub rows: Vec<Option<Unpacked>>,
    /// The rows left out, with numbers that start at the part.
    pub left_out: Vec<(usize, Reject)>,
    /// The folders in the paths of images.
    pub folders: HashSet<String>,
}

impl Table {
    /// Reads what describes the table at `path`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if it is none, or has other columns.
    pub fn open(path: &Path, choice: &ColumnChoice, people: People) -> Result<Table, SourceError> {
        let columns = |schema: &Schema, features: Option<&str>| -> Result<Columns, Unread> {
            Ok(Columns::find(schema, features, choice, people)?)
        };
        let mut magic = Vec::with_capacity(6);
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        let n_bytes = file.metadata().map_err(SourceError::at("look at", path))?.len();
        let new = |columns, layout| {
            let left = AtomicU64::new(unpacked_max(n_bytes));
            Table { columns, layout, people, left }
        };
        file.take(6).read_to_end(&mut magic).map_err(SourceError::at("read", path))?;
        let features = |schema: &Schema| schema.metadata().get(FEATURES_KEY).cloned();
        guarded(path, || match &magic[..] {
            [b'P', b'A', b'R', b'1', ..] => {
                let (metadata, features) = parquet(path)?;
                let columns = columns(metadata.schema(), features.as_deref())?;
                Ok(new(columns, Layout::Parquet(metadata)))
            }
            b"ARROW1" => {
                let file = ArrowFile::open(path)?;
                let columns = columns(file.schema(), features(file.schema()).as_deref())?;
                Ok(new(columns, Layout::ArrowFile))
            }
            [0xff, 0xff, 0xff, 0xff, ..] => {
                let schema = StreamReader::try_new(open(path)?, None)?.schema();
                let columns = columns(&schema, features(&schema).as_deref())?;
                Ok(new(columns, Layout::ArrowStream))
            }
            _ => Err("begins neither as Parquet nor as Arrow does".into()),
        })
    }

    /// What columns were taken for what, where that was a guess.
    pub fn guess(&self) -> Option<&str> {
        self.columns.guess()
    }

    /// Number of parts that can be read by themselves.
    pub fn n_parts(&self) -> usize {
        match &self.layout {
            Layout::Parquet(metadata) => metadata.metadata().num_row_groups(),
            Layout::ArrowFile | Layout::ArrowStream => 1,
        }
    }

    /// Reads part `part` of the table at `path`; its images go to `spool`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] at damage, or where the spool is full.
    pub fn read(&self, path: &Path, part: usize, spool: &Spool) -> Result<Part, SourceError> {
        let place = match &self.layout {
            Layout::Parquet(_) => format!("row group {part}: "),
            Layout::ArrowFile | Layout::ArrowStream => String::new(),
        };
        let wrong = |problem: String| SourceError::Table {
            path: path.to_path_buf(),
            problem: format!("{place}{problem}"),
        };
        let mut batches = guarded(path, || self.batches(path, part))?;
        let mut rows = Part::default();
        // No state outlives a panic but rows that are then dropped.
        while let Some(batch) = catch(|| batches.next()).map_err(wrong)? {
            let batch = batch.map_err(|e| Unread::from(e).at(path, wrong))?;
            rows.add(self, &batch, spool, wrong)?;
        }
        Ok(rows)
    }

    fn batches(&self, path: &Path, part: usize) -> Result<Batches, Unread> {
        Ok(match &self.layout {
            Layout::ArrowFile => Box::new(ArrowFile::open(path)?),
            Layout::ArrowStream => Box::new(ToTheEnd(StreamReader::try_new(open(path)?, None)?)),
            Layout::Parquet(metadata) => {
                let mut file = File::open(path).and_then(ParquetFile::new)?;
                let schema = metadata.metadata().file_metadata().schema_descr();
                let leaves = schema.columns().iter().enumerate();
                let needed = leaves.filter(|(_, leaf)| self.columns.needed(&leaf.path().string()));
                let needed: Vec<usize> = needed.map(|(i, _)| i).collect();
                let group = metadata.metadata().row_group(part);
                let page_bytes = file.look_at_pages(needed.iter().map(|&i| group.column(i)));
                let mask = ProjectionMask::leaves(schema, needed);
                let row_bytes = group.total_byte_size().max(1) / group.num_rows().max(1);
                let n_rows = (BATCH_BYTES / row_bytes.max(1))
                    .min(BATCH_BYTES_MAX / page_bytes.max(1))
                    .clamp(1, BATCH_ROWS_MAX);
                let builder =
                    ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
                        .with_row_groups(vec![part])
                        .with_projection(mask)
                        .with_batch_size(n_rows as usize);
                Box::new(builder.build()?)
            }
        })
    }
}

/// What describes the Parquet file at `path`, and what Hugging Face's libraries say of it.
fn parquet(path: &Path) -> Result<(ArrowReaderMetadata, Option<String>), Unread> {
    let file = File::open(path).and_then(ParquetFile::new)?;
    file.check_footer()?;
    // What Arrow keeps beside Parquet's own schema would bring other types of the same values.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(file.file(), options)?;
    let n_rows = metadata.metadata().row_groups().iter().map(|g| g.num_rows());
    check_rows(n_rows, file.n_bytes())?;
    let file = metadata.metadata().file_metadata();
    let described = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).ok();
    let features = described.and_then(|schema| schema.metadata().get(FEATURES_KEY).cloned());
    Ok((metadata, features))
}

/// Refuses row groups of more rows than the file has bytes. A run of billions of empty rows takes a
/// few bytes, and each of them takes time and memory here; an image takes a byte at least.
fn check_rows(n_rows: impl Iterator<Item = i64>, n_bytes: u64) -> Result<(), String> {
    let mut total = 0u64;
    for n in n_rows {
        let n = u64::try_from(n).map_err(|_| format!("it claims a group of {n} rows"))?;
        total = total.saturating_add(n);
    }
    match total <= n_bytes {
        true => Ok(()),
        false => Err(format!("it claims {total} rows in {n_bytes} bytes")),
    }
}

/// The batches of a stream, which end with an error if the file does not end there: `cat` may have
/// joined two, or there is a hole in it.
struct ToTheEnd(StreamReader<BufReader<File>>);

impl Iterator for ToTheEnd {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.0.next() {
            return Some(batch);
        }
        match self.0.get_mut().fill_buf() {
            Ok([]) => None,
            Ok(_) => {
                let problem =
                    "the file goes on behind the end of its stream: was it joined of two?";
                Some(Err(ArrowError::IpcError(problem.into())))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

impl Part {
    fn add(
        &mut self,
        table: &Table,
        batch: &RecordBatch,
        spool: &Spool,
        wrong: impl Fn(String) -> SourceError,
    ) -> Result<(), SourceError> {
        for (image, who) in table.columns.rows(batch).map_err(&wrong)? {
            let (bytes, who, is_path) = match (image, who) {
                (RowImage::Missing, _) => {
                    self.leave_out(Reject::NoImage);
                    continue;
                }
                (_, Err(problem)) if table.people == People::Needed => {
                    self.leave_out(Reject::NoLabel(problem));
                    continue;
                }
                (RowImage::Bytes(bytes), who) => (bytes, who, false),
                (RowImage::Path(path), who) => {
                    let folder = path.rsplit_once(['/', '\\']).map_or("", |(folder, _)| folder);
                    if !self.folders.contains(folder) {
                        self.folders.insert(folder.replace('\\', "/"));
                    }
                    (path.as_bytes(), who, true)
                }
            };
            if let Err(reject) = check_size(bytes.len() as u64) {
                self.leave_out(reject);
                continue;
            }
            let n_bytes = bytes.len() as u32;
            let left = |left: u64| left.checked_sub(n_bytes.into());
            if table.left.fetch_update(Relaxed, Relaxed, left).is_err() {
                return Err(wrong(format!(
                    "it unpacks to more than {EXPANSION_MAX} times its size"
                )));
            }
            let start = spool.push(bytes)?;
            self.rows.push(Some(Unpacked { who, start, n_bytes, is_path }));
        }
        Ok(())
    }

    fn leave_out(&mut self, reject: Reject) {
        self.left_out.push((self.rows.len(), reject));
        self.rows.push(None);
    }
}

/// The rows left out of a part that starts at row `first` of the file `name`.
pub fn left_out(part: Vec<(usize, Reject)>, name: &str, first: u64) -> Vec<LeftOut> {
    let source = |row: usize| format!("{name}/{}", first + row as u64);
    part.into_iter().map(|(row, reject)| LeftOut { source: source(row), reject }).collect()
}

fn open(path: &Path) -> io::Result<BufReader<File>> {
    File::open(path).map(BufReader::new)
}

/// Runs a decoder on foreign bytes; a panic of it is a fault of the file, and is not printed.
fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    pfc_durable::faults::catch(run).map_err(|panic| panic.to_string())
}

fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, Unread>) -> Result<T, SourceError> {
    let wrong = |problem| SourceError::Table { path: path.to_path_buf(), problem };
    catch(run).map_err(Unread::from).and_then(|result| result).map_err(|e| e.at(path, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_rows_than_bytes_are_refused_before_any_is_read() {
        assert_eq!(check_rows([3, 4].into_iter(), 7), Ok(()));
        let claim = |rows: &[i64], n_bytes| check_rows(rows.iter().copied(), n_bytes).unwrap_err();
        assert_eq!(claim(&[3, 5], 7), "it claims 8 rows in 7 bytes");
        assert_eq!(claim(&[i64::MAX; 3], 7), format!("it claims {} rows in 7 bytes", u64::MAX));
        assert_eq!(claim(&[-1], 7), "it claims a group of -1 rows");
    }

    #[test]
    fn a_table_out_of_which_far_more_comes_than_it_takes_is_an_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo/struct.parquet");
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path()).unwrap();
        let mut table = Table::open(&path, &ColumnChoice::default(), People::Needed).unwrap();
        assert_eq!(*table.left.get_mut(), 1 << 30);
        let read = |table: &Table| {
            (0..table.n_parts()).try_for_each(|part| table.read(&path, part, &spool).map(drop))
        };
        read(&table).unwrap();
        let all = (1 << 30) - *table.left.get_mut();
        *table.left.get_mut() = all;
        read(&table).unwrap();
        *table.left.get_mut() = all - 1;
        let error = read(&table).unwrap_err().to_string();
        assert!(error.contains("it unpacks to more than 100 times its size"), "{error}");
    }
}
