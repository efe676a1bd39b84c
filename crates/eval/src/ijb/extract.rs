//! Faces to embeddings: decode, align, run the network.

use std::{collections::HashSet, ops::Range, path::Path};

use pfc_embeddings::cache::{Cache, Key, LeftOut, embed_in_parts};
use pfc_image::{ImageError, Recipe, align::Landmarks};
use pfc_model::{Embed, MirroredEmbeddings};
use pfc_sources::{Root, exists};
use pfc_verify::VerifyError;
use rayon::prelude::*;

use super::{FaceList, IjbSet};
use crate::{
    EvalError,
    faces::FACE_BYTES,
    images::{is_usable, read_below},
};

/// Faces that are decoded before the network runs: 19 MB of pixels.
const BATCH: usize = 512;

/// Embeddings of faces and of their mirror images, and the faces without a row.
pub type Embeddings = (MirroredEmbeddings, Vec<LeftOut>);

/// Embeds every face of the set, in file order, and its mirror image. A face whose image is damaged or
/// has no usable landmarks has no row and is returned with its reason.
///
/// * `cache`: a folder in which parts are kept and found again, and the model's fingerprint
/// * `on_faces`: called with the number of faces just done; its error ends the work
///
/// # Errors
///
/// [`VerifyError::MissingImages`] for images that are absent; [`EvalError::Model`] from the network; a
/// fault of the system.
pub fn embed<E: Embed + ?Sized>(
    set: &IjbSet,
    embedder: &E,
    cache: Option<(&Path, String)>,
    on_faces: impl Fn(usize) -> Result<(), EvalError>,
) -> Result<Embeddings, EvalError> {
    let images = set.images();
    check_images(set, &images)?;
    let root = Root::of(&images);
    let cache = match cache {
        None => None,
        Some((dir, model)) => Some(Cache::open(dir, Key::new(model, embedder.embedding()))?),
    };
    let embedded = embed_in_parts(
        &stamps(set, &images),
        cache.as_ref(),
        |range| {
            let [mut original, mut mirrored] = [Vec::new(), Vec::new()];
            let mut all_left_out = Vec::new();
            for start in range.clone().step_by(BATCH) {
                let batch = start..(start + BATCH).min(range.end);
                let n = batch.len();
                let (pixels, left_out) = crops(set, &root, batch)?;
                if left_out.len() < n {
                    let embeddings = embedder.embed_with_mirror(&pixels, n - left_out.len())?;
                    original.extend(embeddings.original);
                    mirrored.extend(embeddings.mirrored);
                }
                all_left_out.extend(left_out);
                on_faces(n)?;
            }
            Ok::<_, EvalError>(([original, mirrored], all_left_out))
        },
        |i| is_usable(crop(set, &root, i)),
        |n_kept| {
            // An error will come back with the next batch.
            let _ = on_faces(n_kept);
        },
    );
    let ([original, mirrored], left_out) = embedded?;
    Ok((MirroredEmbeddings { original, mirrored }, left_out))
}

/// Aligned faces, `[faces, 112, 112, 3]`, of those of `range` that can be used, and the others.
fn crops(
    set: &IjbSet,
    images: &Root,
    range: Range<usize>,
) -> Result<(Vec<u8>, Vec<LeftOut>), EvalError> {
    let crops: Vec<Result<Vec<u8>, EvalError>> =
        range.clone().into_par_iter().map(|i| crop(set, images, i)).collect();
    let mut pixels = Vec::with_capacity(range.len() * FACE_BYTES);
    let mut left_out = Vec::new();
    for (index, crop) in range.zip(crops) {
        match crop.map_err(EvalError::of_image) {
            Ok(crop) => pixels.extend(crop),
            Err(reason) => left_out.push(LeftOut { index, reason: reason? }),
        }
    }
    Ok((pixels, left_out))
}

fn crop(set: &IjbSet, images: &Root, index: usize) -> Result<Vec<u8>, EvalError> {
    let name = &set.faces.names[index];
    let bytes = read_below(images, name)?;
    // Every face of the protocol counts, however its landmarks lie, so they are not judged.
    let crop = Recipe::FACE.crop_unjudged(&bytes, &set.faces.landmarks[index]);
    let crop = crop.map_err(|reason| match reason {
        ImageError::Landmarks(source) => EvalError::Landmarks {
            path: set.paths.landmarks.clone(),
            line: FaceList::line(&set.paths.landmarks, index),
            source,
        },
        reason => EvalError::image(images.path().join(name).display().to_string(), reason),
    })?;
    Ok(crop.pixels.into_rgb())
}

/// Before hours of work: is every image there?
fn check_images(set: &IjbSet, images: &Path) -> Result<(), EvalError> {
    let entries = std::fs::read_dir(images).map_err(EvalError::io("read", images))?;
    let mut there = HashSet::new();
    for entry in entries {
        let entry = entry.map_err(EvalError::io("read", images))?;
        there.insert(entry.file_name());
    }
    let names = &set.faces.names;
    let mut missing = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // Names below a further folder are looked up one by one.
        let is_there = there.contains(std::ffi::OsStr::new(name))
            || name.contains('/') && exists(&images.join(name))?;
        if !is_there {
            missing.push(i);
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(&first) => Err(VerifyError::MissingImages {
            root: images.to_owned(),
            list: set.paths.landmarks.clone(),
            n_missing: missing.len(),
            n_images: names.len(),
            first: names[first].clone(),
            line: FaceList::line(&set.paths.landmarks, first),
        }
        .into()),
    }
}

/// What identifies each face: its name, landmarks, and the size of its file.
fn stamps(set: &IjbSet, images: &Path) -> Vec<u128> {
    let faces = set.faces.names.par_iter().zip(&set.faces.landmarks);
    let stamp = |(name, landmarks): (&String, &Landmarks)| {
        let size = images.join(name).metadata().map_or(0, |found| found.len());
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        landmarks.as_flattened().iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend(size.to_le_bytes());
        pfc_shard::hash::content_hash(&bytes)
    };
    faces.map(stamp).collect()
}
