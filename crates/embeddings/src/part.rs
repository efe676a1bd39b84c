//! Tables that are made row by row, so that a stopped run goes on where it was.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use pfc_durable::DurableError;

use crate::EmbeddingError;

/// Rows that are worked on at a time, and done again by a run that goes on.
pub const CHUNK: u64 = 256;

/// Opens and locks what an earlier run left of a table, cut back to whole rows less [`CHUNK`], or begins anew.
///
/// * `header`: what the file begins with; one that begins otherwise is another table's
/// * `row_bytes`: bytes of a row
///
/// Returns the file, which stands behind its last row and is locked until it is dropped, and the number of rows
/// that it has.
///
/// # Errors
///
/// [`EmbeddingError::Busy`] if another process is at work on it, [`EmbeddingError::Durable`].
pub fn resume(
    part: &Path,
    header: &[u8],
    row_bytes: u64,
    n_rows: u64,
) -> Result<(File, u64), EmbeddingError> {
    let write = |e| EmbeddingError::from(DurableError::at("write", part)(e));
    let start = header.len() as u64;
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
    let mut file = opened.map_err(write)?;
    // Where the file system knows no locks, users must look after it themselves.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(EmbeddingError::Busy { part: part.to_path_buf() });
    }
    let mut begun = vec![0; header.len()];
    let fits = match file.read_exact(&mut begun) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(DurableError::at("read", part)(error).into());
        }
        read => read.is_ok() && begun == header,
    };
    let mut done = 0;
    if fits {
        let bytes = file.metadata().map_err(write)?.len();
        // The last rows may not have reached the disk before a power cut: they are done again.
        done = ((bytes - start) / row_bytes).min(n_rows).saturating_sub(CHUNK);
    } else {
        let begin = file.set_len(0).and_then(|()| file.rewind());
        begin.and_then(|()| file.write_all(header)).map_err(write)?;
    }
    let end = start + done * row_bytes;
    file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(write)?;
    Ok((file, done))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy;

    #[test]
    fn a_stopped_pass_goes_on_at_a_whole_row_and_does_the_last_again() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("e.part");
        let header = npy::write_header(1000, 2);
        let opened = |bytes: &[u8]| {
            std::fs::write(&part, bytes).unwrap();
            let (mut file, done) = resume(&part, &header, 8, 1000).unwrap();
            let length = file.metadata().unwrap().len();
            assert_eq!(file.stream_position().unwrap(), length);
            (done, length)
        };
        let start = header.len() as u64;
        let rows = |n: u64| [&header[..], &vec![7; 8 * n as usize]].concat();
        assert_eq!(opened(&rows(CHUNK + 44)), (44, start + 44 * 8));
        // Half a row at the end.
        assert_eq!(opened(&[rows(CHUNK + 44), vec![7; 5]].concat()), (44, start + 44 * 8));
        // Fewer rows than are done again, none, half a header, and that of another model.
        assert_eq!(opened(&rows(3)), (0, start));
        assert_eq!(opened(&rows(0)), (0, start));
        assert_eq!(opened(&header[..40]), (0, start));
        assert_eq!(opened(&npy::write_header(1000, 4)), (0, start));
        // Whatever is beyond the last row is cut off.
        assert_eq!(opened(&rows(2000)), (1000 - CHUNK, start + (1000 - CHUNK) * 8));
    }

    #[test]
    fn two_processes_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("e.part");
        let header = npy::write_header(1000, 2);
        let first = resume(&part, &header, 8, 1000).unwrap();
        let error = resume(&part, &header, 8, 1000).unwrap_err();
        assert!(matches!(error, EmbeddingError::Busy { .. }) && error.hint().is_some());
        drop(first);
        assert!(resume(&part, &header, 8, 1000).is_ok());
    }
}
