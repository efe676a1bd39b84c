//! The images of an input in its own order, whoever is on them.

use std::{fmt, path::PathBuf};

use crate::{kind::InputKind, source::Source};

/// A source whose images are numbered in the order of the input: of a folder by their paths, of a
/// list, a table or an archive as they come there.
///
/// Memory: that of the source, and 4 bytes per image.
pub struct InOrder {
    source: Box<dyn Source + Send>,
    /// By number: the entry.
    entries: Vec<u32>,
}

impl InOrder {
    /// Puts the images of `source` in order. The catalogue has checked that they fit into 32 bits.
    pub(crate) fn of(source: Box<dyn Source + Send>, kind: InputKind) -> InOrder {
        let n = u32::try_from(source.index().len()).unwrap_or(u32::MAX);
        let mut entries: Vec<u32> = (0..n).collect();
        match kind {
            // A folder is listed with its files before its folders.
            InputKind::Folder => {
                entries.sort_by_cached_key(|entry| PathBuf::from(source.path((*entry).into())));
            }
            _ => entries.sort_unstable_by_key(|entry| source.place((*entry).into())),
        }
        InOrder { source, entries }
    }

    /// The source.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of the source that image `i` is.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn entry(&self, i: usize) -> u64 {
        self.entries[i].into()
    }
}

impl fmt::Debug for InOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images of {}", self.len(), self.source.name())
    }
}
