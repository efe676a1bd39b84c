//! `detections.npy`: where the faces of a data set were found in their photographs, a row of numbers each.
//!
//! It lies beside the shards, is listed in the manifest among the other files, and is not needed to read them. A
//! `.npy` of f32, `[rows, 15]`: score, left, top, right, bottom, and x, y of five landmarks, in pixels of the upright
//! photograph. A face that nobody found has NaN.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError};

use crate::{DETECTIONS_FILE, ShardError};

/// Score, left, top, right, bottom, and x, y of left eye, right eye, nose, left and right corner of the mouth.
pub type DetectionRow = [f32; 15];

/// Bytes of a row.
const ROW_BYTES: usize = 15 * 4;

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
    out.write_all(&header(n_rows)).map_err(write)?;
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

/// The rows of the file, from the first to the last.
#[derive(Debug)]
pub struct Detections {
    path: PathBuf,
    file: BufReader<File>,
    next: u64,
    n_rows: u64,
}

impl Detections {
    /// Opens the file of the data set in `dir`, which has `n_rows` rows; nothing if it has none.
    ///
    /// # Errors
    ///
    /// [`ShardError::Detections`] if it is not as it was written, or what reading gives.
    pub fn open(dir: &Path, n_rows: u64) -> Result<Option<Detections>, ShardError> {
        let path = dir.join(DETECTIONS_FILE);
        let read = |error| ShardError::from(DurableError::at("read", &path)(error));
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(read)?,
        };
        let expected = header(n_rows);
        let n_bytes =
            (n_rows.saturating_mul(ROW_BYTES as u64)).saturating_add(expected.len() as u64);
        let is_long = file.metadata().map_err(read)?.len() == n_bytes;
        let mut file = BufReader::new(file);
        let mut begun = vec![0; expected.len()];
        if !is_long || file.read_exact(&mut begun).is_err() || begun != expected {
            return Err(ShardError::Detections { path, n_rows });
        }
        Ok(Some(Detections { path, file, next: 0, n_rows }))
    }

    /// Row `row`, which is none of those read before: rows are read forwards.
    ///
    /// # Errors
    ///
    /// [`ShardError::NoSuchRow`] for one before or beyond, or what reading gives.
    pub fn forward_to(&mut self, row: u64) -> Result<DetectionRow, ShardError> {
        if row < self.next || row >= self.n_rows {
            return Err(ShardError::NoSuchRow { row, n_rows: self.n_rows });
        }
        let read = |error| ShardError::from(DurableError::at("read", &self.path)(error));
        let skipped = (row - self.next) * ROW_BYTES as u64;
        // Rows are near one another.
        io::copy(&mut (&mut self.file).take(skipped), &mut io::sink()).map_err(read)?;
        let mut bytes = [0; ROW_BYTES];
        self.file.read_exact(&mut bytes).map_err(read)?;
        self.next = row + 1;
        let mut values = [0.0; 15];
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(values)
    }
}

/// What the file begins with.
fn header(n_rows: u64) -> Vec<u8> {
    npy_header("<f4", &format!("({n_rows}, 15)"))
}

/// What a `.npy` begins with, as NumPy writes it.
///
/// * `descr`: the numbers, such as `<f4`
/// * `shape`: as Python writes it
pub fn npy_header(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the numbers start at a multiple of 64.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((padded as u16).to_le_bytes());
    header.extend(format!("{text:<width$}\n", width = padded - 1).bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(i: u64) -> DetectionRow {
        std::array::from_fn(|column| i as f32 * 100.0 + column as f32)
    }

    #[test]
    fn rows_come_back_and_a_file_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Detections::open(dir.path(), 3).unwrap().is_none());
        let rows = (0..3).map(|i| Ok::<_, ShardError>(row(i)));
        write_detections(dir.path(), 3, rows).unwrap();
        let mut found = Detections::open(dir.path(), 3).unwrap().unwrap();
        assert_eq!(found.forward_to(0).unwrap(), row(0));
        assert_eq!(found.forward_to(2).unwrap(), row(2));
        assert!(found.forward_to(1).is_err() && found.forward_to(3).is_err());
        assert!(matches!(Detections::open(dir.path(), 4), Err(ShardError::Detections { .. })));
        let path = dir.path().join(DETECTIONS_FILE);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 128 + 3 * 60);
        for at in [0, 9, 70, whole.len() - 1] {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Detections::open(dir.path(), 3).is_err(), "cut at {at}");
        }
        let mut other = whole.clone();
        other[30] ^= 1;
        std::fs::write(&path, other).unwrap();
        assert!(Detections::open(dir.path(), 3).is_err());
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
