//! Writes the zip archive of PyTorch, tensor by tensor.

use std::io::{self, Seek, SeekFrom, Write};

use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::FileOptions};

use crate::{
    TorchFileError,
    object::{Object, StateEntry, pickle},
};

/// Members that hold numbers start at a multiple of this, as PyTorch's own do.
const ALIGNMENT: u16 = 64;
/// Name of the folder within the archive.
const ROOT: &str = "archive";

/// An archive whose tensors arrive one after another, in the order in which its object names them.
pub struct StateWriter<W: Write + Seek> {
    zip: ZipWriter<UntilItFails<W>>,
    /// Bytes of each tensor.
    tensors: Vec<u64>,
    /// Tensors that were begun.
    n_begun: usize,
    /// Bytes of the last of them that are missing.
    n_missing: u64,
}

impl<W: Write + Seek> StateWriter<W> {
    /// Starts an archive: an `OrderedDict` of these tensors.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    pub fn new(out: W, specs: Vec<StateEntry>) -> Result<StateWriter<W>, TorchFileError> {
        StateWriter::of(out, &Object::StateDict(specs))
    }

    /// Starts an archive of an object, whose tensors come in the order in which it names them, from the
    /// outside in and from the first item to the last.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    pub fn of(out: W, object: &Object) -> Result<StateWriter<W>, TorchFileError> {
        let zip = ZipWriter::new(UntilItFails::new(out));
        let (pickle, tensors) = pickle(object);
        let mut writer = StateWriter { zip, tensors, n_begun: 0, n_missing: 0 };
        writer.member("data.pkl", &pickle)?;
        writer.member("byteorder", b"little")?;
        Ok(writer)
    }

    /// Appends the elements of the next tensor, little-endian and in order.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no further tensor, or `bytes` does not have its size.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TorchFileError> {
        assert_eq!(self.n_missing, 0, "the tensor before is not complete");
        self.begin_tensor()?;
        assert_eq!(bytes.len() as u64, self.n_missing, "the tensor has another size");
        self.append(bytes)
    }

    /// Appends some elements of the next tensor, or the next elements of one that is not complete, so
    /// that a tensor need not be in memory as a whole. Tensors without elements are passed over.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    ///
    /// # Panics
    ///
    /// If there is no further tensor, or `bytes` are more than what is missing of the tensor.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), TorchFileError> {
        if self.n_missing == 0 && !bytes.is_empty() {
            self.begin_empty_tensors()?;
            self.begin_tensor()?;
        }
        let left = self.n_missing.checked_sub(bytes.len() as u64);
        self.n_missing = left.expect("no more bytes than the tensor has");
        Ok(self.zip.write_all(bytes)?)
    }

    /// Begins the tensors that come next and have no elements.
    fn begin_empty_tensors(&mut self) -> Result<(), TorchFileError> {
        while self.n_missing == 0 && self.tensors.get(self.n_begun) == Some(&0) {
            self.begin_tensor()?;
        }
        Ok(())
    }

    fn begin_tensor(&mut self) -> Result<(), TorchFileError> {
        let n_bytes = self.tensors[self.n_begun];
        let name = format!("data/{}", self.n_begun);
        self.begin_member(&name, n_bytes)?;
        (self.n_begun, self.n_missing) = (self.n_begun + 1, n_bytes);
        Ok(())
    }

    /// Writes the directory and hands the file back.
    ///
    /// # Errors
    ///
    /// [`TorchFileError::Io`].
    ///
    /// # Panics
    ///
    /// If tensors are missing.
    pub fn finish(mut self) -> Result<W, TorchFileError> {
        self.begin_empty_tensors()?;
        assert_eq!((self.n_begun, self.n_missing), (self.tensors.len(), 0), "tensors are missing");
        self.member("version", b"3\n")?;
        Ok(self.zip.finish().map_err(failed)?.out)
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> Result<(), TorchFileError> {
        self.begin_member(name, bytes.len() as u64)?;
        Ok(self.zip.write_all(bytes)?)
    }

    fn begin_member(&mut self, name: &str, n_bytes: u64) -> Result<(), TorchFileError> {
        // A fixed date: the same weights make the same file.
        let options = FileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(u32::try_from(n_bytes).is_err());
        self.zip
            .start_file_aligned(format!("{ROOT}/{name}"), options, ALIGNMENT)
            .map_err(failed)?;
        Ok(())
    }
}

/// A writer that takes everything once it has failed: an archive that is dropped writes its directory,
/// and prints to standard error where it cannot.
struct UntilItFails<W> {
    out: W,
    has_failed: bool,
    /// Where the next byte goes, so that sizes still make sense to the archive after a failure.
    at: u64,
}

impl<W> UntilItFails<W> {
    fn new(out: W) -> UntilItFails<W> {
        UntilItFails { out, has_failed: false, at: 0 }
    }

    fn watch<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.has_failed |= result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<W: Write> Write for UntilItFails<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.has_failed { Ok(bytes.len()) } else { self.out.write(bytes) };
        self.at += written.as_ref().map_or(0, |n| *n as u64);
        self.watch(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.watch(flushed)
    }
}

impl<W: Seek> Seek for UntilItFails<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match (self.has_failed, to) {
            (false, to) => self.out.seek(to),
            (true, SeekFrom::Start(at)) => Ok(at),
            (true, SeekFrom::Current(by) | SeekFrom::End(by)) => {
                Ok(self.at.saturating_add_signed(by))
            }
        };
        self.at = place.as_ref().map_or(self.at, |at| *at);
        self.watch(place)
    }
}

impl<W: Write + Seek> std::fmt::Debug for StateWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWriter").field("n_begun", &self.n_begun).finish_non_exhaustive()
    }
}

fn failed(error: ZipError) -> TorchFileError {
    match error {
        ZipError::Io(error) => error.into(),
        other => TorchFileError::Io(io::Error::other(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{Dtype, StateFile, machine, value::Value};

    fn spec(key: &str, dtype: Dtype, shape: &[u64]) -> StateEntry {
        StateEntry { key: key.to_owned(), dtype, shape: shape.to_vec() }
    }

    fn n_bytes(spec: &StateEntry) -> usize {
        spec.shape.iter().product::<u64>() as usize * spec.dtype.size()
    }

    fn archive(specs: &[StateEntry]) -> Vec<u8> {
        let mut writer = StateWriter::new(Cursor::new(Vec::new()), specs.to_vec()).unwrap();
        for (i, spec) in specs.iter().enumerate() {
            writer.push(&vec![i as u8 + 1; n_bytes(spec)]).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn sample() -> Vec<StateEntry> {
        vec![
            spec("conv.weight", Dtype::F32, &[2, 3]),
            spec("n", Dtype::I64, &[]),
            spec("half", Dtype::Bf16, &[5, 0]),
            spec("last", Dtype::F16, &[3]),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = StateFile::parse(Cursor::new(archive(&sample()))).unwrap();
        let infos = file.tensors().to_vec();
        for (i, (info, spec)) in infos.iter().zip(sample()).enumerate() {
            assert_eq!((&info.key, info.dtype, &info.shape), (&spec.key, spec.dtype, &spec.shape));
            let mut bytes = vec![0; info.n_bytes()];
            file.read(i, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == i as u8 + 1));
        }
    }

    #[test]
    fn a_tensor_written_in_parts_makes_the_same_file() {
        let mut writer = StateWriter::new(Cursor::new(Vec::new()), sample()).unwrap();
        for part in [&[1; 5][..], &[1; 19]] {
            writer.append(part).unwrap();
        }
        writer.append(&[2; 8]).unwrap();
        writer.push(&[]).unwrap();
        for part in [&[4; 1][..], &[], &[4; 5]] {
            writer.append(part).unwrap();
        }
        assert_eq!(writer.finish().unwrap().into_inner(), archive(&sample()));
    }

    #[test]
    fn tensors_without_elements_need_no_call() {
        let none = |key: &str| spec(key, Dtype::F32, &[0, 4]);
        let specs = [none("first"), spec("rows", Dtype::U8, &[2]), none("third"), none("last")];
        let mut writer = StateWriter::new(Cursor::new(Vec::new()), specs.to_vec()).unwrap();
        writer.append(&[2]).unwrap();
        writer.append(&[2]).unwrap();
        assert_eq!(writer.finish().unwrap().into_inner(), archive(&specs));
    }

    #[test]
    fn a_full_disk_is_an_error_at_whichever_byte_it_comes() {
        struct Disk(Cursor<Vec<u8>>, u64);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = self.1.saturating_sub(self.0.position()) as usize;
                match bytes.len().min(room) {
                    0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
                    n => self.0.write(&bytes[..n]),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Seek for Disk {
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                self.0.seek(to)
            }
        }
        let write = |room: u64| -> Result<Vec<u8>, TorchFileError> {
            let disk = Disk(Cursor::new(Vec::new()), room);
            let mut writer = StateWriter::new(disk, sample())?;
            for spec in sample() {
                writer.push(&vec![7; n_bytes(&spec)])?;
            }
            Ok(writer.finish()?.0.into_inner())
        };
        let whole = write(u64::MAX).unwrap();
        for room in 0..whole.len() as u64 {
            let error = write(room).unwrap_err();
            let is_full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
            assert!(matches!(&error, TorchFileError::Io(e) if is_full(e)), "{room}: {error:?}");
        }
        assert_eq!(write(whole.len() as u64).unwrap(), whole);
    }

    #[test]
    fn numbers_lie_at_multiples_of_64_bytes() {
        let bytes = archive(&sample());
        let first = bytes.windows(24).position(|window| window == [1; 24]).unwrap();
        assert_eq!(first % 64, 0);
        assert_eq!(archive(&sample()), bytes);
    }

    #[test]
    fn any_cut_or_flipped_byte_gives_an_error_or_a_state_dict() {
        let bytes = archive(&sample());
        for len in 0..bytes.len() {
            assert!(StateFile::parse(Cursor::new(&bytes[..len])).is_err(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                if let Ok(mut file) = StateFile::parse(Cursor::new(damaged)) {
                    for i in 0..file.tensors().len() {
                        let mut out = vec![0; file.tensors()[i].n_bytes()];
                        let _ = file.read(i, &mut out);
                    }
                }
            }
        }
    }

    #[test]
    fn large_counts_survive_the_pickle() {
        for large in [i64::from(u32::MAX) * 9, i64::from(i32::MIN), i64::from(i32::MIN) - 1] {
            let (bytes, _) = pickle(&Object::Int(large));
            assert_eq!(machine::parse(&bytes).unwrap().root(), &Value::Int(large));
        }
    }
}
