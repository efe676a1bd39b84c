//! Embeddings kept on disk part by part, so that an interrupted run goes on where it stopped.
//!
//! Images are divided into parts at places that depend on the images alone ([`divide`]), and a part is
//! named after what identifies its images. A file that is added, removed or repaired therefore costs
//! its own part; all others are found again.

use std::{
    collections::HashMap,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use pfc_durable::{Access, DurableError, OwnedDir, is_temporary_name};
use pfc_shard::hash::{HashingWriter, content_hash};
use serde::{Deserialize, Serialize};

use crate::{EmbeddingError, FeatureFile, write};

/// Images of a part at least, but for the last: with 512 numbers each, 8 MiB on disk.
const PART_MIN: usize = 4096;

/// Images of a part at most: a minute or two of work on a CPU.
const PART_MAX: usize = 16_384;

/// Version of the layout of a cache.
const FORMAT: u32 = 2;

/// What the embeddings in a folder depend on.
const KEY_FILE: &str = "cache.json";

/// Under which a part notes the checksum of its numbers: a flipped bit leaves other numbers.
const CHECKSUM: &str = "checksum";

/// Under which a part notes the images that have no row.
const LEFT_OUT: &str = "left_out";

/// A folder of parts, which no other process uses meanwhile.
#[derive(Debug)]
pub struct Cache {
    owned: OwnedDir,
    key: Key,
}

/// What all embeddings of a cache depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Version of this layout.
    format: u32,
    /// Fingerprint of the model's weights.
    model: String,
    /// Numbers of an embedding.
    dim: usize,
}

impl Key {
    /// Of embeddings with `dim` numbers by the model with this fingerprint.
    pub fn new(model: String, dim: usize) -> Key {
        Key { format: FORMAT, model, dim }
    }
}

/// Images that are embedded and kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The images.
    pub range: Range<usize>,
    /// Hash of what identifies them.
    key: u128,
}

/// An image without a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its number: in a part that is kept from the start of that, else of all images.
    pub index: usize,
    /// Why it cannot be used.
    pub reason: String,
}

/// What is kept of a part: `N` arrays `[rows, dim]`, with a row for each image but those left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept<const N: usize> {
    /// The arrays.
    pub arrays: [Vec<f32>; N],
    /// The images of the part without a row, ascending.
    pub left_out: Vec<LeftOut>,
}

/// Divides images into parts.
///
/// * `stamps`: what identifies each image, such as a hash of its name and size
///
/// A part ends after 4,096 images or more, before the next one whose stamp is a multiple of 4,096, and
/// after 16,384 at the latest. Where an image is added or removed the parts behind it begin and end as
/// before from the next such place on.
pub fn divide(stamps: &[u128]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < stamps.len() {
        let latest = (start + PART_MAX).min(stamps.len());
        let is_cut = |i: &usize| stamps[*i].is_multiple_of(PART_MIN as u128);
        let end = (start + PART_MIN..latest).find(is_cut).unwrap_or(latest);
        let bytes: Vec<u8> = stamps[start..end].iter().flat_map(|s| s.to_le_bytes()).collect();
        parts.push(Part { range: start..end, key: content_hash(&bytes) });
        start = end;
    }
    parts
}

impl Cache {
    /// Opens a folder for embeddings of `key`, or makes it.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Cache`] if it holds those of another model, [`EmbeddingError::Folder`] if another
    /// process uses it, [`EmbeddingError::Durable`] and [`EmbeddingError::Durable`] if it cannot be read or made.
    pub fn open(dir: &Path, key: Key) -> Result<Cache, EmbeddingError> {
        let owned = OwnedDir::claim(dir, Access::Alone)?;
        let path = dir.join(KEY_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let found: Key = serde_json::from_slice(&bytes).map_err(|error| {
                    EmbeddingError::Cache { path: path.clone(), reason: error.to_string() }
                })?;
                if let Some(reason) = difference(&found, &key) {
                    return Err(EmbeddingError::Cache { path, reason });
                }
                pfc_durable::sweep_all(dir)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A run that was killed before it noted the key leaves no more.
                owned.check_ours(|entry| entry.is_temporary())?;
                pfc_durable::create_dir_all(dir)?;
                pfc_durable::sweep_all(dir)?;
                let json = serde_json::to_vec_pretty(&key).map_err(std::io::Error::from);
                let json = json.map_err(DurableError::at("write", &path))?;
                pfc_durable::write(&path, &json)?;
            }
            Err(error) => return Err(DurableError::at("read", &path)(error).into()),
        }
        Ok(Cache { owned, key })
    }

    fn path(&self, part: &Part) -> PathBuf {
        self.owned.path().join(format!("{:032x}.safetensors", part.key))
    }

    /// Removes what was kept, and the folder if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Durable`].
    pub fn remove(self) -> Result<(), EmbeddingError> {
        let is_hash = |name: &str| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        pfc_durable::remove_ours(self.owned.path(), |entry| {
            let is_part = entry.path.strip_suffix(".safetensors").is_some_and(is_hash);
            entry.is_file && (is_part || entry.path == KEY_FILE || is_temporary_name(entry.path))
        })?;
        match std::fs::remove_dir(self.owned.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => Ok(removed.map_err(DurableError::at("remove", self.owned.path()))?),
        }
    }

    /// What was kept of a part under these names; `None` if it is absent or not whole.
    ///
    /// # Errors
    ///
    /// A fault of the system, which says nothing of what was kept.
    pub fn get<const N: usize>(
        &self,
        part: &Part,
        names: [&str; N],
    ) -> Result<Option<Kept<N>>, EmbeddingError> {
        match FeatureFile::open(&self.path(part)) {
            Ok(file) => Ok(self.whole(&file, part, names)),
            Err(error) if error.is_of_system() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What a file holds of a part, if it is whole.
    fn whole<const N: usize>(
        &self,
        file: &FeatureFile,
        part: &Part,
        names: [&str; N],
    ) -> Option<Kept<N>> {
        let left_out = file.note(LEFT_OUT)?;
        let parsed: Vec<LeftOut> = serde_json::from_str(&left_out).ok()?;
        let n_rows = part.range.len().checked_sub(parsed.len())?;
        let mut arrays = Vec::with_capacity(N);
        for name in names {
            let rows = file.optional_rows(name).ok()??;
            let fits = rows.len() == n_rows && rows.dim() == self.key.dim;
            arrays.push(fits.then(|| rows.data().to_vec())?);
        }
        let arrays: [Vec<f32>; N] = arrays.try_into().ok()?;
        let is_whole = file.note(CHECKSUM)? == checksum(&arrays, &left_out);
        is_whole.then_some(Kept { arrays, left_out: parsed })
    }

    /// Keeps a part's arrays under these names.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Durable`].
    pub fn put<const N: usize>(
        &self,
        part: &Part,
        names: [&str; N],
        kept: &Kept<N>,
    ) -> Result<(), EmbeddingError> {
        let left_out = serde_json::to_string(&kept.left_out).map_err(std::io::Error::from);
        let left_out = left_out.map_err(DurableError::at("write", &self.path(part)))?;
        let notes = HashMap::from([
            (CHECKSUM.to_owned(), checksum(&kept.arrays, &left_out)),
            (LEFT_OUT.to_owned(), left_out),
        ]);
        let dim = self.key.dim;
        let mut arrays = Vec::with_capacity(N);
        for (name, values) in names.into_iter().zip(&kept.arrays) {
            arrays.push((name, [values.len() / dim, dim], &values[..]));
        }
        write::safetensors_with(&self.path(part), &arrays, Some(notes))
    }
}

/// Of arrays one after another, and of what is noted beside them.
fn checksum<const N: usize>(arrays: &[Vec<f32>; N], left_out: &str) -> String {
    let mut hashed = HashingWriter::new(std::io::sink());
    for array in arrays {
        // A sink takes everything.
        let _ = hashed.write_all(bytemuck::cast_slice(array));
    }
    let _ = hashed.write_all(left_out.as_bytes());
    hashed.finish().2.to_string()
}

fn difference(found: &Key, wanted: &Key) -> Option<String> {
    let fields = [
        ("format", found.format.to_string(), wanted.format.to_string()),
        ("model", found.model.clone(), wanted.model.clone()),
        ("dim", found.dim.to_string(), wanted.dim.to_string()),
    ];
    let (name, found, wanted) = fields.into_iter().find(|(_, found, wanted)| found != wanted)?;
    Some(format!("{name} is {found}, but this run has {wanted}"))
}

/// What is kept of a part and still right: not where an image that was left out can be read by now.
///
/// * `is_readable`: whether image `i` of all can be read
///
/// # Errors
///
/// Those of `is_readable`, and of [`Cache::get`].
pub fn kept<const N: usize, E: From<EmbeddingError>>(
    cache: &Cache,
    part: &Part,
    names: [&str; N],
    is_readable: impl Fn(usize) -> Result<bool, E>,
) -> Result<Option<Kept<N>>, E> {
    let Some(kept) = cache.get(part, names)? else { return Ok(None) };
    for image in &kept.left_out {
        if is_readable(part.range.start + image.index)? {
            return Ok(None);
        }
    }
    Ok(Some(kept))
}

/// Embeddings of images and of their mirror images, with a row for each image but those left out.
pub type Embedded = ([Vec<f32>; 2], Vec<LeftOut>);

/// Embeds all images part by part, taking parts from `cache` where it has them.
///
/// * `stamps`: what identifies each image
/// * `embed`: the embeddings of a range of images; numbers of those left out are of all images
/// * `is_readable`: whether an image that was left out earlier can be read by now
/// * `on_kept`: called with the number of images of each part that was kept
///
/// # Errors
///
/// Those of `embed` and `is_readable`, and of the cache.
pub fn embed_in_parts<E: From<EmbeddingError>>(
    stamps: &[u128],
    cache: Option<&Cache>,
    mut embed: impl FnMut(Range<usize>) -> Result<Embedded, E>,
    is_readable: impl Fn(usize) -> Result<bool, E>,
    mut on_kept: impl FnMut(usize),
) -> Result<Embedded, E> {
    const NAMES: [&str; 2] = ["embs", "embs_f"];
    let mut all = [Vec::new(), Vec::new()];
    let mut all_left_out = Vec::new();
    for part in divide(stamps) {
        let start = part.range.start;
        let found = cache.map(|cache| kept(cache, &part, NAMES, &is_readable)).transpose()?;
        let found = found.flatten();
        let Kept { arrays, left_out } = match found {
            Some(found) => {
                on_kept(part.range.len());
                found
            }
            None => {
                let (arrays, mut left_out) = embed(part.range.clone())?;
                left_out.iter_mut().for_each(|image| image.index -= start);
                let new = Kept { arrays, left_out };
                if let Some(cache) = cache {
                    cache.put(&part, NAMES, &new)?;
                }
                new
            }
        };
        all.iter_mut().zip(arrays).for_each(|(all, array)| all.extend(array));
        all_left_out.extend(
            left_out.into_iter().map(|image| LeftOut { index: start + image.index, ..image }),
        );
    }
    Ok((all, all_left_out))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn key() -> Key {
        Key::new("m".to_owned(), 2)
    }

    fn stamp(name: usize) -> u128 {
        content_hash(&name.to_le_bytes())
    }

    fn stamps(names: impl Iterator<Item = usize>) -> Vec<u128> {
        names.map(stamp).collect()
    }

    /// Rows that tell which image they are of; of `bad` none.
    fn rows(range: Range<usize>, bad: &[usize]) -> Embedded {
        let good = range.clone().filter(|i| !bad.contains(i));
        let original: Vec<f32> = good.flat_map(|i| [i as f32, 0.5]).collect();
        let left_out = range.filter(|i| bad.contains(i));
        let left_out = left_out.map(|index| LeftOut { index, reason: "cut".into() }).collect();
        ([original.clone(), original], left_out)
    }

    fn names(dir: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    const N: usize = 40_000;

    #[test]
    fn parts_cover_all_images_once_and_one_image_changes_its_own_part() {
        let before = divide(&stamps(0..N));
        assert!(before.len() >= 3);
        let mut end = 0;
        for (i, part) in before.iter().enumerate() {
            assert_eq!(part.range.start, end);
            let long = part.range.len() >= PART_MIN || i + 1 == before.len();
            assert!(long && part.range.len() <= PART_MAX, "{:?}", part.range);
            end = part.range.end;
        }
        assert_eq!(end, N);
        let keys = |parts: &[Part]| parts.iter().map(|part| part.key).collect::<Vec<_>>();
        for gone in [10, N / 2, N - 1] {
            let after = divide(&stamps((0..N).filter(|i| *i != gone)));
            let (before, after) = (keys(&before), keys(&after));
            let new = after.iter().filter(|key| !before.contains(key)).count();
            assert!(new <= 2, "without image {gone} {new} of {} parts are new", after.len());
        }
        assert!(divide(&[]).is_empty());
    }

    #[test]
    fn a_folder_is_removed_with_what_was_kept_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parts");
        let stamps = stamps(0..N);
        let kept = |dir: &Path| {
            let cache = Cache::open(dir, key()).unwrap();
            let embed = |range| Ok::<_, EmbeddingError>(rows(range, &[]));
            embed_in_parts(&stamps, Some(&cache), embed, |_| Ok(true), |_| ()).unwrap();
            cache
        };
        kept(&path).remove().unwrap();
        assert!(names(dir.path()).is_empty());
        let cache = kept(&path);
        std::fs::write(path.join("1.safetensors"), b"mine").unwrap();
        cache.remove().unwrap();
        assert_eq!(names(&path), [path.join("1.safetensors")]);
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_stopped_whatever_image_is_removed_or_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/cache");
        let all = stamps(0..N);
        let parts = divide(&all);
        let stop = |range: Range<usize>| match range.end == N {
            true => Err(EmbeddingError::Interrupted { done: 0, total: 0 }),
            false => Ok(rows(range, &[7, 30_000])),
        };
        let cache = Cache::open(&dir, key()).unwrap();
        assert!(embed_in_parts(&all, Some(&cache), stop, |_| Ok(false), |_| ()).is_err());
        drop(cache);
        // How many images a further run embeds, and what it gives.
        let run = |stamps: &[u128], is_readable: fn(usize) -> bool| {
            let cache = Cache::open(&dir, key()).unwrap();
            let n_new = RefCell::new(0);
            let embed = |range: Range<usize>| {
                *n_new.borrow_mut() += range.len();
                Ok::<_, EmbeddingError>(rows(
                    range,
                    if is_readable(7) { &[30_000] } else { &[7, 30_000] },
                ))
            };
            let is_readable = |i| Ok(is_readable(i));
            let all = embed_in_parts(stamps, Some(&cache), embed, is_readable, |_| ()).unwrap();
            (n_new.into_inner(), all)
        };
        let (n_new, found) = run(&all, |_| false);
        assert_eq!(n_new, parts[parts.len() - 1].range.len());
        assert_eq!(found, rows(0..N, &[7, 30_000]));
        assert_eq!(run(&all, |_| false).0, 0);
        // The seventh is repaired and has the same size: its part is done again.
        let (n_new, found) = run(&all, |i| i == 7);
        assert_eq!((n_new, found), (parts[0].range.len(), rows(0..N, &[30_000])));
        // The seventh is removed.
        let fewer = stamps((0..N).filter(|i| *i != 7));
        assert!(run(&fewer, |_| false).0 <= parts[0].range.len() + parts[1].range.len());
    }

    #[test]
    fn a_damaged_part_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), key()).unwrap();
        let stamps = stamps(0..10);
        let run = || {
            let mut n_kept = 0;
            let embed = |range| Ok::<_, EmbeddingError>(rows(range, &[3]));
            let all = embed_in_parts(&stamps, Some(&cache), embed, |_| Ok(false), |n| n_kept += n);
            assert_eq!(all.unwrap(), rows(0..10, &[3]));
            n_kept
        };
        assert_eq!((run(), run()), (0, 10));
        let path = cache.path(&divide(&stamps)[0]);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            // Whatever byte it is, the rows are right.
            run();
        }
        std::fs::write(&path, b"cut").unwrap();
        assert_eq!((run(), run()), (0, 10));
    }

    #[test]
    fn a_folder_with_files_of_others_becomes_no_cache_and_one_that_a_killed_run_left_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path(".cache.json.abcdef.tmp"), "half").unwrap();
        drop(Cache::open(dir.path(), key()).unwrap());
        assert!(path(KEY_FILE).exists() && !path(".cache.json.abcdef.tmp").exists());
        std::fs::remove_file(path(KEY_FILE)).unwrap();
        std::fs::write(path("thesis.tex"), "theirs").unwrap();
        let error = Cache::open(dir.path(), key()).unwrap_err();
        assert!(matches!(error, EmbeddingError::Folder(_)), "{error}");
        assert!(path("thesis.tex").exists() && !path(KEY_FILE).exists());
    }

    #[test]
    fn embeddings_of_another_model_are_not_mixed_in_and_two_processes_do_not_share() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), key()).unwrap();
        let error = Cache::open(dir.path(), key()).unwrap_err();
        assert!(matches!(error, EmbeddingError::Folder(_)) && error.hint().is_some(), "{error}");
        drop(cache);
        let error = Cache::open(dir.path(), Key::new("n".into(), 2)).unwrap_err();
        assert!(error.to_string().ends_with("model is m, but this run has n"), "{error}");
    }
}
