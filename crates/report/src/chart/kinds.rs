//! The charts of face recognition.

use pfc_metrics::{bootstrap::Interval, roc::RocPoint};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Axis, Chart, Legend, Series, Shape};

/// Bars from -1 to 1.
const N_BARS: usize = 80;

/// A curve to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Its corners.
    pub points: &'a [RocPoint],
    /// How many impostor pairs it rests on.
    pub n_impostors: u64,
    /// At some false accept rates, the interval of the true accept rate.
    pub intervals: Vec<(f64, Interval)>,
}

/// True accept rate over false accept rate, the latter logarithmic from the finest rate that the
/// largest set can measure; the former from just below the lowest value of interest.
pub fn roc(curves: &[Curve<'_>]) -> Chart {
    let finest = finest_far(curves);
    let visible = |points: &[RocPoint]| {
        // What is left of the axis is drawn on its edge, so the edge value counts.
        let edge = points.iter().filter(|p| p.far <= finest).map(|p| p.tar).fold(0.0, f64::max);
        edge.min(1.0)
    };
    let intervals = curves.iter().flat_map(|curve| &curve.intervals);
    let ends = intervals.filter(|at| at.0 >= finest).map(|at| at.1.low);
    let lowest = curves.iter().map(|c| visible(c.points)).chain(ends).fold(1.0, f64::min);
    Chart {
        title: "ROC".to_owned(),
        x: Axis::log("False accept rate", finest, coarsest_far(curves, finest)),
        y: Axis::linear("True accept rate", bottom(lowest), 1.0),
        series: lines(curves, |tar| tar),
        legend: Legend::LowerRight,
    }
}

/// True positive identification rate over false positive identification rate of 1:N searches: as [`roc`],
/// where `far` is the share of the probes of strangers that are answered, of which there are `n_impostors`, and
/// `tar` the share of the others that are answered rightly.
pub fn open_set(curves: &[Curve<'_>]) -> Chart {
    let roc = roc(curves);
    Chart {
        title: "1:N, open set".to_owned(),
        x: Axis { label: "False positive identification rate".to_owned(), ..roc.x },
        y: Axis { label: "True positive identification rate".to_owned(), ..roc.y },
        ..roc
    }
}

/// False reject rate over false accept rate, both logarithmic.
pub fn det(curves: &[Curve<'_>]) -> Chart {
    let smallest = |points: &[RocPoint]| {
        let rates = points.iter().map(|p| 1.0 - p.tar).filter(|&frr| frr > 1e-12);
        rates.fold(0.1, f64::min)
    };
    let lowest = curves.iter().map(|c| smallest(c.points)).fold(0.1, f64::min);
    Chart {
        title: "DET".to_owned(),
        x: Axis::log(
            "False accept rate",
            finest_far(curves),
            coarsest_far(curves, finest_far(curves)),
        ),
        y: Axis::log("False reject rate", lowest, 1.0),
        series: lines(curves, |tar| 1.0 - tar),
        legend: Legend::LowerLeft,
    }
}

/// What CMC curves of searches count, beside the axis.
pub const PROBES_FOUND: &str = "Share of probes found";
/// What CMC curves of pairs count, beside the axis.
pub const MATES_FOUND: &str = "Share of mates found";

/// Share found within the k best, over k in the logarithm; curves are `(name, share at k = 1, …)`.
pub fn cmc(what: &str, curves: &[(&str, &[f64])]) -> Chart {
    let k_max = curves.iter().map(|curve| curve.1.len()).max().unwrap_or(0);
    let lowest = curves.iter().flat_map(|curve| curve.1.first()).copied().fold(1.0, f64::min);
    let line = |shares: &[f64]| (1..).zip(shares).map(|(k, &s)| (f64::from(k), s)).collect();
    Chart {
        title: "CMC".to_owned(),
        x: Axis::log("Rank", 1.0, k_max.max(2) as f64),
        y: Axis::linear(what, bottom(lowest), 1.0),
        series: curves
            .iter()
            .map(|&(label, shares)| Series::line(label.to_owned(), line(shares)))
            .collect(),
        legend: Legend::LowerRight,
    }
}

/// A round value below all that is shown, so that curves near 1 are told apart.
fn bottom(lowest: f64) -> f64 {
    let bottoms = [0.99, 0.98, 0.95, 0.9, 0.8, 0.5];
    bottoms.into_iter().find(|&bottom| bottom <= lowest).unwrap_or(0.0)
}

fn finest_far(curves: &[Curve<'_>]) -> f64 {
    let n_max = curves.iter().map(|curve| curve.n_impostors).max().unwrap_or(0);
    1.0 / (n_max.max(10) as f64)
}

/// Where the curves end: those that only the highest impostors were kept for end early. At least a decade
/// above `finest`.
fn coarsest_far(curves: &[Curve<'_>], finest: f64) -> f64 {
    let ends = curves.iter().flat_map(|curve| curve.points).map(|point| point.far);
    match ends.fold(0.0, f64::max) {
        0.0 => 1.0,
        end => end.clamp(10.0 * finest, 1.0),
    }
}

/// * `of`: what is drawn of a true accept rate
fn lines(curves: &[Curve<'_>], of: impl Fn(f64) -> f64) -> Vec<Series> {
    let ends = |&(far, Interval { low, high }): &(f64, Interval)| (far, of(low), of(high));
    // Who accepts everybody accepts everybody in every resampled set.
    let end = |curve: &Curve<'_>| {
        let accepts_all = curve.points.last().is_some_and(|p| p.far >= 1.0 && p.tar >= 1.0);
        (accepts_all && !curve.intervals.is_empty()).then(|| (1.0, of(1.0), of(1.0)))
    };
    let series = |curve: &Curve<'_>| Series {
        label: curve.name.to_owned(),
        shape: Shape::Line(curve.points.iter().map(|p| (p.far, of(p.tar))).collect()),
        intervals: curve.intervals.iter().map(ends).chain(end(curve)).collect(),
    };
    curves.iter().map(series).collect()
}

/// Gives charts of one measure the horizontal axis that holds those of all, so that they can be compared.
pub fn align(charts: &mut [Chart]) {
    let low = charts.iter().map(|chart| chart.x.low).fold(f64::INFINITY, f64::min);
    let high = charts.iter().map(|chart| chart.x.high).fold(f64::NEG_INFINITY, f64::max);
    for chart in charts {
        (chart.x.low, chart.x.high) = (low, high);
    }
}

/// How the similarities of each class are spread over `[-1, 1]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Genuine pairs per bar, from -1 to 1.
    pub genuine: Vec<u64>,
    /// Impostor pairs per bar.
    pub impostor: Vec<u64>,
    /// Whether the impostors are those of a sample of the faces.
    #[serde(default)]
    pub sampled: bool,
}

impl Histogram {
    /// Counts cosine similarities, on all threads.
    pub fn new(similarities: &[f64], same: &[bool]) -> Histogram {
        const PIECE: usize = 1 << 16;
        let pieces = similarities.par_chunks(PIECE).zip(same.par_chunks(PIECE));
        pieces.map(|(similarities, same)| Histogram::of_piece(similarities, same)).reduce(
            || Histogram::of_piece(&[], &[]),
            |mut sum, piece| {
                let add = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                add(&mut sum.genuine, &piece.genuine);
                add(&mut sum.impostor, &piece.impostor);
                sum
            },
        )
    }

    /// Counts the scores of sets whose impostors are too many to keep: those of a sample.
    pub fn of_sample(
        genuine: impl IntoIterator<Item = f32>,
        impostors: impl IntoIterator<Item = f32>,
    ) -> Histogram {
        let mut counts = Histogram::of_piece(&[], &[]);
        genuine.into_iter().for_each(|score| counts.genuine[bar(score.into())] += 1);
        impostors.into_iter().for_each(|score| counts.impostor[bar(score.into())] += 1);
        Histogram { sampled: true, ..counts }
    }

    fn of_piece(similarities: &[f64], same: &[bool]) -> Histogram {
        let (genuine, impostor) = (vec![0; N_BARS], vec![0; N_BARS]);
        let mut counts = Histogram { genuine, impostor, sampled: false };
        for (similarity, &same) in similarities.iter().zip(same) {
            let class = if same { &mut counts.genuine } else { &mut counts.impostor };
            class[bar(*similarity)] += 1;
        }
        counts
    }
}

fn bar(similarity: f64) -> usize {
    let bar = ((similarity + 1.0) / 2.0 * N_BARS as f64) as usize;
    bar.min(N_BARS - 1)
}

/// Share of each class per bar of similarity.
pub fn histogram(counts: &Histogram) -> Chart {
    // A result from elsewhere may hold any numbers, and two lists of different length.
    let n = counts.genuine.len().max(counts.impostor.len());
    let shares = |counts: &[u64]| -> Vec<f64> {
        let sum = counts.iter().map(|&count| count as f64).sum::<f64>().max(1.0);
        counts.iter().map(|&count| count as f64 / sum).collect()
    };
    let (impostor, genuine) = (shares(&counts.impostor), shares(&counts.genuine));
    let edge = |i: usize| -1.0 + 2.0 * i as f64 / n.max(1) as f64;
    let used = |i: &usize| {
        [&genuine, &impostor].iter().any(|shares| shares.get(*i).is_some_and(|&share| share > 0.0))
    };
    let first = (0..n).find(used).unwrap_or(0);
    let last = (0..n).rev().find(used).unwrap_or(n.saturating_sub(1));
    let highest = genuine.iter().chain(&impostor).copied().fold(0.0, f64::max).max(1e-9);
    let bars = |label: &str, shares: &[f64]| Series {
        label: label.to_owned(),
        shape: Shape::Bars(
            shares.iter().enumerate().map(|(i, &share)| (edge(i), edge(i + 1), share)).collect(),
        ),
        intervals: Vec::new(),
    };
    let strangers = if counts.sampled { "different people (sample)" } else { "different people" };
    Chart {
        title: "Scores".to_owned(),
        x: Axis::linear("Cosine similarity", edge(first), edge(last + 1)),
        y: Axis::linear("Share of pairs", 0.0, highest * 1.05),
        series: vec![bars(strangers, &impostor), bars("same person", &genuine)],
        legend: Legend::UpperRight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[RocPoint], n_impostors: u64) -> Curve<'_> {
        Curve { name: "a", points, n_impostors, intervals: Vec::new() }
    }

    #[test]
    fn intervals_stand_about_their_curve_in_its_colour() {
        let points = [1e-3, 1e-2, 1.0].map(|far| RocPoint { threshold: 0.0, far, tar: 0.9 });
        let plain = roc(&[curve(&points, 1000)]).svg().unwrap();
        let intervals = vec![(1e-2, Interval { low: 0.85, high: 0.95 })];
        let chart = Curve { intervals, ..curve(&points, 1000) };
        let n_lines = |svg: &str| svg.matches("#0072B2").count();
        let charts = [chart];
        assert_eq!(n_lines(&roc(&charts).svg().unwrap()), n_lines(&plain) + 1);
        let (far, low, high) = det(&charts).series[0].intervals[0];
        assert!(far == 1e-2 && (low - 0.15).abs() < 1e-12 && (high - 0.05).abs() < 1e-12);
    }

    #[test]
    fn two_intervals_make_a_band_that_the_axis_holds() {
        let points = [1e-3, 1e-2, 1.0].map(|far| RocPoint { threshold: 0.0, far, tar: 0.9 });
        let interval = Interval { low: 0.85, high: 0.95 };
        let curve =
            Curve { intervals: vec![(1e-3, interval), (1e-1, interval)], ..curve(&points, 1000) };
        let chart = roc(&[curve]);
        assert_eq!(chart.y.low, 0.8);
        assert_eq!(chart.svg().unwrap().matches("<polygon").count(), 1);
        assert!(chart.png().is_ok());
    }

    #[test]
    fn a_band_ends_where_all_are_accepted() {
        let point = |far, tar| RocPoint { threshold: 0.0, far, tar };
        let points = [point(0.0, 0.5), point(0.1, 0.9), point(1.0, 1.0)];
        let intervals = vec![(0.1, Interval { low: 0.85, high: 0.95 })];
        let chart = roc(&[Curve { intervals, ..curve(&points, 1000) }]);
        assert_eq!(chart.series[0].intervals, [(0.1, 0.85, 0.95), (1.0, 1.0, 1.0)]);
        assert_eq!(chart.svg().unwrap().matches("<polygon").count(), 1);
    }

    #[test]
    fn aligned_charts_have_one_axis() {
        let of = |score| histogram(&Histogram::new(&[score, 0.5], &[false, true]));
        let mut charts = [of(-0.5), of(0.0)];
        assert_ne!(charts[0].x, charts[1].x);
        align(&mut charts);
        assert_eq!(charts[0].x, charts[1].x);
        // Bars are a fortieth wide; -0.5 begins one and 0.5 another.
        let Axis { low, high, .. } = charts[0].x;
        assert!((low + 0.5).abs() < 1e-9 && (high - 0.525).abs() < 1e-9, "{low} {high}");
        align(&mut []);
    }

    #[test]
    fn similarities_at_the_ends_are_counted() {
        let counts = Histogram::new(&[-1.0, 1.0, 1.0000001, 0.0], &[false, true, true, true]);
        assert_eq!((counts.impostor[0], counts.genuine[79], counts.genuine[40]), (1, 2, 1));
    }

    #[test]
    fn the_roc_starts_at_the_finest_rate_that_the_set_can_measure() {
        let points = [RocPoint { threshold: 0.0, far: 0.0, tar: 0.93 }];
        let chart = roc(&[curve(&points, 3000)]);
        assert_eq!((chart.x.low, chart.y.low), (1e-4, 0.9));
    }

    #[test]
    fn the_roc_ends_where_its_curves_do() {
        let point = |far| RocPoint { threshold: 0.0, far, tar: 0.93 };
        let end = |points: &[RocPoint]| roc(&[curve(points, 1_000_000)]).x.high;
        assert_eq!(end(&[point(1e-6), point(1e-4)]), 1e-4);
        assert_eq!(end(&[point(1e-6), point(3e-4)]), 1e-3);
        assert_eq!(end(&[point(1e-6), point(1.0)]), 1.0);
        assert_eq!(end(&[point(1e-6)]), 1e-5);
        assert_eq!(end(&[point(0.0)]), 1.0);
    }

    #[test]
    fn a_mark_is_drawn_with_its_name() {
        let mut chart = histogram(&Histogram::new(&[0.1, 0.2, 0.7], &[false, false, true]));
        let without = chart.svg().unwrap();
        chart.series.push(Series::mark("threshold 0.4".to_owned(), 0.4));
        let with = chart.svg().unwrap();
        assert!(with.contains("threshold 0.4") && with.len() > without.len());
    }

    #[test]
    fn the_cmc_starts_at_rank_1() {
        let chart = cmc("found", &[("a", &[0.97, 0.99, 1.0][..]), ("b", &[0.96][..])]);
        assert_eq!((chart.x.low, chart.x.high, chart.y.low), (1.0, 10.0, 0.95));
        let Shape::Line(line) = &chart.series[0].shape else { panic!("bars") };
        assert_eq!(line[..2], [(1.0, 0.97), (2.0, 0.99)]);
    }

    #[test]
    fn a_histogram_of_any_numbers_can_be_drawn() {
        let counts = |genuine: &[u64], impostor: &[u64]| Histogram {
            genuine: genuine.to_vec(),
            impostor: impostor.to_vec(),
            sampled: false,
        };
        let max = u64::MAX;
        for counts in
            [counts(&[0, 0, 1], &[1]), counts(&[], &[0, 1]), counts(&[max, max], &[max, max, max])]
        {
            assert!(histogram(&counts).svg().is_ok(), "{counts:?}");
        }
    }

    #[test]
    fn charts_of_nothing_can_be_drawn() {
        for chart in [roc(&[]), det(&[]), cmc("", &[]), histogram(&Histogram::new(&[], &[]))] {
            assert!(chart.svg().is_ok() && chart.png().is_ok(), "{}", chart.title);
        }
    }
}
