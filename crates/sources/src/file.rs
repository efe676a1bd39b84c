//! Image files read whole, within bounds.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use pfc_durable::{DurableError, faults::is_of_system};
use rayon::prelude::*;

use crate::{
    error::SourceError,
    reject::{ReadError, Reject},
};

/// Images beyond this are no face crops, and reading one would be felt.
pub const IMAGE_BYTES_MAX: u64 = 256 << 20;

/// The folder that images are read from, and the folders below and above it that they lie in, as they
/// were when the images were listed.
///
/// A disk that is unmounted or a folder that is renamed meanwhile holds none of its files, which says
/// nothing of them: they may be there again later.
///
/// Memory: 24 bytes per folder.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// The folders that were there, by a hash of their paths, ascending.
    known: Vec<Known>,
}

/// A folder as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    path_hash: u64,
    identity: Identity,
}

/// What tells a folder from another one of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// Device and number.
    Known(u64, u64),
    /// The system did not say, so that nothing is known of what lies there.
    Unknown,
}

/// More links than a system follows.
const LINKS_MAX: usize = 40;

impl Root {
    /// Remembers the folder at `path`, below which images are said to be.
    pub fn of(path: &Path) -> Root {
        Root::with(path, [path.to_path_buf()])
    }

    /// The same, and the folders of all `files`, whose paths start at `path`. They are looked at on the
    /// current thread pool.
    pub fn of_files<'a>(path: &Path, files: impl IntoIterator<Item = &'a str>) -> Root {
        // The first file of each folder stands for it: where images are links, theirs lead to where
        // the others' do, or near.
        let (mut firsts, mut last) = (HashMap::new(), None);
        for file in files {
            let folder = file.rfind('/').map_or("", |end| &file[..end.max(1)]);
            // Most files follow another one of their folder.
            if last.replace(folder) != Some(folder) {
                firsts.entry(folder).or_insert(file);
            }
        }
        let firsts: Vec<&str> = firsts.into_values().collect();
        let folders = firsts.into_par_iter().flat_map_iter(|file| folders_of(&path.join(file)));
        Root::with(path, folders.collect::<Vec<_>>())
    }

    /// The same of `folders` that lie below `path` or elsewhere.
    pub(crate) fn with(path: &Path, folders: impl IntoIterator<Item = PathBuf>) -> Root {
        let mut all: HashSet<PathBuf> = HashSet::new();
        for folder in folders.into_iter().chain([path.to_path_buf()]) {
            for above in folder.ancestors() {
                if !all.insert(above.to_path_buf()) {
                    break;
                }
            }
        }
        let mut known: Vec<Known> = all.par_iter().filter_map(|folder| Known::of(folder)).collect();
        known.sort_unstable();
        Root { path: path.to_path_buf(), known }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folders that the file at `path` lies in, also by way of a link, are those that they
    /// were: only then does its absence say something of it.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] with the topmost folder that is not.
    pub fn check(&self, path: &Path) -> Result<(), SourceError> {
        let folders = folders_of(path).into_iter().chain([self.path.clone()]);
        for folder in folders {
            let above: Vec<&Path> = folder.ancestors().collect();
            if let Some(gone) = above.into_iter().rev().find(|folder| self.is_gone(folder)) {
                return Err(SourceError::Gone { path: gone.to_path_buf() });
            }
        }
        Ok(())
    }

    fn is_gone(&self, folder: &Path) -> bool {
        let hash = path_hash(folder);
        let before = self.known.binary_search_by_key(&hash, |known| known.path_hash);
        before.is_ok_and(|i| {
            let known = self.known[i];
            known.identity == Identity::Unknown || Known::of(folder) != Some(known)
        })
    }
}

impl Known {
    /// The folder at `path`, if there is one.
    fn of(path: &Path) -> Option<Known> {
        // The current folder has an empty path where others start from it.
        let place = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let identity = match place.metadata() {
            Ok(meta) => numbers(&meta),
            Err(error) if is_of_system(&error) => Identity::Unknown,
            Err(_) => return None,
        };
        Some(Known { path_hash: path_hash(path), identity })
    }
}

/// The same for every spelling of a path, as with a slash at its end.
fn path_hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Parts alone are hashed with a path, of which the root and the current folder have none.
    (path.has_root(), path).hash(&mut hasher);
    hasher.finish()
}

/// The folder of the file at `path` and, if it is a link, of the file that it leads to, and so on.
pub(crate) fn folders_of(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let target = path.read_link();
        folders.push(folder);
        match (target, folders.last()) {
            (Ok(target), Some(folder)) => {
                let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                path = without_detours(&folder.join(target));
            }
            _ => break,
        }
    }
    folders
}

/// `path` without `..`, so that links to one folder give it one name.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(unix)]
fn numbers(meta: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity::Known(meta.dev(), meta.ino())
}

#[cfg(not(unix))]
fn numbers(_: &std::fs::Metadata) -> Identity {
    Identity::Known(0, 0)
}

/// The bytes of the file at `path`, which lies below `root`.
///
/// # Errors
///
/// [`ReadError::Reject`] for what is a fact about this file: [`Reject::Missing`],
/// [`Reject::TooManyBytes`] or [`Reject::Unreadable`]; [`ReadError::Fault`] if the system fails or
/// a folder that the file lies in is gone or may not be entered.
pub fn read_file(path: &Path, root: &Root) -> Result<Vec<u8>, ReadError> {
    match read(path) {
        Ok(bytes) => Ok(bytes?),
        Err(error) if is_of_system(&error) => Err(SourceError::at("read", path)(error).into()),
        Err(error) => {
            root.check(path)?;
            check_admitted(path, &error)?;
            Err(match error.kind() {
                io::ErrorKind::NotFound => Reject::Missing,
                _ => Reject::Unreadable(error.to_string()),
            }
            .into())
        }
    }
}

/// A folder that this user may not enter, for want of a right or of a ticket that has run out, hides all
/// that is in it, and says nothing of the file at `path`. A file alone that may not be read can be looked at.
fn check_admitted(path: &Path, error: &io::Error) -> Result<(), SourceError> {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if !is_denied(error) {
        return Ok(());
    }
    match path.metadata() {
        Err(error) if is_denied(&error) => {
            let folder = path.parent().unwrap_or(path);
            Err(SourceError::at("open the folder", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Whether there is a file or folder at `path`.
///
/// # Errors
///
/// [`DurableError`] if the system fails, which says nothing of the path.
pub fn exists(path: &Path) -> Result<bool, DurableError> {
    match path.try_exists() {
        Err(error) if is_of_system(&error) => Err(DurableError::at("look for", path)(error)),
        found => Ok(found.unwrap_or(false)),
    }
}

/// Whether there is a file at `path`, and no folder or pipe.
///
/// # Errors
///
/// As [`exists`].
pub fn is_file(path: &Path) -> Result<bool, DurableError> {
    match path.metadata() {
        Err(error) if is_of_system(&error) => Err(DurableError::at("look for", path)(error)),
        found => Ok(found.is_ok_and(|found| found.is_file())),
    }
}

fn read(path: &Path) -> io::Result<Result<Vec<u8>, Reject>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if let Err(reject) = check_size(size) {
        return Ok(Err(reject));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size as usize + 1)?;
    // The file may grow meanwhile; what is read stays bounded.
    file.take(IMAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

/// The size of a file, or 0 where it cannot be had: reading it will say why.
pub(crate) fn file_size(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// Refuses sizes that no image has.
///
/// # Errors
///
/// [`Reject::TooManyBytes`].
pub fn check_size(bytes: u64) -> Result<(), Reject> {
    if bytes > IMAGE_BYTES_MAX {
        return Err(Reject::TooManyBytes { bytes, bytes_max: IMAGE_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_file_is_left_out_only_while_its_folder_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("faces");
        fs::create_dir(&folder).unwrap();
        let root = Root::of(&folder);
        let missing = || read_file(&folder.join("1.jpg"), &root).unwrap_err();
        assert!(matches!(missing(), ReadError::Reject(Reject::Missing)));
        fs::rename(&folder, dir.path().join("gone")).unwrap();
        assert!(matches!(missing(), ReadError::Fault(SourceError::Gone { .. })));
        // An empty folder in its place, as a mount point is.
        fs::create_dir(&folder).unwrap();
        let error = missing();
        assert!(matches!(&error, ReadError::Fault(error) if error.hint().is_some()), "{error}");
    }

    /// Whether each file is missing, and not its folder, while `away` is called otherwise.
    #[track_caller]
    fn check_without(dir: &Path, root: &Root, away: &str, files: &[(&str, bool)]) {
        fs::rename(dir.join(away), dir.join("gone")).unwrap();
        for (file, is_missing) in files {
            let error = read_file(&root.path().join(file), root).unwrap_err();
            let found = matches!(error, ReadError::Reject(Reject::Missing));
            assert_eq!(found, *is_missing, "{file} without {away}: {error}");
        }
        fs::rename(dir.join("gone"), dir.join(away)).unwrap();
    }

    #[test]
    fn a_part_of_the_folders_that_vanishes_says_nothing_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["one/a", "one/b", "two/c"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let files = ["one/a/1.jpg", "one/b/2.jpg", "two/c/3.jpg", "three/d/4.jpg"];
        let root = Root::of_files(dir.path(), files);
        // What never was there is missing.
        let found = |gone: [bool; 3]| {
            let rest = [gone[0], gone[1], gone[2], false];
            std::iter::zip(files, rest.map(|gone| !gone)).collect::<Vec<_>>()
        };
        check_without(dir.path(), &root, "one/a", &found([true, false, false]));
        check_without(dir.path(), &root, "one", &found([true, true, false]));
        check_without(dir.path(), &root, "two", &found([false, false, true]));
        let error = || read_file(&dir.path().join(files[0]), &root).unwrap_err();
        assert!(matches!(error(), ReadError::Reject(Reject::Missing)));
        // Another folder of the same name, as a mount point is.
        fs::rename(dir.path().join("one"), dir.path().join("gone")).unwrap();
        fs::create_dir_all(dir.path().join("one/a")).unwrap();
        let ReadError::Fault(SourceError::Gone { path }) = error() else { panic!("{}", error()) };
        assert_eq!(path, dir.path().join("one"));
    }

    #[cfg(unix)]
    #[test]
    fn links_into_a_folder_that_vanishes_say_nothing_of_its_files() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        for folder in ["store/a", "raw/a"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for name in ["1.jpg", "2.jpg"] {
            fs::write(dir.path().join("store/a").join(name), "x").unwrap();
        }
        symlink(dir.path().join("store/a/1.jpg"), dir.path().join("raw/a/1.jpg")).unwrap();
        symlink("../../store/a/2.jpg", dir.path().join("raw/a/2.jpg")).unwrap();
        symlink("2.jpg", dir.path().join("raw/a/3.jpg")).unwrap();
        let files = ["a/1.jpg", "a/2.jpg", "a/3.jpg"];
        let root = Root::of_files(&dir.path().join("raw"), files);
        for away in ["store", "store/a"] {
            check_without(dir.path(), &root, away, &files.map(|file| (file, false)));
        }
        fs::remove_file(dir.path().join("store/a/2.jpg")).unwrap();
        let missing = |file: &str| {
            let error = read_file(&root.path().join(file), &root).unwrap_err();
            matches!(error, ReadError::Reject(Reject::Missing))
        };
        assert!(missing("a/2.jpg") && missing("a/3.jpg"));
    }

    #[test]
    fn a_part_of_a_source_that_goes_away_is_no_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a/1.jpg", "a/x/2.jpg", "b/3.jpg", "b/4.jpg"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "x").unwrap();
        }
        let is_gone = |root: &Root, name: &str| match read_file(&at(name), root).unwrap_err() {
            ReadError::Fault(SourceError::Gone { path }) => Some(path),
            ReadError::Reject(Reject::Missing) => None,
            error => panic!("{error}"),
        };
        let listed = Root::of_files(dir.path(), ["a/1.jpg", "b/3.jpg"]);
        let told = Root::of(dir.path());
        fs::remove_file(at("b/3.jpg")).unwrap();
        for root in [&listed, &told] {
            read_file(&at("a/1.jpg"), root).unwrap();
            assert_eq!(is_gone(root, "b/3.jpg"), None);
        }
        fs::rename(at("a"), at("gone")).unwrap();
        fs::rename(at("b"), at("gone too")).unwrap();
        // A folder below one that is gone.
        assert_eq!(is_gone(&listed, "a/x/2.jpg"), Some(at("a")));
        assert_eq!(is_gone(&listed, "a/1.jpg"), Some(at("a")));
        assert_eq!(is_gone(&listed, "b/4.jpg"), Some(at("b")));
        // Nobody said that files lie in it.
        assert_eq!(is_gone(&told, "b/4.jpg"), None);
        // Another folder in its place.
        fs::create_dir(at("a")).unwrap();
        assert_eq!(is_gone(&listed, "a/1.jpg"), Some(at("a")));
    }

    #[test]
    fn a_folder_that_never_was_tells_nothing_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::of(&dir.path().join("nowhere"));
        let error = read_file(&dir.path().join("nowhere/1.jpg"), &root).unwrap_err();
        assert!(matches!(error, ReadError::Reject(Reject::Missing)));
    }
}
