//! Verification packs: pairs of images and whether each is of one person.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use pfc_binpack::{Dialect, PackWriter};
use pfc_durable::{AtomicFile, DurableError};

use super::{ExportError, Feed, Written, options::Pairs, pairs, pairs_file};

/// Writes the file `out`.
///
/// # Errors
///
/// [`ExportError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, out: &Path, pairs: &Pairs) -> Result<Written, ExportError> {
    let pairs = match pairs {
        Pairs::Random { n, seed } => pairs::draw(&people(feed)?, *n, *seed)?,
        Pairs::File(path) => pairs_file::read(feed, path)?,
    };
    let mut file = AtomicFile::create(out)?;
    let mut bytes = Counted { out: &mut file, n_bytes: 0 };
    let mut labels = BTreeSet::new();
    let at = || DurableError::at("write", out);
    let mut writer = PackWriter::new(&mut bytes, Dialect::Python3).map_err(at())?;
    for pair in &pairs {
        let (left, right) = (feed.take(pair.left)?, feed.take(pair.right)?);
        labels.extend([left.label, right.label]);
        writer.push([left.face.image, right.face.image], pair.same).map_err(at())?;
    }
    writer.finish().map_err(at())?;
    let n_bytes = bytes.n_bytes;
    file.commit_new()?;
    Ok(Written {
        images: 2 * pairs.len() as u64,
        identities: labels.len() as u64,
        pairs: Some(pairs.len() as u64),
        files: 1,
        bytes: n_bytes,
        ..Written::default()
    })
}

/// The images of each person; they follow each other.
fn people(feed: &Feed<'_>) -> Result<Vec<std::ops::Range<usize>>, ExportError> {
    let mut people: Vec<std::ops::Range<usize>> = Vec::new();
    let mut last = None;
    for place in 0..feed.len() {
        let label = feed.peek(place)?.label;
        match people.last_mut() {
            Some(person) if last == Some(label) => person.end = place + 1,
            _ => people.push(place..place + 1),
        }
        last = Some(label);
    }
    Ok(people)
}

struct Counted<'a> {
    out: &'a mut AtomicFile,
    n_bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
