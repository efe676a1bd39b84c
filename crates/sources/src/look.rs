//! What a file or folder is: by the names in it and by first bytes. A folder is looked into, two
//! levels deep, before anything is said about it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use pfc_cli::units;
use pfc_durable::faults::is_of_system;
use pfc_image::{Sniffed, has_image_extension, sniff};
use pfc_recordio::{MAGIC, RecordPaths};

use crate::{
    error::SourceError, file::is_file, kind::InputKind, list, shards, table, tar, walk::is_system,
};

/// Folders that are looked into, of those in a folder: the first by name. Where images are, they are
/// in all of them.
const FOLDERS_MAX: usize = 64;
/// The same one level further down.
const FOLDERS_BELOW_MAX: usize = 8;
/// Files without a telling name that are opened, of those in a folder.
const OPENED_MAX: usize = 8;

/// What is to be read, and as what.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    /// The path given, or what lies in it.
    pub path: PathBuf,
    /// What it is.
    pub kind: InputKind,
}

/// What lies directly in a folder, the system's own files aside; sorted by name.
#[derive(Debug, Default)]
struct Seen {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    has_images: bool,
}

impl Seen {
    fn of(dir: &Path) -> Result<Seen, SourceError> {
        let mut seen = Seen::default();
        for entry in dir.read_dir().map_err(SourceError::at("list", dir))? {
            let entry = entry.map_err(SourceError::at("list", dir))?;
            if is_system(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let file_type = entry.file_type().map_err(SourceError::at("look at", &path))?;
            if file_type.is_dir() || file_type.is_symlink() && path.is_dir() {
                seen.folders.push(path);
            } else {
                seen.files.push(path);
            }
        }
        seen.folders.sort_unstable();
        seen.files.sort_unstable();
        let unknown = seen.files.iter().filter(|path| by_name(path).is_none());
        seen.has_images = seen.files.iter().any(|path| has_image_extension(path));
        for path in unknown.take(OPENED_MAX) {
            seen.has_images = seen.has_images || holds_image(path)?;
        }
        Ok(seen)
    }

    /// The first file of a kind that fills folders, and how many there are.
    fn shards(&self, kind: InputKind) -> Option<(&Path, u64)> {
        let mut files = self.files.iter().filter(|path| by_name(path) == Some(kind));
        let first = files.next()?;
        Some((first, 1 + files.count() as u64))
    }

    fn has_file(&self, name: &str) -> bool {
        self.files.iter().any(|path| path.file_name() == Some(name.as_ref()))
    }

    /// A person's folder may have any name.
    fn has_folder(&self, name: &str) -> bool {
        self.folders.iter().any(|path| path.file_name() == Some(name.as_ref()))
    }

    fn some_ends_in(&self, ending: &str) -> bool {
        self.files.iter().any(|path| name_of(path).contains(ending))
    }
}

/// The kinds of which there are several files in a folder.
const SHARDED: [InputKind; 3] = [InputKind::Recordio, InputKind::Tar, InputKind::Parquet];

/// What the folder `raw` is.
///
/// # Errors
///
/// [`SourceError::OtherFormat`] if it is of a kind that is known and not read,
/// [`SourceError::Contradiction`] or [`SourceError::Below`] if it may be several things, and what
/// listing it gives.
pub fn folder(raw: &Path) -> Result<Look, SourceError> {
    let here = |kind| Look { path: raw.to_path_buf(), kind };
    let top = Seen::of(raw)?;
    if let Some(error) = other_folder(raw, &top) {
        return Err(error);
    }
    if RecordPaths::find(raw).is_some() {
        return Ok(here(InputKind::Recordio));
    }
    let found: Vec<(InputKind, &Path)> =
        SHARDED.iter().filter_map(|kind| Some((*kind, top.shards(*kind)?.0))).collect();
    let name = |path: &Path| name_of(path);
    let ambiguous = |what: String| SourceError::Contradiction { path: raw.to_path_buf(), what };
    match found[..] {
        [] => {}
        [(kind, _)] if top.folders.is_empty() => {
            warn_of_splits(raw, &top, kind);
            return Ok(here(kind));
        }
        [(_, a)] => {
            let a = name(a);
            let what = format!("it holds both folders and {a}: which of them is to be packed?");
            return Err(ambiguous(what));
        }
        [(_, a), (_, b), ..] => {
            let (a, b) = (name(a), name(b));
            let what = format!("it holds both {a} and {b}: which of them is to be packed?");
            return Err(ambiguous(what));
        }
    }
    // What `pfc-ingest export --to list` writes.
    if top.has_file("list.tsv") && top.has_folder("images") {
        return Ok(Look { path: raw.join("list.tsv"), kind: InputKind::List });
    }
    below(raw, &top)
}

/// Looks for shards in the folders of a folder that holds none, unless there are images.
fn below(raw: &Path, top: &Seen) -> Result<Look, SourceError> {
    let identities = || Look { path: raw.to_path_buf(), kind: InputKind::Folder };
    let mut places: Vec<(PathBuf, InputKind, u64)> = Vec::new();
    for dir in top.folders.iter().take(FOLDERS_MAX) {
        let seen = Seen::of(dir)?;
        if let Some(error) = other_folder(dir, &seen) {
            return Err(error);
        }
        if seen.has_images {
            return Ok(identities());
        }
        add_shards(dir, &seen, &mut places);
        for dir in seen.folders.iter().take(FOLDERS_BELOW_MAX) {
            let seen = Seen::of(dir)?;
            if seen.has_images {
                return Ok(identities());
            }
            add_shards(dir, &seen, &mut places);
        }
    }
    let described = |(path, kind, n): &(PathBuf, InputKind, u64)| {
        let path = path.strip_prefix(raw).unwrap_or(path);
        format!("{} of {} in {}", units::of(*n, "file"), kind.describe(), path.display())
    };
    match &places[..] {
        [] => Ok(identities()),
        [one] => {
            tracing::warn!("{}: {}, which is read", raw.display(), described(one));
            warn_of_splits(&one.0, &Seen::of(&one.0)?, one.1);
            Ok(Look { path: one.0.clone(), kind: one.1 })
        }
        [first, ..] => Err(SourceError::Below {
            path: raw.to_path_buf(),
            seen: places.iter().map(described).collect(),
            example: first.0.clone(),
        }),
    }
}

fn add_shards(dir: &Path, seen: &Seen, places: &mut Vec<(PathBuf, InputKind, u64)>) {
    for kind in SHARDED {
        if let Some((_, n)) = seen.shards(kind) {
            places.push((dir.to_path_buf(), kind, n));
        }
    }
}

/// Says that the files of a folder are those of several splits, as `train-` and `test-00000.parquet`.
fn warn_of_splits(dir: &Path, seen: &Seen, kind: InputKind) {
    const SPLITS: &[&str] =
        &["train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"];
    let files = seen.files.iter().filter(|path| by_name(path) == Some(kind));
    let words = files.filter_map(|path| {
        let name = name_of(path).to_ascii_lowercase();
        let word = name.split(|c: char| !c.is_ascii_alphabetic()).next()?;
        SPLITS.contains(&word).then(|| word.to_owned())
    });
    let mut words: Vec<String> = words.collect();
    words.sort_unstable();
    words.dedup();
    if words.len() > 1 {
        tracing::warn!(
            "{}: the files of {} are all read; a pattern names those of one",
            dir.display(),
            words.join(" and ")
        );
    }
}

/// Folders of other programs, each with the way out.
fn other_folder(dir: &Path, seen: &Seen) -> Option<SourceError> {
    let other = |what: &str, way_out: String| {
        let (path, what) = (dir.to_path_buf(), what.to_owned());
        Some(SourceError::OtherFormat { path, what, way_out })
    };
    let convert = "export the images to folders, one per identity, or to a list, with the program \
                   that wrote it";
    match () {
        () if seen.has_file("dataset.json") && seen.has_folder("shards") => other(
            "a data set that is packed already",
            format!(
                "train on it as it is; `pfc-ingest inspect {0}` shows it, `pfc-ingest export {0} OUT \
                 --to folder` writes its images",
                dir.display()
            ),
        ),
        () if seen.has_file("dataset_dict.json") && seen.folders.len() != 1 => {
            let splits: Vec<String> = seen.folders.iter().map(|path| name_of(path)).collect();
            let first = seen.folders.first().map_or("train".into(), |path| name_of(path));
            other(
                &format!("a DatasetDict of Hugging Face with the splits {}", splits.join(", ")),
                format!("give one of them, such as {}", dir.join(first).display()),
            )
        }
        () if seen.has_file("data.mdb") || seen.some_ends_in(".lmdb") => {
            other("an LMDB database, which is not read", convert.into())
        }
        () if seen.some_ends_in(".mds") => {
            other("a data set of MosaicML Streaming (MDS), which is not read", convert.into())
        }
        () if seen.some_ends_in(".tfrecord") => {
            other("a folder of TFRecord files, which are not read", convert.into())
        }
        () if seen.some_ends_in(".beton") => {
            other("a folder of FFCV files (.beton), which are not read", convert.into())
        }
        () if seen.has_file("__rootdirs__")
            || seen.has_file("__attrs__") && seen.has_folder("meta") =>
        {
            other(
                "a bcolz array, which is not read",
                "verification sets of face.evoLVe are the same pairs as InsightFace's .bin files: \
             give those"
                    .into(),
            )
        }
        () => None,
    }
}

/// What a file is that is of no kind that is read.
pub fn other_file(path: &Path) -> io::Result<Option<SourceError>> {
    let head = head(path)?;
    let unpack = "unpack it, and pack the folder that comes out";
    let convert = "export the images to folders, one per identity, or to a list";
    let name = name_of(path).to_ascii_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    let (what, way_out) = match &head[..] {
        head if head.starts_with(b"version https://git-lfs") => {
            ("a pointer of Git LFS and not the file itself", "fetch it with `git lfs pull`")
        }
        _ if ends(".npz") => ("a NumPy archive, which is not read", convert),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => {
            ("a zip archive, which is not read", unpack)
        }
        [b'P', b'K'] if ends(".zip") => ("a zip archive, which is not read", unpack),
        [b'R', b'a', b'r', b'!', ..] => ("a RAR archive, which is not read", unpack),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7z archive, which is not read", unpack),
        [b'B', b'Z', b'h', ..] => ("compressed by bzip2, which is not read", unpack),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("compressed by xz, which is not read", unpack),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file, which is not read", convert),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => ("a NumPy array, which is not read", convert),
        _ if name.contains(".tfrecord") => ("a TFRecord file, which is not read", convert),
        _ if ends(".mdb") || ends(".lmdb") => ("an LMDB database, which is not read", convert),
        _ if ends(".beton") => ("an FFCV file, which is not read", convert),
        _ if ends(".jsonl") => (
            "a list in JSON, which is not read",
            "write it as CSV, with columns such as file_name and label",
        ),
        _ if ends(".mds") => ("a file of MosaicML Streaming, which is not read", convert),
        head if sniff(head) != Sniffed::NotAnImage => {
            ("one image", "give a folder with one sub-folder of images per identity, or a list")
        }
        _ => return Ok(None),
    };
    let (path, what) = (path.to_path_buf(), what.to_owned());
    Ok(Some(SourceError::OtherFormat { path, what, way_out: way_out.into() }))
}

/// What the name of a file promises.
pub fn by_name(path: &Path) -> Option<InputKind> {
    let has = |endings: &[&str]| shards::has_ending(path, endings);
    match () {
        () if has(&[".rec"]) => Some(InputKind::Recordio),
        () if has(tar::ENDINGS) => Some(InputKind::Tar),
        () if has(table::ENDINGS) => Some(InputKind::Parquet),
        () if has(list::ENDINGS) => Some(InputKind::List),
        () if has(&[".bin"]) => Some(InputKind::Bin),
        () => None,
    }
}

/// What the first bytes of a file are, where they are those of one kind alone.
///
/// # Errors
///
/// That of the system.
pub fn by_content(path: &Path) -> io::Result<Option<InputKind>> {
    let head = head(path)?;
    Ok(match &head[..] {
        head if head.starts_with(&MAGIC) => Some(InputKind::Recordio),
        [b'P', b'A', b'R', b'1', ..]
        | [b'A', b'R', b'R', b'O', b'W', b'1', ..]
        | [0xff, 0xff, 0xff, 0xff, ..] => Some(InputKind::Parquet),
        head if head.get(257..262) == Some(b"ustar") => Some(InputKind::Tar),
        // A pickle of a protocol that names itself.
        [0x80, 2..=5, ..] => Some(InputKind::Bin),
        _ => None,
    })
}

/// Whether a file begins as UTF-8 text.
///
/// # Errors
///
/// A fault of the system, which says nothing of the file.
pub fn is_text(path: &Path) -> Result<bool, SourceError> {
    let head = known_head(path)?;
    let is_cut = |error: std::str::Utf8Error| error.error_len().is_none();
    Ok(!head.is_empty()
        && !head.contains(&0)
        && std::str::from_utf8(&head).map_or_else(is_cut, |_| true))
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(head)
}

/// The first bytes of a file; of one that cannot be read none.
fn known_head(path: &Path) -> Result<Vec<u8>, SourceError> {
    match head(path) {
        Err(error) if is_of_system(&error) => Err(SourceError::at("read", path)(error)),
        head => Ok(head.unwrap_or_default()),
    }
}

fn holds_image(path: &Path) -> Result<bool, SourceError> {
    Ok(is_file(path)? && sniff(&known_head(path)?) != Sniffed::NotAnImage)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(OsString::from).unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let is_image = has_image_extension(&path) || path.extension().is_none();
            fs::write(path, if is_image { JPEG } else { b"x" }).unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_is_what_lies_in_it_or_in_the_one_place_below() {
        use InputKind::*;
        let cases: &[(&[&str], &str, InputKind)] = &[
            (&["ann/1.jpg"], "", Folder),
            (&["part/ann/1.jpg"], "", Folder),
            (&["ann/1"], "", Folder),
            (&[], "", Folder),
            (&["train.rec", "val.rec", "x/1.jpg"], "", Recordio),
            (&["part_0.rec", "part_1.rec"], "", Recordio),
            (&["a.tar"], "", Tar),
            (&["a.parquet", "README.md", ".git/x", "__MACOSX/a.tar"], "", Parquet),
            (&["README.md", "data/train-00000-of-00001.parquet"], "data", Parquet),
            (&["default/train/0.parquet"], "default/train", Parquet),
            (&["recs/mine.rec", "recs/mine.idx"], "recs", Recordio),
            (&["shards/000.tar", "shards/001.tar"], "shards", Tar),
            (&["dataset_dict.json", "train/data-0.arrow"], "train", Parquet),
            (&["list.tsv", "images/ann/1.jpg", "identities.tsv"], "list.tsv", List),
        ];
        for (paths, place, kind) in cases {
            let dir = tree(paths);
            let look = folder(dir.path()).unwrap();
            let path = if place.is_empty() { dir.path().into() } else { dir.path().join(place) };
            assert_eq!(look, Look { path, kind: *kind }, "{paths:?}");
        }
    }

    #[test]
    fn folders_of_other_programs_are_named() {
        for (paths, word) in [
            (&["dataset.json", "shards/00000.arrow"][..], "packed already"),
            (
                &["dataset_dict.json", "train/data-0.arrow", "test/data-0.arrow"],
                "splits test, train",
            ),
            (&["data.mdb", "lock.mdb"], "LMDB"),
            (&["faces/data.mdb"], "LMDB"),
            (&["index.json", "shard.00000.mds"], "MDS"),
            (&["faces.tfrecord-00000-of-00002"], "TFRecord"),
            (&["faces.beton"], "FFCV"),
            (&["lfw/__rootdirs__"], "bcolz"),
        ] {
            let dir = tree(paths);
            let error = folder(dir.path()).unwrap_err();
            assert!(matches!(error, SourceError::OtherFormat { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn people_may_be_called_as_files_of_other_programs_are() {
        let names =
            ["list.tsv", "images", "data.mdb", "dataset.json", "shards", "__attrs__", "meta"];
        let more = ["dataset_dict.json", "__rootdirs__", "a.tar", "train.rec", "x.lmdb"];
        let paths: Vec<String> =
            names.iter().chain(&more).map(|name| format!("{name}/1.jpg")).collect();
        let dir = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let found = folder(dir.path()).unwrap();
        assert_eq!(found, Look { path: dir.path().to_path_buf(), kind: InputKind::Folder });
        // What `pfc-ingest export --to list` writes.
        let dir = tree(&["list.tsv", "images/1.jpg"]);
        assert_eq!(folder(dir.path()).unwrap().kind, InputKind::List);
    }

    #[test]
    fn what_may_be_several_things_is_told_by_what_was_seen() {
        let dir = tree(&["train/0.tar", "train/1.tar", "val/0.tar"]);
        let error = folder(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("2 files of tar in train, 1 file of tar in val"), "{error}");
        let both = folder(tree(&["a.tar", "b.parquet"]).path()).unwrap_err().to_string();
        assert!(
            both.ends_with("it holds both a.tar and b.parquet: which of them is to be packed?")
        );
        assert!(folder(tree(&["a.tar", "x/1.jpg"]).path()).is_err());
    }

    #[test]
    fn files_of_other_programs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let other = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            other_file(&path).unwrap().map(|error| error.to_string())
        };
        for (name, bytes, word) in [
            ("a.zip", &b"PK\x03\x04"[..], "zip"),
            ("a", b"PK\x03\x04", "zip"),
            ("a.tar.xz", b"\xfd7zXZ\0", "xz"),
            ("a.tar.bz2", b"BZh9", "bzip2"),
            ("a.h5", b"\x89HDF\r\n", "HDF5"),
            ("a.npy", b"\x93NUMPY", "NumPy"),
            ("a.tfrecord", b"\x10\0\0\0", "TFRecord"),
            ("a.beton", b"x", "FFCV"),
            ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            ("metadata.jsonl", b"{\"file_name\": \"a.jpg\"}\n", "JSON"),
            ("a.jpg", JPEG, "one image"),
        ] {
            let found = other(name, bytes).unwrap_or_default();
            assert!(found.contains(word), "{name}: {found}");
        }
        assert_eq!(other("a.xyz", b"hello"), None);
    }
}
