//! The pairs that a model judges worst, with the images to show for them.

use std::path::{Path, PathBuf};

use pfc_sources::is_verification_set;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Pairs kept of each kind of mistake.
pub const N_WORST: usize = 12;

/// Where the images of a set are, with absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// A folder of images; pairs name paths below it.
    Folder {
        /// The folder.
        root: PathBuf,
    },
    /// An `InsightFace` pack, or a set of pairs of another program; pairs name image numbers.
    Pack {
        /// The file or folder.
        path: PathBuf,
    },
}

impl Source {
    /// The source of a set in `data`, a folder or a pack.
    pub fn of(data: &Path) -> Source {
        // A path that cannot be resolved now could not be found later either: keep it as given.
        let absolute = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        // What cannot be looked at now shows no picture later.
        if data.is_dir() && !is_verification_set(data).unwrap_or(false) {
            Source::Folder { root: absolute }
        } else {
            Source::Pack { path: absolute }
        }
    }
}

/// A pair that the model judges worst.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstPair {
    /// Position in the list, from 0, where images rather than templates are paired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<usize>,
    /// Image name in the source; of a template, the name of one of its images.
    pub left: String,
    /// Image name in the source.
    pub right: String,
    /// Cosine similarity.
    pub similarity: f64,
    /// Whether it lies on the wrong side of the threshold.
    pub wrong: bool,
}

/// Positions of the pairs judged worst, each list worst first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worst {
    /// Impostor pairs of highest similarity.
    pub accepts: Vec<usize>,
    /// Genuine pairs of lowest similarity.
    pub rejects: Vec<usize>,
}

impl Worst {
    /// Picks up to [`N_WORST`] pairs of each class by score; of equal ones those with the smaller
    /// `key`.
    ///
    /// O(P), on all threads.
    pub fn of<K: Ord>(scores: &[f64], same: &[bool], key: impl Fn(usize) -> K + Sync) -> Worst {
        Worst {
            accepts: lowest(scores.len(), |i| (!same[i]).then(|| -scores[i]), &key),
            rejects: lowest(scores.len(), |i| same[i].then(|| scores[i]), &key),
        }
    }
}

/// Indices of the lowest values among `0..n`, lowest first; `None` takes no part.
fn lowest<K: Ord>(
    n: usize,
    value: impl Fn(usize) -> Option<f64> + Sync,
    key: impl Fn(usize) -> K + Sync,
) -> Vec<usize> {
    /// Values looked at by one task.
    const PIECE: usize = 1 << 16;
    let insert = |mut kept: Vec<(f64, usize)>, (value, i): (f64, usize)| {
        if kept.len() == N_WORST && kept.last().is_some_and(|last| value > last.0) {
            return kept;
        }
        let before = |&(other, j): &(f64, usize)| {
            other.total_cmp(&value).then_with(|| key(j).cmp(&key(i))).is_lt()
        };
        kept.insert(kept.partition_point(before), (value, i));
        kept.truncate(N_WORST);
        kept
    };
    let pieces: Vec<Vec<(f64, usize)>> = (0..n.div_ceil(PIECE))
        .into_par_iter()
        .map(|piece| {
            let range = piece * PIECE..((piece + 1) * PIECE).min(n);
            range.filter_map(|i| Some((value(i)?, i))).fold(Vec::new(), insert)
        })
        .collect();
    pieces.into_iter().flatten().fold(Vec::new(), insert).into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_each_class_come_first_and_ties_go_by_key() {
        let scores = [0.9, 0.2, 0.2, 0.7, 0.8, 0.7];
        let same = [true, true, true, false, false, false];
        let worst = Worst::of(&scores, &same, |i| i);
        assert_eq!((worst.rejects, worst.accepts), (vec![1, 2, 0], vec![4, 3, 5]));
        let worst = Worst::of(&scores, &same, std::cmp::Reverse);
        assert_eq!((worst.rejects, worst.accepts), (vec![2, 1, 0], vec![4, 5, 3]));
    }

    #[test]
    fn only_so_many_are_kept() {
        let scores: Vec<f64> = (0..200_000).map(|i| f64::from(i * 7919 % 100_003)).collect();
        let worst = Worst::of(&scores, &vec![true; scores.len()], |i| i);
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        let found: Vec<f64> = worst.rejects.iter().map(|&i| scores[i]).collect();
        assert_eq!(found, sorted[..N_WORST]);
        assert!(worst.accepts.is_empty());
    }
}
