//! Writing a data set.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;

use crate::{
    DatasetSpec, Face, IdentityNames, MANIFEST_FILE, Manifest, SHARD_BYTES_MAX, SHARDS_DIR,
    ShardEntry, ShardError, ShardSpec, ShardWriter, assemble, ipc_writer::earlier_write_failed,
    shard_file, shard_writer::row_bytes,
};

/// Writes a data set: shards one after another, the manifest last.
///
/// Until [`finish`](DatasetWriter::finish) the folder is no data set; dropped before, it keeps the
/// finished shards, which the next writer in this folder removes.
#[derive(Debug)]
pub struct DatasetWriter {
    dir: PathBuf,
    spec: DatasetSpec,
    shards: Vec<ShardEntry>,
    open: Option<ShardWriter>,
    /// Rows of every label seen. A map, since one stray label must not cost 32 GiB.
    n_images: HashMap<u32, u64>,
    n_rows: u64,
    /// A shard could not be finished, so rows counted are lost.
    is_broken: bool,
}

impl DatasetWriter {
    /// Makes `dir` if need be, removes the shards of an interrupted run, and begins.
    ///
    /// # Errors
    ///
    /// [`ShardError::AlreadyExists`] if `dir` holds a finished data set, [`ShardError::BadSpec`],
    /// or [`ShardError::Durable`].
    pub fn create(dir: &Path, spec: DatasetSpec) -> Result<DatasetWriter, ShardError> {
        let bad = |what| Err(ShardError::BadSpec { path: dir.to_path_buf(), what });
        if !(1..=SHARD_BYTES_MAX).contains(&spec.shard_bytes) {
            let given = spec.shard_bytes;
            return bad(format!("shards of {given} bytes; allowed is 1 to {SHARD_BYTES_MAX}"));
        }
        if spec.image_size.rgb_bytes() == 0 {
            return bad(format!("images of {} pixels", spec.image_size));
        }
        let manifest = dir.join(MANIFEST_FILE);
        if manifest.try_exists().map_err(DurableError::at("look at", &manifest))? {
            return Err(ShardError::AlreadyExists { dir: dir.to_path_buf() });
        }
        let shards = dir.join(SHARDS_DIR);
        pfc_durable::create_dir_all(&shards)?;
        remove_leftovers(&shards).map_err(DurableError::at("clear", &shards))?;
        Ok(DatasetWriter {
            dir: dir.to_path_buf(),
            spec,
            shards: Vec::new(),
            open: None,
            n_images: HashMap::new(),
            n_rows: 0,
            is_broken: false,
        })
    }

    /// Appends a row and returns its number in the data set. `face.hash` is taken as it is, see
    /// [`ShardWriter::push`].
    ///
    /// # Errors
    ///
    /// As [`ShardWriter::push`] and [`ShardWriter::finish`]; nothing was appended, and after a
    /// failed write nothing can be.
    pub fn push(&mut self, face: Face<'_>) -> Result<u64, ShardError> {
        if let Some(shard) = &self.open {
            // A row that will be refused must not end the shard.
            shard.check(&face)?;
            if shard.n_bytes() + row_bytes(&face) > self.spec.shard_bytes {
                self.close_shard()?;
            }
        }
        self.check_unbroken()?;
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => ShardWriter::create(
                &self.dir.join(shard_file(self.shards.len())),
                ShardSpec { image_size: self.spec.image_size },
            )?,
        };
        let pushed = shard.push(face);
        // A refused row must not leave a shard without rows to be finished.
        self.open = (!shard.is_empty()).then_some(shard);
        pushed?;
        *self.n_images.entry(face.label).or_default() += 1;
        self.n_rows += 1;
        Ok(self.n_rows - 1)
    }

    /// Number of rows pushed.
    pub fn len(&self) -> u64 {
        self.n_rows
    }

    /// Whether no row was pushed.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Closes the last shard, writes the table of identities, and the manifest last.
    ///
    /// # Errors
    ///
    /// [`ShardError::UnnamedLabel`] if a label has no name, [`ShardError::IdentityName`] for a name
    /// that is empty or given twice, or a failed write. The folder is then no data set.
    pub fn finish(mut self, identities: IdentityNames) -> Result<Manifest, ShardError> {
        let n_identities = identities.len();
        if let Some(&label) = self.n_images.keys().max().filter(|&&label| label >= n_identities) {
            return Err(ShardError::UnnamedLabel { dir: self.dir, label, n_identities });
        }
        self.close_shard()?;
        let n_images = |label| self.n_images.get(&label).copied().unwrap_or(0);
        assemble(&self.dir, self.spec, self.shards, &identities, n_images)
    }

    fn close_shard(&mut self) -> Result<(), ShardError> {
        self.check_unbroken()?;
        if let Some(shard) = self.open.take() {
            let file = shard_file(self.shards.len());
            let closed = shard.finish();
            self.is_broken = closed.is_err();
            self.shards.push(ShardEntry { file, ..closed? });
        }
        Ok(())
    }

    fn check_unbroken(&self) -> Result<(), ShardError> {
        match self.is_broken {
            true => Err(earlier_write_failed(&self.dir)),
            false => Ok(()),
        }
    }
}

/// Removes what an interrupted writer left: files named as shards or as temporary files are.
fn remove_leftovers(shards: &Path) -> io::Result<()> {
    for entry in fs::read_dir(shards)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_shard = name
            .strip_suffix(".arrow")
            .is_some_and(|n| n.len() >= 5 && n.bytes().all(|b| b.is_ascii_digit()));
        let is_temporary = pfc_durable::is_temporary_name(&name);
        if (is_shard || is_temporary) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
