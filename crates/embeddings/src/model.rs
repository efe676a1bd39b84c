//! Embeddings that a model computes, kept beside the data set, so that a stopped run goes on.

use std::{fs::File, io::Write, path::Path};

use pfc_cli::{Progress, interrupt};
use pfc_durable::DurableError;
use pfc_image::ImageSize;
use pfc_onnx::{OnnxModel, OpenOptions as ModelOptions};
use pfc_shard::Dataset;
use pfc_sources::exists;
use rayon::prelude::*;

use crate::{
    EmbeddingError, Embeddings, kept, npy,
    part::{self, CHUNK},
};

/// Folder of computed embeddings in a data set's folder.
pub const DIR: &str = "embeddings";

/// How a model is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbedOptions {
    /// Embed the image alone, not the sum with its mirror image.
    pub plain: bool,
    /// Draw no progress.
    pub quiet: bool,
}

/// Embeddings of all rows of the data set in `dir`, taken from `dir/embeddings` where an earlier run
/// left them. The file is named after the checksum of the model and of how it is fed, and appears once
/// complete.
///
/// # Errors
///
/// [`EmbeddingError`] if the model cannot be opened or fails, or the user interrupts; the rows done so far
/// are kept for the next run. [`EmbeddingError::Damaged`] if the file that an earlier run
/// left is not as it was written.
///
/// Also tells the rows whose images cannot be decoded; their embeddings are not numbers.
pub fn with_model(
    model: &Path,
    dir: &Path,
    dataset: &Dataset,
    options: EmbedOptions,
) -> Result<(Embeddings, Vec<u64>), EmbeddingError> {
    let model = OnnxModel::open(model, &ModelOptions::default())?;
    model.account().lines(false).for_each(|line| pfc_cli::tell(&line));
    let folder = dir.join(DIR);
    let kind = if options.plain { "plain" } else { "mirrored" };
    let path = folder.join(format!("{:032x}-{kind}.npy", model.checksum()));
    if !exists(&path)? {
        pfc_durable::create_dir_all(&folder)?;
        let part = path.with_extension("part");
        // Locked until it has its name: another process would cut it back to begin.
        let _locked = compute(&model, dataset, &part, options)?;
        let sum = kept::Sum::of(&part, header_bytes(dataset, &model), model.embedding())?;
        kept::write(&path, &sum)?;
        pfc_durable::rename(&part, &path)?;
        return Ok((Embeddings::open(&path)?.of(dataset)?, sum.undecodable));
    }
    let undecodable = match kept::read(&path)? {
        Some(sum) => {
            sum.check(&path, header_bytes(dataset, &model), model.embedding())?;
            sum.undecodable
        }
        // Kept by a version that wrote no checksum.
        None => Vec::new(),
    };
    Ok((Embeddings::open(&path)?.of(dataset)?, undecodable))
}

fn header_bytes(dataset: &Dataset, model: &OnnxModel) -> u64 {
    npy::write_header(dataset.len(), model.embedding()).len() as u64
}

/// Whether a file in the folder of computed embeddings is one of ours: called after the checksum of a
/// model, or what `merge --match` writes.
pub fn is_kept_name(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(name, "joined.npy" | "joined.sum")
        || name.split_once('-').is_some_and(|(key, _)| key.len() == 32 && is_hex(key))
}

fn compute(
    model: &OnnxModel,
    dataset: &Dataset,
    path: &Path,
    options: EmbedOptions,
) -> Result<File, EmbeddingError> {
    let header = npy::write_header(dataset.len(), model.embedding());
    let (mut out, done) = part::resume(path, &header, model.embedding() as u64 * 4, dataset.len())?;
    let write = |e| EmbeddingError::from(DurableError::at("write", path)(e));
    let progress = Progress::new("embed", "images", dataset.len(), options.quiet);
    progress.add(done);
    let mut row = done;
    while row < dataset.len() {
        if interrupt::requested() {
            return Err(EmbeddingError::Interrupted { done: row, total: dataset.len() });
        }
        let end = (row + CHUNK).min(dataset.len());
        let rows: Vec<u64> = (row..end).collect();
        let embeddings = embed_chunk(model, dataset, &rows, options)?;
        let bytes: Vec<u8> = embeddings.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(write)?;
        progress.add(end - row);
        row = end;
    }
    progress.finish();
    out.sync_all().map_err(write)?;
    Ok(out)
}

fn embed_chunk(
    model: &OnnxModel,
    dataset: &Dataset,
    rows: &[u64],
    options: EmbedOptions,
) -> Result<Vec<f32>, EmbeddingError> {
    let size = dataset.manifest().image_size;
    // In place of an image that cannot be decoded the network gets a black one.
    let decode = |row: &u64| -> Result<(Vec<u8>, bool), EmbeddingError> {
        let face = dataset.get(*row)?;
        let mut rgb = vec![0; size.rgb_bytes()];
        let is_decoded = match face.decode(*row, &mut rgb) {
            Err(error) if error.is_of_image() => false,
            decoded => decoded.map(|()| true)?,
        };
        if !is_decoded {
            rgb.fill(0);
        }
        Ok((face_sized(rgb, size)?, is_decoded))
    };
    let (images, is_decoded): (Vec<Vec<u8>>, Vec<bool>) =
        rows.par_iter().map(decode).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let mut embeddings = embed_images(model, &images, options)?;
    for (row, is_decoded) in embeddings.chunks_exact_mut(model.embedding()).zip(is_decoded) {
        if !is_decoded {
            row.fill(f32::NAN);
        }
    }
    Ok(embeddings)
}

/// Embeddings of 112×112 images of red, green, blue, not normalised.
fn embed_images(
    model: &OnnxModel,
    images: &[Vec<u8>],
    options: EmbedOptions,
) -> Result<Vec<f32>, EmbeddingError> {
    let pixels = images.concat();
    let mut embeddings = model.embed(&pixels, images.len())?;
    if !options.plain {
        let mirrored = model.embed_mirrored(&pixels, images.len())?;
        embeddings.iter_mut().zip(mirrored).for_each(|(a, b)| *a += b);
    }
    Ok(embeddings)
}

/// The pixels of an image of `size` in the size that models take, 112×112: of another shape its middle.
///
/// # Errors
///
/// [`EmbeddingError::Resize`].
pub fn face_sized(rgb: Vec<u8>, size: ImageSize) -> Result<Vec<u8>, EmbeddingError> {
    use pfc_image::{Fit, Pixels, resize};
    if size == ImageSize::FACE {
        return Ok(rgb);
    }
    let pixels = Pixels::rgb(size.width.into(), size.height.into(), rgb);
    let resized = resize(pixels, ImageSize::FACE, Fit::Crop).map_err(EmbeddingError::Resize)?;
    Ok(resized.data)
}
