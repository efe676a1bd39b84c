//! `detections.npy`: where the faces of a data set were found in their photographs, a row of numbers each.
//!
//! It lies beside the shards, is listed in the manifest among the other files, and is not needed to read them. A
//! `.npy` of f32, `[rows, 15]`: score, left, top, right, bottom, and x, y of five landmarks, in pixels of the upright
//! photograph. A face that nobody found has NaN.

use std::{io::Write, path::Path};

use crate::{
    DETECTIONS_FILE, Manifest, ShardError,
    npy::{NpyTable, table_header},
};
use pfc_durable::{AtomicFile, DurableError};

/// Numbers of a row.
const COLUMNS: usize = 15;

/// Score, left, top, right, bottom, and x, y of left eye, right eye, nose, left and right corner of the mouth.
pub type DetectionRow = [f32; COLUMNS];

/// The row of a face that nobody found.
pub const NOT_DETECTED: DetectionRow = [f32::NAN; COLUMNS];

/// Writes the file into the folder `dir` of a data set that has no manifest yet.
///
/// * `rows`: as many as the data set has, in its order
///
/// # Errors
///
/// The first error of `rows`; [`ShardError::BadSpec`] if there are not `n_rows`, and what writing gives.
pub fn write_detections<E: From<ShardError>>(
    dir: &Path,
    n_rows: u64,
    rows: impl Iterator<Item = Result<DetectionRow, E>>,
) -> Result<(), E> {
    let path = dir.join(DETECTIONS_FILE);
    let write = |error| E::from(ShardError::from(DurableError::at("write", &path)(error)));
    let mut out = AtomicFile::create(&path).map_err(ShardError::from)?;
    out.write_all(&table_header(n_rows, COLUMNS)).map_err(write)?;
    let mut n_written = 0;
    for row in rows {
        let bytes: Vec<u8> = row?.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(write)?;
        n_written += 1;
    }
    if n_written != n_rows {
        let what = format!("{n_written} detections are given for {n_rows} rows");
        return Err(ShardError::BadSpec { path, what }.into());
    }
    Ok(out.commit().map_err(ShardError::from)?)
}

/// The rows of the file, in any order.
#[derive(Debug)]
pub struct Detections {
    table: NpyTable,
}

impl Detections {
    /// Opens the file of the data set in `dir`; nothing if `manifest`, which is the data set's, lists none.
    /// Reads all of it once, to hold it against its checksum.
    ///
    /// # Errors
    ///
    /// [`ShardError::MissingFile`], [`ShardError::FileSize`] or [`ShardError::Checksum`] if it is not the
    /// file that was listed, [`ShardError::Detections`] if that was none of detections, or what reading
    /// gives.
    pub fn open(dir: &Path, manifest: &Manifest) -> Result<Option<Detections>, ShardError> {
        let Some(entry) = manifest.others.iter().find(|entry| entry.file == DETECTIONS_FILE) else {
            return Ok(None);
        };
        entry.check(dir, |_| ())?;
        let (path, n_rows) = (dir.join(DETECTIONS_FILE), manifest.rows);
        match NpyTable::open(&path, n_rows, COLUMNS)? {
            Some(table) => Ok(Some(Detections { table })),
            None => Err(ShardError::Detections { path, n_rows }),
        }
    }

    /// Row `row`. O(1).
    ///
    /// # Errors
    ///
    /// [`ShardError::NoSuchRow`] for one beyond the last.
    pub fn get(&self, row: u64) -> Result<DetectionRow, ShardError> {
        let mut values = [f32::NAN; COLUMNS];
        values.iter_mut().zip(self.table.row(row)?).for_each(|(value, found)| *value = found);
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checksum, FileEntry, ImageSize, hash::content_hash};

    fn row(i: u64) -> DetectionRow {
        std::array::from_fn(|column| i as f32 * 100.0 + column as f32)
    }

    /// The manifest of a data set of three rows that lists the file in `dir` as it is.
    fn manifest(dir: &Path) -> Manifest {
        let bytes = std::fs::read(dir.join(DETECTIONS_FILE)).unwrap_or_default();
        let checksum = Checksum(content_hash(&bytes));
        let entry = |file: &str, bytes: u64| FileEntry { file: file.into(), bytes, checksum };
        let found = entry(DETECTIONS_FILE, bytes.len() as u64);
        Manifest {
            format: 1,
            rows: 3,
            n_identities: 1,
            image_size: ImageSize::FACE,
            seed: 0,
            sources: Vec::new(),
            tool: String::new(),
            arguments: Vec::new(),
            identities: entry("identities.arrow", 0),
            shards: Vec::new(),
            others: if bytes.is_empty() { Vec::new() } else { vec![found] },
            lineage: Vec::new(),
        }
    }

    #[test]
    fn rows_come_back_in_any_order_and_a_file_that_is_not_the_listed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Detections::open(dir.path(), &manifest(dir.path())).unwrap().is_none());
        let rows = (0..3).map(|i| Ok::<_, ShardError>(row(i)));
        write_detections(dir.path(), 3, rows).unwrap();
        let listed = manifest(dir.path());
        let found = Detections::open(dir.path(), &listed).unwrap().unwrap();
        for i in [0, 2, 1, 2] {
            assert_eq!(found.get(i).unwrap(), row(i));
        }
        assert!(matches!(found.get(3), Err(ShardError::NoSuchRow { row: 3, n_rows: 3 })));
        let other = Manifest { rows: 4, ..listed.clone() };
        let error = Detections::open(dir.path(), &other).unwrap_err();
        assert!(matches!(error, ShardError::Detections { n_rows: 4, .. }), "{error}");
        let path = dir.path().join(DETECTIONS_FILE);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 128 + 3 * 60);
        for at in [0, 9, 70, whole.len() - 1] {
            std::fs::write(&path, &whole[..at]).unwrap();
            let error = Detections::open(dir.path(), &listed).unwrap_err();
            assert!(matches!(error, ShardError::FileSize { .. }), "cut at {at}: {error}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let error = Detections::open(dir.path(), &listed).unwrap_err();
            assert!(matches!(error, ShardError::Checksum { .. }), "flipped at {at}: {error}");
            // Bytes that were listed so are no detections if they do not begin as these do.
            let begun = Detections::open(dir.path(), &manifest(dir.path()));
            assert_eq!(begun.is_ok(), at >= 128, "flipped at {at}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = Detections::open(dir.path(), &listed).unwrap_err();
        assert!(matches!(error, ShardError::MissingFile { .. }), "{error}");
    }

    #[test]
    fn as_many_rows_are_wanted_as_are_announced() {
        let dir = tempfile::tempdir().unwrap();
        let rows = (0..2).map(|i| Ok::<_, ShardError>(row(i)));
        let error = write_detections(dir.path(), 3, rows).unwrap_err();
        assert!(error.to_string().contains("2 detections are given for 3 rows"), "{error}");
        assert!(!dir.path().join(DETECTIONS_FILE).exists());
    }
}
