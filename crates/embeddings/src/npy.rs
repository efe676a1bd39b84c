//! Embeddings in NumPy's `.npy`.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
};

use pfc_shard::npy_header;
use pfc_sources::Unread;
pub use pfc_sources::npy::{Header, header};

use crate::layout::{Layout, Number};

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
