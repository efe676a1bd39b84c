//! The IR networks of face.evoLVe, as `AdaFace`, `CVLface` and `TFace` have them: our `IResNet` by other names.
//!
//! Blocks are numbered through instead of by stages. A block whose input has as many channels as its output
//! takes every second pixel of it where it halves the sides; here a convolution and a normalisation do, which
//! can be the identity. Some leave out the normalisation between the convolutions of a block, or the
//! weights of the last one, which then are the identity too.

use super::source::{Source, Weight};

/// Whose names these are.
pub(super) const NAME: &str = "face.evoLVe, AdaFace, CVLface and TFace";
/// A key that every such network has once.
pub(super) const ANCHOR: &str = "input_layer.0.weight";

/// Whether `found` has the keys of such a network.
pub(super) fn is(found: &[Weight]) -> bool {
    let has = |key: &str| found.iter().any(|weight| weight.key == key);
    has(ANCHOR) && has("body.0.res_layer.1.weight") && has("output_layer.3.weight")
}

/// The tensors by the names of an `IResNet`, with those that such a network has beside. What has no
/// counterpart keeps its name.
///
/// # Errors
///
/// Why it is none.
pub(super) fn renamed(found: Vec<Weight>) -> Result<Vec<Weight>, String> {
    let blocks = blocks(&found)?;
    let mut out: Vec<Weight> = found.into_iter().map(|weight| rename(weight, &blocks)).collect();
    for block in &blocks {
        let (name, width) = (&block.name, block.width);
        if block.is_first && !out.iter().any(|w| w.key == format!("{name}.downsample.0.weight")) {
            if block.n_in != width {
                return Err(format!("block {name} has {} channels for {width}", block.n_in));
            }
            let key = format!("{name}.downsample.0.weight");
            out.push(Weight { key, shape: vec![width, width, 1, 1], source: Source::Identity });
            add_identity(&mut out, &format!("{name}.downsample.1"), width);
        }
        if !out.iter().any(|w| w.key == format!("{name}.bn2.running_mean")) {
            add_identity(&mut out, &format!("{name}.bn2"), width);
        }
    }
    complete(&mut out, "features");
    Ok(out)
}

/// A block of the network.
struct Block {
    /// Its name here, `layer2.0`.
    name: String,
    /// Channels that it takes and gives.
    n_in: i64,
    width: i64,
    /// Whether it is its stage's first, which halves the sides.
    is_first: bool,
    /// Whether a normalisation lies between its convolutions.
    has_middle: bool,
}

/// Blocks in order. A stage begins where the channels become more.
fn blocks(found: &[Weight]) -> Result<Vec<Block>, String> {
    let shape = |key: &str| found.iter().find(|weight| weight.key == key).map(|w| &w.shape[..]);
    let mut blocks: Vec<Block> = Vec::new();
    let (mut stage, mut number) = (0, 0);
    for i in 0.. {
        let Some(&[width, n_in, ..]) = shape(&format!("body.{i}.res_layer.1.weight")) else {
            break;
        };
        let is_first = blocks.last().is_none_or(|block| block.width != width);
        (stage, number) = if is_first { (stage + 1, 0) } else { (stage, number + 1) };
        // Of one number for each channel: the normalisation's, or else the slopes'.
        let has_middle = shape(&format!("body.{i}.res_layer.2.running_mean")).is_some();
        let name = format!("layer{stage}.{number}");
        blocks.push(Block { name, n_in, width, is_first, has_middle });
    }
    match stage {
        4 => Ok(blocks),
        _ => Err(format!("it has {stage} stages, and 4 are known")),
    }
}

fn rename(weight: Weight, blocks: &[Block]) -> Weight {
    let key = new_name(&weight.key, blocks).unwrap_or_else(|| weight.key.clone());
    Weight { key, ..weight }
}

fn new_name(key: &str, blocks: &[Block]) -> Option<String> {
    let (parent, leaf) = key.rsplit_once('.')?;
    let ends = [
        ("input_layer.0", "conv1"),
        ("input_layer.1", "bn1"),
        ("input_layer.2", "prelu"),
        ("output_layer.0", "bn2"),
        ("output_layer.3", "fc"),
        ("output_layer.4", "features"),
    ];
    if let Some((_, name)) = ends.iter().find(|(old, _)| *old == parent) {
        return Some(format!("{name}.{leaf}"));
    }
    let (number, layer) = parent.strip_prefix("body.")?.split_once('.')?;
    let block = blocks.get(number.parse::<usize>().ok()?)?;
    let with_middle = ["bn1", "conv1", "bn2", "prelu", "conv2", "bn3"];
    let without = ["bn1", "conv1", "prelu", "conv2", "bn3"];
    let names: &[&str] = if block.has_middle { &with_middle } else { &without };
    let name = match layer.split_once('.')? {
        ("res_layer", place) => (*names.get(place.parse::<usize>().ok()?)?).to_owned(),
        ("shortcut_layer", place) => format!("downsample.{place}"),
        _ => return None,
    };
    Some(format!("{}.{name}.{leaf}", block.name))
}

/// Adds a normalisation that leaves its `width` channels as they are.
fn add_identity(out: &mut Vec<Weight>, name: &str, width: i64) {
    let parts = [
        ("weight", Source::Ones),
        ("bias", Source::Zeros),
        ("running_mean", Source::Zeros),
        ("running_var", Source::UnitVariance),
    ];
    out.extend(parts.map(|(part, source)| Weight {
        key: format!("{name}.{part}"),
        shape: vec![width],
        source,
    }));
    // Where other normalisations count, so does this one.
    if out.iter().any(|weight| weight.key.ends_with("num_batches_tracked")) {
        let key = format!("{name}.num_batches_tracked");
        out.push(Weight { key, shape: Vec::new(), source: Source::Counter });
    }
}

/// Adds weight and bias to a normalisation that has statistics alone.
fn complete(out: &mut Vec<Weight>, name: &str) {
    let shape_of = |out: &[Weight], part: &str| {
        out.iter().find(|weight| weight.key == format!("{name}.{part}")).map(|w| w.shape.clone())
    };
    if let (Some(shape), None) = (shape_of(out, "running_mean"), shape_of(out, "weight")) {
        for (part, source) in [("weight", Source::Ones), ("bias", Source::Zeros)] {
            out.push(Weight { key: format!("{name}.{part}"), shape: shape.clone(), source });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The keys of such a network with one block a stage and 8 channels throughout the first.
    fn keys(has_middle: bool, has_affine: bool) -> Vec<Weight> {
        let mut keys: Vec<(String, Vec<i64>)> = Vec::new();
        let norm = |keys: &mut Vec<(String, Vec<i64>)>, name: &str, width: i64, affine: bool| {
            let parts: &[&str] = if affine {
                &["weight", "bias", "running_mean", "running_var"]
            } else {
                &["running_mean", "running_var"]
            };
            keys.extend(parts.iter().map(|part| (format!("{name}.{part}"), vec![width])));
        };
        keys.push(("input_layer.0.weight".to_owned(), vec![8, 3, 3, 3]));
        norm(&mut keys, "input_layer.1", 8, true);
        keys.push(("input_layer.2.weight".to_owned(), vec![8]));
        let mut n_in = 8;
        for (i, width) in [8, 16, 32, 64].into_iter().enumerate() {
            let name = format!("body.{i}.res_layer");
            norm(&mut keys, &format!("{name}.0"), n_in, true);
            keys.push((format!("{name}.1.weight"), vec![width, n_in, 3, 3]));
            let mut next = 2;
            if has_middle {
                norm(&mut keys, &format!("{name}.2"), width, true);
                next = 3;
            }
            keys.push((format!("{name}.{next}.weight"), vec![width]));
            keys.push((format!("{name}.{}.weight", next + 1), vec![width, width, 3, 3]));
            norm(&mut keys, &format!("{name}.{}", next + 2), width, true);
            if n_in != width {
                keys.push((format!("body.{i}.shortcut_layer.0.weight"), vec![width, n_in, 1, 1]));
                norm(&mut keys, &format!("body.{i}.shortcut_layer.1"), width, true);
            }
            n_in = width;
        }
        norm(&mut keys, "output_layer.0", 64, true);
        keys.push(("output_layer.3.weight".to_owned(), vec![24, 64 * 49]));
        keys.push(("output_layer.3.bias".to_owned(), vec![24]));
        norm(&mut keys, "output_layer.4", 24, has_affine);
        let weight = |(i, (key, shape))| Weight { key, shape, source: Source::File(i) };
        keys.into_iter().enumerate().map(weight).collect()
    }

    #[test]
    fn every_form_becomes_an_iresnet() {
        for (has_middle, has_affine) in [(true, false), (true, true), (false, true)] {
            let found = keys(has_middle, has_affine);
            assert!(is(&found));
            let architecture =
                crate::Architecture::IResNet { layers: [1; 4], widths: [8, 16, 32, 64] };
            let own = crate::Backbone::own_shapes(architecture, 24).unwrap();
            let own: BTreeMap<String, Vec<i64>> =
                own.into_iter().filter(|(key, _)| !key.ends_with("num_batches_tracked")).collect();
            let renamed = renamed(found).unwrap();
            let shapes: BTreeMap<String, Vec<i64>> =
                renamed.iter().map(|w| (w.key.clone(), w.shape.clone())).collect();
            assert_eq!(shapes, own);
            let made: Vec<&str> = renamed
                .iter()
                .filter(|w| w.source.file().is_none() && w.key.ends_with("weight"))
                .map(|w| w.key.as_str())
                .collect();
            assert!(made.contains(&"layer1.0.downsample.0.weight"), "{made:?}");
            assert_eq!(made.contains(&"layer2.0.bn2.weight"), !has_middle);
            assert_eq!(made.contains(&"features.weight"), !has_affine);
        }
    }

    #[test]
    fn a_network_of_another_depth_says_how_many_stages_it_has() {
        let mut found = keys(true, true);
        found.retain(|weight| !weight.key.starts_with("body.3."));
        assert_eq!(renamed(found).unwrap_err(), "it has 3 stages, and 4 are known");
    }
}
