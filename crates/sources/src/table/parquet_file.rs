//! A Parquet file, read with every length that it states checked against the file first.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
};

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result},
    file::reader::{ChunkReader, Length},
};

use super::thrift::struct_bytes;

/// Length of the footer (4 bytes) and magic (4) end a file.
const TRAILER_BYTES: u64 = 8;

/// What Parquet's reader reads pages from.
pub struct ParquetFile {
    file: File,
    n_bytes: u64,
}

impl ParquetFile {
    /// Looks at no more than the length of `file`.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub fn new(file: File) -> io::Result<ParquetFile> {
        let n_bytes = file.metadata()?.len();
        Ok(ParquetFile { file, n_bytes })
    }

    /// The file as it is.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its length in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Walks through the footer, which describes all row groups: to be done once, before the reader
    /// reads it. One that is encrypted, or cut, is left to the reader's own words.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_footer(&self) -> io::Result<()> {
        let Some(end) = self.n_bytes.checked_sub(TRAILER_BYTES) else { return Ok(()) };
        let mut trailer = [0; TRAILER_BYTES as usize];
        self.at(end)?.read_exact(&mut trailer)?;
        let [l0, l1, l2, l3, magic @ ..] = trailer;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        match end.checked_sub(length) {
            Some(start) if &magic == b"PAR1" => struct_bytes(self.at(start)?, length).map(drop),
            _ => Ok(()),
        }
    }

    fn at(&self, start: u64) -> io::Result<BufReader<File>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn left_from(&self, start: u64) -> Result<u64> {
        let outside =
            || ParquetError::EOF(format!("it lists a page at {start} of {} bytes", self.n_bytes));
        self.n_bytes.checked_sub(start).ok_or_else(outside)
    }
}

impl Length for ParquetFile {
    fn len(&self) -> u64 {
        self.n_bytes
    }
}

impl ChunkReader for ParquetFile {
    type T = Cursor<Vec<u8>>;

    /// The header of the page at `start`, which is all that the reader asks for by this.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        let n_bytes = self.left_from(start)?;
        Ok(Cursor::new(struct_bytes(self.at(start)?, n_bytes)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        match length as u64 <= self.left_from(start)? {
            true => self.file.get_bytes(start, length),
            false => {
                let end = format!("{start} + {length} of {} bytes", self.n_bytes);
                Err(ParquetError::EOF(format!("it lists a page at {end}")))
            }
        }
    }
}
