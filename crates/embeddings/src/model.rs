//! Embeddings that a model computes, kept beside the data set, so that a stopped run goes on.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use pfc_cli::{Progress, interrupt};
use pfc_durable::DurableError;
use pfc_image::ImageSize;
use pfc_onnx::{OnnxModel, OpenOptions as ModelOptions};
use pfc_shard::Dataset;
use pfc_sources::exists;
use rayon::prelude::*;

use crate::{EmbeddingError, Embeddings, kept, npy};

/// Folder of computed embeddings in a data set's folder.
pub const DIR: &str = "embeddings";
/// Faces decoded and embedded at a time.
const CHUNK: u64 = 256;

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
    part: &Path,
    options: EmbedOptions,
) -> Result<File, EmbeddingError> {
    let header = npy::write_header(dataset.len(), model.embedding());
    let (mut out, done) = resume(part, &header, model.embedding() as u64 * 4, dataset.len())?;
    let write = |e| EmbeddingError::from(DurableError::at("write", part)(e));
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

/// Opens and locks what an earlier run left, cut back to whole rows, or begins anew.
fn resume(
    part: &Path,
    header: &[u8],
    row_bytes: u64,
    n_rows: u64,
) -> Result<(File, u64), EmbeddingError> {
    let write = |e| EmbeddingError::from(DurableError::at("write", part)(e));
    let start = header.len() as u64;
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
    let mut file = opened.map_err(write)?;
    // Where the file system knows no locks, users must look after it themselves.
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(EmbeddingError::Busy { part: part.to_path_buf() });
    }
    let mut begun = vec![0; header.len()];
    let fits = match file.read_exact(&mut begun) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(DurableError::at("read", part)(error).into());
        }
        read => read.is_ok() && begun == header,
    };
    let mut done = 0;
    if fits {
        let bytes = file.metadata().map_err(write)?.len();
        // The last rows may not have reached the disk before a power cut: they are done again.
        done = ((bytes - start) / row_bytes).min(n_rows).saturating_sub(CHUNK);
    } else {
        let begin = file.set_len(0).and_then(|()| file.rewind());
        begin.and_then(|()| file.write_all(header)).map_err(write)?;
    }
    let end = start + done * row_bytes;
    file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(write)?;
    Ok((file, done))
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
        Ok((resized(rgb, size)?, is_decoded))
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

/// To the size that models take.
fn resized(rgb: Vec<u8>, size: ImageSize) -> Result<Vec<u8>, EmbeddingError> {
    use pfc_image::{Fit, Pixels, resize};
    if size == ImageSize::FACE {
        return Ok(rgb);
    }
    let pixels = Pixels::rgb(size.width.into(), size.height.into(), rgb);
    let resized = resize(pixels, ImageSize::FACE, Fit::Crop).map_err(EmbeddingError::Resize)?;
    Ok(resized.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_pass_goes_on_at_a_whole_row_and_does_the_last_again() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("e.part");
        let header = npy::write_header(1000, 2);
        let opened = |bytes: &[u8]| {
            std::fs::write(&part, bytes).unwrap();
            let (mut file, done) = resume(&part, &header, 8, 1000).unwrap();
            let length = file.metadata().unwrap().len();
            assert_eq!(file.stream_position().unwrap(), length);
            (done, length)
        };
        let start = header.len() as u64;
        let rows = |n: u64| [&header[..], &vec![7; 8 * n as usize]].concat();
        assert_eq!(opened(&rows(CHUNK + 44)), (44, start + 44 * 8));
        // Half a row at the end.
        assert_eq!(opened(&[rows(CHUNK + 44), vec![7; 5]].concat()), (44, start + 44 * 8));
        // Fewer rows than are done again, none, half a header, and that of another model.
        assert_eq!(opened(&rows(3)), (0, start));
        assert_eq!(opened(&rows(0)), (0, start));
        assert_eq!(opened(&header[..40]), (0, start));
        assert_eq!(opened(&npy::write_header(1000, 4)), (0, start));
        // Whatever is beyond the last row is cut off.
        assert_eq!(opened(&rows(2000)), (1000 - CHUNK, start + (1000 - CHUNK) * 8));
    }

    #[test]
    fn two_processes_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("e.part");
        let header = npy::write_header(1000, 2);
        let first = resume(&part, &header, 8, 1000).unwrap();
        let error = resume(&part, &header, 8, 1000).unwrap_err();
        assert!(matches!(error, EmbeddingError::Busy { .. }) && error.hint().is_some());
        drop(first);
        assert!(resume(&part, &header, 8, 1000).is_ok());
    }
}
