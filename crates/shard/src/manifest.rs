//! `dataset.json`: what a data set consists of and what made it.
//!
//! It is the last file to be written: a folder without one is not a data set yet.

use std::{
    fs, io,
    path::{Component, Path},
};

use pfc_durable::{
    DurableError,
    manifest::{self, Seal},
};
use serde::{Deserialize, Serialize};

use crate::{
    ImageSize, ShardError,
    format::{FORMAT, MANIFEST_FILE, SHARDS_DIR},
    hash::{Checksum, content_hash, file_checksum},
    mmap::check_size,
};

/// The content of `dataset.json`, whose last field is the checksum of all text before it (see
/// [`manifest::seal`]); data sets of earlier versions have none.
///
/// Fields that this version does not know are ignored: whatever a reader must know raises
/// [`FORMAT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// Rows of all shards together.
    pub rows: u64,
    /// Number of identities: labels are below it.
    pub n_identities: u32,
    /// Size of every image.
    pub image_size: ImageSize,
    /// Seed of the order in which rows were written.
    pub seed: u64,
    /// What was packed, as the user named it.
    pub sources: Vec<String>,
    /// Name and version of the program that wrote the data set.
    pub tool: String,
    /// Arguments of that program that decide the content.
    pub arguments: Vec<String>,
    /// The table of identities.
    pub identities: FileEntry,
    /// The shards in row order.
    pub shards: Vec<ShardEntry>,
    /// Other files of the data set: what was left out of it, and why. Their content is not needed to
    /// read the rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<FileEntry>,
    /// What made this data set of others, the oldest step first; empty where it was packed from
    /// images, and in data sets of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Step>,
}

/// A step on the way to a data set, from images or from other data sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The command, as `pack`, `clean`, `compact` or `merge`.
    pub command: String,
    /// Name and version of the program.
    pub tool: String,
    /// Its arguments that decide the content.
    pub arguments: Vec<String>,
    /// Rows that the step left.
    pub rows: u64,
    /// Identities that the step left, where it wrote a data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_identities: Option<u32>,
    /// What the step did, for people: as `left out 12 rows`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// Of the data sets that one step joined, the name of the one that this step was about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// A file of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the data set's folder, with `/` between parts.
    pub file: String,
    /// Size of the file.
    pub bytes: u64,
    /// Checksum of the whole file.
    pub checksum: Checksum,
}

/// A shard of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Path relative to the data set's folder, with `/` between parts.
    pub file: String,
    /// Rows in the file, at least 1.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Checksum of the whole file.
    pub checksum: Checksum,
}

impl ShardEntry {
    /// Checks size and checksum of the file in the data set's folder `dir`; reads all of it, at the
    /// speed of the disk. `on_progress` is told the bytes of each read.
    ///
    /// # Errors
    ///
    /// [`ShardError::MissingFile`], [`ShardError::FileSize`], [`ShardError::Checksum`] or
    /// [`ShardError::Durable`].
    pub fn check(&self, dir: &Path, on_progress: impl FnMut(u64)) -> Result<(), ShardError> {
        self.check_file(&dir.join(&self.file), on_progress)
    }

    /// Checks size and checksum of the file at `path`.
    pub(crate) fn check_file(
        &self,
        path: &Path,
        on_progress: impl FnMut(u64),
    ) -> Result<(), ShardError> {
        check_file(path, self.bytes, self.checksum, on_progress)
    }
}

impl FileEntry {
    /// As [`ShardEntry::check`].
    ///
    /// # Errors
    ///
    /// As [`ShardEntry::check`].
    pub fn check(&self, dir: &Path, on_progress: impl FnMut(u64)) -> Result<(), ShardError> {
        check_file(&dir.join(&self.file), self.bytes, self.checksum, on_progress)
    }
}

/// Checks size and checksum of a listed file.
fn check_file(
    path: &Path,
    bytes: u64,
    expected: Checksum,
    on_progress: impl FnMut(u64),
) -> Result<(), ShardError> {
    check_size(path, bytes)?;
    let found = file_checksum(path, on_progress)?;
    match found == expected {
        true => Ok(()),
        false => Err(ShardError::Checksum { path: path.to_path_buf(), found, expected }),
    }
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl Manifest {
    /// Reads and checks the manifest of the data set in `dir`.
    ///
    /// # Errors
    ///
    /// [`ShardError::NotADataset`] if there is none, [`ShardError::ManifestSyntax`],
    /// [`ShardError::UnsupportedFormat`] or [`ShardError::BadManifest`] for what is in it.
    pub fn read(dir: &Path) -> Result<Manifest, ShardError> {
        let path = dir.join(MANIFEST_FILE);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                ShardError::NotADataset { dir: dir.to_path_buf() }
            }
            _ => DurableError::at("read", &path)(source).into(),
        })?;
        let syntax = |source| ShardError::ManifestSyntax { path: path.clone(), source };
        let Versioned { format } = serde_json::from_slice(&text).map_err(syntax)?;
        if format != FORMAT {
            return Err(ShardError::UnsupportedFormat { path, found: format.to_string() });
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(syntax)?;
        if manifest::check(&text) == Seal::Broken {
            return Err(ShardError::ManifestDamaged { path });
        }
        manifest.check().map_err(|what| ShardError::BadManifest { path, what })?;
        Ok(manifest)
    }

    /// Whether the manifest in `dir` carries its own checksum, as those of earlier versions do not.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] if it cannot be read.
    pub fn is_sealed(dir: &Path) -> Result<bool, ShardError> {
        let path = dir.join(MANIFEST_FILE);
        let text = fs::read(&path).map_err(DurableError::at("read", &path))?;
        Ok(manifest::check(&text) == Seal::Whole)
    }

    /// Makes the manifest visible in `dir`: the last step of writing a data set.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), ShardError> {
        Ok(pfc_durable::write(&dir.join(MANIFEST_FILE), &manifest::seal(self))?)
    }

    /// Bytes of all files that the manifest lists.
    pub fn bytes(&self) -> u64 {
        let others = self.others.iter().map(|file| file.bytes);
        let shards = self.shards.iter().map(|shard| shard.bytes);
        shards.chain(others).fold(self.identities.bytes, u64::saturating_add)
    }

    fn check(&self) -> Result<(), String> {
        let mut rows = 0u64;
        for ShardEntry { file, rows: n_rows, .. } in &self.shards {
            if !stays_inside(file) {
                return Err(format!("shard `{file}` is not a path inside the data set"));
            }
            if *n_rows == 0 {
                return Err(format!("shard `{file}` has no rows"));
            }
            rows = rows.checked_add(*n_rows).ok_or("the rows of its shards exceed 2^64")?;
        }
        if rows != self.rows {
            return Err(format!("it counts {} rows, its shards {rows}", self.rows));
        }
        if !stays_inside(&self.identities.file) {
            let file = &self.identities.file;
            return Err(format!("identities `{file}` is not a path inside the data set"));
        }
        if let Some(FileEntry { file, .. }) = self.others.iter().find(|f| !stays_inside(&f.file)) {
            return Err(format!("`{file}` is not a path inside the data set"));
        }
        if self.image_size.width == 0 || self.image_size.height == 0 {
            return Err(format!("images of {} pixels", self.image_size));
        }
        Ok(())
    }
}

/// Whether `file` is a relative path that goes only downwards.
fn stays_inside(file: &str) -> bool {
    let mut parts = Path::new(file).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Name of shard `index` relative to the data set's folder: `shards/00000.arrow`.
pub fn shard_file(index: usize) -> String {
    format!("{SHARDS_DIR}/{index:05}.arrow")
}
/// The checksum of the manifest of the data set in `dir`, which names the data set as it is.
///
/// # Errors
///
/// [`ShardError::NotADataset`] if it has none, and what reading gives.
pub fn manifest_checksum(dir: &Path) -> Result<Checksum, ShardError> {
    let path = dir.join(MANIFEST_FILE);
    match fs::read(&path) {
        Ok(text) => Ok(Checksum(content_hash(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ShardError::NotADataset { dir: dir.to_owned() })
        }
        Err(error) => Err(DurableError::at("read", &path)(error).into()),
    }
}
