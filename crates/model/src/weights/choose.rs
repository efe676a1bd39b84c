//! Which tensors of a file are a network that is known, and what else lies beside them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    evolve,
    source::{Shape, Source, Weight},
};
use crate::{Architecture, Backbone, ModelError, Network, recognise};

/// The network that a file's keys and shapes were found to be, before any tensor was read.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) architecture: Architecture,
    pub(super) network: Option<Network>,
    pub(super) embedding: i64,
    /// A tensor for each of the network's keys.
    pub(super) weights: Vec<Weight>,
    /// What stands before each key in the file.
    pub(super) prefix: String,
    /// Whose names the keys are, if not `InsightFace`'s.
    pub(super) layout: Option<&'static str>,
    /// Tensors that are no part of the network, by name.
    pub(super) passed_over: Vec<String>,
}

/// A key at the beginning of every network of a kind, by which its prefix is found.
const ANCHORS: [&str; 4] = [
    "layer1.0.conv1.weight",
    "conv_sep.layers.0.weight",
    "patch_embed.proj.weight",
    evolve::ANCHOR,
];

/// Words in the names that trainers give the copy of a network that follows another one, as `model_ema`, and an
/// optimizer's averages.
const COPIES: [&str; 7] = ["ema", "swa", "shadow", "teacher", "momentum", "avg", "averaged"];

/// What comes after the embedding in training. The name of a weight that has no dictionary counts too.
const HEADS: [&str; 18] = [
    "arcface",
    "center",
    "centers",
    "centres",
    "classifier",
    "cls",
    "cosface",
    "criterion",
    "head",
    "heads",
    "kernel",
    "logits",
    "loss",
    "margin",
    "metric",
    "metric_fc",
    "output",
    "softmax",
];

/// Tells the network in `shapes` and finds each of its tensors.
///
/// * `heads`: attention heads of a transformer that has no name
///
/// # Errors
///
/// [`ModelError::UnknownArchitecture`] if no network is whole under any prefix, or more than one;
/// what is wrong with the only one that begins, if it is of a known kind.
pub(super) fn choose(
    origin: &str,
    shapes: &[Shape],
    heads: Option<i64>,
) -> Result<Choice, ModelError> {
    let (mut whole, mut failed): (Vec<Choice>, _) = (Vec::new(), None);
    let mut innermost_first: Vec<&str> = prefixes(shapes).into_iter().collect();
    innermost_first.sort_by_key(|prefix| Reverse((prefix.len(), *prefix)));
    for prefix in innermost_first {
        let inner: Vec<&str> = whole.iter().map(|choice| choice.prefix.as_str()).collect();
        match under(origin, shapes, prefix, &inner, heads) {
            Ok(choice) => whole.push(choice),
            // Of the outermost.
            Err(error) => failed = Some(error),
        }
    }
    whole.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    let is_copy =
        |choice: &Choice| choice.prefix.split(['.', '_']).any(|word| COPIES.contains(&word));
    if whole.iter().any(|choice| !is_copy(choice)) {
        whole.retain(|choice| !is_copy(choice));
    }
    let names: Vec<String> = whole.iter().map(|choice| format!("`{}`", choice.prefix)).collect();
    match (whole.pop(), names.len(), failed) {
        (Some(choice), 1, _) => Ok(choice),
        (Some(_), _, _) => Err(ModelError::UnknownArchitecture {
            origin: origin.to_owned(),
            reason: format!(
                "it holds several, whose keys begin with {}: save the one that is wanted alone",
                names.join(", ")
            ),
        }),
        (None, _, Some(error)) => Err(error),
        (None, _, None) => Err(ModelError::UnknownArchitecture {
            origin: origin.to_owned(),
            reason: unknown(shapes),
        }),
    }
}

/// What stands before the anchors of `shapes`, each once.
fn prefixes(shapes: &[Shape]) -> BTreeSet<&str> {
    let before = |key| ANCHORS.iter().find_map(|anchor| str::strip_suffix(key, anchor));
    let prefixes = shapes.iter().filter_map(|(key, _)| before(key));
    prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')).collect()
}

/// The network whose keys begin with `prefix`.
///
/// * `inner`: prefixes of networks that were found to be whole; their keys are no part of this one
fn under(
    origin: &str,
    shapes: &[Shape],
    prefix: &str,
    inner: &[&str],
    heads: Option<i64>,
) -> Result<Choice, ModelError> {
    let mut found: Vec<Weight> = Vec::new();
    for (i, (key, shape)) in shapes.iter().enumerate() {
        if inner.iter().any(|inner| key.starts_with(*inner)) {
            continue;
        }
        if let Some(key) = key.strip_prefix(prefix) {
            let (key, shape) = (key.to_owned(), shape.clone());
            found.push(Weight { key, shape, source: Source::File(i) });
        }
    }
    let layout = evolve::is(&found).then_some(evolve::NAME);
    if layout.is_some() {
        let unknown =
            |reason| ModelError::UnknownArchitecture { origin: origin.to_owned(), reason };
        found = evolve::renamed(found).map_err(unknown)?;
    }
    let by_key: BTreeMap<&str, Vec<i64>> =
        found.iter().map(|weight| (weight.key.as_str(), weight.shape.clone())).collect();
    let (architecture, embedding) = recognise::recognise(origin, &by_key, heads)?;
    let network = recognise::name(architecture);
    let architecture = network.map_or(architecture, |network| network.architecture());
    let architecture = with_heads(architecture, heads);
    let own = Backbone::own_shapes(architecture, embedding)?;
    keep_own(origin, &mut found, &own, embedding)?;
    add_counters(&mut found, &own);
    let shapes_found: Vec<Shape> =
        found.iter().map(|weight| (weight.key.clone(), weight.shape.clone())).collect();
    Backbone::check_shapes(architecture, embedding, origin, &shapes_found)?;

    let is_taken: BTreeSet<usize> =
        found.iter().filter_map(|weight| weight.source.file()).collect();
    let others = shapes.iter().enumerate().filter(|(i, _)| !is_taken.contains(i));
    let others = others.map(|(_, (key, _))| key.as_str());
    let passed_over = grouped(others, prefix);
    Ok(Choice {
        architecture,
        network,
        embedding,
        weights: found,
        prefix: prefix.to_owned(),
        layout,
        passed_over,
    })
}

/// Keeps the tensors whose keys are in `own`. What else there is must be a head: anything else may be a part
/// of another network, which would be computed without it.
fn keep_own(
    origin: &str,
    found: &mut Vec<Weight>,
    own: &[Shape],
    embedding: i64,
) -> Result<(), ModelError> {
    let keys: BTreeSet<&str> = own.iter().map(|(key, _)| key.as_str()).collect();
    let parts: BTreeSet<&str> = own.iter().map(|(key, _)| first_part(key)).collect();
    let matrices: BTreeSet<String> = found
        .iter()
        .filter(|weight| weight.shape.len() == 2 && weight.shape.contains(&embedding))
        .map(|weight| parent(&weight.key).to_owned())
        .collect();
    let is_head = |weight: &Weight| {
        let part = first_part(&weight.key);
        !parts.contains(part)
            && (HEADS.contains(&part)
                || weight.shape.len() <= 2 && matrices.contains(parent(&weight.key)))
    };
    let strange =
        found.iter().find(|weight| !keys.contains(weight.key.as_str()) && !is_head(weight));
    if let Some(Weight { key, shape, .. }) = strange {
        let (origin, key, found) = (origin.to_owned(), key.clone(), shape.clone());
        return Err(ModelError::UnexpectedTensor { origin, key, found });
    }
    found.retain(|weight| keys.contains(weight.key.as_str()));
    Ok(())
}

fn first_part(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

fn parent(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Adds the counters of normalisations where a file has none: PyTorch before 0.4.1 did not keep them.
fn add_counters(found: &mut Vec<Weight>, own: &[Shape]) {
    const COUNTER: &str = "num_batches_tracked";
    if found.iter().any(|weight| weight.key.ends_with(COUNTER)) {
        return;
    }
    let counters = own.iter().filter(|(key, _)| key.ends_with(COUNTER));
    found.extend(counters.map(|(key, _)| Weight {
        key: key.clone(),
        shape: Vec::new(),
        source: Source::Counter,
    }));
}

/// A stated number of heads is part of the name's search already; nothing else may change it.
fn with_heads(architecture: Architecture, heads: Option<i64>) -> Architecture {
    match (architecture, heads) {
        (Architecture::Vit { dim, depth, patch, drop_path, mask, .. }, Some(heads)) => {
            Architecture::Vit { dim, depth, heads, patch, drop_path, mask }
        }
        (architecture, _) => architecture,
    }
}

/// Names of tensors beside the network, those of one dictionary together.
fn grouped<'k>(keys: impl Iterator<Item = &'k str>, prefix: &str) -> Vec<String> {
    let mut counts: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for key in keys {
        // The parts shared with the prefix, and one more.
        let shared = prefix.split_inclusive('.').scan(0, |end, part| {
            let is_shared = key[*end..].starts_with(part);
            *end += part.len();
            is_shared.then_some(*end)
        });
        let start = shared.last().unwrap_or(0);
        let end = key[start..].find('.').map_or(key.len(), |dot| start + dot);
        counts.entry(&key[..end]).or_insert((0, key)).0 += 1;
    }
    let name = |(group, (n, key)): (&str, (usize, &str))| match n {
        1 => format!("`{}`", key.escape_debug()),
        n => format!("`{}` ({n} tensors)", group.escape_debug()),
    };
    counts.into_iter().map(name).collect()
}

/// Keys that other networks have, and which networks these are.
const LOOKS: [(&str, &str); 14] = [
    ("conv2d_1a.conv.weight", "an Inception-ResNet of facenet-pytorch"),
    ("res_layer.5.fc1.weight", "an IR-SE network of face.evoLVe, with squeeze and excitation"),
    ("conv_6_dw.conv.weight", "a MobileFaceNet of InsightFace_Pytorch"),
    ("conv2_dw.conv.weight", "a MobileFaceNet of InsightFace_Pytorch or FaceX-Zoo"),
    ("layers.0.blocks.0.attn.qkv.weight", "a Swin transformer"),
    ("cls_token", "a vision transformer with a class token"),
    ("stages.0.blocks.0.conv_dw.weight", "a ConvNeXt or EdgeFace of timm"),
    ("dwconv.weight", "a ConvNeXt"),
    ("primary_conv.0.weight", "a GhostNet"),
    ("features.0.0.weight", "a MobileNet of torchvision"),
    ("layer1.0.bn1.weight", "a ResNet of torchvision"),
    ("mbconv.weight", "an EfficientNet"),
    ("conv1.filter.weight", "a LightCNN"),
    ("relu1_1.weight", "a SphereFace network of 4 to 64 layers"),
];

fn unknown(shapes: &[Shape]) -> String {
    let has = |end: &str| shapes.iter().any(|(key, _)| key.ends_with(end));
    let looks = LOOKS.iter().find(|(end, _)| has(end));
    let looks = looks.map(|(_, name)| format!("they look like {name}; ")).unwrap_or_default();
    let keys: Vec<&str> = shapes.iter().take(3).map(|(key, _)| key.as_str()).collect();
    format!("{looks}the keys begin with {}", keys.join(", "))
}
