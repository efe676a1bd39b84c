//! Which record is where: the lines of an `.idx` file, or what a scan found.

use std::path::Path;

use crate::{RecordError, error::excerpt};

/// More records than this cannot be told apart by a u32 position.
const RECORDS_MAX: u64 = u32::MAX as u64;

/// A record's key and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The key; unique in a file.
    pub key: u64,
    /// Where the record begins in the `.rec` file.
    pub offset: u64,
}

/// All records of a file, in the order of the index, and by key.
///
/// 16 bytes per record, and 4 more where the keys do not ascend: 17.5 million records take 280 or
/// 350 MB.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<IndexEntry>,
    /// Positions in `entries` by ascending key; `None` where the entries ascend themselves.
    by_key: Option<Vec<u32>>,
}

impl Index {
    /// Reads the lines of an `.idx` file for a `.rec` file of `rec_bytes`.
    ///
    /// Empty lines are skipped, and any blanks may stand between key and offset.
    pub(crate) fn parse(path: &Path, text: &[u8], rec_bytes: u64) -> Result<Index, RecordError> {
        let mut entries = Vec::new();
        for (line, text) in lines(text) {
            let path = || path.to_path_buf();
            let Some(IndexEntry { key, offset }) = entry(text) else {
                return Err(RecordError::IndexSyntax { path: path(), line, found: excerpt(text) });
            };
            if offset >= rec_bytes {
                let size = rec_bytes;
                return Err(RecordError::IndexOffset { path: path(), line, key, offset, size });
            }
            if entries.len() as u64 == RECORDS_MAX {
                return Err(RecordError::TooManyRecords { path: path(), max: RECORDS_MAX });
            }
            entries.push(IndexEntry { key, offset });
        }
        entries.shrink_to_fit();
        match order(&entries) {
            Ok(by_key) => Ok(Index { entries, by_key }),
            Err([first, second]) => {
                let line_of = |at: usize| lines(text).nth(at).map_or(0, |(line, _)| line);
                let (line, first_line) = (line_of(second), line_of(first));
                let (path, key) = (path.to_path_buf(), entries[second].key);
                Err(RecordError::DuplicateKey { path, line, key, first_line })
            }
        }
    }

    /// Takes what a scan of `path` found, and whether the keys are the ones it found: where two
    /// records have one key, all are numbered anew by position.
    pub(crate) fn scanned(
        path: &Path,
        mut entries: Vec<IndexEntry>,
    ) -> Result<(Index, bool), RecordError> {
        if entries.len() as u64 > RECORDS_MAX {
            let path = path.to_path_buf();
            return Err(RecordError::TooManyRecords { path, max: RECORDS_MAX });
        }
        entries.shrink_to_fit();
        if let Ok(by_key) = order(&entries) {
            return Ok((Index { entries, by_key }, true));
        }
        (0..).zip(&mut entries).for_each(|(position, entry)| entry.key = position);
        Ok((Index { entries, by_key: None }, false))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry at a position of the index.
    pub(crate) fn get(&self, position: usize) -> Option<IndexEntry> {
        self.entries.get(position).copied()
    }

    /// The entry at a rank in the order of keys.
    pub(crate) fn by_rank(&self, rank: usize) -> Option<IndexEntry> {
        match &self.by_key {
            None => self.get(rank),
            Some(by_key) => by_key.get(rank).and_then(|position| self.get(*position as usize)),
        }
    }

    /// How many keys are below `key`: its own rank if it is there. O(log n).
    pub(crate) fn rank(&self, key: u64) -> usize {
        match &self.by_key {
            None => self.entries.partition_point(|entry| entry.key < key),
            Some(by_key) => by_key.partition_point(|at| self.entries[*at as usize].key < key),
        }
    }

    pub(crate) fn find(&self, key: u64) -> Option<IndexEntry> {
        self.by_rank(self.rank(key)).filter(|entry| entry.key == key)
    }

    pub(crate) fn last_key(&self) -> Option<u64> {
        self.by_rank(self.len().checked_sub(1)?).map(|entry| entry.key)
    }

    /// The entry that begins last in the file.
    pub(crate) fn last_in_file(&self) -> Option<IndexEntry> {
        self.entries.iter().copied().max_by_key(|entry| entry.offset)
    }
}

/// The positions by ascending key, `None` if that is how they are; or the first two of one key.
fn order(entries: &[IndexEntry]) -> Result<Option<Vec<u32>>, [usize; 2]> {
    if entries.is_sorted_by(|a, b| a.key < b.key) {
        return Ok(None);
    }
    let key = |position: &u32| entries[*position as usize].key;
    let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
    // Stable: equal keys stay in order, and the usual index, a few runs that ascend, sorts fast.
    by_key.sort_by_key(key);
    match by_key.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
        Some(pair) => Err([pair[0] as usize, pair[1] as usize]),
        None => Ok(Some(by_key)),
    }
}

/// The lines that hold something, numbered from 1 as an editor does.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

/// `key<TAB>offset`, both decimal.
fn entry(line: &[u8]) -> Option<IndexEntry> {
    let blank = line.iter().position(u8::is_ascii_whitespace)?;
    let (key, offset) = line.split_at(blank);
    Some(IndexEntry { key: decimal(key)?, offset: decimal(offset.trim_ascii_start())? })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Index, RecordError> {
        Index::parse(Path::new("a.idx"), text.as_bytes(), 100)
    }

    #[track_caller]
    fn refuses(text: &str, message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    #[test]
    fn records_keep_the_order_of_the_lines_and_are_found_by_key() {
        let index = parse("7\t0\n3\t8\n5\t16\n").unwrap();
        assert_eq!(index.len(), 3);
        assert_eq!(index.get(0), Some(IndexEntry { key: 7, offset: 0 }));
        assert_eq!(index.by_rank(0), Some(IndexEntry { key: 3, offset: 8 }));
        assert_eq!(index.find(5), Some(IndexEntry { key: 5, offset: 16 }));
        assert_eq!((index.find(4), index.find(8)), (None, None));
        assert_eq!((index.rank(0), index.rank(4), index.rank(8)), (0, 1, 3));
    }

    #[test]
    fn line_ends_of_windows_other_blanks_and_a_missing_last_end_are_taken() {
        let index = parse("0\t0\r\n\r\n1  8\r\n2\t16").unwrap();
        assert_eq!(index.get(2), Some(IndexEntry { key: 2, offset: 16 }));
    }

    #[test]
    fn an_empty_index_has_no_records() {
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn a_line_that_is_no_key_and_offset_is_named() {
        for bad in ["x\t8", "1", "1\t", "\u{7f}", "1\t8\t9", "-1\t8", "1.0\t8", "1\t0x8"] {
            let error = parse(&format!("0\t0\n\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("a.idx: line 3: expected `key<TAB>offset`"), "{error}");
        }
        refuses(
            "1\t18446744073709551616",
            "a.idx: line 1: expected `key<TAB>offset`, found `1\\t18446744073709551616`",
        );
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let error = parse(&"é".repeat(5000)).unwrap_err().to_string();
        assert!(error.chars().count() < 120, "{error}");
    }

    #[test]
    fn an_offset_outside_the_file_names_line_key_and_size() {
        refuses(
            "0\t0\n9\t100\n",
            "a.idx: line 2: record 9 is listed at byte 100, but the file has 100",
        );
    }

    #[test]
    fn a_key_that_occurs_twice_names_both_lines() {
        refuses("5\t0\n\n1\t8\n5\t16\n", "a.idx: line 4: key 5 was on line 1 already");
    }

    #[test]
    fn scanned_records_of_one_id_are_numbered_by_position() {
        let entries = |keys: [u64; 3]| keys.map(|key| IndexEntry { key, offset: 8 * key }).to_vec();
        let (index, by_id) = Index::scanned(Path::new("a.rec"), entries([2, 0, 1])).unwrap();
        assert!(by_id && index.find(2) == Some(IndexEntry { key: 2, offset: 16 }));
        let (index, by_id) = Index::scanned(Path::new("a.rec"), entries([2, 0, 2])).unwrap();
        assert!(!by_id && index.find(2) == Some(IndexEntry { key: 2, offset: 16 }));
        assert_eq!(index.find(0), Some(IndexEntry { key: 0, offset: 16 }));
    }
}
