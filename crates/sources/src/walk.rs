//! Lists the image files below a folder, for folders of identities and for folders of images to embed.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_image::{SNIFF_BYTES, Sniffed, has_image_extension, sniff};
use walkdir::{DirEntry, WalkDir};

use crate::{error::SourceError, file::folders_of, names::Names, reject::Reject, source::LeftOut};

/// Names that systems, archivers and editors give to files and folders of their own, in lower case.
/// Hidden ones (`.DS_Store`, `._1.jpg`, `.ipynb_checkpoints`, `.Trash-1000`, `.thumbnails`, `.git`)
/// need no list.
const SYSTEM_NAMES: &[&str] = &[
    "__macosx",
    "@eadir",
    "#recycle",
    "@recycle",
    "@recently-snapshot",
    "@snapshots",
    "@sharebin",
    "@appstore",
    "@transcode",
    "#snapshot",
    "~snapshot",
    "$recycle.bin",
    "$extend",
    "$sysreset",
    "$winreagent",
    "recycler",
    "system volume information",
    "config.msi",
    "msdownld.tmp",
    "dfsrprivate",
    "thevolumesettingsfolder",
    "lost+found",
    "network trash folder",
    "temporary items",
    "__pycache__",
    "_gsdata_",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
];

/// How names begin that systems give and no person has: those of the NAS systems of Synology and QNAP
/// (`@tmp`, `@SynoResource`, `@__thumb`), of Windows (`$WINDOWS.~BT`) and of `FrontPage` (`_vti_cnf`, which
/// holds a file of each image's name).
const SYSTEM_STARTS: &[&str] = &["@__", "@tmp", "@syno", "$windows.~", "_vti_"];

/// Names of systems only as they are spelled here: a person may be called so in small letters.
const SYSTEM_NAMES_AS_SPELLED: &[&str] = &["RECYCLED"];

/// Whether a file or folder of this name is the system's and not a person's: hidden, or of a known
/// name in any case.
pub fn is_system(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let starts_with = |start: &str| {
        name.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start.as_bytes()))
    };
    name.starts_with(b".")
        || SYSTEM_NAMES.iter().any(|s| name.eq_ignore_ascii_case(s.as_bytes()))
        || SYSTEM_NAMES_AS_SPELLED.iter().any(|s| name == s.as_bytes())
        || SYSTEM_STARTS.iter().any(|start| starts_with(start))
        || starts_with("found.") && name.len() == 9 && name[6..].iter().all(u8::is_ascii_digit)
}

/// The images below a folder, in the order of their paths, those of a folder before those of the
/// folders in it.
///
/// Memory: the names' own bytes and 8 bytes per image, and about 60 and the path per folder, those
/// included that links to images lead to.
#[derive(Debug, Default)]
pub struct Listing {
    /// The folders that hold images.
    pub dirs: Vec<Dir>,
    /// The names of all images.
    names: Names,
    /// Files that are no image, or whose names cannot be stored.
    pub left_out: Vec<LeftOut>,
    /// The folders that links to images lead to.
    linked: HashSet<PathBuf>,
}

/// A folder with images directly in it.
#[derive(Debug)]
pub struct Dir {
    /// Relative, with `/` between its parts; empty for the folder that is listed itself.
    pub path: String,
    /// Its images among the names.
    pub images: Range<usize>,
}

impl Dir {
    /// What an image of the folder is called.
    pub fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

impl Listing {
    /// Lists all folders below `root`, following links. Files without the extension of an image are
    /// opened to see whether they are one. System files and folders are passed over, each listed as
    /// left out; a folder or file whose name is not UTF-8 costs its own images.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if `root` is no folder, or a folder cannot be listed, or a link makes it endless.
    pub fn of(root: &Path) -> Result<Listing, SourceError> {
        match root.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(SourceError::NotAFolder { path: root.to_path_buf() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::NoSuchFolder { path: root.to_path_buf() });
            }
            Err(e) => return Err(SourceError::at("look at", root)(e)),
        }
        let mut walker = Walker { root, listing: Listing::default(), open: None };
        walker.walk()?;
        Ok(walker.listing)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The folder that image `i` lies in.
    fn dir_of(&self, i: usize) -> &Dir {
        &self.dirs[self.dirs.partition_point(|dir| dir.images.end <= i)]
    }

    /// The path of image `i`, relative, with `/` between its parts.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn path(&self, i: usize) -> String {
        self.dir_of(i).join(self.names.get(i))
    }

    /// All folders that the images lie in: those below `root`, which was listed, and those that links
    /// lead to.
    pub(crate) fn folders(&self, root: &Path) -> Vec<PathBuf> {
        let below = self.dirs.iter().map(|dir| root.join(&dir.path));
        below.chain(self.linked.iter().cloned()).collect()
    }

    /// Lists the images of a folder as left out: why.
    pub(crate) fn leave_out(&mut self, dir: usize, reject: &Reject) {
        let Dir { images, .. } = &self.dirs[dir];
        let sources = images.clone().map(|i| self.dirs[dir].join(self.names.get(i)));
        let left_out = sources.map(|source| LeftOut { source, reject: reject.clone() });
        self.left_out.extend(left_out);
    }
}

/// A walk under way.
struct Walker<'a> {
    root: &'a Path,
    listing: Listing,
    /// The folder whose files are being met.
    open: Option<PathBuf>,
}

impl Walker<'_> {
    fn walk(&mut self) -> Result<(), SourceError> {
        // Files before folders: a folder's own files then come in one run.
        let walk = WalkDir::new(self.root).min_depth(1).follow_links(true).sort_by(|a, b| {
            let key = |e: &DirEntry| e.file_type().is_dir();
            key(a).cmp(&key(b)).then_with(|| a.file_name().cmp(b.file_name()))
        });
        let mut walk = walk.into_iter();
        while let Some(entry) = walk.next() {
            match entry {
                Ok(entry) if is_system(entry.file_name()) => {
                    self.leave_out(entry.path(), Reject::SystemFile);
                    if entry.file_type().is_dir() {
                        walk.skip_current_dir();
                    }
                }
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => self.file(&entry),
                Err(e) => self.trouble(e)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, entry: &DirEntry) {
        let path = entry.path();
        if !entry.file_type().is_file() || !looks_like_an_image(path) {
            return self.leave_out(path, Reject::OtherFile);
        }
        let folder = path.parent().unwrap_or(self.root);
        let relative = folder.strip_prefix(self.root).unwrap_or(folder);
        let parts: Option<Vec<&str>> = relative.iter().map(OsStr::to_str).collect();
        let (Some(parts), Some(name)) = (parts, entry.file_name().to_str()) else {
            return self.leave_out(path, Reject::NameNotUtf8);
        };
        let Listing { dirs, names, linked, .. } = &mut self.listing;
        if entry.path_is_symlink() {
            linked.extend(folders_of(path).into_iter().skip(1));
        }
        if self.open.as_deref() != Some(folder) {
            self.open = Some(folder.to_path_buf());
            dirs.push(Dir { path: parts.join("/"), images: names.len()..names.len() });
        }
        names.push(name);
        if let Some(dir) = dirs.last_mut() {
            dir.images.end = names.len();
        }
    }

    fn leave_out(&mut self, path: &Path, reject: Reject) {
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let source = relative.to_string_lossy().into_owned();
        self.listing.left_out.push(LeftOut { source, reject });
    }

    /// A link to nowhere costs one file; anything else may hide any number of images.
    fn trouble(&mut self, error: walkdir::Error) -> Result<(), SourceError> {
        let path = error.path().unwrap_or(self.root).to_path_buf();
        if path.file_name().is_some_and(is_system) && error.depth() > 0 {
            self.leave_out(&path, Reject::SystemFile);
            return Ok(());
        }
        if let Some(ancestor) = error.loop_ancestor() {
            let ancestor = ancestor.to_path_buf();
            return Err(SourceError::FolderLoop { path, ancestor });
        }
        let is_gone = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        if is_gone && path.is_symlink() {
            self.leave_out(&path, Reject::BrokenLink);
            return Ok(());
        }
        Err(SourceError::at("list", &path)(error.into()))
    }
}

/// By name, or else by content. A file that cannot be opened is taken for one, so that whoever reads
/// it learns why.
fn looks_like_an_image(path: &Path) -> bool {
    if has_image_extension(path) {
        return true;
    }
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    match File::open(path).and_then(|f| f.take(SNIFF_BYTES as u64).read_to_end(&mut head)) {
        Ok(_) => sniff(&head) != Sniffed::NotAnImage,
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"\xff\xd8\xff\xe0").unwrap();
    }

    fn paths(listing: &Listing) -> Vec<String> {
        (0..listing.names.len()).map(|i| listing.path(i)).collect()
    }

    fn left_out(listing: &Listing) -> Vec<(&str, &str)> {
        let mut all: Vec<_> =
            listing.left_out.iter().map(|l| (l.source.as_str(), l.reject.reason())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn images_are_told_by_name_or_content_and_come_by_path() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/2.jfif", "b/1", "a.JPG", "b/c/3.jpe"] {
            write(dir.path(), path);
        }
        fs::write(dir.path().join("b/notes.txt"), "x").unwrap();
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(paths(&listing), ["a.JPG", "b/1", "b/2.jfif", "b/c/3.jpe"]);
        assert_eq!(left_out(&listing), [("b/notes.txt", "other_file")]);
    }

    #[test]
    fn what_systems_leave_behind_is_passed_over_at_every_level() {
        let system = [
            ".ipynb_checkpoints",
            "__MACOSX",
            "@eaDir",
            ".Trash-1000",
            "$RECYCLE.BIN",
            ".thumbnails",
            "#recycle",
            "System Volume Information",
            ".git",
            "lost+found",
            "FOUND.000",
            "found.017",
            "@__thumb",
            "@tmp",
            "Network Trash Folder",
            "Temporary Items",
            ".AppleDouble",
            "@EADIR",
            "@SynoResource",
            "@sharebin",
            "@Transcode",
            "@snapshots",
            "~snapshot",
            "_vti_cnf",
            "RECYCLED",
            "RECYCLER",
            "$Extend",
            "$SysReset",
            "$WINDOWS.~BT",
            "Config.Msi",
            "msdownld.tmp",
            "DfsrPrivate",
            "TheVolumeSettingsFolder",
        ];
        for name in system {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "p0/1.jpg");
            for place in ["", "p0/", "deep/er/"] {
                write(dir.path(), &format!("{place}{name}/x/1.jpg"));
                write(dir.path(), &format!("{place}{name}/2.jpg"));
            }
            let listing = Listing::of(dir.path()).unwrap();
            assert_eq!(paths(&listing), ["p0/1.jpg"], "{name}");
            let n = listing.left_out.iter().filter(|l| l.reject == Reject::SystemFile).count();
            assert_eq!((n, listing.left_out.len()), (3, 3), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.jpg", "._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.jpg"] {
            write(dir.path(), &format!("p0/{name}"));
        }
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(paths(&listing), ["p0/1.jpg"]);
        assert_eq!(left_out(&listing).iter().filter(|l| l.1 == "system_file").count(), 5);
    }

    #[test]
    fn names_that_are_only_like_those_of_systems_are_of_people() {
        let names =
            ["found.12", "found.0001", "found.abc", "@ann", "temporary", "recycled", "Recycled"];
        for name in names.into_iter().chain(["snapshot", "$hyne", "vti", "configs.msi", "extend"]) {
            assert!(!is_system(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_hidden_folder_may_be_listed_by_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".faces/p0/1.jpg");
        assert_eq!(paths(&Listing::of(&dir.path().join(".faces")).unwrap()), ["p0/1.jpg"]);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_cost_their_own_images() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let latin = OsStr::from_bytes(b"Jos\xe9");
        fs::create_dir(dir.path().join(latin)).unwrap();
        fs::create_dir(dir.path().join("ann")).unwrap();
        for path in [Path::new(latin).join("1.jpg"), Path::new(latin).join("2.jpg")] {
            fs::write(dir.path().join(path), b"\xff\xd8\xff").unwrap();
        }
        fs::write(dir.path().join("ann").join(OsStr::from_bytes(b"\xe9.jpg")), b"x").unwrap();
        write(dir.path(), "ann/1.jpg");
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(paths(&listing), ["ann/1.jpg"]);
        let reasons: Vec<&str> = listing.left_out.iter().map(|l| l.reject.reason()).collect();
        assert_eq!(reasons, ["name_not_utf8"; 3]);
    }

    #[cfg(unix)]
    #[test]
    fn a_broken_link_costs_one_file_and_a_loop_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/1.jpg");
        std::os::unix::fs::symlink("nowhere", dir.path().join("a/2.jpg")).unwrap();
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(left_out(&listing), [("a/2.jpg", "broken_link")]);
        std::os::unix::fs::symlink("..", dir.path().join("a/up")).unwrap();
        assert!(matches!(Listing::of(dir.path()), Err(SourceError::FolderLoop { .. })));
    }
}
