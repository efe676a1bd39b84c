//! The face images of a file, one by one and by identity.

use std::{borrow::Cow, ops::Range};

use crate::{
    IdentityRange, IndexEntry, LABEL_EXACT_MAX, Layout, Note, RecordError, RecordFile,
    file::tail,
    header::{HeaderView, whole},
    layout::{is_range, missing, rounded_from},
};

/// A record that is a face image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaceRecord<'a> {
    /// Its key in the index.
    pub key: u64,
    /// Where the record begins in the file.
    pub offset: u64,
    /// The class: the first, or only, label.
    pub label: u64,
    /// The encoded image, not looked into; may be empty. Copied only if the record is split.
    pub image: Cow<'a, [u8]>,
}

impl FaceRecord<'_> {
    /// Whether the label is surely the one that was meant: from [`LABEL_EXACT_MAX`] on it may be
    /// what float32 made of another.
    pub fn label_is_exact(&self) -> bool {
        self.label < LABEL_EXACT_MAX
    }
}

impl RecordFile {
    /// Which records are images.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of images.
    pub fn n_images(&self) -> u64 {
        self.images.len() as u64
    }

    /// Number of identity records; 0 for [`Layout::Sequential`].
    pub fn n_identities(&self) -> u64 {
        self.identities.len() as u64
    }

    /// The image at a position: in the order of keys with identity records, else of the index.
    ///
    /// Both are the order of the file unless it was written in another; read that way, a disk is
    /// read without seeking.
    ///
    /// # Errors
    ///
    /// [`RecordError::NoSuchRecord`], [`RecordError::Damaged`], or [`RecordError::BadLabel`].
    pub fn image(&self, position: u64) -> Result<FaceRecord<'_>, RecordError> {
        match self.image_entry(position) {
            Some(entry) => self.face(entry),
            None => Err(self.beyond("image", position, self.n_images())),
        }
    }

    /// Key and place of the [`image`](RecordFile::image) at a position, without reading it.
    pub fn image_entry(&self, position: u64) -> Option<IndexEntry> {
        let at = usize::try_from(position).ok().filter(|at| *at < self.images.len())?;
        match self.layout {
            Layout::Sequential => self.index.get(self.images.start + at),
            Layout::Identities { .. } => self.index.by_rank(self.images.start + at),
        }
    }

    /// Keys and places of the records that are no images: record 0 and those of identities.
    pub fn other_entries(&self) -> impl Iterator<Item = IndexEntry> + '_ {
        let n_others = match self.layout {
            Layout::Sequential => 0..0,
            Layout::Identities { .. } => 0..self.index.len(),
        };
        n_others
            .filter(|rank| !self.images.contains(rank))
            .filter_map(|rank| self.index.by_rank(rank))
    }

    /// All images with their class, as InsightFace's `MXFaceDataset` goes through them.
    ///
    /// Two files are read in another way: one whose record 0 has several labels and an image, which
    /// the reference would take for an announcement of identities, and one whose number of images
    /// was rounded by float32, see [`Note::CountRounded`].
    pub fn images(
        &self,
    ) -> impl ExactSizeIterator<Item = Result<FaceRecord<'_>, RecordError>> + Send {
        (0..self.images.len()).map(|position| self.image(position as u64))
    }

    /// The identity at a position, which is not its class: that is in its images.
    ///
    /// # Errors
    ///
    /// [`RecordError::NoSuchRecord`], [`RecordError::Damaged`], or [`RecordError::BadRange`].
    pub fn identity(&self, position: u64) -> Result<IdentityRange, RecordError> {
        let rank = usize::try_from(position).ok().filter(|at| *at < self.identities.len());
        let Some(entry) = rank.and_then(|rank| self.index.by_rank(self.identities.start + rank))
        else {
            return Err(self.beyond("identity", position, self.n_identities()));
        };
        let payload = self.payload(entry)?;
        let images = self.range(entry, &self.header(entry, &payload)?)?;
        Ok(IdentityRange { key: entry.key, images })
    }

    /// All identities in the order of their keys.
    pub fn identities(
        &self,
    ) -> impl ExactSizeIterator<Item = Result<IdentityRange, RecordError>> + Send {
        (0..self.identities.len()).map(|position| self.identity(position as u64))
    }

    /// The images of an identity, those of its range that are images of the file.
    pub fn images_of<'a>(
        &'a self,
        identity: &IdentityRange,
    ) -> impl ExactSizeIterator<Item = Result<FaceRecord<'a>, RecordError>> + Send + use<'a> {
        let place = |key: u64| {
            self.index.rank(key).clamp(self.images.start, self.images.end) - self.images.start
        };
        let Range { start, end } = identity.images;
        (place(start)..place(end)).map(|position| self.image(position as u64))
    }

    /// Looks at record 0, which alone announces identity records.
    pub(crate) fn find_layout(&mut self) -> Result<(), RecordError> {
        let Some(entry) = self.index.find(0) else { return Ok(()) };
        let payload = self.payload(entry)?;
        let header = self.header(entry, &payload)?;
        if !is_range(&header, &payload) {
            return Ok(());
        }
        let stored = self.range(entry, &header)?;
        let images_end = self.identities_start(stored.start);
        if images_end != stored.start {
            self.notes.push(Note::CountRounded { stored: stored.start, found: images_end });
        }
        let images = 1..images_end.max(1);
        let identities = images.end..self.identities_end(stored.end).max(images.end);
        self.notes.extend(missing(&self.index, &images));
        let ranks = |keys: &Range<u64>| self.index.rank(keys.start)..self.index.rank(keys.end);
        (self.images, self.identities) = (ranks(&images), ranks(&identities));
        self.layout = Layout::Identities { images, identities };
        Ok(())
    }

    /// The first key behind the images, given what float32 made of it.
    fn identities_start(&self, stored: u64) -> u64 {
        let is_identity = |key: &u64| {
            self.index.find(*key).is_some_and(|entry| {
                self.payload(entry).is_ok_and(|payload| {
                    HeaderView::parse(&payload).is_ok_and(|header| is_range(&header, &payload))
                })
            })
        };
        match rounded_from(stored) {
            Some(candidates) if candidates.end - candidates.start > 1 => {
                candidates.into_iter().find(is_identity).unwrap_or(stored)
            }
            _ => stored,
        }
    }

    /// The first key behind the identities, given what float32 made of it: they are the last.
    fn identities_end(&self, stored: u64) -> u64 {
        let behind_last = self.index.last_key().map_or(0, |key| key.saturating_add(1));
        match rounded_from(stored) {
            Some(candidates) if candidates.contains(&behind_last) => behind_last,
            _ => stored,
        }
    }

    fn face(&self, entry: IndexEntry) -> Result<FaceRecord<'_>, RecordError> {
        let IndexEntry { key, offset } = entry;
        let payload = self.payload(entry)?;
        let header = self.header(entry, &payload)?;
        let label = whole(header.first_label()).ok_or_else(|| RecordError::BadLabel {
            path: self.path.clone(),
            offset,
            key,
            label: header.first_label(),
        })?;
        let start = header.image_start();
        Ok(FaceRecord { key, offset, label, image: tail(payload, start) })
    }

    /// The range of keys that the labels of a record are.
    fn range(&self, entry: IndexEntry, header: &HeaderView<'_>) -> Result<Range<u64>, RecordError> {
        let mut bounds = header.labels().map(whole);
        match (bounds.next().flatten(), bounds.next().flatten()) {
            (Some(start), Some(end)) if start <= end => Ok(start..end),
            _ => Err(RecordError::BadRange {
                path: self.path.clone(),
                offset: entry.offset,
                key: entry.key,
                labels: header.labels().take(4).collect(),
            }),
        }
    }
}
