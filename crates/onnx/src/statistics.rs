//! The statistics that a network keeps of the pictures that it was trained with.
//!
//! A batch normalisation holds the mean and variance of what it saw in training. Two drawn faces, put
//! into the network in each of the ways in which networks have their pixels, give about these if the way
//! is right, and others by orders of magnitude if it is not. Measured with MobileFace V2 and OpenCV Zoo's SFace
//! ([`misfit`], three normalisations): 0.07 and 0.15 for the right way, 0.16 and 0.22 with blue first, 0.3
//! and 0.5 for 0 to 1 in place of −1 to 1, 6 and 9 where the size is wrong by 127.

use prost::Message;

use crate::{
    ChannelOrder, InputSpec,
    declared::Declared,
    faces,
    flat::Flat,
    network::{Network, Settings},
    proto::NodeProto,
    provider::Device,
    range::Range,
};

/// Normalisations looked at, those nearest to the input.
const LAYERS: usize = 3;
/// A way that fits no better than this fits by chance.
const MISFIT_MAX: f64 = 0.4;

/// How well each way of feeding pixels fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fits {
    /// Misfits with red first.
    pub(crate) rgb: Vec<(Range, f64)>,
    /// With blue first, in the range that fits best with red first.
    pub(crate) bgr: Option<(Range, f64)>,
}

impl Fits {
    pub(crate) fn of(&self, range: Range) -> f64 {
        self.rgb.iter().find(|(known, _)| *known == range).map_or(f64::INFINITY, |(_, fit)| *fit)
    }

    /// The range that fits best, if it fits.
    pub(crate) fn best(&self) -> Option<Range> {
        let best = self.rgb.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        (best.1 <= MISFIT_MAX).then_some(best.0)
    }

    /// Whether the range that fits best is clearly better than `other`.
    pub(crate) fn refutes(&self, other: Range) -> Option<Range> {
        let best = self.best()?;
        (self.of(other) > 2.0 * self.of(best) + 0.1).then_some(best)
    }

    /// The order of the colours, where one fits clearly better.
    pub(crate) fn order(&self) -> Option<ChannelOrder> {
        let (range, bgr) = self.bgr?;
        let rgb = self.of(range);
        let is_clear =
            |better: f64, worse: f64| better <= MISFIT_MAX && worse > 1.3 * better + 0.03;
        if is_clear(rgb, bgr) {
            Some(ChannelOrder::Rgb)
        } else if is_clear(bgr, rgb) {
            Some(ChannelOrder::Bgr)
        } else {
            None
        }
    }
}

/// How well the network's first statistics fit; `None` if it keeps none, or none that can be measured.
pub(crate) fn measure(flat: &Flat<'_>, input: &Declared) -> Option<Fits> {
    let layers = layers(flat);
    if layers.is_empty() {
        return None;
    }
    let part = flat.cut(&input.value, &layers).encode_to_vec();
    let threads = crate::network::default_threads();
    let settings = Settings { threads, device: Device::Cpu, is_optimised: false };
    let network = Network::open(&part, settings).ok()?;
    let misfit = |range, channels| misfit(&network, input, range, channels);
    let of_range = |range| Some((range, misfit(range, ChannelOrder::Rgb)?));
    // A range whose values the network cannot take tells nothing.
    let rgb: Vec<(Range, f64)> = Range::ALL.into_iter().filter_map(of_range).collect();
    let mut fits = Fits { rgb, bgr: None };
    if input.n_channels == 3
        && let Some(best) = fits.best()
    {
        fits.bgr = misfit(best, ChannelOrder::Bgr).map(|misfit| (best, misfit));
    }
    (!fits.rgb.is_empty()).then_some(fits)
}

/// Input, mean and variance of the first normalisations.
fn layers(flat: &Flat<'_>) -> Vec<String> {
    let is_whole =
        |node: &&NodeProto| node.op_type == "BatchNormalization" && node.input.len() == 5;
    let of_layers = flat.nodes.iter().filter(is_whole).take(LAYERS);
    let values = of_layers.flat_map(|node| [&node.input[0], &node.input[3], &node.input[4]]);
    values.cloned().collect()
}

/// A normalisation near the input of a network: what it was given for pictures, and what it keeps.
#[derive(Debug, Clone, Default)]
pub struct Normalisation {
    /// For each picture the shape, `[1, C, ..]`, and the numbers.
    pub given: Vec<(Vec<i64>, Vec<f32>)>,
    /// The mean that it keeps of each channel, `[C]`.
    pub mean: Vec<f32>,
    /// The variance, `[C]`.
    pub variance: Vec<f32>,
}

/// What the normalisations of a network whose graph is known tell of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredInput {
    /// Mean and deviation of the pixels, where others than 127.5 and 127.5 fit clearly better.
    pub mean_std: Option<([f32; 3], [f32; 3])>,
    /// The order of the colours, where one fits clearly better.
    pub channels: Option<ChannelOrder>,
}

/// Measures the input of a network that takes one picture of 112×112.
///
/// * `run`: gives for the values of a picture, `[3, 112, 112]`, what the first normalisations are given, in
///   the order of the network
///
/// `None` if nothing fits, as of a network that was not trained.
pub fn measured_input(run: impl Fn(&[f32]) -> Option<Vec<Normalisation>>) -> Option<MeasuredInput> {
    let misfit = |range: Range, channels| {
        let (mean, std) = range.mean_std();
        let spec = InputSpec { mean, std, channels, ..InputSpec::insightface() };
        let mut layers: Vec<Normalisation> = Vec::new();
        for face in faces::unlike() {
            let mut values = vec![0.0; spec.n_values()];
            spec.write(&face, &mut values);
            let of_face = run(&values)?;
            layers.resize_with(of_face.len(), Normalisation::default);
            for (layer, found) in layers.iter_mut().zip(of_face) {
                let mut given = std::mem::take(&mut layer.given);
                given.extend(found.given);
                *layer = Normalisation { given, ..found };
            }
        }
        misfit_of(&layers)
    };
    let of_range = |range| Some((range, misfit(range, ChannelOrder::Rgb)?));
    let rgb: Vec<(Range, f64)> = Range::ALL.into_iter().filter_map(of_range).collect();
    let mut fits = Fits { rgb, bgr: None };
    let best = fits.best()?;
    fits.bgr = misfit(best, ChannelOrder::Bgr).map(|misfit| (best, misfit));
    let mean_std = fits.refutes(Range::Signed).map(Range::mean_std);
    Some(MeasuredInput { mean_std, channels: fits.order() })
}

/// The misfit of the channels' statistics from those kept, in the mean.
fn misfit(
    network: &Network,
    input: &Declared,
    range: Range,
    channels: ChannelOrder,
) -> Option<f64> {
    let spec = input.spec(range.mean_std(), channels);
    let mut layers: Vec<Normalisation> = Vec::new();
    for face in faces::unlike() {
        let mut values = vec![0.0; spec.n_values()];
        spec.write(&face, &mut values);
        let (n, values) = input.batch_of(&values);
        let outputs = network.run(input, n, values).ok()?;
        let outputs: Option<Vec<_>> =
            outputs.into_iter().map(|output| Some((output.shape, output.values.ok()?))).collect();
        let (of_layers, _) = outputs.as_deref()?.as_chunks::<3>();
        layers.resize_with(of_layers.len(), Normalisation::default);
        for (layer, [given, mean, variance]) in layers.iter_mut().zip(of_layers) {
            layer.given.push(given.clone());
            (layer.mean, layer.variance) = (mean.1.clone(), variance.1.clone());
        }
    }
    misfit_of(&layers)
}

/// The divergence of what the layers were given from what they keep, as logarithm, in the mean over the layers
/// that were trained.
fn misfit_of(layers: &[Normalisation]) -> Option<f64> {
    let is_trained = |layer: &&Normalisation| {
        let Normalisation { mean, variance, .. } = layer;
        mean.iter().any(|&value| value != 0.0) || variance.iter().any(|&value| value != 1.0)
    };
    let misfits: Vec<f64> = layers.iter().filter(is_trained).filter_map(divergence).collect();
    let misfit = misfits.iter().sum::<f64>() / misfits.len() as f64;
    misfit.is_finite().then_some(misfit)
}

/// The mean over the channels, the second axis, of ln(1 + KL(seen ‖ kept)), both taken as normal.
fn divergence(layer: &Normalisation) -> Option<f64> {
    let Normalisation { given: seen, mean, variance } = layer;
    let n_channels = mean.len();
    let mut sum = 0.0;
    for channel in 0..n_channels {
        let (mut n, mut total, mut squares) = (0.0, 0.0, 0.0);
        for (shape, values) in seen {
            let area = usize::try_from(shape.iter().skip(2).product::<i64>()).ok()?;
            if shape.len() < 3 || shape[1] != n_channels as i64 || area < 16 {
                return None;
            }
            let of_image = values.chunks_exact(n_channels * area);
            for value in of_image.flat_map(|image| &image[channel * area..(channel + 1) * area]) {
                let value = f64::from(*value);
                n += 1.0;
                total += value;
                squares += value * value;
            }
        }
        let seen_mean = total / n;
        let seen_variance = (squares / n - seen_mean * seen_mean).max(0.0) + 1e-9;
        let kept = f64::from(*variance.get(channel)?) + 1e-9;
        let ratio = (seen_variance + (seen_mean - f64::from(mean[channel])).powi(2)) / kept;
        let divergence = 0.5 * (ratio - 1.0 - (seen_variance / kept).ln());
        sum += divergence.max(0.0).ln_1p();
    }
    Some(sum / n_channels as f64)
}
