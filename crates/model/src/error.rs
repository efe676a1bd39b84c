//! The one error of the crate and its hints.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_durable::{DurableError, FolderError};
use pfc_onnx::OnnxError;
use pfc_torchfile::TorchFileError;

use crate::{EMBEDDING_MAX, Network, libtorch};

/// Why a backbone could not be made, read, written or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No network has this name.
    #[error("no network is called `{name}`")]
    UnknownNetwork {
        /// The name asked for.
        name: String,
    },
    /// An embedding size outside `1..=EMBEDDING_MAX`.
    #[error("embedding size {value} is outside 1 to {EMBEDDING_MAX}")]
    EmbeddingSize {
        /// The size asked for.
        value: i64,
    },
    /// A device that this machine, or this build of libtorch, does not have.
    #[error("device {device} is not available")]
    Device {
        /// The device asked for, for example `cuda:1`.
        device: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The folder of a checkpoint may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder is no checkpoint.
    #[error("{}: not a checkpoint: {reason}", path.display())]
    NotACheckpoint {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// Files that do not hold the class centres of a head.
    #[error("{}: not class centres: {reason}", path.display())]
    NotCentres {
        /// The file or folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A manifest that is no JSON, or lacks a field.
    #[error("{}: not a readable manifest", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Where and why parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest whose text is not the one that its own checksum was taken of.
    #[error("{}: its checksum does not match its text", path.display())]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
    },
    /// A checkpoint of another format version.
    #[error("{}: format {found}, but this program reads format {supported}", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version understood here.
        supported: u64,
    },
    /// A file that is not what its checkpoint's manifest says.
    #[error("{}: {what} is {found}, but the manifest says {expected}", path.display())]
    FileDiffers {
        /// The file.
        path: PathBuf,
        /// `size` or `checksum`.
        what: &'static str,
        /// In the manifest.
        expected: String,
        /// On disk.
        found: String,
    },
    /// A file that is not valid safetensors, or holds what this program does not read.
    #[error("{}: not a readable tensor file: {reason}", path.display())]
    TensorFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the network has and the weights lack.
    #[error("{origin}: tensor `{key}` of shape {expected:?} is missing")]
    MissingTensor {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// The shape the network needs.
        expected: Vec<i64>,
    },
    /// A tensor that the weights have and the network lacks.
    #[error("{origin}: tensor `{key}` of shape {found:?} belongs to no part of the network")]
    UnexpectedTensor {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// Its shape.
        found: Vec<i64>,
    },
    /// A tensor of the wrong shape.
    #[error("{origin}: tensor `{key}` has shape {found:?}, but the network needs {expected:?}")]
    TensorShape {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// The shape in the weights.
        found: Vec<i64>,
        /// The shape the network needs.
        expected: Vec<i64>,
    },
    /// An integer where a real number belongs, or the reverse.
    #[error("{origin}: tensor `{key}` is {found}, but the network needs {expected}")]
    TensorKind {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// The kind in the weights.
        found: String,
        /// The kind the network needs.
        expected: String,
    },
    /// A file of PyTorch that cannot be read or written.
    #[error("{}: not usable as weights", path.display())]
    TorchFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TorchFileError,
    },
    /// A file whose first bytes belong to no kind of model.
    #[error("{}: not a model: {reason}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What it is, or begins with.
        reason: String,
        /// How to make a model of it, where that is known.
        way_out: Option<String>,
    },
    /// Weights of no known network.
    #[error("{origin}: the weights belong to no known network: {reason}")]
    UnknownArchitecture {
        /// Where the weights came from.
        origin: String,
        /// What does not fit.
        reason: String,
    },
    /// A TorchScript program that is refused, or fails.
    #[error("{}: the TorchScript program is refused: {reason}", path.display())]
    Script {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An option that this kind of model does not have.
    #[error("{}: {option} cannot be set: {reason}", path.display())]
    Option {
        /// The model.
        path: PathBuf,
        /// As on the command line.
        option: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// An ONNX model that cannot be opened or run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Pixels that do not make the stated number of images.
    #[error("{found} bytes of pixels for {n} images, which take {expected}")]
    Pixels {
        /// Images stated.
        n: usize,
        /// Bytes given.
        found: usize,
        /// Bytes that `n` images of 112×112×3 take.
        expected: usize,
    },
    /// There was no memory for a tensor, on the host or on a GPU.
    #[error("no memory to {op}: {reason}")]
    Memory {
        /// What was being done.
        op: &'static str,
        /// The first line of libtorch's message.
        reason: String,
    },
    /// A weight that is no number, or infinite.
    #[error("{origin}: tensor `{key}` has {n_bad} of {n} numbers that are not finite")]
    NotFinite {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// Numbers that are NaN or infinite.
        n_bad: u64,
        /// All numbers of the tensor.
        n: u64,
    },
    /// A variance that is negative, whose root no normalisation can take.
    #[error("{origin}: tensor `{key}` holds the variance {value}, but variances are 0 or more")]
    NegativeVariance {
        /// Where the weights came from.
        origin: String,
        /// The state-dict key.
        key: String,
        /// The smallest number of the tensor.
        value: f64,
    },
    /// A network that answers with NaN or infinity.
    #[error("{model}: its embedding of image {image} of those given is not finite")]
    EmbeddingNotFinite {
        /// The file of the model, or what stands for it where it is in none.
        model: String,
        /// The image, from 0.
        image: usize,
    },
    /// A program that was not said to be trusted.
    #[error("{}: is a TorchScript program, which may do anything that this user may", path.display())]
    UntrustedCode {
        /// The file.
        path: PathBuf,
    },
    /// Compiled passes of a network that are not what a run needs.
    #[error("{}: this compiled network is refused: {reason}", folder.display())]
    Compiled {
        /// The folder of the packages.
        folder: PathBuf,
        /// What does not fit.
        reason: String,
        /// The command that makes packages that do.
        way_out: String,
    },
    /// libtorch refused.
    #[error("libtorch cannot {op}")]
    Torch {
        /// What was being done.
        op: &'static str,
        /// libtorch's reason.
        #[source]
        source: tch::TchError,
    },
}

impl ModelError {
    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        match self {
            ModelError::UnknownNetwork { name } => Some(network_hint(name)),
            ModelError::EmbeddingSize { .. } => {
                Some("512 is what published models use".to_owned())
            }
            ModelError::Device { .. } => Some(
                "use `cpu`, or set up the CUDA build of libtorch with `scripts/setup --cuda` and \
                 check the driver with `nvidia-smi`"
                    .to_owned(),
            ),
            ModelError::NotACheckpoint { .. } => Some(
                "name the folder that ends in `.ckpt`; a run keeps them in its `checkpoints` folder"
                    .to_owned(),
            ),
            ModelError::Format { found, supported, .. } if found > supported => {
                Some("a newer version of this program wrote it: update".to_owned())
            }
            ModelError::FileDiffers { .. }
            | ModelError::ManifestDamaged { .. }
            | ModelError::TensorFile { .. } => Some(
                "the file was damaged or cut short after it was written: use an earlier checkpoint \
                 or copy the folder again"
                    .to_owned(),
            ),
            ModelError::MissingTensor { .. }
            | ModelError::UnexpectedTensor { .. }
            | ModelError::TensorShape { .. } => Some(
                "the weights belong to another network or embedding size than the one asked for"
                    .to_owned(),
            ),
            ModelError::TorchFile { source, .. } => source.hint(),
            ModelError::NotAModel { way_out: Some(way_out), .. } => Some(way_out.clone()),
            ModelError::NotAModel { .. } => Some(
                "a model is a checkpoint folder (.ckpt), an ONNX file, a TorchScript program, or a \
                 state dict as .pth, .pt or .safetensors"
                    .to_owned(),
            ),
            ModelError::UnknownArchitecture { .. } => Some(
                "IResNet, MobileFaceNet and ViT are known with InsightFace's keys; of a ViT of \
                 your own, state its attention heads with --heads"
                    .to_owned(),
            ),
            ModelError::Script { .. } => {
                Some("a trace or script of the backbone alone is wanted: images in, embeddings out".to_owned())
            }
            ModelError::Memory { .. } => Some(
                "end other programs, give the job more memory, or choose a smaller network; in \
                 training also lower `train.batch_size`, or raise `train.accumulate` or \
                 `train.recompute`"
                    .to_owned(),
            ),
            ModelError::NotFinite { .. } | ModelError::NegativeVariance { .. } => Some(
                "the run that these weights come from diverged, or the file was damaged: take an \
                 earlier checkpoint"
                    .to_owned(),
            ),
            ModelError::EmbeddingNotFinite { .. } => Some(
                "its weights are damaged, or half precision is too narrow for this network: try \
                 another file, or f32"
                    .to_owned(),
            ),
            ModelError::UntrustedCode { .. } => Some(
                "if you trust whoever made this file as you would a program that they sent you, add \
                 `--trust-code`; else ask for the weights alone (a state dict or ONNX), which run \
                 nothing"
                    .to_owned(),
            ),
            ModelError::Compiled { way_out, .. } => {
                Some(format!("compile it anew with `{way_out}`, or leave `model.compiled` out"))
            }
            ModelError::Onnx(error) => error.hint(),
            ModelError::Durable(error) => error.hint(),
            ModelError::Folder(error) => error.hint(),
            _ => None,
        }
    }

    /// Whether bytes of a checkpoint that were read, or a file that it lists and that is gone, prove it
    /// to be damaged.
    ///
    /// Everything else (a file that the system does not open, a read error of a disk, no memory, a
    /// newer format) says nothing about the bytes: the same checkpoint may be whole a minute later.
    pub fn is_damage(&self) -> bool {
        match self {
            ModelError::Manifest { source, .. } => !source.is_io(),
            ModelError::ManifestDamaged { .. }
            | ModelError::FileDiffers { .. }
            | ModelError::TensorFile { .. }
            | ModelError::NotACheckpoint { .. } => true,
            ModelError::Durable(error) if error.is_read() => match error.source.kind() {
                io::ErrorKind::UnexpectedEof => true,
                // Gone from a folder that is still there.
                io::ErrorKind::NotFound => error.path.parent().is_some_and(Path::is_dir),
                _ => false,
            },
            _ => false,
        }
    }

    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// For `map_err` on a call of libtorch: [`Memory`](ModelError::Memory) if there was none, else
    /// [`Torch`](ModelError::Torch).
    pub fn torch(op: &'static str) -> impl FnOnce(tch::TchError) -> Self {
        move |source| match libtorch::is_out_of_memory(&source) {
            true => ModelError::Memory { op, reason: libtorch::first_line(&source) },
            false => ModelError::Torch { op, source },
        }
    }
}

fn network_hint(name: &str) -> String {
    // eval_ijbc.py of the reference has `iresnet50` as its default, a name its own table refuses.
    let short = name.to_ascii_lowercase().replace("iresnet", "r").replace("resnet", "r");
    match short.parse::<Network>() {
        Ok(network) if network.name() != name => format!("did you mean `{network}`?"),
        _ => {
            let names: Vec<&str> = Network::all().map(|network| network.name()).collect();
            let near =
                names.iter().map(|known| (strsim::damerau_levenshtein(known, &short), known));
            let near =
                near.filter(|(distance, _)| *distance <= 1).min_by_key(|(distance, _)| *distance);
            let near =
                near.map(|(_, known)| format!("did you mean `{known}`? ")).unwrap_or_default();
            format!("{near}the networks are {}", names.join(", "))
        }
    }
}
