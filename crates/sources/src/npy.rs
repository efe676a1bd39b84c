//! The header of NumPy's `.npy`: a magic, a version, a Python dictionary as text.
//!
//! By hand and not by `npyz` 0.9: that takes memory for whatever length a header states, up to 4 GiB, and
//! gives numbers through a reader, where they are used here as they lie in a memory map.

use std::io::{self, Read};

use crate::unread::Unread;

/// Bytes of a header at most; NumPy itself writes 118.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// What a header says.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// What the numbers are, as `<f4`.
    pub descr: String,
    /// Numbers along each side, the slowest first; none for a single number.
    pub shape: Vec<u64>,
    /// Whether numbers of a column follow one another (Fortran's order).
    pub by_column: bool,
    /// Bytes from the beginning to the numbers.
    pub bytes: u64,
}

/// Reads a header, after which `file` stands at the numbers.
///
/// # Errors
///
/// [`Unread`]: what is wrong with the bytes, or a fault of the system.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_version_are_read_up_to_the_numbers() {
        let text = "{'descr': '|b1', 'fortran_order': False, 'shape': (2, 3), }";
        let short = (text.len() as u16).to_le_bytes();
        let long = (text.len() as u32).to_le_bytes();
        for start in [
            [&b"\x93NUMPY\x01\0"[..], &short].concat(),
            [&b"\x93NUMPY\x02\0"[..], &long].concat(),
            [&b"\x93NUMPY\x03\0"[..], &long].concat(),
        ] {
            let bytes = [&start[..], text.as_bytes(), b"numbers"].concat();
            let mut rest = &bytes[..];
            let found = header(&mut rest).unwrap();
            let bytes = (start.len() + text.len()) as u64;
            let (descr, shape) = ("|b1".into(), vec![2, 3]);
            assert_eq!(found, Header { descr, shape, by_column: false, bytes });
            assert_eq!(rest, b"numbers");
        }
        for bad in [&b"no"[..], b"\x93NUMPY\x04\0\0\0", b"\x93NUMPY\x02\0\xff\xff\xff\xff"] {
            assert!(matches!(header(&mut &*bad), Err(Unread::Wrong(_))));
        }
    }
}
