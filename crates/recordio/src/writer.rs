//! Records written as MXNet's own writer does, byte for byte.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{Access, AtomicDir, DurableError, OwnedDir};

use crate::{
    Header, MAGIC, PAYLOAD_BYTES_MAX, Property, RecordError,
    frame::{FIRST, LAST, MIDDLE, WHOLE},
};

/// A folder with `train.rec`, `train.idx` and perhaps `property`, being written.
///
/// It gets its name once [`finish`](RecordWriter::finish)ed; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct RecordWriter {
    folder: AtomicDir,
    /// Where the `.rec` file will be; for messages.
    path: PathBuf,
    rec: BufWriter<File>,
    idx: BufWriter<File>,
    offset: u64,
    n_records: u64,
    payload: Vec<u8>,
    failed: bool,
}

impl RecordWriter {
    /// Starts the folder `dir`, which must be absent or empty.
    ///
    /// # Errors
    ///
    /// [`RecordError::Folder`] if there is something in `dir` or another process writes it;
    /// [`RecordError::Durable`].
    pub fn create(dir: &Path) -> Result<RecordWriter, RecordError> {
        let owned = OwnedDir::claim(dir, Access::Alone)?;
        owned.check_free()?;
        RecordWriter::fill(owned.begin()?)
    }

    /// Starts to fill a folder that was begun for it.
    ///
    /// # Errors
    ///
    /// [`RecordError::Durable`].
    pub fn fill(folder: AtomicDir) -> Result<RecordWriter, RecordError> {
        let dir = folder.target().path().to_path_buf();
        let create = |name: &str| {
            let file = File::create(folder.path().join(name));
            let file = file.map_err(DurableError::at("create", &dir.join(name)))?;
            Ok::<_, RecordError>(BufWriter::with_capacity(1 << 20, file))
        };
        let (rec, idx) = (create("train.rec")?, create("train.idx")?);
        let (path, payload) = (dir.join("train.rec"), Vec::new());
        Ok(RecordWriter { folder, path, rec, idx, offset: 0, n_records: 0, payload, failed: false })
    }

    /// Appends a record and its line in the index; returns where it begins.
    ///
    /// Keys must differ from each other, in any order; that is not checked here, a reader would.
    ///
    /// # Errors
    ///
    /// [`RecordError::RecordTooLong`], after which nothing was written and others can be;
    /// [`RecordError::Durable`], after which the folder cannot be finished.
    pub fn write(&mut self, key: u64, header: &Header, image: &[u8]) -> Result<u64, RecordError> {
        let bytes = header.n_bytes() + image.len() as u64;
        if bytes > PAYLOAD_BYTES_MAX {
            let (path, max) = (self.path.clone(), PAYLOAD_BYTES_MAX);
            return Err(RecordError::RecordTooLong { path, key, bytes, max });
        }
        self.payload.clear();
        header.write_to(&mut self.payload);
        self.payload.extend_from_slice(image);
        let begins_at = self.offset;
        let written = write_record(&mut self.rec, &self.payload)
            .and_then(|n_bytes| writeln!(self.idx, "{key}\t{begins_at}").map(|()| n_bytes));
        match written {
            Ok(n_bytes) => {
                self.offset += n_bytes;
                self.n_records += 1;
                Ok(begins_at)
            }
            Err(error) => {
                self.failed = true;
                Err(DurableError::at("write", &self.path)(error).into())
            }
        }
    }

    /// Number of records so far.
    pub fn n_records(&self) -> u64 {
        self.n_records
    }

    /// The folder while it is being written: a file put there comes with the others.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `.rec` file that will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `property` if given, syncs all and gives the folder its name.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unfinished`] after a failed write, or [`RecordError::Durable`]; the folder is
    /// then removed.
    pub fn finish(self, property: Option<&Property>) -> Result<(), RecordError> {
        let RecordWriter { folder, path, rec, idx, failed, .. } = self;
        if failed {
            return Err(RecordError::Unfinished { path });
        }
        for file in [rec, idx] {
            file.into_inner().map_err(|e| DurableError::at("write", &path)(e.into_error()))?;
        }
        if let Some(property) = property {
            fs::write(folder.path().join("property"), property.to_string())
                .map_err(DurableError::at("write", &path.with_file_name("property")))?;
        }
        Ok(folder.commit()?)
    }
}

/// Writes one record, split at every magic at a multiple of 4; returns its bytes.
fn write_record(out: &mut impl Write, payload: &[u8]) -> io::Result<u64> {
    let (mut from, mut n_bytes) = (0, 0);
    let words = payload.as_chunks::<4>().0;
    for (word_idx, _) in words.iter().enumerate().filter(|(_, word)| **word == MAGIC) {
        let at = 4 * word_idx;
        // The payload begins with 24 bytes that can hold the magic as well, even as the first.
        let kind = if from == 0 { FIRST } else { MIDDLE };
        n_bytes += write_part(out, kind, &payload[from..at])?;
        from = at + MAGIC.len();
    }
    let kind = if from == 0 { WHOLE } else { LAST };
    n_bytes += write_part(out, kind, &payload[from..])?;
    Ok(n_bytes)
}

fn write_part(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<u64> {
    let word = (u32::from(kind) << 29) | bytes.len() as u32;
    let padding = bytes.len().next_multiple_of(4) - bytes.len();
    out.write_all(&MAGIC)?;
    out.write_all(&word.to_le_bytes())?;
    out.write_all(bytes)?;
    out.write_all(&[0; 3][..padding])?;
    Ok((8 + bytes.len() + padding) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let n_bytes = write_record(&mut out, payload).unwrap();
        assert_eq!(n_bytes, out.len() as u64);
        out
    }

    #[test]
    fn a_payload_is_padded_with_zeros() {
        assert_eq!(written(b"hello"), b"\x0a\x23\xd7\xce\x05\0\0\0hello\0\0\0");
        assert_eq!(written(b""), b"\x0a\x23\xd7\xce\0\0\0\0");
    }

    #[test]
    fn an_aligned_magic_splits_and_an_unaligned_one_does_not() {
        assert_eq!(
            written(b"ab\x0a\x23\xd7\xcecd"),
            b"\x0a\x23\xd7\xce\x08\0\0\0ab\x0a\x23\xd7\xcecd"
        );
        assert_eq!(
            written(b"\x0a\x23\xd7\xceabcd\x0a\x23\xd7\xce\x0a\x23\xd7\xcex"),
            [
                &b"\x0a\x23\xd7\xce\0\0\0\x20"[..],
                b"\x0a\x23\xd7\xce\x04\0\0\x40abcd",
                b"\x0a\x23\xd7\xce\0\0\0\x40",
                b"\x0a\x23\xd7\xce\x01\0\0\x60x\0\0\0",
            ]
            .concat()
        );
    }

    #[test]
    fn a_folder_appears_only_once_finished() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("out");
        let mut writer = RecordWriter::create(&dir).unwrap();
        assert_eq!(writer.write(5, &Header::scalar(0.0, 5), b"image").unwrap(), 0);
        assert_eq!(writer.write(2, &Header::scalar(0.0, 2), b"").unwrap(), 40);
        assert!(!dir.exists());
        writer.finish(None).unwrap();
        assert_eq!(fs::read(dir.join("train.idx")).unwrap(), b"5\t0\n2\t40\n");
        assert_eq!(fs::read(dir.join("train.rec")).unwrap().len(), 72);
        assert!(!dir.join("property").exists());
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        drop(RecordWriter::create(&parent.path().join("out")).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_holds_something_is_refused_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("keep"), "").unwrap();
        for taken in [dir.path().to_path_buf(), dir.path().join("keep")] {
            let error = RecordWriter::create(&taken).unwrap_err();
            assert!(matches!(error, RecordError::Folder(_)), "{error}");
        }
    }

    #[test]
    fn a_record_too_long_is_refused_and_the_writer_goes_on() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("out");
        let mut writer = RecordWriter::create(&dir).unwrap();
        let image = vec![0; PAYLOAD_BYTES_MAX as usize - 23];
        let error = writer.write(0, &Header::scalar(0.0, 0), &image).unwrap_err();
        assert!(error.to_string().ends_with("would have 536870912 bytes, the limit is 536870911"));
        assert_eq!(writer.n_records(), 0);
        writer.finish(None).unwrap();
        assert_eq!(fs::read(dir.join("train.rec")).unwrap(), b"");
    }
}
