//! `quality/`: measures of every face, in columns beside the shards.
//!
//! The folder holds a `.npy` of f32, `[rows, columns]`, named after its checksum, and `measures.json`, which says
//! what the columns are and which file holds them. A new table is written under its own name first; the record that
//! then replaces the old one is what makes it the table of the data set. A measure that a face has not got is NaN.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError, Entry, remove_ours};
use serde::{Deserialize, Serialize};

use crate::{
    ShardError,
    hash::{Checksum, content_hash, file_checksum},
    manifest::manifest_checksum,
    npy::{NpyTable, table_header},
    sealed::{self, SealedError},
};

/// Folder of the measures in a data set's folder.
pub const QUALITY_DIR: &str = "quality";
/// What the columns are, in that folder.
const RECORD_FILE: &str = "measures.json";
/// Version of the layout.
const FORMAT: u32 = 1;
/// Columns at most; there are some twenty measures.
const COLUMNS_MAX: usize = 256;
/// Bytes of a column's name at most.
const NAME_BYTES_MAX: usize = 40;

/// What is known of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityRecord {
    format: u32,
    /// Of the data set's manifest.
    dataset: Checksum,
    /// Of the table, which is named after it.
    checksum: Checksum,
    /// Rows of the data set.
    pub rows: u64,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// How they were measured: the program, and which networks and files decide the numbers.
    pub made_by: Vec<String>,
}

/// The measures of a data set, memory-mapped.
#[derive(Debug)]
pub struct QualityTable {
    path: PathBuf,
    record: QualityRecord,
    table: NpyTable,
}

impl QualityTable {
    /// Opens the measures of the data set in `dir`, whose every byte is compared with their checksum; nothing if
    /// there are none. Reads the file once: a second for 40 million rows of 16 columns on a fast disk.
    ///
    /// # Errors
    ///
    /// [`ShardError::Quality`] if they are not as they were written, or of another data set, and what reading
    /// gives.
    pub fn open(dir: &Path) -> Result<Option<QualityTable>, ShardError> {
        let record_path = dir.join(QUALITY_DIR).join(RECORD_FILE);
        let bad = |path: &Path, what: String| ShardError::Quality { path: path.to_owned(), what };
        let record: QualityRecord = match sealed::read(&record_path) {
            Ok(None) => return Ok(None),
            Ok(Some(record)) => record,
            Err(SealedError::Io(error)) => {
                return Err(DurableError::at("read", &record_path)(error).into());
            }
            Err(SealedError::Damaged) => return Err(bad(&record_path, "it is damaged".into())),
        };
        if let Some(what) = record.fault(dir)? {
            return Err(bad(&record_path, what));
        }
        let path = dir.join(QUALITY_DIR).join(record.file());
        let table = match NpyTable::open(&path, record.rows, record.columns.len()) {
            Ok(Some(table)) => table,
            Ok(None) => {
                let (rows, columns) = (record.rows, record.columns.len());
                return Err(bad(&path, format!("it is no table of {rows} x {columns} numbers")));
            }
            Err(ShardError::Durable(error)) if error.source.kind() == io::ErrorKind::NotFound => {
                return Err(ShardError::MissingFile { path });
            }
            Err(error) => return Err(error),
        };
        if Checksum(content_hash(table.bytes())) != record.checksum {
            return Err(bad(&path, "its checksum is another one".into()));
        }
        Ok(Some(QualityTable { path, record, table }))
    }

    /// What is known of the table.
    pub fn record(&self) -> &QualityRecord {
        &self.record
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> u64 {
        self.table.bytes().len() as u64
    }

    /// Tells these numbers from others.
    pub fn checksum(&self) -> Checksum {
        self.record.checksum
    }

    /// The values of a column, of every row of the data set. 4 bytes a row.
    ///
    /// # Errors
    ///
    /// [`ShardError::NoSuchMeasure`] if there is no such column.
    pub fn column(&self, name: &str) -> Result<Vec<f32>, ShardError> {
        let columns = &self.record.columns;
        let at = columns.iter().position(|column| column == name).ok_or_else(|| {
            let (path, measures) = (self.path.clone(), columns.join(", "));
            ShardError::NoSuchMeasure { path, name: name.to_owned(), measures }
        })?;
        let value = |row: u64| Ok(self.table.row(row)?.nth(at).unwrap_or(f32::NAN));
        (0..self.record.rows).map(value).collect()
    }

    /// The measures of a row, one for each column. O(1).
    ///
    /// # Errors
    ///
    /// [`ShardError::NoSuchRow`] for one beyond the last.
    pub fn get(&self, row: u64) -> Result<Vec<f32>, ShardError> {
        Ok(self.table.row(row)?.collect())
    }
}

impl QualityRecord {
    /// The name of the table.
    fn file(&self) -> String {
        file_of(self.checksum)
    }

    /// Why it is no record of measures of the data set in `dir`, if it is none.
    fn fault(&self, dir: &Path) -> Result<Option<String>, ShardError> {
        let n_columns = self.columns.len();
        Ok(if self.format != FORMAT {
            let found = self.format;
            Some(format!("it is of format {found}, this program reads format {FORMAT}"))
        } else if !(1..=COLUMNS_MAX).contains(&n_columns) {
            Some(format!("it lists {n_columns} columns, from 1 to {COLUMNS_MAX} are read"))
        } else if let Some(name) = self.columns.iter().find(|name| !is_column_name(name)) {
            Some(format!("it has a column `{}`", name.escape_debug()))
        } else if manifest_checksum(dir)? != self.dataset {
            Some("it is of another data set".to_owned())
        } else {
            None
        })
    }
}

/// What measures are written into a table.
#[derive(Debug, Clone)]
pub struct QualitySpec {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// See [`QualityRecord::made_by`].
    pub made_by: Vec<String>,
}

impl QualitySpec {
    /// What the table of `rows` rows begins with; the numbers follow row by row, as little-endian f32.
    pub fn header(&self, rows: u64) -> Vec<u8> {
        table_header(rows, self.columns.len())
    }

    /// Makes `part`, a whole table of as many rows as the data set in `dir` has, the measures of that data set.
    /// `part` lies in the folder [`QUALITY_DIR`] and is renamed; the table before is removed.
    ///
    /// # Errors
    ///
    /// [`ShardError`] if something cannot be read or written; the measures are then those before.
    pub fn publish(self, dir: &Path, rows: u64, part: &Path) -> Result<(), ShardError> {
        let folder = dir.join(QUALITY_DIR);
        let dataset = manifest_checksum(dir)?;
        let checksum = file_checksum(part, |_| ())?;
        let QualitySpec { columns, made_by } = self;
        let record = QualityRecord { format: FORMAT, dataset, checksum, rows, columns, made_by };
        pfc_durable::rename(part, &folder.join(record.file()))?;
        sealed::write(&folder.join(RECORD_FILE), &record)?;
        remove_ours(&folder, |entry: Entry<'_>| {
            entry.is_file && is_table_name(entry.path) && entry.path != record.file()
        })?;
        Ok(())
    }

    /// Writes the measures of the data set in `dir` from rows that are known.
    ///
    /// * `rows`: as many as the data set has, in its order, each with a value for each column
    ///
    /// # Errors
    ///
    /// The first error of `rows`, [`ShardError::BadSpec`] for another number of values, and what writing gives.
    pub fn write<E: From<ShardError>>(
        self,
        dir: &Path,
        n_rows: u64,
        rows: impl Iterator<Item = Result<Vec<f32>, E>>,
    ) -> Result<(), E> {
        let folder = dir.join(QUALITY_DIR);
        pfc_durable::create_dir_all(&folder).map_err(ShardError::from)?;
        let part = folder.join("copied.part");
        let write = |error| E::from(ShardError::from(DurableError::at("write", &part)(error)));
        let mut out = AtomicFile::create(&part).map_err(ShardError::from)?;
        out.write_all(&self.header(n_rows)).map_err(write)?;
        let mut n_written = 0;
        for row in rows {
            let row = row?;
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write_all(&bytes).map_err(write)?;
            n_written += row.len() as u64;
        }
        let n_expected = n_rows.saturating_mul(self.columns.len() as u64);
        if n_written != n_expected {
            let what = format!("{n_written} measures are given, {n_expected} are due");
            return Err(ShardError::BadSpec { path: part, what }.into());
        }
        out.commit().map_err(ShardError::from)?;
        Ok(self.publish(dir, n_rows, &part)?)
    }
}

fn file_of(checksum: Checksum) -> String {
    format!("{:032x}.npy", checksum.0)
}

/// Whether a name is one of a column: a short word that findings and options can be called after.
fn is_column_name(name: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_word)
}

fn is_table_name(name: &str) -> bool {
    let hash = name.strip_suffix(".npy").unwrap_or_default();
    hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file in the folder of measures is one of ours: a table, its record, or one that is being made.
pub fn is_quality_name(name: &str) -> bool {
    name == RECORD_FILE || is_table_name(name) || is_quality_part(name)
}

/// Whether a file in the folder of measures is an unfinished table.
pub fn is_quality_part(name: &str) -> bool {
    name.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::MANIFEST_FILE;

    fn spec() -> QualitySpec {
        QualitySpec { columns: vec!["a".into(), "b".into()], made_by: vec!["test".into()] }
    }

    /// A folder that passes for a data set, with three rows of two measures.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST_FILE), "{}").unwrap();
        let rows = (0..3).map(|i| Ok::<_, ShardError>(vec![i as f32, f32::NAN]));
        spec().write(dir.path(), 3, rows).unwrap();
        dir
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join(QUALITY_DIR)).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn columns_and_rows_come_back() {
        let dir = folder();
        let table = QualityTable::open(dir.path()).unwrap().unwrap();
        assert_eq!(table.column("a").unwrap(), [0.0, 1.0, 2.0]);
        assert!(table.column("b").unwrap().iter().all(|value| value.is_nan()));
        assert_eq!(table.get(2).unwrap()[0], 2.0);
        assert!(matches!(table.get(3), Err(ShardError::NoSuchRow { row: 3, n_rows: 3 })));
        let error = table.column("c").unwrap_err();
        assert!(error.to_string().ends_with("has no column `c`, but a, b"), "{error}");
        assert!(QualityTable::open(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }

    #[test]
    fn any_byte_changed_or_missing_is_noticed() {
        let dir = folder();
        for path in files(dir.path()) {
            let whole = fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                fs::write(&path, bytes).unwrap();
                assert!(QualityTable::open(dir.path()).is_err(), "{path:?}: byte {at}");
            }
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            assert!(QualityTable::open(dir.path()).is_err(), "{path:?} cut");
            fs::write(&path, &whole).unwrap();
        }
        assert!(QualityTable::open(dir.path()).is_ok());
        fs::write(dir.path().join(MANIFEST_FILE), "{ }").unwrap();
        let error = QualityTable::open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("it is of another data set"), "{error}");
    }

    #[test]
    fn a_new_table_takes_the_place_of_the_old_one_and_a_wrong_one_does_not() {
        let dir = folder();
        let rows = (0..3).map(|_| Ok::<_, ShardError>(vec![7.0, 8.0]));
        spec().write(dir.path(), 3, rows).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
        let short = (0..2).map(|_| Ok::<_, ShardError>(vec![9.0, 9.0]));
        let error = spec().write(dir.path(), 3, short).unwrap_err();
        assert!(error.to_string().contains("4 measures are given, 6 are due"), "{error}");
        let table = QualityTable::open(dir.path()).unwrap().unwrap();
        assert_eq!(table.column("b").unwrap(), [8.0; 3]);
        assert_eq!(files(dir.path()).len(), 2);
        assert!(
            files(dir.path())
                .iter()
                .all(|p| { is_quality_name(p.file_name().unwrap().to_str().unwrap()) })
        );
    }
}
