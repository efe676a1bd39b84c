//! What a stopped comparison of centres has done, in a file beside the data set.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use pfc_clean::identities::{Keeper, Standing};
use pfc_shard::sealed;

/// Keeps what is done in a sealed file.
#[derive(Debug)]
pub struct PartFile {
    path: PathBuf,
}

impl PartFile {
    /// In the folder of a data set.
    pub fn beside(dataset: &Path) -> PartFile {
        PartFile { path: dataset.join(".centres.part") }
    }
}

impl Keeper for PartFile {
    fn load(&self) -> Option<Standing> {
        // A damaged file is as good as none.
        sealed::read(&self.path).ok().flatten()
    }

    fn save(&self, standing: &Standing) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(sealed::write(&self.path, standing)?)
    }

    fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(pfc_durable::DurableError::at("remove", &self.path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let part = PartFile::beside(folder.path());
        assert!(part.load().is_none());
        part.remove().unwrap();
        let text = r#"{"key":"0","done":2,"pairs":[]}"#;
        let standing: Standing = serde_json::from_str(&text.replace("\"0\"", &key())).unwrap();
        part.save(&standing).unwrap();
        assert!(part.load().is_some());
        let written = std::fs::read_to_string(&part.path).unwrap();
        std::fs::write(&part.path, written.replacen('2', "3", 1)).unwrap();
        assert!(part.load().is_none());
        part.remove().unwrap();
        assert!(!part.path.exists());
    }

    /// A checksum as JSON.
    fn key() -> String {
        serde_json::to_string(&pfc_shard::Checksum(7)).unwrap()
    }
}
