//! Files of named tensors: safetensors, written in one pass and read with nothing trusted.
//!
//! The same files hold a backbone, an optimizer's state or class centres. Neither reading nor writing
//! needs memory beyond the tensors themselves.

mod columns;
mod reader;
mod writer;

pub use columns::ColumnWriter;
pub use reader::TensorFile;
pub use writer::{TensorSpec, TensorWriter};

use std::path::Path;

use safetensors::Dtype;
use tch::{Kind, Tensor};

use crate::ModelError;

/// Size and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSum {
    /// In bytes.
    pub size: u64,
    /// XXH3-128 of all of it.
    pub xxh3: u128,
}

/// Writes `tensors` to `path`, which appears only once complete.
///
/// Wider kinds come first in the file, otherwise the order is kept. Tensors of another device are
/// copied one at a time.
///
/// # Errors
///
/// [`ModelError::TensorFile`] for a kind that the format lacks or a name that occurs twice,
/// [`ModelError::Durable`] if the file cannot be written.
pub fn write<K: AsRef<str>>(path: &Path, tensors: &[(K, Tensor)]) -> Result<FileSum, ModelError> {
    let mut order: Vec<&(K, Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
    let specs: Vec<TensorSpec> =
        order.iter().map(|(name, tensor)| TensorSpec::of(name.as_ref(), tensor)).collect();
    let mut writer = TensorWriter::create(path, specs)?;
    for (_, tensor) in order {
        writer.push(tensor)?;
    }
    writer.finish()
}

/// All tensors of a safetensors file, on the CPU, in the order of the file.
///
/// # Errors
///
/// [`ModelError::Durable`], and [`ModelError::TensorFile`] if the file is malformed, cut short or holds a
/// kind that is not read here.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, ModelError> {
    TensorFile::open(path)?.read_all()
}

/// The kinds that both sides know, by the format's names.
const KINDS: [(Kind, Dtype, &str); 7] = [
    (Kind::Float, Dtype::F32, "F32"),
    (Kind::BFloat16, Dtype::BF16, "BF16"),
    (Kind::Half, Dtype::F16, "F16"),
    (Kind::Double, Dtype::F64, "F64"),
    (Kind::Int64, Dtype::I64, "I64"),
    (Kind::Int, Dtype::I32, "I32"),
    (Kind::Uint8, Dtype::U8, "U8"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn sample() -> Vec<(String, Tensor)> {
        let base = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]) / 7.0;
        vec![
            ("f32".to_owned(), base.shallow_clone()),
            ("strided".to_owned(), base.transpose(0, 1)),
            ("bf16".to_owned(), base.to_kind(Kind::BFloat16)),
            ("steps".to_owned(), Tensor::from_slice(&[i64::MAX, -1])),
            ("scalar".to_owned(), Tensor::from(42i64)),
            ("empty".to_owned(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
        ]
    }

    #[test]
    fn every_kind_comes_back_as_it_went() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let sum = write(&path, &sample()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(sum.size, bytes.len() as u64);
        assert_eq!(sum.xxh3, xxhash_rust::xxh3::xxh3_128(&bytes));
        let back = read(&path).unwrap();
        assert_eq!(back.len(), 6);
        for (name, tensor) in sample() {
            let (_, other) = back.iter().find(|(other, _)| *other == name).unwrap();
            assert_eq!(other.kind(), tensor.kind(), "{name}");
            assert_eq!(other, &tensor, "{name}");
        }
        let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["steps", "scalar", "f32", "strided", "empty", "bf16"]);
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(&path, &[("w\"eird\u{e9}", Tensor::from_slice(&[1.5f32, -2.0]))]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("w\"eird\u{e9}").unwrap();
        assert_eq!(view.shape(), [2]);
        assert_eq!(view.data(), [0, 0, 0xC0, 0x3F, 0, 0, 0, 0xC0]);
    }

    #[test]
    fn rows_are_read_without_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(&path, &sample()).unwrap();
        let mut file = TensorFile::open(&path).unwrap();
        let rows = file.read_rows("f32", 1..3).unwrap();
        assert_eq!(rows, sample()[0].1.slice(0, 1, 3, 1));
        assert_eq!(file.read_rows("f32", 3..3).unwrap().size(), [0, 4]);
        let error = file.read_rows("f32", 2..4).unwrap_err();
        assert!(error.to_string().ends_with("rows 2 to 4 of `f32`, which has 3"), "{error}");
    }

    #[test]
    fn a_file_in_parts_equals_one_in_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let tensor = sample().remove(0).1;
        let one = write(&whole, &[("rows", tensor.shallow_clone())]).unwrap();
        let mut writer =
            TensorWriter::create(&parts, vec![TensorSpec::of("rows", &tensor)]).unwrap();
        writer.push(&tensor.slice(0, 0, 1, 1)).unwrap();
        writer.push(&tensor.slice(0, 1, 3, 1)).unwrap();
        assert_eq!(writer.finish().unwrap(), one);
        let mut writer =
            TensorWriter::create(&parts, vec![TensorSpec::of("rows", &tensor)]).unwrap();
        writer.push(&tensor.slice(0, 0, 1, 1)).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(error.to_string().contains("32 bytes of `rows` are missing"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_and_never_read_past() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(&path, &sample()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let refuse = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).map(|tensors| tensors.len()).unwrap_err();
            assert!(matches!(error, ModelError::TensorFile { .. }), "{error:?}");
        };
        for len in 0..bytes.len() {
            refuse(&bytes[..len]);
        }
        refuse(&[&bytes[..], b"x"].concat());
        refuse(&[&u64::MAX.to_le_bytes(), &bytes[8..]].concat());
        refuse(&[&90_000_000u64.to_le_bytes(), &bytes[8..]].concat());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        for header in [
            r#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            r#"{"a":{"dtype":"C64","shape":[0],"data_offsets":[0,0]}}"#,
            r#"{"a":[]}"#,
        ] {
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).map(|tensors| tensors.len()).unwrap_err();
            assert!(matches!(error, ModelError::TensorFile { .. }), "{header}: {error:?}");
        }
    }
}
