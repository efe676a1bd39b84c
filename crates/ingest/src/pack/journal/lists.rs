//! The names of labels, and what a listing left out, as lines of JSON: all that is needed of a
//! source once its images are packed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use pfc_shard::{Checksum, IdentityNames, hash::HashingWriter};
use pfc_sources::Source;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{IngestError, PackError, pack::quarantine::Line};

/// Size and checksum of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSeal {
    pub bytes: u64,
    pub checksum: Checksum,
}

/// Writes the name of each label.
///
/// # Errors
///
/// That of `out`.
pub fn write_labels(out: &mut impl Write, source: &dyn Source) -> io::Result<()> {
    source.index().identities().try_for_each(|name| write_line(out, &name))
}

/// Writes what was met while listing and is no entry.
///
/// # Errors
///
/// That of `out`.
pub fn write_left_out(out: &mut impl Write, source: &dyn Source) -> io::Result<()> {
    let lines = source.left_out().iter();
    lines
        .map(|l| Line::new(&l.source, &l.reject.clone().into()))
        .try_for_each(|line| write_line(out, &line))
}

/// Size and checksum of what `write` writes.
pub fn measure(write: impl FnOnce(&mut HashingWriter<io::Sink>) -> io::Result<()>) -> ListSeal {
    let mut out = HashingWriter::new(io::sink());
    // A sink takes everything.
    let _ = write(&mut out);
    let (_, bytes, checksum) = out.finish();
    ListSeal { bytes, checksum }
}

/// Reads the names of the labels.
///
/// # Errors
///
/// [`PackError::DamagedJournal`] if the list is not the one that `seal` tells of.
pub fn read_labels(path: &Path, seal: ListSeal) -> Result<IdentityNames, IngestError> {
    let mut names = IdentityNames::default();
    read_lines(path, seal, |name: String| {
        names.push([name]);
        Ok(())
    })?;
    Ok(names)
}

/// Hands each line of the list at `path` to `take`.
///
/// # Errors
///
/// As [`read_labels`], and those of `take`.
pub fn read_lines<T: DeserializeOwned>(
    path: &Path,
    seal: ListSeal,
    mut take: impl FnMut(T) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let damaged = || IngestError::from(PackError::DamagedJournal { path: path.into() });
    let file = File::open(path).map_err(IngestError::at("open", path))?;
    let mut hashed = HashingWriter::new(io::sink());
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(IngestError::at("read", path))? == 0 {
            break;
        }
        let _ = hashed.write_all(&line);
        take(serde_json::from_slice(&line).map_err(|_| damaged())?)?;
    }
    let (_, bytes, checksum) = hashed.finish();
    if (ListSeal { bytes, checksum }) == seal { Ok(()) } else { Err(damaged()) }
}

fn write_line<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
