//! The checksum of embeddings that are kept beside a data set: a flipped bit would be a number too.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_shard::{
    Checksum,
    hash::HashingWriter,
    sealed::{self, SealedError},
};
use serde::{Deserialize, Serialize};

use crate::EmbeddingError;

/// What is known of a file of embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Size of the file.
    pub bytes: u64,
    /// Checksum of the file.
    pub checksum: Checksum,
    /// Rows whose images could not be decoded, ascending: their embeddings are not numbers.
    pub undecodable: Vec<u64>,
}

impl Sum {
    /// Reads the file at `path`, in which rows of `dim` numbers follow a header of `start` bytes.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Durable`] if it cannot be read.
    pub fn of(path: &Path, start: u64, dim: usize) -> Result<Sum, EmbeddingError> {
        let file = File::open(path).map_err(DurableError::at("open", path))?;
        let at = || DurableError::at("read", path);
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut hashed = HashingWriter::new(io::sink());
        io::copy(&mut (&mut file).take(start), &mut hashed).map_err(at())?;
        let mut bytes = vec![0; dim * 4];
        let mut undecodable = Vec::new();
        let mut row = 0;
        loop {
            let n = read_up_to(&mut file, &mut bytes).map_err(at())?;
            hashed.write_all(&bytes[..n]).map_err(at())?;
            if n < bytes.len() || n == 0 {
                break;
            }
            let (values, _) = bytes.as_chunks::<4>();
            if values.iter().all(|value| f32::from_le_bytes(*value).is_nan()) {
                undecodable.push(row);
            }
            row += 1;
        }
        let (_, bytes, checksum) = hashed.finish();
        Ok(Sum { bytes, checksum, undecodable })
    }

    /// Holds the file at `path` against this.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] if it is not as it was written.
    pub fn check(&self, path: &Path, start: u64, dim: usize) -> Result<(), EmbeddingError> {
        match Sum::of(path, start, dim)? == *self {
            true => Ok(()),
            false => Err(EmbeddingError::damaged(path)),
        }
    }
}

/// Fills `out` unless the file ends; how many bytes there were.
fn read_up_to(file: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < out.len() {
        match file.read(&mut out[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// Where the checksum of the embeddings at `path` is.
pub fn path_of(path: &Path) -> PathBuf {
    path.with_extension("sum")
}

/// Writes what is known of the embeddings at `path`, which may not be there yet.
///
/// # Errors
///
/// [`EmbeddingError::Durable`] if it cannot be written.
pub fn write(path: &Path, sum: &Sum) -> Result<(), EmbeddingError> {
    Ok(sealed::write(&path_of(path), sum)?)
}

/// What is known of the embeddings at `path`; nothing where a version before this one kept them.
///
/// # Errors
///
/// [`EmbeddingError`] if it is damaged, [`EmbeddingError::Durable`] if it cannot be read.
pub fn read(path: &Path) -> Result<Option<Sum>, EmbeddingError> {
    let path = path_of(path);
    sealed::read(&path).map_err(|error| match error {
        SealedError::Io(source) => DurableError::at("read", &path)(source).into(),
        SealedError::Damaged => EmbeddingError::damaged(&path),
    })
}
