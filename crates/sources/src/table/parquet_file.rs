//! A Parquet file, read with every length that it states checked against the file first.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::{
    basic::Compression,
    errors::{ParquetError, Result},
    file::{
        metadata::ColumnChunkMetaData,
        reader::{ChunkReader, Length},
    },
};

use super::thrift::{self, FALSE, I32, STRUCT, i32_of, struct_bytes};

/// Length of the footer (4 bytes) and magic (4) end a file.
const TRAILER_BYTES: u64 = 8;

/// Bytes that a page may unpack to, whatever it is packed in. Writers make pages of about 1 MiB.
const PAGE_BYTES_MAX: i64 = 64 << 20;
/// How many times its size in the file a larger page may unpack to. Images hardly shrink at all; a page of nothing
/// but zeros shrinks by 10,000 and more.
const PAGE_GROWTH_MAX: i64 = 16;

/// Bytes that a page may unpack to that was not met when all pages were looked at: files of old writers say too little
/// of where their columns end.
const PAGE_BYTES_UNSEEN: i64 = 2 << 20;
/// How many times its size a page in LZ4's frames may unpack to.
const LZ4_EXPANSION_MAX: i64 = 255;

/// What Parquet's reader reads pages from.
pub struct ParquetFile {
    file: File,
    n_bytes: u64,
    /// Bytes that any page may unpack to.
    page_bytes_max: i64,
    /// Whether a page is packed so that the reader takes as much memory as comes out of it, whatever is said of it.
    is_counted: bool,
    /// Pages whose headers were read, by the places of their bytes.
    pages: Mutex<HashMap<u64, PageSize>>,
}

/// What a page's header says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageSize {
    /// Bytes, unpacked.
    unpacked: i64,
    /// Bytes as it is in the file.
    packed: i64,
    /// Bytes before those that are packed; all of them where nothing is.
    bare: usize,
}

impl ParquetFile {
    /// Looks at no more than the length of `file`.
    ///
    /// # Errors
    ///
    /// That of the system.
    pub fn new(file: File) -> io::Result<ParquetFile> {
        let n_bytes = file.metadata()?.len();
        Ok(ParquetFile {
            file,
            n_bytes,
            page_bytes_max: i64::MAX,
            is_counted: false,
            pages: Mutex::default(),
        })
    }

    /// Looks at the headers of all pages of `chunks`, which are those that will be read, and returns the bytes that the
    /// largest of them unpacks to. From then on larger ones are errors.
    ///
    /// A value of a page may be in many rows, each of which has it in full, and is no larger than the page.
    pub fn look_at_pages<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
    ) -> i64 {
        let mut largest = 0;
        for chunk in chunks {
            self.is_counted |=
                matches!(chunk.compression(), Compression::GZIP(_) | Compression::LZ4);
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let (start, n_bytes) = (u64::try_from(start), u64::try_from(chunk.compressed_size()));
            let (Ok(mut at), Ok(n_bytes)) = (start, n_bytes) else { continue };
            let end = at.saturating_add(n_bytes).min(self.n_bytes);
            while at < end {
                // What is wrong with a header is said when it is read.
                let header = self.at(at).and_then(|input| struct_bytes(input, end - at));
                let Some((header, size)) =
                    header.ok().and_then(|h| Some((h.len(), page_size(&h)?)))
                else {
                    break;
                };
                largest = largest.max(size.unpacked);
                at = at.saturating_add(header as u64).saturating_add(size.packed.max(0) as u64);
            }
        }
        self.page_bytes_max = largest.max(PAGE_BYTES_UNSEEN);
        largest
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
        let size = check_page(&header, start, self.page_bytes_max)?;
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(start + header.len() as u64, size);
        Ok(Cursor::new(header))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length as u64 > self.left_from(start)? {
            let end = format!("{start} + {length} of {} bytes", self.n_bytes);
            return Err(ParquetError::EOF(format!("it lists a page at {end}")));
        }
        let bytes = self.file.get_bytes(start, length)?;
        let page = self.pages.lock().unwrap_or_else(PoisonError::into_inner).remove(&start);
        if self.is_counted {
            let page = page.ok_or_else(|| {
                ParquetError::General(format!("the page at {start} was not described"))
            })?;
            check_packed(bytes.get(page.bare..).unwrap_or_default(), page, start)?;
        }
        Ok(bytes)
    }
}

/// The sizes in a `PageHeader`; nothing unless each of its fields holds what it is meant to: a reader that goes by the
/// numbers of fields would read others than one that goes by their kinds.
fn page_size(header: &[u8]) -> Option<PageSize> {
    /// Type, size unpacked, size as it is in the file, and checksum.
    const INTEGERS: i64 = 4;
    /// Header of a data page, of an index, of a dictionary, and of a data page of version 2.
    const STRUCTS: [(i64, i64); 4] = [(5, 4), (6, 0), (7, 2), (8, 6)];
    let fields = thrift::fields(header).ok()?;
    let mut bare = 0;
    for field in &fields {
        let inner = STRUCTS.iter().find(|(number, _)| *number == field.number);
        match inner {
            None if (1..=INTEGERS).contains(&field.number) && field.kind != I32 => return None,
            None => {}
            Some(_) if field.kind != STRUCT => return None,
            Some(&(number, n_integers)) => {
                let inner = thrift::fields(&header[field.start..]).ok()?;
                let is_integer = |n: i64| (1..=n_integers).contains(&n);
                if inner.iter().any(|f| is_integer(f.number) && f.kind != I32) {
                    return None;
                }
                if number == 8 {
                    // What says which values are missing is not packed with them.
                    let lengths = [5, 6].map(|number| i32_of(&inner, number));
                    let length = |n: Option<i32>| usize::try_from(n?).ok();
                    let is_bare = inner.iter().any(|f| f.number == 7 && f.kind == FALSE);
                    let levels = length(lengths[0])?.checked_add(length(lengths[1])?)?;
                    bare = if is_bare { usize::MAX } else { levels };
                }
            }
        }
    }
    let (unpacked, packed) = (i32_of(&fields, 2)?, i32_of(&fields, 3)?);
    Some(PageSize { unpacked: unpacked.into(), packed: packed.into(), bare })
}

/// Refuses a page that claims to unpack to far more than it takes in the file: the reader takes that much memory before
/// it unpacks anything.
///
/// * `start`: where its header lies, for the error
/// * `bytes_max`: what the largest page unpacks to by the headers that were looked at
fn check_page(header: &[u8], start: u64, bytes_max: i64) -> Result<PageSize> {
    let wrong = |what: String| Err(ParquetError::General(format!("the page at {start} {what}")));
    let Some(size) = page_size(header) else {
        return wrong("does not say how large it is".to_owned());
    };
    let PageSize { unpacked, packed, .. } = size;
    if unpacked > PAGE_BYTES_MAX.max(packed.saturating_mul(PAGE_GROWTH_MAX)) {
        return wrong(format!(
            "has {packed} bytes and would unpack to {unpacked}: more than {PAGE_BYTES_MAX}, and than \
             {PAGE_GROWTH_MAX} times its size"
        ));
    }
    if unpacked > bytes_max {
        return wrong(format!("would unpack to {unpacked} bytes, and lies in none of its columns"));
    }
    Ok(size)
}

/// Refuses a page in gzip or LZ4 out of which more comes than its header says: of these two the reader takes all that
/// comes, and compares afterwards.
///
/// * `packed`: what of the page is packed
fn check_packed(packed: &[u8], page: PageSize, start: u64) -> Result<()> {
    let stated = u64::try_from(page.unpacked).unwrap_or(0);
    let is_right = match packed {
        [0x1f, 0x8b, ..] => {
            let mut unpacked = MultiGzDecoder::new(packed).take(stated + 1);
            // Where it is damaged the reader stops as well, and says so.
            io::copy(&mut unpacked, &mut io::sink()).map_or(true, |n| n <= stated)
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            let most = (packed.len() as i64).saturating_mul(LZ4_EXPANSION_MAX);
            most <= page.unpacked.max(PAGE_BYTES_MAX)
        }
        _ => true,
    };
    match is_right {
        true => Ok(()),
        false => Err(ParquetError::General(format!(
            "out of the page at {start} comes more than the {stated} bytes that its header says, or may come"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
    use parquet::{
        arrow::ArrowWriter,
        basic::ZstdLevel,
        file::{
            properties::WriterProperties,
            reader::{FileReader, SerializedFileReader},
        },
    };

    use super::*;

    #[test]
    fn a_value_that_rows_have_in_common_is_met_before_any_row_is_read() {
        // Forty rows of one value, which is kept once: a page of it, and one of forty numbers.
        let value = vec![7; 300_000];
        let image: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&value[..]; 40]));
        let batch = RecordBatch::try_from_iter([("image", image)]).unwrap();
        let file = tempfile::tempfile().unwrap();
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        let copy = file.try_clone().unwrap();
        let mut writer = ArrowWriter::try_new(copy, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let reader = SerializedFileReader::new(file.try_clone().unwrap()).unwrap();
        let mut pages = ParquetFile::new(file).unwrap();
        assert!(pages.n_bytes() < 10_000);
        let largest = pages.look_at_pages(reader.metadata().row_group(0).columns().iter());
        assert_eq!(largest, 300_004);
    }

    fn number(field: u8, value: u32) -> Vec<u8> {
        let mut rest = u64::from(value) << 1;
        let mut bytes = vec![field];
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }

    /// A `PageHeader` of a data page with these bytes, unpacked and packed.
    fn header(unpacked: u32, packed: u32) -> Vec<u8> {
        [number(0x15, 0), number(0x15, unpacked), number(0x15, packed), vec![0]].concat()
    }

    #[test]
    fn a_page_that_claims_to_unpack_to_far_more_than_it_takes_is_refused() {
        let (mib, most) = (1 << 20, i64::MAX);
        let check = |unpacked, packed| check_page(&header(unpacked, packed), 4, most);
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
        assert!(check_page(&header(9000, 9000), 4, 8999).is_err());
    }

    #[test]
    fn a_header_that_hides_its_sizes_is_refused() {
        let hidden = number(0x15, 1100 << 20);
        // Behind a text; the last of two; as a field of another kind; and beyond 32 bits.
        let text = [0x95, 2, 0x08, 200, 1, 1, b'a', 0x05, 4];
        for header in [
            [&text[..], &hidden[1..], &[0x05, 6, 2, 0]].concat(),
            [&header(5, 5)[..6], &[0x05, 4], &hidden[1..], &[0]].concat(),
            [&[0x15, 0, 0x13, 7, 0x15, 7][..], &[0]].concat(),
            [&[0x15, 0][..], &[0x15, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x15, 7, 0]].concat(),
            vec![0],
        ] {
            assert!(check_page(&header, 4, i64::MAX).is_err(), "{header:?}");
        }
    }

    #[test]
    fn what_lies_bare_before_a_page_of_version_2_is_told() {
        let two = [number(0x15, 3), number(0x15, 0), number(0x15, 3), number(0x15, 0)].concat();
        let two = [two, number(0x15, 7), number(0x15, 2), vec![0x11, 0]].concat();
        let plain = header(900, 300);
        let bare = |two: &[u8]| {
            let header = [&plain[..plain.len() - 1], &[0x5c], two, &[0]].concat();
            let size = page_size(&header).unwrap();
            assert_eq!((size.unpacked, size.packed), (900, 300));
            size.bare
        };
        assert_eq!(bare(&two), 9);
        let is_packed = two.len() - 2;
        assert_eq!(
            (two[is_packed], bare(&[&two[..is_packed], &[0x12, 0]].concat())),
            (0x11, usize::MAX)
        );
    }

    #[test]
    fn a_page_out_of_which_more_comes_than_it_says_is_refused() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[0; 5000]).unwrap();
        let gzip = gzip.finish().unwrap();
        let check = |packed: &[u8], unpacked| {
            let page = PageSize { unpacked, packed: packed.len() as i64, bare: 0 };
            check_packed(packed, page, 4).is_ok()
        };
        assert!(check(&gzip, 5000) && !check(&gzip, 4999) && !check(&gzip.repeat(2), 5000));
        let zeros = vec![0; 1 << 19];
        let lz4 = [&[0x04, 0x22, 0x4d, 0x18][..], &zeros].concat();
        assert!(check(&lz4[..200], 100) && !check(&lz4, 100) && check(&zeros, 100));
    }
}
