//! NumPy's `.npy`: a magic, a version, a Python dictionary as text, the numbers.
//!
//! By hand and not by `npyz` 0.9: that takes memory for whatever length a header states, up to 4 GiB, and
//! gives numbers through a reader, where they are used here as they lie in a memory map.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use pfc_shard::npy_header;
use pfc_sources::Unread;

use crate::layout::{Layout, Number};

/// Bytes of a header at most; NumPy itself writes 118.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// What a header says.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// As `<f4`.
    pub descr: String,
    pub shape: Vec<u64>,
    /// Whether numbers of a column follow one another (Fortran's order).
    pub by_column: bool,
    /// Bytes from the beginning to the numbers.
    pub bytes: u64,
}

/// Where the numbers of a `.npy` lie.
pub fn open(mut file: &File) -> Result<Layout, Unread> {
    let file_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    Ok(layout(&header(&mut file)?)?.check(file_bytes)?)
}

/// The two-dimensional array of floats that a header tells of.
pub fn layout(header: &Header) -> Result<Layout, String> {
    let number = match header.descr.as_str() {
        "<f2" | "=f2" => Number::F16,
        "<f4" | "=f4" => Number::F32,
        "<f8" | "=f8" => Number::F64,
        other => return Err(format!("its numbers are `{other}`, not <f2, <f4 or <f8")),
    };
    let &[rows, dim] = header.shape.as_slice() else {
        return Err(format!("its shape is {:?}, not [rows, numbers]", header.shape));
    };
    // One row or one column lies in the same order either way.
    if header.by_column && rows > 1 && dim > 1 {
        return Err("it is stored by column; numpy.ascontiguousarray turns it round".into());
    }
    let dim = usize::try_from(dim).map_err(|e| e.to_string())?;
    Ok(Layout { start: header.bytes, rows, dim, number })
}

/// Reads a header, after which `file` stands at the numbers.
pub fn header(file: &mut impl Read) -> Result<Header, Unread> {
    let mut start = [0; 10];
    let short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unread::from("its header is cut short"),
        _ => error.into(),
    };
    file.read_exact(&mut start).map_err(short)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err("it does not begin as NumPy's files do".into());
    }
    let (length, before) = match start[6] {
        1 => (usize::from(u16::from_le_bytes([start[8], start[9]])), 10),
        2 | 3 => {
            let mut rest = [0; 2];
            file.read_exact(&mut rest).map_err(short)?;
            (u32::from_le_bytes([start[8], start[9], rest[0], rest[1]]) as usize, 12)
        }
        version => return Err(format!("it is of version {version} of the format").into()),
    };
    if length > HEADER_BYTES_MAX {
        return Err(format!("a header of {length} bytes").into());
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(short)?;
    let text = String::from_utf8(text).map_err(|_| "its header is no text")?;
    Ok(parse(&text, (before + length) as u64)?)
}

fn parse(text: &str, bytes: u64) -> Result<Header, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        let rest = rest.trim_start();
        let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
        Some(rest[..end].trim())
    };
    let missing = |key: &str| format!("its header has no `{key}`");
    let descr = value("descr").ok_or_else(|| missing("descr"))?.trim_matches('\'').to_owned();
    let shape = value("shape").ok_or_else(|| missing("shape"))?;
    let shape = shape.trim_matches(['(', ')']).split(',').map(str::trim).filter(|n| !n.is_empty());
    let shape: Vec<u64> = shape
        .map(|n| n.parse().map_err(|_| format!("its shape has a side `{n}`")))
        .collect::<Result<_, String>>()?;
    let by_column = value("fortran_order") == Some("True");
    Ok(Header { descr, shape, by_column, bytes })
}

/// The header of `rows` times `dim` f32 numbers, as NumPy writes it.
pub fn write_header(rows: u64, dim: usize) -> Vec<u8> {
    npy_header("<f4", &format!("({rows}, {dim})"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(header: &str) -> Vec<u8> {
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Layout, String> {
        layout(&header(&mut &*bytes).map_err(|e| e.to_string())?)
    }

    #[test]
    fn the_header_that_is_written_is_read() {
        let bytes = write_header(7, 3);
        let header = header(&mut bytes.as_slice()).unwrap();
        assert_eq!((header.shape.as_slice(), header.bytes % 64), (&[7, 3][..], 0));
        assert_eq!(layout(&header).unwrap().number, Number::F32);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let check = |text: &str, expected: &str| {
            let error = read(&npy(text)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("{'descr': '<i4', 'shape': (1, 1), }", "`<i4`");
        check("{'descr': '<f4', 'shape': (5,), }", "[5]");
        check("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "column");
        check("{'descr': '<f4'}", "`shape`");
        assert!(header(&mut &b"PK"[..]).is_err());
        let huge = Layout { start: 0, rows: u64::MAX, dim: 512, number: Number::F32 };
        assert!(huge.check(100).is_err());
    }

    #[test]
    fn a_single_column_is_read_in_either_order() {
        let text = "{'descr': '=f4', 'fortran_order': True, 'shape': (5, 1), }";
        let header = header(&mut npy(text).as_slice()).unwrap();
        assert_eq!(layout(&header).unwrap().rows, 5);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_layout_or_a_reason(bytes: Vec<u8>, text in "[ -~]{0,90}") {
            for file in [bytes, npy(&text)] {
                let found = read(&file);
                let _ = found.and_then(|layout| layout.check(file.len() as u64));
            }
        }
    }
}
