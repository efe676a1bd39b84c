//! The files that make up a data set, found from its folder or its `.rec` file.

use std::path::{Path, PathBuf};

use pfc_durable::DurableError;

use crate::{Property, RecordError, RecordFile};

/// The name that InsightFace's programs look for in a folder.
const NAME: &str = "train.rec";

/// A `.rec` file and what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPaths {
    /// The records.
    pub rec: PathBuf,
    /// The index, if there is one; without it the records are scanned.
    pub idx: Option<PathBuf>,
    /// The number of classes and the image size, if there is such a file.
    pub property: Option<PathBuf>,
}

impl RecordPaths {
    /// The data set at `path`: a file `*.rec`, or a folder that holds `train.rec`.
    ///
    /// `None` if it is neither.
    pub fn find(path: &Path) -> Option<RecordPaths> {
        let rec = if path.is_dir() { path.join(NAME) } else { path.to_path_buf() };
        if !rec.is_file() || rec.extension().is_none_or(|extension| extension != "rec") {
            return None;
        }
        let if_there = |path: PathBuf| path.is_file().then_some(path);
        let idx = if_there(rec.with_extension("idx"));
        let property = if_there(rec.with_file_name("property"));
        Some(RecordPaths { rec, idx, property })
    }

    /// Opens the records.
    ///
    /// # Errors
    ///
    /// As [`RecordFile::open`].
    pub fn open(&self) -> Result<RecordFile, RecordError> {
        RecordFile::open(&self.rec, self.idx.as_deref())
    }
}

impl Property {
    /// Reads the `property` file at `path`.
    ///
    /// # Errors
    ///
    /// [`RecordError::Durable`], or [`RecordError::PropertySyntax`].
    pub fn open(path: &Path) -> Result<Property, RecordError> {
        let text = std::fs::read(path).map_err(DurableError::at("read", path))?;
        Property::parse(path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_train_rec_and_a_rec_file_are_data_sets() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RecordPaths::find(dir.path()), None);
        let [rec, idx, other] = ["train.rec", "train.idx", "other.txt"].map(|n| dir.path().join(n));
        std::fs::write(&rec, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let alone = RecordPaths { rec: rec.clone(), idx: None, property: None };
        assert_eq!(RecordPaths::find(dir.path()).as_ref(), Some(&alone));
        std::fs::write(&idx, "").unwrap();
        let both = RecordPaths { idx: Some(idx.clone()), ..alone };
        assert_eq!(RecordPaths::find(&rec), Some(both));
        assert_eq!(RecordPaths::find(&other), None);
        assert_eq!(RecordPaths::find(&dir.path().join("no.rec")), None);
    }
}
