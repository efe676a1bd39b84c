//! 1:N: every probe against every template of a gallery.

// Q = probes, G = gallery templates, D = embedding.

use rayon::prelude::*;

use crate::{
    MetricError, Rows, cmc,
    dot::{GROUP, dot4, widen, with_widest_vectors},
    roc::{Far, RocPoint},
};

/// The people to search among.
#[derive(Debug, Clone, Copy)]
pub struct Gallery<'a> {
    /// `[G]`, rows of the templates.
    pub rows: &'a [u32],
    /// `[G]`, who each is; a person may have several templates.
    pub subjects: &'a [u64],
}

/// The templates to search for.
#[derive(Debug, Clone, Copy)]
pub struct Probes<'a> {
    /// `[Q]`, rows of the templates.
    pub rows: &'a [u32],
    /// `[Q]`, who each is.
    pub subjects: &'a [u64],
}

/// What became of each probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Probes whose person is in the gallery, in their order.
    pub mated: Vec<Mated>,
    /// The highest similarity of each other probe, in their order, with the probe's index.
    pub non_mated: Vec<(u32, f64)>,
}

/// A probe whose person is in the gallery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mated {
    /// Index of the probe.
    pub probe: u32,
    /// Gallery templates of other people strictly more similar than the person's own best: 0 is a
    /// hit at rank 1. A tie counts for the person.
    pub rank: u32,
    /// Similarity with the person's own best template.
    pub score: f64,
}

/// TPIR at some FPIR.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TpirAt {
    /// Share of mated probes found at rank 1 with a similarity strictly above the threshold.
    pub tpir: f64,
    /// The similarity that a find must exceed.
    pub threshold: f64,
}

/// Searches each probe in the gallery.
///
/// Similarities as of [`score_pairs`](super::score_pairs), to the bit. O(Q·G·D), on all threads.
///
/// # Errors
///
/// [`MetricError::NoSuch`] for a row that is no template, [`MetricError::Length`] for columns of
/// unequal length or an empty gallery.
pub fn search(templates: Rows, gallery: Gallery, probes: Probes) -> Result<Search, MetricError> {
    check_side(templates, "gallery template", gallery.rows, gallery.subjects)?;
    check_side(templates, "probe template", probes.rows, probes.subjects)?;
    if gallery.rows.is_empty() {
        return Err(MetricError::Length { what: "gallery templates", len: 0, expected: 1 });
    }
    let dim = templates.dim();
    // Gathered once, so that a block of gallery rows is contiguous.
    let features: Vec<f32> =
        gallery.rows.iter().flat_map(|&row| templates.row(row as usize)).copied().collect();
    let features = Rows::new(&features, dim)?;
    let outcomes: Vec<Vec<Outcome>> = probes
        .rows
        .par_chunks(PROBES)
        .zip(probes.subjects.par_chunks(PROBES))
        .map(|(rows, subjects)| {
            let scores = similarities(templates, features, rows);
            let scores = scores.chunks_exact(gallery.rows.len());
            scores.zip(subjects).map(|(s, &subject)| outcome(s, gallery, subject)).collect()
        })
        .collect();
    let mut search = Search { mated: Vec::new(), non_mated: Vec::new() };
    for (probe, outcome) in (0..).zip(outcomes.into_iter().flatten()) {
        match outcome {
            Outcome::Mated { rank, score } => search.mated.push(Mated { probe, rank, score }),
            Outcome::NonMated { highest } => search.non_mated.push((probe, highest)),
        }
    }
    Ok(search)
}

impl Search {
    /// Mated probes found among the `k` most similar gallery templates.
    pub fn hits(&self, k: u32) -> usize {
        self.mated.iter().filter(|mated| mated.rank < k).count()
    }

    /// Share of mated probes found among the k most similar gallery templates, for k from 1 to
    /// `k_max`; NaN without mated probes.
    pub fn cmc(&self, k_max: usize) -> Vec<f64> {
        cmc(self.mated.iter().map(|mated| mated.rank), k_max)
    }

    /// TPIR at each of `fpirs` as the reference defines it: of the highest similarities of the n
    /// non-mated probes, from high to low, the one at position max(⌊n·FPIR⌋ − 1, 0) is the
    /// threshold. FPIR is then at most ⌊n·FPIR⌋/n, and finer rates than 2/n all mean the highest.
    ///
    /// `None` where one of the two kinds of probe is missing.
    pub fn tpir(&self, fpirs: &[f64]) -> Option<Vec<TpirAt>> {
        let position = |n: usize, fpir: f64| (n as f64 * fpir).floor() as usize;
        self.tpir_with(fpirs, |n, fpir| position(n, fpir).saturating_sub(1))
    }

    /// TPIR where at most a share `fpir` of the non-mated probes exceeds the threshold, which is
    /// the (⌊n·FPIR⌋+1)-th highest of their similarities.
    ///
    /// `None` as in [`tpir`](Search::tpir).
    pub fn tpir_at_most(&self, fpirs: &[Far]) -> Option<Vec<TpirAt>> {
        self.tpir_with(fpirs, |n, fpir| fpir.allowed(n as u64) as usize)
    }

    /// TPIR over FPIR, rising: `far` is the share of the non-mated probes that are answered, `tar` the share of
    /// the mated ones that are answered rightly at rank 1, and `threshold` what a similarity must reach.
    ///
    /// There is a point for each of the first 40 non-mated probes, and then as many as stand apart on a
    /// logarithmic axis: some 150 for 10,000 probes. Nothing where one of the two kinds is missing.
    pub fn open_set(&self) -> Vec<RocPoint> {
        if self.mated.is_empty() || self.non_mated.is_empty() {
            return Vec::new();
        }
        let (highest, found) = self.scores();
        let share = |scores: &[f64], above: f64, n: usize| {
            scores.partition_point(|&score| score > above) as f64 / n as f64
        };
        let counts = std::iter::successors(Some(0), |&n: &usize| Some(n + (n / 20).max(1)));
        let point = |n_answered: usize| {
            let below = highest[n_answered];
            let far = share(&highest, below, highest.len());
            RocPoint {
                threshold: below.next_up(),
                far,
                tar: share(&found, below, self.mated.len()),
            }
        };
        counts.take_while(|&n| n < highest.len()).map(point).collect()
    }

    /// The highest similarities of the non-mated probes, and those of the mated ones that are found at rank 1;
    /// both falling.
    fn scores(&self) -> (Vec<f64>, Vec<f64>) {
        let mut highest: Vec<f64> = self.non_mated.iter().map(|&(_, score)| score).collect();
        highest.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut found: Vec<f64> =
            self.mated.iter().filter(|mated| mated.rank == 0).map(|mated| mated.score).collect();
        found.sort_unstable_by(|a, b| b.total_cmp(a));
        (highest, found)
    }

    fn tpir_with<R: Copy>(
        &self,
        rates: &[R],
        position: impl Fn(usize, R) -> usize,
    ) -> Option<Vec<TpirAt>> {
        if self.mated.is_empty() || self.non_mated.is_empty() {
            return None;
        }
        let (highest, found) = self.scores();
        let at = |&rate: &R| {
            let threshold = highest[position(highest.len(), rate).min(highest.len() - 1)];
            let n_found = found.partition_point(|&score| score > threshold);
            TpirAt { tpir: n_found as f64 / self.mated.len() as f64, threshold }
        };
        Some(rates.iter().map(at).collect())
    }
}

/// Probes searched together, so that a block of the gallery is read from memory once for all.
const PROBES: usize = 16;

/// Gallery rows per block: with D = 512 half a megabyte, which a core's cache holds.
const BLOCK_ROWS: usize = 256;

enum Outcome {
    Mated { rank: u32, score: f64 },
    NonMated { highest: f64 },
}

/// `[probes, G]` similarities.
fn similarities(templates: Rows, gallery: Rows, probes: &[u32]) -> Vec<f64> {
    let n_gallery = gallery.len();
    let mut scores = vec![0.0; probes.len() * n_gallery];
    let widened = |&row: &u32| {
        let mut wide = Vec::new();
        widen(templates.row(row as usize), &mut wide);
        wide
    };
    let queries: Vec<Vec<f64>> = probes.iter().map(widened).collect();
    with_widest_vectors(
        #[inline(always)]
        || {
            for start in (0..n_gallery).step_by(BLOCK_ROWS) {
                let end = (start + BLOCK_ROWS).min(n_gallery);
                for (query, scores) in queries.iter().zip(scores.chunks_exact_mut(n_gallery)) {
                    for (group, scores) in scores[start..end].chunks_mut(GROUP).enumerate() {
                        let first = start + group * GROUP;
                        let rows = [0, 1, 2, 3].map(|i| gallery.row((first + i).min(end - 1)));
                        scores.copy_from_slice(&dot4(query, rows)[..scores.len()]);
                    }
                }
            }
        },
    );
    scores
}

fn outcome(scores: &[f64], gallery: Gallery, subject: u64) -> Outcome {
    let own = |&(_, s): &(&f64, &u64)| *s == subject;
    let pairs = || scores.iter().zip(gallery.subjects);
    match pairs().filter(own).map(|(&score, _)| score).reduce(f64::max) {
        None => {
            Outcome::NonMated { highest: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max) }
        }
        Some(score) => {
            let nearer = pairs().filter(|pair| !own(pair) && *pair.0 > score);
            Outcome::Mated { rank: nearer.count() as u32, score }
        }
    }
}

fn check_side(
    templates: Rows,
    what: &'static str,
    rows: &[u32],
    subjects: &[u64],
) -> Result<(), MetricError> {
    if rows.len() != subjects.len() {
        let (len, expected) = (subjects.len(), rows.len());
        return Err(MetricError::Length { what: "subjects", len, expected });
    }
    match rows.iter().position(|&row| row as usize >= templates.len()) {
        None => Ok(()),
        Some(index) => {
            let (value, bound) = (u64::from(rows[index]), templates.len() as u64);
            Err(MetricError::NoSuch { what, index, value, bound })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows 0-2 are the gallery (people 10, 11, 12), 3-6 the probes.
    fn example() -> Search {
        #[rustfmt::skip]
        let data = [
            1.0, 0.0, 0.0,  0.0, 1.0, 0.0,  0.0, 0.0, 1.0,
            0.9, 0.1, 0.0,  0.6, 0.5, 0.0,  0.3, 0.2, 0.1,  0.1, 0.7, 0.2,
        ];
        let templates = Rows::new(&data, 3).unwrap();
        let gallery = Gallery { rows: &[0, 1, 2], subjects: &[10, 11, 12] };
        let probes = Probes { rows: &[3, 4, 5, 6], subjects: &[10, 11, 99, 98] };
        search(templates, gallery, probes).unwrap()
    }

    #[test]
    fn ranks_and_highest_similarities_match_a_hand_worked_case() {
        let search = example();
        assert_eq!(search.mated.iter().map(|m| m.rank).collect::<Vec<_>>(), [0, 1]);
        assert_eq!([1, 2].map(|k| search.hits(k)), [1, 2]);
        assert_eq!(search.cmc(3), [0.5, 1.0, 1.0]);
        let highest: Vec<f32> = search.non_mated.iter().map(|n| n.1 as f32).collect();
        assert_eq!(highest, [0.3, 0.7]);
    }

    #[test]
    fn tpir_takes_the_threshold_where_the_reference_does() {
        // Highest similarities 0.7, 0.3. Reference at FPIR 1: position 1, 0.3. Strict at 0.5: 0.3.
        let search = example();
        let reference = search.tpir(&[1e-4, 0.5, 1.0]).unwrap();
        let thresholds: Vec<f32> = reference.iter().map(|at| at.threshold as f32).collect();
        assert_eq!(thresholds, [0.7, 0.7, 0.3]);
        assert_eq!(reference[0].tpir, 0.5);
        let strict = search.tpir_at_most(&[Far::new(0.5).unwrap()]).unwrap();
        assert_eq!(strict[0].threshold as f32, 0.3);
    }

    #[test]
    fn the_open_set_curve_matches_a_hand_worked_case() {
        // Strangers at 0.7 and 0.3; of two mated probes one is found, at 0.9.
        let search = example();
        let points: Vec<(f64, f64)> = search.open_set().iter().map(|p| (p.far, p.tar)).collect();
        assert_eq!(points, [(0.0, 0.5), (0.5, 0.5)]);
        let found = Mated { probe: 0, rank: 0, score: 0.5 };
        let many = Search {
            mated: vec![found; 4],
            non_mated: (0..10_000).map(|i| (i, f64::from(i) / 10_000.0)).collect(),
        };
        let points = many.open_set();
        // Strangers above 0.5 are 4,999 of 10,000, and what is found at 0.5 has to exceed the next of them.
        let tars = |far: f64| points.iter().filter(move |p| p.far < far).map(|p| p.tar);
        assert!(tars(0.4999).all(|tar| tar == 0.0) && points.last().unwrap().tar == 1.0);
        assert!(points.len() < 200, "{}", points.len());
        assert!(points.is_sorted_by(|a, b| a.far < b.far));
        assert!(Search { mated: Vec::new(), ..many }.open_set().is_empty());
    }

    #[test]
    fn a_tie_counts_for_the_person_and_equal_similarity_is_not_above() {
        let data = [1.0, 1.0, 1.0];
        let templates = Rows::new(&data, 1).unwrap();
        let gallery = Gallery { rows: &[0, 1], subjects: &[1, 2] };
        let probes = Probes { rows: &[2, 2], subjects: &[2, 3] };
        let search = search(templates, gallery, probes).unwrap();
        assert_eq!(search.mated, [Mated { probe: 0, rank: 0, score: 1.0 }]);
        assert_eq!(search.tpir(&[1.0]).unwrap()[0].tpir, 0.0);
    }

    #[test]
    fn a_person_with_two_templates_is_found_by_the_better() {
        let data = [0.1, 0.8, 0.5, 1.0];
        let templates = Rows::new(&data, 1).unwrap();
        let gallery = Gallery { rows: &[0, 1, 2], subjects: &[1, 1, 2] };
        let search = search(templates, gallery, Probes { rows: &[3], subjects: &[1] }).unwrap();
        assert_eq!((search.mated[0].rank, search.mated[0].score as f32), (0, 0.8));
        assert!(search.tpir(&[0.1]).is_none());
    }

    #[test]
    fn bad_rows_and_an_empty_gallery_are_named() {
        let templates = Rows::new(&[1.0], 1).unwrap();
        let gallery = Gallery { rows: &[5], subjects: &[1] };
        let probes = Probes { rows: &[], subjects: &[] };
        let error = search(templates, gallery, probes).unwrap_err();
        assert!(error.to_string().starts_with("gallery template 0 names number 5"), "{error}");
        let gallery = Gallery { rows: &[], subjects: &[] };
        assert!(search(templates, gallery, probes).is_err());
    }
}
