//! A whole list, in its order whatever the number of threads. Memory: some 16 bytes a line and 1024
//! lines.

use std::{
    collections::HashSet,
    fs,
    path::{Component, Path, PathBuf},
    time::Instant,
};

use pfc_cli::{Progress, interrupt};
use pfc_image::{Changes, Crop, ImageError, Tally, encode_jpeg, encode_png, has_image_extension};
use pfc_shard::hash::content_hash;
use pfc_sources::read_file;
use rayon::prelude::*;

use super::{CropFormat, Recipe, Summary};
use crate::{
    IngestError,
    landmarks::{LandmarkFormat, LandmarkList, Marks},
    output,
    pack::quarantine::{Line, Quarantine},
    reject::{Failure, Reject},
};

/// Lines that are read before they are worked on together.
const CHUNK_LINES: usize = 1024;

/// Writes the crops of all of `list` into `out`, which appears once it is complete.
///
/// # Errors
///
/// [`IngestError`] if the list cannot be understood, `out` holds something, not one image is usable,
/// the user interrupts, or a write fails.
pub fn run(
    recipe: &Recipe<'_>,
    (list, format): (&Path, LandmarkFormat),
    out: &Path,
    quiet: bool,
) -> Result<Summary, IngestError> {
    let started = Instant::now();
    let unfinished = output::begin(&[list], out)?;
    let list = LandmarkList::open(list, format)?;
    // Also reads every line, so that a fault in the last is known before any work is done.
    let total = list.images()?.try_fold(0, |n, marks| marks.map(|_| n + 1))?;
    let mut quarantine = Quarantine::create(unfinished.path())?;
    let progress = Progress::new("align", "images", total, quiet);
    let mut taken = HashSet::new();
    let mut changes = Tally::default();
    let mut images = list.images()?;
    let mut done = 0;
    loop {
        let chunk: Vec<Marks> = images.by_ref().take(CHUNK_LINES).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done, total });
        }
        done += chunk.len() as u64;
        let targets = chunk.iter().map(|marks| target(marks, recipe.format, &mut taken));
        let targets: Vec<Result<PathBuf, Reject>> = targets.collect();
        let results: Vec<Result<Changes, Failure>> = chunk
            .par_iter()
            .zip(targets)
            .map(|(marks, target)| {
                progress.add(1);
                one(recipe, marks, &unfinished.path().join(target?))
            })
            .collect();
        for (marks, result) in chunk.iter().zip(results) {
            match result {
                Ok(made) => changes.add(made),
                Err(Failure::Reject(reject)) => {
                    quarantine.add(&Line::new(&marks.image, &reject))?;
                }
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
    }
    progress.finish();
    let quarantined = quarantine.n_quarantined;
    if quarantined == total {
        let example = quarantine.first.unwrap_or_default();
        let path = list.path().to_path_buf();
        return Err(IngestError::NothingUsable { path, n: total, example });
    }
    quarantine.commit()?;
    unfinished.commit()?;
    let (aligned, seconds) = (total - quarantined, started.elapsed().as_secs_f64());
    let images_per_second = aligned as f64 / seconds.max(1e-9);
    Ok(Summary { aligned, quarantined, changes, seconds, images_per_second })
}

/// Makes one crop and writes it to `target`.
fn one(recipe: &Recipe<'_>, marks: &Marks, target: &Path) -> Result<Changes, Failure> {
    let bytes = read_file(&source(recipe.root.path(), &marks.image), recipe.root)?;
    let encoded = crop(recipe, marks, &bytes);
    let (encoded, changes) = encoded.map_err(|e| Failure::of(e.into(), || marks.image.clone()))?;
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(IngestError::at("create", parent))?;
    fs::write(target, encoded).map_err(IngestError::at("write", target))?;
    Ok(changes)
}

fn crop(
    recipe: &Recipe<'_>,
    marks: &Marks,
    bytes: &[u8],
) -> Result<(Vec<u8>, Changes), ImageError> {
    let Crop { pixels, changes } = recipe.crop.crop(bytes, Some(&marks.points))?;
    let encoded = match recipe.format {
        CropFormat::Jpg => encode_jpeg(&pixels, recipe.quality)?,
        CropFormat::Png => encode_png(&pixels)?,
    };
    Ok((encoded, changes))
}

/// The image's file; lists such as that of `VGGFace2` leave the extension out.
fn source(root: &Path, image: &str) -> PathBuf {
    let path = root.join(image);
    if has_image_extension(&path) || path.exists() {
        return path;
    }
    let with = ["jpg", "png"].map(|extension| root.join(format!("{image}.{extension}")));
    with.into_iter().find(|path| path.exists()).unwrap_or(path)
}

/// Where the crop goes, relative to the output; each place is given once.
fn target(marks: &Marks, format: CropFormat, taken: &mut HashSet<u64>) -> Result<PathBuf, Reject> {
    let path = Path::new(&marks.image);
    let is_plain = |c: Component| matches!(c, Component::Normal(_));
    if path.file_name().is_none() || !path.components().all(is_plain) {
        return Err(Reject::OutsidePath);
    }
    let target = match format {
        _ if !has_image_extension(path) => {
            let extension = if format == CropFormat::Jpg { "jpg" } else { "png" };
            PathBuf::from(format!("{}.{extension}", marks.image))
        }
        CropFormat::Jpg if is_jpeg(path) => path.to_path_buf(),
        CropFormat::Jpg => path.with_extension("jpg"),
        CropFormat::Png => path.with_extension("png"),
    };
    match taken.insert(content_hash(target.as_os_str().as_encoded_bytes()) as u64) {
        true => Ok(target),
        false => Err(Reject::ListedTwice),
    }
}

fn is_jpeg(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(image: &str, format: CropFormat, expected: Result<&str, Reject>) {
        let marks = Marks { line: 1, image: image.into(), points: [[0.0; 2]; 5] };
        let found = target(&marks, format, &mut HashSet::new());
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn crops_keep_their_relative_paths_but_for_the_extension() {
        check("a/1.jpg", CropFormat::Jpg, Ok("a/1.jpg"));
        check("a/1.JPEG", CropFormat::Jpg, Ok("a/1.JPEG"));
        check("a/1.bmp", CropFormat::Jpg, Ok("a/1.jpg"));
        check("a/1.jpg", CropFormat::Png, Ok("a/1.png"));
        check("n01/0001_01", CropFormat::Jpg, Ok("n01/0001_01.jpg"));
        check("a.b/1.2", CropFormat::Png, Ok("a.b/1.2.png"));
    }

    #[test]
    fn nothing_is_written_outside_of_the_output() {
        for image in ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "", ".", "a/.."] {
            check(image, CropFormat::Jpg, Err(Reject::OutsidePath));
        }
    }
}
