//! `MXNet` RecordIO files: a record's class is its identity.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pfc_cli::{Progress, interrupt};
use pfc_recordio::{LABEL_EXACT_MAX, RecordFile, RecordPaths};
use rayon::prelude::*;

use crate::{
    error::SourceError,
    index::Index,
    reject::{ReadError, Reject},
    source::{LeftOut, Source, nothing},
    units,
};

/// Images read between two looks at whether the user has had enough, and before their pages are
/// given back.
const CHUNK_IMAGES: u64 = 1 << 16;

/// In place of the class of a record that has none.
const NO_CLASS: u32 = u32::MAX;

/// The images of a `.rec` file, indexed.
///
/// Identities are called `id_CLASS`, as the folders of InsightFace's unpacking script are, and their
/// labels follow the classes: where these count from 0 without gaps, they are the labels. Images are
/// named by the keys of their records.
///
/// Memory: about 40 bytes per record, 0.7 GB for Glint360K.
pub struct RecordSource {
    file: RecordFile,
    index: Index,
    /// Where each entry is among the images of the file.
    positions: Vec<u32>,
    left_out: Vec<LeftOut>,
    n_read: AtomicU64,
}

impl RecordSource {
    /// Reads the class of every image. Warns of what `file.notes()` says and of rounded classes.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the file or its index cannot be read, there is no image in it, none of
    /// them has a class, or the user interrupts.
    pub fn open(paths: &RecordPaths, quiet: bool) -> Result<RecordSource, SourceError> {
        let file = paths.open()?;
        let path = file.path().display();
        file.notes().iter().for_each(|note| tracing::warn!("{path}: {note}"));
        let classes = classes(&file, quiet)?;
        let n_rounded = classes.iter().filter(|class| may_be_rounded(**class)).count() as u64;
        if n_rounded > 0 {
            let images = units::of(n_rounded, "image");
            tracing::warn!(
                "{path}: {images} with a class of {LABEL_EXACT_MAX} or more, which RecordIO rounds: \
                 people of neighbouring classes may be mixed"
            );
        }
        let left_out = left_out(&file, &classes);
        let mut positions: Vec<u32> = (0..classes.len() as u32).collect();
        positions.retain(|position| classes[*position as usize] != NO_CLASS);
        if positions.is_empty() {
            return Err(nothing(&path.to_string(), &left_out));
        }
        // Stable, so that the images of an identity keep their order.
        positions.par_sort_by_key(|position| classes[*position as usize]);
        let index = index(&file, &classes, &positions);
        Ok(RecordSource { file, index, positions, left_out, n_read: AtomicU64::new(0) })
    }
}

impl Source for RecordSource {
    fn name(&self) -> String {
        self.file.path().display().to_string()
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, entry: u64) -> Result<Vec<u8>, ReadError> {
        // The images of a pack are all over the file, which may be larger than memory.
        if self.n_read.fetch_add(1, Relaxed) % CHUNK_IMAGES == CHUNK_IMAGES - 1 {
            self.file.release_pages();
        }
        let position = self.positions[entry as usize];
        let face = self.file.image(position.into());
        let unreadable = |e: pfc_recordio::RecordError| Reject::Unreadable(e.to_string());
        Ok(face.map(|face| face.image.into_owned()).map_err(unreadable)?)
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

/// The class of the image at every position; [`NO_CLASS`] where there is none to be had.
fn classes(file: &RecordFile, quiet: bool) -> Result<Vec<u32>, SourceError> {
    let total = file.n_images();
    let progress = Progress::new("list", "images", total, quiet);
    let mut classes = Vec::with_capacity(total as usize);
    for start in (0..total).step_by(CHUNK_IMAGES as usize) {
        if interrupt::requested() {
            return Err(SourceError::Interrupted { path: file.path().display().to_string() });
        }
        let end = (start + CHUNK_IMAGES).min(total);
        let class = |position| class(file, position).unwrap_or(NO_CLASS);
        classes.par_extend((start..end).into_par_iter().map(class));
        file.release_pages();
        progress.add(end - start);
    }
    progress.finish();
    Ok(classes)
}

fn class(file: &RecordFile, position: u64) -> Result<u32, Reject> {
    let face = file.image(position).map_err(|e| Reject::Unreadable(e.to_string()))?;
    let class = u32::try_from(face.label).ok().filter(|class| *class != NO_CLASS);
    class.ok_or_else(|| {
        let label = face.label;
        Reject::Unreadable(format!("its class {label} is not below {NO_CLASS}"))
    })
}

fn may_be_rounded(class: u32) -> bool {
    class != NO_CLASS && u64::from(class) >= LABEL_EXACT_MAX
}

/// The images without a class, each with its reason.
fn left_out(file: &RecordFile, classes: &[u32]) -> Vec<LeftOut> {
    let without = (0..).zip(classes).filter(|(_, class)| **class == NO_CLASS);
    let refused = without.filter_map(|(position, _)| {
        let reject = class(file, position).err()?;
        let key = file.image_entry(position)?.key;
        Some(LeftOut { source: format!("record {key}"), reject })
    });
    refused.collect()
}

fn index(file: &RecordFile, classes: &[u32], positions: &[u32]) -> Index {
    let class = |position: &u32| classes[*position as usize];
    let mut index = Index::default();
    for images in positions.chunk_by(|a, b| class(a) == class(b)) {
        let keys = images.iter().filter_map(|position| file.image_entry((*position).into()));
        let names: Vec<String> = keys.map(|entry| entry.key.to_string()).collect();
        index.push(format!("id_{}", class(&images[0])), names.iter().map(String::as_str));
    }
    index.seal_in_order();
    index
}
