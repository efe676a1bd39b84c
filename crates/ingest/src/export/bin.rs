//! Verification packs: pairs of images and whether each is of one person.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use pfc_binpack::{Dialect, PackWriter};
use pfc_durable::{AtomicFile, DurableError, FolderError};
use pfc_sources::{IDENTITIES_OF_PACK_HEADER, identities_of_pack};

use super::{ExportError, Feed, Written, identities, options::Pairs, pairs, pairs_file};
use crate::IngestError;

/// Writes the file `out`, and beside it `out.identities.tsv`, which says who is on each image: the format
/// has no place for names.
///
/// # Errors
///
/// [`ExportError`]; nothing is then left behind.
pub fn write(feed: &Feed<'_>, out: &Path, pairs: &Pairs) -> Result<Written, ExportError> {
    let pairs = match pairs {
        Pairs::Random { n, seed } => pairs::draw(&people(feed)?, *n, *seed)?,
        Pairs::File(path) => pairs_file::read(feed, path)?,
    };
    let table_path = identities_of_pack(out);
    check_table(&table_path)?;
    let mut table = format!("{IDENTITIES_OF_PACK_HEADER}\n");
    let mut n_images = 0;
    let mut file = AtomicFile::create(out)?;
    let mut bytes = Counted { out: &mut file, n_bytes: 0 };
    let mut labels = BTreeSet::new();
    let at = || DurableError::at("write", out);
    let mut writer = PackWriter::new(&mut bytes, Dialect::Python3).map_err(at())?;
    for pair in &pairs {
        let (left, right) = (feed.take(pair.left)?, feed.take(pair.right)?);
        labels.extend([left.label, right.label]);
        for item in [&left, &right] {
            let name = identities::in_table(item.identity);
            table += &format!("{n_images}\t{}\t{name}\n", item.label);
            n_images += 1;
        }
        writer.push([left.face.image, right.face.image], pair.same).map_err(at())?;
    }
    writer.finish().map_err(at())?;
    let n_bytes = bytes.n_bytes;
    // A killed export leaves at most a table without a pack, which the next one replaces.
    pfc_durable::write_output(&table_path, table.as_bytes())?;
    file.commit_new()?;
    Ok(Written {
        images: 2 * pairs.len() as u64,
        identities: labels.len() as u64,
        pairs: Some(pairs.len() as u64),
        files: 2,
        bytes: n_bytes,
        ..Written::default()
    })
}

/// Refuses to replace a file that is no table of ours.
fn check_table(path: &Path) -> Result<(), ExportError> {
    let is_ours = |text: String| text.starts_with(IDENTITIES_OF_PACK_HEADER);
    match !path.exists() || std::fs::read_to_string(path).is_ok_and(is_ours) {
        true => Ok(()),
        false => Err(IngestError::from(FolderError::Taken { folder: path.to_owned() }).into()),
    }
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
