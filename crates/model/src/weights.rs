//! Weights of other programs: state dicts as `torch.save` or safetensors keep them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pfc_torchfile::{Dtype, StateFile, TensorInfo, TorchFileError};
use tch::{Device, Kind, Tensor};

use crate::{
    Architecture, Backbone, BackboneSpec, ModelError, Network, bytes, checkpoint, recognise,
    tensors::TensorFile,
};

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
/// [`ModelError::Io`].
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
    file.by_ref().take(9).read_to_end(&mut head).map_err(ModelError::io("read", path))?;
    let kind = match &head[..] {
        [b'P', b'K', 3, 4, ..] if pfc_torchfile::is_torchscript(&file) => FileKind::TorchScript,
        [b'P', b'K', 3, 4, ..] => FileKind::Torch,
        // The first pickle of the older format: a protocol, then the magic number.
        [0x80, 2..=5, ..] => FileKind::Torch,
        [_, _, _, _, _, _, _, _, b'{'] => FileKind::Safetensors,
        // The version of the format comes first, as a small number.
        [0x08, 1..=0x7f, ..] => FileKind::Onnx,
        _ if path.extension().is_some_and(|extension| extension == "onnx") => FileKind::Onnx,
        [] => return Err(not_a_model(path, "it is empty".to_owned())),
        other => {
            let head = other[..other.len().min(4)].escape_ascii();
            return Err(not_a_model(path, format!("it begins with `{head}`")));
        }
    };
    Ok((kind, path.to_owned()))
}

fn not_a_model(path: &Path, reason: String) -> ModelError {
    ModelError::NotAModel { path: path.to_owned(), reason }
}

/// A network with weights from a file, and its name if it has one.
#[derive(Debug)]
pub struct Loaded {
    /// The network.
    pub backbone: Backbone,
    /// Its name; a network of another shape has none.
    pub network: Option<Network>,
}

impl Loaded {
    /// Name and embedding size, as a checkpoint states them.
    pub fn spec(&self) -> Option<BackboneSpec> {
        let embedding = self.backbone.embedding();
        self.network.map(|network| BackboneSpec { network, embedding })
    }
}

/// Opens a checkpoint, a state dict of `torch.save` in either format, or safetensors.
///
/// * `heads`: attention heads of a transformer that has no name, which no shape tells
///
/// Keys and shapes are compared with the network's before any tensor is allocated.
/// Prefixes that wrappers put before all keys are taken off; counters that PyTorch before 0.4.1 did
/// not keep start at 0.
///
/// # Errors
///
/// Those of [`identify`] and [`Backbone::from_tensors`]; [`ModelError::TorchFile`],
/// [`ModelError::TensorFile`] and [`ModelError::UnknownArchitecture`];
/// [`ModelError::NotAModel`] for ONNX and TorchScript, whose weights are not taken apart.
pub fn open(path: &Path, device: Device, heads: Option<i64>) -> Result<Loaded, ModelError> {
    let (kind, path) = identify(path)?;
    let origin = path.display().to_string();
    match kind {
        FileKind::Checkpoint => {
            let checkpoint = checkpoint::Checkpoint::open(&path)?;
            let network = Some(checkpoint.manifest().backbone.network);
            Ok(Loaded { backbone: checkpoint.backbone(device)?, network })
        }
        FileKind::Torch => {
            let mut file = open_torch(&path)?;
            let found = Found::of(&origin, torch_shapes(&file), heads)?;
            found.load(&origin, read_all(&path, &mut file)?, device)
        }
        FileKind::Safetensors => {
            let mut file = TensorFile::open(&path)?;
            let found = Found::of(&origin, file.shapes()?, heads)?;
            found.load(&origin, file.read_all()?, device)
        }
        FileKind::Onnx | FileKind::TorchScript => {
            Err(not_a_model(&path, "it is a graph, and weights are wanted".to_owned()))
        }
    }
}

/// Key and shape of a tensor.
type Shape = (String, Vec<i64>);

/// The network that a file's keys and shapes were found to be, before any tensor was read.
struct Found {
    architecture: Architecture,
    network: Option<Network>,
    embedding: i64,
}

impl Found {
    /// Tells the network from `shapes` and compares all of them with it.
    fn of(origin: &str, mut shapes: Vec<Shape>, heads: Option<i64>) -> Result<Found, ModelError> {
        strip_prefixes(&mut shapes);
        let by_key = shapes.iter().map(|(key, shape)| (key.as_str(), shape.clone())).collect();
        let (architecture, embedding) = recognise::recognise(origin, &by_key, heads)?;
        let network = recognise::name(architecture);
        let architecture = network.map_or(architecture, |network| network.architecture());
        let architecture = with_heads(architecture, heads);
        add_counters(&mut shapes, Vec::new);
        Backbone::check_shapes(architecture, embedding, origin, &shapes)?;
        Ok(Found { architecture, network, embedding })
    }

    fn load(
        self,
        origin: &str,
        mut tensors: Vec<(String, Tensor)>,
        device: Device,
    ) -> Result<Loaded, ModelError> {
        let Found { architecture, network, embedding } = self;
        strip_prefixes(&mut tensors);
        add_counters(&mut tensors, || Tensor::from(0i64));
        let backbone = Backbone::from_tensors(architecture, embedding, device, origin, &tensors)?;
        Ok(Loaded { backbone, network })
    }
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

/// What wrappers put before every key.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "backbone."];

fn strip_prefixes<T>(tensors: &mut [(String, T)]) {
    let shared = |tensors: &[(String, T)]| {
        PREFIXES.iter().find(|p| tensors.iter().all(|(key, _)| key.starts_with(**p))).copied()
    };
    while let Some(prefix) = shared(tensors).filter(|_| !tensors.is_empty()) {
        for (key, _) in tensors.iter_mut() {
            key.drain(..prefix.len());
        }
    }
}

/// Adds the counters of normalisations, each `zero`, where a file has none.
fn add_counters<T>(tensors: &mut Vec<(String, T)>, zero: impl Fn() -> T) {
    let counter = |key: &str| {
        key.strip_suffix("running_mean").map(|name| format!("{name}num_batches_tracked"))
    };
    let wanted: Vec<String> = tensors.iter().filter_map(|(key, _)| counter(key)).collect();
    if tensors.iter().any(|(key, _)| key.ends_with("num_batches_tracked")) {
        return;
    }
    tensors.extend(wanted.into_iter().map(|key| (key, zero())));
}

/// All tensors of a file of `torch.save`, on the CPU, in the order of the file.
///
/// # Errors
///
/// [`ModelError::Io`] and [`ModelError::TorchFile`].
pub fn read_torch(path: &Path) -> Result<Vec<(String, Tensor)>, ModelError> {
    let mut file = open_torch(path)?;
    read_all(path, &mut file)
}

type TorchFile = StateFile<std::io::BufReader<File>>;

fn open_torch(path: &Path) -> Result<TorchFile, ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let parsed = StateFile::parse(std::io::BufReader::new(file));
    parsed.map_err(|source| ModelError::TorchFile { path: path.to_owned(), source })
}

fn torch_shapes(file: &TorchFile) -> Vec<Shape> {
    // The file's own size bounds every side of a tensor that has elements; others are refused later.
    let side = |&side: &u64| i64::try_from(side).unwrap_or(i64::MAX);
    let shape = |info: &TensorInfo| (info.key.clone(), info.shape.iter().map(side).collect());
    file.tensors().iter().map(shape).collect()
}

fn read_all(path: &Path, file: &mut TorchFile) -> Result<Vec<(String, Tensor)>, ModelError> {
    let failed = |source: TorchFileError| ModelError::TorchFile { path: path.to_owned(), source };
    let shapes = torch_shapes(file);
    let mut tensors = Vec::with_capacity(shapes.len());
    for (i, (key, shape)) in shapes.into_iter().enumerate() {
        let kind = kind(file.tensors()[i].dtype);
        let mut tensor = Tensor::f_empty(&shape, (kind, Device::Cpu))
            .map_err(ModelError::torch("read a tensor"))?;
        bytes::with_bytes_mut(&mut tensor, |bytes| file.read(i, bytes)).map_err(failed)?;
        tensors.push((key, tensor));
    }
    Ok(tensors)
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
    use crate::export;

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

    #[test]
    fn a_wrapped_state_dict_without_counters_is_loaded() {
        let plain = backbone().state_dict();
        let mut tensors: Vec<(String, Tensor)> = backbone().state_dict();
        tensors.retain(|(key, _)| !key.ends_with("num_batches_tracked"));
        tensors.iter_mut().for_each(|(key, _)| key.insert_str(0, "module.backbone."));
        let shapes = tensors.iter().map(|(key, tensor)| (key.clone(), tensor.size())).collect();
        let found = Found::of("w", shapes, None).unwrap();
        check_same(&found.load("w", tensors, Device::Cpu).unwrap(), &plain);
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
        assert!(error.to_string().ends_with("not a model: it begins with `<htm`"), "{error}");
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
        check_same(&open(dir.path(), Device::Cpu, None).unwrap(), &expected);
        let path = dir.path().join("a.safetensors");
        export::safetensors(&path, &backbone, false).unwrap();
        check_same(&open(&path, Device::Cpu, None).unwrap(), &expected);
    }
}
