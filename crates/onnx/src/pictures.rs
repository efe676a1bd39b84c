//! A network that takes whole pictures, whose outputs are for others to read: detectors.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    InputOptions, Layout, OnnxError,
    declared::Declared,
    examine::graph_of,
    file,
    network::{Network, Settings},
    proto::{Dimension, ModelProto, ValueInfoProto},
    provider::Device,
    runtime,
    wire::{self, Change},
};

/// Pixels of a side at most.
pub const PICTURE_SIDE_MAX: usize = 8192;

/// Two sizes, both of which a network runs on whose size is open.
const TRIED: [[usize; 2]; 2] = [[256, 128], [128, 384]];

/// Where to compute; what is left open is decided by what the runtime can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU where the runtime is built for GPUs and finds one, else the processor.
    #[default]
    Auto,
    /// This one.
    Fixed(Device),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let index = match text {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Fixed(Device::Cpu)),
            "cuda" => Some(0),
            text => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        let index = index.filter(|index| *index >= 0);
        index
            .map(|index| DeviceChoice::Fixed(Device::Cuda(index)))
            .ok_or_else(|| "give auto, cpu, cuda, or cuda:N".to_owned())
    }
}

/// What a network gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name in the graph.
    pub name: String,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// As many as the sizes say, the last axis first. They may be NaN, or infinite.
    pub values: Vec<f32>,
}

/// A network that takes one picture at a time.
///
/// Many threads may [`run`](PictureNetwork::run) it at once: each of its sessions computes on one thread, so
/// that what it gives depends on the picture alone.
pub struct PictureNetwork {
    path: PathBuf,
    sessions: Vec<Network>,
    /// The next session to be taken.
    next: AtomicUsize,
    declared: Declared,
    is_open: bool,
    device: Device,
    checksum: u128,
}

impl PictureNetwork {
    /// Opens a file. A size that it fixes is opened where the network runs without: exporters write down the
    /// size of their example.
    ///
    /// * `n_sessions`: how many threads run it at once, each with a copy of the weights; on a GPU there is one
    ///
    /// # Errors
    ///
    /// [`OnnxError`]: no ONNX model, one whose input takes no pictures in colour, or one that does not run.
    pub fn open(
        path: &Path,
        n_sessions: usize,
        choice: DeviceChoice,
    ) -> Result<PictureNetwork, OnnxError> {
        let of_input = |reason| OnnxError::Input { path: path.to_owned(), reason };
        let (bytes, proto) = file::read(path)?;
        let graph = graph_of(&proto).map_err(of_input)?;
        let options = InputOptions::default();
        let declared = Declared::within(graph, &options, PICTURE_SIDE_MAX).map_err(of_input)?;
        if declared.n_channels != 3 {
            return Err(of_input("it takes one channel, and pictures have three".to_owned()));
        }
        runtime::load()?;
        let opened = open_sizes(&proto, &bytes).map_err(of_input)?;
        let mut begun = None;
        if let Some(opened) = opened {
            begun = try_open(&opened, &declared, choice)
                .ok()
                .map(|(first, device)| (opened, first, device, true));
        }
        let (bytes, first, device, is_open) = match begun {
            Some(begun) => begun,
            None => {
                if declared.batch.is_some_and(|batch| batch != 1) {
                    return Err(of_input(format!(
                        "it takes {} pictures at a time, and none alone",
                        declared.batch.unwrap_or_default()
                    )));
                }
                let (first, device) = on_device(&bytes, choice)
                    .map_err(|reason| OnnxError::Refused { path: path.to_owned(), reason })?;
                (bytes.clone(), first, device, declared.is_size_open)
            }
        };
        let mut sessions = vec![first];
        let n_sessions = if device == Device::Cpu { n_sessions.max(1) } else { 1 };
        while sessions.len() < n_sessions {
            let session = Network::open(&bytes, settings(device))
                .map_err(|reason| OnnxError::Refused { path: path.to_owned(), reason })?;
            sessions.push(session);
        }
        Ok(PictureNetwork {
            path: path.to_owned(),
            sessions,
            next: AtomicUsize::new(0),
            declared,
            is_open,
            device,
            checksum: xxh3_128(&bytes),
        })
    }

    /// Rows and columns of its pictures; nothing where any size will do.
    pub fn fixed_size(&self) -> Option<[usize; 2]> {
        (!self.is_open).then_some([self.declared.height, self.declared.width])
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// XXH3-128 of the model with all its weights.
    pub fn checksum(&self) -> u128 {
        self.checksum
    }

    /// What the network makes of one picture.
    ///
    /// * `planes`: `[3, height, width]`, as the network wants its pixels
    ///
    /// # Errors
    ///
    /// [`OnnxError::Pixels`] if `planes` has another size, [`OnnxError::Run`] if the runtime fails, or an
    /// output is no tensor of floats.
    pub fn run(
        &self,
        planes: &[f32],
        [height, width]: [usize; 2],
    ) -> Result<Vec<Tensor>, OnnxError> {
        let area = height.saturating_mul(width);
        let expected = area.saturating_mul(3);
        if planes.len() != expected {
            return Err(OnnxError::Pixels { n: 1, found: planes.len(), expected });
        }
        let declared = Declared { height, width, ..self.declared.clone() };
        let values = match declared.layout {
            Layout::Planes => planes.to_vec(),
            Layout::Pixels => {
                let at = |i: usize| planes[i % 3 * area + i / 3];
                (0..expected).map(at).collect()
            }
        };
        let session = &self.sessions[self.next.fetch_add(1, Relaxed) % self.sessions.len()];
        run(session, &declared, values).map_err(|reason| OnnxError::Run { n: 1, reason })
    }
}

impl std::fmt::Debug for PictureNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PictureNetwork")
            .field("path", &self.path)
            .field("declared", &self.declared)
            .field("is_open", &self.is_open)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Whether the runtime was built for NVIDIA's GPUs.
pub fn has_cuda() -> bool {
    Device::Cuda(0).is_available()
}

fn settings(device: Device) -> Settings {
    Settings { threads: 1, device, is_optimised: true }
}

/// A session on the device that was chosen, or that there is.
fn on_device(bytes: &[u8], choice: DeviceChoice) -> Result<(Network, Device), String> {
    match choice {
        DeviceChoice::Fixed(device) => Ok((Network::open(bytes, settings(device))?, device)),
        DeviceChoice::Auto => {
            if has_cuda() {
                match Network::open(bytes, settings(Device::Cuda(0))) {
                    Ok(session) => return Ok((session, Device::Cuda(0))),
                    Err(reason) => tracing::debug!("no GPU for onnxruntime: {reason}"),
                }
            }
            Ok((Network::open(bytes, settings(Device::Cpu))?, Device::Cpu))
        }
    }
}

/// A session of a model whose sizes were opened, if it runs on pictures of two sizes and tells them apart.
fn try_open(
    bytes: &[u8],
    declared: &Declared,
    choice: DeviceChoice,
) -> Result<(Network, Device), String> {
    let (session, device) = on_device(bytes, choice)?;
    let mut shapes = Vec::new();
    for [height, width] in TRIED {
        let tried = Declared { height, width, ..declared.clone() };
        let outputs = run(&session, &tried, tried.flat([0.0; 3]))?;
        shapes.push(outputs.into_iter().map(|output| output.shape).collect::<Vec<_>>());
    }
    match shapes[0] == shapes[1] {
        true => Err("its outputs are the same for pictures of two sizes".to_owned()),
        false => Ok((session, device)),
    }
}

fn run(session: &Network, declared: &Declared, values: Vec<f32>) -> Result<Vec<Tensor>, String> {
    let outputs = session.run(declared, 1, values)?;
    let tensor = |output: crate::network::Output| {
        let name = output.name;
        let values = output
            .values
            .map_err(|what| format!("its output `{}` is {what}", name.escape_debug()))?;
        let shape: Vec<usize> =
            output.shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
        Ok(Tensor { name, shape, values })
    };
    outputs.into_iter().map(tensor).collect()
}

/// The model with all axes of its input and outputs open but that of the channels, and nothing said of what
/// lies between; nothing if none is fixed.
fn open_sizes(model: &ModelProto, bytes: &[u8]) -> Result<Option<Bytes>, String> {
    /// Of a value of the model's own graph: the model and the graph lie around it.
    const DEPTH: usize = 2;
    let graph = graph_of(model)?;
    let weights: Vec<&str> = graph.initializer.iter().map(|w| w.name.as_str()).collect();
    let rewritten = wire::rewrite(bytes, &mut |message, bytes, depth| {
        match message {
            _ if depth != DEPTH => return Ok(Change::Keep),
            wire::Message::Between => return Ok(Change::Drop),
            wire::Message::Value | wire::Message::Output => {}
            _ => return Ok(Change::Keep),
        }
        let value = ValueInfoProto::decode(bytes).map_err(|error| error.to_string())?;
        if weights.contains(&value.name.as_str()) {
            return Ok(Change::Keep);
        }
        Ok(opened(value).map_or(Change::Keep, |value| Change::Replace(value.encode_to_vec())))
    })?;
    Ok(rewritten.map(Bytes::from))
}

/// A value without sizes but 3 for the channels; nothing for what is no tensor of numbers.
fn opened(mut value: ValueInfoProto) -> Option<ValueInfoProto> {
    let tensor = value.r#type.as_mut()?.tensor_type.as_mut()?;
    if tensor.elem_type == 0 {
        return None;
    }
    for (axis, dim) in tensor.shape.as_mut()?.dim.iter_mut().enumerate() {
        if dim.value != Some(Dimension::Value(3)) {
            dim.value = Some(Dimension::Param(format!("{}_{axis}", value.name)));
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, NodeProto, TensorProto, data_type};

    #[test]
    fn devices_are_read_or_refused() {
        let fixed = DeviceChoice::Fixed;
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(fixed(Device::Cpu)));
        assert_eq!("cuda".parse(), Ok(fixed(Device::Cuda(0))));
        assert_eq!("cuda:3".parse(), Ok(fixed(Device::Cuda(3))));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_opened_but_for_channels_and_weights() {
        let value = |name: &str, sizes: &[i64]| {
            let sizes: Vec<Result<i64, &str>> = sizes.iter().map(|&size| Ok(size)).collect();
            ValueInfoProto::tensor(name, data_type::FLOAT, &sizes)
        };
        let graph = GraphProto {
            node: vec![NodeProto { input: vec!["x".into(), "w".into()], ..NodeProto::default() }],
            initializer: vec![TensorProto { name: "w".into(), ..TensorProto::default() }],
            input: vec![value("x", &[10, 3, 32, 32]), value("w", &[3, 3])],
            output: vec![value("y", &[10, 1, 8, 8])],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let opened = open_sizes(&model, &model.encode_to_vec()).unwrap().unwrap();
        let graph = ModelProto::decode(opened).unwrap().graph.unwrap();
        let sizes = |value: &ValueInfoProto| value.shape().unwrap().1;
        assert_eq!(sizes(&graph.input[0]), [None, Some(3), None, None]);
        assert_eq!(sizes(&graph.input[1]), [Some(3), Some(3)]);
        assert_eq!(sizes(&graph.output[0]), [None; 4]);
    }
}
