//! Tells a network from the keys and shapes of its state dict.

use std::collections::BTreeMap;

use crate::{Architecture, IMAGE_SIZE, ModelError, Network};

/// More than any layer has; a file that claims more would claim memory.
const SIDE_MAX: i64 = 1 << 20;

type Shapes<'a> = BTreeMap<&'a str, Vec<i64>>;

/// The architecture and embedding size of tensors with these keys and shapes.
///
/// * `heads`: attention heads of a transformer, which no shape tells; without it, those of the named
///   network of the same shape
///
/// # Errors
///
/// [`ModelError::UnknownArchitecture`]; `origin` names where the tensors came from.
pub(crate) fn recognise(
    origin: &str,
    shapes: &Shapes<'_>,
    heads: Option<i64>,
) -> Result<(Architecture, i64), ModelError> {
    let unknown =
        |reason: String| ModelError::UnknownArchitecture { origin: origin.to_owned(), reason };
    let found = if shapes.contains_key("patch_embed.proj.weight") {
        vit(shapes, heads)
    } else if shapes.contains_key("conv_sep.layers.0.weight") {
        mobile_face_net(shapes)
    } else if shapes.contains_key("layer1.0.conv1.weight") {
        iresnet(shapes)
    } else {
        let keys: Vec<&str> = shapes.keys().take(3).copied().collect();
        Err(format!("its keys begin with {}", keys.join(", ")))
    };
    found.map_err(unknown)
}

/// The name of a network, where it has one; training-time noise does not count.
pub(crate) fn name(architecture: Architecture) -> Option<Network> {
    let quiet = |architecture| match architecture {
        Architecture::Vit { dim, depth, heads, patch, .. } => {
            Architecture::Vit { dim, depth, heads, patch, drop_path: 0.0, mask: 0.0 }
        }
        other => other,
    };
    Network::all().find(|network| quiet(network.architecture()) == quiet(architecture))
}

fn iresnet(shapes: &Shapes<'_>) -> Result<(Architecture, i64), String> {
    let stages = [1, 2, 3, 4].map(|stage| format!("layer{stage}."));
    let mut widths = [0; 4];
    for (width, stage) in widths.iter_mut().zip(&stages) {
        *width = side(shapes, &format!("{stage}0.conv1.weight"), 0)?;
    }
    let layers = stages.map(|stage| count(shapes, &stage));
    Ok((Architecture::IResNet { layers, widths }, side(shapes, "fc.weight", 0)?))
}

fn mobile_face_net(shapes: &Shapes<'_>) -> Result<(Architecture, i64), String> {
    let mut blocks = [1, 3, 5, 7].map(|layer| count(shapes, &format!("layers.{layer}.layers.")));
    // A single second block is a plain convolution, whose three layers are no blocks.
    if shapes.contains_key("layers.1.layers.2.weight") {
        blocks[0] = 1;
    }
    let width = side(shapes, "layers.0.layers.0.weight", 0)?;
    if width % 64 != 0 {
        return Err(format!("`layers.0` has {width} channels, no multiple of 64"));
    }
    let embedding = side(shapes, "features.layers.2.weight", 0)?;
    Ok((Architecture::MobileFaceNet { blocks, scale: width / 64 }, embedding))
}

fn vit(shapes: &Shapes<'_>, heads: Option<i64>) -> Result<(Architecture, i64), String> {
    let dim = side(shapes, "patch_embed.proj.weight", 0)?;
    let patch = side(shapes, "patch_embed.proj.weight", 3)?;
    if patch > IMAGE_SIZE {
        return Err(format!("patches of {patch} pixels are larger than the image"));
    }
    let depth = count(shapes, "blocks.");
    let of_name = Network::all().find_map(|network| match network.architecture() {
        Architecture::Vit { dim: d, depth: n, heads, patch: p, .. } => {
            ((d, n, p) == (dim, depth, patch)).then_some(heads)
        }
        _ => None,
    });
    let heads = heads.or(of_name).ok_or_else(|| {
        format!("a transformer of width {dim} and depth {depth} has no name, and no shape tells its heads")
    })?;
    if heads < 1 || dim % heads != 0 {
        return Err(format!("a width of {dim} cannot be shared among {heads} heads"));
    }
    let architecture = Architecture::Vit { dim, depth, heads, patch, drop_path: 0.0, mask: 0.0 };
    Ok((architecture, side(shapes, "feature.3.weight", 0)?))
}

fn side(shapes: &Shapes<'_>, key: &str, axis: usize) -> Result<i64, String> {
    let shape = shapes.get(key).ok_or_else(|| format!("it has no `{key}`"))?;
    if shape.iter().any(|side| !(1..=SIDE_MAX).contains(side)) {
        return Err(format!("`{key}` has shape {shape:?}"));
    }
    shape.get(axis).copied().ok_or_else(|| format!("`{key}` has shape {shape:?}"))
}

/// How many numbers follow `prefix` without a gap, as in `blocks.0.`, `blocks.1.`.
fn count(shapes: &Shapes<'_>, prefix: &str) -> usize {
    let has = |i: &usize| {
        let start = format!("{prefix}{i}.");
        shapes.range(start.as_str()..).next().is_some_and(|(key, _)| key.starts_with(&start))
    };
    (0..).take_while(has).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backbone, BackboneSpec};

    fn shapes_of(backbone: &Backbone) -> Vec<(String, Vec<i64>)> {
        backbone.state_dict().into_iter().map(|(key, tensor)| (key, tensor.size())).collect()
    }

    fn told(shapes: &[(String, Vec<i64>)]) -> Result<(Architecture, i64), ModelError> {
        let shapes = shapes.iter().map(|(key, shape)| (key.as_str(), shape.clone())).collect();
        recognise("a.pth", &shapes, None)
    }

    #[test]
    fn every_named_network_is_told_from_its_shapes() {
        for network in Network::all() {
            let spec = BackboneSpec { network, embedding: 96 };
            let backbone = Backbone::shapes(&spec).unwrap();
            let (architecture, embedding) = told(&shapes_of(&backbone)).unwrap();
            assert_eq!(embedding, 96);
            let found = name(architecture).unwrap();
            assert_eq!(name(network.architecture()), Some(found), "{network}");
        }
    }

    #[test]
    fn weights_of_no_known_network_are_refused() {
        let shape = |key: &str, sides: &[i64]| (key.to_owned(), sides.to_vec());
        let refuse = |shapes: &[(String, Vec<i64>)]| told(shapes).unwrap_err().to_string();
        assert_eq!(
            refuse(&[shape("stem.weight", &[8, 3])]),
            "a.pth: the weights belong to no known network: its keys begin with stem.weight"
        );
        let conv = shape("layer1.0.conv1.weight", &[8, 0, 3, 3]);
        assert!(refuse(std::slice::from_ref(&conv)).ends_with("has shape [8, 0, 3, 3]"));
        let patch = shape("patch_embed.proj.weight", &[64, 3, 9, 9]);
        assert!(refuse(std::slice::from_ref(&patch)).contains("no shape tells its heads"));
        let huge = shape("patch_embed.proj.weight", &[1 << 40, 3, 9, 9]);
        assert!(refuse(&[huge]).contains("has shape"));
        // What is beside the network is nobody's business here.
        let head = shape("head.weight", &[1 << 40, 512]);
        assert!(!refuse(&[head, conv]).contains("head"));
    }
}
