//! The ways in which networks have their pixels, and which of them an effect of the graph calls for.

use crate::front::Effect;

/// What a network's input holds for a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// Pixels of 0 to 255 as they are.
    Bytes,
    /// 0 to 1.
    Unit,
    /// −1 to 1, as `InsightFace` trains.
    Signed,
    /// −127.5 to 127.5.
    Centred,
    /// 0 to 1, then normalised by the means and deviations of `ImageNet`.
    ImageNet,
}

impl Range {
    pub(crate) const ALL: [Range; 5] =
        [Range::Signed, Range::Bytes, Range::Unit, Range::Centred, Range::ImageNet];

    /// Mean and deviation that make it of pixels of 0 to 255.
    pub(crate) fn mean_std(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Range::Bytes => ([0.0; 3], [1.0; 3]),
            Range::Unit => ([0.0; 3], [255.0; 3]),
            Range::Signed => ([127.5; 3], [127.5; 3]),
            Range::Centred => ([127.5; 3], [1.0; 3]),
            Range::ImageNet => ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        }
    }

    /// What black and white become.
    fn bounds(self) -> [f64; 2] {
        match self {
            Range::Bytes => [0.0, 255.0],
            Range::Unit => [0.0, 1.0],
            Range::Signed => [-1.0, 1.0],
            Range::Centred => [-127.5, 127.5],
            Range::ImageNet => [-2.05, 2.4],
        }
    }

    /// Mean and deviation of faces in it: 110 and 58 for bytes (LFW's crops have 108 and 58).
    fn natural(self) -> [f64; 2] {
        let ([mean, ..], [std, ..]) = self.mean_std();
        [(110.0 - f64::from(mean)) / f64::from(std), 58.0 / f64::from(std)]
    }

    /// How unlikely it is that a network which does something to its input has this one: they mostly do
    /// so to take bytes, sometimes what loaders give, which is 0 to 1, and hardly ever after others
    /// have normalised.
    fn surprise(self) -> f64 {
        match self {
            Range::Bytes => 0.0,
            Range::Unit => 0.3,
            Range::Centred => 1.0,
            Range::Signed | Range::ImageNet => 1.5,
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Range::Bytes => "pixels of 0 to 255",
            Range::Unit => "x / 255",
            Range::Signed => "(x − 127.5) / 127.5",
            Range::Centred => "x − 127.5",
            Range::ImageNet => "(x − ImageNet's mean) / its deviation",
        })
    }
}

/// What an effect says of the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Said {
    /// It leaves the pixels as they are.
    Nothing,
    /// It calls for one range, and why.
    One(Range, Why),
    /// It fits two about equally well, the first a little better.
    Either(Range, Range),
}

/// What a range was told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// What the first layer gets has the size of normalised pixels.
    Normalises,
    /// Pixels beyond its bounds are cut off.
    CutsOff,
}

/// The range for which the first layer gets what first layers are trained with: about 0 in the mean,
/// with a deviation about 0.6. `is_batch_norm` says that the effect is that of a normalisation by
/// the statistics of the training set, which is 0 and 1 exactly.
pub(crate) fn called_for(effect: &Effect, is_batch_norm: bool) -> Said {
    if let Some(said) = by_bounds(effect) {
        return said;
    }
    if effect.is_nothing() || effect.is_quantised {
        return Said::Nothing;
    }
    let fits = |range: &Range| {
        let [low, high] = range.bounds();
        let slack = 0.04 * (high - low);
        low > effect.low - slack && high < effect.high + slack
    };
    let score = |range: Range| misfit(range, effect, is_batch_norm);
    let mut scored: Vec<(f64, Range)> =
        Range::ALL.into_iter().filter(fits).map(|range| (score(range), range)).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    match scored[..] {
        [] => Said::Nothing,
        [(_, only)] => Said::One(only, Why::Normalises),
        [(best, first), (next, second), ..] => {
            if next - best < 0.2 {
                Said::Either(first, second)
            } else {
                Said::One(first, Why::Normalises)
            }
        }
    }
}

/// What is told by where values are cut off: by clipping to black and white, or by eight bits, whose range
/// is that of the pictures of a calibration and may be as wide below zero as above.
fn by_bounds(effect: &Effect) -> Option<Said> {
    let (low, high) = (effect.low, effect.high);
    let is_untouched = effect.is_nothing() || effect.is_quantised;
    if is_untouched && low.abs() < 0.1 && high.is_infinite() {
        // Nothing but that there is nothing below zero.
        return Some(Said::Either(Range::Bytes, Range::Unit));
    }
    if !low.is_finite() || !high.is_finite() {
        return None;
    }
    let why = if is_untouched { Why::CutsOff } else { Why::Normalises };
    let is_about = |bound: f64, size: f64| (bound - size).abs() < 0.15 * size.abs();
    let range = if (180.0..290.0).contains(&high) && low < 5.0 {
        Range::Bytes
    } else if is_about(high, 127.5) && is_about(low, -127.5) {
        Range::Centred
    } else if is_about(high, 1.0) && low.abs() < 0.1 {
        Range::Unit
    } else if is_about(high, 1.0) && is_about(low, -1.0) {
        // Eight bits with a sign have this range for pixels of 0 to 1 as well.
        return Some(Said::Either(Range::Signed, Range::Unit));
    } else {
        return None;
    };
    Some(Said::One(range, why))
}

fn misfit(range: Range, effect: &Effect, is_batch_norm: bool) -> f64 {
    let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
    let (gain, offset) = (mean(effect.gain), mean(effect.offset));
    let [natural_mean, natural_deviation] = range.natural();
    let typical = if is_batch_norm { 1.0 } else { 0.6 };
    let out = gain * natural_mean + offset;
    let size = (gain.abs() * natural_deviation / typical).ln();
    let surprise = if is_batch_norm { range.surprise() / 2.0 } else { range.surprise() };
    let [low, high] = range.bounds();
    let middle = gain * f64::midpoint(low, high) + offset;
    let is_centring = offset != 0.0 && middle.abs() < 0.01 * gain.abs() * (high - low);
    let centring = if is_centring && !is_batch_norm { -1.0 } else { 0.0 };
    out.powi(2) + size.powi(2) + surprise + centring
}

/// The order of the colours that the means of an effect show: photographs of faces, and of anything else,
/// are reddest. `Some(true)` if the first channel is red.
pub(crate) fn first_is_red(effect: &Effect) -> Option<bool> {
    let means = [0, 1, 2].map(|i: usize| -effect.offset[i] / effect.gain[i]);
    let spread = 0.02 * means.iter().map(|mean| mean.abs()).fold(0.0, f64::max);
    if means[0] > means[1] + spread && means[1] > means[2] + spread {
        Some(true)
    } else if means[2] > means[1] + spread && means[1] > means[0] + spread {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(gain: f64, offset: f64) -> Effect {
        Effect {
            gain: [gain; 3],
            offset: [offset; 3],
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            is_swapped: false,
            is_mixed: false,
            is_divided: false,
            is_quantised: false,
        }
    }

    #[track_caller]
    fn check(gain: f64, offset: f64, expected: Range) {
        assert_eq!(called_for(&effect(gain, offset), false), Said::One(expected, Why::Normalises));
    }

    #[test]
    fn a_range_is_told_by_the_size_of_what_the_first_layer_gets() {
        check(1.0 / 127.5, -1.0, Range::Bytes);
        check(1.0 / 128.0, -127.5 / 128.0, Range::Bytes);
        check(1.0 / 255.0, -0.5, Range::Bytes);
        check(2.0, -1.0, Range::Unit);
        check(1.0 / 0.229, -0.485 / 0.229, Range::Unit);
        check(1.0 / 58.4, -123.7 / 58.4, Range::Bytes);
        // Halves of a normalisation, the other half being elsewhere.
        check(1.0, -127.5, Range::Bytes);
        check(1.0, -110.0, Range::Bytes);
        check(1.0, -0.5, Range::Unit);
        check(1.0 / 255.0, 0.0, Range::Bytes);
        check(1.0 / 128.0, 0.0, Range::Bytes);
        check(2.0, 0.0, Range::Unit);
        assert_eq!(called_for(&effect(1.0, 0.0), false), Said::Nothing);
    }

    #[test]
    fn statistics_of_the_training_set_tell_pixels_that_were_normalised_before() {
        let check = |mean: f64, deviation: f64, expected| {
            let effect = effect(1.0 / deviation, -mean / deviation);
            assert_eq!(called_for(&effect, true), Said::One(expected, Why::Normalises));
        };
        check(110.0, 60.0, Range::Bytes);
        check(-0.1, 0.5, Range::Signed);
        check(0.43, 0.25, Range::Unit);
    }

    #[test]
    fn what_is_cut_off_tells_as_well() {
        let check = |low: f64, high: f64, expected| {
            let effect = Effect { low, high, ..effect(1.0, 0.0) };
            assert_eq!(called_for(&effect, false), Said::One(expected, Why::CutsOff));
        };
        check(0.0, 255.0, Range::Bytes);
        check(0.0, 1.0, Range::Unit);
        check(-127.0, 128.0, Range::Centred);
        // Eight bits: of pictures that are not white anywhere, and as wide below zero as above.
        check(0.0, 247.0, Range::Bytes);
        check(-256.0, 254.0, Range::Bytes);
        let effect = Effect { low: -1.004, high: 0.996, ..effect(127.5, 128.0) };
        let quantised = Effect { is_quantised: true, ..effect };
        assert_eq!(called_for(&quantised, false), Said::Either(Range::Signed, Range::Unit));
        let positive = Effect { low: 0.0, high: f64::INFINITY, is_quantised: false, ..effect };
        let positive = Effect { gain: [1.0; 3], offset: [0.0; 3], ..positive };
        assert_eq!(called_for(&positive, false), Said::Either(Range::Bytes, Range::Unit));
        let beyond = Effect { low: -3.0, high: 3.0, ..quantised };
        assert_eq!(called_for(&beyond, false), Said::Nothing);
    }

    #[test]
    fn unequal_means_tell_the_order_of_the_colours() {
        let of = |means: [f64; 3]| {
            first_is_red(&Effect { offset: means.map(|mean| -mean), ..effect(1.0, 0.0) })
        };
        assert_eq!(of([0.485, 0.456, 0.406]), Some(true));
        assert_eq!(of([104.0, 117.0, 123.7]), Some(false));
        assert_eq!(of([127.5, 127.5, 127.5]), None);
        assert_eq!(of([0.0; 3]), None);
    }
}
