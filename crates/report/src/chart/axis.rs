//! Axes: where a value lies, and which values are written beside the axis.

use std::ops::Range;

/// How values are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their decimal logarithm; the range is positive.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
    /// How values are spread.
    pub scale: Scale,
    /// Smallest value shown.
    pub low: f64,
    /// Largest value shown, above `low`.
    pub high: f64,
}

/// Labels that fit beside an axis.
const TICKS_MAX: f64 = 6.0;

impl Axis {
    /// An evenly spread axis.
    pub fn linear(label: &str, low: f64, high: f64) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Linear, low, high }
    }

    /// A logarithmic axis over whole decades, from the one that holds `low` to the one of `high`.
    pub fn log(label: &str, low: f64, high: f64) -> Axis {
        let decade = |exponent: f64| 10.0_f64.powi(exponent as i32);
        let (low, high) = (decade(low.log10().floor()), decade(high.log10().ceil()));
        Axis { label: label.to_owned(), scale: Scale::Log, low, high }
    }

    /// Position of a value in plot coordinates, moved to the edge if it lies outside.
    pub(super) fn at(&self, value: f64) -> f64 {
        let inside = value.clamp(self.low, self.high);
        match self.scale {
            Scale::Linear => inside,
            Scale::Log => inside.log10(),
        }
    }

    /// The axis in plot coordinates.
    pub(super) fn range(&self) -> Range<f64> {
        self.at(self.low)..self.at(self.high)
    }

    /// Positions of the labels in plot coordinates.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let Range { start, end } = self.range();
        let step = match self.scale {
            Scale::Linear => round_step((end - start) / TICKS_MAX),
            Scale::Log => ((end - start) / TICKS_MAX).ceil().max(1.0),
        };
        // Multiples of the step, with room for rounding at both ends.
        let (first, last) = ((start / step - 1e-9).ceil(), (end / step + 1e-9).floor());
        (0..=(last - first).max(0.0) as usize).map(|i| (first + i as f64) * step).collect()
    }

    /// The text beside a tick.
    pub(super) fn text(&self, position: f64) -> String {
        match self.scale {
            // Powers are written in one way along an axis.
            Scale::Log if self.low >= 0.01 && position <= 3.0 || position == 0.0 => {
                format!("{}", 10.0_f64.powi(position.round() as i32))
            }
            Scale::Log => format!("1e{}", position.round() as i32),
            Scale::Linear => {
                let step = round_step((self.high - self.low) / TICKS_MAX);
                let decimals = (-step.log10().floor()).max(0.0) as usize;
                format!("{position:.decimals$}")
            }
        }
    }
}

/// The smallest of 1, 2, 5 · 10ⁿ that is at least `raw`.
fn round_step(raw: f64) -> f64 {
    let decade = 10.0_f64.powf(raw.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|factor| factor * decade);
    steps.into_iter().find(|&step| step >= raw * (1.0 - 1e-9)).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| axis.text(tick)).collect()
    }

    #[test]
    fn linear_ticks_are_round_numbers() {
        assert_eq!(texts(&Axis::linear("", 0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&Axis::linear("", 0.95, 1.0))[1], "0.96");
    }

    #[test]
    fn a_log_axis_covers_whole_decades() {
        let axis = Axis::log("", 3e-4, 1.0);
        assert_eq!(texts(&axis), ["1e-4", "1e-3", "1e-2", "1e-1", "1"]);
        assert_eq!(axis.at(0.0), -4.0);
        assert_eq!(texts(&Axis::log("", 1.0, 100.0)), ["1", "10", "100"]);
        assert_eq!(texts(&Axis::log("", 0.02, 1.0)), ["0.01", "0.1", "1"]);
    }
}
