//! An ONNX file read and looked through before the runtime sees it.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read},
    path::Path,
};

use bytes::Bytes;
use pfc_durable::DurableError;
use prost::Message as _;

use crate::{
    OnnxError,
    declared::stale_inputs,
    external::{self, BYTES_MAX},
    foreign::{self, Foreign},
    nan::{self, WithNan},
    proto::{ModelProto, ValueInfoProto},
    wire::{self, Change},
};

/// The bytes of a model, which need no other file, and what they say.
///
/// # Errors
///
/// [`OnnxError::Durable`], [`OnnxError::NotOnnx`], [`OnnxError::External`], [`OnnxError::NanWeights`].
pub(crate) fn read(path: &Path) -> Result<(Bytes, ModelProto), OnnxError> {
    let io = |source| OnnxError::from(DurableError::at("read", path)(source));
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let refuse =
        |reason: String| OnnxError::NotOnnx { path: path.to_owned(), reason, way_out: None };
    let is_foreign = |Foreign { reason, way_out }: Foreign| OnnxError::NotOnnx {
        path: path.to_owned(),
        reason,
        way_out: Some(way_out),
    };
    if metadata.is_dir() {
        let folder = foreign::convertible(path, &[]);
        return Err(folder.map_or_else(|| refuse("it is a folder".to_owned()), is_foreign));
    }
    if !metadata.is_file() {
        return Err(io(Error::new(ErrorKind::InvalidInput, "it is no regular file")));
    }
    if metadata.len() > BYTES_MAX {
        return Err(refuse(format!("{} bytes are more than {BYTES_MAX}", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // The file may grow meanwhile; what is read stays bounded.
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    let bytes = Bytes::from(bytes);
    // Whether it is a model at all comes first.
    parse(bytes.clone()).map_err(|reason| {
        let head = &bytes[..bytes.len().min(foreign::HEAD_BYTES as usize)];
        let known = foreign::convertible(path, head).or_else(|| foreign::named(path, head));
        known.map_or_else(|| refuse(reason), is_foreign)
    })?;
    let bytes = external::inlined(path, &bytes)?.map_or(bytes, Bytes::from);
    if bytes.len() as u64 > BYTES_MAX {
        let reason = format!("{} bytes, with its weights, are more than {BYTES_MAX}", bytes.len());
        return Err(refuse(reason));
    }
    if let Some(WithNan { tensor, n_bad, n }) = nan::first(&bytes).map_err(refuse)? {
        return Err(OnnxError::NanWeights { path: path.to_owned(), tensor, n_bad, n });
    }
    let model = parse(bytes.clone()).map_err(refuse)?;
    match without_stale_inputs(&model, &bytes).map_err(refuse)? {
        None => Ok((bytes, model)),
        Some(without) => {
            let bytes = Bytes::from(without);
            let model = parse(bytes.clone()).map_err(refuse)?;
            Ok((bytes, model))
        }
    }
}

/// Decodes a model.
///
/// # Errors
///
/// Why it is none.
pub(crate) fn parse(bytes: Bytes) -> Result<ModelProto, String> {
    let model = ModelProto::decode(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_ref().ok_or("it has no graph")?;
    if graph.node.is_empty() {
        return Err("its graph has no node".to_owned());
    }
    Ok(model)
}

/// The model without inputs that nothing takes, which the runtime would ask for; `None` if it has none.
pub(crate) fn without_stale_inputs(
    model: &ModelProto,
    bytes: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    /// Of an input of the model's own graph: the model and the graph lie around it.
    const DEPTH: usize = 2;
    let stale = model.graph.as_ref().map(stale_inputs).unwrap_or_default();
    if stale.is_empty() {
        return Ok(None);
    }
    wire::rewrite(bytes, &mut |message, bytes, depth| {
        if message != wire::Message::Value || depth != DEPTH {
            return Ok(Change::Keep);
        }
        let input = ValueInfoProto::decode(bytes).map_err(|error| error.to_string())?;
        Ok(if stale.contains(&input.name) { Change::Drop } else { Change::Keep })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, NodeProto};

    fn model(graph: GraphProto) -> Bytes {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec().into()
    }

    #[test]
    fn inputs_that_nothing_takes_are_left_out() {
        let input = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
        let node = NodeProto { input: vec!["data".into()], ..NodeProto::default() };
        let graph = |names: &[&str]| GraphProto {
            node: vec![node.clone()],
            input: names.iter().map(|name| input(name)).collect(),
            ..GraphProto::default()
        };
        let bytes = model(graph(&["left", "data", "over"]));
        let without =
            |bytes: &Bytes| without_stale_inputs(&parse(bytes.clone()).unwrap(), bytes).unwrap();
        let changed = Bytes::from(without(&bytes).unwrap());
        assert_eq!(changed, model(graph(&["data"])));
        assert_eq!(without(&changed), None);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        assert_eq!(parse(Bytes::new()).unwrap_err(), "it has no graph");
        assert!(parse(Bytes::from_static(b"PK\x03\x04 not a model")).is_err());
        assert!(parse(Bytes::from_static(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert_eq!(parse(model(GraphProto::default())).unwrap_err(), "its graph has no node");
    }
}
