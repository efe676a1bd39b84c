//! What every kind of collection gives: an index, and images in any order.

use std::io::{self, Write};

use pfc_image::align::Landmarks;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    error::SourceError,
    index::Index,
    reject::{ReadError, Reject},
};

/// A collection of images with identities.
pub trait Source: Sync {
    /// How the user named it, for the manifest.
    fn name(&self) -> String;

    /// Identities and images, in the order of the source.
    fn index(&self) -> &Index;

    /// What image `entry` is called in messages and in the data set.
    fn path(&self, entry: u64) -> String;

    /// Where image `entry` comes in the input's own order, in which identities may be mixed. No two
    /// images are at one place, and there are gaps where something is left out.
    fn place(&self, entry: u64) -> u64;

    /// What tells image `entry` from another one that may lie there at another time, as far as that is
    /// known without reading it: what it is called, and the size of its file or where that is not at
    /// hand, of the file that it lies in.
    fn stamp(&self, entry: u64) -> u128;

    /// The landmarks of the face on image `entry`, where the source states them.
    fn landmarks(&self, _entry: u64) -> Option<Landmarks> {
        None
    }

    /// Writes what tells this input from another, so that a pack that goes on sees whether it has
    /// changed: the names of all identities and images, and more where that is at hand.
    ///
    /// # Errors
    ///
    /// That of `out`.
    fn write_names(&self, out: &mut dyn Write) -> io::Result<()>;

    /// The bytes of image `entry`, for `entry` below [`Index::len`].
    ///
    /// # Errors
    ///
    /// [`ReadError::Reject`] if this one image cannot be had; [`ReadError::Fault`] if nothing can be
    /// said of it, since the system failed or the source is gone.
    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError>;

    /// What was met while indexing and is not among the entries.
    fn left_out(&self) -> &[LeftOut];
}

/// Writes the identities of a source, and the paths and sizes of its images.
pub fn write_paths(
    source: &dyn Source,
    n_bytes: impl Fn(u64) -> u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    source.index().write_names(out)?;
    for entry in 0..source.index().len() {
        let path = source.path(entry);
        out.write_all(&(path.len() as u64).to_le_bytes())?;
        out.write_all(path.as_bytes())?;
        out.write_all(&n_bytes(entry).to_le_bytes())?;
    }
    Ok(())
}

/// The stamp of an image by what it is called, and what else is known of it.
pub fn stamp(path: &str, facts: &[u64]) -> u128 {
    let mut bytes = path.as_bytes().to_vec();
    bytes.push(0);
    facts.iter().for_each(|fact| bytes.extend(fact.to_le_bytes()));
    xxh3_128(&bytes)
}

/// The error of a source called `name` without a usable entry.
pub fn nothing(name: &str, left_out: &[LeftOut]) -> SourceError {
    match left_out.first() {
        None => SourceError::NoImages { path: name.to_owned() },
        Some(LeftOut { source, reject }) => SourceError::NothingUsable {
            path: name.to_owned(),
            n: left_out.len() as u64,
            example: format!("{source}: {reject}"),
        },
    }
}

/// Something in the source that is no entry.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Path in the source; characters that are not UTF-8 are replaced.
    pub source: String,
    /// Why.
    pub reject: Reject,
}
