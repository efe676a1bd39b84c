//! Writes a safetensors file whose tensors grow side by side, some rows of each at a time.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError};
use tch::Tensor;
use xxhash_rust::xxh3::Xxh3;

use super::{FileSum, TensorSpec, writer::header};
use crate::{ModelError, bytes};

/// A safetensors file that takes rows of any of its tensors in any order.
///
/// [`TensorWriter`](super::TensorWriter) takes one tensor after the other and needs no second look at
/// the file; this one reads it once more for its checksum. Dropped before
/// [`finish`](ColumnWriter::finish), it leaves nothing.
#[derive(Debug)]
pub struct ColumnWriter {
    file: AtomicFile,
    path: PathBuf,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    spec: TensorSpec,
    /// Where its data start in the file.
    start: u64,
    missing_bytes: u64,
}

impl ColumnWriter {
    /// Starts `path` with a header for `specs`, those of wider kinds first.
    ///
    /// # Errors
    ///
    /// As [`write`](super::write).
    pub fn create(path: &Path, mut specs: Vec<TensorSpec>) -> Result<ColumnWriter, ModelError> {
        specs.sort_by_key(|spec| std::cmp::Reverse(spec.kind.elt_size_in_bytes()));
        let header = header(path, &specs)?;
        let mut file = AtomicFile::create(path)?;
        let io = DurableError::at("write", path);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(header.as_bytes()))
            .map_err(io)?;
        let mut start = 8 + header.len() as u64;
        let column = |spec: TensorSpec| {
            let missing_bytes = spec.n_bytes();
            let column = Column { spec, start, missing_bytes };
            start += missing_bytes;
            column
        };
        let columns = specs.into_iter().map(column).collect();
        Ok(ColumnWriter { file, path: path.to_path_buf(), columns })
    }

    /// Writes `rows` of the tensor `name`, from its row `first` on; each row once.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if they do not belong there, [`ModelError::Durable`] if they cannot
    /// be written.
    pub fn put(&mut self, name: &str, first: i64, rows: &Tensor) -> Result<(), ModelError> {
        let column = self.columns.iter_mut().find(|column| column.spec.name == name);
        let (size, kind) = (rows.size(), rows.kind());
        let fits = |column: &&mut Column| {
            let spec = &column.spec;
            let row_shapes = (spec.shape.get(1..), size.get(1..));
            let end = size.first().and_then(|n_rows| first.checked_add(*n_rows));
            let all = spec.shape.first();
            // A scalar is written whole.
            let is_within = match (end, all) {
                (Some(end), Some(all)) => first >= 0 && end <= *all,
                (None, None) => first == 0,
                _ => false,
            };
            spec.kind == kind && row_shapes.0 == row_shapes.1 && is_within
        };
        let Some(column) = column.filter(fits) else {
            return Err(refuse(&self.path, format!("{size:?} {kind:?} do not belong in `{name}`")));
        };
        let n_bytes = bytes::n_bytes(rows) as u64;
        let row_bytes = n_bytes.checked_div(size.first().copied().unwrap_or(1) as u64).unwrap_or(0);
        column.missing_bytes = column
            .missing_bytes
            .checked_sub(n_bytes)
            .ok_or_else(|| refuse(&self.path, format!("rows of `{name}` were written twice")))?;
        let at = column.start + first as u64 * row_bytes;
        let file = &mut self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| bytes::with_bytes(rows, |bytes| file.write_all(bytes)))
            .map_err(DurableError::at("write", &self.path))?;
        Ok(())
    }

    /// Takes the file's checksum, syncs it and gives it its name.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorFile`] if rows are missing, [`ModelError::Durable`] if the file cannot be
    /// completed.
    pub fn finish(mut self) -> Result<FileSum, ModelError> {
        if let Some(Column { spec, missing_bytes, .. }) =
            self.columns.iter().find(|column| column.missing_bytes > 0)
        {
            let reason = format!("{missing_bytes} bytes of `{}` are missing", spec.name);
            return Err(refuse(&self.path, reason));
        }
        let sum = self.sum().map_err(DurableError::at("read", &self.path))?;
        self.file.commit()?;
        Ok(sum)
    }

    fn sum(&mut self) -> std::io::Result<FileSum> {
        self.file.flush()?;
        let mut file = File::open(self.file.temporary_path())?;
        let (mut hash, mut buffer, mut size) = (Xxh3::new(), vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(FileSum { size, xxh3: hash.digest128() }),
                n => {
                    hash.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
    }
}

fn refuse(path: &Path, reason: String) -> ModelError {
    ModelError::TensorFile { path: path.to_path_buf(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn spec(name: &str, tensor: &Tensor) -> TensorSpec {
        TensorSpec::of(name, tensor)
    }

    #[test]
    fn rows_in_any_order_make_the_file_that_one_write_makes() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let ids = Tensor::arange(5, (Kind::Int64, Device::Cpu));
        let rows =
            Tensor::arange(15, (Kind::Float, Device::Cpu)).view([5, 3]).to_kind(Kind::BFloat16);
        let step = Tensor::from(7i64);
        let all = [("rows", rows.shallow_clone()), ("ids", ids.shallow_clone()), ("step", step)];
        let expected = super::super::write(&whole, &all).unwrap();
        let mut writer = ColumnWriter::create(
            &parts,
            all.iter().map(|(name, tensor)| spec(name, tensor)).collect(),
        )
        .unwrap();
        writer.put("step", 0, &all[2].1).unwrap();
        writer.put("rows", 2, &rows.narrow(0, 2, 3)).unwrap();
        writer.put("ids", 0, &ids.narrow(0, 0, 4)).unwrap();
        writer.put("rows", 0, &rows.narrow(0, 0, 2)).unwrap();
        writer.put("ids", 4, &ids.narrow(0, 4, 1)).unwrap();
        assert_eq!(writer.finish().unwrap(), expected);
        assert_eq!(std::fs::read(&parts).unwrap(), std::fs::read(&whole).unwrap());
    }

    #[test]
    fn rows_that_do_not_belong_are_refused_and_missing_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let rows = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu));
        let mut writer = ColumnWriter::create(&path, vec![spec("rows", &rows)]).unwrap();
        for (name, first, wrong) in [
            ("other", 0, rows.shallow_clone()),
            ("rows", 1, rows.shallow_clone()),
            ("rows", -1, rows.narrow(0, 0, 1)),
            ("rows", i64::MAX, rows.narrow(0, 0, 1)),
            ("rows", 0, rows.narrow(1, 0, 1)),
            ("rows", 0, rows.to_kind(Kind::Double)),
            ("rows", 0, Tensor::from(1f32)),
        ] {
            let error = writer.put(name, first, &wrong).unwrap_err();
            assert!(matches!(error, ModelError::TensorFile { .. }), "{error:?}");
        }
        writer.put("rows", 0, &rows.narrow(0, 0, 3)).unwrap();
        assert!(writer.put("rows", 0, &rows.narrow(0, 0, 2)).is_err(), "16 bytes are missing");
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("8 bytes of `rows` are missing"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
