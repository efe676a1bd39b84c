//! Tells from a model's file what its input wants.

use std::collections::HashSet;

use crate::{
    InputOptions, InputSpec, Layout, Origin,
    input::{SIDE_MAX, numbers},
    metadata,
    proto::{GraphProto, ModelProto, NodeProto, TensorProto, data_type},
};

/// Nodes looked at from the input on, as many as `InsightFace`'s own scripts do.
const NODES_MAX: usize = 8;

/// The input of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recognised {
    /// Its name in the graph.
    pub(crate) name: String,
    /// What it wants.
    pub(crate) spec: InputSpec,
    /// Element type, one of [`data_type`].
    pub(crate) elem_type: i32,
    /// Images of a batch, where the file fixes them.
    pub(crate) batch: Option<usize>,
}

/// What the input of `model` is; `options` wins over what is recognised.
///
/// # Errors
///
/// Why it takes no images.
pub(crate) fn recognise(model: &ModelProto, options: &InputOptions) -> Result<Recognised, String> {
    let graph = model.graph.as_ref().ok_or("there is no graph")?;
    // Old files list their weights as inputs too.
    let weights: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut inputs = graph.input.iter().filter(|input| !weights.contains(input.name.as_str()));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        let n = graph.input.len() - weights.len().min(graph.input.len());
        return Err(format!("there are {n} inputs"));
    };
    let (elem_type, sizes) = input.shape().ok_or("its shape is not stated")?;
    if ![data_type::FLOAT, data_type::FLOAT16, data_type::UINT8].contains(&elem_type) {
        return Err(format!("its elements are of type {elem_type}, not f32, f16 or u8"));
    }
    let &[batch, a, b, c] = &sizes[..] else {
        return Err(format!("it has {} dimensions", sizes.len()));
    };
    let (layout, height, width) = match (a, c) {
        (Some(3), _) => (Layout::Planes, b, c),
        (_, Some(3)) => (Layout::Pixels, a, b),
        (None, _) => (Layout::Planes, b, c),
        _ => return Err("none of its dimensions is the three channels".to_owned()),
    };
    let side = |stated: Option<usize>, i: usize| {
        let side = stated.or(options.size.map(|size| size[i])).unwrap_or(crate::FACE_SIDE);
        if side <= SIDE_MAX { Ok(side) } else { Err(format!("its side of {side} is too large")) }
    };
    let (height, width) = (side(height, 0)?, side(width, 1)?);
    let (mean, std, origin) = normalisation(model, graph, &input.name)?;
    let channels = match metadata_value(model, metadata::CHANNELS) {
        Some(text) => text.parse()?,
        None => InputSpec::insightface().channels,
    };
    let spec = InputSpec { height, width, channels, layout, mean, std, origin }
        // A fixed size is what the network was built for, whatever is stated.
        .with(&InputOptions { size: None, ..options.clone() });
    Ok(Recognised { name: input.name.clone(), spec, elem_type, batch })
}

fn normalisation(
    model: &ModelProto,
    graph: &GraphProto,
    input: &str,
) -> Result<([f32; 3], [f32; 3], Origin), String> {
    let stated = (metadata_value(model, metadata::MEAN), metadata_value(model, metadata::STD));
    if let (Some(mean), Some(std)) = stated {
        let std = InputOptions::parse_std(std)?;
        return Ok((numbers(mean)?, std, Origin::Metadata));
    }
    Ok(match own_normalisation(graph, input) {
        Some(std) => ([0.0; 3], [std; 3], Origin::Graph),
        None => {
            let InputSpec { mean, std, origin, .. } = InputSpec::insightface();
            (mean, std, origin)
        }
    })
}

fn metadata_value<'m>(model: &'m ModelProto, key: &str) -> Option<&'m str> {
    model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// What pixels of 0 to 255 are divided by before a network that normalises by itself: 1, or 255
/// where its own constants show that it expects 0 to 1. `None` if it does not normalise.
fn own_normalisation(graph: &GraphProto, input: &str) -> Option<f32> {
    let mut value = input;
    for _ in 0..NODES_MAX {
        let node = graph.node.iter().find(|node| node.input.iter().any(|name| name == value))?;
        match node.op_type.as_str() {
            "Cast" | "Identity" | "Transpose" => value = node.output.first()?,
            "Sub" | "Add" => {
                let size = constant(graph, node, value)?;
                return Some(if size > 1.0 { 1.0 } else { 255.0 });
            }
            "Div" => return Some(if constant(graph, node, value)? > 1.5 { 1.0 } else { 255.0 }),
            "Mul" => return Some(if constant(graph, node, value)? < 0.5 { 1.0 } else { 255.0 }),
            "BatchNormalization" => return Some(1.0),
            _ => return None,
        }
    }
    None
}

/// The largest absolute value of a node's other operand, if that is a small constant.
fn constant(graph: &GraphProto, node: &NodeProto, value: &str) -> Option<f32> {
    let name = node.input.iter().find(|name| name.as_str() != value)?;
    let initial = graph.initializer.iter().find(|tensor| tensor.name == *name);
    let made = || {
        let maker = graph.node.iter().find(|node| node.output.first() == Some(name))?;
        let attribute = maker.attribute.iter().find(|attribute| attribute.name == "value")?;
        (maker.op_type == "Constant").then_some(attribute.t.as_ref()?)
    };
    let tensor: &TensorProto = initial.or_else(made)?;
    let values = tensor.floats(3)?;
    values.into_iter().map(f32::abs).reduce(f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ChannelOrder,
        proto::{StringStringEntryProto, ValueInfoProto},
    };

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn scalar(name: &str, value: f32) -> TensorProto {
        let float_data = vec![value];
        TensorProto { name: name.into(), data_type: 1, float_data, ..TensorProto::default() }
    }

    fn model(
        sizes: &[Result<i64, &str>],
        node: Vec<NodeProto>,
        initializer: Vec<TensorProto>,
    ) -> ModelProto {
        let input = vec![ValueInfoProto::tensor("data", data_type::FLOAT, sizes)];
        let graph = GraphProto { node, initializer, input, ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    const DYNAMIC: [Result<i64, &str>; 4] = [Err("None"), Ok(3), Ok(112), Ok(112)];

    fn recognised(model: &ModelProto) -> Recognised {
        recognise(model, &InputOptions::default()).unwrap()
    }

    #[test]
    fn an_insightface_export_is_normalised_by_convention() {
        let found = recognised(&model(&DYNAMIC, vec![node("Conv", &["data", "w"], "x")], vec![]));
        assert_eq!(found.spec, InputSpec::insightface());
        assert_eq!((found.batch, found.name.as_str()), (None, "data"));
    }

    #[test]
    fn a_network_that_normalises_gets_plain_pixels() {
        let check = |op: &str, value: f32, expected: f32| {
            let nodes = vec![node("Identity", &["data"], "a"), node(op, &["a", "c"], "b")];
            let spec = recognised(&model(&DYNAMIC, nodes, vec![scalar("c", value)])).spec;
            assert_eq!((spec.mean, spec.std), ([0.0; 3], [expected; 3]), "{op} {value}");
            assert_eq!(spec.origin, Origin::Graph);
        };
        check("Sub", 127.5, 1.0);
        check("Sub", 0.5, 255.0);
        check("Add", -127.5, 1.0);
        check("Div", 255.0, 1.0);
        check("Mul", 1.0 / 128.0, 1.0);
        check("Mul", 2.0, 255.0);
    }

    #[test]
    fn metadata_win_over_the_graph_and_flags_over_both() {
        let mut model =
            model(&DYNAMIC, vec![node("Sub", &["data", "c"], "x")], vec![scalar("c", 127.5)]);
        for (key, value) in
            [(metadata::MEAN, "1 2 3"), (metadata::STD, "4"), (metadata::CHANNELS, "BGR")]
        {
            let (key, value) = (key.to_owned(), value.to_owned());
            model.metadata_props.push(StringStringEntryProto { key, value });
        }
        let spec = recognised(&model).spec;
        assert_eq!(
            (spec.mean, spec.std[0], spec.channels),
            ([1.0, 2.0, 3.0], 4.0, ChannelOrder::Bgr)
        );
        let options = InputOptions { mean: Some([9.0; 3]), ..InputOptions::default() };
        let spec = recognise(&model, &options).unwrap().spec;
        assert_eq!((spec.mean, spec.std, spec.origin), ([9.0; 3], [4.0; 3], Origin::Stated));
    }

    #[test]
    fn the_layout_and_a_fixed_batch_are_told_from_the_shape() {
        let found = recognised(&model(&[Ok(8), Ok(128), Ok(96), Ok(3)], vec![], vec![]));
        assert_eq!((found.batch, found.spec.layout), (Some(8), Layout::Pixels));
        assert_eq!((found.spec.height, found.spec.width), (128, 96));
        let open = model(&[Err("n"), Ok(3), Err("h"), Err("w")], vec![], vec![]);
        let options = InputOptions { size: Some([224, 160]), ..InputOptions::default() };
        let spec = recognise(&open, &options).unwrap().spec;
        assert_eq!((spec.height, spec.width), (224, 160));
    }

    #[test]
    fn inputs_that_are_no_faces_are_refused() {
        let refuse = |model: &ModelProto| recognise(model, &InputOptions::default()).unwrap_err();
        assert_eq!(refuse(&model(&[Ok(1), Ok(512)], vec![], vec![])), "it has 2 dimensions");
        let grey = model(&[Ok(1), Ok(1), Ok(112), Ok(112)], vec![], vec![]);
        assert_eq!(refuse(&grey), "none of its dimensions is the three channels");
        let huge = model(&[Ok(1), Ok(3), Ok(1 << 40), Ok(112)], vec![], vec![]);
        assert!(refuse(&huge).contains("too large"));
    }
}
