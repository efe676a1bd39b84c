//! A count in progress, on disk.

use std::path::{Path, PathBuf};

use pfc_metrics::nn::{KeyCounts, Tally};
use pfc_shard::sealed::{self, SealedError};
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Version of the layout below.
const FORMAT: u32 = 2;

/// A file that an interrupted count goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    path: PathBuf,
    /// What the count depends on: another key starts afresh.
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    key: String,
    n_bands: usize,
    /// f32 bits, as JSON's decimal numbers must not round.
    floor: u32,
    /// By group, (person, bits of the score).
    genuine: Vec<Vec<(u32, u32)>>,
    /// By group and then across, (bits of the score, count).
    counts: Vec<Vec<(u32, u64)>>,
}

impl State {
    /// A state in `path` for a count described by `key`.
    pub fn new(path: &Path, key: String) -> State {
        State { path: path.to_owned(), key }
    }

    /// The count of the file; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// [`EvalError::State`] if the file is of another count or damaged, [`EvalError::Durable`] if it cannot
    /// be read.
    pub fn load(&self, n_groups: u32) -> Result<Option<Tally>, EvalError> {
        let refuse = |reason: String| EvalError::State { path: self.path.clone(), reason };
        let saved: Saved = match sealed::read(&self.path) {
            Ok(Some(saved)) => saved,
            Ok(None) => return Ok(None),
            Err(SealedError::Io(error)) => return Err(EvalError::io("read", &self.path)(error)),
            Err(SealedError::Damaged) => return Err(refuse("it is damaged".to_owned())),
        };
        if (saved.format, &saved.key) != (FORMAT, &self.key) {
            return Err(refuse("it is of other features, labels or rates".to_owned()));
        }
        let n_groups_saved = saved.genuine.len();
        if n_groups_saved != n_groups as usize || saved.counts.len() != n_groups_saved + 1 {
            return Err(refuse(format!("it is of {n_groups_saved} groups, not {n_groups}")));
        }
        let floor = f32::from_bits(saved.floor);
        let mut tally = Tally::new(n_groups, floor);
        for (list, pairs) in tally.genuine.iter_mut().zip(saved.genuine) {
            let pairs = pairs.into_iter().map(|(person, bits)| (person, f32::from_bits(bits)));
            *list = std::sync::Mutex::new(pairs.collect());
        }
        let counts = tally.within.iter().chain([&tally.across]);
        for (counts, saved) in counts.zip(saved.counts) {
            for (bits, n) in saved {
                let value = f32::from_bits(bits);
                if value.is_nan() || value < counts.floor() {
                    return Err(refuse(format!("it counts {value} below its floor {floor}")));
                }
                counts.add(value, n);
            }
        }
        tally.n_bands = saved.n_bands;
        Ok(Some(tally))
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`].
    pub fn save(&self, tally: &Tally) -> Result<(), EvalError> {
        let list = |counts: &KeyCounts| counts.iter().map(|(v, n)| (v.to_bits(), n)).collect();
        let genuine = tally.genuine.iter().map(|list| {
            let list = list.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            list.iter().map(|&(person, score)| (person, score.to_bits())).collect()
        });
        let saved = Saved {
            format: FORMAT,
            key: self.key.clone(),
            n_bands: tally.n_bands,
            floor: tally.across.floor().to_bits(),
            genuine: genuine.collect(),
            counts: tally.within.iter().chain([&tally.across]).map(list).collect(),
        };
        Ok(sealed::write(&self.path, &saved)?)
    }

    /// Removes the file of a count that is done.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`].
    pub fn remove(&self) -> Result<(), EvalError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(EvalError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_goes_on_where_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(&dir.path().join("s.json"), "k".to_owned());
        assert!(state.load(2).unwrap().is_none());
        let mut tally = Tally::new(2, 0.25);
        tally.genuine[1].get_mut().unwrap().push((7, 0.1));
        tally.within[0].count(&[0.3, 0.3, 0.9]);
        tally.across.count(&[0.25]);
        tally.n_bands = 3;
        state.save(&tally).unwrap();
        let mut loaded = state.load(2).unwrap().unwrap();
        assert_eq!(loaded.n_bands, 3);
        assert_eq!(*loaded.genuine[1].get_mut().unwrap(), [(7, 0.1)]);
        let within: Vec<_> = loaded.within[0].iter().collect();
        assert_eq!(within, [(0.9, 1), (0.3, 2)]);
        assert_eq!(loaded.across.iter().collect::<Vec<_>>(), [(0.25, 1)]);
        assert!(state.load(3).is_err());
        state.remove().unwrap();
        state.remove().unwrap();
        assert!(state.load(2).unwrap().is_none());
    }

    #[test]
    fn a_state_of_another_count_or_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        State::new(&path, "k".to_owned()).save(&Tally::new(1, 0.5)).unwrap();
        let error = State::new(&path, "other".to_owned()).load(1).unwrap_err();
        assert!(matches!(error, EvalError::State { .. }), "{error}");
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.contains("\"n_bands\":0"), "{whole}");
        std::fs::write(&path, whole.replace("\"n_bands\":0", "\"n_bands\":1")).unwrap();
        let error = State::new(&path, "k".to_owned()).load(1).unwrap_err();
        assert!(error.to_string().ends_with("it is damaged"), "{error}");
        // 0.25, where 0.5 is the floor.
        let (genuine, counts) = (vec![Vec::new()], vec![vec![(0.25_f32.to_bits(), 1)], Vec::new()]);
        let (key, floor) = ("k".to_owned(), 0.5_f32.to_bits());
        let below = Saved { format: FORMAT, key, n_bands: 0, floor, genuine, counts };
        sealed::write(&path, &below).unwrap();
        let error = State::new(&path, "k".to_owned()).load(1).unwrap_err();
        assert!(error.to_string().ends_with("it counts 0.25 below its floor 0.5"), "{error}");
    }
}
