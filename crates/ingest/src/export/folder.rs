//! Identity folders, and lists of what is in them, with the names of their labels.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicDir, AtomicFile, DurableError};
use rayon::prelude::*;

use super::{
    Feed, Written,
    names::{self, Files, Folders},
};
use crate::IngestError;

/// Images named at a time; they are then written in parallel.
const CHUNK_IMAGES: usize = 1024;

/// Name of the list.
const LIST_FILE: &str = "list.tsv";

/// Folder of the images where there is a list, so that no identity can be called as the list is.
const IMAGES_DIR: &str = "images";

/// Whether to write a list, `path<TAB>label` a line, beside the folder of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    With,
    Without,
}

/// Fills the folder `dir` and commits it.
///
/// # Errors
///
/// [`IngestError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, dir: AtomicDir, list: List) -> Result<Written, IngestError> {
    let used = feed.labels()?;
    let identities = feed.identities().filter(|(label, _)| used.contains(label));
    let identities: Vec<(u32, &str)> = identities.collect();
    let folders = Folders::new(identities.iter().copied());
    let mut writer = Writer {
        feed,
        root: match list {
            List::With => dir.path().join(IMAGES_DIR),
            List::Without => dir.path().to_path_buf(),
        },
        made: BTreeSet::new(),
        list: match list {
            List::With => Some(AtomicFile::create(&dir.path().join(LIST_FILE))?),
            List::Without => None,
        },
        written: Written {
            images: feed.len() as u64,
            identities: used.len() as u64,
            renamed_identities: folders.n_renamed,
            ..Written::default()
        },
    };
    let mut files = Files::default();
    for start in (0..feed.len()).step_by(CHUNK_IMAGES) {
        writer.chunk(start..(start + CHUNK_IMAGES).min(feed.len()), &folders, &mut files)?;
    }
    let Writer { list, mut written, .. } = writer;
    if let Some(list) = list {
        list.commit()?;
        names::write_table(&identities, dir.path(), dir.target().path())?;
    } else if folders.n_renamed > 0 {
        let folder = |label| folders.folder(label);
        names::write_folder_table(&identities, folder, dir.path(), dir.target().path())?;
    }
    dir.commit()?;
    written.renamed_files = files.n_renamed;
    Ok(written)
}

struct Writer<'a> {
    feed: &'a Feed<'a>,
    root: PathBuf,
    /// Labels whose folder exists: at most the last.
    made: BTreeSet<u32>,
    list: Option<AtomicFile>,
    written: Written,
}

impl Writer<'_> {
    fn chunk(
        &mut self,
        places: std::ops::Range<usize>,
        folders: &Folders,
        files: &mut Files,
    ) -> Result<(), IngestError> {
        let mut named = Vec::with_capacity(places.len());
        for place in places {
            let item = self.feed.peek(place)?;
            if !self.made.contains(&item.label) {
                let folder = self.root.join(folders.folder(item.label));
                fs::create_dir_all(&folder).map_err(IngestError::at("create", &folder))?;
                self.made = BTreeSet::from([item.label]);
            }
            let path = files.path(folders, item.label, item.face.source);
            self.add_to_list(&path, item.label)?;
            named.push((place, path));
        }
        let write = |(place, path): (usize, String)| {
            let item = self.feed.take(place)?;
            save(&self.root.join(path), item.face.image)?;
            Ok(item.face.image.len() as u64)
        };
        // Collected, so that the first fault is the same one in every run.
        let sizes: Vec<Result<u64, IngestError>> = named.into_par_iter().map(write).collect();
        for size in sizes {
            self.written.bytes += size?;
            self.written.files += 1;
        }
        Ok(())
    }

    fn add_to_list(&mut self, path: &str, label: u32) -> Result<(), IngestError> {
        let Some(list) = &mut self.list else { return Ok(()) };
        let line = format!("{IMAGES_DIR}/{path}\t{label}\n");
        self.written.bytes += line.len() as u64;
        let written = list.write_all(line.as_bytes());
        written.map_err(DurableError::at("write", &self.root.with_file_name(LIST_FILE)))?;
        Ok(())
    }
}

/// Writes a file that must not exist.
fn save(path: &Path, bytes: &[u8]) -> Result<(), IngestError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(IngestError::at("create", path))?;
    file.write_all(bytes).map_err(IngestError::at("write", path))
}
