//! The selected images, one after another, each held against its hash.

use std::collections::BTreeSet;

use pfc_cli::{Progress, interrupt};
use pfc_findings::View;
use pfc_shard::{Face, ImageSize, ShardError};

use super::{ExportError, Selection};
use crate::IngestError;

/// So far ahead of their use images are asked for from disk: rows by label lie all over a shuffled
/// data set.
const AHEAD: usize = 256;

/// An image on its way out.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// Its row in the data set.
    pub row: u64,
    /// The label that goes out.
    pub label: u32,
    /// Who it shows.
    pub identity: &'a str,
    /// The rest; its label is the data set's.
    pub face: Face<'a>,
}

/// What an exporter reads.
pub struct Feed<'a> {
    view: &'a View,
    selection: &'a Selection,
    progress: Progress,
}

impl<'a> Feed<'a> {
    /// The images of `selection`, with a progress bar unless `quiet`.
    pub fn new(view: &'a View, selection: &'a Selection, quiet: bool) -> Feed<'a> {
        let total = selection.rows().len() as u64;
        let progress = Progress::new("export", "images", total, quiet);
        Feed { view, selection, progress }
    }

    /// Number of images, at least 1.
    pub fn len(&self) -> usize {
        self.selection.rows().len()
    }

    /// Width and height of every image.
    pub fn image_size(&self) -> ImageSize {
        self.view.manifest().image_size
    }

    /// The image at `place`, whose bytes are not looked at.
    ///
    /// # Errors
    ///
    /// [`ExportError::Shard`].
    pub fn peek(&self, place: usize) -> Result<Item<'a>, ExportError> {
        let row = self.selection.rows()[place];
        let n_rows = self.view.manifest().rows;
        let face = self.view.face(row)?.ok_or(ShardError::NoSuchRow { row, n_rows })?;
        let label = self.selection.label(face.label);
        let identity = self.view.people().name(face.label);
        Ok(Item { row, label, identity, face })
    }

    /// The image at `place`, whole, and counted as done.
    ///
    /// # Errors
    ///
    /// [`ExportError::DamagedImage`], [`IngestError::Interrupted`], [`ExportError::Shard`].
    pub fn take(&self, place: usize) -> Result<Item<'a>, ExportError> {
        if interrupt::requested() {
            let (done, total) = (place as u64, self.len() as u64);
            return Err(IngestError::Interrupted { done, total }.into());
        }
        if let Some(&row) = self.selection.rows().get(place + AHEAD) {
            self.view.dataset().will_need(row);
        }
        let item = self.peek(place)?;
        if pfc_shard::hash::content_hash(item.face.image) != item.face.hash {
            let from = item.face.source.escape_debug().to_string();
            return Err(ExportError::DamagedImage { row: item.row, from });
        }
        self.progress.add(1);
        Ok(item)
    }

    /// All images, as [`take`](Feed::take) gives them.
    pub fn items(&self) -> impl Iterator<Item = Result<Item<'a>, ExportError>> {
        (0..self.len()).map(|place| self.take(place))
    }

    /// Label that goes out and name of every selected identity, by label; some may have no image.
    pub fn identities(&self) -> impl Iterator<Item = (u32, &'a str)> {
        let identities = self.view.people();
        self.selection.identities().map(move |(own, label)| (label, identities.name(own)))
    }

    /// The labels of the images, which go out.
    ///
    /// # Errors
    ///
    /// [`ExportError::Shard`].
    pub fn labels(&self) -> Result<BTreeSet<u32>, ExportError> {
        (0..self.len()).map(|place| self.peek(place).map(|item| item.label)).collect()
    }

    /// Names by the labels that go out, from 0: with `--keep-labels` also those between that are
    /// not selected.
    pub fn names_by_label(&self) -> Vec<&'a str> {
        let identities = self.view.people();
        let keeps = self.selection.identities().all(|(own, label)| own == label);
        match (keeps, self.selection.identities().last()) {
            (true, Some((last, _))) => (0..=last).map(|label| identities.name(label)).collect(),
            _ => self.identities().map(|(_, name)| name).collect(),
        }
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        self.progress.finish();
    }
}
