//! A model in use.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use half::f16;
use ort::{
    ep::CUDA,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, Tensor},
};

use crate::{
    FACE_BYTES, InputOptions, InputSpec, OnnxError, file,
    pixels::mirrored,
    proto::data_type,
    recognise::{Recognised, recognise},
    runtime,
};

/// Images per run where the file leaves the batch open: beyond this a CPU gains nothing.
const BATCH: usize = 32;
/// Numbers of an embedding; more are an image or a feature map.
const DIM_MAX: usize = 65_536;

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its index; needs the GPU build of onnxruntime.
    Cuda(i32),
}

/// How a model is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What is known of the input.
    pub input: InputOptions,
    /// Threads of one run; by default one per core.
    pub threads: Option<usize>,
    /// Where to compute.
    pub device: Device,
}

/// A model that turns faces into embeddings.
///
/// Runs are serialised: one at a time uses all of the model's threads.
pub struct OnnxModel {
    path: PathBuf,
    session: Mutex<Session>,
    input: Recognised,
    output: usize,
    dim: usize,
    /// Images per run.
    batch: AtomicUsize,
    checksum: u128,
}

impl OnnxModel {
    /// Opens a file and runs it once on a grey image, so that what cannot work fails here.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] but for `Pixels`.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<OnnxModel, OnnxError> {
        let (bytes, proto) = file::read(path)?;
        let input = recognise(&proto, &options.input)
            .map_err(|reason| OnnxError::Input { path: path.to_owned(), reason })?;
        drop(proto);
        let session = session(path, &bytes, options)?;
        let batch = input.batch.unwrap_or(BATCH);
        let mut model = OnnxModel {
            path: path.to_owned(),
            session: Mutex::new(session),
            output: 0,
            dim: 0,
            batch: AtomicUsize::new(batch),
            checksum: xxhash_rust::xxh3::xxh3_128(&bytes),
            input,
        };
        model.find_output()?;
        Ok(model)
    }

    /// What the input wants.
    pub fn input(&self) -> &InputSpec {
        &self.input.spec
    }

    /// Numbers in an embedding, D.
    pub fn embedding(&self) -> usize {
        self.dim
    }

    /// XXH3-128 of the file.
    pub fn checksum(&self) -> u128 {
        self.checksum
    }

    /// Embeddings of `n` faces, `[n, D]` row by row, not normalised.
    ///
    /// * `rgb`: `n` faces of 112×112×3 bytes, rows from the top, pixels from the left, red first
    ///
    /// # Errors
    ///
    /// [`OnnxError::Pixels`] if `rgb` has another size, [`OnnxError::Run`] if the runtime fails.
    pub fn embed(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, OnnxError> {
        let expected = n.saturating_mul(FACE_BYTES);
        if rgb.len() != expected {
            return Err(OnnxError::Pixels { n, found: rgb.len(), expected });
        }
        let mut rows = Vec::with_capacity(n * self.dim);
        let mut rest = rgb;
        while !rest.is_empty() {
            let n_next = (rest.len() / FACE_BYTES).min(self.batch.load(Ordering::Relaxed));
            let (next, after) = rest.split_at(n_next * FACE_BYTES);
            let (n_rows, values) = self.values(next, n_next);
            match self.run(n_next, n_rows, values) {
                Ok(embeddings) => {
                    rows.extend(embeddings);
                    rest = after;
                }
                Err(error) if n_next > 1 && self.input.batch.is_none() => {
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
        assert_eq!(values.len(), n * self.input.spec.n_values(), "not {n} images");
        self.run(n, n, values)
    }

    /// Values of the network's input for `n` faces, padded with grey to a batch that is fixed.
    fn values(&self, rgb: &[u8], n: usize) -> (usize, Vec<f32>) {
        let spec = &self.input.spec;
        let n_rows = self.input.batch.unwrap_or(n);
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
        let outputs = self.outputs(n_rows, values).map_err(failed)?;
        let mut rows = outputs.into_iter().nth(self.output).and_then(|(_, values)| values);
        let dim = self.dim;
        match &mut rows {
            Some(values) if values.len() == n_rows * dim => values.truncate(n * dim),
            Some(values) => {
                return Err(failed(format!("{} values for {n_rows} rows of {dim}", values.len())));
            }
            None => return Err(failed("an output is no tensor of floats".to_owned())),
        }
        Ok(rows.unwrap_or_default())
    }

    /// Shape and, of float tensors, the values of every output.
    fn outputs(&self, n_rows: usize, values: Vec<f32>) -> Result<Vec<Output>, String> {
        let input = self.tensor(n_rows, values).map_err(|error| error.to_string())?;
        // A poisoned lock is a panic of another thread, which says nothing about the session.
        let mut session = self.session.lock().unwrap_or_else(|poison| poison.into_inner());
        let inputs = vec![(self.input.name.as_str(), SessionInputValue::from(input))];
        let outputs = session.run(inputs).map_err(|error| error.to_string())?;
        Ok(outputs.iter().map(|(_, value)| floats(&value)).collect())
    }

    fn tensor(&self, n: usize, values: Vec<f32>) -> ort::Result<DynValue> {
        let InputSpec { height, width, layout, .. } = self.input.spec;
        let shape = match layout {
            crate::Layout::Planes => [n, 3, height, width],
            crate::Layout::Pixels => [n, height, width, 3],
        };
        Ok(match self.input.elem_type {
            data_type::FLOAT16 => {
                let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            data_type::UINT8 => {
                let values: Vec<u8> = values.into_iter().map(|value| value.round() as u8).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            _ => Tensor::from_array((shape, values))?.into_dyn(),
        })
    }

    /// Runs a grey image and takes the first output that is one row of numbers.
    fn find_output(&mut self) -> Result<(), OnnxError> {
        let failed = |reason| OnnxError::Refused { path: self.path.clone(), reason };
        let (n_rows, values) = self.values(&[127; FACE_BYTES], 1);
        let outputs = self.outputs(n_rows, values).map_err(failed)?;
        let is_rows = |(shape, values): &Output| {
            let dim = values.as_ref()?.len() / n_rows;
            // [N, D], or with sides of 1 behind; [D] where the batch was squeezed away.
            let row = shape.iter().filter(|&&side| side != 1).count();
            let is_row = shape.len() == 1 || row <= 1 + usize::from(n_rows > 1);
            (is_row && (2..=DIM_MAX).contains(&dim)).then_some(dim)
        };
        let found = outputs.iter().enumerate().find_map(|(i, output)| Some((i, is_rows(output)?)));
        let Some((output, dim)) = found else {
            let shapes: Vec<String> =
                outputs.iter().map(|(shape, _)| format!("{shape:?}")).collect();
            let reason = format!("its outputs have the shapes {}", shapes.join(", "));
            return Err(OnnxError::Output { path: self.path.clone(), reason });
        };
        (self.output, self.dim) = (output, dim);
        Ok(())
    }
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxModel")
            .field("path", &self.path)
            .field("input", &self.input)
            .field("dim", &self.dim)
            .finish_non_exhaustive()
    }
}

/// Shape and, of a float tensor, its values.
type Output = (Vec<i64>, Option<Vec<f32>>);

fn floats(value: &DynValue) -> Output {
    if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        return (shape.to_vec(), Some(values.to_vec()));
    }
    match value.try_extract_tensor::<f16>() {
        Ok((shape, values)) => {
            (shape.to_vec(), Some(values.iter().map(|value| value.to_f32()).collect()))
        }
        Err(_) => (Vec::new(), None),
    }
}

fn session(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Session, OnnxError> {
    let environment = runtime::load()?;
    let threads = options.threads.unwrap_or_else(default_threads);
    let build = || -> Result<Session, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut builder = Session::builder(environment)
            .map_err(|e| text(&e))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| text(&e))?
            .with_intra_threads(threads)
            .map_err(|e| text(&e))?;
        if let Device::Cuda(index) = options.device {
            let cuda = CUDA::default().with_device_id(index).build().error_on_failure();
            builder = builder.with_execution_providers([cuda]).map_err(|e| text(&e))?;
        }
        builder.commit_from_memory(bytes).map_err(|e| text(&e))
    };
    build().map_err(|reason| OnnxError::Refused { path: path.to_owned(), reason })
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
