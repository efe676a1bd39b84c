//! Weights of other programs: state dicts as `torch.save` or safetensors keep them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pfc_onnx::{
    ChannelOrder,
    foreign::{self, Foreign},
};
use pfc_torchfile::{Dtype, StateFile, TensorInfo, TorchFileError};
use tch::{Device, Kind, Tensor};

use crate::{Backbone, BackboneSpec, ModelError, Network, bytes, checkpoint, tensors::TensorFile};

mod choose;
mod evolve;
mod input;
mod source;

use choose::Choice;
use source::Shape;

/// What a model is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A checkpoint folder of ours.
    Checkpoint,
    /// A state dict that `torch.save` wrote.
    Torch,
    /// A state dict as safetensors.
    Safetensors,
    /// A TorchScript program.
    TorchScript,
    /// An ONNX graph.
    Onnx,
}

/// What `path` is, by its first bytes; a folder of `arcface_torch` stands for the weights in it.
///
/// # Errors
///
/// [`ModelError::NotAModel`], [`ModelError::NotACheckpoint`] for a folder without a model, and
/// [`ModelError::Durable`].
pub fn identify(path: &Path) -> Result<(FileKind, PathBuf), ModelError> {
    if path.is_dir() && !path.join(checkpoint::MANIFEST).exists() {
        let weights = ["model.pt", "backbone.pth"].map(|name| path.join(name));
        if let Some(weights) = weights.iter().find(|weights| weights.is_file()) {
            return identify(weights);
        }
    }
    let is_checkpoint = path.extension().is_some_and(|extension| extension == "ckpt");
    if path.is_dir() || is_checkpoint && !path.exists() {
        return Ok((FileKind::Checkpoint, checkpoint::resolved(path)?));
    }
    let mut file = File::open(path).map_err(ModelError::io("open", path))?;
    if !file.metadata().map_err(ModelError::io("open", path))?.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(ModelError::io("read", path)(source));
    }
    let mut head = Vec::new();
    file.by_ref()
        .take(foreign::HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(ModelError::io("read", path))?;
    let is_foreign = |Foreign { reason, way_out }: Foreign| ModelError::NotAModel {
        path: path.to_owned(),
        reason,
        way_out: Some(way_out),
    };
    let kind = match &head[..] {
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] if foreign::is_told_by_ending(path) => {
            let known = foreign::named(path, &head);
            return Err(known.map_or_else(|| not_a_model(path, "it is no weights"), is_foreign));
        }
        [b'P', b'K', 3, 4, ..] if pfc_torchfile::is_torchscript(&file) => FileKind::TorchScript,
        [b'P', b'K', 3, 4, ..] => FileKind::Torch,
        // The first pickle of the older format: a protocol, then the magic number.
        [0x80, 2..=5, ..] => FileKind::Torch,
        [_, _, _, _, _, _, _, _, b'{', ..] => FileKind::Safetensors,
        // The version of the format comes first, as a small number.
        [0x08, 1..=0x7f, ..] => FileKind::Onnx,
        _ if path.extension().is_some_and(|extension| extension == "onnx") => FileKind::Onnx,
        [] => return Err(not_a_model(path, "it is empty")),
        other => {
            let begins =
                || format!("it begins with `{}`", other[..other.len().min(4)].escape_ascii());
            let known = foreign::named(path, other);
            return Err(known.map_or_else(|| not_a_model(path, &begins()), is_foreign));
        }
    };
    Ok((kind, path.to_owned()))
}

fn not_a_model(path: &Path, reason: &str) -> ModelError {
    ModelError::NotAModel { path: path.to_owned(), reason: reason.to_owned(), way_out: None }
}

/// A network with weights from a file, and its name if it has one.
#[derive(Debug)]
pub struct Loaded {
    /// The network, which takes red first and pixels of −1 to 1.
    pub backbone: Backbone,
    /// Its name; a network of another shape has none.
    pub network: Option<Network>,
    /// What was passed over, renamed or assumed, a line each, which is to be shown to the user.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Name and embedding size, as a checkpoint states them.
    pub fn spec(&self) -> Option<BackboneSpec> {
        let embedding = self.backbone.embedding();
        self.network.map(|network| BackboneSpec { network, embedding })
    }
}

/// What is known of a model beside its file; the default suits most.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Attention heads of a transformer that has no name, which no shape tells.
    pub heads: Option<i64>,
    /// The order of the colours that the weights in the file want. By default it is measured where the
    /// program that trained them is known to have used both, and the network is made to take red first.
    pub channels: Option<ChannelOrder>,
    /// Whether the user has said what the pixels are normalised by, so that no other way is proposed.
    pub is_range_stated: bool,
}

/// Opens a checkpoint, a state dict of `torch.save` in either format, or safetensors.
///
/// Keys and shapes are compared with the network's before any tensor is allocated. The network may lie
/// beside others things, in dictionaries and under prefixes: those tensors are taken that are a whole
/// network together, and heads, optimizers and copies are passed over by name. Counters that PyTorch
/// before 0.4.1 did not keep start at 0.
///
/// # Errors
///
/// Those of [`identify`] and [`Backbone::from_tensors`]; [`ModelError::TorchFile`],
/// [`ModelError::TensorFile`] and [`ModelError::UnknownArchitecture`];
/// [`ModelError::NotAModel`] for ONNX and TorchScript, whose weights are not taken apart.
pub fn open(path: &Path, device: Device, options: OpenOptions) -> Result<Loaded, ModelError> {
    let (kind, path) = identify(path)?;
    match kind {
        FileKind::Checkpoint => {
            let checkpoint = checkpoint::Checkpoint::open(&path)?;
            let network = Some(checkpoint.manifest().backbone.network);
            Ok(Loaded { backbone: checkpoint.backbone(device)?, network, notes: Vec::new() })
        }
        FileKind::Torch => {
            let mut file = open_torch(&path)?;
            let (shapes, others) = (torch_shapes(&file), file.others().to_vec());
            load(&path, &shapes, &others, device, options, |i| {
                read_torch_tensor(&path, &mut file, i)
            })
        }
        FileKind::Safetensors => {
            let mut file = TensorFile::open(&path)?;
            let shapes = file.shapes()?;
            load(&path, &shapes, &[], device, options, |i| file.read(&shapes[i].0))
        }
        FileKind::Onnx | FileKind::TorchScript => {
            Err(ModelError::NotAModel {
                path,
                reason: "it is a graph, and weights are wanted".to_owned(),
                way_out: Some(
                    "give what it was exported from: a checkpoint folder (.ckpt), or a state dict as .pth, .pt \
                     or .safetensors"
                        .to_owned(),
                ),
            })
        }
    }
}

/// Finds the network among tensors of these `shapes`, and loads it.
///
/// * `others`: what else is in the file, by name
/// * `read`: gives a tensor by its number
fn load(
    path: &Path,
    shapes: &[Shape],
    others: &[String],
    device: Device,
    options: OpenOptions,
    mut read: impl FnMut(usize) -> Result<Tensor, ModelError>,
) -> Result<Loaded, ModelError> {
    let origin = path.display().to_string();
    let choice = choose::choose(&origin, shapes, options.heads)?;
    let mut tensors = Vec::with_capacity(choice.weights.len());
    for weight in &choice.weights {
        tensors.push((weight.key.clone(), weight.tensor(&mut read)?));
    }
    let mut notes: Vec<String> = note(&origin, &choice, others).into_iter().collect();
    notes.extend(input::settle(&origin, &choice, options, &mut tensors)?);
    let Choice { architecture, network, embedding, .. } = choice;
    let backbone = Backbone::from_tensors(architecture, embedding, device, &origin, &tensors)?;
    Ok(Loaded { backbone, network, notes })
}

/// Names that are listed; of more, the number.
const NAMES_SHOWN: usize = 8;

/// What of the file was taken, unless it is all of it as it is.
fn note(origin: &str, choice: &Choice, others: &[String]) -> Option<String> {
    let others = others.iter().map(|name| format!("`{}`", name.escape_debug()));
    let names: Vec<String> = choice.passed_over.iter().cloned().chain(others).collect();
    if choice.prefix.is_empty() && choice.layout.is_none() && names.is_empty() {
        return None;
    }
    let network = choice.network.map_or("a network".to_owned(), |network| network.to_string());
    let place = match &choice.prefix[..] {
        "" => String::new(),
        prefix => format!(" under `{}`", prefix.escape_debug()),
    };
    let layout = choice.layout.map(|name| format!(" with the keys of {name}")).unwrap_or_default();
    let mut note = format!("{origin}: {network}{place}{layout}");
    if !names.is_empty() {
        note += &format!("; passed over: {}", names[..names.len().min(NAMES_SHOWN)].join(", "));
    }
    if names.len() > NAMES_SHOWN {
        note += &format!(" and {} more", names.len() - NAMES_SHOWN);
    }
    Some(note)
}

pub(crate) type TorchFile = StateFile<std::io::BufReader<File>>;

fn open_torch(path: &Path) -> Result<TorchFile, ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let parsed = StateFile::parse(std::io::BufReader::new(file));
    parsed.map_err(|source| ModelError::TorchFile { path: path.to_owned(), source })
}

fn torch_shapes(file: &TorchFile) -> Vec<Shape> {
    file.tensors().iter().map(torch_shape).collect()
}

fn torch_shape(info: &TensorInfo) -> Shape {
    // The file's own size bounds every side of a tensor that has elements; others are refused later.
    let side = |&side: &u64| i64::try_from(side).unwrap_or(i64::MAX);
    (info.key.clone(), info.shape.iter().map(side).collect())
}

/// Tensor `i` of a file of PyTorch, on the CPU.
pub(crate) fn read_torch_tensor(
    path: &Path,
    file: &mut TorchFile,
    i: usize,
) -> Result<Tensor, ModelError> {
    let failed = |source: TorchFileError| ModelError::TorchFile { path: path.to_owned(), source };
    let (_, shape) = &torch_shape(&file.tensors()[i]);
    let kind = kind(file.tensors()[i].dtype);
    let mut tensor =
        Tensor::f_empty(shape, (kind, Device::Cpu)).map_err(ModelError::torch("read a tensor"))?;
    bytes::with_bytes_mut(&mut tensor, |bytes| file.read(i, bytes)).map_err(failed)?;
    Ok(tensor)
}

pub(crate) fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::Bool => Kind::Bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, export};

    const TINY: Architecture = Architecture::IResNet { layers: [1; 4], widths: [8; 4] };

    fn backbone() -> Backbone {
        Backbone::with_architecture(TINY, 8, Device::Cpu, 3).unwrap()
    }

    fn check_same(loaded: &Loaded, expected: &[(String, Tensor)]) {
        assert_eq!(loaded.backbone.architecture(), TINY);
        for ((key, found), (_, expected)) in loaded.backbone.state_dict().iter().zip(expected) {
            assert_eq!(found, expected, "{key}");
        }
    }

    type Tensors = Vec<(String, Tensor)>;

    /// Loads tensors as they would lie in a file.
    fn loaded(tensors: &[(String, Tensor)], options: OpenOptions) -> Result<Loaded, ModelError> {
        let shapes: Vec<Shape> =
            tensors.iter().map(|(key, tensor)| (key.clone(), tensor.size())).collect();
        let read = |i: usize| Ok(tensors[i].1.shallow_clone());
        load(Path::new("w.pth"), &shapes, &[], Device::Cpu, options, read)
    }

    fn under(prefix: &str, tensors: Tensors) -> Tensors {
        tensors.into_iter().map(|(key, tensor)| (format!("{prefix}{key}"), tensor)).collect()
    }

    fn tensor(key: &str, shape: &[i64]) -> (String, Tensor) {
        (key.to_owned(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
    }

    #[test]
    fn a_network_is_found_under_any_prefix_beside_anything() {
        let plain = backbone().state_dict();
        let optimizer = tensor("optimizer.state.0.exp_avg", &[8]);
        let cases: [(&str, Tensors, &str); 7] = [
            ("", vec![], ""),
            ("module.backbone.", vec![], "a network under `module.backbone.`"),
            ("", vec![tensor("head.weight", &[99, 8])], "passed over: `head.weight`"),
            ("", vec![tensor("kernel", &[8, 2_000_000])], "passed over: `kernel`"),
            (
                "",
                vec![tensor("my_own.w", &[99, 8]), tensor("my_own.b", &[99])],
                "`my_own` (2 tensors)",
            ),
            ("features.module.", vec![tensor("module.fc.weight", &[99, 8])], "`module.fc.weight`"),
            ("state_dict.model.", vec![optimizer, tensor("state_dict.fc", &[1])], "`optimizer"),
        ];
        for (prefix, beside, expected) in cases {
            let mut tensors = under(prefix, backbone().state_dict());
            tensors.retain(|(key, _)| !key.ends_with("num_batches_tracked"));
            tensors.extend(beside);
            let loaded = loaded(&tensors, OpenOptions::default()).unwrap();
            check_same(&loaded, &plain);
            let notes = loaded.notes.join("; ");
            assert!(notes.contains(expected) && notes.is_empty() == expected.is_empty(), "{notes}");
        }
    }

    #[test]
    fn the_copy_that_follows_a_network_is_passed_over_and_two_equals_are_refused() {
        let plain = backbone().state_dict();
        let mut tensors = under("state_dict_ema.", backbone().state_dict());
        tensors.iter_mut().for_each(|(_, tensor)| *tensor = tensor.zeros_like());
        tensors.extend(under("state_dict.", backbone().state_dict()));
        check_same(&loaded(&tensors, OpenOptions::default()).unwrap(), &plain);
        let copy: Vec<_> = under("ema.module.", backbone().state_dict());
        check_same(&loaded(&copy, OpenOptions::default()).unwrap(), &plain);
        tensors.extend(under("student.", backbone().state_dict()));
        let error = loaded(&tensors, OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains("begin with `state_dict.`, `student.`"), "{error}");
        // The network may have no prefix of its own beside the copy.
        for copy in ["ema.", "swa_model.module.", "teacher_net.", "optimizer.exp_avg."] {
            let mut tensors = under(copy, backbone().state_dict());
            tensors.iter_mut().for_each(|(_, tensor)| *tensor = tensor.zeros_like());
            tensors.extend(backbone().state_dict());
            let loaded = loaded(&tensors, OpenOptions::default()).unwrap();
            check_same(&loaded, &plain);
            assert!(loaded.notes.join("; ").contains("passed over: "), "{:?}", loaded.notes);
        }
    }

    #[test]
    fn a_tensor_that_may_be_part_of_another_network_is_no_head() {
        for (key, shape) in
            [("layer1.0.se.weight", &[8, 8][..]), ("attention.weight", &[8, 3, 3, 3])]
        {
            let mut tensors = backbone().state_dict();
            tensors.push(tensor(key, shape));
            let error = loaded(&tensors, OpenOptions::default()).unwrap_err();
            assert!(error.to_string().contains("belongs to no part of the network"), "{error}");
        }
    }

    #[test]
    fn networks_of_others_are_named() {
        let looks = [
            ("conv2d_1a.conv.weight", "facenet-pytorch"),
            ("net.body.3.res_layer.5.fc1.weight", "IR-SE"),
            ("model.cls_token", "class token"),
            ("module.conv1.filter.weight", "LightCNN"),
        ];
        for (key, name) in looks {
            let error = loaded(&[tensor(key, &[3, 3])], OpenOptions::default()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn every_kind_of_file_is_known_by_its_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let kind = |name: &str| identify(&path(name)).map(|(kind, _)| kind);
        export::pth(&path("a"), &backbone(), false).unwrap();
        export::safetensors(&path("b"), &backbone(), false).unwrap();
        assert_eq!(kind("a").unwrap(), FileKind::Torch);
        assert_eq!(kind("b").unwrap(), FileKind::Safetensors);
        std::fs::write(path("c"), b"\x08\x07\x12\x07pytorch").unwrap();
        assert_eq!(kind("c").unwrap(), FileKind::Onnx);
        std::fs::write(path("d"), b"<html>").unwrap();
        let error = kind("d").unwrap_err();
        assert!(error.to_string().contains("not a model: it is a page of HTML"), "{error}");
        std::fs::write(path("f.params"), b"\x12\x01\0\0\0\0\0\0\0\0").unwrap();
        assert!(kind("f.params").unwrap_err().to_string().contains("MXNet"));
        std::fs::write(path("g.tflite"), b"\x1c\0\0\0TFL3\0\0").unwrap();
        assert!(kind("g.tflite").unwrap_err().to_string().contains("TensorFlow Lite"));
        std::fs::write(path("g.keras"), b"PK\x03\x04").unwrap();
        assert!(kind("g.keras").unwrap_err().to_string().contains("Keras"));
        std::fs::write(path("h"), b"0123456789").unwrap();
        assert!(kind("h").unwrap_err().to_string().ends_with("it begins with `0123`"));
        std::fs::write(path("e"), b"").unwrap();
        assert!(kind("e").unwrap_err().to_string().ends_with("it is empty"));
        assert_eq!(kind("absent.ckpt").unwrap(), FileKind::Checkpoint);
    }

    #[test]
    fn what_is_exported_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (backbone, expected) = (backbone(), backbone().state_dict());
        export::pth(&dir.path().join("model.pt"), &backbone, false).unwrap();
        // The folder of a run of arcface_torch.
        check_same(&open(dir.path(), Device::Cpu, OpenOptions::default()).unwrap(), &expected);
        let path = dir.path().join("a.safetensors");
        export::safetensors(&path, &backbone, false).unwrap();
        check_same(&open(&path, Device::Cpu, OpenOptions::default()).unwrap(), &expected);
    }
}
