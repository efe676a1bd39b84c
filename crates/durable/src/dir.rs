//! A folder that gets its name only once it is complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Access, DurableError, Entry, FolderError, OwnedDir, beside, check_ours, in_synced_dir,
    owned::ASIDE,
    parent, remove_ours,
    watch::{Done, tell},
};

/// The folder `.NAME.tmp`, being filled beside a folder that is to be called NAME.
///
/// It holds the lock of NAME, so that no other command of the project writes there meanwhile. One
/// that was [begun](OwnedDir::begin) is removed when it is dropped without
/// [`commit`](AtomicDir::commit), and of a killed process by the next one that begins; one that was
/// [resumed](OwnedDir::resume) stays.
#[derive(Debug)]
pub struct AtomicDir {
    /// The place to be taken, and its lock.
    owned: OwnedDir,
    temporary: PathBuf,
    stays: bool,
}

impl AtomicDir {
    /// Claims `path` and makes an empty temporary folder beside it; the folders above are made.
    ///
    /// # Errors
    ///
    /// As [`OwnedDir::claim`] and [`OwnedDir::begin`]. What `path` holds is not looked at.
    pub fn create(path: &Path) -> Result<AtomicDir, FolderError> {
        OwnedDir::claim(path, Access::Alone)?.begin()
    }

    /// Where to put the files for now.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The place that this folder takes once it is complete.
    pub fn target(&self) -> &OwnedDir {
        &self.owned
    }

    /// The same folder, empty.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if something cannot be removed.
    pub fn begin_anew(self) -> Result<AtomicDir, DurableError> {
        fs::remove_dir_all(&self.temporary).map_err(DurableError::at("remove", &self.temporary))?;
        fs::create_dir(&self.temporary).map_err(DurableError::at("create", &self.temporary))?;
        Ok(self)
    }

    /// Removes the temporary folder with all that is in it; the target stays as it is.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if something cannot be removed.
    pub fn discard(mut self) -> Result<(), DurableError> {
        self.stays = true;
        fs::remove_dir_all(&self.temporary).map_err(DurableError::at("remove", &self.temporary))
    }

    /// Syncs every file and folder inside and renames the whole to its final name.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if a sync fails, or if the target exists and is not an empty folder.
    pub fn commit(mut self) -> Result<(), DurableError> {
        let target = self.owned.path();
        sync_tree(&self.temporary)?;
        in_synced_dir(parent(target), || {
            fs::rename(&self.temporary, target).map_err(DurableError::at("rename", target))?;
            self.stays = true;
            tell(Done::Changed(target));
            Ok(())
        })
    }

    /// As [`commit`](AtomicDir::commit), in the place of a folder that has the final name now, of
    /// which all `is_ours`; that is then removed.
    ///
    /// Linux exchanges the two names at once. Elsewhere, and on file systems that cannot, the
    /// folder is moved aside first, and for an instant nothing has the name. If the process is killed
    /// in that instant, [`OwnedDir::claim`] gives the folder its name again.
    ///
    /// # Errors
    ///
    /// [`FolderError::Foreign`] if somebody else's file is in the old folder, or
    /// [`FolderError::Durable`] if a sync fails or nothing has the final name; it is then as it was.
    pub fn commit_over(mut self, is_ours: impl Fn(Entry<'_>) -> bool) -> Result<(), FolderError> {
        let target = self.owned.path();
        sync_tree(&self.temporary)?;
        check_ours(target, &is_ours)?;
        in_synced_dir(parent(target), || {
            exchange(&self.temporary, target).map_err(DurableError::at("replace", target))?;
            tell(Done::Changed(target));
            // What had the name has the temporary one now.
            self.stays = true;
            Ok(())
        })?;
        remove_ours(&self.temporary, &is_ours)?;
        match fs::remove_dir(&self.temporary) {
            // Somebody put a file there at the last moment.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                check_ours(&self.temporary, |_| false)
            }
            removed => Ok(removed.map_err(DurableError::at("remove", &self.temporary))?),
        }
    }
}

impl OwnedDir {
    /// A new folder beside this one that takes its name once [committed](AtomicDir::commit). What a
    /// killed process left there is removed.
    ///
    /// # Errors
    ///
    /// [`FolderError::Foreign`] if somebody else's folder has the temporary name, or
    /// [`FolderError::Durable`].
    pub fn begin(self) -> Result<AtomicDir, FolderError> {
        self.remove_left()?;
        let mut dir = self.resume()?;
        dir.stays = false;
        Ok(dir)
    }

    /// As [`begin`](OwnedDir::begin), but with all that a killed or failed process left there; the
    /// folder outlives its process until it is committed or [discarded](AtomicDir::discard).
    ///
    /// # Errors
    ///
    /// As [`begin`](OwnedDir::begin).
    pub fn resume(mut self) -> Result<AtomicDir, FolderError> {
        let temporary = self.prepare_beside()?;
        Ok(AtomicDir { owned: self, temporary, stays: true })
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.stays {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
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
    let aside = beside(b, ASIDE);
    fs::rename(b, &aside)?;
    if let Err(error) = fs::rename(a, b) {
        fs::rename(&aside, b)?;
        return Err(error);
    }
    fs::rename(&aside, a)
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
    let sync_all = |files: &[PathBuf]| files.iter().try_for_each(sync);
    let part = files.len().div_ceil(SYNC_THREADS).max(1);
    let synced = std::thread::scope(|scope| {
        let start = |part| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || sync_all(part));
            (part, thread)
        };
        let parts: Vec<_> = files.chunks(part).map(start).collect();
        // All are waited for; the first fault in the order of the files counts.
        let results: Vec<_> = parts
            .into_iter()
            .map(|(part, thread)| match thread {
                Ok(thread) => thread.join().expect("syncing does not panic"),
                // Where no more threads are to be had, this one does it.
                Err(_) => sync_all(part),
            })
            .collect();
        results.into_iter().collect::<Result<(), _>>()
    });
    match synced {
        // So many files may not be open at a time; one after the other may do.
        Err(error) if crate::error::limit(&error.source).is_some() => sync_all(files),
        synced => synced,
    }
}

fn sync(path: &PathBuf) -> Result<(), DurableError> {
    let file = fs::File::open(path).map_err(DurableError::at("open", path))?;
    file.sync_all().map_err(DurableError::at("sync", path))?;
    tell(if path.is_dir() { Done::NamesSynced(path) } else { Done::Synced(path) });
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
    fn a_resumed_folder_stays_until_it_is_committed_or_discarded() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        let resume = || OwnedDir::claim(&target, Access::Alone).unwrap().resume().unwrap();
        fs::write(resume().path().join("new"), "").unwrap();
        assert!(resume().path().join("new").exists());
        resume().commit().unwrap();
        assert!(target.join("new").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(resume());
        resume().discard().unwrap();
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
        dir.commit_over(|entry| entry.path == "old").unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_with_files_of_others_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        fs::create_dir(&target).unwrap();
        for name in ["old", "thesis.tex"] {
            fs::write(target.join(name), "").unwrap();
        }
        let dir = AtomicDir::create(&target).unwrap();
        let error = dir.commit_over(|entry| entry.path == "old").unwrap_err().to_string();
        assert!(error.ends_with("holds files that pfc did not write: thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_commands_do_not_fill_one_folder() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        let first = AtomicDir::create(&target).unwrap();
        let error = AtomicDir::create(&target).unwrap_err();
        assert!(matches!(error, FolderError::Busy { .. }) && error.hint().is_some());
        first.commit().unwrap();
        assert!(target.is_dir());
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

    /// A kill between any two of the three renames.
    #[test]
    fn a_folder_that_was_moved_aside_by_a_killed_process_gets_its_name_again() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("a");
        let claim = || OwnedDir::claim(&target, Access::Alone).unwrap();
        let [aside, temporary] = ["old", "tmp"].map(|ending| beside(&target, ending));
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "").unwrap();
        let dir = claim().resume().unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        drop(dir);
        // After the first: the old one is back, and the new one still there.
        fs::rename(&target, &aside).unwrap();
        let owned = claim();
        assert!(target.join("old").exists() && temporary.join("new").exists() && !aside.exists());
        drop(owned);
        // After the second: the new one has the name, and the old one is what the next removes.
        let lock = fs::read(beside(&target, "lock")).unwrap();
        fs::rename(&target, &aside).unwrap();
        fs::rename(&temporary, &target).unwrap();
        fs::write(beside(&target, "lock"), lock).unwrap();
        claim().begin().unwrap().discard().unwrap();
        assert!(target.join("new").exists() && !aside.exists() && !temporary.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        // A folder of somebody else that is called so stays.
        fs::create_dir(&aside).unwrap();
        drop(claim());
        assert!(aside.exists());
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
