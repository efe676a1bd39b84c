//! ONNX files that were once read wrongly, from the kept cases.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::path::{Path, PathBuf};

use pfc_onnx::{FACE_BYTES, OnnxError, OnnxModel, OpenOptions, runtime};

/// A file of a kept case; none without the case or onnxruntime.
fn case(name: &str, file: &str) -> Option<PathBuf> {
    let folder = pfc_testing::case(name)?;
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    Some(folder.join(file))
}

fn face() -> Vec<u8> {
    (0..FACE_BYTES).map(|i| (i * i / 5000 + i % 90) as u8).collect()
}

fn open(path: &Path) -> OnnxModel {
    OnnxModel::open(path, &OpenOptions::default()).unwrap()
}

#[test]
fn a_graph_that_normalises_by_itself_gives_what_the_plain_one_gives() {
    let Some(plain) = case("onnx-normalisation-open", "plain.onnx") else { return };
    let model = open(&plain);
    assert!(model.account().line.starts_with("warning: "), "{:?}", model.account());
    assert!(model.account().line.contains("nothing in the file says so"));
    let expected = model.embed(&face(), 1).unwrap();
    for name in ["clip.onnx", "shape.onnx", "fp16.onnx"] {
        let model = open(&plain.with_file_name(name));
        let found = model.embed(&face(), 1).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine =
            dot(&found, &expected) / (dot(&found, &found) * dot(&expected, &expected)).sqrt();
        assert!(cosine >= 0.999, "{name}: {cosine} {:?}", model.account());
        assert!(!model.account().line.starts_with("warning: "), "{:?}", model.account());
    }
}

#[test]
fn weights_beside_the_model_are_read_and_asked_for_by_name() {
    let Some(path) = case("onnx-external-data", "net.onnx") else { return };
    let one_file = open(&path.with_file_name("net_one_file.onnx"));
    assert_eq!(open(&path).embed(&face(), 1).unwrap(), one_file.embed(&face(), 1).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("net.onnx");
    std::fs::copy(&path, &alone).unwrap();
    let error = OnnxModel::open(&alone, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, OnnxError::External { .. }), "{error:?}");
    assert!(error.to_string().contains("net.onnx.data"), "{error}");
    assert!(error.hint().unwrap().contains("put `net.onnx.data` beside `net.onnx`"));
}

#[test]
fn the_output_called_embedding_is_taken_and_another_by_its_name() {
    let Some(path) = case("onnx-two-outputs-open", "landmarks_first.onnx") else { return };
    let model = open(&path);
    assert_eq!(model.embedding(), 147);
    assert!(model.account().line.contains("`landmarks` [1, 10]"), "{:?}", model.account());
    let named = |name: &str| OpenOptions { output: Some(name.into()), ..OpenOptions::default() };
    assert_eq!(OnnxModel::open(&path, &named("landmarks")).unwrap().embedding(), 10);
    let error = OnnxModel::open(&path, &named("x")).unwrap_err();
    assert!(error.to_string().contains("there is no output `x` among `landmarks`"), "{error}");
    assert!(error.hint().unwrap().contains("--output"));
}

#[test]
fn a_network_with_keypoints_gets_those_of_aligned_faces() {
    let Some(path) = case("onnx-keypoints-input", "kprpe.onnx") else { return };
    let model = open(&path);
    let line = &model.account().line;
    assert!(line.contains("`keypoints` gets the places that the five landmarks"), "{line}");
    let one = model.embed(&face(), 1).unwrap();
    let two = model.embed(&face().repeat(2), 2).unwrap();
    let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
    assert_eq!(two.len(), 2 * one.len());
    assert!(two.iter().zip(one.iter().cycle()).all(is_near), "{one:?}");
}
