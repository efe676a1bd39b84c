//! Models of the reference against the outputs that onnxruntime gave where they were made.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::path::{Path, PathBuf};

use pfc_onnx::{FACE_BYTES, InputOptions, OnnxError, OnnxModel, OpenOptions, Origin, runtime};
use pfc_testing::{golden_cases, has_extension};
use safetensors::SafeTensors;

/// The models that were recorded; none, with a reason, where they cannot be run.
fn models() -> Vec<PathBuf> {
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return Vec::new();
    }
    golden_cases("backbones", |path| has_extension(path, "onnx"))
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
    let Some(folder) = pfc_testing::golden("backbones") else { return };
    let (_, data) = tensor(&folder.join("input.safetensors"), "data");
    for path in models() {
        let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
        let (shape, expected) = tensor(&path.with_extension("onnx.golden.safetensors"), "output");
        let found = model.embed_values(data.clone(), shape[0]).unwrap();
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
        let (shape, _) = tensor(&path.with_extension("onnx.golden.safetensors"), "output");
        assert_eq!(model.embedding(), shape[1]);
        let faces: Vec<u8> = (0..5 * FACE_BYTES).map(|i| (i * i / 7) as u8).collect();
        let all = model.embed(&faces, 5).unwrap();
        for (i, face) in faces.chunks_exact(FACE_BYTES).enumerate() {
            let one = model.embed(face, 1).unwrap();
            let rows = all[i * shape[1]..].iter().zip(&one);
            let worst = rows.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{worst}");
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
