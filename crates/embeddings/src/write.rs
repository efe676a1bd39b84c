//! Writing embeddings and scores.

use std::{collections::HashMap, io::Write, path::Path};

use pfc_durable::{AtomicFile, DurableError};
use pfc_shard::npy_header;
use safetensors::{Dtype, tensor::TensorView};

use crate::EmbeddingError;

/// Writes named f32 arrays; the file appears whole.
///
/// # Errors
///
/// [`EmbeddingError::Durable`].
pub fn safetensors(path: &Path, arrays: &[Array<'_>]) -> Result<(), EmbeddingError> {
    safetensors_with(path, arrays, None)
}

/// A named array: `[rows, numbers]`, values.
pub type Array<'a> = (&'a str, [usize; 2], &'a [f32]);

/// As [`safetensors`], with what the header says beside the arrays.
pub(crate) fn safetensors_with(
    path: &Path,
    arrays: &[Array<'_>],
    notes: Option<HashMap<String, String>>,
) -> Result<(), EmbeddingError> {
    let views = arrays.iter().map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (*name, view.expect("callers pass as many values as the shape holds"))
    });
    let bytes = safetensors::serialize(views, notes)
        .map_err(|error| EmbeddingError::in_place(path, error.to_string()))?;
    Ok(pfc_durable::write(path, &bytes)?)
}

/// Writes a list of f64 as NumPy's `.npy`, as the reference saves its scores.
///
/// # Errors
///
/// [`EmbeddingError::Durable`].
pub fn npy(path: &Path, values: &[f64]) -> Result<(), EmbeddingError> {
    let mut file = AtomicFile::create(path)?;
    let mut write = || -> std::io::Result<()> {
        file.write_all(&npy_header("<f8", &format!("({},)", values.len())))?;
        for chunk in values.chunks(1 << 16) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        Ok(())
    };
    write().map_err(DurableError::at("write", path))?;
    Ok(file.commit()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn scores_are_laid_out_as_numpy_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        super::npy(&path, &[0.5, -1.0]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 16);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(
            bytes[10..].starts_with(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }")
        );
        assert_eq!(bytes[127], b'\n');
        assert_eq!(&bytes[136..], (-1.0f64).to_le_bytes());
    }
}
