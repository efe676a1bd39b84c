//! Reads a safetensors file, tensor by tensor or rows of one, each straight into its own memory.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::{KINDS, TensorSpec};
use crate::{ModelError, bytes, libtorch};

/// The format's own limit; the header of the largest network here takes 0.2 MB.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// An open safetensors file whose header has been checked against the file's size.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    names: Vec<String>,
    metadata: Metadata,
    /// Where the data start.
    data: u64,
}

impl TensorFile {
    /// Reads and checks the header alone.
    ///
    /// # Errors
    ///
    /// [`ModelError::Durable`], and [`ModelError::TensorFile`] if the header is malformed or does not
    /// cover the file exactly.
    pub fn open(path: &Path) -> Result<TensorFile, ModelError> {
        let refuse = |reason: String| ModelError::TensorFile { path: path.to_path_buf(), reason };
        let mut file = File::open(path).map_err(ModelError::io("open", path))?;
        let size = file.metadata().map_err(ModelError::io("read", path))?.len();
        if size < 8 {
            return Err(refuse(format!("{size} bytes are too few for a header")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(ModelError::io("read", path))?;
        let length = u64::from_le_bytes(length);
        let limit = HEADER_BYTES_MAX.min(size - 8);
        if length > limit {
            return Err(refuse(format!("its header claims {length} bytes, {limit} are possible")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(ModelError::io("read", path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| refuse(error.to_string()))?;
        let (claimed, found) = (metadata.data_len() as u64, size - 8 - length);
        if claimed != found {
            return Err(refuse(format!(
                "it should hold {claimed} bytes of data and holds {found}"
            )));
        }
        let names = metadata.offset_keys();
        Ok(TensorFile { path: path.to_path_buf(), file, names, metadata, data: 8 + length })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The text kept under `key` in the header's free part.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Kind and shape of a tensor.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if there is no such tensor, or its kind is not read here.
    pub fn spec(&self, name: &str) -> Result<TensorSpec, ModelError> {
        let info = self.info(name)?;
        let known = KINDS.iter().find(|(_, dtype, _)| *dtype == info.dtype);
        let (kind, ..) =
            known.ok_or_else(|| self.refuse(format!("`{name}` is {:?}", info.dtype)))?;
        let shape = info.shape.iter().map(|&n| i64::try_from(n)).collect::<Result<_, _>>();
        let shape =
            shape.map_err(|_| self.refuse(format!("`{name}` has shape {:?}", info.shape)))?;
        Ok(TensorSpec { name: name.to_owned(), kind: *kind, shape })
    }

    /// Name and shape of every tensor, in the order of the file.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if a kind is not read here.
    pub fn shapes(&self) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
        let specs = self.names.iter().map(|name| self.spec(name));
        specs.map(|spec| spec.map(|TensorSpec { name, shape, .. }| (name, shape))).collect()
    }

    /// All tensors, on the CPU, in the order of the file.
    ///
    /// # Errors
    ///
    /// As [`read`](TensorFile::read).
    pub fn read_all(&mut self) -> Result<Vec<(String, Tensor)>, ModelError> {
        let names = self.names.clone();
        let read = |name: String| self.read(&name).map(|tensor| (name, tensor));
        names.into_iter().map(read).collect()
    }

    /// One tensor, on the CPU.
    ///
    /// # Errors
    ///
    /// As [`spec`](TensorFile::spec), and [`ModelError::Durable`].
    pub fn read(&mut self, name: &str) -> Result<Tensor, ModelError> {
        let spec = self.spec(name)?;
        let offset = self.info(name)?.data_offsets.0 as u64;
        self.read_at(offset, &spec.shape, spec.kind)
    }

    /// The given rows (of the first axis) of one tensor, on the CPU.
    ///
    /// # Errors
    ///
    /// As [`read`](TensorFile::read), and [`ModelError::TensorFile`] if there are no such rows.
    pub fn read_rows(&mut self, name: &str, rows: Range<i64>) -> Result<Tensor, ModelError> {
        let TensorSpec { kind, mut shape, .. } = self.spec(name)?;
        let n_rows = shape.first().copied().unwrap_or(0);
        if rows.start < 0 || rows.end < rows.start || rows.end > n_rows || shape.is_empty() {
            let Range { start, end } = rows;
            return Err(
                self.refuse(format!("rows {start} to {end} of `{name}`, which has {n_rows}"))
            );
        }
        shape[0] = rows.end - rows.start;
        let row_bytes = shape[1..].iter().product::<i64>() as u64 * kind.elt_size_in_bytes() as u64;
        let offset = self.info(name)?.data_offsets.0 as u64 + rows.start as u64 * row_bytes;
        self.read_at(offset, &shape, kind)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, ModelError> {
        self.metadata.info(name).ok_or_else(|| self.refuse(format!("it has no tensor `{name}`")))
    }

    fn read_at(&mut self, offset: u64, shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
        // The header's sizes were checked against the file's, so this allocates no more than that.
        let mut tensor = Tensor::f_empty(shape, (kind, Device::Cpu)).map_err(|error| {
            if libtorch::is_out_of_memory(&error) {
                return ModelError::torch("read a tensor")(error);
            }
            let reason = libtorch::first_line(&error);
            self.refuse(format!("no tensor has shape {shape:?}: {reason}"))
        })?;
        let file = &mut self.file;
        file.seek(SeekFrom::Start(self.data + offset))
            .and_then(|_| bytes::with_bytes_mut(&mut tensor, |bytes| file.read_exact(bytes)))
            .map_err(ModelError::io("read", &self.path))?;
        Ok(tensor)
    }

    fn refuse(&self, reason: String) -> ModelError {
        ModelError::TensorFile { path: self.path.clone(), reason }
    }
}
