//! A model in use, whatever it was made from.

// B = batch, E = embedding.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pfc_onnx::{Account, InputOptions, InputSpec, OnnxModel, OpenOptions, Provider};
use tch::{Device, Tensor};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    Backbone, Embed, IMAGE_SIZE, Inference, MirroredEmbeddings, ModelError, OnnxError, Precision,
    checkpoint, embed,
    libtorch::guarded,
    script::Script,
    weights::{self, FileKind},
};

/// How a model is opened; the default suits most.
#[derive(Debug, Clone)]
pub struct EmbedderOptions {
    /// Where it computes.
    pub device: Device,
    /// What the large layers compute in; only networks of ours can change it.
    pub precision: Precision,
    /// What of onnxruntime runs an ONNX graph; other models have no choice.
    pub provider: Provider,
    /// Threads of a pass; by default one per core.
    pub threads: Option<usize>,
    /// What is known of the input.
    pub input: InputOptions,
    /// Name of the output that is the embedding, of an ONNX graph with several.
    pub output: Option<String>,
    /// Attention heads of a transformer that has no name.
    pub heads: Option<i64>,
    /// Whether a TorchScript program may run. It can do anything that this user may, such as write to
    /// any file, so only files of people whose programs one would run are to be opened so.
    pub trust_code: bool,
}

impl Default for EmbedderOptions {
    fn default() -> EmbedderOptions {
        EmbedderOptions {
            device: Device::Cpu,
            precision: Precision::F32,
            provider: Provider::Auto,
            threads: None,
            input: InputOptions::default(),
            output: None,
            heads: None,
            trust_code: false,
        }
    }
}

/// A model that embeds: a network of ours from a checkpoint or a state dict, a TorchScript program,
/// or an ONNX graph.
#[derive(Debug)]
pub struct Embedder {
    engine: Engine,
    /// Its file, or what stands for it, for errors.
    name: String,
    input: InputSpec,
    fingerprint: String,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Engine {
    Native(Box<Inference>),
    Script(Box<Script>),
    Onnx(Box<OnnxModel>),
}

impl Embedder {
    /// The model at `path` on `device`, all else by default.
    ///
    /// # Errors
    ///
    /// As [`open_with`](Embedder::open_with).
    pub fn open(path: &Path, device: Device) -> Result<Embedder, ModelError> {
        Embedder::open_with(path, &EmbedderOptions { device, ..EmbedderOptions::default() })
    }

    /// The model at `path`: a checkpoint folder, a state dict as `.pth`, `.pt` or `.safetensors`, a
    /// TorchScript program or an ONNX graph, told by its first bytes.
    ///
    /// # Errors
    ///
    /// As [`weights::open`]; [`ModelError::UntrustedCode`] for a TorchScript program without
    /// [`trust_code`](EmbedderOptions::trust_code); [`ModelError::Script`], [`ModelError::Onnx`];
    /// [`ModelError::Option`] for an option that this kind of model lacks; [`ModelError::Memory`].
    pub fn open_with(path: &Path, options: &EmbedderOptions) -> Result<Embedder, ModelError> {
        guarded("load the model", || Embedder::open_unguarded(path, options))
    }

    fn open_unguarded(path: &Path, options: &EmbedderOptions) -> Result<Embedder, ModelError> {
        if let Some(threads) = options.threads {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let (kind, file) = weights::identify(path)?;
        let refuse = |option, reason| ModelError::Option { path: path.to_owned(), option, reason };
        let is_native = !matches!(kind, FileKind::Onnx | FileKind::TorchScript);
        if !is_native && options.precision != Precision::F32 {
            return Err(refuse("--precision", "the file fixes what its graph computes in"));
        }
        let side = IMAGE_SIZE as usize;
        if is_native && options.input.size.is_some_and(|size| size != [side, side]) {
            return Err(refuse("--input-size", "these networks take 112×112 and nothing else"));
        }
        if kind != FileKind::Onnx && options.output.is_some() {
            return Err(refuse("--output", "only ONNX graphs have several outputs"));
        }
        if kind != FileKind::Onnx && options.provider != Provider::Auto {
            return Err(refuse("--provider", "only ONNX graphs are run by onnxruntime"));
        }
        let mut input = InputSpec::insightface().with(&options.input);
        let mut notes = Vec::new();
        let engine = match kind {
            FileKind::Onnx => {
                let model = OnnxModel::open(&file, &onnx_options(options)?)?;
                input = *model.input();
                notes.extend(model.fallback().map(|why| format!("warning: {why}")));
                Engine::Onnx(Box::new(model))
            }
            FileKind::TorchScript if !options.trust_code => {
                return Err(ModelError::UntrustedCode { path: path.to_owned() });
            }
            FileKind::TorchScript => {
                Engine::Script(Box::new(Script::open(&file, options.device, &input)?))
            }
            _ => {
                let InputOptions { channels, mean, std, .. } = options.input;
                let is_range_stated = mean.is_some() || std.is_some();
                let known =
                    weights::OpenOptions { heads: options.heads, channels, is_range_stated };
                let loaded = weights::open(&file, options.device, known)?;
                notes = loaded.notes;
                let mut inference = loaded.backbone.into_inference();
                inference.set_precision(options.precision);
                Engine::Native(Box::new(inference))
            }
        };
        let fingerprint = match &engine {
            // With weights that lie in other files, and the output.
            Engine::Onnx(model) => format!("{:032x}", model.checksum()),
            _ => fingerprint(&kind, &file, &input, options.precision)?,
        };
        let name = path.display().to_string();
        Ok(Embedder { engine, name, input, fingerprint, notes })
    }

    /// What the input wants.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// How the input of an ONNX graph was found out, which is to be shown to the user; of other models all
    /// is known.
    pub fn account(&self) -> Option<&Account> {
        match &self.engine {
            Engine::Onnx(model) => Some(model.account()),
            _ => None,
        }
    }

    /// What of a file of weights was passed over, renamed or assumed, which is to be shown to the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tells this model, opened with these options, from any other: embeddings made with equal
    /// fingerprints may be mixed. Empty for a network that is in no file.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Embeddings `[B, E]` of images that are normalised already, `[B, 3, H, W]` f32.
    ///
    /// # Errors
    ///
    /// [`ModelError::Script`], [`ModelError::Onnx`] or [`ModelError::Torch`] if the network fails.
    ///
    /// # Panics
    ///
    /// If a network of ours is given another shape than `[B, 3, 112, 112]`.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        match &self.engine {
            Engine::Native(inference) => Ok(inference.forward(images)),
            Engine::Script(script) => script.forward(images),
            Engine::Onnx(model) => {
                let n = images.size()[0];
                let flat = images.f_contiguous().and_then(|images| images.f_reshape(-1));
                let values = flat
                    .and_then(|flat| Vec::<f32>::try_from(&flat))
                    .map_err(ModelError::torch("copy images"))?;
                let rows = model.embed_values(values, n as usize)?;
                Ok(Tensor::from_slice(&rows).view([n, model.embedding() as i64]))
            }
        }
    }

    fn device(&self) -> Device {
        match &self.engine {
            Engine::Native(inference) => inference.device(),
            Engine::Script(script) => script.device(),
            Engine::Onnx(_) => Device::Cpu,
        }
    }

    /// Where it computes and how many images at a time, if it is no processor: to be shown to the user.
    pub fn place(&self) -> Option<String> {
        let n = self.batch_size();
        match &self.engine {
            Engine::Onnx(model) => (model.device() != pfc_onnx::Device::Cpu).then(|| {
                let device = model.device();
                format!("computed on {device} ({}), {n} images at a time", device.provider())
            }),
            _ => match self.device() {
                Device::Cuda(index) => {
                    Some(format!("computed on GPU {index}, {n} images at a time"))
                }
                _ => None,
            },
        }
    }
}

impl From<Backbone> for Embedder {
    fn from(backbone: Backbone) -> Embedder {
        Embedder {
            engine: Engine::Native(Box::new(backbone.into_inference())),
            name: "the network".to_owned(),
            input: InputSpec::insightface(),
            fingerprint: String::new(),
            notes: Vec::new(),
        }
    }
}

impl Embed for Embedder {
    fn embedding(&self) -> usize {
        match &self.engine {
            Engine::Native(inference) => inference.embedding() as usize,
            Engine::Script(script) => script.embedding(),
            Engine::Onnx(model) => model.embedding(),
        }
    }

    fn batch_size(&self) -> usize {
        match &self.engine {
            // A processor is given no fewer than other models, of which it makes several runs.
            Engine::Onnx(model) => model.batch().max(embed::batch_size(Device::Cpu)),
            _ => embed::batch_size(self.device()),
        }
    }

    fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, ModelError> {
        if let Engine::Onnx(model) = &self.engine {
            return model.embed(rgb, n).map_err(|error| self.of_onnx(error));
        }
        let forward = |images: &Tensor| self.forward(images);
        embed::embed(rgb, n, &self.input, self.device(), forward).map_err(|error| self.named(error))
    }

    fn embed_with_mirror(&self, rgb: &[u8], n: usize) -> Result<MirroredEmbeddings, ModelError> {
        if let Engine::Onnx(model) = &self.engine {
            let both = model.embed(rgb, n).and_then(|original| {
                model
                    .embed_mirrored(rgb, n)
                    .map(|mirrored| MirroredEmbeddings { original, mirrored })
            });
            return both.map_err(|error| self.of_onnx(error));
        }
        let forward = |images: &Tensor| self.forward(images);
        embed::embed_with_mirror(rgb, n, &self.input, self.device(), forward)
            .map_err(|error| self.named(error))
    }
}

impl Embedder {
    /// An error that says which model gave it.
    fn named(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::EmbeddingNotFinite { image, .. } => {
                ModelError::EmbeddingNotFinite { model: self.name.clone(), image }
            }
            other => other,
        }
    }

    /// The same fault of an ONNX model is the same error.
    fn of_onnx(&self, error: OnnxError) -> ModelError {
        match error {
            OnnxError::NotFinite { image, .. } => {
                ModelError::EmbeddingNotFinite { model: self.name.clone(), image }
            }
            other => other.into(),
        }
    }
}

fn onnx_options(options: &EmbedderOptions) -> Result<OpenOptions, ModelError> {
    let gpu = match options.device {
        Device::Cpu => None,
        Device::Cuda(index) => Some(index as i32),
        other => return Err(ModelError::Device { device: format!("{other:?}").to_lowercase() }),
    };
    let (device, may_fall_back) = options.provider.on(gpu);
    Ok(OpenOptions {
        input: options.input.clone(),
        output: options.output.clone(),
        threads: options.threads,
        device,
        may_fall_back,
    })
}

/// A hash of the weights and of everything else that changes the embeddings.
fn fingerprint(
    kind: &FileKind,
    path: &Path,
    input: &InputSpec,
    precision: Precision,
) -> Result<String, ModelError> {
    // A checkpoint's manifest holds the checksums of all its files.
    let path: PathBuf = match kind {
        FileKind::Checkpoint => path.join(checkpoint::MANIFEST),
        _ => path.to_owned(),
    };
    let mut file = File::open(&path).map_err(ModelError::io("open", &path))?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(ModelError::io("read", &path))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let InputSpec { height, width, channels, mean, std, .. } = input;
    let options = format!("{height} {width} {channels:?} {mean:?} {std:?} {precision:?}");
    hash.update(options.as_bytes());
    Ok(format!("{:032x}", hash.digest128()))
}
