//! Checkpoints: a folder `*.ckpt` that holds everything a run needs to go on, or a model to be used.
//!
//! `manifest.json` states the network, how far the run was, and size and checksum of every other
//! file; its last field is the checksum of its own text, which manifests of earlier versions lack. The
//! folder is written beside its place and renamed, so that it is whole or absent.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pfc_durable::{Access, AtomicDir, OwnedDir, manifest};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    Backbone, BackboneSpec, ModelError,
    tensors::{self, FileSum, TensorFile},
};

/// The version of the folder's layout that is written, and the only one read.
pub const FORMAT: u64 = 1;
/// Statement of the contents.
pub const MANIFEST: &str = "manifest.json";
/// The network's state dict.
pub const BACKBONE: &str = "backbone.safetensors";

/// Larger than any manifest: a checkpoint has a handful of files.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u64,
    /// Program and version that wrote it.
    pub tool: String,
    /// The network whose weights are in [`BACKBONE`].
    pub backbone: BackboneSpec,
    /// How far training was; absent where weights alone are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Every other file of the folder, by name in ascending order.
    pub files: Vec<FileEntry>,
}

/// How far a run was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps taken.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Images of the current epoch already used, over all ranks.
    pub epoch_position: u64,
    /// Ranks of the run that wrote this.
    pub world_size: u32,
    /// The data that was trained on.
    pub data: DataIdentity,
    /// The trainer's own record, such as its resolved configuration.
    #[serde(default)]
    pub trainer: serde_json::Value,
}

/// Enough of a data set to notice that a run is resumed on another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataIdentity {
    /// Images.
    pub n_images: u64,
    /// Identities, which is classes.
    pub n_identities: u64,
    /// A checksum of the data set's manifest, as text.
    pub checksum: String,
    /// A checksum of what decisions change in it; absent where they change nothing, or are not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions: Option<String>,
    /// What images are drawn by, with a checksum of its numbers; absent where each is shown once an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name within the folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// XXH3-128 as 32 hexadecimal digits.
    pub xxh3: String,
}

impl FileEntry {
    fn new(name: &str, sum: FileSum) -> FileEntry {
        FileEntry { name: name.to_owned(), size: sum.size, xxh3: hex(sum.xxh3) }
    }
}

/// A checkpoint being written; dropped before [`finish`](Writer::finish), it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    dir: AtomicDir,
    files: Vec<FileEntry>,
}

impl Writer {
    /// Starts a checkpoint that will appear as `path`, which ends in `.ckpt` and does not exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotACheckpoint`] for another ending, [`ModelError::Folder`] if there is something
    /// of that name, another process writes it, or the parent folder is not writable.
    pub fn create(path: &Path) -> Result<Writer, ModelError> {
        if path.extension().is_none_or(|extension| extension != "ckpt") {
            let reason = "its name does not end in `.ckpt`".to_owned();
            return Err(ModelError::NotACheckpoint { path: path.to_path_buf(), reason });
        }
        let owned = OwnedDir::claim(path, Access::Alone)?;
        owned.check_free()?;
        let dir = owned.begin()?;
        Ok(Writer { dir, files: Vec::new() })
    }

    /// Adds the network's state dict as [`BACKBONE`].
    ///
    /// # Errors
    ///
    /// [`ModelError::Durable`].
    pub fn backbone(&mut self, backbone: &Backbone) -> Result<(), ModelError> {
        self.tensors(BACKBONE, &backbone.state_dict())
    }

    /// Adds a file of tensors.
    ///
    /// # Errors
    ///
    /// As [`tensors::write`].
    pub fn tensors<K: AsRef<str>>(
        &mut self,
        name: &str,
        tensors: &[(K, Tensor)],
    ) -> Result<(), ModelError> {
        let sum = tensors::write(&self.dir.path().join(name), tensors)?;
        self.files.push(FileEntry::new(name, sum));
        Ok(())
    }

    /// Where the files are until the checkpoint is finished: other processes may write there too.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Lists a file that was written into [`folder`](Writer::folder), by this process or another.
    pub fn add(&mut self, name: &str, sum: FileSum) {
        self.files.push(FileEntry::new(name, sum));
    }

    /// Writes the manifest and makes the folder visible.
    ///
    /// # Errors
    ///
    /// [`ModelError::Durable`], also where `path` exists by now.
    pub fn finish(
        mut self,
        backbone: BackboneSpec,
        progress: Option<Progress>,
    ) -> Result<Manifest, ModelError> {
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
        let tool = concat!("pfc ", env!("CARGO_PKG_VERSION")).to_owned();
        let manifest = Manifest { format: FORMAT, tool, backbone, progress, files: self.files };
        pfc_durable::write(&self.dir.path().join(MANIFEST), &manifest::seal(&manifest))?;
        self.dir.commit()?;
        Ok(manifest)
    }
}

/// A checkpoint on disk whose manifest is sound and whose files have their sizes.
///
/// Checksums are taken of each file as it is used.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Reads the manifest and compares the sizes of all files.
    ///
    /// A link such as `last.ckpt` is followed once, here: a training run may point it at another
    /// checkpoint at any time, and files of two checkpoints do not belong together.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotACheckpoint`], [`ModelError::Manifest`], [`ModelError::ManifestDamaged`],
    /// [`ModelError::Format`], [`ModelError::FileDiffers`], and [`ModelError::Durable`] where the system
    /// does not let a file be read.
    pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
        let path = resolved(path)?;
        let manifest = read_manifest(&path)?;
        let checkpoint = Checkpoint { path, manifest };
        for entry in &checkpoint.manifest.files {
            let file = checkpoint.path.join(&entry.name);
            let size = file.metadata().map_err(ModelError::io("open", &file))?.len();
            if size != entry.size {
                return Err(differs(&file, "size", entry.size.to_string(), size.to_string()));
            }
        }
        Ok(checkpoint)
    }

    /// The folder itself, with links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the checkpoint has this file.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The network with its weights.
    ///
    /// # Errors
    ///
    /// As [`tensors`](Checkpoint::tensors) and [`Backbone::from_state_dict`].
    pub fn backbone(&self, device: Device) -> Result<Backbone, ModelError> {
        let tensors = self.tensors(BACKBONE)?;
        let origin = self.path.join(BACKBONE).display().to_string();
        Backbone::from_state_dict(&self.manifest.backbone, device, &origin, &tensors)
    }

    /// All tensors of a file, on the CPU.
    ///
    /// # Errors
    ///
    /// As [`file`](Checkpoint::file) and [`tensors::read`].
    pub fn tensors(&self, name: &str) -> Result<Vec<(String, Tensor)>, ModelError> {
        tensors::read(&self.verified(name)?)
    }

    /// A file of tensors, to be read in parts.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotACheckpoint`] if the manifest does not list it,
    /// [`ModelError::FileDiffers`] if its checksum is another, and as [`TensorFile::open`].
    pub fn file(&self, name: &str) -> Result<TensorFile, ModelError> {
        TensorFile::open(&self.verified(name)?)
    }

    /// Compares the checksum of every file.
    ///
    /// # Errors
    ///
    /// [`ModelError::FileDiffers`] for the first that differs.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.manifest.files.iter().try_for_each(|entry| self.verified(&entry.name).map(drop))
    }

    /// Compares the checksum of one file.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotACheckpoint`] if the manifest does not list it,
    /// [`ModelError::FileDiffers`] if its checksum is another.
    pub fn verify_file(&self, name: &str) -> Result<(), ModelError> {
        self.verified(name).map(drop)
    }

    fn verified(&self, name: &str) -> Result<PathBuf, ModelError> {
        let entry = self.entry(name).ok_or_else(|| ModelError::NotACheckpoint {
            path: self.path.clone(),
            reason: format!("its manifest lists no `{name}`"),
        })?;
        let file = self.path.join(name);
        let found = hex(checksum(&file)?);
        if found == entry.xxh3 {
            Ok(file)
        } else {
            Err(differs(&file, "checksum", entry.xxh3.clone(), found))
        }
    }

    fn entry(&self, name: &str) -> Option<&FileEntry> {
        self.manifest.files.iter().find(|entry| entry.name == name)
    }
}

/// The network of a checkpoint; nothing else of it is read.
///
/// # Errors
///
/// As [`Checkpoint::open`] and [`Checkpoint::backbone`].
pub fn open_backbone(path: &Path, device: Device) -> Result<Backbone, ModelError> {
    Checkpoint::open(path)?.backbone(device)
}

/// The folder that `path` stands for: a link is followed, anything else is given back as it is.
///
/// # Errors
///
/// [`ModelError::Durable`] where the system does not let the link be read.
pub(crate) fn resolved(path: &Path) -> Result<PathBuf, ModelError> {
    // Without a trailing slash, which would have the system follow the link on every use.
    let plain: PathBuf = path.components().collect();
    if !plain.is_symlink() {
        return Ok(path.to_path_buf());
    }
    match plain.canonicalize() {
        Ok(target) => Ok(target),
        // A link that leads nowhere is named by whoever opens it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(plain),
        Err(error) => Err(ModelError::io("open", path)(error)),
    }
}

fn read_manifest(dir: &Path) -> Result<Manifest, ModelError> {
    let not_a_checkpoint =
        |reason: String| ModelError::NotACheckpoint { path: dir.to_path_buf(), reason };
    let path = dir.join(MANIFEST);
    let file = File::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if dir.is_dir() => {
            not_a_checkpoint(format!("it has no `{MANIFEST}`"))
        }
        std::io::ErrorKind::NotFound => not_a_checkpoint("there is no such folder".to_owned()),
        std::io::ErrorKind::NotADirectory => not_a_checkpoint("it is a file".to_owned()),
        _ => ModelError::io("open", &path)(error),
    })?;
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(ModelError::io("read", &path))?;
    let broken = |source| ModelError::Manifest { path: path.clone(), source };
    // The version first: another version may well have other fields, and seal them in another way.
    let FormatOnly { format } = serde_json::from_slice(&text).map_err(broken)?;
    if format != FORMAT {
        return Err(ModelError::Format { path, found: format, supported: FORMAT });
    }
    if manifest::check(&text) == manifest::Seal::Broken {
        return Err(ModelError::ManifestDamaged { path });
    }
    let manifest: Manifest = manifest::parse(&text).map_err(broken)?;
    match manifest.files.iter().find(|entry| !is_plain_name(&entry.name)) {
        Some(entry) => Err(not_a_checkpoint(format!("its manifest lists `{}`", entry.name))),
        None => Ok(manifest),
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

/// Whether `name` stays within its folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
}

fn checksum(path: &Path) -> Result<u128, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io("open", path))?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(ModelError::io("read", path))? {
            0 => return Ok(hash.digest128()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

fn differs(path: &Path, what: &'static str, expected: String, found: String) -> ModelError {
    ModelError::FileDiffers { path: path.to_path_buf(), what, expected, found }
}
