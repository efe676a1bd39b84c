//! Every image of `golden/aligned`, made by scikit-image and `OpenCV` as InsightFace uses them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::path::{Path, PathBuf};

use pfc_image::align::{Image, Point, TEMPLATE, align, warp};
use serde_json::Value;

/// Largest difference of a matrix element over the largest element: landmarks are f32.
const MATRIX_TOLERANCE: f64 = 1e-5;
/// `OpenCV` interpolates in fixed point on a grid of 1/32 pixel; measured 0.25 and 4 levels.
const MEAN_TOLERANCE: f64 = 0.5;
const MAX_TOLERANCE: f64 = 6.0;

fn folder() -> Option<PathBuf> {
    let folder = pfc_testing::golden("aligned")?;
    pfc_testing::is_known(&folder.join("aligned.json")).then_some(folder)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn check(folder: &Path, expected: &Value) {
    let name = expected["source"].as_str().unwrap();
    let points: Vec<Point> = expected["landmarks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| numbers(p).try_into().unwrap())
        .collect();
    let matrix = align(&points.try_into().unwrap()).unwrap();
    let theirs: Vec<f64> =
        expected["matrix"].as_array().unwrap().iter().flat_map(numbers).collect();
    let scale = theirs.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (ours, theirs) in matrix.as_flattened().iter().zip(&theirs) {
        assert!((ours - theirs).abs() / scale < MATRIX_TOLERANCE, "{name}: {ours} {theirs}");
    }

    let source = image::open(folder.join(name)).unwrap().to_rgb8();
    let (width, height) = (source.width() as usize, source.height() as usize);
    let ours = warp(&Image::new(source.as_raw(), width, height).unwrap(), &matrix);
    let crop = image::open(folder.join(expected["crop"].as_str().unwrap())).unwrap().to_rgb8();
    let gaps = ours.iter().zip(crop.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)));
    let (sum, max) = gaps.fold((0.0, 0.0), |(s, m): (f64, f64), gap| (s + gap, m.max(gap)));
    let mean = sum / ours.len() as f64;
    assert!(mean < MEAN_TOLERANCE && max <= MAX_TOLERANCE, "{name}: mean {mean}, max {max}");
}

#[test]
fn golden_aligned_matrices_and_crops_are_met() {
    let Some(folder) = folder() else { return };
    let json = std::fs::read(folder.join("aligned.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    for (ours, theirs) in TEMPLATE.iter().zip(expected["template"].as_array().unwrap()) {
        for (a, b) in ours.iter().zip(numbers(theirs)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
    let images = expected["images"].as_array().unwrap();
    assert!(!images.is_empty());
    images.iter().for_each(|image| check(&folder, image));
}
