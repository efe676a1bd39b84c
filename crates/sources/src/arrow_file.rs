//! Arrow files, read with every length that the file states checked against the file before memory
//! is taken for it. Arrow's own reader of files takes a gigantic length at its word and aborts; its
//! reader of streams does not.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::{
    Block, Endianness,
    convert::try_fb_to_schema,
    reader::{FileDecoder, read_footer_length},
    root_as_footer,
};
use arrow_schema::{ArrowError, SchemaRef};

/// Footer length (4 bytes) and magic (6) end a file.
const TRAILER_BYTES: usize = 10;

/// A file with a footer that says where its batches are.
///
/// Memory: the footer, the dictionaries and one batch, none of them larger than the file.
pub struct ArrowFile {
    file: File,
    n_bytes: u64,
    schema: SchemaRef,
    decoder: FileDecoder,
    blocks: std::vec::IntoIter<Block>,
}

impl ArrowFile {
    /// Reads the footer and the dictionaries.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, in a few words.
    pub fn open(path: &Path) -> Result<ArrowFile, ArrowError> {
        ArrowFile::new(File::open(path)?)
    }

    /// Reads the footer and the dictionaries of an open file.
    ///
    /// # Errors
    ///
    /// As [`ArrowFile::open`].
    pub fn new(mut file: File) -> Result<ArrowFile, ArrowError> {
        let n_bytes = file.metadata()?.len();
        let footer = footer(&mut file, n_bytes)?;
        let footer = root_as_footer(&footer).map_err(|e| wrong(format!("its footer: {e}")))?;
        let schema = footer.schema().ok_or_else(|| wrong("its footer has no schema"))?;
        if schema.endianness() != Endianness::Little {
            return Err(wrong("it is big-endian"));
        }
        let schema = Arc::new(try_fb_to_schema(schema)?);
        let mut decoder = FileDecoder::new(schema.clone(), footer.version());
        for block in footer.dictionaries().into_iter().flatten() {
            decoder.read_dictionary(block, &block_bytes(&mut file, n_bytes, block)?)?;
        }
        let blocks = footer.recordBatches().ok_or_else(|| wrong("its footer lists no batches"))?;
        let blocks: Vec<Block> = blocks.iter().copied().collect();
        Ok(ArrowFile { file, n_bytes, schema, decoder, blocks: blocks.into_iter() })
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for ArrowFile {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let block = self.blocks.next()?;
            let bytes = block_bytes(&mut self.file, self.n_bytes, &block);
            let batch = bytes.and_then(|bytes| self.decoder.read_record_batch(&block, &bytes));
            if let Some(batch) = batch.transpose() {
                return Some(batch);
            }
        }
    }
}

fn footer(file: &mut File, n_bytes: u64) -> Result<Vec<u8>, ArrowError> {
    let end = n_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| wrong("it is cut short"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut trailer)?;
    let length = read_footer_length(trailer)? as u64;
    let start = end.checked_sub(length).ok_or_else(|| wrong("a footer larger than the file"))?;
    let mut footer = vec![0; length as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut footer)?;
    Ok(footer)
}

/// Metadata and body of a batch.
fn block_bytes(file: &mut File, n_bytes: u64, block: &Block) -> Result<Buffer, ArrowError> {
    let outside = || wrong("its footer lists a batch outside the file");
    let start = u64::try_from(block.offset()).map_err(|_| outside())?;
    let metadata = u64::try_from(block.metaDataLength()).map_err(|_| outside())?;
    let body = u64::try_from(block.bodyLength()).map_err(|_| outside())?;
    let length = metadata.checked_add(body).ok_or_else(outside)?;
    start.checked_add(length).filter(|end| *end <= n_bytes).ok_or_else(outside)?;
    let mut bytes = MutableBuffer::from_len_zeroed(length as usize);
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

fn wrong(what: impl Into<String>) -> ArrowError {
    ArrowError::IpcError(what.into())
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, DictionaryArray, types::Int32Type};
    use arrow_ipc::writer::FileWriter;

    use super::*;

    fn batch() -> RecordBatch {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        RecordBatch::try_from_iter([("word", Arc::new(words) as ArrayRef)]).unwrap()
    }

    fn bytes() -> Vec<u8> {
        let mut writer = FileWriter::try_new(Vec::new(), &batch().schema()).unwrap();
        writer.write(&batch()).unwrap();
        writer.write(&batch()).unwrap();
        writer.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.arrow");
        std::fs::write(&path, bytes).unwrap();
        ArrowFile::open(&path)?.collect()
    }

    #[test]
    fn every_batch_comes_with_its_dictionary() {
        assert_eq!(read(&bytes()).unwrap(), [batch(), batch()]);
    }

    #[test]
    fn a_batch_said_to_be_larger_than_the_file_is_an_error_not_an_abort() {
        let mut bytes = bytes();
        let n = bytes.len() - TRAILER_BYTES;
        let length = i32::from_le_bytes(bytes[n..n + 4].try_into().unwrap()) as usize;
        let footer = root_as_footer(&bytes[n - length..n]).unwrap();
        let body = footer.recordBatches().unwrap().get(1).bodyLength().to_le_bytes();
        let offset = footer.recordBatches().unwrap().get(1).offset().to_le_bytes();
        // A block is its offset, the length of its metadata, padding, and the length of its body.
        let at = bytes.windows(8).rposition(|window| window == offset).unwrap() + 16;
        assert_eq!(bytes[at..at + 8], body);
        bytes[at..at + 8].copy_from_slice(&(i64::MAX / 2).to_le_bytes());
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains("outside the file"), "{error}");
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let bytes = bytes();
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).is_err(), "{n} of {}", bytes.len());
        }
    }
}
