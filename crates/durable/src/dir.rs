//! A folder that gets its name only once it is complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{DurableError, parent, sync_dir};

/// A folder being filled beside `path`; dropped without [`commit`](AtomicDir::commit), it is removed,
/// unless it is [resumable](AtomicDir::resume).
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    temporary: Temporary,
}

#[derive(Debug)]
enum Temporary {
    /// Of a name that nobody else has; goes when dropped.
    Unique(TempDir),
    /// Of a name that follows from the target's; stays until committed or discarded.
    Resumable(PathBuf),
}

impl Temporary {
    fn path(&self) -> &Path {
        match self {
            Temporary::Unique(dir) => dir.path(),
            Temporary::Resumable(path) => path,
        }
    }
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
        Ok(AtomicDir { target: path.to_path_buf(), temporary: Temporary::Unique(temporary) })
    }

    /// Opens, or makes, the one temporary folder beside `path` that outlives its process: `.NAME.tmp`.
    /// What a killed process left in it is found there; its parent must exist.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if the parent is missing or not writable.
    pub fn resume(path: &Path) -> Result<AtomicDir, DurableError> {
        let beside = beside(path);
        match fs::create_dir(&beside) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(DurableError::at("create", &beside))?;
                sync_dir(parent(path))?;
            }
        }
        Ok(AtomicDir { target: path.to_path_buf(), temporary: Temporary::Resumable(beside) })
    }

    /// Removes the folder that [`resume`](AtomicDir::resume) would find, if there is one.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if it cannot be removed.
    pub fn remove_resumable(path: &Path) -> Result<(), DurableError> {
        let beside = beside(path);
        match fs::remove_dir_all(&beside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(DurableError::at("remove", &beside)),
        }
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
        self.make_whole()?;
        fs::rename(self.temporary.path(), &self.target)
            .map_err(DurableError::at("rename", &self.target))?;
        if let Temporary::Unique(renamed) = self.temporary {
            // Renamed away: there is nothing left to remove under the temporary name.
            let _ = renamed.keep();
        }
        sync_dir(parent(&self.target))
    }

    /// As [`commit`](AtomicDir::commit), in the place of a folder that has the final name now and is
    /// then removed with all that it holds.
    ///
    /// Linux exchanges the two names at once. Elsewhere, and on file systems that cannot, the
    /// folder is moved aside first, and for an instant nothing has the name.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if a sync fails or nothing has the final name; it is then as it was.
    pub fn commit_over(self) -> Result<(), DurableError> {
        self.make_whole()?;
        exchange(self.temporary.path(), &self.target)
            .map_err(DurableError::at("replace", &self.target))?;
        sync_dir(parent(&self.target))?;
        // What had the name has the temporary one, and goes with it.
        match self.temporary {
            Temporary::Unique(_) => Ok(()),
            Temporary::Resumable(_) => AtomicDir::remove_resumable(&self.target),
        }
    }

    fn make_whole(&self) -> Result<(), DurableError> {
        sync_tree(self.temporary.path())?;
        make_readable(self.temporary.path()).map_err(DurableError::at("write", &self.target))
    }
}

/// `.NAME.tmp` beside a folder called NAME.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    parent(path).join(name)
}

#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        // File systems that do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => exchange_by_three_renames(a, b),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    exchange_by_three_renames(a, b)
}

/// Leaves both as they were if the second rename fails.
fn exchange_by_three_renames(a: &Path, b: &Path) -> io::Result<()> {
    let aside = tempfile::Builder::new().prefix(".").suffix(".tmp").tempdir_in(parent(b))?;
    let kept = aside.path().join("old");
    fs::rename(b, &kept)?;
    if let Err(error) = fs::rename(a, b) {
        fs::rename(&kept, b)?;
        return Err(error);
    }
    fs::rename(&kept, a)
}

/// Files and folders that are synced one by one. Of more than these Linux is asked to sync all that
/// their file system has to write: of 13,000 faces in 5,700 folders that took 1 s, each alone 100 s.
const FILES_TO_SYNC: usize = 4096;

/// Threads that sync: they wait for the disk, which makes one journal entry of what many ask for.
/// Of small files a disk takes some hundred a second one by one, and thousands from 32 threads.
const SYNC_THREADS: usize = 32;

fn sync_tree(dir: &Path) -> Result<(), DurableError> {
    let mut files = Vec::new();
    match list(dir, &mut files)? {
        Listed::All => sync_files(&files),
        Listed::Enough => sync_file_system(dir),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    All,
    /// There are more.
    Enough,
}

/// Lists the files and folders in `dir`, itself last: a folder is synced as a file is, and its
/// entries have their names after a power cut.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<Listed, DurableError> {
    for entry in fs::read_dir(dir).map_err(DurableError::at("read", dir))? {
        let path = entry.map_err(DurableError::at("read", dir))?.path();
        if !path.is_dir() {
            files.push(path);
        } else if list(&path, files)? == Listed::Enough {
            return Ok(Listed::Enough);
        }
        if cfg!(target_os = "linux") && files.len() > FILES_TO_SYNC {
            return Ok(Listed::Enough);
        }
    }
    files.push(dir.to_path_buf());
    Ok(Listed::All)
}

/// Syncs the file system that holds `dir`. Since version 5.8 Linux reports writes that failed.
#[cfg(target_os = "linux")]
fn sync_file_system(dir: &Path) -> Result<(), DurableError> {
    let synced = fs::File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.map_err(DurableError::at("sync", dir))
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> Result<(), DurableError> {
    unreachable!("all files are listed elsewhere")
}

fn sync_files(files: &[PathBuf]) -> Result<(), DurableError> {
    let part = files.len().div_ceil(SYNC_THREADS).max(1);
    std::thread::scope(|scope| {
        let parts = files.chunks(part).map(|part| scope.spawn(|| part.iter().try_for_each(sync)));
        let parts: Vec<_> = parts.collect();
        // All are waited for; the first fault in the order of the files counts.
        let results: Vec<_> = parts.into_iter().map(|part| part.join()).collect();
        results.into_iter().try_for_each(|result| result.expect("syncing does not panic"))
    })
}

fn sync(path: &PathBuf) -> Result<(), DurableError> {
    let file = fs::File::open(path).map_err(DurableError::at("open", path))?;
    file.sync_all().map_err(DurableError::at("sync", path))
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
    fn many_files_in_many_folders_are_all_there_once_committed() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        let dir = AtomicDir::create(&target).unwrap();
        for folder in 0..9 {
            let folder = dir.path().join(folder.to_string());
            fs::create_dir(&folder).unwrap();
            (0..9).for_each(|file| fs::write(folder.join(file.to_string()), "x").unwrap());
        }
        dir.commit().unwrap();
        let folders = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(folders.map(|folder| fs::read_dir(folder).unwrap().count()).sum::<usize>(), 81);
    }

    #[test]
    fn a_folder_of_too_many_files_to_sync_each_appears_as_any() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        let dir = AtomicDir::create(&target).unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        (0..=FILES_TO_SYNC).for_each(|i| fs::write(dir.path().join(format!("b/{i}")), "").unwrap());
        dir.commit().unwrap();
        assert_eq!(fs::read_dir(target.join("b")).unwrap().count(), FILES_TO_SYNC + 1);
    }

    #[test]
    fn a_dropped_folder_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        drop(AtomicDir::create(&parent.path().join("a")).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_resumable_folder_is_found_again_until_it_is_committed_or_removed() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        fs::create_dir(&target).unwrap();
        fs::write(AtomicDir::resume(&target).unwrap().path().join("new"), "").unwrap();
        let dir = AtomicDir::resume(&target).unwrap();
        assert!(dir.path().join("new").exists());
        dir.commit_over().unwrap();
        assert!(target.join("new").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(AtomicDir::resume(&target).unwrap());
        AtomicDir::remove_resumable(&target).unwrap();
        AtomicDir::remove_resumable(&target).unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_committed_over_another_leaves_only_itself() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "").unwrap();
        let dir = AtomicDir::create(&target).unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        dir.commit_over().unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_are_exchanged_at_once_or_one_by_one() {
        for exchange in [exchange, exchange_by_three_renames] {
            let parent = tempfile::tempdir().unwrap();
            let [a, b] = ["a", "b"].map(|name| parent.path().join(name));
            for path in [&a, &b] {
                fs::create_dir(path).unwrap();
            }
            fs::write(a.join("of a"), "").unwrap();
            exchange(&a, &b).unwrap();
            assert!(b.join("of a").exists());
            assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
            assert!(exchange(&a, &parent.path().join("missing")).is_err());
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
        }
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
