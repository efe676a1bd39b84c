//! The curves of runs, several over each other.

use pfc_report::chart::{Axis, Chart, Legend, Series};

use crate::log::history::{History, Point, thinned};

/// Points that are drawn of a curve; of a longer one, means of as many stretches.
const POINTS_MAX: usize = 400;

/// Every chart for which some run has two points or more.
pub(super) fn charts(runs: &[History]) -> Vec<Chart> {
    let chart = |title: &str, label: &str, legend, curve: &dyn Fn(&History) -> Vec<Point>| {
        let curves = runs.iter().map(|run| (run.name.clone(), curve(run)));
        chart(title, label, legend, curves.collect())
    };
    let (falls, rises) = (Legend::UpperRight, Legend::LowerRight);
    let mut charts = vec![
        chart("Loss", "Mean loss", falls, &|run| run.curve(|record| record.loss)),
        chart("Cosine to the own centre", "Mean cosine", rises, &|run| {
            run.curve(|record| record.cavg)
        }),
    ];
    for set in sets(runs) {
        charts.push(chart(&set, "Verification accuracy", rises, &|run| {
            run.eval_curve(&set, |score| Some(score.accuracy))
        }));
    }
    charts.extend([
        chart("Gradient", "L2 norm before clipping", falls, &|run| {
            run.curve(|record| record.grad_norm)
        }),
        chart("Learning rate", "Learning rate", falls, &|run| run.curve(|record| Some(record.lr))),
        chart("Throughput", "Images per second", rises, &|run| {
            run.curve(|record| Some(record.images_per_s))
        }),
        chart("Waiting for data", "Share of the time, %", falls, &|run| {
            run.curve(|record| Some(100.0 * record.data_wait))
        }),
        chart("Head", "Milliseconds per step", falls, &|run| {
            run.curve(|record| Some(record.head_ms))
        }),
        chart("Memory", "Peak of the first rank, MiB", rises, &|run| {
            run.curve(|record| Some(record.peak_memory_mib).filter(|mib| *mib > 0.0))
        }),
        chart("Loss scale", "Loss scale (f16)", rises, &|run| {
            run.curve(|record| record.loss_scale)
        }),
    ]);
    charts.into_iter().flatten().collect()
}

/// The sets that any run was measured on, in order.
pub(super) fn sets(runs: &[History]) -> Vec<String> {
    let mut sets: Vec<String> = Vec::new();
    for set in runs.iter().flat_map(History::sets) {
        if !sets.iter().any(|known| known == set) {
            sets.push(set.to_owned());
        }
    }
    sets
}

/// A chart of curves over epochs, its axes cut to what they hold; `None` if no curve has two points.
fn chart(
    title: &str,
    label: &str,
    legend: Legend,
    curves: Vec<(String, Vec<Point>)>,
) -> Option<Chart> {
    let curves = curves.into_iter().filter(|(_, points)| points.len() > 1);
    let curves = curves.map(|(name, points)| (name, thinned(&points, POINTS_MAX)));
    let curves: Vec<(String, Vec<Point>)> = curves.collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let (low, high) = around(points().map(|(_, y)| *y))?;
    let last = points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
    let first = points().map(|(x, _)| *x).fold(last, f64::min);
    // A run that was measured before its first step begins at 0, and so does one that almost does.
    let first = if first < 0.2 * last { 0.0 } else { first };
    let series = |(label, points): (String, Vec<Point>)| Series::line(label, points);
    Some(Chart {
        title: title.to_owned(),
        x: Axis::linear("Epoch", first, last.max(first + 1e-6)),
        y: Axis::linear(label, low, high),
        series: curves.into_iter().map(series).collect(),
        legend,
    })
}

/// The range of values, a twentieth wider at both ends, but not beyond 0; `None` without a value.
fn around(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    let (low, high) = range?;
    let margin = match high - low {
        0.0 => (0.1 * high.abs()).max(1e-9),
        wide => 0.05 * wide,
    };
    let bottom = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
    Some((bottom, high + margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_cut_to_what_the_curves_hold() {
        let curve = |points: &[Point]| ("a".to_owned(), points.to_vec());
        let found = chart("t", "y", Legend::UpperRight, vec![curve(&[(0.1, 2.0), (4.0, 12.0)])]);
        let found = found.unwrap();
        assert_eq!((found.x.low, found.x.high), (0.0, 4.0));
        assert_eq!((found.y.low, found.y.high), (1.5, 12.5));
        let flat = chart("t", "y", Legend::UpperRight, vec![curve(&[(3.0, 0.1), (4.0, 0.1)])]);
        let flat = flat.unwrap();
        assert!(flat.x.low == 3.0 && flat.y.low < 0.1 && flat.y.high > 0.1);
        assert!(flat.svg().is_ok());
        let zero = chart("t", "y", Legend::UpperRight, vec![curve(&[(0.0, 0.0), (0.0, 0.0)])]);
        assert!(zero.unwrap().svg().is_ok());
        assert_eq!(chart("t", "y", Legend::UpperRight, vec![curve(&[(0.0, 1.0)])]), None);
    }
}
