//! Files of embeddings: safetensors and NumPy, used in place.

pub mod cache;
mod map;
mod npy;
pub mod sink;
pub mod write;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_metrics::Rows;
use safetensors::{Dtype, SafeTensors};

use crate::EvalError;
use map::Mapped;

/// An open file of embeddings.
///
/// `.safetensors` with two-dimensional f32 tensors of any name, or `.npy` with one array of f32,
/// whose name is then empty. Nothing is read until it is used.
#[derive(Debug)]
pub struct FeatureFile {
    path: PathBuf,
    map: Mapped,
    tensors: Vec<Tensor>,
}

/// A two-dimensional f32 array of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tensor {
    name: String,
    shape: [usize; 2],
    bytes: Range<usize>,
}

impl FeatureFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`], and [`EvalError::Features`] for a file of another format, or one that
    /// does not hold what its header says.
    pub fn open(path: &Path) -> Result<FeatureFile, EvalError> {
        let map = Mapped::open(path)?;
        let tensors = match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => npy::tensor(&map).map(|tensor| vec![tensor]),
            Some("safetensors") => safetensors(&map),
            _ => Err("its name ends neither in .safetensors nor in .npy".to_owned()),
        };
        let tensors = tensors.map_err(|reason| EvalError::features(path, reason))?;
        Ok(FeatureFile { path: path.to_owned(), map, tensors })
    }

    /// The array called one of `names`, the first that is there; any name fits a file with a single
    /// array.
    ///
    /// # Errors
    ///
    /// [`EvalError::Features`] if there is none, or it is not aligned in the file.
    pub fn rows(&self, names: &[&str]) -> Result<Rows<'_>, EvalError> {
        let named = |name: &&str| self.tensors.iter().find(|tensor| tensor.name == **name);
        let tensor = match (&self.tensors[..], names.iter().find_map(named)) {
            ([only], _) => only,
            (_, Some(tensor)) => tensor,
            (all, None) => {
                let has: Vec<&str> = all.iter().map(|tensor| tensor.name.as_str()).collect();
                let reason = format!(
                    "it holds no f32 array called {} (it has {})",
                    names.join(" or "),
                    if has.is_empty() { "none".to_owned() } else { has.join(", ") }
                );
                return Err(EvalError::features(&self.path, reason));
            }
        };
        self.view(tensor)
    }

    /// Warns of rows of this file that are all zeros.
    ///
    /// A pipeline writes such a row where its detector found no face. It is scored as it is: its cosine
    /// similarity with every face is 0.
    pub fn note_zeros(&self, rows: Rows<'_>) {
        let (mut zeros, path) = (rows.zeros(), self.path.display());
        let Some(first) = zeros.next() else { return };
        let n = 1 + zeros.count();
        tracing::warn!(
            "{path}: {n} of {} embeddings are all zeros, the first in row {first}, as where no face was \
             found; their similarity with every face counts as 0",
            rows.len()
        );
    }

    /// The array called `name`, if the file has it beside others.
    ///
    /// # Errors
    ///
    /// [`EvalError::Features`] if it is not aligned in the file.
    pub fn optional_rows(&self, name: &str) -> Result<Option<Rows<'_>>, EvalError> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|t| self.view(t)).transpose()
    }

    /// What the header of a `.safetensors` notes under `key` beside its arrays.
    fn note(&self, key: &str) -> Option<String> {
        let (_, header) = SafeTensors::read_metadata(&self.map).ok()?;
        header.metadata().as_ref()?.get(key).cloned()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn view(&self, tensor: &Tensor) -> Result<Rows<'_>, EvalError> {
        let bytes = &self.map[tensor.bytes.clone()];
        let refuse = |reason: &str| EvalError::features(&self.path, reason);
        let numbers: &[f32] = if bytes.is_empty() {
            &[]
        } else {
            bytemuck::try_cast_slice(bytes)
                .map_err(|_| refuse("its numbers do not start at a multiple of four bytes"))?
        };
        Rows::new(numbers, tensor.shape[1]).map_err(|_| refuse("its rows hold no number"))
    }
}

fn safetensors(map: &[u8]) -> Result<Vec<Tensor>, String> {
    let file = SafeTensors::deserialize(map).map_err(|error| error.to_string())?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        if let (Dtype::F32, &[n_rows, dim]) = (view.dtype(), view.shape()) {
            // The view borrows from `map`, so its offset is a difference of addresses.
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let bytes = start..start + view.data().len();
            tensors.push(Tensor { name, shape: [n_rows, dim], bytes });
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_dir, path) = file("a.safetensors", b"");
        write::safetensors(&path, &[("embs", [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]).unwrap();
        let features = FeatureFile::open(&path).unwrap();
        let rows = features.rows(&["anything"]).unwrap();
        assert_eq!((rows.len(), rows.dim(), rows.row(1)), (2, 3, &[4.0, 5.0, 6.0][..]));
        write::safetensors(&path, &[("a", [1, 1], &[7.0]), ("b", [1, 1], &[8.0])]).unwrap();
        let features = FeatureFile::open(&path).unwrap();
        assert_eq!(features.rows(&["x", "b"]).unwrap().data(), [8.0]);
        let error = features.rows(&["x", "y"]).unwrap_err().to_string();
        assert!(error.ends_with("it holds no f32 array called x or y (it has a, b)"), "{error}");
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        for (name, bytes) in [
            ("a.txt", &b"1 2 3"[..]),
            ("a.npy", b""),
            ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
            ("a.safetensors", b""),
            ("a.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"),
        ] {
            let (_dir, path) = file(name, bytes);
            let error = FeatureFile::open(&path).unwrap_err();
            assert!(matches!(error, EvalError::Features { .. }), "{name}: {error}");
        }
        assert!(matches!(FeatureFile::open(Path::new("/")), Err(EvalError::Io { .. })));
    }
}
