//! Arrow IPC files read without trust.
//!
//! The Arrow library validates what it decodes, but it slices the file by the lengths and offsets
//! that the file states, and a slice out of bounds panics. So all of them are checked here first.

use std::{collections::HashMap, path::Path};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::{
    Block, Endianness, FieldNode, Footer, MessageHeader, MetadataVersion,
    convert::try_fb_to_schema, reader::FileDecoder, root_as_footer, root_as_message,
};
use arrow_schema::{DataType, Schema, SchemaRef};

use crate::{
    ShardError,
    format::FORMAT,
    schema::{FORMAT_KEY, describe, same_columns},
};

const MAGIC: &[u8; 6] = b"ARROW1";

/// Marks the start of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Buffers start at multiples of this; ours at multiples of 64.
const ALIGNMENT: usize = 8;

/// Footer length (4 bytes) and magic (6) end the file.
const TRAILER_BYTES: usize = 10;

/// Continuation marker and length precede the metadata of a message.
const PREFIX_BYTES: usize = 8;

/// Decodes every record batch of an IPC file, its buffers still those of `file`.
///
/// Every offset, length and UTF-8 string is checked; no buffer is copied, so a file that is not
/// aligned as ours are is an error.
pub(crate) fn read_batches(
    path: &Path,
    file: &Buffer,
    expected: &SchemaRef,
) -> Result<Vec<RecordBatch>, ShardError> {
    let bad = |what: String| ShardError::Malformed { path: path.to_path_buf(), what };
    let (footer_start, footer) = footer_bytes(file).map_err(bad)?;
    let footer = root_as_footer(&footer).map_err(|e| bad(format!("its footer: {e}")))?;
    check_schema(path, &footer, expected)?;
    let blocks = record_blocks(&footer, footer_start).map_err(bad)?;

    let decoder = FileDecoder::new(expected.clone(), footer.version()).with_require_alignment(true);
    let decode = |(i, (block, start, bytes)): (usize, (Block, usize, usize))| {
        let data = file.slice_with_length(start, bytes);
        check_message(&block, &data, expected).map_err(|e| format!("record batch {i}: {e}"))?;
        let batch = decoder.read_record_batch(&block, &data).map_err(|e| e.to_string())?;
        batch.ok_or_else(|| format!("record batch {i} is empty"))
    };
    blocks.into_iter().enumerate().map(decode).collect::<Result<_, _>>().map_err(bad)
}

/// The metadata of the file's schema.
pub(crate) fn metadata(file: &[u8]) -> Result<HashMap<String, String>, String> {
    let (_, footer) = footer_bytes(file)?;
    let footer = root_as_footer(&footer).map_err(|e| format!("its footer: {e}"))?;
    let schema = footer.schema().ok_or("its footer has no schema")?;
    let schema = try_fb_to_schema(schema).map_err(|e| e.to_string())?;
    Ok(schema.metadata().clone().into())
}

/// Where the footer starts, and a copy of it: a flatbuffer must start at an aligned address.
fn footer_bytes(file: &[u8]) -> Result<(usize, Vec<u8>), String> {
    let body_end = file.len().checked_sub(TRAILER_BYTES).filter(|&end| end >= PREFIX_BYTES);
    let body_end = body_end.ok_or_else(|| format!("{} bytes are too few", file.len()))?;
    if !file.starts_with(MAGIC) {
        return Err("it does not begin with `ARROW1`".into());
    }
    if !file.ends_with(MAGIC) {
        return Err("it does not end with `ARROW1`, so its end is missing".into());
    }
    let (body, trailer) = file.split_at(body_end);
    let (length, _) = trailer.split_first_chunk::<4>().expect("the trailer has 10 bytes");
    let length = i32::from_le_bytes(*length);
    let start = usize::try_from(length).ok().and_then(|n| body_end.checked_sub(n));
    let start = start.filter(|&s| s >= PREFIX_BYTES && s < body_end);
    let start = start.ok_or_else(|| format!("a footer of {length} bytes"))?;
    Ok((start, body[start..].to_vec()))
}

fn check_schema(path: &Path, footer: &Footer<'_>, expected: &Schema) -> Result<(), ShardError> {
    let path = path.to_path_buf();
    let malformed = |what: &str| ShardError::Malformed { path: path.clone(), what: what.into() };
    let schema = footer.schema().ok_or_else(|| malformed("its footer has no schema"))?;
    if schema.endianness() != Endianness::Little {
        return Err(malformed("it is big-endian"));
    }
    let found = try_fb_to_schema(schema).map_err(|e| malformed(&e.to_string()))?;
    let format = found.metadata().get(FORMAT_KEY).map(String::as_str);
    let same = same_columns(&found, expected);
    match format {
        Some(format) if format != FORMAT.to_string() => {
            let found = format.chars().take(32).collect();
            Err(ShardError::UnsupportedFormat { path, found })
        }
        None if same => Err(ShardError::UnsupportedFormat { path, found: "unknown".into() }),
        _ if !same => {
            let (found, expected) = (describe(&found), describe(expected));
            Err(ShardError::Schema { path, found, expected })
        }
        _ => Ok(()),
    }
}

/// Every record batch with its start and length, after checking that they follow one another
/// without a gap and end, with the end-of-stream mark, at the footer.
fn record_blocks(
    footer: &Footer<'_>,
    footer_start: usize,
) -> Result<Vec<(Block, usize, usize)>, String> {
    if footer.version() != MetadataVersion::V5 {
        return Err(format!("metadata of version {:?}, expected V5", footer.version()));
    }
    if footer.dictionaries().is_some_and(|d| !d.is_empty()) {
        return Err("it has dictionaries".into());
    }
    let blocks = footer.recordBatches().ok_or("its footer lists no record batches")?;
    let mut found = Vec::with_capacity(blocks.len());
    let mut end = None;
    for (i, block) in blocks.iter().enumerate() {
        let bad = || format!("record batch {i} does not follow what is before it");
        let start = usize::try_from(block.offset()).map_err(|_| bad())?;
        let metadata = usize::try_from(block.metaDataLength()).map_err(|_| bad())?;
        let body = usize::try_from(block.bodyLength()).map_err(|_| bad())?;
        let bytes = metadata.checked_add(body).ok_or_else(bad)?;
        let next = start.checked_add(bytes).filter(|&n| n <= footer_start).ok_or_else(bad)?;
        if end.is_some_and(|end| end != start) || start % ALIGNMENT != 0 || metadata < PREFIX_BYTES
        {
            return Err(bad());
        }
        end = Some(next);
        found.push((*block, start, bytes));
    }
    if end.is_some_and(|end| end.checked_add(PREFIX_BYTES) != Some(footer_start)) {
        return Err("there are bytes between the last record batch and the footer".into());
    }
    Ok(found)
}

/// Checks everything that the decoder would take on trust: `data` is metadata and body.
fn check_message(block: &Block, data: &[u8], expected: &Schema) -> Result<(), String> {
    let metadata_bytes = usize::try_from(block.metaDataLength()).map_err(|e| e.to_string())?;
    let (metadata, body) = data.split_at_checked(metadata_bytes).ok_or("it is cut short")?;
    let (prefix, metadata) = metadata.split_at_checked(PREFIX_BYTES).ok_or("it is cut short")?;
    let length = i32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    if prefix[..4] != CONTINUATION || usize::try_from(length) != Ok(metadata.len()) {
        return Err("it does not begin with its own length".into());
    }
    let message = root_as_message(metadata).map_err(|e| e.to_string())?;
    if message.version() != MetadataVersion::V5 || message.bodyLength() != block.bodyLength() {
        return Err("its header and the footer disagree".into());
    }
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        _ => None,
    };
    let batch = batch.ok_or("it is a message of another kind")?;
    if batch.compression().is_some() {
        return Err("it is compressed".into());
    }

    let mut parts = Parts {
        nodes: batch.nodes().ok_or("it has no columns")?.iter(),
        buffers: batch.buffers().ok_or("it has no buffers")?.iter(),
        body_bytes: body.len(),
    };
    for field in expected.fields() {
        let wrong = || format!("column `{}` does not fit its rows or its bytes", field.name());
        parts.column(field.data_type(), Some(batch.length())).ok_or_else(wrong)?;
    }
    match (parts.nodes.next(), parts.buffers.next()) {
        (None, None) => Ok(()),
        _ => Err("it has more columns than its schema".into()),
    }
}

/// Lengths, and offsets into the body, that a record batch states for its columns, in order.
struct Parts<N, B> {
    nodes: N,
    buffers: B,
    body_bytes: usize,
}

impl<'a, N, B> Parts<N, B>
where
    N: Iterator<Item = &'a FieldNode>,
    B: Iterator<Item = &'a arrow_ipc::Buffer>,
{
    /// Checks the lengths of the next column, which has `rows` values if that is known; `None` if
    /// one is wrong. What offsets and strings hold is left to the decoder.
    fn column(&mut self, kind: &DataType, rows: Option<i64>) -> Option<()> {
        let node = self.nodes.next()?;
        if node.null_count() != 0 || rows.is_some_and(|rows| rows != node.length()) {
            return None;
        }
        let rows = usize::try_from(node.length()).ok()?;
        let offsets_bytes = || rows.checked_add(1)?.checked_mul(size_of::<i32>());
        let _validity = self.buffer()?;
        match kind {
            DataType::Binary | DataType::Utf8 => {
                (self.buffer()? == offsets_bytes()?).then_some(())?;
                self.buffer().map(|_| ())
            }
            DataType::List(item) => {
                (self.buffer()? == offsets_bytes()?).then_some(())?;
                self.column(item.data_type(), None)
            }
            fixed => (self.buffer()? == rows.checked_mul(fixed_width(fixed)?)?).then_some(()),
        }
    }

    /// Length of the next buffer, if it lies within the body and is aligned.
    fn buffer(&mut self) -> Option<usize> {
        let buffer = self.buffers.next()?;
        let offset = usize::try_from(buffer.offset()).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        let is_inside = offset.checked_add(length)? <= self.body_bytes;
        (is_inside && offset % ALIGNMENT == 0).then_some(length)
    }
}

fn fixed_width(kind: &DataType) -> Option<usize> {
    match kind {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        kind => kind.primitive_width(),
    }
}
