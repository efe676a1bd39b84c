//! What a graph does to the pixels before it begins to look at them.
//!
//! From the input on, every operator is followed that keeps values or moves them: arithmetic with
//! constants, changes of type, shape and order, quantisation. Where these end, the first layer begins. The
//! part before it is cut out of the graph and run on flat pictures, so that what it does is measured,
//! however it is written and whatever type its constants have.

use std::collections::HashSet;

use prost::Message;

use crate::{
    declared::Declared,
    flat::{Flat, inputs_of},
    network::{Network, Settings},
    proto::{NodeProto, data_type},
    provider::Device,
};

/// Operators that keep or move the values of their first input, the others being constant. Some do so for
/// pixels alone, such as `Relu`, or for flat pictures: what they do is measured, not taken for granted.
const KEEPING: &str = "\
    Identity Cast CastLike Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Slice Split \
    SplitToSequence SequenceAt SequenceConstruct ConcatFromSequence ScatterND ScatterElements \
    Gather GatherND GatherElements Pad CenterCropPad Crop Resize Upsample \
    SpaceToDepth DepthToSpace ReverseSequence Dropout Sub Add Mul Div Neg Sum Mean Concat Clip \
    Min Max Round Floor Ceil BatchNormalization Scaler ImageScaler QuantizeLinear \
    DequantizeLinear Compress Relu Abs ReduceSum ReduceMean Where Greater GreaterOrEqual Less \
    LessOrEqual";
/// Those among them that may take pixels more than once.
const JOINING: &str = "\
    Add Sub Sum Mean Concat Where SequenceConstruct ScatterND ScatterElements";
/// Operators whose outputs nobody can foresee.
const RANDOM: &str = "\
    RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli";
/// Values that may be measured as ends.
const ENDS_MAX: usize = 16;
/// Numbers of each end that are looked at.
const SAMPLES: usize = 40_000;

/// The way of the pixels to the first layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Way {
    /// Operators passed, in order, each once.
    pub(crate) passed: Vec<String>,
    /// The operators that it leads to, each once.
    pub(crate) layers: Vec<String>,
    /// The values that these take.
    pub(crate) ends: Vec<String>,
}

/// Follows the values of the input.
pub(crate) fn follow(flat: &Flat<'_>, input: &str) -> Way {
    follow_through(flat, input, true)
}

fn follow_through(flat: &Flat<'_>, input: &str, through_point_layers: bool) -> Way {
    let mut pixels: HashSet<&str> = HashSet::from([input]);
    let mut known: HashSet<&str> = HashSet::new();
    let mut way = Way::default();
    let add = |names: &mut Vec<String>, name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    for node in &flat.nodes {
        let inputs = inputs_of(node);
        let is_known = |name: &String| known.contains(name.as_str()) || flat.is_constant(name);
        let of_pixels: Vec<&String> =
            inputs.iter().filter(|name| pixels.contains(name.as_str())).collect();
        let op = node.op_type.as_str();
        if matches!(op, "Shape" | "Size") || inputs.iter().all(is_known) {
            if !is_among(RANDOM, op) {
                known.extend(node.output.iter().map(String::as_str));
            }
            continue;
        }
        if of_pixels.is_empty() {
            continue;
        }
        let others = || inputs.iter().filter(|name| !pixels.contains(name.as_str()));
        let is_keeping =
            is_among(KEEPING, op) || through_point_layers && is_point_layer(flat, node);
        let once = of_pixels.len() == 1 || is_among(JOINING, op);
        if is_keeping && once && others().all(is_known) {
            add(&mut way.passed, op);
            let n = if op == "Split" { node.output.len() } else { 1 };
            pixels.extend(node.output.iter().take(n).map(String::as_str));
        } else if way.ends.len() < ENDS_MAX {
            add(&mut way.layers, op);
            of_pixels.iter().for_each(|name| add(&mut way.ends, name));
        }
    }
    if way.ends.is_empty() {
        // Nothing but such operators: the outputs are the pixels themselves.
        way.ends = vec![input.to_owned()];
    }
    way
}

/// Whether `op` is named in one of the lists above.
fn is_among(list: &str, op: &str) -> bool {
    list.split(' ').any(|known| known == op)
}

/// Operators that may look at one pixel at a time.
const OF_POINTS: &str = "Conv MatMul";

/// A convolution or product that looks at one pixel at a time and gives as many channels as it takes, which is how
/// some converters write a normalisation.
fn is_point_layer(flat: &Flat<'_>, node: &NodeProto) -> bool {
    let weights = node.input.get(1).and_then(|name| flat.sizes(name));
    let group = node.attribute.iter().find(|attribute| attribute.name == "group");
    let group = group.and_then(|attribute| attribute.i).unwrap_or(1);
    match (node.op_type.as_str(), weights) {
        ("Conv", Some(&[out, per_group, 1, 1])) => {
            out <= 3 && per_group.checked_mul(group) == Some(out)
        }
        ("MatMul", Some(&[channels, out])) => out <= 3 && channels == out,
        _ => false,
    }
}

/// What the way makes of the pixels: `gain · pixel + offset` of each channel of the input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Effect {
    pub(crate) gain: [f64; 3],
    pub(crate) offset: [f64; 3],
    /// Pixels beyond these are taken as these; infinite where all are told apart.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Whether the last channel of the input comes first.
    pub(crate) is_swapped: bool,
    /// Whether channels are mixed, as for grey.
    pub(crate) is_mixed: bool,
    /// Whether several layers take the pixels, and not all of them so.
    pub(crate) is_divided: bool,
    /// Whether the first layer takes bytes that stand for other numbers, so that gain and offset say nothing.
    pub(crate) is_quantised: bool,
}

impl Effect {
    /// Whether the pixels reach the first layer as they are.
    pub(crate) fn is_nothing(&self) -> bool {
        let keeps = |gain: f64, offset: f64| (gain - 1.0).abs() < 0.02 && offset.abs() < 0.01;
        self.gain.iter().zip(self.offset).all(|(&gain, offset)| keeps(gain, offset))
    }
}

/// Measures the way from the input; the way comes back as well, shorter where a convolution or product on it proves
/// to be a layer.
///
/// # Errors
///
/// Why nothing could be measured, in words.
pub(crate) fn measure(
    flat: &Flat<'_>,
    input: &Declared,
    way: Way,
) -> (Way, Result<Effect, String>) {
    let effect = measure_ends(flat, input, &way);
    let has_layer = way.passed.iter().any(|op| is_among(OF_POINTS, op));
    let is_plain = matches!(&effect, Ok(effect) if !effect.is_mixed);
    if !has_layer || is_plain {
        return (way, effect);
    }
    let way = follow_through(flat, &input.name, false);
    let effect = measure_ends(flat, input, &way);
    (way, effect)
}

fn measure_ends(flat: &Flat<'_>, input: &Declared, way: &Way) -> Result<Effect, String> {
    let part = flat.cut(&input.value, &way.ends).encode_to_vec();
    let settings = Settings { threads: 1, device: Device::Cpu, is_optimised: false };
    let network = Network::open(&part, settings)?;
    let respond = |channels: [f32; 3]| -> Result<Vec<Vec<f32>>, String> {
        let (n, values) = input.batch_of(&input.flat(channels));
        let outputs = network.run(input, n, values)?;
        let sample = |values: Vec<f32>| -> Vec<f32> {
            // An odd step that is no multiple of three meets every channel.
            let step = (values.len() / SAMPLES / 6) * 6 + 1;
            values.into_iter().step_by(step).collect()
        };
        outputs.into_iter().map(|output| output.values.map(sample)).collect()
    };
    let levels = Levels::of(input.elem_type == data_type::UINT8, &respond)?;
    let effects: Vec<Result<Effect, String>> = (0..way.ends.len())
        .map(|end| effect_of(end, &levels, input.n_channels, &respond))
        .collect();
    let mut found = effects.iter().flatten();
    let Some(first) = found.next() else {
        return effects.into_iter().next().unwrap_or_else(|| Err("nothing takes it".to_owned()));
    };
    let differs = |other: &Effect| (other.gain[0] / first.gain[0] - 1.0).abs() > 0.05;
    let is_divided = found.any(differs) || effects.iter().any(Result::is_err);
    let mut makers = way.ends.iter().filter_map(|end| flat.maker(end));
    let is_quantised = makers.any(|maker| maker.op_type == "QuantizeLinear");
    Ok(Effect { is_divided, is_quantised, ..first.clone() })
}

type Respond<'r> = dyn Fn([f32; 3]) -> Result<Vec<Vec<f32>>, String> + 'r;

/// What all ends are for flat grey pictures, by their level.
struct Levels(Vec<(f32, Vec<Vec<f32>>)>);

impl Levels {
    /// The coarse steps show whether pixels of 0 to 255 are told apart, the fine ones whether pixels of
    /// −1 to 1 are, and the outermost where values begin to be cut off.
    fn of(is_bytes: bool, respond: &Respond<'_>) -> Result<Levels, String> {
        let levels: &[f32] = if is_bytes {
            &[0.0, 64.0, 128.0, 192.0, 255.0]
        } else {
            &[-300.0, 0.0, 0.5, 1.0, 64.0, 128.0, 192.0, 255.0, 300.0]
        };
        let measured = levels.iter().map(|&level| Ok((level, respond([level; 3])?)));
        measured.collect::<Result<_, String>>().map(Levels)
    }

    /// Of the value `i` of an end.
    fn at(&self, level: f32, end: usize, i: usize) -> Option<f64> {
        let (_, ends) = self.0.iter().find(|(known, _)| *known == level)?;
        ends.get(end)?.get(i).map(|&value| f64::from(value))
    }

    fn n_values(&self, end: usize) -> usize {
        self.0.iter().filter_map(|(_, ends)| ends.get(end)).map(Vec::len).min().unwrap_or(0)
    }

    /// The mean change per level of the `live` values between two levels; 0 if either was not tried.
    fn slope(&self, from: f32, to: f32, end: usize, live: &[usize]) -> f64 {
        let change = |&i: &usize| Some((self.at(to, end, i)? - self.at(from, end, i)?).abs());
        let sum: f64 = live.iter().filter_map(change).sum();
        sum / live.len() as f64 / f64::from(to - from)
    }
}

fn effect_of(
    end: usize,
    levels: &Levels,
    n_channels: usize,
    respond: &Respond<'_>,
) -> Result<Effect, String> {
    let moves = |&i: &usize| {
        let mut values = levels.0.iter().filter_map(|(_, ends)| ends.get(end)?.get(i)).copied();
        let first = values.next().unwrap_or(0.0);
        values.any(|value| value.is_finite() && (value - first).abs() > 1e-6 * first.abs())
    };
    let live: Vec<usize> = (0..levels.n_values(end)).filter(moves).collect();
    if live.is_empty() {
        return Err(
            "flat pictures leave no trace: the mean of each picture is taken off".to_owned()
        );
    }
    let steps = [(0.0, 64.0), (64.0, 128.0), (128.0, 192.0), (192.0, 255.0)];
    let coarse = steps.map(|(from, to)| levels.slope(from, to, end, &live));
    let fine = [(0.0, 0.5), (0.5, 1.0)].map(|(from, to)| levels.slope(from, to, end, &live));
    let top: f32 = if is_even(&coarse) {
        255.0
    } else if is_even(&fine) {
        1.0
    } else {
        return Err("it answers to brightness in no straight line".to_owned());
    };
    let gain_of = |i: usize| -> Option<f64> {
        let change = levels.at(top, end, i)? - levels.at(0.0, end, i)?;
        Some(change / f64::from(top))
    };
    let reach = |level: f32| -> f64 {
        let of = |&i: &usize| {
            let change = levels.at(level, end, i)? - levels.at(0.0, end, i)?;
            let gain = gain_of(i).filter(|gain| *gain != 0.0)?;
            Some(change / gain)
        };
        let reached = median(live.iter().filter_map(of).collect()).unwrap_or(f64::from(level));
        let is_told_apart = reached.abs() > 0.99 * f64::from(level.abs());
        if is_told_apart { f64::from(level).signum() * f64::INFINITY } else { reached }
    };
    let is_bytes = levels.0.iter().all(|(level, _)| *level >= 0.0 && *level <= 255.0);
    let (low, high) = if is_bytes { (0.0, 255.0) } else { (reach(-300.0), reach(300.0)) };

    let sources = sources(end, &live, top.min(high as f32), n_channels, levels, respond)?;
    let n_mixed = sources.iter().filter(|source| source.is_none()).count();
    let is_mixed = n_mixed * 100 > live.len();
    let of_channel = |channel: usize, value: &dyn Fn(usize) -> Option<f64>| -> f64 {
        let is_its = |source: &Option<usize>| is_mixed || *source == Some(channel);
        let values = live.iter().zip(&sources).filter(|(_, source)| is_its(source));
        let values: Vec<f64> = values.filter_map(|(&i, _)| value(i)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let fill = |value: &dyn Fn(usize) -> Option<f64>| -> [f64; 3] {
        [0, 1, 2].map(|channel: usize| of_channel(channel.min(n_channels - 1), value))
    };
    let (gain, offset) = (fill(&gain_of), fill(&|i| levels.at(0.0, end, i)));
    if gain.iter().chain(&offset).any(|value| !value.is_finite()) {
        return Err("not all of its channels are used".to_owned());
    }
    let mut told = sources.iter().flatten();
    let ends = (told.next(), told.next_back());
    let is_swapped = matches!(ends, (Some(first), Some(last)) if first > last);
    Ok(Effect {
        gain,
        offset,
        low,
        high,
        is_swapped,
        is_mixed,
        is_divided: false,
        is_quantised: false,
    })
}

/// The channel of the input that each live value comes from; `None` if from several.
fn sources(
    end: usize,
    live: &[usize],
    top: f32,
    n_channels: usize,
    levels: &Levels,
    respond: &Respond<'_>,
) -> Result<Vec<Option<usize>>, String> {
    let lit = |channel: usize| {
        let mut channels = [0.0; 3];
        channels[channel] = top;
        respond(channels)
    };
    let lit = (0..n_channels).map(lit).collect::<Result<Vec<_>, String>>()?;
    let source = |&i: &usize| {
        let dark = levels.at(0.0, end, i)?;
        let answers: Vec<f64> = lit
            .iter()
            .map(|ends| ends.get(end).and_then(|end| end.get(i)).copied().map_or(0.0, f64::from))
            .map(|value| (value - dark).abs())
            .collect();
        let largest = answers.iter().copied().fold(0.0, f64::max);
        let mut heard = (0..n_channels).filter(|&channel| answers[channel] > 0.05 * largest);
        let channel = heard.next()?;
        heard.next().is_none().then_some(channel)
    };
    Ok(live.iter().map(source).collect())
}

/// Whether slopes are the same but for rounding.
fn is_even(slopes: &[f64]) -> bool {
    let largest = slopes.iter().copied().fold(0.0, f64::max);
    let smallest = slopes.iter().copied().fold(f64::INFINITY, f64::min);
    largest > 0.0 && smallest > 0.85 * largest
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
