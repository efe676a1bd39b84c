//! Weights that lie in files beside a model are brought into it, from its own folder alone.
//!
//! A model names the file, the offset and the length of each such tensor freely, and may do so in any
//! graph, branch, function or attribute. All of them are found here, so that the runtime, which is given
//! bytes and no folder, never opens a file that a model names.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use prost::Message as _;

use crate::{
    OnnxError,
    proto::{EXTERNAL, StringStringEntryProto},
    wire::{self, Change, Payload},
};

/// What Protocol Buffers allow.
pub(crate) const BYTES_MAX: u64 = 1 << 31;

/// Tags of `TensorProto`.
const NAME: u64 = 8;
const RAW_DATA: u64 = 9;
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;

/// Where a tensor says that its data lie.
#[derive(Debug, Default)]
struct Place {
    tensor: String,
    location: String,
    offset: u64,
    length: Option<u64>,
}

/// Where the data of `tensor` lie; `None` if in the message itself.
fn place(tensor: &[u8]) -> Result<Option<Place>, String> {
    let (mut is_external, mut place) = (false, Place::default());
    for field in wire::fields(tensor) {
        let field = field?;
        match (field.tag, field.payload) {
            (NAME, Payload::Bytes(name)) => {
                place.tensor = String::from_utf8_lossy(name).into_owned();
            }
            (DATA_LOCATION, Payload::Number(value)) => is_external = value as i32 == EXTERNAL,
            (EXTERNAL_DATA, Payload::Bytes(entry)) => {
                let entry = StringStringEntryProto::decode(entry).map_err(|e| e.to_string())?;
                let number = || {
                    let wrong = |_| format!("its {} of `{}` is no number", entry.key, entry.value);
                    entry.value.parse::<u64>().map_err(wrong)
                };
                match entry.key.as_str() {
                    "location" => place.location.clone_from(&entry.value),
                    "offset" => place.offset = number()?,
                    "length" => place.length = Some(number()?),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(is_external.then_some(place))
}

/// Whether any tensor of `model` lies in another file.
///
/// # Errors
///
/// Bytes that are no model.
pub(crate) fn is_used(model: &[u8]) -> Result<bool, String> {
    let mut found = false;
    wire::rewrite(model, &mut |message, bytes, _| {
        found |= message == wire::Message::Tensor && place(bytes)?.is_some();
        Ok(Change::Keep)
    })?;
    Ok(found)
}

/// The model at `path` with all its tensors within; `None` if they are already.
///
/// # Errors
///
/// [`OnnxError::External`] for a file that is missing, outside the model's folder or too short;
/// [`OnnxError::NotOnnx`].
pub(crate) fn inlined(path: &Path, model: &[u8]) -> Result<Option<Vec<u8>>, OnnxError> {
    let mut files = Files { model: path, opened: HashMap::new(), left: BYTES_MAX };
    let mut failed = None;
    let rewritten = wire::rewrite(model, &mut |message, bytes, _| {
        if message != wire::Message::Tensor {
            return Ok(Change::Keep);
        }
        let Some(place) = place(bytes)? else { return Ok(Change::Keep) };
        match files.read(&place) {
            Ok(data) => with_data(bytes, &data).map(Change::Replace),
            Err(reason) => {
                let Place { tensor, location, .. } = place;
                let path = path.to_owned();
                failed = Some(OnnxError::External { path, tensor, location, reason });
                Err(String::new())
            }
        }
    });
    match (failed, rewritten) {
        (Some(error), _) => Err(error),
        (None, Err(reason)) => {
            Err(OnnxError::NotOnnx { path: path.to_owned(), reason, way_out: None })
        }
        (None, Ok(rewritten)) => Ok(rewritten),
    }
}

/// The message of a tensor with `data` in it.
fn with_data(tensor: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(tensor.len() + data.len());
    for field in wire::fields(tensor) {
        let field = field?;
        if ![RAW_DATA, EXTERNAL_DATA, DATA_LOCATION].contains(&field.tag) {
            out.extend_from_slice(field.bytes);
        }
    }
    wire::put_bytes(&mut out, RAW_DATA, data);
    Ok(out)
}

/// The files of one model's weights.
struct Files<'p> {
    model: &'p Path,
    opened: HashMap<String, (File, u64)>,
    /// Bytes that may still be taken: tensors may share a place, and would multiply it.
    left: u64,
}

impl Files<'_> {
    fn read(&mut self, place: &Place) -> Result<Vec<u8>, String> {
        if !self.opened.contains_key(&place.location) {
            let path = self.find(&place.location)?;
            // A pipe would be waited for when it is opened.
            let metadata = path.metadata().map_err(|error| error.to_string())?;
            if !metadata.is_file() {
                return Err("it is no regular file".to_owned());
            }
            let file = File::open(&path).map_err(|error| error.to_string())?;
            self.opened.insert(place.location.clone(), (file, metadata.len()));
        }
        let Some((file, size)) = self.opened.get_mut(&place.location) else { unreachable!() };
        let length = place.length.unwrap_or_else(|| size.saturating_sub(place.offset));
        let end = place.offset.checked_add(length).filter(|end| end <= size);
        if end.is_none() {
            let (offset, size) = (place.offset, *size);
            return Err(format!(
                "the tensor takes {length} bytes from {offset} on, and the file has {size}: it was \
                 cut short, or belongs to another model"
            ));
        }
        let short = || format!("all tensors together are more than {BYTES_MAX} bytes");
        self.left = self.left.checked_sub(length).ok_or_else(short)?;
        let mut data = vec![0; length as usize];
        let read =
            file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut data));
        read.map_err(|error| error.to_string())?;
        Ok(data)
    }

    /// The file called `location`, if it lies where the model does. A model and its data may both be
    /// links into one folder, as in the cache of Hugging Face: what they link to counts as well.
    fn find(&self, location: &str) -> Result<PathBuf, String> {
        let relative = Path::new(location);
        let is_plain =
            |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(is_plain) {
            return Err("only a file in the model's own folder is read".to_owned());
        }
        let parent = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let folder = parent(self.model);
        let found = folder.join(relative);
        let real = found.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{} does not exist", found.display()),
            _ => format!("{}: {error}", found.display()),
        })?;
        let own = [Ok(folder), self.model.canonicalize().map(|model| parent(&model))];
        let mut own = own.into_iter().flatten().flat_map(|folder| folder.canonicalize());
        if own.any(|folder| real.starts_with(folder)) {
            Ok(real)
        } else {
            Err("it is a link out of the model's own folder".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
        TensorProto,
    };

    fn entries(entries: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        entries.iter().map(entry).collect()
    }

    fn tensor(place: &[(&str, &str)]) -> TensorProto {
        let external_data = entries(place);
        TensorProto {
            name: "w".into(),
            data_location: EXTERNAL,
            external_data,
            ..TensorProto::default()
        }
    }

    fn of(tensor: TensorProto) -> Vec<u8> {
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn data_beside_the_model_are_brought_into_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.data"), b"0123456789").unwrap();
        let model = of(tensor(&[("location", "m.data"), ("offset", "2"), ("length", "4")]));
        let bytes = inlined(&dir.path().join("m.onnx"), &model).unwrap().unwrap();
        let graph = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
        let [tensor] = &graph.initializer[..] else { panic!() };
        assert_eq!(tensor.raw_data.as_deref(), Some(&b"2345"[..]));
        assert_eq!((tensor.data_location, tensor.name.as_str()), (0, "w"));
        assert!(tensor.external_data.is_empty());
        assert!(inlined(&dir.path().join("m.onnx"), &bytes).unwrap().is_none());
    }

    #[test]
    fn only_whole_files_of_the_models_own_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir_all(home.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), b"0123").unwrap();
        std::fs::write(home.join("m.data"), b"0123").unwrap();
        std::os::unix::fs::symlink("../secret", home.join("link")).unwrap();
        let absolute = dir.path().join("secret");
        let check = |place: &[(&str, &str)], part: &str| {
            let error = inlined(&home.join("m.onnx"), &of(tensor(place))).unwrap_err();
            let OnnxError::External { reason, tensor, .. } = &error else { panic!("{error:?}") };
            assert!(reason.contains(part) && tensor == "w", "{reason}");
            assert!(error.hint().is_some());
        };
        let own = "only a file in the model's own folder";
        check(&[("location", "../secret")], own);
        check(&[("location", absolute.to_str().unwrap())], own);
        check(&[("location", "sub/../../secret")], own);
        check(&[], own);
        check(&[("location", "link")], "a link out of the model's own folder");
        check(&[("location", "absent")], "does not exist");
        check(&[("location", "*/_ORT_MEM_ADDR_/*")], "does not exist");
        check(&[("location", "sub")], "no regular file");
        check(&[("location", "m.data"), ("offset", "3"), ("length", "2")], "and the file has 4");
        check(&[("location", "m.data"), ("offset", "9")], "and the file has 4");
        let far = u64::MAX.to_string();
        check(&[("location", "m.data"), ("offset", &far), ("length", "2")], "and the file has 4");
        let word = of(tensor(&[("location", "m.data"), ("offset", "x")]));
        let error = inlined(&home.join("m.onnx"), &word).unwrap_err();
        assert!(error.to_string().contains("its offset of `x` is no number"), "{error}");
    }

    #[test]
    fn a_link_beside_a_linked_model_may_lead_where_the_model_lies() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["blobs", "snapshot"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("blobs/1"), b"").unwrap();
        std::fs::write(dir.path().join("blobs/2"), b"0123").unwrap();
        let model = dir.path().join("snapshot/m.onnx");
        std::os::unix::fs::symlink("../blobs/1", &model).unwrap();
        std::os::unix::fs::symlink("../blobs/2", dir.path().join("snapshot/m.data")).unwrap();
        assert!(inlined(&model, &of(tensor(&[("location", "m.data")]))).unwrap().is_some());
    }

    #[test]
    fn tensors_are_found_wherever_a_model_can_hold_them() {
        let dir = tempfile::tempdir().unwrap();
        let t = || Some(tensor(&[("location", "../x")]));
        let attribute = |attribute: AttributeProto| NodeProto {
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        let constant = || attribute(AttributeProto { t: t(), ..AttributeProto::default() });
        let sparse = || SparseTensorProto { values: t(), ..SparseTensorProto::default() };
        let graph = |node: NodeProto| GraphProto { node: vec![node], ..GraphProto::default() };
        let model = |graph: GraphProto| ModelProto { graph: Some(graph), ..ModelProto::default() };
        let branch = AttributeProto { g: Some(graph(constant())), ..AttributeProto::default() };
        let sparse_value =
            AttributeProto { sparse_tensor: Some(sparse()), ..AttributeProto::default() };
        let function = FunctionProto { node: vec![constant()], ..FunctionProto::default() };
        let default = FunctionProto {
            attribute_proto: vec![AttributeProto { t: t(), ..AttributeProto::default() }],
            ..FunctionProto::default()
        };
        let models = [
            model(graph(constant())),
            model(graph(attribute(branch))),
            model(graph(attribute(sparse_value))),
            model(GraphProto { sparse_initializer: vec![sparse()], ..GraphProto::default() }),
            ModelProto { functions: vec![function], ..ModelProto::default() },
            ModelProto { functions: vec![default], ..ModelProto::default() },
        ];
        for model in models {
            let bytes = model.encode_to_vec();
            assert!(is_used(&bytes).unwrap());
            let error = inlined(&dir.path().join("m.onnx"), &bytes).unwrap_err();
            assert!(matches!(error, OnnxError::External { .. }), "{error:?}");
        }
        // A training graph, tag 20, whose first field is a graph.
        let mut training = Vec::new();
        wire::put_bytes(&mut training, 1, &graph(constant()).encode_to_vec());
        let mut bytes = Vec::new();
        wire::put_bytes(&mut bytes, 20, &training);
        assert!(is_used(&bytes).unwrap());
    }
}
