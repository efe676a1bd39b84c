//! ONNX: the graph written out as Protocol Buffers, without an exporter between.

use std::path::Path;

use pfc_onnx::{
    metadata,
    proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type, data_type,
    },
};
use prost::Message;
use tch::{Kind, Tensor};

use crate::{
    IMAGE_SIZE, Inference, ModelError, Network, bytes,
    graph::{Attribute, Constant, Graph, Node, Value},
    net::INPUT,
};

/// Name of the output.
const OUTPUT: &str = "embedding";
/// Name of the axis that any batch may have.
const BATCH: &str = "batch";

/// How a model is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnnxOptions {
    /// Normalise within the graph, which then takes pixels of 0 to 255 as f32.
    pub embed_preprocessing: bool,
    /// Weights and arithmetic in f16; input and output stay f32.
    pub half: bool,
    /// Stated in the metadata.
    pub network: Option<Network>,
}

/// Writes the network, normalisations folded, with input `data` `[batch, 3, 112, 112]` and output
/// `embedding` `[batch, E]`, any batch.
///
/// Metadata state the order of the channels, mean and standard deviation. Operator set 11, or 17
/// for transformers.
///
/// # Errors
///
/// [`ModelError::Durable`].
pub fn onnx(path: &Path, inference: &Inference, options: OnnxOptions) -> Result<(), ModelError> {
    let bytes = model(inference, options).encode_to_vec();
    pfc_durable::write(path, &bytes)?;
    Ok(())
}

fn model(inference: &Inference, options: OnnxOptions) -> ModelProto {
    let mut graph = Graph { plain_normalisation: options.half, ..Graph::default() };
    let mut images = Value::new(INPUT, &[3, IMAGE_SIZE, IMAGE_SIZE]);
    if options.embed_preprocessing {
        images = normalised(&mut graph, &images);
    }
    // What comes before stays f32: 127.5 and pixels are exact in f16, their quotient is not.
    let n_full = graph.constants.len();
    if options.half {
        images = cast(&mut graph, "narrowed", &images, data_type::FLOAT16);
    }
    let mut embedding = inference.emit_from(&mut graph, &images);
    if options.half {
        embedding = cast(&mut graph, "widened", &embedding, data_type::FLOAT);
    }
    rename_output(&mut graph, &embedding);
    let is_transformer = graph.nodes.iter().any(|node| node.op == "LayerNormalization");
    let (ir_version, version) = if is_transformer { (8, 17) } else { (6, 11) };
    let opset = OperatorSetIdProto { domain: String::new(), version };
    ModelProto {
        ir_version,
        producer_name: "pfc".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata_props: metadata_of(options),
        graph: Some(graph_proto(graph, inference.embedding(), n_full, options.half)),
        opset_import: vec![opset],
        ..ModelProto::default()
    }
}

/// Subtraction, then multiplication: what `InsightFace`'s own tools look for.
fn normalised(graph: &mut Graph, images: &Value) -> Value {
    let mean = graph.numbers("preprocessing.mean".to_owned(), &Tensor::from(127.5f32));
    let factor = graph.numbers("preprocessing.factor".to_owned(), &Tensor::from(1.0 / 127.5f32));
    let shape = images.shape.clone();
    let centred = graph.node("Sub", "Sub_0", &[&images.name, &mean], Vec::new(), &shape);
    graph.node("Mul", "Mul_0", &[&centred.name, &factor], Vec::new(), &shape)
}

fn cast(graph: &mut Graph, name: &str, x: &Value, to: i32) -> Value {
    let to = vec![("to", Attribute::Int(i64::from(to)))];
    graph.node("Cast", name, &[&x.name], to, &x.shape)
}

fn rename_output(graph: &mut Graph, embedding: &Value) {
    if let Some(last) = graph.nodes.iter_mut().rfind(|node| node.output == embedding.name) {
        last.output = OUTPUT.to_owned();
    }
}

fn metadata_of(options: OnnxOptions) -> Vec<StringStringEntryProto> {
    let [mean, std] = if options.embed_preprocessing { ["0", "1"] } else { ["127.5"; 2] };
    let mut entries =
        vec![(metadata::CHANNELS, "RGB"), (metadata::MEAN, mean), (metadata::STD, std)];
    entries.extend(options.network.as_ref().map(|network| (metadata::NETWORK, network.name())));
    let entry = |(key, value): (&str, &str)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    entries.into_iter().map(entry).collect()
}

/// `n_full`: how many constants, from the first, stay f32 where the others are narrowed.
fn graph_proto(graph: Graph, embedding: i64, n_full: usize, half: bool) -> GraphProto {
    let side = Ok(IMAGE_SIZE);
    let images = [Err(BATCH), Ok(3), side, side];
    let constants = graph.constants.into_iter().enumerate();
    let initializer =
        constants.map(|(i, (name, constant))| tensor(name, &constant, half && i >= n_full));
    GraphProto {
        node: graph.nodes.into_iter().map(node).collect(),
        name: "backbone".to_owned(),
        initializer: initializer.collect(),
        input: vec![ValueInfoProto::tensor(INPUT, data_type::FLOAT, &images)],
        output: vec![ValueInfoProto::tensor(
            OUTPUT,
            data_type::FLOAT,
            &[Err(BATCH), Ok(embedding)],
        )],
        ..GraphProto::default()
    }
}

fn node(node: Node) -> NodeProto {
    NodeProto {
        input: node.inputs,
        output: vec![node.output],
        name: node.name,
        op_type: node.op.to_owned(),
        attribute: node.attributes.into_iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

fn attribute((name, attribute): (&str, Attribute)) -> AttributeProto {
    let named = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match attribute {
        Attribute::Int(i) => AttributeProto { i: Some(i), kind: attribute_type::INT, ..named },
        Attribute::Ints(ints) => AttributeProto { ints, kind: attribute_type::INTS, ..named },
        Attribute::Float(f) => AttributeProto { f: Some(f), kind: attribute_type::FLOAT, ..named },
    }
}

fn tensor(name: String, constant: &Constant, half: bool) -> TensorProto {
    let (dims, data_type, raw) = match constant {
        Constant::Integers { shape, values } => {
            let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (shape.clone(), data_type::INT64, raw)
        }
        Constant::Numbers(tensor) => {
            let (kind, data_type) = if half {
                (Kind::Half, data_type::FLOAT16)
            } else {
                (Kind::Float, data_type::FLOAT)
            };
            let raw = bytes::with_bytes(&tensor.to_kind(kind), <[u8]>::to_vec);
            (tensor.size(), data_type, raw)
        }
    };
    TensorProto { dims, data_type, name, raw_data: Some(raw.into()), ..TensorProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, Backbone};

    fn written(options: OnnxOptions) -> ModelProto {
        let architecture = Architecture::IResNet { layers: [1; 4], widths: [8; 4] };
        let backbone = Backbone::with_architecture(architecture, 16, tch::Device::Cpu, 1).unwrap();
        model(&backbone.into_inference(), options)
    }

    #[test]
    fn every_input_of_a_node_is_defined_before_it() {
        for half in [false, true] {
            let graph = written(OnnxOptions { half, ..OnnxOptions::default() }).graph.unwrap();
            let constants = graph.initializer.iter().map(|tensor| tensor.name.as_str());
            let mut defined: std::collections::BTreeSet<&str> = constants.collect();
            assert_eq!(defined.len(), graph.initializer.len(), "a constant occurs twice");
            defined.insert(INPUT);
            for node in &graph.node {
                let missing = node.input.iter().find(|input| !defined.contains(input.as_str()));
                assert_eq!(missing, None, "{}", node.name);
                assert!(defined.insert(&node.output[0]), "{}", node.name);
            }
            assert!(defined.contains(OUTPUT));
        }
    }

    #[test]
    fn half_precision_halves_the_weights_and_leaves_the_ends_alone() {
        let n_bytes = |half| written(OnnxOptions { half, ..OnnxOptions::default() }).encoded_len();
        assert!((n_bytes(true) as f64) < 0.6 * n_bytes(false) as f64);
        let graph = written(OnnxOptions { half: true, embed_preprocessing: true, network: None })
            .graph
            .unwrap();
        assert_eq!(graph.initializer[0].data_type, data_type::FLOAT);
        assert_eq!(graph.initializer[2].data_type, data_type::FLOAT16);
        let ops: Vec<&str> = graph.node.iter().take(3).map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Sub", "Mul", "Cast"]);
    }
}
