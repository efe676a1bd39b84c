//! Folders that a command owns while it writes them, and how it tells its own files from others.
//!
//! Every command that writes a folder claims it first ([`OwnedDir::claim`]) and only then looks at
//! what is in it, so that nothing can change between the look and the first write. Of what is there
//! only names are removed that the command knows as its own; everything else is reported.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Access, DurableError, FolderError, beside, create_dir_all, lock::Lock, parent};

/// What `.NAME.old` is called while NAME is replaced: whoever next claims NAME finds it there.
pub(crate) const ASIDE: &str = "old";

/// A folder that this process, alone or with workers of the same job, may write until this is dropped.
#[derive(Debug)]
pub struct OwnedDir {
    path: PathBuf,
    /// The link that led there, if one did.
    link: Option<PathBuf>,
    /// Released before the folders above are removed again.
    lock: Option<Lock>,
    /// Folders above that were missing, the deepest first.
    made: Vec<PathBuf>,
}

impl OwnedDir {
    /// Takes the lock of the folder `path`, which need not exist; the folders above it are made, and
    /// removed again if nothing is in them when this is dropped. A link is followed.
    ///
    /// # Errors
    ///
    /// [`FolderError::Busy`] if another process is at work there, [`FolderError::NoLocks`] where the
    /// file system refuses locks, [`FolderError::Foreign`] if somebody else's file has the lock's
    /// name, or [`FolderError::Durable`].
    pub fn claim(path: &Path, access: Access) -> Result<OwnedDir, FolderError> {
        let link = path.is_symlink().then(|| path.to_path_buf());
        let path = real(path)?;
        let missing = path
            .ancestors()
            .skip(1)
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let mut owned =
            OwnedDir { made: missing.map(Path::to_path_buf).collect(), lock: None, link, path };
        create_dir_all(parent(&owned.path))?;
        owned.lock = Some(Lock::take(&owned.path, access)?);
        owned.put_back()?;
        Ok(owned)
    }

    /// Gives the folder its name again where a process was killed while it replaced it, and the name of
    /// what is to be removed where the new one has its place already.
    fn put_back(&self) -> Result<(), DurableError> {
        let aside = beside(&self.path, ASIDE);
        let is_ours = self.lock.as_ref().is_some_and(Lock::fills);
        let place = match self.path.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.path.clone(),
            _ => beside(&self.path, "tmp"),
        };
        if !is_ours || !aside.is_dir() || place.exists() {
            return Ok(());
        }
        crate::rename(&aside, &place)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is absent, or there and empty.
    ///
    /// # Errors
    ///
    /// [`DurableError`] if it cannot be read.
    pub fn is_free(&self) -> Result<bool, DurableError> {
        match fs::read_dir(&self.path) {
            Ok(entries) => {
                for entry in entries {
                    // What cannot be listed may be somebody's.
                    let entry = entry.map_err(DurableError::at("read", &self.path))?;
                    if entry.file_name() != crate::lock::INNER_NAME {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(false),
            // A link that leads nowhere is something.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(fs::symlink_metadata(&self.path).is_err())
            }
            Err(e) => Err(DurableError::at("read", &self.path)(e)),
        }
    }

    /// Requires that the folder is absent or empty.
    ///
    /// # Errors
    ///
    /// [`FolderError::Taken`], or [`FolderError::Durable`] if it cannot be read.
    pub fn check_free(&self) -> Result<(), FolderError> {
        match self.is_free()? {
            true => Ok(()),
            false => Err(self.taken()),
        }
    }

    /// That the folder is not empty.
    pub fn taken(&self) -> FolderError {
        let folder = self.path.clone();
        match self.link.clone() {
            Some(link) => FolderError::TakenByLink { link, folder },
            None => FolderError::Taken { folder },
        }
    }

    /// Requires that all that the folder holds `is_ours`; an absent folder holds nothing.
    ///
    /// # Errors
    ///
    /// [`FolderError::Foreign`], or [`FolderError::Durable`] if the folder cannot be read.
    pub fn check_ours(&self, is_ours: impl Fn(Entry<'_>) -> bool) -> Result<(), FolderError> {
        check_ours(&self.path, is_ours)
    }

    /// Makes the temporary folder beside this one, or finds the one that a killed or failed process
    /// left.
    pub(crate) fn prepare_beside(&mut self) -> Result<PathBuf, FolderError> {
        let beside = self.check_beside()?;
        if let Some(lock) = &mut self.lock {
            lock.fill()?;
        }
        match fs::create_dir(&beside) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(DurableError::at("create", &self.path))?;
                crate::sync_dir(parent(&beside))?;
            }
        }
        Ok(beside)
    }

    /// Removes the temporary folder that a killed or failed process left beside this one.
    ///
    /// # Errors
    ///
    /// As [`begin`](OwnedDir::begin).
    pub fn remove_left(&self) -> Result<(), FolderError> {
        let beside = self.check_beside()?;
        match fs::remove_dir_all(&beside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => Ok(removed.map_err(DurableError::at("remove", &beside))?),
        }
    }

    /// Whether a killed or failed process left a temporary folder.
    pub fn has_left(&self) -> bool {
        beside(&self.path, "tmp").exists()
    }

    /// The temporary folder, which is ours if the lock file says so.
    fn check_beside(&self) -> Result<PathBuf, FolderError> {
        let beside = beside(&self.path, "tmp");
        let is_ours = self.lock.as_ref().is_some_and(Lock::fills);
        match fs::symlink_metadata(&beside) {
            Ok(found) if !(is_ours && found.is_dir()) => {
                let names = vec![PathBuf::from(beside.file_name().unwrap_or_default())];
                Err(FolderError::Foreign { folder: parent(&beside).to_path_buf(), names })
            }
            _ => Ok(beside),
        }
    }
}

impl Drop for OwnedDir {
    fn drop(&mut self) {
        self.lock = None;
        for above in &self.made {
            // Fails, as it should, where there is something in it.
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
}

/// A file or folder below a folder.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its path below the folder, if that is UTF-8; no name of ours is anything else.
    pub path: &'a str,
    /// Whether it is a folder, and no link to one.
    pub is_dir: bool,
    /// Whether it is a regular file, and no link to one.
    pub is_file: bool,
}

impl Entry<'_> {
    /// Whether it is a file that an [`AtomicFile`](crate::AtomicFile) was writing.
    pub fn is_temporary(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.is_file && is_temporary_name(name)
    }
}

/// Whether a file of this name is one that an [`AtomicFile`](crate::AtomicFile) was writing:
/// `.NAME.XXXXXX.tmp`.
pub fn is_temporary_name(name: &str) -> bool {
    let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) else {
        return false;
    };
    inner.rsplit_once('.').is_some_and(|(name, random)| {
        let is_random = random.bytes().all(|byte| byte.is_ascii_alphanumeric());
        !name.is_empty() && random.len() == 6 && is_random
    })
}

/// Requires that all that `dir` holds `is_ours`. What lies in a folder that is not is not looked at.
///
/// # Errors
///
/// [`FolderError::Foreign`] with all that is not, or [`FolderError::Durable`].
pub fn check_ours(dir: &Path, is_ours: impl Fn(Entry<'_>) -> bool) -> Result<(), FolderError> {
    let mut names = Vec::new();
    walk(dir, dir, &is_ours, &mut |path, is_ours, _| {
        if !is_ours {
            names.push(path.strip_prefix(dir).unwrap_or(path).to_path_buf());
        }
        Ok(())
    })?;
    names.sort();
    match names.is_empty() {
        true => Ok(()),
        false => Err(FolderError::Foreign { folder: dir.to_path_buf(), names }),
    }
}

/// Removes what `is_ours` in `dir`: files, and folders that are then empty. `dir` itself stays.
///
/// # Errors
///
/// [`DurableError`] for the first that cannot be removed.
pub fn remove_ours(dir: &Path, is_ours: impl Fn(Entry<'_>) -> bool) -> Result<(), DurableError> {
    walk(dir, dir, &is_ours, &mut |path, is_ours, is_dir| {
        let removed = match (is_ours, is_dir) {
            (false, _) => return Ok(()),
            (true, false) => fs::remove_file(path),
            (true, true) => match fs::remove_dir(path) {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => removed,
            },
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(DurableError::at("remove", path)),
        }
    })?;
    if dir.is_dir() { crate::sync_dir(dir) } else { Ok(()) }
}

/// Hands every entry to `visit`, a folder after what is in it: path, whether it is ours, whether it
/// is a folder.
fn walk(
    root: &Path,
    dir: &Path,
    is_ours: &impl Fn(Entry<'_>) -> bool,
    visit: &mut impl FnMut(&Path, bool, bool) -> Result<(), DurableError>,
) -> Result<(), DurableError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && root == dir => return Ok(()),
        entries => entries.map_err(DurableError::at("read", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(DurableError::at("read", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(DurableError::at("read", &path))?;
        if dir == root && entry.file_name() == crate::lock::INNER_NAME {
            continue;
        }
        let below = path.strip_prefix(root).ok().and_then(Path::to_str);
        let ours = below.is_some_and(|below| {
            is_ours(Entry { path: below, is_dir: kind.is_dir(), is_file: kind.is_file() })
        });
        if ours && kind.is_dir() {
            walk(root, &path, is_ours, visit)?;
        }
        visit(&path, ours, kind.is_dir())?;
    }
    Ok(())
}

/// Requires that `out`, to be written, and `input`, to be read, do not lie in each other, through
/// links either: an output in its input would be read the next time, an input in the output removed
/// with it. An input that is not there is none.
///
/// # Errors
///
/// [`FolderError::InsideInput`] or [`FolderError::AroundInput`].
pub fn check_apart(input: &Path, out: &Path) -> Result<(), FolderError> {
    let (Ok(input_real), Ok(out_real)) = (input.canonicalize(), resolve(out)) else {
        return Ok(());
    };
    let (out, input) = (out.to_path_buf(), input.to_path_buf());
    if out_real.starts_with(&input_real) {
        return Err(FolderError::InsideInput { out, input });
    }
    if input_real.starts_with(&out_real) {
        return Err(FolderError::AroundInput { out, input });
    }
    Ok(())
}

/// The real path of something that need not exist yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    // A link may lead to what does not exist yet either.
    const LINKS_MAX: usize = 40;
    for _ in 0..LINKS_MAX {
        let there = |p: &&Path| fs::symlink_metadata(p).is_ok();
        let existing = path.ancestors().find(there).unwrap_or(&path);
        let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
        match existing.canonicalize() {
            Ok(real) => return Ok(real.join(rest)),
            Err(_) => path = parent(existing).join(fs::read_link(existing)?).join(rest),
        }
    }
    Ok(path)
}

/// The path by which a folder has a name in another one, links followed.
fn real(path: &Path) -> Result<PathBuf, DurableError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let path = match path.file_name() {
        Some(_) if !is_link => path.to_path_buf(),
        _ => resolve(path).map_err(DurableError::at("find", path))?,
    };
    match path.file_name() {
        Some(_) => Ok(path),
        None => Err(DurableError::at("write", &path)(io::ErrorKind::InvalidInput.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(dir: &Path) -> OwnedDir {
        OwnedDir::claim(&dir.join("out"), Access::Alone).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_nothing_and_an_empty_folder_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let is_free =
            |name: &str| OwnedDir::claim(&dir.path().join(name), Access::Alone).unwrap().is_free();
        fs::create_dir_all(dir.path().join("full/empty")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(is_free("missing").unwrap() && is_free("full/empty").unwrap());
        assert!(!is_free("full").unwrap() && !is_free("file").unwrap());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("full/empty", dir.path().join("link")).unwrap();
            assert!(is_free("link").unwrap());
            assert_eq!(names(&dir.path().join("full")), ["empty"]);
        }
    }

    #[test]
    fn a_claim_makes_the_folders_above_and_takes_them_away_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b/out");
        drop(OwnedDir::claim(&out, Access::Alone).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        OwnedDir::claim(&out, Access::Alone).unwrap().begin().unwrap().commit().unwrap();
        assert!(out.is_dir());
        assert_eq!(names(out.parent().unwrap()), ["out"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_or_found() {
        let dir = tempfile::tempdir().unwrap();
        let left = |dir: &Path| {
            let unfinished = owned(dir).resume().unwrap();
            fs::write(unfinished.path().join("half"), "").unwrap();
        };
        left(dir.path());
        assert_eq!(names(dir.path()), [".out.lock", ".out.tmp"]);
        assert!(owned(dir.path()).resume().unwrap().path().join("half").exists());
        let begun = owned(dir.path()).begin().unwrap();
        assert!(!begun.path().join("half").exists());
        drop(begun);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_temporary_folder_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".out.tmp")).unwrap();
        fs::write(dir.path().join(".out.tmp/thesis.tex"), "").unwrap();
        for refused in [owned(dir.path()).begin(), owned(dir.path()).resume()] {
            let error = refused.unwrap_err();
            assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
        }
        assert!(dir.path().join(".out.tmp/thesis.tex").exists());
    }

    fn is_ours(entry: Entry<'_>) -> bool {
        match entry.path {
            "shards" => entry.is_dir,
            path => path.ends_with(".arrow") && entry.is_file,
        }
    }

    #[test]
    fn files_of_others_are_named_at_every_level_and_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &&str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        write(&"out/shards/0.arrow");
        check_ours(&dir.path().join("out"), is_ours).unwrap();
        ["out/shards/keep.tar", "out/notes.md", "out/shards/deep/1.arrow"].iter().for_each(write);
        let error = owned(dir.path()).check_ours(is_ours).unwrap_err().to_string();
        let expected =
            "out: holds files that pfc did not write: notes.md, shards/deep, shards/keep.tar";
        assert!(error.ends_with(expected), "{error}");
        remove_ours(&dir.path().join("out"), is_ours).unwrap();
        assert_eq!(names(&dir.path().join("out")), ["notes.md", "shards"]);
        assert_eq!(names(&dir.path().join("out/shards")), ["deep", "keep.tar"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_ours_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
        fs::write(dir.path().join("elsewhere/0.arrow"), "").unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", dir.path().join("out/shards")).unwrap();
        assert!(owned(dir.path()).check_ours(is_ours).is_err());
        remove_ours(&dir.path().join("out"), is_ours).unwrap();
        assert_eq!(names(&dir.path().join("elsewhere")), ["0.arrow"]);
    }

    #[test]
    fn temporary_names_are_told_from_others() {
        for name in [".a.abc123.tmp", ".00000.arrow.Ab0xyz.tmp"] {
            assert!(is_temporary_name(name), "{name}");
        }
        for name in [
            "abc123.tmp",
            ".thesis.tmp",
            "..thesis.tmp",
            ".abc.tmp",
            ".notes.tmp.md",
            ".my-work.tmp",
            ".a.b.tmp",
        ] {
            assert!(!is_temporary_name(name), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_output_in_its_input_is_found_through_links_and_missing_folders() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("raw/a")).unwrap();
        symlink("raw", path("link")).unwrap();
        symlink("raw/new", path("nowhere")).unwrap();
        for out in ["raw", "raw/x/y", "link", "link/x", "raw/../raw/x", "nowhere", "nowhere/x"] {
            let error = check_apart(&path("raw"), &path(out)).unwrap_err();
            assert!(matches!(error, FolderError::InsideInput { .. }), "{out}: {error}");
        }
        let error = check_apart(&path("raw/a"), &path("link")).unwrap_err();
        assert!(matches!(error, FolderError::AroundInput { .. }), "{error}");
        for out in ["rawer", "x/raw", "raw.out"] {
            check_apart(&path("raw"), &path(out)).unwrap();
        }
        check_apart(&path("missing"), &path("missing/x")).unwrap();
    }
}
