//! Identity folders: the folder that directly holds images is the identity, at any depth.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    io::{self, Write},
    path::Path,
};

use pfc_cli::units;
use pfc_durable::faults::is_of_system;

use crate::{
    catalogue::{Catalogue, People, Sealed},
    error::SourceError,
    file::{Root, file_size, read_file},
    folders::{Parts, check_nesting, warn_of_parts, who},
    identities,
    index::Index,
    look::other_file,
    reject::{ReadError, Reject},
    source::{LeftOut, Source, nothing, stamp, write_paths},
    walk::{Listing, is_system},
};

/// A folder of identity folders, indexed.
///
/// Memory: the file names' own bytes and 8 bytes per image, and per folder about 125 and its path.
pub struct FolderSource {
    root: Root,
    listing: Listing,
    index: Index,
    /// The folders by label, each with the entry number of its first image.
    order: Vec<(u32, u64)>,
}

impl FolderSource {
    /// Lists all folders below `root`, following links. Files without the extension of an image are
    /// opened to see whether they are one. A folder's name is read as any label is: whole numbers
    /// give the order, and the images of `-1` are nobody's.
    ///
    /// Where identities are optional, images may lie directly in `root`, and a folder of images inside
    /// another.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if there is no identity, one lies inside another, or a folder cannot be listed, or a
    /// link makes it endless.
    pub fn open(root: &Path, parts: Parts, people: People) -> Result<FolderSource, SourceError> {
        let mut listing = Listing::of(root)?;
        if people == People::Needed {
            let dirs = listing.dirs.iter().map(|dir| dir.path.as_str());
            check_nesting(dirs.clone())?;
            if parts == Parts::Apart {
                warn_of_parts(&root.display().to_string(), dirs);
            }
        }
        let name = root.display().to_string();
        let mut catalogue = Catalogue::of(people);
        for i in 0..listing.dirs.len() {
            let path = &listing.dirs[i].path;
            let (who, is_loose) = match path.is_empty() {
                true => (Err(String::new()), true),
                false => (who(path, parts), false),
            };
            match catalogue.push_or_leave_out(&name, who)? {
                None => {}
                Some(_) if is_loose => listing.leave_out(i, &Reject::NoIdentity),
                Some(problem) => listing.leave_out(i, &Reject::NoLabel(problem)),
            }
        }
        if catalogue.is_nobody() {
            return Err(match people {
                People::Needed => no_identities(root, &listing.left_out)?,
                People::Optional => no_images(root, &listing.left_out)?,
            });
        }
        let n_images = |dir: usize| listing.dirs[dir].images.len() as u64;
        let Sealed { mut index, order } = catalogue.seal_for(people, &name, n_images);
        identities::rename_folders(&mut index, root)?;
        let mut next = 0;
        let with_first = |dir: u32| {
            let first = next;
            next += n_images(dir as usize);
            (dir, first)
        };
        let order = order.into_iter().map(with_first).collect();
        let root = Root::with(root, listing.folders(root));
        Ok(FolderSource { root, listing, index, order })
    }

    /// The number of an image in the listing.
    fn listed(&self, entry: u64) -> usize {
        let (dir, first) = self.order[self.order.partition_point(|(_, first)| *first <= entry) - 1];
        self.listing.dirs[dir as usize].images.start + (entry - first) as usize
    }
}

impl Source for FolderSource {
    fn name(&self) -> String {
        self.root.path().display().to_string()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn path(&self, entry: u64) -> String {
        self.listing.path(self.listed(entry))
    }

    fn place(&self, entry: u64) -> u64 {
        self.listed(entry) as u64
    }

    fn stamp(&self, entry: u64) -> u128 {
        let path = self.path(entry);
        stamp(&path, &[file_size(&self.root.path().join(&path))])
    }

    fn write_names(&self, out: &mut dyn Write) -> io::Result<()> {
        // Sizes are not read, as that would cost a system call per file.
        write_paths(self, |_| 0, out)
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        read_file(&self.root.path().join(self.path(entry)), &self.root)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.listing.left_out
    }
}

/// Whether a folder at this path below the input is read as the identity of this very name: no part of
/// it is a name that systems use, and it stands neither for nobody nor for a number that is spelled in
/// another way.
pub fn is_read_as_named(path: &str) -> bool {
    let is_system = path.split('/').any(|part| part.is_empty() || is_system(part.as_ref()));
    !is_system && who(path, Parts::Apart).is_ok_and(|who| &*who.into_name() == path)
}

/// What to say of a folder without an identity.
///
/// # Errors
///
/// If the system fails while its files are looked at.
fn no_identities(root: &Path, left_out: &[LeftOut]) -> Result<SourceError, SourceError> {
    let n_loose = left_out.iter().filter(|l| l.reject == Reject::NoIdentity).count() as u64;
    let lost = left_out.iter().filter(|l| !l.reject.is_skip());
    if let Some(LeftOut { source, reject }) = lost.clone().next() {
        let (path, n) = (root.display().to_string(), lost.count() as u64);
        return Ok(SourceError::NothingUsable { path, n, example: format!("{source}: {reject}") });
    }
    if n_loose == 0
        && let Some(other) = of_other_program(root, left_out)?
    {
        return Ok(other);
    }
    let list = list_beside(left_out).filter(|_| n_loose > 0);
    Ok(SourceError::NoIdentities { path: root.to_path_buf(), seen: seen(left_out), n_loose, list })
}

/// Kinds of files that are named.
const KINDS_MAX: usize = 5;

/// What a folder holds that has no image of anybody: how many files of which endings, most of them first.
fn seen(left_out: &[LeftOut]) -> String {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for LeftOut { source, reject } in left_out {
        let kind = match reject {
            Reject::NoIdentity => "image".into(),
            Reject::SystemFile => "system file".into(),
            _ => match Path::new(source).extension() {
                Some(ending) => format!(".{} file", ending.to_string_lossy().to_lowercase()),
                None => "other file".into(),
            },
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut kinds: Vec<(String, u64)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, n)| Reverse(*n));
    let n_more: u64 = kinds.iter().skip(KINDS_MAX).map(|(_, n)| n).sum();
    kinds.truncate(KINDS_MAX);
    let mut named: Vec<String> = kinds.iter().map(|(kind, n)| units::of(*n, kind)).collect();
    named.extend((n_more > 0).then(|| format!("{} more", units::count(n_more))));
    match named.split_last() {
        None => "there is no file in it".into(),
        Some((one, [])) => format!("it holds {one}"),
        Some((last, others)) => format!("it holds {} and {last}", others.join(", ")),
    }
}

/// The first of the files that is known and not read, of each ending one, with the way out.
///
/// # Errors
///
/// If the system fails.
fn of_other_program(root: &Path, left_out: &[LeftOut]) -> Result<Option<SourceError>, SourceError> {
    let mut endings = HashSet::new();
    let others = left_out.iter().filter(|l| l.reject == Reject::OtherFile);
    for LeftOut { source, .. } in others {
        let path = root.join(source);
        if endings.len() < KINDS_MAX && endings.insert(path.extension().map(OsStr::to_os_string)) {
            match other_file(&path) {
                Ok(Some(other)) => return Ok(Some(other)),
                Err(error) if is_of_system(&error) => {
                    return Err(SourceError::at("read", &path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

/// The file beside the loose images that is most likely a list of them: `metadata.csv` or
/// `metadata.jsonl`, as Hugging Face's folders of images have it, or a table.
fn list_beside(left_out: &[LeftOut]) -> Option<String> {
    let is_beside = |l: &&LeftOut| l.reject == Reject::OtherFile && !l.source.contains('/');
    let rank = |name: &str| match name.to_ascii_lowercase().rsplit_once('.') {
        Some(("metadata", "csv" | "jsonl")) => Some(0),
        Some((_, "csv" | "tsv" | "lst" | "list")) => Some(1),
        _ => None,
    };
    let lists = left_out.iter().filter(is_beside).filter_map(|l| Some((rank(&l.source)?, l)));
    Some(lists.min_by_key(|(rank, _)| *rank)?.1.source.clone())
}

/// What to say of a folder without an image.
///
/// # Errors
///
/// If the system fails while its files are looked at.
fn no_images(root: &Path, left_out: &[LeftOut]) -> Result<SourceError, SourceError> {
    let lost: Vec<LeftOut> = left_out.iter().filter(|l| !l.reject.is_skip()).cloned().collect();
    if !lost.is_empty() {
        return Ok(nothing(&root.display().to_string(), &lost));
    }
    let other = of_other_program(root, left_out)?;
    Ok(other.unwrap_or_else(|| SourceError::NoImagesBelow {
        path: root.to_path_buf(),
        seen: seen(left_out),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.as_os_str().as_encoded_bytes()).unwrap();
        }
        dir
    }

    fn rows(source: &FolderSource) -> Vec<(u32, &str, String)> {
        let index = source.index();
        let row = |entry| {
            let path = source.path(entry);
            let bytes = source.read(entry).unwrap();
            assert!(bytes.ends_with(path.as_bytes()));
            (index.label(entry), index.identity(entry), path)
        };
        (0..index.len()).map(row).collect()
    }

    #[track_caller]
    fn check(paths: &[&str], parts: Parts, expected: &[(u32, &str, &str)]) {
        let dir = tree(paths);
        let source = FolderSource::open(dir.path(), parts, People::Needed).unwrap();
        let expected: Vec<_> = expected.iter().map(|&(l, n, p)| (l, n, p.to_owned())).collect();
        assert_eq!(rows(&source), expected);
    }

    #[test]
    fn names_get_labels_in_byte_order_and_numbers_in_their_own() {
        check(
            &["b/x/2.jpg", "b/x/1.jpg", "a/9.jpg", "b-y/3.jpg"],
            Parts::Apart,
            &[
                (0, "a", "a/9.jpg"),
                (1, "b-y", "b-y/3.jpg"),
                (2, "b/x", "b/x/1.jpg"),
                (2, "b/x", "b/x/2.jpg"),
            ],
        );
        check(
            &["10/1.jpg", "2/1.jpg", "0/1.jpg", "3.0/1.jpg"],
            Parts::Apart,
            &[
                (0, "0", "0/1.jpg"),
                (1, "2", "2/1.jpg"),
                (2, "3", "3.0/1.jpg"),
                (3, "10", "10/1.jpg"),
            ],
        );
        // Padded numbers are names, whose byte order is that of the numbers.
        check(
            &["0000102/1.jpg", "0000045/1.jpg"],
            Parts::Apart,
            &[(0, "0000045", "0000045/1.jpg"), (1, "0000102", "0000102/1.jpg")],
        );
    }

    #[test]
    fn parts_stay_apart_unless_they_are_to_be_joined() {
        let paths = ["train/p0/1.jpg", "train/p1/1.jpg", "val/p0/2.jpg", "testing/p1/9.jpg"];
        check(
            &paths,
            Parts::Joined,
            &[
                (0, "p0", "train/p0/1.jpg"),
                (0, "p0", "val/p0/2.jpg"),
                (1, "p1", "testing/p1/9.jpg"),
                (1, "p1", "train/p1/1.jpg"),
            ],
        );
        let dir = tree(&paths);
        let source = FolderSource::open(dir.path(), Parts::Apart, People::Needed).unwrap();
        let names: Vec<&str> = source.index().identities().collect();
        assert_eq!(names, ["testing/p1", "train/p0", "train/p1", "val/p0"]);
    }

    #[test]
    fn spellings_of_a_name_in_unicode_are_one_identity() {
        let dir = tree(&["Jos\u{e9}/1.jpg", "Jose\u{301}/2.jpg", "Jose/3.jpg"]);
        let source = FolderSource::open(dir.path(), Parts::Apart, People::Needed).unwrap();
        let labels: Vec<u32> = (0..3).map(|entry| source.index().label(entry)).collect();
        assert_eq!((source.index().n_identities(), labels), (2, vec![0, 1, 1]));
        rows(&source);
    }

    #[test]
    fn the_images_of_a_folder_that_stands_for_nobody_are_left_out() {
        let dir = tree(&["0/1.jpg", "-1/1.jpg", "-1/2.jpg", "train/nan/3.jpg", "loose.jpg"]);
        let source = FolderSource::open(dir.path(), Parts::Apart, People::Needed).unwrap();
        assert_eq!(rows(&source), [(0, "0", "0/1.jpg".to_owned())]);
        let mut reasons: Vec<&str> = source.left_out().iter().map(|l| l.reject.reason()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["no_identity", "no_label", "no_label", "no_label"]);
        let dir = tree(&["-1/1.jpg"]);
        let error = FolderSource::open(dir.path(), Parts::Apart, People::Needed).err().unwrap();
        assert!(matches!(error, SourceError::NothingUsable { n: 1, .. }), "{error}");
    }

    #[test]
    fn a_list_beside_loose_images_is_named() {
        let hint = |paths: &[&str]| {
            let dir = tree(paths);
            let error = FolderSource::open(dir.path(), Parts::Apart, People::Needed).err().unwrap();
            error.hint().unwrap().replace(&dir.path().display().to_string(), "raw")
        };
        let expected = "2 images lie directly in raw, and raw/metadata.csv may say who is on them: \
                        pack that list";
        assert_eq!(hint(&["1.jpg", "2.jpg", "a.csv", "metadata.csv", "notes.txt"]), expected);
        let json = hint(&["1.jpg", "metadata.jsonl"]);
        assert!(json.contains("raw/metadata.jsonl"), "{json}");
        assert!(!hint(&["1.jpg", "notes.txt"]).contains("notes"));
    }

    #[test]
    fn an_identity_inside_another_is_an_error() {
        let dir = tree(&["a/1.jpg", "a/b/c/1.jpg", "b/1.jpg"]);
        let error = FolderSource::open(dir.path(), Parts::Apart, People::Needed).err().unwrap();
        let expected = "`a/b/c` lies inside `a`, and both hold images, so that it is unclear which is the identity";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn images_anywhere_are_taken_where_identities_are_optional() {
        let dir = tree(&["a/1.jpg", "a/b/2.jpg", "loose.jpg", "-1/3.jpg", "train/a/4.jpg"]);
        let source = FolderSource::open(dir.path(), Parts::Apart, People::Optional).unwrap();
        let rows: Vec<(Option<u32>, String)> = (0..source.index().len())
            .map(|entry| (source.index().who(entry), source.path(entry)))
            .collect();
        let row = |who, path: &str| (who, path.to_owned());
        assert_eq!(
            rows,
            [
                row(Some(0), "a/1.jpg"),
                row(Some(1), "a/b/2.jpg"),
                row(Some(2), "train/a/4.jpg"),
                row(None, "loose.jpg"),
                row(None, "-1/3.jpg"),
            ]
        );
        assert!(source.left_out().is_empty());
        let error = FolderSource::open(tree(&["notes.txt"]).path(), Parts::Apart, People::Optional);
        assert!(matches!(error, Err(SourceError::NoImagesBelow { .. })));
    }
}
