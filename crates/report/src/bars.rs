//! Bars for numbers, as SVG.

use crate::html::{Markup, html};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 150.0;
const BASE: f64 = 128.0;
const TOP: f64 = 14.0;

/// How often values fall into each of some ranges of equal width.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Where the first range begins.
    pub start: f64,
    /// Width of a range.
    pub step: f64,
    /// Values in each range.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// `n` ranges from `start` on; values beyond either end count at that end, NaN not at all.
    pub fn of(values: impl Iterator<Item = f64>, start: f64, step: f64, n: usize) -> Histogram {
        let mut counts = vec![0; n];
        for value in values.filter(|value| !value.is_nan()) {
            // Casting saturates at both ends.
            counts[(((value - start) / step) as usize).min(n - 1)] += 1;
        }
        Histogram { start, step, counts }
    }

    /// Start and step of `n` ranges up to about the 99th of 100 of `values`.
    pub fn scale(values: &mut [f32], n: usize) -> (f64, f64) {
        values.sort_by(f32::total_cmp);
        let known = values.partition_point(|value| !value.is_nan());
        let at = |share: f64| values.get(((known.max(1) - 1) as f64 * share) as usize);
        let (low, high) = (at(0.0), at(0.99));
        let (low, high) = (f64::from(*low.unwrap_or(&0.0)), f64::from(*high.unwrap_or(&1.0)));
        let start = if low < high / 4.0 { 0.0 } else { low };
        (start, ((high - start) / n as f64).max(1e-6))
    }
}

/// Two histograms of the same ranges in one picture: what was, pale, and what is, before it.
pub fn draw(title: &str, unit: &str, before: &Histogram, after: &Histogram) -> Markup {
    let n = before.counts.len().max(1);
    let most = before.counts.iter().chain(&after.counts).copied().max().unwrap_or(0).max(1);
    let end = number(before.start + n as f64 * before.step);
    let width = WIDTH / n as f64;
    let bars = |histogram: &Histogram, class: &str| {
        html! {
            @for (i, &count) in histogram.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                @let height = (count as f64 / most as f64 * (BASE - TOP)).max(1.0);
                rect class=(class) x=(tenths(i as f64 * width)) y=(tenths(BASE - height))
                    width=(tenths(width * 0.86)) height=(tenths(height)) {
                    title {
                        "from " (number(before.start + i as f64 * before.step)) ": " (count) " "
                        (class)
                    }
                }
            }
        }
    };
    html! {
        figure {
            figcaption { b { (title) } }
            svg.bars viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                (bars(before, "before"))
                (bars(after, "after"))
                (axis(before, most))
                text x=(WIDTH) y="144" text-anchor="end" { (end) " " (unit) " and more" }
            }
        }
    }
}

/// The line that bars stand on, with its start and its middle, and a line at the height of the most values.
fn axis(of: &Histogram, most: u64) -> Markup {
    let middle = of.start + of.counts.len() as f64 * of.step / 2.0;
    html! {
        line.axis x1="0" x2=(WIDTH) y1=(BASE) y2=(BASE) {}
        line.grid x1="0" x2=(WIDTH) y1=(TOP) y2=(TOP) {}
        line.axis x1=(WIDTH / 2.0) x2=(WIDTH / 2.0) y1=(BASE) y2=(BASE + 4.0) {}
        text x="0" y="10" { (most) }
        text x="0" y="144" { (number(of.start)) }
        text x=(WIDTH / 2.0) y="144" text-anchor="middle" { (number(middle)) }
    }
}

fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_ends_count_at_the_ends() {
        let values = [-1.0, 0.5, 1.0, 99.0, f64::NAN];
        assert_eq!(Histogram::of(values.into_iter(), 0.0, 1.0, 3).counts, [2, 1, 1]);
    }

    #[test]
    fn an_axis_names_its_start_its_middle_its_end_and_the_most_values() {
        let of = |counts: &[u64]| Histogram { start: 2.0, step: 1.0, counts: counts.to_vec() };
        let svg = draw("t", "px", &of(&[1, 7, 3, 0]), &of(&[1, 2, 3, 0])).into_string();
        for text in [">2<", ">4<", ">6 px and more<", ">7<"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }

    #[test]
    fn the_scale_leaves_a_stray_value_out() {
        let mut values: Vec<f32> = (0..1000).map(|i| i as f32 / 10.0).collect();
        values.push(1e9);
        let (start, step) = Histogram::scale(&mut values, 10);
        assert_eq!(start, 0.0);
        assert!((step - 9.9).abs() < 0.02, "{step}");
    }
}
