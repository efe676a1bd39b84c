//! Finds out what a file or folder is, by names and by first bytes. A folder is looked into, two levels deep,
//! before anything is said about it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use pfc_cli::units;
use pfc_durable::faults::is_of_system;
use pfc_image::{Sniffed, has_image_extension, sniff};
use pfc_recordio::{MAGIC, RecordPaths};

use crate::{
    error::SourceError,
    file::is_file,
    kind::{InputKind, Look},
    list, lmdb, shards,
    splits::{Groups, Place, name_of, no_split},
    streams, table, tar, tfrecord,
    verification::bcolz,
    walk::is_system,
    zip,
};

/// Folders that are looked into, of those in a folder: the first by name. Where images are, they are
/// in all of them.
const FOLDERS_MAX: usize = 64;
/// The same one level further down.
const FOLDERS_BELOW_MAX: usize = 8;
/// Files without a telling name that are opened, of those in a folder.
const OPENED_MAX: usize = 8;

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

    /// The first file of a kind that fills folders.
    fn first(&self, kind: InputKind) -> Option<&Path> {
        self.files.iter().find(|path| by_name(path) == Some(kind)).map(PathBuf::as_path)
    }

    /// The files of a kind that fills folders.
    fn of_kind(&self, kind: InputKind) -> Vec<PathBuf> {
        self.files.iter().filter(|path| by_name(path) == Some(kind)).cloned().collect()
    }

    /// The data set of another program that the folder is.
    fn data_set(&self) -> Option<InputKind> {
        let is_chunk = |path: &PathBuf| name_of(path).starts_with("chunk-");
        match () {
            () if self.has_file(lmdb::FILE) => Some(InputKind::Lmdb),
            () if !self.has_file(streams::INDEX) => None,
            () if self.some_ends_in(".mds") => Some(InputKind::Mds),
            () if self.files.iter().any(is_chunk) => Some(InputKind::LitData),
            () => None,
        }
    }

    /// The list of the images of `dir` that lies beside them and says who is on them.
    fn metadata(&self, dir: &Path) -> Result<Option<Look>, SourceError> {
        for name in METADATA.into_iter().filter(|name| self.has_file(name)) {
            let path = dir.join(name);
            let kind = by_name(&path).unwrap_or(InputKind::List);
            if kind == InputKind::Parquet || list::says_people(&path)? {
                return Ok(Some(Look::of(&path, kind)));
            }
        }
        Ok(None)
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
const SHARDED: [InputKind; 5] =
    [InputKind::Recordio, InputKind::Tar, InputKind::Zip, InputKind::Parquet, InputKind::TfRecord];

/// Lists beside images, as Hugging Face's folders of images have them.
const METADATA: [&str; 3] = ["metadata.csv", "metadata.jsonl", "metadata.parquet"];

/// What the folder `raw` is.
///
/// * `splits`: those that are wanted of a data set with several, such as `train`; `all` is every one
///
/// # Errors
///
/// [`SourceError::OtherFormat`] if it is of a kind that is known and not read,
/// [`SourceError::Contradiction`] or [`SourceError::Below`] if it may be several things,
/// [`SourceError::Splits`] if it has several splits and none is wanted, [`SourceError::NoSplit`], and what
/// listing it gives.
pub fn folder(raw: &Path, splits: &[String]) -> Result<Look, SourceError> {
    let here = |kind| Look::of(raw, kind);
    let top = Seen::of(raw)?;
    if let Some(error) = other_folder(raw, &top) {
        return Err(error);
    }
    if let [split] = splits
        && top.has_folder(split)
    {
        return folder(&raw.join(split), &[]);
    }
    let whole = match () {
        () if RecordPaths::find(raw).is_some() => Some(here(InputKind::Recordio)),
        () if top.data_set().is_some() => top.data_set().map(here),
        // What `pfc-ingest export --to list` writes.
        () if top.has_file("list.tsv") && top.has_folder("images") => {
            Some(Look::of(&raw.join("list.tsv"), InputKind::List))
        }
        () => top.metadata(raw)?,
    };
    if let Some(look) = whole.filter(|_| splits.is_empty()) {
        if METADATA.contains(&&*name_of(&look.path)) {
            tracing::warn!("{}: {} says who is on its images", raw.display(), name_of(&look.path));
        }
        return Ok(look);
    }
    let found: Vec<(InputKind, &Path)> =
        SHARDED.iter().filter_map(|kind| Some((*kind, top.first(*kind)?))).collect();
    let name = |path: &Path| name_of(path);
    let ambiguous = |what: String| SourceError::Contradiction { path: raw.to_path_buf(), what };
    match found[..] {
        [] => {}
        [(kind, _)] if top.folders.is_empty() || !splits.is_empty() => {
            return Groups::of(raw, &[(raw.to_path_buf(), kind, top.of_kind(kind))]).choose(splits);
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
    below(raw, &top, splits)
}

/// Looks for shards and data sets in the folders of a folder that holds none, unless there are images.
fn below(raw: &Path, top: &Seen, splits: &[String]) -> Result<Look, SourceError> {
    let identities = |seen: &Seen| {
        let names = seen.folders.iter().map(|path| name_of(path));
        match splits.is_empty() {
            true => Ok(Look::of(raw, InputKind::Folder)),
            false => Err(no_split(raw, splits, names.take(FOLDERS_MAX).collect())),
        }
    };
    let mut places: Vec<Place> = Vec::new();
    let mut lists: Vec<Look> = Vec::new();
    for dir in top.folders.iter().take(FOLDERS_MAX) {
        let seen = Seen::of(dir)?;
        if let Some(error) = other_folder(dir, &seen) {
            return Err(error);
        }
        if let Some(list) = seen.metadata(dir)? {
            lists.push(list);
            continue;
        }
        if seen.has_images {
            return identities(top);
        }
        add_shards(dir, &seen, &mut places);
        for dir in seen.folders.iter().take(FOLDERS_BELOW_MAX) {
            let seen = Seen::of(dir)?;
            if seen.has_images {
                return identities(top);
            }
            add_shards(dir, &seen, &mut places);
        }
    }
    match (&places[..], &lists[..]) {
        ([], []) => return identities(top),
        ([], [one]) => {
            tracing::warn!("{}: {} says who is on its images", raw.display(), one.path.display());
            return Ok(one.clone());
        }
        ([], lists) => {
            let folder = |list: &Look| list.path.parent().map_or_else(String::new, name_of);
            let splits = lists.iter().map(folder).collect();
            return Err(SourceError::Splits { path: raw.to_path_buf(), splits, are_joined: false });
        }
        _ => {}
    }
    let described = |(path, kind, files): &Place| {
        let path = path.strip_prefix(raw).unwrap_or(path).display();
        match files.len() {
            0 => format!("a data set of {} in {path}", kind.describe()),
            n => format!("{} of {} in {path}", units::of(n as u64, "file"), kind.describe()),
        }
    };
    if let [one] = &places[..] {
        tracing::warn!("{}: {}, which is read", raw.display(), described(one));
        return Groups::of(raw, &places).choose(splits);
    }
    let groups = Groups::of(raw, &places);
    match groups.are_splits(top.has_file("dataset_dict.json")) {
        true => groups.choose(splits),
        false => Err(SourceError::Below {
            path: raw.to_path_buf(),
            seen: places.iter().map(described).collect(),
            example: places[0].0.clone(),
        }),
    }
}

fn add_shards(dir: &Path, seen: &Seen, places: &mut Vec<Place>) {
    if let Some(kind) = seen.data_set() {
        places.push((dir.to_path_buf(), kind, Vec::new()));
        return;
    }
    for kind in SHARDED {
        let files = seen.of_kind(kind);
        if !files.is_empty() {
            places.push((dir.to_path_buf(), kind, files));
        }
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
        () if seen.some_ends_in(".beton") => {
            other("a folder of FFCV files (.beton), which are not read", convert.into())
        }
        () if seen.has_file("__rootdirs__")
            || seen.has_file("__attrs__") && seen.has_folder("meta") =>
        {
            Some(bcolz(dir))
        }
        () => None,
    }
}

/// How the files of spreadsheets end, most of which are zip archives.
const WORKBOOKS: &[&str] = &[".xlsx", ".xlsm", ".xls", ".ods"];

/// What a file is that is of no kind that is read.
pub fn other_file(path: &Path) -> io::Result<Option<SourceError>> {
    let head = head(path)?;
    let convert = "export the images to folders, one per identity, or to a list";
    let name = name_of(path).to_ascii_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    let (what, way_out) = match &head[..] {
        head if head.starts_with(b"version https://git-lfs") => {
            ("a pointer of Git LFS and not the file itself", "fetch it with `git lfs pull`")
        }
        _ if ends(".npz") => ("a NumPy archive, which is not read", convert),
        _ if shards::has_ending(path, WORKBOOKS) => (
            "a workbook of a spreadsheet, which is not read",
            "save the sheet as CSV, and pack that list",
        ),
        head if ends(".json") && head.trim_ascii_start().starts_with(b"[") => (
            "an array of JSON, and lists have an object on each line",
            "`jq -c '.[]' FILE > list.jsonl` makes such a list of it",
        ),
        head if head.starts_with(b"MATLAB") => ("a file of MATLAB, which is not read", convert),
        [b'R', b'a', b'r', b'!', ..] => (
            "a RAR archive, which is not read",
            "`unrar x FILE FOLDER/` unpacks it: pack the folder",
        ),
        [b'7', b'z', 0xbc, 0xaf, ..] => {
            ("a 7z archive, which is not read", "`7z x FILE -oFOLDER` unpacks it: pack the folder")
        }
        [b'B', b'Z', b'h', ..] if by_name(path).is_none() => (
            "compressed by bzip2, and no tar file by its name",
            "`bunzip2 FILE` unpacks it; --from tar reads a tar file",
        ),
        [0xfd, b'7', b'z', b'X', b'Z', ..] if by_name(path).is_none() => (
            "compressed by xz, and no tar file by its name",
            "`unxz FILE` unpacks it; --from tar reads a tar file",
        ),
        [0x1f, 0x8b, ..] if by_name(path).is_none() => (
            "compressed by gzip, and no tar file by its name",
            "`gunzip FILE` unpacks it; --from tar reads a tar file",
        ),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file, which is not read", convert),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => ("a NumPy array, which is not read", convert),
        _ if ends(".beton") => ("an FFCV file, which is not read", convert),
        _ if ends(".mds") || ends(".mds.zstd") => (
            "one file of a data set of MosaicML Streaming",
            "give the folder that it lies in, with its index.json",
        ),
        head if sniff(head) != Sniffed::NotAnImage => {
            ("one image", "give a folder with one sub-folder of images per identity, or a list")
        }
        _ => return Ok(None),
    };
    let way_out = way_out.replace("FILE", &path.display().to_string());
    Ok(Some(SourceError::OtherFormat { path: path.to_path_buf(), what: what.to_owned(), way_out }))
}

/// What the name of a file promises.
pub fn by_name(path: &Path) -> Option<InputKind> {
    let has = |endings: &[&str]| shards::has_ending(path, endings);
    match () {
        () if has(&[".rec"]) => Some(InputKind::Recordio),
        () if has(tar::ENDINGS) => Some(InputKind::Tar),
        () if has(zip::ENDINGS) => Some(InputKind::Zip),
        () if tfrecord::is_named(path) => Some(InputKind::TfRecord),
        () if has(lmdb::ENDINGS) => Some(InputKind::Lmdb),
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
        // NumPy's archives and workbooks are told by their name alone.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => {
            let is_other =
                shards::has_ending(path, &[".npz"]) || shards::has_ending(path, WORKBOOKS);
            (!is_other).then_some(InputKind::Zip)
        }
        head if head.get(16..20) == Some(&[0xde, 0xc0, 0xef, 0xbe]) => Some(InputKind::Lmdb),
        head if tfrecord::begins(head) => Some(InputKind::TfRecord),
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

/// The first bytes of a file; none if it cannot be read.
fn known_head(path: &Path) -> Result<Vec<u8>, SourceError> {
    match head(path) {
        Err(error) if is_of_system(&error) => Err(SourceError::at("read", path)(error)),
        head => Ok(head.unwrap_or_default()),
    }
}

fn holds_image(path: &Path) -> Result<bool, SourceError> {
    Ok(is_file(path)? && sniff(&known_head(path)?) != Sniffed::NotAnImage)
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
            (&["a.zip", "b.zip"], "", Zip),
            (&["faces.tfrecord-00000-of-00002", "faces.tfrecord.index"], "", TfRecord),
            (&["data.mdb", "lock.mdb"], "", Lmdb),
            (&["train.lmdb/data.mdb", "train.tsv"], "train.lmdb", Lmdb),
            (&["index.json", "shard.00000.mds"], "", Mds),
            (&["index.json", "chunk-0-0.bin"], "", LitData),
            (&["list.tsv", "images/ann/1.jpg", "identities.tsv"], "list.tsv", List),
        ];
        for (paths, place, kind) in cases {
            let dir = tree(paths);
            let look = folder(dir.path(), &[]).unwrap();
            let path = if place.is_empty() { dir.path().into() } else { dir.path().join(place) };
            assert_eq!(look, Look::of(&path, *kind), "{paths:?}");
        }
    }

    #[test]
    fn folders_of_other_programs_are_named() {
        for (paths, word) in [
            (&["dataset.json", "shards/00000.arrow"][..], "packed already"),
            (&["faces.beton"], "FFCV"),
            (&["lfw/__rootdirs__"], "bcolz"),
        ] {
            let dir = tree(paths);
            let error = folder(dir.path(), &[]).unwrap_err();
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
        let found = folder(dir.path(), &[]).unwrap();
        assert_eq!(found, Look::of(dir.path(), InputKind::Folder));
        // What `pfc-ingest export --to list` writes.
        let dir = tree(&["list.tsv", "images/1.jpg"]);
        assert_eq!(folder(dir.path(), &[]).unwrap().kind, InputKind::List);
    }

    /// The files that are read of a folder, below it.
    fn chosen(paths: &[&str], splits: &[&str]) -> Result<Vec<String>, String> {
        let dir = tree(paths);
        let splits: Vec<String> = splits.iter().map(|split| (*split).to_owned()).collect();
        let look = folder(dir.path(), &splits).map_err(|error| {
            format!("{error}; {}", error.hint().unwrap_or_default())
                .replace(&dir.path().display().to_string(), "raw")
        })?;
        let below = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
        Ok(match look.files.is_empty() {
            true => vec![below(&look.path)],
            false => look.files.iter().map(below).collect(),
        })
    }

    #[test]
    fn splits_are_chosen_by_name_and_joined_on_request() {
        let hub =
            ["README.md", "data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet"];
        let dict = ["dataset_dict.json", "train/data-0.arrow", "other/data-0.arrow"];
        let converted = ["default/train/0.parquet", "default/test/0.parquet"];
        let flat = ["train.parquet", "validation.parquet"];
        let shards = ["faces-train.tfrecord-00000-of-00001", "faces-val.tfrecord-00000-of-00001"];
        let folders = ["train/ann/1.jpg", "val/bob/1.jpg"];
        let sets = ["train/data.mdb", "val/data.mdb"];
        for (paths, splits, expected) in [
            (&hub[..], &["train"][..], &hub[1..3]),
            (&hub, &["TEST"], &hub[3..]),
            (&dict, &["other"], &["other"]),
            (&converted, &["test"], &converted[1..]),
            (&flat, &["train"], &flat[..1]),
            (&shards, &["val"], &shards[1..]),
            (&folders, &["val"], &["val"]),
            (&sets, &["train"], &["train"]),
            (&flat, &["all"], &flat),
            (&dict, &["train", "other"], &dict[1..]),
        ] {
            let expected = expected.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(chosen(paths, splits), Ok(expected), "{paths:?} {splits:?}");
        }
        let error = chosen(&hub, &[]).unwrap_err();
        let expected = "raw: holds the splits test and train; --split test takes one of them, and \
                        --split test,train joins them";
        assert_eq!(error, expected);
        let error = chosen(&dict, &["dev"]).unwrap_err();
        assert_eq!(error, "raw: there is no split `dev`; it has other and train");
        let error = chosen(&sets, &["all"]).unwrap_err();
        assert!(error.ends_with("--split train takes one of them"), "{error}");
    }

    #[test]
    fn a_list_beside_images_says_who_is_on_them() {
        let dir = tree(&["1.jpg", "train/2.jpg", "test/3.jpg"]);
        let write = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        write("train/metadata.csv", "file_name,label\n2.jpg,0\n");
        write("test/metadata.jsonl", "{\"file_name\": \"3.jpg\", \"label\": 1}\n");
        let error = folder(dir.path(), &[]).unwrap_err();
        assert!(matches!(error, SourceError::Splits { .. }), "{error}");
        let look = folder(dir.path(), &["test".into()]).unwrap();
        assert_eq!(look, Look::of(&dir.path().join("test/metadata.jsonl"), InputKind::List));
        // Without people it says other things.
        write("metadata.csv", "file_name,text\n1.jpg,hello\n");
        assert!(folder(dir.path(), &[]).is_err());
        write("metadata.csv", "file_name,label\n1.jpg,0\n");
        let look = folder(dir.path(), &[]).unwrap();
        assert_eq!(look, Look::of(&dir.path().join("metadata.csv"), InputKind::List));
    }

    #[test]
    fn what_may_be_several_things_is_told_by_what_was_seen() {
        let dir = tree(&["one/0.tar", "one/1.tar", "two/0.tar"]);
        let error = folder(dir.path(), &[]).unwrap_err().to_string();
        assert!(error.ends_with("2 files of tar in one, 1 file of tar in two"), "{error}");
        let both = folder(tree(&["a.tar", "b.parquet"]).path(), &[]).unwrap_err().to_string();
        assert!(
            both.ends_with("it holds both a.tar and b.parquet: which of them is to be packed?")
        );
        assert!(folder(tree(&["a.tar", "x/1.jpg"]).path(), &[]).is_err());
    }

    #[test]
    fn files_of_other_programs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let other = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = other_file(&path).unwrap()?;
            Some(format!("{error}: {}", error.hint().unwrap_or_default()))
        };
        for (name, bytes, word) in [
            ("a.txt.xz", &b"\xfd7zXZ\0"[..], "xz"),
            ("a", b"BZh9", "bzip2"),
            ("list.csv.gz", b"\x1f\x8b\x08", "gzip"),
            ("a.rar", b"Rar!\x1a\x07", "RAR"),
            ("a.7z", b"7z\xbc\xaf", "7z"),
            ("a.h5", b"\x89HDF\r\n", "HDF5"),
            ("a.npy", b"\x93NUMPY", "NumPy"),
            ("a.beton", b"x", "FFCV"),
            ("a.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
            ("faces.json", b"\n[{\"path\": ", "jq -c"),
            ("imdb.mat", b"MATLAB 5.0 MAT-file", "MATLAB"),
            ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            ("shard.00000.mds", b"x", "MosaicML"),
            ("a.jpg", JPEG, "one image"),
        ] {
            let found = other(name, bytes).unwrap_or_default();
            assert!(found.contains(word), "{name}: {found}");
        }
        assert_eq!(other("a.xyz", b"hello"), None);
        assert_eq!(by_content(&dir.path().join("a.xlsx")).unwrap(), None);
    }
}
