//! Embeddings kept on disk part by part, so that an interrupted run goes on where it stopped.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
};

use pfc_model::MirroredEmbeddings;
use pfc_shard::hash::HashingWriter;
use serde::{Deserialize, Serialize};

use super::{FeatureFile, write};
use crate::EvalError;

/// Faces per part: with 512 numbers each, 32 MiB on disk and a minute of work on a CPU.
pub const PART: usize = 8192;

/// What the embeddings in a folder depend on.
const KEY_FILE: &str = "cache.json";

/// Under which a part notes the checksum of its numbers: a flipped bit leaves other numbers.
const CHECKSUM: &str = "checksum";

/// A folder of parts.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    key: Key,
}

/// What the embeddings depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Version of this layout.
    pub format: u32,
    /// Fingerprint of the model's weights.
    pub model: String,
    /// Fingerprint of the list of faces and their landmarks.
    pub faces: String,
    /// Number of faces.
    pub n_faces: usize,
    /// Numbers of an embedding.
    pub dim: usize,
}

impl Cache {
    /// Opens a folder for embeddings of `key`, or makes it.
    ///
    /// # Errors
    ///
    /// [`EvalError::Cache`] if it holds those of another model or other faces, [`EvalError::Io`] and
    /// [`EvalError::Durable`] if it cannot be read or made.
    pub fn open(dir: &Path, key: Key) -> Result<Cache, EvalError> {
        let path = dir.join(KEY_FILE);
        let cache = Cache { dir: dir.to_owned(), key };
        match std::fs::read(&path) {
            Ok(bytes) => {
                let found: Key = serde_json::from_slice(&bytes).map_err(|error| {
                    EvalError::Cache { path: path.clone(), reason: error.to_string() }
                })?;
                match difference(&found, &cache.key) {
                    None => Ok(cache),
                    Some(reason) => Err(EvalError::Cache { path, reason }),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(dir).map_err(EvalError::io("create", dir))?;
                let json = serde_json::to_vec_pretty(&cache.key).map_err(std::io::Error::from);
                let json = json.map_err(EvalError::io("write", &path))?;
                pfc_durable::write(&path, &json)?;
                Ok(cache)
            }
            Err(error) => Err(EvalError::io("read", &path)(error)),
        }
    }

    fn part(&self, part: usize) -> PathBuf {
        self.dir.join(format!("{part:05}.safetensors"))
    }

    /// Removes what was kept, and the folder if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`].
    pub fn remove(&self) -> Result<(), EvalError> {
        for entry in std::fs::read_dir(&self.dir).map_err(EvalError::io("read", &self.dir))? {
            let path = entry.map_err(EvalError::io("read", &self.dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
            let is_part = stem.parse().is_ok_and(|part| self.part(part) == path);
            if is_part || path == self.dir.join(KEY_FILE) {
                std::fs::remove_file(&path).map_err(EvalError::io("remove", &path))?;
            }
        }
        match std::fs::remove_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(EvalError::io("remove", &self.dir)),
        }
    }

    /// The rows of a part that [`put_rows`](Cache::put_rows) kept; `None` if it is absent or not
    /// whole.
    pub fn rows(&self, part: usize, n_rows: usize) -> Option<Vec<f32>> {
        let [rows] = self.arrays(part, n_rows, ["embs"])?;
        Some(rows)
    }

    /// Keeps the rows of a part.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`].
    pub fn put_rows(&self, part: usize, rows: &[f32]) -> Result<(), EvalError> {
        self.keep(part, [("embs", rows)])
    }

    /// The embeddings of a part that was kept, `[faces, dim]` each; `None` if it is absent or not
    /// whole.
    fn get(&self, part: usize, n_faces: usize) -> Option<MirroredEmbeddings> {
        let [original, mirrored] = self.arrays(part, n_faces, ["embs", "embs_f"])?;
        Some(MirroredEmbeddings { original, mirrored })
    }

    fn put(&self, part: usize, embeddings: &MirroredEmbeddings) -> Result<(), EvalError> {
        let MirroredEmbeddings { original, mirrored } = embeddings;
        self.keep(part, [("embs", original), ("embs_f", mirrored)])
    }

    fn arrays<const N: usize>(
        &self,
        part: usize,
        n_rows: usize,
        names: [&str; N],
    ) -> Option<[Vec<f32>; N]> {
        let file = FeatureFile::open(&self.part(part)).ok()?;
        let mut arrays = Vec::with_capacity(N);
        for name in names {
            let rows = file.optional_rows(name).ok()??;
            let fits = rows.len() == n_rows && rows.dim() == self.key.dim;
            arrays.push(fits.then(|| rows.data().to_vec())?);
        }
        let arrays: [Vec<f32>; N] = arrays.try_into().ok()?;
        (file.note(CHECKSUM)? == checksum(arrays.iter())).then_some(arrays)
    }

    fn keep<const N: usize>(
        &self,
        part: usize,
        arrays: [(&str, &[f32]); N],
    ) -> Result<(), EvalError> {
        let notes = HashMap::from([(CHECKSUM.to_owned(), checksum(arrays.iter().map(|a| a.1)))]);
        let dim = self.key.dim;
        let arrays = arrays.map(|(name, values)| (name, [values.len() / dim, dim], values));
        write::safetensors_with(&self.part(part), &arrays, Some(notes))
    }
}

/// Of arrays one after another.
fn checksum(arrays: impl Iterator<Item: AsRef<[f32]>>) -> String {
    let mut hashed = HashingWriter::new(std::io::sink());
    for array in arrays {
        // A sink takes everything.
        let _ = hashed.write_all(bytemuck::cast_slice(array.as_ref()));
    }
    hashed.finish().2.to_string()
}

fn difference(found: &Key, wanted: &Key) -> Option<String> {
    let fields = [
        ("format", found.format.to_string(), wanted.format.to_string()),
        ("model", found.model.clone(), wanted.model.clone()),
        ("faces", found.faces.clone(), wanted.faces.clone()),
        ("n_faces", found.n_faces.to_string(), wanted.n_faces.to_string()),
        ("dim", found.dim.to_string(), wanted.dim.to_string()),
    ];
    let (name, found, wanted) = fields.into_iter().find(|(_, found, wanted)| found != wanted)?;
    Some(format!("{name} is {found}, but this run has {wanted}"))
}

/// Embeds all faces of `0..n_faces` part by part, taking parts from `cache` where it has them.
///
/// * `embed`: the embeddings of a range of faces
/// * `on_kept`: called with the number of faces of each part that was kept
///
/// # Errors
///
/// Those of `embed`, and of writing to the cache.
pub fn embed_in_parts(
    n_faces: usize,
    cache: Option<&Cache>,
    mut embed: impl FnMut(std::ops::Range<usize>) -> Result<MirroredEmbeddings, EvalError>,
    mut on_kept: impl FnMut(usize),
) -> Result<MirroredEmbeddings, EvalError> {
    let mut all = MirroredEmbeddings { original: Vec::new(), mirrored: Vec::new() };
    for (part, start) in (0..n_faces).step_by(PART).enumerate() {
        let range = start..(start + PART).min(n_faces);
        let n_part = range.len();
        let kept = cache.and_then(|cache| cache.get(part, n_part));
        let embeddings = match kept {
            Some(embeddings) => {
                on_kept(n_part);
                embeddings
            }
            None => {
                let embeddings = embed(range)?;
                if let Some(cache) = cache {
                    cache.put(part, &embeddings)?;
                }
                embeddings
            }
        };
        all.original.extend(embeddings.original);
        all.mirrored.extend(embeddings.mirrored);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let (model, faces) = ("m".to_owned(), "f".to_owned());
        Key { format: 1, model, faces, n_faces: 10_000, dim: 2 }
    }

    fn embed(range: std::ops::Range<usize>) -> Result<MirroredEmbeddings, EvalError> {
        let original: Vec<f32> = range.flat_map(|i| [i as f32, 0.5]).collect();
        Ok(MirroredEmbeddings { mirrored: original.clone(), original })
    }

    #[test]
    fn a_folder_is_removed_with_what_was_kept_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parts");
        let kept = |dir: &Path| {
            let cache = Cache::open(dir, key()).unwrap();
            embed_in_parts(10_000, Some(&cache), embed, |_| ()).unwrap();
            cache
        };
        kept(&path).remove().unwrap();
        assert!(!path.exists());
        let cache = kept(&path);
        std::fs::write(path.join("1.safetensors"), b"mine").unwrap();
        cache.remove().unwrap();
        let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [path.join("1.safetensors")]);
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/cache");
        let cache = Cache::open(&dir, key()).unwrap();
        let stop = |range: std::ops::Range<usize>| match range.start {
            0 => embed(range),
            _ => Err(EvalError::Interrupted),
        };
        assert!(embed_in_parts(10_000, Some(&cache), stop, |_| ()).is_err());
        let cache = Cache::open(&dir, key()).unwrap();
        let (mut ranges, mut kept) = (Vec::new(), Vec::new());
        let spy = |range: std::ops::Range<usize>| {
            ranges.push((range.start, range.end));
            embed(range)
        };
        let all = embed_in_parts(10_000, Some(&cache), spy, |n| kept.push(n)).unwrap();
        assert_eq!((ranges, kept), (vec![(PART, 10_000)], vec![PART]));
        assert_eq!(all, embed(0..10_000).unwrap());
    }

    #[test]
    fn a_damaged_part_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), key()).unwrap();
        embed_in_parts(10_000, Some(&cache), embed, |_| ()).unwrap();
        let path = dir.path().join("00001.safetensors");
        let mut flipped = std::fs::read(&path).unwrap();
        let at = flipped.len() - 7;
        flipped[at] ^= 1;
        for damaged in [b"cut", &flipped[..]] {
            std::fs::write(&path, damaged).unwrap();
            let mut n_kept = 0;
            let all = embed_in_parts(10_000, Some(&cache), embed, |n| n_kept += n).unwrap();
            assert_eq!((n_kept, all), (PART, embed(0..10_000).unwrap()));
        }
    }

    #[test]
    fn embeddings_of_another_model_are_not_mixed_in() {
        let dir = tempfile::tempdir().unwrap();
        Cache::open(dir.path(), key()).unwrap();
        let error = Cache::open(dir.path(), Key { model: "n".into(), ..key() }).unwrap_err();
        assert!(error.to_string().ends_with("model is m, but this run has n"), "{error}");
    }
}
