//! An Arrow IPC file that appears whole or not at all, with its checksum.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, SchemaRef};
use pfc_durable::{AtomicFile, DurableError};

use crate::{Checksum, ShardError, hash::HashingWriter};

/// Writes record batches to a file that appears once it is finished; uncompressed, buffers aligned to
/// 64 bytes.
pub struct IpcWriter {
    path: PathBuf,
    /// Taken by the first write that fails: what follows it in the file would be out of place.
    file: Option<FileWriter<HashingWriter<AtomicFile>>>,
}

impl IpcWriter {
    /// Begins the file; it has its name once it is finished.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] if it cannot be made.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<IpcWriter, ShardError> {
        let file = HashingWriter::new(AtomicFile::create(path)?);
        let file = FileWriter::try_new(file, schema).map_err(|e| failed(path, e))?;
        Ok(IpcWriter { path: path.to_path_buf(), file: Some(file) })
    }

    /// Appends a batch.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] or [`ShardError::Arrow`]; nothing can be written after that.
    pub fn write(&mut self, batch: Result<RecordBatch, ArrowError>) -> Result<(), ShardError> {
        let mut file = self.take()?;
        batch.and_then(|b| file.write(&b)).map_err(|e| failed(&self.path, e))?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes the footer and gives the file its name; returns its size and checksum.
    ///
    /// # Errors
    ///
    /// [`ShardError::Durable`] if that cannot be written; there is no file then.
    pub fn finish(self) -> Result<(u64, Checksum), ShardError> {
        let (file, bytes, checksum) = self.end()?;
        file.commit()?;
        Ok((bytes, checksum))
    }

    /// As [`finish`](IpcWriter::finish), but fails if another process gave a file that name.
    ///
    /// # Errors
    ///
    /// As [`finish`](IpcWriter::finish).
    pub fn finish_new(self) -> Result<(u64, Checksum), ShardError> {
        let (file, bytes, checksum) = self.end()?;
        file.commit_new()?;
        Ok((bytes, checksum))
    }

    fn end(mut self) -> Result<(AtomicFile, u64, Checksum), ShardError> {
        Ok(self.take()?.into_inner().map_err(|e| failed(&self.path, e))?.finish())
    }

    fn take(&mut self) -> Result<FileWriter<HashingWriter<AtomicFile>>, ShardError> {
        self.file.take().ok_or_else(|| earlier_write_failed(&self.path))
    }
}

impl fmt::Debug for IpcWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpcWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a writer says that cannot go on.
pub(crate) fn earlier_write_failed(path: &Path) -> ShardError {
    DurableError::at("write", path)(io::Error::other("an earlier write failed")).into()
}

/// Tells a full disk from a fault of ours.
fn failed(path: &Path, error: ArrowError) -> ShardError {
    match error {
        ArrowError::IoError(_, source) => DurableError::at("write", path)(source).into(),
        source => ShardError::Arrow { path: path.to_path_buf(), source },
    }
}
