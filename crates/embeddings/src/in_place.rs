//! Arrays of safetensors and NumPy that are used where they lie.

use std::path::{Path, PathBuf};

use pfc_metrics::Rows;
use pfc_mmap::Map;
use pfc_sources::Unread;

use crate::{
    EmbeddingError,
    layout::{Layout, Number},
    npy,
    safetensors_file::{self, Named},
};

/// An open file of embeddings.
///
/// `.safetensors` with two-dimensional f32 tensors of any name, or `.npy` with one array of f32,
/// whose name is then empty. Nothing is read until it is used.
#[derive(Debug)]
pub struct FeatureFile {
    path: PathBuf,
    map: Map,
    /// Of f32 numbers, within the file.
    arrays: Vec<Named>,
}

impl FeatureFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Durable`], and [`EmbeddingError::InPlace`] for a file of another format, or one that
    /// does not hold what its header says.
    pub fn open(path: &Path) -> Result<FeatureFile, EmbeddingError> {
        let map = Map::open(path)?;
        let arrays = match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => npy(&map).map(|array| vec![array]),
            Some("safetensors") => safetensors(&map).map_err(Unread::from),
            _ => Err("its name ends neither in .safetensors nor in .npy".into()),
        };
        let wrong = |reason| EmbeddingError::in_place(path, reason);
        let arrays = arrays.map_err(|unread| unread.at(path, wrong))?;
        Ok(FeatureFile { path: path.to_owned(), map, arrays })
    }

    /// The array called one of `names`, the first that is there; any name fits a file with a single
    /// array.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::InPlace`] if there is none, or it is not aligned in the file.
    pub fn rows(&self, names: &[&str]) -> Result<Rows<'_>, EmbeddingError> {
        let named = |name: &&str| self.arrays.iter().find(|(found, _)| found == *name);
        let (_, layout) = match (&self.arrays[..], names.iter().find_map(named)) {
            ([only], _) => only,
            (_, Some(array)) => array,
            (all, None) => {
                let has: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                let reason = format!(
                    "it holds no f32 array called {} (it has {})",
                    names.join(" or "),
                    if has.is_empty() { "none".to_owned() } else { has.join(", ") }
                );
                return Err(EmbeddingError::in_place(&self.path, reason));
            }
        };
        self.view(layout)
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
    /// [`EmbeddingError::InPlace`] if it is not aligned in the file.
    pub fn optional_rows(&self, name: &str) -> Result<Option<Rows<'_>>, EmbeddingError> {
        let array = self.arrays.iter().find(|(found, _)| found == name);
        array.map(|(_, layout)| self.view(layout)).transpose()
    }

    /// What the header of a `.safetensors` notes under `key` beside its arrays.
    pub(crate) fn note(&self, key: &str) -> Option<String> {
        safetensors_file::note(&self.map, key)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn view(&self, layout: &Layout) -> Result<Rows<'_>, EmbeddingError> {
        let bytes = &self.map[layout.start as usize..layout.end() as usize];
        let refuse = |reason: &str| EmbeddingError::in_place(&self.path, reason);
        let numbers: &[f32] = if bytes.is_empty() {
            &[]
        } else {
            bytemuck::try_cast_slice(bytes)
                .map_err(|_| refuse("its numbers do not start at a multiple of four bytes"))?
        };
        Rows::new(numbers, layout.dim).map_err(|_| refuse("its rows hold no number"))
    }
}

fn safetensors(map: &[u8]) -> Result<Vec<Named>, String> {
    let arrays = safetensors_file::arrays(map)?.into_iter();
    let in_place = arrays.filter(|(_, layout)| layout.number == Number::F32);
    in_place.map(|(name, layout)| Ok((name, layout.check(map.len() as u64)?))).collect()
}

/// The one array of a file, which goes on to its end.
fn npy(map: &[u8]) -> Result<Named, Unread> {
    let layout = npy::layout(&npy::header(&mut &*map)?)?.check(map.len() as u64)?;
    if layout.number != Number::F32 {
        return Err("only '<f4' (float32) is read in place".into());
    }
    match map.len() as u64 - layout.end() {
        0 => Ok((String::new(), layout)),
        more => Err(format!("{more} bytes follow the numbers that its header tells of").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write;

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
    fn what_cannot_be_used_in_place_says_why() {
        let check = |header: &str, body: usize, expected: &str| {
            let head = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
            let bytes = [&head, header.as_bytes(), &vec![0; body]].concat();
            let (_dir, path) = file("a.npy", &bytes);
            let error = FeatureFile::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("{'descr': '<f8', 'shape': (1, 1), }", 8, "'<f4'");
        check("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", 16, "column");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", 20, "[5]");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 20, "do not fit");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 25, "1 bytes follow");
        let huge =
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 9999999999), }";
        check(huge, 0, "rows of 9999999999 numbers");
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
            assert!(matches!(error, EmbeddingError::InPlace { .. }), "{name}: {error}");
        }
        assert!(matches!(FeatureFile::open(Path::new("/")), Err(EmbeddingError::Durable(_))));
    }
}
