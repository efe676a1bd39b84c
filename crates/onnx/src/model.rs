//! A model in use.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    Account, FACE_BYTES, InputOptions, InputSpec, OnnxError,
    declared::Declared,
    examine::{self, graph_of},
    file,
    flat::Flat,
    network::{Network, Output, Settings, default_threads},
    outputs::{Chosen, Refusal, choose, choose_score},
    pixels::mirrored,
    provider::Device,
    runtime,
};

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What is known of the input.
    pub input: InputOptions,
    /// Name of the output that is the embedding; by default it is chosen by name and shape.
    pub output: Option<String>,
    /// Threads of one run; by default one per core.
    pub threads: Option<usize>,
    /// Where to compute.
    pub device: Device,
    /// Whether the processor may compute where the device cannot be had; [`OnnxModel::fallback`] says so.
    pub may_fall_back: bool,
}

/// What is taken from a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Embedding,
    Score,
}

/// A model that turns faces into embeddings, or into a number each.
pub struct OnnxModel {
    path: PathBuf,
    network: Network,
    declared: Declared,
    input: InputSpec,
    output: Chosen,
    account: Account,
    device: Device,
    fallback: Option<String>,
    /// Images per run.
    batch: AtomicUsize,
    checksum: u128,
}

impl OnnxModel {
    /// Opens a file, finds out what its input wants ([`account`](OnnxModel::account) says how), and runs it on
    /// drawn faces, so that what cannot work fails here.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] but for `Pixels`.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<OnnxModel, OnnxError> {
        OnnxModel::open_for(Wanted::Embedding, path, options)
    }

    /// As [`open`](OnnxModel::open), but takes one number for each face, such as its quality, for an embedding
    /// of one number.
    ///
    /// # Errors
    ///
    /// As [`open`](OnnxModel::open).
    pub fn open_score(path: &Path, options: &OpenOptions) -> Result<OnnxModel, OnnxError> {
        OnnxModel::open_for(Wanted::Score, path, options)
    }

    fn open_for(
        wanted: Wanted,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<OnnxModel, OnnxError> {
        let of_input = |reason| OnnxError::Input { path: path.to_owned(), reason };
        let refused = |reason| OnnxError::Refused { path: path.to_owned(), reason };
        let (bytes, proto) = file::read(path)?;
        let graph = graph_of(&proto).map_err(of_input)?;
        let mut declared = Declared::of(graph, &options.input).map_err(of_input)?;
        runtime::load()?;
        let threads = options.threads.unwrap_or_else(default_threads);
        let settings = Settings { threads, device: options.device, is_optimised: true };
        let Placed { network, device, fallback } =
            place(&bytes, settings, options.may_fall_back).map_err(refused)?;
        examine::settle(&mut declared, &network);
        let flat = Flat::of(&proto, graph).map_err(of_input)?;
        let (n_rows, black) = declared.batch_of(&declared.flat([0.0; 3]));
        let outputs = network.run(&declared, n_rows, black).map_err(refused)?;
        let named = options.output.as_deref();
        let output = match wanted {
            Wanted::Embedding => choose(&outputs, n_rows, &flat, named),
            Wanted::Score => choose_score(&outputs, n_rows, named),
        };
        let output = output.map_err(|refusal| of_output(path, refusal))?;
        let mut decision =
            examine::examine(&proto, &flat, &declared, &options.input).map_err(of_input)?;
        let try_out = match wanted {
            Wanted::Embedding => examine::try_out,
            Wanted::Score => examine::try_score,
        };
        try_out(&mut decision, &network, &declared, &output).map_err(refused)?;
        Ok(OnnxModel {
            path: path.to_owned(),
            batch: AtomicUsize::new(declared.batch.unwrap_or(device.batch())),
            device,
            fallback,
            checksum: checksum(&bytes, &decision.spec, &output),
            account: Account::of(path, &declared, &decision, &output),
            input: decision.spec,
            network,
            declared,
            output,
        })
    }

    /// What the input wants.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// Why the input is thought to want this, and what of it is assumed. To be shown to the user.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Numbers in an embedding, D.
    pub fn embedding(&self) -> usize {
        self.output.dim
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why the processor computes and not the device that was asked for, if that is so. To be shown to the
    /// user.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Images of a run.
    pub fn batch(&self) -> usize {
        self.batch.load(Ordering::Relaxed)
    }

    /// XXH3-128 of the model with all its weights, of what it is given and of the output that is taken:
    /// embeddings of one model that was opened in two ways do not mix.
    pub fn checksum(&self) -> u128 {
        self.checksum
    }

    /// Embeddings of `n` faces, `[n, D]` row by row, not normalised.
    ///
    /// * `rgb`: `n` faces of 112×112×3 bytes, rows from the top, pixels from the left, red first
    ///
    /// # Errors
    ///
    /// [`OnnxError::Pixels`] if `rgb` has another size, [`OnnxError::Run`] if the runtime fails,
    /// [`OnnxError::NotFinite`] for NaN or infinity.
    pub fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, OnnxError> {
        let expected = n.saturating_mul(FACE_BYTES);
        if rgb.len() != expected {
            return Err(OnnxError::Pixels { n, found: rgb.len(), expected });
        }
        let mut rows = Vec::with_capacity(n * self.output.dim);
        let mut rest = rgb;
        while !rest.is_empty() {
            let n_next = (rest.len() / FACE_BYTES).min(self.batch());
            let (next, after) = rest.split_at(n_next * FACE_BYTES);
            let (n_rows, values) = self.values(next, n_next);
            match self.run(n_next, n_rows, values) {
                Ok(embeddings) => {
                    let first = rows.len() / self.output.dim;
                    self.check_finite(&embeddings, first)?;
                    rows.extend(embeddings);
                    rest = after;
                }
                Err(error) if n_next > 1 && self.declared.batch.is_none() => {
                    // Exporters bake the batch of their example into reshapes, and declare it open
                    // all the same.
                    tracing::warn!(
                        "{}: takes one image at a time only: {error}",
                        self.path.display()
                    );
                    self.batch.store(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    /// Refuses NaN and infinity: every figure made from them would be wrong without a word.
    ///
    /// * `first`: number of the first row, for errors
    fn check_finite(&self, rows: &[f32], first: usize) -> Result<(), OnnxError> {
        match rows.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let image = first + at / self.output.dim;
                Err(OnnxError::NotFinite { path: self.path.clone(), image })
            }
        }
    }

    /// As [`embed`](OnnxModel::embed), of the faces mirrored left to right.
    ///
    /// # Errors
    ///
    /// As [`embed`](OnnxModel::embed).
    pub fn embed_mirrored(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, OnnxError> {
        let (faces, rest) = rgb.as_chunks::<FACE_BYTES>();
        if faces.len() != n || !rest.is_empty() {
            let expected = n.saturating_mul(FACE_BYTES);
            return Err(OnnxError::Pixels { n, found: rgb.len(), expected });
        }
        let mirrored: Vec<u8> = faces.iter().flat_map(|face| mirrored(face)).collect();
        self.embed(&mirrored, n)
    }

    /// Embeddings of `n` images that are normalised already, `[n, D]` row by row.
    ///
    /// * `values`: `n` images of [`InputSpec::n_values`] numbers, in the layout of the input
    ///
    /// # Errors
    ///
    /// [`OnnxError::Run`] if the runtime fails, or `n` is not the batch that the file fixes.
    ///
    /// # Panics
    ///
    /// If `values` has another size.
    pub fn embed_values(&self, values: Vec<f32>, n: usize) -> Result<Vec<f32>, OnnxError> {
        assert_eq!(values.len(), n * self.input.n_values(), "not {n} images");
        self.run(n, n, values)
    }

    /// Values of the network's input for `n` faces, padded with zeros to a batch that the file fixes or that the
    /// device compiled for.
    fn values(&self, rgb: &[u8], n: usize) -> (usize, Vec<f32>) {
        let spec = &self.input;
        let open = if self.device.wants_one_size() { n.max(self.batch()) } else { n };
        let n_rows = self.declared.batch.unwrap_or(open);
        let mut values = vec![0.0; n_rows * spec.n_values()];
        let (faces, _) = rgb.as_chunks::<FACE_BYTES>();
        for (face, out) in faces.iter().zip(values.chunks_exact_mut(spec.n_values())) {
            spec.write(face, out);
        }
        (n_rows, values)
    }

    /// Runs `n_rows` images and keeps the embeddings of the first `n`.
    fn run(&self, n: usize, n_rows: usize, values: Vec<f32>) -> Result<Vec<f32>, OnnxError> {
        let failed = |reason: String| OnnxError::Run { n, reason };
        let outputs = self.network.run(&self.declared, n_rows, values).map_err(failed)?;
        let is_it = |output: &Output| output.name == self.output.name;
        let Some(Ok(mut rows)) = outputs.into_iter().find(is_it).map(|output| output.values) else {
            return Err(failed("an output is no tensor of floats".to_owned()));
        };
        let dim = self.output.dim;
        if rows.len() != n_rows * dim {
            return Err(failed(format!("{} values for {n_rows} rows of {dim}", rows.len())));
        }
        rows.truncate(n * dim);
        Ok(rows)
    }
}

/// A session, and where it computes.
struct Placed {
    network: Network,
    device: Device,
    /// Why there and not where it was asked to.
    fallback: Option<String>,
}

fn place(model: &[u8], settings: Settings, may_fall_back: bool) -> Result<Placed, String> {
    let device = settings.device;
    let reason = match Network::open(model, settings) {
        Ok(network) => return Ok(Placed { network, device, fallback: None }),
        Err(reason) => reason,
    };
    if !may_fall_back || device == Device::Cpu {
        return Err(reason);
    }
    // What the model itself is refused for, it is refused for here too.
    let settings = Settings { device: Device::Cpu, ..settings };
    let network = Network::open(model, settings)?;
    let fallback = Some(format!("the processor computes, not {device}: {reason}"));
    Ok(Placed { network, device: Device::Cpu, fallback })
}

fn of_output(path: &Path, refusal: Refusal) -> OnnxError {
    let path = path.to_owned();
    match refusal {
        Refusal::None(reason) => OnnxError::Output { path, reason },
        Refusal::Several(reason) | Refusal::NoSuch(reason) => OnnxError::Outputs { path, reason },
    }
}

fn checksum(model: &[u8], spec: &InputSpec, output: &Chosen) -> u128 {
    let InputSpec { height, width, channels, mean, std, .. } = spec;
    let mut hash = Xxh3::new();
    hash.update(model);
    let name = &output.name;
    hash.update(format!("{height} {width} {channels} {mean:?} {std:?} {name}").as_bytes());
    hash.digest128()
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxModel")
            .field("path", &self.path)
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}
