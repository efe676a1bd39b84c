//! `pfc.Embedder`: faces to embeddings, through onnxruntime.

// N = images, D = embedding.

use std::{path::PathBuf, process};

use numpy::{IntoPyArray, PyArray2, PyReadonlyArray4, PyUntypedArrayMethods, ndarray::Array2};
use pfc_onnx::{
    ChannelOrder, Device, FACE_BYTES, FACE_SIDE, InputOptions, OnnxError, OnnxModel, OpenOptions,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{failure::Failure, work::interruptible};

/// Images that are embedded between two looks at whether Ctrl-C was pressed.
const PIECE: usize = 32;

/// An ONNX model that turns aligned faces into embeddings.
///
/// What it wants of its images (size, normalisation, order of colours) is measured, as `pfc-eval` does
/// it; `account` says what was found and why, and what is only assumed is a warning. The arguments
/// state it instead. onnxruntime is that of the Python package of this name, or the library that
/// ORT_DYLIB_PATH names. It can be pickled; the copy opens the file again.
///
/// path: the .onnx file.
/// size: height and width in pixels, where the file leaves them open.
/// channels: "rgb" or "bgr".
/// mean, std: one number, or three in the network's order of channels: it is given (x - mean) / std of
/// pixels x from 0 to 255.
/// output: the name of the output that is the embedding.
/// threads: of one run; by default one per core.
/// gpu: number of an NVIDIA GPU, which needs onnxruntime-gpu; by default the processor computes.
#[pyclass(module = "pfc", subclass, frozen, name = "Embedder")]
#[derive(Debug)]
pub struct Embedder {
    model: OnnxModel,
    path: PathBuf,
    stated: Stated,
    /// The process that holds the runtime's threads.
    process: u32,
}

/// What the caller says.
#[derive(Debug, Clone)]
struct Stated {
    size: Option<[usize; 2]>,
    channels: Option<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    output: Option<String>,
    threads: Option<usize>,
    gpu: Option<i32>,
}

/// One number for all channels, or one for each.
#[derive(FromPyObject)]
enum Numbers {
    Each([f32; 3]),
    All(f32),
}

impl Numbers {
    fn each(self) -> [f32; 3] {
        match self {
            Numbers::Each(numbers) => numbers,
            Numbers::All(number) => [number; 3],
        }
    }
}

impl Stated {
    fn options(&self) -> Result<OpenOptions, Failure> {
        let channels: Option<ChannelOrder> =
            self.channels.as_deref().map(str::parse).transpose().map_err(|_| {
                Failure::value("channels are neither \"rgb\" nor \"bgr\"", "give one of them")
            })?;
        if let Some(std) = self.std
            && std.iter().any(|number| number.is_nan() || *number <= 0.0)
        {
            let hint = "pixels are divided by it: give numbers above 0";
            return Err(Failure::value(format!("std is {std:?}"), hint));
        }
        let input = InputOptions { size: self.size, channels, mean: self.mean, std: self.std };
        let device = self.gpu.map_or(Device::Cpu, Device::Cuda);
        let (output, threads) = (self.output.clone(), self.threads);
        Ok(OpenOptions { input, output, threads, device, may_fall_back: false })
    }
}

#[pymethods]
impl Embedder {
    #[new]
    #[pyo3(
        signature = (path, *, size=None, channels=None, mean=None, std=None, output=None,
            threads=None, gpu=None, is_copy=false),
        text_signature = "(path, *, size=None, channels=None, mean=None, std=None, output=None, \
            threads=None, gpu=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        size: Option<[usize; 2]>,
        channels: Option<String>,
        mean: Option<Numbers>,
        std: Option<Numbers>,
        output: Option<String>,
        threads: Option<usize>,
        gpu: Option<i32>,
        is_copy: bool,
    ) -> PyResult<Embedder> {
        let library = py.import("pfc._runtime")?.call_method0("library")?;
        if let Some(library) = library.extract::<Option<PathBuf>>()? {
            pfc_onnx::runtime::offer(library);
        }
        let (mean, std) = (mean.map(Numbers::each), std.map(Numbers::each));
        let stated = Stated { size, channels, mean, std, output, threads, gpu };
        let options = stated.options()?;
        let model = interruptible(py, |_| OnnxModel::open(&path, &options).map_err(told))?;
        let account = model.account();
        let assumed = account.line.strip_prefix("warning: ").map(str::to_owned);
        let warnings = account.warnings.iter().map(|line| line.trim_start_matches("warning: "));
        // Of a copy it was said before.
        for text in assumed.iter().map(String::as_str).chain(warnings).filter(|_| !is_copy) {
            let category = py.import("pfc._errors")?.getattr("ModelWarning")?;
            py.import("warnings")?.call_method1("warn", (in_python(text), category, 1))?;
        }
        Ok(Embedder { model, path, stated, process: process::id() })
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((PathBuf,), Bound<'py, PyDict>)> {
        let Stated { size, channels, mean, std, output, threads, gpu } = &self.stated;
        let named = PyDict::new(py);
        named.set_item("size", size)?;
        named.set_item("channels", channels)?;
        named.set_item("mean", mean)?;
        named.set_item("std", std)?;
        named.set_item("output", output)?;
        named.set_item("threads", threads)?;
        named.set_item("gpu", gpu)?;
        named.set_item("is_copy", true)?;
        Ok(((self.path.clone(),), named))
    }

    fn __repr__(&self) -> String {
        format!("<pfc.Embedder {}: {} numbers>", self.path.display(), self.model.embedding())
    }

    /// Numbers in an embedding, D.
    #[getter]
    fn dim(&self) -> usize {
        self.model.embedding()
    }

    /// The file that it was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// What the network is given and what is taken from it, and how that is known: a line of text.
    #[getter]
    fn account(&self) -> String {
        in_python(self.model.account().line.trim_start_matches("warning: "))
    }

    /// What was measured to find that out, a text each.
    #[getter]
    fn evidence(&self) -> Vec<String> {
        self.model.account().evidence.clone()
    }

    /// The embeddings of N faces: an array of float32 of shape (N, D), not normalised.
    ///
    /// images: a contiguous array of uint8 of shape (N, 112, 112, 3), red first, of faces that are
    /// aligned as ArcFace's are. What the network wants of them is done here.
    /// mirrored: embed the faces mirrored left to right; figures are usually of the sum of both.
    #[pyo3(signature = (images, *, mirrored=false))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        mirrored: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        if self.process != process::id() {
            return Err(Failure::other(
                "this model was opened before the process was forked, and onnxruntime's threads are \
                 not in the fork",
                "open the model in the process that uses it, or start processes with \"spawn\"",
            )
            .into());
        }
        let images: PyReadonlyArray4<'py, u8> =
            images.extract().map_err(|_| not_faces("no such array"))?;
        if images.shape()[1..] != [FACE_SIDE, FACE_SIDE, 3] {
            return Err(not_faces(&format!("an array of shape {:?}", images.shape())).into());
        }
        let n = images.shape()[0];
        let rgb = images.as_slice().map_err(|_| not_faces("an array that is not contiguous"))?;
        let dim = self.model.embedding();
        let rows = interruptible(py, |stop| {
            let mut rows = Vec::with_capacity(n * dim);
            for faces in rgb.chunks(PIECE * FACE_BYTES) {
                stop.check()?;
                let n = faces.len() / FACE_BYTES;
                let embedded = match mirrored {
                    true => self.model.embed_mirrored(faces, n),
                    false => self.model.embed(faces, n),
                };
                rows.extend(embedded.map_err(told)?);
            }
            Array2::from_shape_vec((n, dim), rows)
                .map_err(|_| Failure::other("internal error: a shape", "please report it"))
        })?;
        Ok(rows.into_pyarray(py))
    }
}

fn not_faces(found: &str) -> Failure {
    Failure::value(
        format!("the images are {found}"),
        "give a contiguous array of uint8 of shape (N, 112, 112, 3), red first: \
         numpy.ascontiguousarray makes one",
    )
}

fn told(error: OnnxError) -> Failure {
    Failure::from(error).reworded(in_python)
}

/// The words of a message in which options are arguments.
fn in_python(text: &str) -> String {
    text.replace(
        "`scripts/setup` fetches it; or name",
        "`pip install onnxruntime` brings it; or name",
    )
    .replace("--output NAME", "output=")
    .replace("--input-size states", "size= states")
    .replace("--mean and --std state", "mean= and std= state")
    .replace("--channels", "channels=")
}
