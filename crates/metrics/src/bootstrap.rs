//! Confidence intervals by resampling people, not pairs.
//!
//! Pairs that share a person are not independent, so resampling pairs gives intervals that are too
//! narrow. Here people are drawn with replacement; if person a was drawn `w_a` times, a genuine
//! pair of a counts `w_a` times and an impostor pair of a and b `w_a·w_b` times.

use pfc_random::{GOLDEN_GAMMA, mix};
use rayon::prelude::*;

/// The people of a pair, numbered from 0. Equal for a genuine pair.
pub type People = (u32, u32);

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Number of resampled sets; 0 turns intervals off.
    pub n_replicates: u32,
    /// Coverage in (0, 1), usually 0.95.
    pub confidence: f64,
    /// Same seed, same intervals, whatever the number of threads.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Bootstrap {
        Bootstrap { n_replicates: 1000, confidence: 0.95, seed: 0 }
    }
}

/// A percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Intervals of several figures at once, from the same resampled sets.
///
/// * `people`: `[P]` of each pair, all below `n_people`
/// * `figures`: the figures for pairs that count `weights[i]` times; NaN where one is undefined
///
/// Returns one entry per figure: the percentile interval, or `None` if fewer than half of the
/// resampled sets defined the figure. O(replicates · (P + cost of `figures`)), on all threads.
pub fn intervals<F>(
    bootstrap: &Bootstrap,
    n_people: u32,
    people: &[People],
    figures: F,
) -> Vec<Option<Interval>>
where
    F: Fn(&[u64]) -> Vec<f64> + Sync,
{
    intervals_until(bootstrap, n_people, people, figures, &|| false)
}

/// What figures are in each resampled set, which are the same sets for the same people, seed and number: so
/// that the difference of two results has an interval of its own, which is narrower than those of both.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Replicates {
    /// The seed of the resampling.
    pub seed: u64,
    /// By figure, its value in each set; none where it is undefined, and no values if it always is.
    pub figures: Vec<Vec<Option<f32>>>,
}

impl Replicates {
    /// Keeps the first `n_figures` figures of `sets`, each the figures in one resampled set.
    pub fn new(seed: u64, sets: &[Vec<f64>], n_figures: usize) -> Replicates {
        let value = |set: &Vec<f64>, k: usize| {
            set.get(k).filter(|value| value.is_finite()).map(|value| *value as f32)
        };
        let figure = |k: usize| {
            let values: Vec<Option<f32>> = sets.iter().map(|set| value(set, k)).collect();
            if values.iter().all(Option::is_none) { Vec::new() } else { values }
        };
        Replicates { seed, figures: (0..n_figures).map(figure).collect() }
    }

    /// The interval of figure `a` of this result less figure `b` of `other`, a result of the same people.
    ///
    /// None where the sets are not the same ones, there are none, or fewer than half of them define both.
    pub fn difference(
        &self,
        a: usize,
        other: &Replicates,
        b: usize,
        confidence: f64,
    ) -> Option<Interval> {
        let (ours, theirs) = (self.figures.get(a)?, other.figures.get(b)?);
        if self.seed != other.seed || ours.len() != theirs.len() {
            return None;
        }
        let both = ours.iter().zip(theirs).map(|(a, b)| a.zip(*b));
        let differences =
            both.map(|both| both.map_or(f64::NAN, |(a, b)| f64::from(a) - f64::from(b)));
        percentile_interval(differences, confidence)
    }
}

/// As [`intervals`], for callers that may want it to end early.
///
/// * `is_over`: asked before each resampled set, on all threads; once it says so, no more are made,
///   and the intervals mean nothing
pub fn intervals_until<F>(
    bootstrap: &Bootstrap,
    n_people: u32,
    people: &[People],
    figures: F,
    is_over: &(dyn Fn() -> bool + Sync),
) -> Vec<Option<Interval>>
where
    F: Fn(&[u64]) -> Vec<f64> + Sync,
{
    intervals_of(&replicates(bootstrap, n_people, people, figures, is_over), bootstrap.confidence)
}

/// The figures in each resampled set, as many as `bootstrap` says; arguments are those of [`intervals_until`].
pub fn replicates<F>(
    bootstrap: &Bootstrap,
    n_people: u32,
    people: &[People],
    figures: F,
    is_over: &(dyn Fn() -> bool + Sync),
) -> Vec<Vec<f64>>
where
    F: Fn(&[u64]) -> Vec<f64> + Sync,
{
    let replicate = |index: u32| {
        if is_over() {
            return Vec::new();
        }
        let drawn = draw(n_people, bootstrap.seed, index);
        let times = |person: u32| u64::from(drawn[person as usize]);
        let weight = |&(a, b): &People| if a == b { times(a) } else { times(a) * times(b) };
        let weights: Vec<u64> = people.iter().map(weight).collect();
        figures(&weights)
    };
    (0..bootstrap.n_replicates).into_par_iter().map(replicate).collect()
}

/// The percentile interval of each figure of `replicates`; none of one that fewer than half of the sets define.
pub fn intervals_of(replicates: &[Vec<f64>], confidence: f64) -> Vec<Option<Interval>> {
    let n_figures = replicates.iter().map(Vec::len).min().unwrap_or(0);
    (0..n_figures)
        .map(|k| percentile_interval(replicates.iter().map(|r| r[k]), confidence))
        .collect()
}

/// Intervals of shares that are sums over people: hits of the people drawn over their trials.
///
/// * `counts`: by person, `[trials, hits of figure 0, hits of figure 1, …]`
///
/// Returns one entry per figure, `None` where [`intervals`] has none. O(replicates · people).
pub fn identity_intervals(bootstrap: &Bootstrap, counts: &[Vec<f64>]) -> Vec<Option<Interval>> {
    let n_figures = counts.first().map_or(0, |row| row.len().saturating_sub(1));
    let replicate = |index: u32| {
        let drawn = draw(counts.len() as u32, bootstrap.seed, index);
        let mut sums = vec![0.0; n_figures + 1];
        for (row, &times) in counts.iter().zip(&drawn).filter(|(_, times)| **times > 0) {
            sums.iter_mut().zip(row).for_each(|(sum, n)| *sum += f64::from(times) * n);
        }
        sums
    };
    let sums: Vec<Vec<f64>> = (0..bootstrap.n_replicates).into_par_iter().map(replicate).collect();
    (1..=n_figures)
        .map(|k| percentile_interval(sums.iter().map(|s| s[k] / s[0]), bootstrap.confidence))
        .collect()
}

/// How often each person is drawn when as many are drawn as there are.
pub(crate) fn draw(n_people: u32, seed: u64, replicate: u32) -> Vec<u32> {
    let mut counts = vec![0; n_people as usize];
    let mut state = mix(seed ^ mix(u64::from(replicate)));
    for _ in 0..n_people {
        state = state.wrapping_add(GOLDEN_GAMMA);
        // The high half of the product maps 64 random bits to 0..n with a bias below n / 2^64.
        let person = (u128::from(mix(state)) * u128::from(n_people)) >> 64;
        counts[person as usize] += 1;
    }
    counts
}

pub(crate) fn percentile_interval(
    values: impl Iterator<Item = f64>,
    confidence: f64,
) -> Option<Interval> {
    let (mut defined, mut n_all) = (Vec::new(), 0);
    for value in values {
        n_all += 1;
        if !value.is_nan() {
            defined.push(value);
        }
    }
    if defined.is_empty() || 2 * defined.len() < n_all {
        return None;
    }
    defined.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        // Linear interpolation between order statistics, position q·(n-1).
        let position = quantile * (defined.len() - 1) as f64;
        let below = position.floor() as usize;
        let above = (below + 1).min(defined.len() - 1);
        defined[below] + (position - below as f64) * (defined[above] - defined[below])
    };
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: at(tail), high: at(1.0 - tail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_people_are_drawn_as_there_are() {
        for replicate in 0..20 {
            assert_eq!(draw(57, 3, replicate).iter().sum::<u32>(), 57);
        }
        assert_ne!(draw(57, 3, 0), draw(57, 3, 1));
    }

    #[test]
    fn the_interval_of_a_mean_is_near_the_one_of_theory() {
        // 400 people with one genuine pair each, half of them right: the standard error of the
        // share is 0.025, so the 95 % interval is 0.5 ± 0.049.
        let people: Vec<People> = (0..400).map(|i| (i, i)).collect();
        let right = |i: usize| f64::from(u8::from(i.is_multiple_of(2)));
        let share = |weights: &[u64]| {
            let hits: f64 = weights.iter().enumerate().map(|(i, &w)| w as f64 * right(i)).sum();
            vec![hits / weights.iter().sum::<u64>() as f64]
        };
        let result = intervals(&Bootstrap::default(), 400, &people, share);
        let Interval { low, high } = result[0].unwrap();
        assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006, "{low} {high}");
    }

    #[test]
    fn the_difference_of_two_results_is_taken_set_by_set() {
        let sets = |values: &[f64]| -> Vec<Vec<f64>> { values.iter().map(|v| vec![*v]).collect() };
        let of = |seed: u64, values: &[f64]| Replicates::new(seed, &sets(values), 1);
        // Both vary by 0.5, and the one is above the other by 0.125 in every set.
        let (a, b) = (of(7, &[0.25, 0.5, 0.75]), of(7, &[0.125, 0.375, 0.625]));
        let always = Some(Interval { low: 0.125, high: 0.125 });
        assert_eq!(a.difference(0, &b, 0, 0.95), always);
        assert_eq!(b.difference(0, &a, 0, 0.95), Some(Interval { low: -0.125, high: -0.125 }));
        // One set defines nothing; of three that is less than half.
        assert_eq!(of(7, &[0.25, f64::NAN, 0.75]).difference(0, &b, 0, 0.95), always);
        for other in [of(8, &[0.1, 0.2, 0.3]), of(7, &[0.1]), of(7, &[f64::NAN; 3]), of(7, &[])] {
            assert_eq!(a.difference(0, &other, 0, 0.95), None, "{other:?}");
        }
        assert_eq!(a.difference(1, &b, 0, 0.95), None);
    }

    #[test]
    fn shares_of_people_have_the_interval_of_their_pairs() {
        // As above: 400 people with one trial each, half of them hits.
        let counts: Vec<Vec<f64>> = (0..400).map(|i| vec![1.0, f64::from(i % 2), 1.0]).collect();
        let result = identity_intervals(&Bootstrap::default(), &counts);
        let Interval { low, high } = result[0].unwrap();
        assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006, "{low} {high}");
        assert_eq!(result[1], Some(Interval { low: 1.0, high: 1.0 }));
        assert!(identity_intervals(&Bootstrap::default(), &[]).is_empty());
    }

    #[test]
    fn one_person_in_many_pairs_widens_the_interval() {
        let share = |weights: &[u64]| {
            let n = weights.iter().sum::<u64>() as f64;
            vec![weights[..weights.len() / 2].iter().sum::<u64>() as f64 / n]
        };
        let width = |people: &[People], n_people| {
            let i = intervals(&Bootstrap::default(), n_people, people, share)[0].unwrap();
            i.high - i.low
        };
        let apart: Vec<People> = (0..200).map(|i| (i, i)).collect();
        let shared: Vec<People> = (0..200).map(|i| (i / 10, i / 10)).collect();
        assert!(width(&shared, 20) > 2.5 * width(&apart, 200));
    }

    #[test]
    fn the_threads_do_not_change_the_interval() {
        let people: Vec<People> = (0..50).map(|i| (i, (i * 7 + 1) % 50)).collect();
        let figure = |weights: &[u64]| vec![weights[..10].iter().sum::<u64>() as f64];
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| intervals(&Bootstrap::default(), 50, &people, figure))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn what_is_over_gives_no_interval_and_computes_nothing_more() {
        let n_asked = std::sync::atomic::AtomicU32::new(0);
        let figures = |_: &[u64]| {
            n_asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![1.0]
        };
        let is_over = || n_asked.load(std::sync::atomic::Ordering::Relaxed) >= 1;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let found = pool
            .install(|| intervals_until(&Bootstrap::default(), 3, &[(0, 1)], figures, &is_over));
        assert_eq!((found, n_asked.into_inner()), (vec![], 1));
    }

    #[test]
    fn a_figure_that_is_seldom_defined_has_no_interval() {
        let nothing = |_: &[u64]| vec![f64::NAN];
        assert_eq!(intervals(&Bootstrap::default(), 3, &[(0, 1)], nothing), [None]);
    }
}
