//! A model is looked at before it is used: its graph, its statistics, and what it makes of drawn faces.

use crate::{
    ChannelOrder, InputOptions, InputSpec, Layout, Origin, biases,
    decide::{Decision, Facts, decide, metadata_value},
    declared::Declared,
    faces,
    flat::Flat,
    front, metadata,
    network::Network,
    outputs::Chosen,
    proto::{GraphProto, ModelProto},
    range::Range,
    statistics,
};

/// Two faces that are unlike have embeddings that are less alike than this, whatever the network.
const ALIKE: f64 = 0.999;
/// Embeddings that are as alike as this are the same but for rounding.
const SAME: f64 = 0.9999;

/// What the input of `model` wants, by all that its file tells.
///
/// # Errors
///
/// A graph that cannot be looked through, or metadata that cannot be read.
pub(crate) fn examine(
    model: &ModelProto,
    flat: &Flat<'_>,
    declared: &Declared,
    options: &InputOptions,
) -> Result<Decision, String> {
    let way = front::follow(flat, &declared.name);
    let (way, effect) = front::measure(flat, declared, way);
    let states = |keys: &[&str]| keys.iter().all(|key| metadata_value(model, key).is_some());
    let is_normalisation_told =
        states(&[metadata::MEAN, metadata::STD]) || options.mean.is_some() && options.std.is_some();
    let is_order_told = states(&[metadata::CHANNELS]) || options.channels.is_some();
    // To fit the statistics takes a second where the network is large.
    let fits = if is_normalisation_told && is_order_told {
        None
    } else {
        statistics::measure(flat, declared)
    };
    let line = biases::measure(flat, declared, &way);
    decide(&Facts { model, declared, way, effect, fits, line }, options)
}

/// Sides that are tried where a file leaves them open, the usual one first.
const SIDES: [[usize; 2]; 8] =
    [[112; 2], [128; 2], [160; 2], [224; 2], [112, 96], [96, 112], [96; 2], [256; 2]];

/// Sizes and layout that the file leaves open: the first with which the network runs, as flattened
/// features fix the one, and the channels of the first layer the other.
pub(crate) fn settle(declared: &mut Declared, network: &Network) {
    let sides =
        if declared.is_size_open { &SIDES[..] } else { &[[declared.height, declared.width]][..] };
    let layouts: &[Layout] = if declared.is_layout_open {
        &[Layout::Planes, Layout::Pixels]
    } else {
        &[declared.layout]
    };
    let all = sides.iter().flat_map(|&side| layouts.iter().map(move |&layout| (side, layout)));
    if sides.len() * layouts.len() == 1 {
        return;
    }
    for ([height, width], layout) in all {
        let tried = Declared { height, width, layout, ..declared.clone() };
        let (n, grey) = tried.batch_of(&tried.flat([127.0; 3]));
        if network.run(&tried, n, grey).is_ok() {
            *declared = tried;
            return;
        }
    }
}

/// Runs the network on drawn faces, and adds what that shows to the decision: whether faces are told apart,
/// and whether what is assumed makes a difference at all.
pub(crate) fn try_out(
    decision: &mut Decision,
    network: &Network,
    declared: &Declared,
    output: &Chosen,
) -> Result<(), String> {
    let [first, second] = faces::unlike();
    let embed = |spec: &InputSpec, face: &[u8]| run(network, declared, output, spec, face);
    let spec = decision.spec;
    let with = |range: Range| {
        let (mean, std) = range.mean_std();
        InputSpec { mean, std, ..spec }
    };
    let one = embed(&spec, &first)?;
    let alike = cosine(&one, &embed(&spec, &second)?);
    decision.evidence.push(format!("cosine of two unlike drawn faces: {alike:.4}"));
    if alike.is_nan() {
        let reason =
            "its embeddings of drawn faces are zero, or no numbers: it is fed wrongly or damaged";
        decision.warnings.push(reason.to_owned());
    }
    if alike > ALIKE {
        let tells_apart = |range: &Range| {
            let spec = with(*range);
            let pair = embed(&spec, &first).and_then(|a| Ok(cosine(&a, &embed(&spec, &second)?)));
            (spec.mean, spec.std) != (decision.spec.mean, decision.spec.std)
                && pair.is_ok_and(|alike| alike < 0.99)
        };
        let others = Range::ALL.iter().filter(|range| tells_apart(range));
        let others: Vec<String> = others.map(|range| format!("`{range}`")).collect();
        let way_out = if others.is_empty() {
            String::new()
        } else {
            format!(": with {} they are told apart", others.join(" or "))
        };
        decision.warnings.push(format!(
            "two unlike faces have embeddings of cosine {alike:.4}: it is fed wrongly, or tells no \
             faces apart{way_out}"
        ));
    }
    if decision.is_assumed[0] && spec.origin == Origin::Convention {
        let other = embed(&with(Range::Bytes), &first).map_or(0.0, |other| cosine(&one, &other));
        decision
            .evidence
            .push(format!("cosine to its embedding as pixels of 0 to 255: {other:.4}"));
        if other > SAME {
            decision.is_assumed[0] = false;
            decision.reasons[0] =
                "no other range makes a difference, as it normalises each picture itself"
                    .to_owned();
        }
    }
    if decision.is_assumed[1] && spec.channels != ChannelOrder::Grey {
        let swapped = InputSpec { channels: ChannelOrder::Bgr, ..spec };
        let other = cosine(&one, &embed(&swapped, &first)?);
        decision.evidence.push(format!("cosine to its embedding in BGR: {other:.4}"));
        if other > SAME {
            decision.is_assumed[1] = false;
            decision.reasons[1] = "BGR makes no difference".to_owned();
        }
    }
    Ok(())
}

/// Runs a network that scores faces on drawn ones, and warns if it gives them no scores, or the same one.
pub(crate) fn try_score(
    decision: &mut Decision,
    network: &Network,
    declared: &Declared,
    output: &Chosen,
) -> Result<(), String> {
    let [first, second] =
        faces::unlike().map(|face| run(network, declared, output, &decision.spec, &face));
    let (first, second) = (first?, second?);
    decision.evidence.push(format!("scores of two unlike drawn faces: {first:?} {second:?}"));
    let warning = match (first.first(), second.first()) {
        (Some(a), Some(b)) if !a.is_finite() || !b.is_finite() => {
            "its scores of drawn faces are no numbers: it is fed wrongly or damaged"
        }
        (Some(a), Some(b)) if a == b => {
            "it gives two unlike faces the same score: it is fed wrongly, or scores nothing"
        }
        _ => return Ok(()),
    };
    decision.warnings.push(warning.to_owned());
    Ok(())
}

/// What a network gives for one face.
fn run(
    network: &Network,
    declared: &Declared,
    output: &Chosen,
    spec: &InputSpec,
    face: &[u8],
) -> Result<Vec<f32>, String> {
    let mut image = vec![0.0; spec.n_values()];
    spec.write(face, &mut image);
    let (n, values) = declared.batch_of(&image);
    let outputs = network.run(declared, n, values)?;
    let found = outputs.into_iter().find(|found| found.name == output.name);
    let values = found.ok_or("an output is missing")?.values?;
    Ok(values.into_iter().take(output.dim).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The graph of a model that was parsed.
pub(crate) fn graph_of(model: &ModelProto) -> Result<&GraphProto, String> {
    model.graph.as_ref().ok_or_else(|| "it has no graph".to_owned())
}
