//! An open state dict file.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

use crate::{
    Dtype, TorchFileError, archive,
    layout::gather,
    legacy, machine, state_dict,
    value::{Pickle, TensorRef, Value},
};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its key, after those of the dictionaries around its own, with points between. That of a file that
    /// holds a tensor and nothing else is empty.
    pub key: String,
    /// What an element is.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    n_bytes: usize,
    /// Of the first byte in the file.
    start: u64,
    /// From the first byte to the last in the file.
    span_bytes: usize,
    /// `None` where the elements lie in order.
    strides: Option<Vec<u64>>,
}

impl TensorInfo {
    /// Bytes of all elements.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// How many times the file's size all tensors together may take. Tensors may be views of one storage:
/// tied weights occur twice, and the parts of a fused layer beside the whole. A small file whose many
/// tensors all are one storage would take any amount of memory.
const ALIASED_MAX: u64 = 4;

/// A state dict whose every tensor lies within the file.
#[derive(Debug)]
pub struct StateFile<R> {
    reader: R,
    tensors: Vec<TensorInfo>,
    others: Vec<String>,
}

impl<R: Read + Seek> StateFile<R> {
    /// Reads the pickles and checks every tensor against the file. Elements are not read yet.
    ///
    /// A file may hold more than a state dict, such as `arcface_torch`'s `checkpoint_gpu_0.pt`: the tensors
    /// of all its dictionaries are listed.
    ///
    /// # Errors
    ///
    /// [`TorchFileError`] for a file without tensors, for tensors that take many times the file because
    /// they share storages, and for I/O.
    pub fn parse(mut reader: R) -> Result<StateFile<R>, TorchFileError> {
        let mut magic = Vec::new();
        reader.seek(SeekFrom::Start(0))?;
        reader.by_ref().take(4).read_to_end(&mut magic)?;
        let (tensors, others) = if magic.starts_with(b"PK\x03\x04") {
            let archive = archive::open(&mut reader)?;
            let pickle = machine::parse(&archive.pickle)
                .map_err(|source| TorchFileError::Pickle { name: "data.pkl", source })?;
            locate(&pickle, &archive.storages)?
        } else {
            let head = legacy::head(&mut reader)?;
            let (pickle, start) = legacy::object(&head)?;
            let element_bytes: HashMap<&str, u64> = pickle
                .objects
                .iter()
                .filter_map(|value| match value {
                    Value::Storage(storage) => Some((storage.key, storage.dtype.size() as u64)),
                    _ => None,
                })
                .collect();
            let storages = legacy::storages(&mut reader, &head, start, &element_bytes)?;
            locate(&pickle, &storages)?
        };
        let mut file = StateFile { reader, tensors, others };
        file.check_ends()?;
        Ok(file)
    }

    /// The tensors that a TorchScript program keeps: those of its modules under the names that libtorch gives
    /// parameters and buffers, and those that its code names under `constants.0`, `constants.1`, and so on.
    /// Elements are not read yet, and what is no tensor is passed over.
    ///
    /// # Errors
    ///
    /// As [`parse`](StateFile::parse), but that a program may have no tensors.
    pub fn parse_script(mut reader: R) -> Result<StateFile<R>, TorchFileError> {
        let mut tensors = Vec::new();
        let parts = archive::open_script(&mut reader)?;
        for (name, archive) in archive::SCRIPT_PARTS.into_iter().zip(parts) {
            let pickle = machine::parse_script(&archive.pickle)
                .map_err(|source| TorchFileError::Pickle { name, source })?;
            match locate(&pickle, &archive.storages) {
                Ok((found, _)) if name != archive::DATA => {
                    let key = |key: String| format!("{name}.{key}");
                    tensors.extend(
                        found.into_iter().map(|info| TensorInfo { key: key(info.key), ..info }),
                    );
                }
                Ok((found, _)) => tensors.extend(found),
                Err(TorchFileError::NoStateDict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut file = StateFile { reader, tensors, others: Vec::new() };
        file.check_ends()?;
        Ok(file)
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The keys of what holds no tensor, such as the number of the epoch.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Reads the elements of tensor `i`, little-endian and in order, into `out`.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no tensor `i`, or `out` has another size than [`TensorInfo::n_bytes`].
    pub fn read(&mut self, i: usize, out: &mut [u8]) -> Result<(), TorchFileError> {
        let info = &self.tensors[i];
        assert_eq!(out.len(), info.n_bytes, "the buffer has another size than the tensor");
        if out.is_empty() {
            return Ok(());
        }
        self.reader.seek(SeekFrom::Start(info.start))?;
        let Some(strides) = &info.strides else { return Ok(self.reader.read_exact(out)?) };
        let mut span = vec![0; info.span_bytes];
        self.reader.read_exact(&mut span)?;
        gather(&span, &info.shape, strides, info.dtype.size(), out);
        Ok(())
    }

    /// Reads some rows of tensor `i` alone, if its elements lie in order; else it reads all of them and
    /// gives those that are wanted.
    ///
    /// * `rows`: of the first axis
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no tensor `i`, it has no such rows, or `out` has another size than they.
    pub fn read_rows(
        &mut self,
        i: usize,
        rows: Range<u64>,
        out: &mut [u8],
    ) -> Result<(), TorchFileError> {
        let info = &self.tensors[i];
        let n_rows = info.shape.first().copied().unwrap_or(0);
        assert!(rows.start <= rows.end && rows.end <= n_rows, "rows {rows:?} of {n_rows}");
        let row_bytes = info.n_bytes / (n_rows as usize).max(1);
        let (first, n_bytes) = (rows.start as usize * row_bytes, out.len());
        assert_eq!(n_bytes as u64, (rows.end - rows.start) * row_bytes as u64, "rows {rows:?}");
        if out.is_empty() {
            return Ok(());
        }
        if info.strides.is_some() {
            let mut all = vec![0; info.n_bytes];
            self.read(i, &mut all)?;
            out.copy_from_slice(&all[first..first + n_bytes]);
            return Ok(());
        }
        self.reader.seek(SeekFrom::Start(info.start + first as u64))?;
        Ok(self.reader.read_exact(out)?)
    }

    /// A directory may claim what the file does not have.
    fn check_ends(&mut self) -> Result<(), TorchFileError> {
        let file_bytes = self.reader.seek(SeekFrom::End(0))?;
        let beyond = |info: &&TensorInfo| {
            info.start.checked_add(info.span_bytes as u64).is_none_or(|end| end > file_bytes)
        };
        match self.tensors.iter().find(beyond) {
            None => check_total(&self.tensors, file_bytes),
            Some(info) => Err(TorchFileError::Tensor {
                key: info.key.clone(),
                reason: "the file ends before its data do".to_owned(),
            }),
        }
    }
}

/// Refuses tensors that, each within its storage, take far more than the file together.
fn check_total(tensors: &[TensorInfo], file_bytes: u64) -> Result<(), TorchFileError> {
    let limit = file_bytes.saturating_mul(ALIASED_MAX);
    let mut total = 0u64;
    for info in tensors {
        total = total.saturating_add(info.n_bytes as u64);
        if total > limit {
            let reason = format!(
                "the {} tensors are views of the same numbers and would take more than {limit} \
                 bytes, {ALIASED_MAX} times the file",
                tensors.len()
            );
            return Err(TorchFileError::Tensor { key: info.key.clone(), reason });
        }
    }
    Ok(())
}

/// Whether the file is a TorchScript program rather than weights.
pub fn is_torchscript<R: Read + Seek>(mut reader: R) -> bool {
    archive::has_code(&mut reader)
}

/// The tensors of `pickle` by their places in the file, and the keys of everything else.
fn locate(
    pickle: &Pickle<'_>,
    storages: &HashMap<String, (u64, u64)>,
) -> Result<(Vec<TensorInfo>, Vec<String>), TorchFileError> {
    let state_dict::Contents { tensors, others } = state_dict::contents(pickle)?;
    let located = tensors.into_iter().map(|(key, tensor)| {
        let info = place(tensor, storages);
        info.map(|info| TensorInfo { key: key.clone(), ..info })
            .map_err(|reason| TorchFileError::Tensor { key, reason })
    });
    Ok((located.collect::<Result<_, _>>()?, others))
}

fn place(
    tensor: &TensorRef<'_>,
    storages: &HashMap<String, (u64, u64)>,
) -> Result<TensorInfo, String> {
    let storage = &tensor.storage;
    let size = storage.dtype.size() as u64;
    let extent = tensor.extent()?;
    let (start, available) = storages
        .get(storage.key)
        .ok_or_else(|| format!("there is no storage `{}`", storage.key.escape_debug()))?;
    let claimed = storage.n_elements.checked_mul(size);
    if claimed.is_none_or(|claimed| claimed > *available) {
        return Err(format!(
            "its storage claims {} elements of {size} bytes and has {available} bytes",
            storage.n_elements
        ));
    }
    // Within `claimed`, which did not overflow.
    let offset = if extent.n == 0 { 0 } else { tensor.offset * size };
    let bytes = |n: u64| usize::try_from(n * size).map_err(|_| "it is too large".to_owned());
    Ok(TensorInfo {
        key: String::new(),
        dtype: storage.dtype,
        shape: tensor.shape.clone(),
        n_bytes: bytes(extent.n)?,
        start: start.checked_add(offset).ok_or("it lies beyond any file")?,
        span_bytes: bytes(extent.span)?,
        strides: (!tensor.is_contiguous() && extent.n > 0).then(|| tensor.strides.clone()),
    })
}
