//! Folders of feature files, and what cleaning makes of them.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{ProbeList, feature};
use crate::{EvalError, files::read_regular_file};

/// Files larger than this are no features.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Last component of a noisy distractor: farther from everything than any face is.
const FAR_AWAY: f32 = 100.0;

/// Largest noise that a noisy probe gets, so that two of one person do not coincide.
const JITTER: f32 = 0.001;

/// Feature files below a folder, called `<image path><suffix>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The folder.
    pub root: PathBuf,
    /// `_<algorithm>.bin`.
    pub suffix: String,
}

impl Store {
    /// Where the feature of an image is.
    pub fn path(&self, image: &str) -> PathBuf {
        self.root.join(format!("{image}{}", self.suffix))
    }

    /// The features of `images`, row by row, and their dimension; read on all threads.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`] and [`EvalError::Devkit`] for the first file that cannot be read, or whose
    /// dimension is not `dim`, or, where that is `None`, of the first file.
    pub fn read(
        &self,
        images: &[String],
        dim: Option<usize>,
    ) -> Result<(Vec<f32>, usize), EvalError> {
        let Some(first) = images.first() else { return Ok((Vec::new(), dim.unwrap_or(0))) };
        let dim = match dim {
            Some(dim) => dim,
            None => self.read_one(first)?.len(),
        };
        let mut values = vec![0.0; images.len() * dim];
        let read = |(row, image): (&mut [f32], &String)| {
            let feature = self.read_one(image)?;
            if feature.len() != dim {
                let reason = format!("{} numbers, where others have {dim}", feature.len());
                return Err(EvalError::Devkit { path: self.path(image), reason });
            }
            row.copy_from_slice(&feature);
            Ok(())
        };
        // Collected first, so that the error is the first by order and not by time.
        let results: Vec<Result<(), EvalError>> =
            values.par_chunks_exact_mut(dim).zip(images).map(read).collect();
        results.into_iter().collect::<Result<(), _>>()?;
        Ok((values, dim))
    }

    fn read_one(&self, image: &str) -> Result<Vec<f32>, EvalError> {
        let path = self.path(image);
        let bytes = read_regular_file(&path, FILE_BYTES_MAX)?;
        feature::decode(&bytes).map_err(|reason| EvalError::Devkit { path, reason })
    }

    /// Writes the feature of an image; its folder is made.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`] and [`EvalError::Durable`].
    pub fn write(&self, image: &str, values: &[f32]) -> Result<(), EvalError> {
        let path = self.path(image);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
        }
        Ok(pfc_durable::write(&path, &feature::encode(values))?)
    }

    /// Removes what a killed command was writing in the folders of these images.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`] if such a file cannot be removed.
    pub fn sweep(&self, images: &[String]) -> Result<(), EvalError> {
        let folders = images.iter().filter_map(|image| Some(self.path(image).parent()?.to_owned()));
        let folders: HashSet<PathBuf> = folders.collect();
        folders.iter().try_for_each(|folder| Ok(pfc_durable::sweep_all(folder)?))
    }

    /// Whether the image has a feature of `dim` numbers.
    ///
    /// # Errors
    ///
    /// A fault of the system, which says nothing of the feature.
    pub fn has(&self, image: &str, dim: usize) -> Result<bool, EvalError> {
        self.has_one(image, |values| values.len() == dim)
    }

    /// Whether the feature of the image is `expected`.
    ///
    /// # Errors
    ///
    /// As [`has`](Store::has).
    pub fn holds(&self, image: &str, expected: &[f32]) -> Result<bool, EvalError> {
        self.has_one(image, |values| {
            // Bit by bit: 0 and -0 are other bytes.
            values.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits()))
        })
    }

    fn has_one(&self, image: &str, is_right: impl Fn(&[f32]) -> bool) -> Result<bool, EvalError> {
        match self.read_one(image) {
            Ok(values) => Ok(is_right(&values)),
            Err(error) if error.is_of_system() => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// Images known to be mislabelled or to show a probe person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noises {
    /// File names of probes.
    pub probes: HashSet<String>,
    /// Paths of distractors.
    pub distractors: HashSet<String>,
}

impl Noises {
    /// Adds the component that cleaning needs to probes, `[P, dim]` to `[P, dim + 1]`.
    ///
    /// A clean probe gets 0. A noisy one becomes the sum of its person's clean probes plus a little
    /// noise, at norm 1: the devkit needs a feature for every probe. The noise is at most ±0.001,
    /// and depends on the path alone.
    pub fn clean_probes(&self, list: &ProbeList, values: &[f32], dim: usize) -> Vec<f32> {
        let is_noisy = |path: &str| {
            let name = Path::new(path).file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| self.probes.contains(name))
        };
        let mut sums = vec![0.0; list.names.len() * dim];
        let rows = || list.paths.iter().zip(&list.identities).zip(values.chunks_exact(dim));
        let mut clean: Vec<_> = rows().filter(|((path, _), _)| !is_noisy(path)).collect();
        // A sum depends on the order of its terms, and figures must not depend on that of the list.
        clean.sort_by_key(|((path, _), _)| *path);
        for ((_, &person), row) in clean {
            let sum = &mut sums[person as usize * dim..][..dim];
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let mut cleaned = Vec::with_capacity(list.paths.len() * (dim + 1));
        for ((path, &person), row) in rows() {
            if is_noisy(path) {
                let sum = &sums[person as usize * dim..][..dim];
                cleaned.extend(jittered(path, sum));
            } else {
                cleaned.extend(row);
            }
            cleaned.push(0.0);
        }
        cleaned
    }

    /// Adds the component to distractors: 0 for clean ones, 100 for noisy ones, which are then
    /// farther from every probe than any other image.
    pub fn clean_distractors(&self, paths: &[String], values: &[f32], dim: usize) -> Vec<f32> {
        let mut cleaned = Vec::with_capacity(paths.len() * (dim + 1));
        for (path, row) in paths.iter().zip(values.chunks_exact(dim)) {
            cleaned.extend(row);
            cleaned.push(if self.distractors.contains(path) { FAR_AWAY } else { 0.0 });
        }
        cleaned
    }
}

fn jittered(path: &str, sum: &[f32]) -> Vec<f32> {
    let noise = |i: usize| {
        let key = format!("{path}\0{i}");
        let bits = pfc_shard::hash::content_hash(key.as_bytes()) as u32;
        (bits as f32 / u32::MAX as f32 * 2.0 - 1.0) * JITTER
    };
    let row: Vec<f32> = sum.iter().enumerate().map(|(i, value)| value + noise(i)).collect();
    let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    row.iter().map(|&v| (f64::from(v) / norm) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { root: dir.path().join("out"), suffix: "_a.bin".to_owned() };
        (dir, store)
    }

    #[test]
    fn features_are_found_again() {
        let (_dir, store) = store();
        store.write("A/1.png", &[1.0, 2.0]).unwrap();
        store.write("B/2.png", &[3.0, 4.0]).unwrap();
        assert!(store.path("A/1.png").ends_with("out/A/1.png_a.bin"));
        let images = ["B/2.png".to_owned(), "A/1.png".to_owned()];
        assert_eq!(store.read(&images, None).unwrap(), (vec![3.0, 4.0, 1.0, 2.0], 2));
        let has = |image, dim| store.has(image, dim).unwrap();
        assert!(has("A/1.png", 2) && !has("A/1.png", 3) && !has("C", 2));
    }

    #[test]
    fn the_first_bad_file_is_named() {
        let (_dir, store) = store();
        store.write("a", &[1.0, 2.0]).unwrap();
        store.write("b", &[1.0]).unwrap();
        let images = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<_>>();
        let error = store.read(&images(&["a", "b", "c"]), None).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "b_a.bin: not a feature file of the devkit: 1 numbers, where others have 2"
            ),
            "{error}"
        );
        let error = store.read(&images(&["c"]), None).unwrap_err().to_string();
        assert!(error.ends_with("c_a.bin: cannot open"), "{error}");
    }

    #[test]
    fn cleaning_replaces_noisy_probes_and_banishes_noisy_distractors() {
        let list = ProbeList {
            paths: ["A/1", "A/2", "A/3"].map(str::to_owned).to_vec(),
            identities: vec![0; 3],
            names: vec!["A".to_owned()],
        };
        let noises = Noises {
            probes: HashSet::from(["2".to_owned()]),
            distractors: HashSet::from(["x/y".to_owned()]),
        };
        let cleaned = noises.clean_probes(&list, &[1.0, 0.0, 0.3, 0.3, 0.0, 1.0], 2);
        assert_eq!((&cleaned[..3], &cleaned[6..]), (&[1.0, 0.0, 0.0][..], &[0.0, 1.0, 0.0][..]));
        let half = 0.5f32.sqrt();
        assert!((cleaned[3] - half).abs() < 0.002 && (cleaned[4] - half).abs() < 0.002);
        assert_ne!(cleaned[3], cleaned[4]);
        let paths = ["x/y", "y"].map(str::to_owned);
        assert_eq!(noises.clean_distractors(&paths, &[1.0, 2.0], 1), [1.0, 100.0, 2.0, 0.0]);
    }
}
