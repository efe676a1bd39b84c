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

use super::thrift::{leading_integers, struct_bytes};

/// Length of the footer (4 bytes) and magic (4) end a file.
const TRAILER_BYTES: u64 = 8;

/// Bytes that a page may unpack to, whatever it is packed in. Writers make pages of about 1 MiB.
const PAGE_BYTES_MAX: i64 = 64 << 20;
/// How many times its size in the file a larger page may unpack to. Images hardly shrink at all; a page of nothing
/// but zeros shrinks by 10,000 and more.
const PAGE_GROWTH_MAX: i64 = 16;

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
        let header = struct_bytes(self.at(start)?, n_bytes)?;
        check_page(&header, start)?;
        Ok(Cursor::new(header))
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

/// Refuses a page that claims to unpack to far more than it takes in the file: the reader takes that much memory before
/// it unpacks anything.
///
/// * `header`: a `PageHeader`, whose fields 2 and 3 are the bytes of the page, unpacked and as it is in the file
/// * `start`: where it lies, for the error
fn check_page(header: &[u8], start: u64) -> Result<()> {
    let fields = leading_integers(header);
    let field = |number: i64| fields.iter().find(|(n, _)| *n == number).map_or(0, |(_, v)| *v);
    let (unpacked, packed) = (field(2), field(3));
    match unpacked <= PAGE_BYTES_MAX.max(packed.saturating_mul(PAGE_GROWTH_MAX)) {
        true => Ok(()),
        false => Err(ParquetError::General(format!(
            "the page at {start} has {packed} bytes and would unpack to {unpacked}: more than {PAGE_BYTES_MAX}, and \
             than {PAGE_GROWTH_MAX} times its size"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `PageHeader` of a data page with these bytes, unpacked and packed.
    fn header(unpacked: u32, packed: u32) -> Vec<u8> {
        let number = |value: u32| -> Vec<u8> {
            let mut rest = u64::from(value) << 1;
            let mut bytes = vec![0x15];
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            bytes
        };
        [number(0), number(unpacked), number(packed), vec![0]].concat()
    }

    #[test]
    fn a_page_that_claims_to_unpack_to_far_more_than_it_takes_is_refused() {
        let (mib, check) = (1 << 20, |unpacked, packed| check_page(&header(unpacked, packed), 4));
        assert!(check(mib, 900_000).is_ok());
        // Labels that are all alike, and a page of large images.
        assert!(check(64 * mib, 5_000).is_ok() && check(800 * mib, 700 * mib).is_ok());
        assert!(check(0, 0).is_ok());
        let error = check(1100 * mib, 32_768).unwrap_err().to_string();
        assert!(
            error.contains("the page at 4 has 32768 bytes and would unpack to 1153433600"),
            "{error}"
        );
        assert!(check(64 * mib + 1, 4 * mib - 1).is_err());
    }
}
