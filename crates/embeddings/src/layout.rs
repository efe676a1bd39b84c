//! Where the numbers lie in a file.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Bytes of a header at most.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    pub fn bytes(self) -> u64 {
        match self {
            Number::F16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }
}

/// `rows` times `dim` little-endian numbers from `start` on, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub start: u64,
    pub rows: u64,
    pub dim: usize,
    pub number: Number,
}

impl Layout {
    /// Checks that the numbers lie within `file_bytes`.
    pub fn check(self, file_bytes: u64) -> Result<Layout, String> {
        if self.dim == 0 || self.dim > super::DIM_MAX {
            return Err(format!("rows of {} numbers; 1 to {} are read", self.dim, super::DIM_MAX));
        }
        let bytes = self.rows.checked_mul(self.dim as u64);
        let bytes = bytes.and_then(|n| n.checked_mul(self.number.bytes()));
        let end = bytes.and_then(|n| n.checked_add(self.start));
        match end {
            Some(end) if end <= file_bytes => Ok(self),
            _ => Err(format!(
                "{} rows of {} numbers do not fit into its {file_bytes} bytes",
                self.rows, self.dim
            )),
        }
    }
}

/// The one two-dimensional array of floats of a safetensors file, or the one called `embeddings`.
pub fn safetensors(mut file: &File) -> Result<Layout, String> {
    let io = |e: std::io::Error| e.to_string();
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut length)).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX || length > file_bytes {
        return Err(format!("a header of {length} bytes"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| format!("its header: {e}"))?;
    let array = |tensor: &serde_json::Value| {
        let number = match tensor["dtype"].as_str()? {
            "F16" => Number::F16,
            "F32" => Number::F32,
            "F64" => Number::F64,
            _ => return None,
        };
        let [rows, dim] = tensor["shape"].as_array()?.as_slice() else { return None };
        let start = tensor["data_offsets"][0].as_u64()?.checked_add(8 + length)?;
        let dim = usize::try_from(dim.as_u64()?).ok()?;
        Some(Layout { start, rows: rows.as_u64()?, dim, number })
    };
    let arrays: Vec<(&String, Layout)> =
        header.iter().filter_map(|(name, tensor)| Some((name, array(tensor)?))).collect();
    let named = arrays.iter().find(|(name, _)| *name == "embeddings");
    match (named, arrays.as_slice()) {
        (Some((_, layout)), _) | (None, [(_, layout)]) => layout.check(file_bytes),
        (None, []) => Err("it holds no two-dimensional array of floats".into()),
        (None, _) => Err("it holds several arrays, and none is called `embeddings`".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::embeddings::Embeddings;

    fn safetensors(header: &str, numbers: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), numbers].concat()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn halves_of_safetensors_are_read() {
        let header = r#"{"__metadata__":{"of":"a test"},
            "x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
            "e":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]}}"#;
        // 3, 4 and -0.5, 0 as binary16.
        let numbers = [[0; 8], [0x00, 0x42, 0x00, 0x44, 0x00, 0xb8, 0x00, 0x00]].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.safetensors");
        std::fs::write(&path, safetensors(header, &numbers)).unwrap();
        let embeddings = Embeddings::open(&path).unwrap().in_order();
        assert_eq!((embeddings.len(), embeddings.dim()), (2, 2));
        // At length 1.
        assert_eq!(embeddings.rows(&[1, 0]).unwrap(), [-1.0, 0.0, 0.6, 0.8]);
    }

    #[test]
    fn of_several_arrays_the_one_called_embeddings_is_read() {
        let array = |name: &str, start: u64| {
            format!(
                r#""{name}":{{"dtype":"F64","shape":[1,1],"data_offsets":[{start},{}]}}"#,
                start + 8
            )
        };
        let numbers = [0; 16];
        let both = |second: &str| format!("{{{},{}}}", array("a", 0), array(second, 8));
        let header = both("embeddings");
        let found = super::safetensors(&file(&safetensors(&header, &numbers))).unwrap();
        let start = 8 + header.len() as u64 + 8;
        assert_eq!(found, Layout { start, rows: 1, dim: 1, number: Number::F64 });
        let check = |bytes: &[u8], expected: &str| {
            let error = super::safetensors(&file(bytes)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&safetensors(&both("b"), &numbers), "none is called `embeddings`");
        check(&safetensors("{}", &[]), "no two-dimensional array");
        check(&safetensors(&both("embeddings"), &numbers[..8]), "do not fit into its");
        check(&u64::MAX.to_le_bytes(), "a header of");
        check(&safetensors("{", &[]), "its header");
    }
}
