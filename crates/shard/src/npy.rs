//! Tables of f32 as NumPy writes them, a row for each row of a data set.

use std::path::Path;

use pfc_mmap::Map;

use crate::ShardError;

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

/// What a table of `rows` times `columns` numbers begins with.
pub(crate) fn table_header(rows: u64, columns: usize) -> Vec<u8> {
    npy_header("<f4", &format!("({rows}, {columns})"))
}

/// A `.npy` of f32, `[rows, columns]`, memory-mapped.
#[derive(Debug)]
pub(crate) struct NpyTable {
    map: Map,
    /// Bytes before the numbers.
    start: usize,
    rows: u64,
    columns: usize,
}

impl NpyTable {
    /// Opens a file that is exactly such a table as this crate writes it; nothing if it is another one.
    pub(crate) fn open(
        path: &Path,
        rows: u64,
        columns: usize,
    ) -> Result<Option<NpyTable>, ShardError> {
        let map = Map::open(path)?;
        let header = table_header(rows, columns);
        let row_bytes = columns as u64 * 4;
        let expected = rows.checked_mul(row_bytes).and_then(|n| n.checked_add(header.len() as u64));
        let is_it = expected == Some(map.len() as u64) && map.starts_with(&header);
        Ok(is_it.then_some(NpyTable { start: header.len(), map, rows, columns }))
    }

    /// All bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The numbers of a row.
    pub(crate) fn row(&self, row: u64) -> Result<impl Iterator<Item = f32> + '_, ShardError> {
        if row >= self.rows {
            return Err(ShardError::NoSuchRow { row, n_rows: self.rows });
        }
        let row_bytes = self.columns * 4;
        // The file has as many bytes as it has rows.
        let bytes = &self.map[self.start + row as usize * row_bytes..][..row_bytes];
        Ok(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)))
    }
}
