//! Confidence intervals of TAR and AUC over tens of millions of pairs.

use rayon::prelude::*;

use crate::{
    MetricError,
    bootstrap::{Bootstrap, Interval, Replicates, draw, intervals_of},
    roc::Far,
    scores::SortedScores,
};

/// Bins of one impostor each at the top, where the smallest FARs are read.
const TOP: usize = 4096;

/// All bins; those below the top grow with their rank, by 0.03 % each at IJB-C's size.
const BINS: usize = 1 << 15;

/// Scored pairs of templates and who each template is.
#[derive(Debug, Clone, Copy)]
pub struct ScoredPairs<'a> {
    /// `[P]`, two templates each.
    pub pairs: &'a [(u32, u32)],
    /// `[P]`, cosine similarity.
    pub scores: &'a [f64],
    /// `[P]`, whether the pair is genuine.
    pub same: &'a [bool],
    /// `[T]`, the person of each template, or the template itself where people are unknown.
    pub units: &'a [u32],
}

/// Confidence intervals of the figures of one list of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct PairIntervals {
    /// Of TAR at each FAR asked for.
    pub tar: Vec<Option<Interval>>,
    /// Of the area under the ROC curve.
    pub auc: Option<Interval>,
    /// TAR at each FAR in each resampled set.
    pub replicates: Replicates,
}

/// The intervals of TAR at each of `fars` and of AUC, by resampling units (people or templates).
///
/// A pair of units drawn `w_a` and `w_b` times counts `w_a·w_b` times, a pair within one unit
/// `w_a` times, as in [`intervals`](crate::bootstrap::intervals). TAR is read where the weighted
/// share of impostors above the threshold is at most FAR, with scores sorted into bins: exact for
/// the highest 4096 impostors, and within 0.1 % of FAR below; AUC likewise within 0.1 % of what it
/// lacks to 1. O(replicates·P), on all threads; 2·P bytes.
///
/// # Errors
///
/// [`MetricError::Length`] for columns of unequal length, [`MetricError::NoSuch`] for a pair of a
/// template without a unit.
pub fn pair_intervals(
    bootstrap: &Bootstrap,
    scored: &ScoredPairs,
    sorted: &SortedScores,
    fars: &[Far],
) -> Result<PairIntervals, MetricError> {
    pair_intervals_until(bootstrap, scored, sorted, fars, &|| false)
}

/// As [`pair_intervals`], which takes minutes of tens of millions of pairs, for callers that may want
/// it to end early.
///
/// * `is_over`: asked before each resampled set, on all threads; once it says so, no more are made,
///   and the intervals mean nothing
///
/// # Errors
///
/// As [`pair_intervals`].
pub fn pair_intervals_until(
    bootstrap: &Bootstrap,
    scored: &ScoredPairs,
    sorted: &SortedScores,
    fars: &[Far],
    is_over: &(dyn Fn() -> bool + Sync),
) -> Result<PairIntervals, MetricError> {
    check(scored)?;
    if bootstrap.n_replicates == 0 {
        let tar = vec![None; fars.len()];
        return Ok(PairIntervals { tar, auc: None, replicates: Replicates::default() });
    }
    let edges = edges(sorted.impostor());
    // Bin i holds impostors from edge i up to below the edge before, and the genuine pairs that
    // are accepted once edge i is the threshold: those above it, up to the edge before.
    let bin = |(score, &same): (&f64, &bool)| {
        let before = |edge: &f64| edge > score || (same && edge == score);
        edges.partition_point(before) as u16
    };
    let bins: Vec<u16> = scored.scores.par_iter().zip(scored.same).map(bin).collect();
    let n_units = scored.units.iter().max().map_or(0, |unit| unit + 1);
    let replicates: Vec<Vec<f64>> = (0..bootstrap.n_replicates)
        .into_par_iter()
        .map(|replicate| {
            if is_over() {
                return vec![f64::NAN; fars.len() + 1];
            }
            let drawn = draw(n_units, bootstrap.seed, replicate);
            let weight: Vec<u32> = scored.units.iter().map(|&u| drawn[u as usize]).collect();
            let weighed = Weighed::new(scored, &weight, &bins);
            let mut figures = weighed.tars(fars);
            figures.push(weighed.auc());
            figures
        })
        .collect();
    let mut tar = intervals_of(&replicates, bootstrap.confidence);
    let auc = tar.pop().flatten();
    let replicates = Replicates::new(bootstrap.seed, &replicates, fars.len());
    Ok(PairIntervals { tar, auc, replicates })
}

fn check(scored: &ScoredPairs) -> Result<(), MetricError> {
    let expected = scored.pairs.len();
    for (what, len) in [("scores", scored.scores.len()), ("labels", scored.same.len())] {
        if len != expected {
            return Err(MetricError::Length { what, len, expected });
        }
    }
    let bound = scored.units.len() as u64;
    match scored.pairs.par_iter().position_first(|&(a, b)| u64::from(a.max(b)) >= bound) {
        None => Ok(()),
        Some(index) => {
            let value = u64::from(scored.pairs[index].0.max(scored.pairs[index].1));
            Err(MetricError::NoSuch { what: "pair", index, value, bound })
        }
    }
}

/// Impostor scores, falling, at which bins begin: each of the first, then every so often.
fn edges(impostor: &[f64]) -> Vec<f64> {
    let last = impostor.len() as f64;
    let growth = (last / TOP as f64).max(1.0).powf(1.0 / (BINS - TOP) as f64);
    let below = |i: usize| (TOP as f64 * growth.powi(i as i32)) as usize;
    let ranks = (0..TOP).chain((0..BINS - TOP - 1).map(below));
    let mut edges: Vec<f64> =
        ranks.take_while(|&rank| rank < impostor.len()).map(|rank| impostor[rank]).collect();
    edges.dedup();
    edges
}

/// Pairs per bin in one resampled set.
struct Weighed {
    genuine: Vec<u64>,
    impostor: Vec<u64>,
}

impl Weighed {
    fn new(scored: &ScoredPairs, weight: &[u32], bins: &[u16]) -> Weighed {
        let mut counts = [vec![0; BINS + 1], vec![0; BINS + 1]];
        for ((&(a, b), &same), &bin) in scored.pairs.iter().zip(scored.same).zip(bins) {
            let once = scored.units[a as usize] == scored.units[b as usize];
            let (a, b) = (u64::from(weight[a as usize]), u64::from(weight[b as usize]));
            counts[usize::from(same)][usize::from(bin)] += if once { a } else { a * b };
        }
        let [impostor, genuine] = counts;
        Weighed { genuine, impostor }
    }

    /// NaN where the resampled set has no genuine or no impostor pair.
    fn tars(&self, fars: &[Far]) -> Vec<f64> {
        let n_genuine: u64 = self.genuine.iter().sum();
        let n_impostor: u64 = self.impostor.iter().sum();
        let tar = |far: &Far| {
            if n_genuine == 0 || n_impostor == 0 {
                return f64::NAN;
            }
            let allowed = far.allowed(n_impostor);
            let (mut accepted, mut above) = (0, 0);
            for (genuine, impostor) in self.genuine.iter().zip(&self.impostor) {
                accepted += genuine;
                above += impostor;
                if above > allowed {
                    break;
                }
            }
            accepted as f64 / n_genuine as f64
        };
        fars.iter().map(tar).collect()
    }

    /// Chance that a genuine pair scores above an impostor pair; NaN as in [`tars`](Weighed::tars).
    fn auc(&self) -> f64 {
        let n_impostor: u64 = self.impostor.iter().sum();
        let (mut above, mut missed) = (0, 0.0);
        for (i, (&genuine, &impostor)) in self.genuine.iter().zip(&self.impostor).enumerate() {
            // A bin of the top holds one score, below which none of its genuine pairs lies; in
            // others half of the impostors are taken to be above.
            let within = if i < TOP { 0.0 } else { impostor as f64 / 2.0 };
            missed += genuine as f64 * (above as f64 + within);
            above += impostor;
        }
        let n_genuine: u64 = self.genuine.iter().sum();
        1.0 - missed / (n_genuine as f64 * n_impostor as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bootstrap::intervals, made_up::hashed, roc::Ranking};

    #[test]
    fn the_intervals_are_those_of_the_exact_bootstrap() {
        // 40 people with two templates each; a genuine pair per person, impostors among all.
        let units: Vec<u32> = (0..80).map(|t| t / 2).collect();
        let (mut pairs, mut scores, mut same) = (Vec::new(), Vec::new(), Vec::new());
        for a in 0..80u32 {
            for b in a + 1..80 {
                let genuine = units[a as usize] == units[b as usize];
                let noise = (hashed(u64::from(a * 97 + b)) % 10_000) as f64 / 10_000.0;
                pairs.push((a, b));
                scores.push(if genuine { 0.4 + 0.6 * noise } else { noise * 0.7 });
                same.push(genuine);
            }
        }
        let sorted = SortedScores::new(&scores, &same).unwrap();
        let fars = [1e-3, 1e-2, 1e-1].map(|far| Far::new(far).unwrap());
        let bootstrap = Bootstrap { n_replicates: 300, ..Bootstrap::default() };
        let scored = ScoredPairs { pairs: &pairs, scores: &scores, same: &same, units: &units };
        let ours = pair_intervals(&bootstrap, &scored, &sorted, &fars).unwrap();
        let people: Vec<(u32, u32)> =
            pairs.iter().map(|&(a, b)| (units[a as usize], units[b as usize])).collect();
        let ranking = Ranking::new(&scores, &same).unwrap();
        let exact = intervals(&bootstrap, 40, &people, |weights| {
            let tar = |&far: &Far| ranking.tar_at_far(far, Some(weights)).unwrap().tar;
            let auc = ranking.auc(Some(weights)).unwrap();
            fars.iter().map(tar).chain([auc]).collect()
        });
        assert_eq!(ours.tar, exact[..3]);
        // Scores of both classes tie here, and a tie counts half; bins count it for the impostor.
        let (ours, exact) = (ours.auc.unwrap(), exact[3].unwrap());
        assert!((ours.low - exact.low).abs() < 1e-3 && (ours.high - exact.high).abs() < 1e-3);
    }

    #[test]
    fn bins_are_few_and_fall_for_any_number_of_impostors() {
        for n in [1, 5000, 3_000_000] {
            let impostor: Vec<f64> = (0..n).map(|i| -f64::from(i)).collect();
            let edges = edges(&impostor);
            assert!(edges.len() < BINS && edges.is_sorted_by(|a, b| a > b));
        }
    }

    #[test]
    fn columns_that_do_not_belong_together_are_named() {
        let sorted = SortedScores::new(&[0.5, 0.1], &[true, false]).unwrap();
        let run = |pairs: &[(u32, u32)]| {
            let (scores, same, units) = (&[0.5, 0.1][..], &[true, false][..], &[0, 1][..]);
            let scored = ScoredPairs { pairs, scores, same, units };
            pair_intervals(&Bootstrap::default(), &scored, &sorted, &[])
        };
        assert!(run(&[(0, 1)]).is_err());
        assert!(run(&[(0, 1), (1, 2)]).is_err());
        assert_eq!(run(&[(0, 1), (1, 0)]).unwrap().tar, []);
    }
}
