//! A graph that runs: faces or made-up pictures in, its outputs out.

use std::sync::Mutex;

use half::{bf16, f16};
use ort::{
    logging::LogLevel,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, Tensor},
};

use crate::{
    Layout,
    declared::{Declared, Keypoints},
    proto::data_type,
    provider::Device,
    runtime,
};

/// Values of an output that is looked at: 1 GiB of f32. Nothing that any network gives is as large.
const VALUES_MAX: i64 = 1 << 28;

/// One per core.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// A session of onnxruntime. Runs are serialised: one at a time uses all of its threads.
pub(crate) struct Network {
    session: Mutex<Session>,
}

/// An output of a run.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    /// What a tensor of floats holds; of anything else, what it is.
    pub(crate) values: Result<Vec<f32>, String>,
}

/// How a graph is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) threads: usize,
    pub(crate) device: Device,
    /// Whether the runtime may change the graph. Parts that are measured run as they are written.
    pub(crate) is_optimised: bool,
}

impl Network {
    /// The runtime's reason if it refuses.
    pub(crate) fn open(model: &[u8], settings: Settings) -> Result<Network, String> {
        let environment = runtime::load().map_err(|error| error.to_string())?;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let level = if settings.is_optimised {
            GraphOptimizationLevel::All
        } else {
            GraphOptimizationLevel::Disable
        };
        let builder = Session::builder(environment)
            .map_err(|e| text(&e))?
            .with_optimization_level(level)
            .map_err(|e| text(&e))?
            .with_intra_threads(settings.threads)
            .map_err(|e| text(&e))?
            // What it refuses, it gives as an error as well, which is often only a trial of ours.
            .with_log_level(LogLevel::Fatal)
            .map_err(|e| text(&e))?;
        let mut builder = settings.device.configure(builder, model)?;
        let session = builder.commit_from_memory(model).map_err(|e| text(&e))?;
        Ok(Network { session: Mutex::new(session) })
    }

    /// Runs `n` images, `values` in the layout of the input.
    pub(crate) fn run(
        &self,
        input: &Declared,
        n: usize,
        values: Vec<f32>,
    ) -> Result<Vec<Output>, String> {
        let tensor = tensor(input, n, values).map_err(|error| error.to_string())?;
        // A poisoned lock is a panic of another thread, which says nothing about the session.
        let mut session = self.session.lock().unwrap_or_else(|poison| poison.into_inner());
        let mut inputs = vec![(input.name.as_str(), SessionInputValue::from(tensor))];
        // Parts of a graph that are measured may end before they meet the landmarks.
        let takes = |name: &str| session.inputs().iter().any(|outlet| outlet.name() == name);
        if let Some(keypoints) = input.keypoints.as_ref().filter(|input| takes(&input.name)) {
            let tensor = points(keypoints, n).map_err(|error| error.to_string())?;
            inputs.push((keypoints.name.as_str(), SessionInputValue::from(tensor)));
        }
        let outputs = session.run(inputs).map_err(|error| error.to_string())?;
        let output = |(name, value): (&str, ort::value::ValueRef<'_>)| {
            let (shape, values) = floats(&value);
            Output { name: name.to_owned(), shape, values }
        };
        Ok(outputs.iter().map(output).collect())
    }
}

fn tensor(input: &Declared, n: usize, values: Vec<f32>) -> ort::Result<DynValue> {
    let Declared { height, width, n_channels, .. } = *input;
    let shape = match input.layout {
        Layout::Planes => [n, n_channels, height, width],
        Layout::Pixels => [n, height, width, n_channels],
    };
    Ok(match input.elem_type {
        data_type::FLOAT16 => {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, values))?.into_dyn()
        }
        data_type::BFLOAT16 => {
            let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
            Tensor::from_array((shape, values))?.into_dyn()
        }
        data_type::DOUBLE => {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            Tensor::from_array((shape, values))?.into_dyn()
        }
        data_type::UINT8 => {
            let values: Vec<u8> = values.into_iter().map(|value| value.round() as u8).collect();
            Tensor::from_array((shape, values))?.into_dyn()
        }
        _ => Tensor::from_array((shape, values))?.into_dyn(),
    })
}

/// The landmarks of `n` aligned faces.
fn points(input: &Keypoints, n: usize) -> ort::Result<DynValue> {
    let shape = if input.is_flat { vec![n, 10] } else { vec![n, 5, 2] };
    let values = input.values(n);
    Ok(match input.elem_type {
        data_type::FLOAT16 => {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, values))?.into_dyn()
        }
        _ => Tensor::from_array((shape, values))?.into_dyn(),
    })
}

fn floats(value: &DynValue) -> (Vec<i64>, Result<Vec<f32>, String>) {
    let dtype = value.dtype();
    let shape = dtype.tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
    let n_values = shape.iter().try_fold(1_i64, |n, &side| n.checked_mul(side));
    if n_values.is_none_or(|n_values| n_values > VALUES_MAX) {
        return (shape, Err(format!("more than {VALUES_MAX} values")));
    }
    if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        return (shape.to_vec(), Ok(values.to_vec()));
    }
    if let Ok((shape, values)) = value.try_extract_tensor::<f16>() {
        return (shape.to_vec(), Ok(values.iter().map(|value| value.to_f32()).collect()));
    }
    if let Ok((shape, values)) = value.try_extract_tensor::<bf16>() {
        return (shape.to_vec(), Ok(values.iter().map(|value| value.to_f32()).collect()));
    }
    if let Ok((shape, values)) = value.try_extract_tensor::<f64>() {
        return (shape.to_vec(), Ok(values.iter().map(|&value| value as f32).collect()));
    }
    let what = dtype.tensor_type().map_or_else(|| dtype.to_string(), |ty| ty.to_string());
    (shape, Err(what))
}
