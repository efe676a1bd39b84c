//! A folder that gets its name only once it is complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{DurableError, parent, sync_dir};

/// A folder being filled beside `path`; dropped without [`commit`](AtomicDir::commit), it is removed.
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    temporary: TempDir,
}

impl AtomicDir {
    /// Makes an empty temporary folder beside `path`, whose parent must exist.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if the parent is missing or not writable.
    pub fn create(path: &Path) -> Result<AtomicDir, DurableError> {
        let temporary = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .tempdir_in(parent(path))
            .map_err(DurableError::at("create", path))?;
        Ok(AtomicDir { target: path.to_path_buf(), temporary })
    }

    /// Where to put the files for now.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs every file and folder inside and renames the whole to its final name.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if a sync fails, or if the target exists and is not an empty folder.
    pub fn commit(self) -> Result<(), DurableError> {
        sync_tree(self.temporary.path())?;
        make_readable(self.temporary.path()).map_err(DurableError::at("write", &self.target))?;
        fs::rename(self.temporary.path(), &self.target)
            .map_err(DurableError::at("rename", &self.target))?;
        // Renamed away: there is nothing left to remove under the temporary name.
        let _ = self.temporary.keep();
        sync_dir(parent(&self.target))
    }
}

fn sync_tree(dir: &Path) -> Result<(), DurableError> {
    for entry in fs::read_dir(dir).map_err(DurableError::at("read", dir))? {
        let path = entry.map_err(DurableError::at("read", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            let file = fs::File::open(&path).map_err(DurableError::at("open", &path))?;
            file.sync_all().map_err(DurableError::at("sync", &path))?;
        }
    }
    sync_dir(dir)
}

#[cfg(unix)]
fn make_readable(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_readable(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_only_once_committed() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("run.ckpt");
        let dir = AtomicDir::create(&target).unwrap();
        fs::write(dir.path().join("manifest.json"), "{}").unwrap();
        assert!(!target.exists());
        dir.commit().unwrap();
        assert_eq!(fs::read(target.join("manifest.json")).unwrap(), b"{}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_folder_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        drop(AtomicDir::create(&parent.path().join("a")).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_holds_something_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("keep"), "").unwrap();
        let error = AtomicDir::create(&target).unwrap().commit().unwrap_err();
        assert_eq!(error.op, "rename");
        assert!(target.join("keep").exists());
    }
}
