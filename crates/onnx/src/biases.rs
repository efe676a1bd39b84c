//! What the biases of a first convolution say of the pixels that it was trained with.
//!
//! Converters fold normalisations into the convolution beside them: `(x − m) / s` before it, and the batch
//! normalisation behind it, whose mean grows with that of the pixels. Either way a filter's bias is less by
//! the mean of the pixels times the sum of its weights, so that a line through biases over sums has the slope
//! −mean. With MobileFace V2 and OpenCV Zoo's SFace, folded so, the slope is −112 and −108 (r² = 0.65 and 0.77)
//! for pixels of 0 to 255, −0.44 and −0.42 for 0 to 1, and r² is 0.04 and 0.10 for −1 to 1.

use prost::Message;

use crate::{
    declared::Declared,
    flat::Flat,
    front::Way,
    network::{Network, Settings},
    provider::Device,
    range::Range,
};

/// Filters of a convolution that are enough to draw a line through.
const FILTERS_MIN: usize = 16;
/// Share of the biases' variance that the line has to explain.
const EXPLAINED_MIN: f64 = 0.4;

/// The line through biases over sums of weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// Mean of the pixels that it shows.
    pub(crate) mean: f64,
    /// Share of the variance that it explains, r².
    pub(crate) explained: f64,
}

impl Line {
    /// The range whose pixels have such a mean, if the line is one.
    pub(crate) fn range(&self) -> Option<Range> {
        match self.mean {
            _ if self.explained < EXPLAINED_MIN => None,
            60.0..=170.0 => Some(Range::Bytes),
            0.25..=0.7 => Some(Range::Unit),
            _ => None,
        }
    }
}

/// The line of the convolution that takes the pixels; `None` if there is none with enough filters.
pub(crate) fn measure(flat: &Flat<'_>, input: &Declared, way: &Way) -> Option<Line> {
    let takes_pixels = |name: &String| way.ends.contains(name);
    let convolution = flat.nodes.iter().find(|node| {
        node.op_type == "Conv"
            && node.input.len() == 3
            && node.input.first().is_some_and(takes_pixels)
    })?;
    let part = flat.cut(&input.value, &convolution.input[1..]).encode_to_vec();
    let settings = Settings { threads: 1, device: Device::Cpu, is_optimised: false };
    let network = Network::open(&part, settings).ok()?;
    let (n, values) = input.batch_of(&input.flat([0.0; 3]));
    let outputs = network.run(input, n, values).ok()?;
    let [weights, biases] = &outputs[..] else { return None };
    line(weights.values.as_ref().ok()?, biases.values.as_ref().ok()?)
}

fn line(weights: &[f32], biases: &[f32]) -> Option<Line> {
    let n = biases.len();
    if n < FILTERS_MIN || !weights.len().is_multiple_of(n) || weights.is_empty() {
        return None;
    }
    let filters = weights.chunks_exact(weights.len() / n);
    let sums: Vec<f64> = filters.map(|filter| filter.iter().map(|&w| f64::from(w)).sum()).collect();
    let biases: Vec<f64> = biases.iter().map(|&bias| f64::from(bias)).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
    let (mean_sum, mean_bias) = (mean(&sums), mean(&biases));
    let (mut squares, mut products, mut total) = (0.0, 0.0, 0.0);
    for (sum, bias) in sums.iter().zip(&biases) {
        squares += (sum - mean_sum).powi(2);
        products += (sum - mean_sum) * (bias - mean_bias);
        total += (bias - mean_bias).powi(2);
    }
    let line = Line { mean: -products / squares, explained: products * products / squares / total };
    (line.mean.is_finite() && line.explained.is_finite()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_mean_that_was_folded_in() {
        // Twenty filters of two weights with sums of 0 to 1.9, and biases about 3 − 100 · sum.
        let weights: Vec<f32> = (0..20).flat_map(|i| [i as f32 / 10.0 - 1.0, 1.0]).collect();
        let bias = |i: usize| 3.0 - 10.0 * i as f32 + if i.is_multiple_of(2) { 5.0 } else { -5.0 };
        let biases: Vec<f32> = (0..20).map(bias).collect();
        let found = line(&weights, &biases).unwrap();
        assert!((found.mean - 100.0).abs() < 2.0 && found.explained > 0.99, "{found:?}");
        assert_eq!(found.range(), Some(Range::Bytes));
        let unit = Line { mean: 0.44, explained: 0.65 };
        assert_eq!(unit.range(), Some(Range::Unit));
        assert_eq!(Line { explained: 0.1, ..unit }.range(), None);
        assert_eq!(line(&weights[..10], &biases[..5]), None);
        assert_eq!(line(&[1.0; 40], &biases), None);
    }
}
