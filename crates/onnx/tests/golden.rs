//! Models of the reference against the outputs that onnxruntime gave where they were made.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::path::{Path, PathBuf};

use pfc_onnx::{
    ChannelOrder, FACE_BYTES, InputOptions, OnnxError, OnnxModel, OpenOptions, Origin,
    proto::{GraphProto, ModelProto, NodeProto},
    runtime,
};
use pfc_testing::{golden_cases, has_extension, is_known, network_input};
use prost::Message;
use safetensors::SafeTensors;

/// The models that were recorded; none, with a reason, where they cannot be run.
fn models() -> Vec<PathBuf> {
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return Vec::new();
    }
    let mut models = golden_cases("backbones", |path| has_extension(path, "onnx"));
    models.retain(|model| is_known(&answers(model)));
    models
}

/// The file of a model's outputs.
fn answers(model: &Path) -> PathBuf {
    model.with_extension("onnx.golden.safetensors")
}

fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (view.shape().to_vec(), values)
}

#[test]
fn golden_models_give_their_recorded_outputs() {
    let data = network_input();
    for path in models() {
        let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
        let (shape, expected) = tensor(&answers(&path), "output");
        let data = &data[..shape[0] * model.input().n_values()];
        let found = model.embed_values(data.to_vec(), shape[0]).unwrap();
        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
        let error = difference.fold(0.0, f32::max) / largest;
        assert_eq!(found.len(), expected.len());
        assert!(error < 1e-5, "{}: {error}", path.display());
    }
}

#[test]
fn golden_models_are_recognised_and_take_any_batch() {
    for path in models() {
        let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(model.input().origin, Origin::Convention);
        assert_eq!((model.input().height, model.input().width), (112, 112));
        let (shape, _) = tensor(&answers(&path), "output");
        assert_eq!(model.embedding(), shape[1]);
        let faces: Vec<u8> = (0..5 * FACE_BYTES).map(|i| (i * i / 7) as u8).collect();
        let all = model.embed(&faces, 5).unwrap();
        let largest = all.iter().map(|value| value.abs()).fold(0.0, f32::max);
        for (i, face) in faces.chunks_exact(FACE_BYTES).enumerate() {
            let one = model.embed(face, 1).unwrap();
            let rows = all[i * shape[1]..].iter().zip(&one);
            let worst = rows.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5 * largest, "{worst} of {largest}");
        }
        let mirrored = model.embed_mirrored(&faces, 5).unwrap();
        assert_ne!(mirrored, all);
    }
}

#[test]
fn golden_models_that_are_damaged_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in models() {
        let bytes = std::fs::read(&path).unwrap();
        for n in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
            let cut = dir.path().join("cut.onnx");
            std::fs::write(&cut, &bytes[..n]).unwrap();
            let error = OnnxModel::open(&cut, &OpenOptions::default()).unwrap_err();
            let refused = matches!(
                error,
                OnnxError::NotOnnx { .. } | OnnxError::Refused { .. } | OnnxError::Input { .. }
            );
            assert!(refused, "{n}: {error:?}");
        }
    }
}

#[test]
fn golden_real_network_normalises_by_itself() {
    let Some(path) = pfc_testing::faces("model/mobileface_v2_112.onnx") else { return };
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return;
    }
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((model.input().origin, model.input().std), (Origin::Graph, [1.0; 3]));
    assert_eq!(model.embedding(), 256);
    let stated = OpenOptions {
        input: InputOptions { mean: Some([127.5; 3]), ..InputOptions::default() },
        ..OpenOptions::default()
    };
    let other = OnnxModel::open(&path, &stated).unwrap();
    let face = vec![90; FACE_BYTES];
    assert_ne!(model.embed(&face, 1).unwrap(), other.embed(&face, 1).unwrap());
}

/// A copy of the real network with its graph changed.
fn changed(dir: &Path, change: impl Fn(&mut GraphProto)) -> Option<PathBuf> {
    let path = pfc_testing::faces("model/mobileface_v2_112.onnx")?;
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let mut model = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
    change(model.graph.as_mut().unwrap());
    let changed = dir.join("changed.onnx");
    std::fs::write(&changed, model.encode_to_vec()).unwrap();
    Some(changed)
}

fn check_range(change: impl Fn(&mut GraphProto), origin: Origin, channels: ChannelOrder, std: f32) {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = changed(dir.path(), change) else { return };
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    let (input, line) = (model.input(), &model.account().line);
    assert_eq!((input.origin, input.channels, input.std[0]), (origin, channels, std), "{line}");
    assert!(!line.starts_with("warning: "), "{line}");
}

#[test]
fn golden_statistics_of_a_real_network_tell_what_its_graph_does_not() {
    // Without its normalisation it wants (x − 127.5) / 128, near enough.
    let bare = |graph: &mut GraphProto| {
        graph.node.drain(..2);
        graph.node[0].input[0] = "data".to_owned();
    };
    check_range(bare, Origin::Convention, ChannelOrder::Rgb, 127.5);
    // Behind an operator that is not followed.
    let hidden = |graph: &mut GraphProto| {
        graph.node[0].input[0] = "hidden".to_owned();
        let relu = NodeProto {
            op_type: "LeakyRelu".to_owned(),
            input: vec!["data".to_owned()],
            output: vec!["hidden".to_owned()],
            ..NodeProto::default()
        };
        graph.node.insert(0, relu);
    };
    check_range(hidden, Origin::Measured, ChannelOrder::Rgb, 1.0);
    // With the colours of its first convolution turned, it is a network that was trained with BGR.
    let turned = |graph: &mut GraphProto| {
        let weights = graph.initializer.iter_mut().find(|t| t.name == "conv1_weight").unwrap();
        let values: Vec<u8> = weights.raw_data.as_deref().unwrap_or_default().to_vec();
        assert_eq!((weights.dims[1], values.is_empty()), (3, false));
        let plane = 4 * (weights.dims[2] * weights.dims[3]) as usize;
        let turn =
            |filter: &[u8]| filter.rchunks_exact(plane).flatten().copied().collect::<Vec<u8>>();
        let turned: Vec<u8> = values.chunks_exact(3 * plane).flat_map(turn).collect();
        weights.raw_data = Some(turned.into());
    };
    check_range(turned, Origin::Graph, ChannelOrder::Bgr, 1.0);
}

/// The values of an initialiser.
fn values(graph: &GraphProto, name: &str) -> Vec<f32> {
    let tensor = graph.initializer.iter().find(|tensor| tensor.name == name).unwrap();
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn golden_biases_of_a_folded_convolution_tell_what_is_left_of_the_statistics() {
    // The first convolution of the network with both normalisations folded in, and nothing behind it.
    let folded = |graph: &mut GraphProto| {
        let [gamma, beta, mean, variance] = ["gamma", "beta", "moving_mean", "moving_var"]
            .map(|name| values(graph, &format!("bn1_{name}")));
        let (mut weights, mut biases) =
            (values(graph, "conv1_weight"), values(graph, "conv1_bias"));
        let n_filters = biases.len();
        let per_filter = weights.len() / n_filters;
        for (i, filter) in weights.chunks_exact_mut(per_filter).enumerate() {
            let scale = gamma[i] / (variance[i] + 1e-5).sqrt();
            filter.iter_mut().for_each(|weight| *weight *= scale * 0.007_812_5);
            let sum: f32 = filter.iter().sum();
            biases[i] = (biases[i] - mean[i]) * scale + beta[i] - 127.5 * sum;
        }
        for (name, values) in [("conv1_weight", &weights), ("conv1_bias", &biases)] {
            let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap();
            let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensor.raw_data = Some(raw.into());
        }
        let mut convolution = graph.node[2].clone();
        convolution.input[0] = "data".to_owned();
        let flatten = NodeProto {
            op_type: "Flatten".to_owned(),
            input: vec!["pooled".to_owned()],
            output: vec!["embedding".to_owned()],
            ..NodeProto::default()
        };
        let pool = NodeProto {
            op_type: "GlobalMaxPool".to_owned(),
            input: convolution.output.clone(),
            output: vec!["pooled".to_owned()],
            ..NodeProto::default()
        };
        graph.node = vec![convolution, pool, flatten];
        graph.output[0].r#type = None;
    };
    check_range(folded, Origin::Measured, ChannelOrder::Rgb, 1.0);
}

#[test]
fn golden_sface_is_read_in_spite_of_inputs_that_nothing_takes() {
    let Some(path) = pfc_testing::faces("model/face_recognition_sface_2021dec_int8bq.onnx") else {
        return;
    };
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return;
    }
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    let (input, account) = (model.input(), model.account());
    assert_eq!((input.origin, input.channels), (Origin::Graph, ChannelOrder::Rgb), "{account:?}");
    assert_eq!((input.mean, input.std, model.embedding()), ([0.0; 3], [1.0; 3], 128));
    assert!(account.warnings.is_empty(), "{account:?}");
}

#[test]
fn golden_detector_is_refused_by_its_outputs() {
    let Some(path) = pfc_testing::faces("model/face_detection_yunet_2023mar.onnx") else { return };
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return;
    }
    let error = OnnxModel::open(&path, &OpenOptions::default()).unwrap_err();
    let OnnxError::Output { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("detector") && reason.contains("`bbox_8` [1, 6400, 4]"), "{reason}");
}
