//! Identity folders: the folder that directly holds images is the identity, at any depth.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use pfc_durable::faults::is_of_system;
use pfc_image::{SNIFF_BYTES, Sniffed, has_image_extension, sniff};
use walkdir::{DirEntry, WalkDir};

use crate::{
    error::SourceError,
    file::{Root, read_file},
    index::Index,
    reject::{ReadError, Reject},
    source::{LeftOut, Source},
};

/// A folder of identity folders, indexed.
pub struct FolderSource {
    root: Root,
    index: Index,
    left_out: Vec<LeftOut>,
}

impl FolderSource {
    /// Lists all folders below `root`, following links. Files without the extension of an image are
    /// opened to see whether they are one.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if there is no identity, one lies inside another, a folder cannot be listed,
    /// has no UTF-8 name or never ends.
    pub fn open(root: &Path) -> Result<FolderSource, SourceError> {
        match root.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(SourceError::NotAFolder { path: root.to_path_buf() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::NoSuchFolder { path: root.to_path_buf() });
            }
            Err(e) => return Err(SourceError::at("look at", root)(e)),
        }
        let mut listing =
            Listing { root, index: Index::default(), left_out: Vec::new(), open: None };
        listing.walk()?;
        let Listing { mut index, left_out, .. } = listing;
        index.seal();
        check(root, &index, &left_out)?;
        Ok(FolderSource { root: Root::of(root), index, left_out })
    }
}

impl Source for FolderSource {
    fn name(&self) -> String {
        self.root.path().display().to_string()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        read_file(&self.root.path().join(self.index.path(entry)), &self.root)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

fn check(root: &Path, index: &Index, left_out: &[LeftOut]) -> Result<(), SourceError> {
    if index.n_identities() == 0 {
        let is_loose = |l: &&LeftOut| l.reject == Reject::NoIdentity;
        let n_loose = left_out.iter().filter(is_loose).count() as u64;
        return Err(SourceError::NoIdentities { path: root.to_path_buf(), n_loose });
    }
    if u32::try_from(index.n_identities()).is_err() {
        return Err(SourceError::TooManyIdentities { n: index.n_identities() });
    }
    for name in index.identities() {
        let above = name.match_indices('/').map(|(i, _)| &name[..i]);
        if let Some(outer) = above.into_iter().find(|outer| index.has_identity(outer)) {
            let (outer, inner) = (outer.to_owned(), name.to_owned());
            return Err(SourceError::NestedIdentity { outer, inner });
        }
    }
    Ok(())
}

/// A walk under way.
struct Listing<'a> {
    root: &'a Path,
    index: Index,
    left_out: Vec<LeftOut>,
    /// The folder whose files are being met, and its images so far.
    open: Option<(PathBuf, Vec<String>)>,
}

impl Listing<'_> {
    fn walk(&mut self) -> Result<(), SourceError> {
        // Files before folders: a folder's own files then come in one run.
        let walk = WalkDir::new(self.root).min_depth(1).follow_links(true).sort_by(|a, b| {
            let key = |e: &DirEntry| e.file_type().is_dir();
            key(a).cmp(&key(b)).then_with(|| a.file_name().cmp(b.file_name()))
        });
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => self.file(&entry)?,
                Err(e) => self.trouble(e)?,
            }
        }
        self.close()
    }

    fn file(&mut self, entry: &DirEntry) -> Result<(), SourceError> {
        let path = entry.path();
        if !entry.file_type().is_file() || !looks_like_an_image(path)? {
            self.leave_out(path, Reject::OtherFile);
            return Ok(());
        }
        if entry.depth() == 1 {
            self.leave_out(path, Reject::NoIdentity);
            return Ok(());
        }
        let Some(name) = entry.file_name().to_str() else {
            self.leave_out(path, Reject::NameNotUtf8);
            return Ok(());
        };
        let folder = path.parent().unwrap_or(self.root);
        if self.open.as_ref().is_none_or(|(open, _)| open != folder) {
            self.close()?;
            self.open = Some((folder.to_path_buf(), Vec::new()));
        }
        if let Some((_, images)) = &mut self.open {
            images.push(name.to_owned());
        }
        Ok(())
    }

    /// Files the folder that was being met as an identity.
    fn close(&mut self) -> Result<(), SourceError> {
        let Some((folder, images)) = self.open.take() else { return Ok(()) };
        let relative = folder.strip_prefix(self.root).unwrap_or(&folder);
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let Some(parts) = parts else { return Err(SourceError::NameNotUtf8 { path: folder }) };
        self.index.push(parts.join("/"), images.iter().map(String::as_str));
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, reject: Reject) {
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let source = relative.to_string_lossy().into_owned();
        self.left_out.push(LeftOut { source, reject });
    }

    /// A link to nowhere costs one file; anything else may hide any number of images.
    fn trouble(&mut self, error: walkdir::Error) -> Result<(), SourceError> {
        let path = error.path().unwrap_or(self.root).to_path_buf();
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

/// Whether a file has the name or the first bytes of an image. One that cannot be opened has not.
fn looks_like_an_image(path: &Path) -> Result<bool, SourceError> {
    if has_image_extension(path) {
        return Ok(true);
    }
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    match File::open(path).and_then(|f| f.take(SNIFF_BYTES as u64).read_to_end(&mut head)) {
        Ok(_) => Ok(sniff(&head) != Sniffed::NotAnImage),
        Err(error) if is_of_system(&error) => Err(SourceError::at("look at", path)(error)),
        Err(_) => Ok(false),
    }
}
