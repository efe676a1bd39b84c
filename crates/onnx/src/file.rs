//! An ONNX file read and looked through before the runtime sees it.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read},
    path::Path,
};

use bytes::Bytes;
use prost::Message;

use crate::{
    OnnxError,
    proto::{EXTERNAL, GraphProto, ModelProto, NodeProto, TensorProto},
};

/// What Protocol Buffers allow.
const BYTES_MAX: u64 = 1 << 31;

/// The bytes of a file and what they say.
pub(crate) fn read(path: &Path) -> Result<(Bytes, ModelProto), OnnxError> {
    let io = |source| OnnxError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(io(Error::new(ErrorKind::InvalidInput, "it is no regular file")));
    }
    let refuse = |reason: String| OnnxError::NotOnnx { path: path.to_owned(), reason };
    if metadata.len() > BYTES_MAX {
        return Err(refuse(format!("{} bytes are more than {BYTES_MAX}", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // The file may grow meanwhile; what is read stays bounded.
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    let bytes = Bytes::from(bytes);
    let model = parse(bytes.clone()).map_err(refuse)?;
    Ok((bytes, model))
}

/// Decodes a model and refuses what reaches beyond its file.
///
/// # Errors
///
/// Why it is no model that is used here.
pub(crate) fn parse(bytes: Bytes) -> Result<ModelProto, String> {
    let model = ModelProto::decode(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_ref().ok_or("it has no graph")?;
    if graph.node.is_empty() {
        return Err("its graph has no node".to_owned());
    }
    match external(graph) {
        None => Ok(model),
        Some(name) => Err(format!("its tensor `{}` lies in another file", name.escape_debug())),
    }
}

/// The first tensor that is kept in another file: which one, the model could choose freely.
fn external(graph: &GraphProto) -> Option<&str> {
    let is_external = |tensor: &&TensorProto| tensor.data_location == EXTERNAL;
    let initial = graph.initializer.iter().find(is_external).map(|tensor| tensor.name.as_str());
    initial.or_else(|| graph.node.iter().find_map(external_of_node))
}

fn external_of_node(node: &NodeProto) -> Option<&str> {
    node.attribute.iter().find_map(|attribute| {
        let mut tensors = attribute.t.iter().chain(&attribute.tensors);
        let own = tensors.find(|tensor| tensor.data_location == EXTERNAL);
        let graphs = || attribute.g.iter().chain(&attribute.graphs);
        own.map(|tensor| tensor.name.as_str()).or_else(|| graphs().find_map(external))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    fn model(graph: GraphProto) -> Bytes {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec().into()
    }

    #[test]
    fn weights_in_another_file_are_refused_wherever_they_are_named() {
        let tensor =
            TensorProto { name: "w".into(), data_location: EXTERNAL, ..TensorProto::default() };
        let node = |attribute| NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        let plain = || vec![NodeProto::default()];
        let direct = GraphProto {
            initializer: vec![tensor.clone()],
            node: plain(),
            ..GraphProto::default()
        };
        let constant = node(AttributeProto { t: Some(tensor), ..AttributeProto::default() });
        let inner = GraphProto { node: vec![constant.clone()], ..GraphProto::default() };
        let branch = node(AttributeProto { g: Some(inner), ..AttributeProto::default() });
        for graph in [
            direct,
            GraphProto { node: vec![constant], ..GraphProto::default() },
            GraphProto { node: vec![branch], ..GraphProto::default() },
        ] {
            assert_eq!(parse(model(graph)).unwrap_err(), "its tensor `w` lies in another file");
        }
        assert!(parse(model(GraphProto { node: plain(), ..GraphProto::default() })).is_ok());
    }

    #[test]
    fn what_is_no_model_is_refused() {
        assert_eq!(parse(Bytes::new()).unwrap_err(), "it has no graph");
        assert!(parse(Bytes::from_static(b"PK\x03\x04 not a model")).is_err());
        assert!(parse(Bytes::from_static(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert_eq!(parse(model(GraphProto::default())).unwrap_err(), "its graph has no node");
    }
}
