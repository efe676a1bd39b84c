//! Writes a safetensors file front to back, checksummed on the way.

use std::{io::Write, path::Path};

use pfc_durable::{AtomicFile, DurableError};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::Xxh3;

use super::{FileSum, KINDS};
use crate::{ModelError, bytes};

/// Name, kind and shape of a tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Any text; unique in its file.
    pub name: String,
    /// Element kind.
    pub kind: Kind,
    /// Shape; empty for a scalar.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// What `tensor` is.
    pub fn of(name: &str, tensor: &Tensor) -> TensorSpec {
        TensorSpec { name: name.to_owned(), kind: tensor.kind(), shape: tensor.size() }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64 * self.kind.elt_size_in_bytes() as u64
    }
}

/// A safetensors file whose tensors arrive one after another, whole or in pieces.
///
/// For tensors that are never in memory as a whole, such as the centres of a hundred million classes.
/// Dropped before [`finish`](TensorWriter::finish), it leaves nothing.
pub struct TensorWriter {
    file: AtomicFile,
    path: std::path::PathBuf,
    hash: Box<Xxh3>,
    size: u64,
    specs: std::vec::IntoIter<TensorSpec>,
    current: Option<TensorSpec>,
    missing_bytes: u64,
}

impl TensorWriter {
    /// Starts `path` with a header for `specs`, whose data follow in this order.
    ///
    /// # Errors
    ///
    /// As [`write`](super::write).
    pub fn create(path: &Path, specs: Vec<TensorSpec>) -> Result<TensorWriter, ModelError> {
        let header = header(path, &specs)?;
        let mut writer = TensorWriter {
            file: AtomicFile::create(path)?,
            path: path.to_path_buf(),
            hash: Box::new(Xxh3::new()),
            size: 0,
            specs: specs.into_iter(),
            current: None,
            missing_bytes: 0,
        };
        writer.append(&(header.len() as u64).to_le_bytes())?;
        writer.append(header.as_bytes())?;
        writer.advance();
        Ok(writer)
    }

    /// Appends all of a tensor or its next part, whose last axes equal those of the whole.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if the part does not belong here, [`ModelError::Durable`] if it
    /// cannot be written.
    pub fn push(&mut self, part: &Tensor) -> Result<(), ModelError> {
        let n_bytes = bytes::n_bytes(part) as u64;
        let Some(spec) = self.current.as_ref().filter(|spec| spec.kind == part.kind()) else {
            return Err(self.refuse(format!("a part of kind {:?} is out of place", part.kind())));
        };
        if n_bytes > self.missing_bytes {
            let reason =
                format!("{n_bytes} bytes for the last {} of `{}`", self.missing_bytes, spec.name);
            return Err(self.refuse(reason));
        }
        bytes::with_bytes(part, |bytes| self.append(bytes))?;
        self.missing_bytes -= n_bytes;
        if self.missing_bytes == 0 {
            self.advance();
        }
        Ok(())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if data are missing, [`ModelError::Durable`] if the file cannot be
    /// completed.
    pub fn finish(self) -> Result<FileSum, ModelError> {
        if let Some(spec) = &self.current
            && self.missing_bytes > 0
        {
            let reason = format!("{} bytes of `{}` are missing", self.missing_bytes, spec.name);
            return Err(self.refuse(reason));
        }
        self.file.commit()?;
        Ok(FileSum { size: self.size, xxh3: self.hash.digest128() })
    }

    /// Goes on to the next tensor; empty ones take a push like any other.
    fn advance(&mut self) {
        self.current = self.specs.next();
        self.missing_bytes = self.current.as_ref().map_or(0, TensorSpec::n_bytes);
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.file.write_all(bytes).map_err(DurableError::at("write", &self.path))?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn refuse(&self, reason: String) -> ModelError {
        ModelError::TensorFile { path: self.path.clone(), reason }
    }
}

impl std::fmt::Debug for TensorWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

pub(super) fn header(path: &Path, specs: &[TensorSpec]) -> Result<String, ModelError> {
    let refuse = |reason| ModelError::TensorFile { path: path.to_path_buf(), reason };
    let mut seen = std::collections::BTreeSet::new();
    let (mut text, mut offset) = (String::from("{"), 0);
    for spec in specs {
        let known = KINDS.iter().find(|(kind, ..)| *kind == spec.kind);
        let (.., dtype) = known.ok_or_else(|| {
            refuse(format!("`{}` is {:?}, which has no place in the format", spec.name, spec.kind))
        })?;
        if !seen.insert(&spec.name) {
            return Err(refuse(format!("`{}` occurs twice", spec.name)));
        }
        let name = serde_json::Value::from(spec.name.as_str());
        let shape = &spec.shape;
        let end = offset + spec.n_bytes();
        let comma = if seen.len() == 1 { "" } else { "," };
        text += &format!(
            r#"{comma}{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#
        );
        offset = end;
    }
    text.push('}');
    // Data start at a multiple of eight, so that they can be used where they lie.
    let padded = text.len().next_multiple_of(8);
    // Not by the width of a format, which panics above 65535: r100 has a header of 90,000 bytes.
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_any_length_is_padded_to_eight_bytes() {
        for n_tensors in [1, 2, 500, 1000, 5000] {
            let spec =
                |i| TensorSpec { name: format!("layer.{i}"), kind: Kind::Float, shape: vec![3] };
            let specs: Vec<TensorSpec> = (0..n_tensors).map(spec).collect();
            let text = header(Path::new("x"), &specs).unwrap();
            assert!(text.len().is_multiple_of(8), "{n_tensors}");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json.as_object().unwrap().len(), n_tensors);
            let end = &json[format!("layer.{}", n_tensors - 1)]["data_offsets"][1];
            assert_eq!(end.as_u64(), Some(12 * n_tensors as u64));
        }
    }
}
