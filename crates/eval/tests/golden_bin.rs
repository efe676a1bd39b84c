//! Every pack of `golden/bin`: the same faces in many pickle dialects.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests may

use std::{collections::HashMap, path::PathBuf};

use pfc_eval::pack::Pack;
use pfc_verify::{PairsSet, faces::decode};
use safetensors::SafeTensors;
use serde_json::Value;

/// JPEG decoders differ by 1-3 levels, more at colour edges: the bounds of golden's README.
const CHANNEL_MEAN_TOLERANCE: f64 = 0.5;
const MEAN_DIFFERENCE_MAX: f64 = 1.0;

fn folder() -> Option<PathBuf> {
    pfc_testing::golden("bin")
}

fn files(extension: &str) -> Vec<PathBuf> {
    let Some(folder) = folder() else { return Vec::new() };
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths
}

/// Each pack with its entry and the description of its images.
fn packs() -> Vec<(PathBuf, Value, Value)> {
    let mut entries = HashMap::new();
    for json in files("json") {
        let description: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        for (name, entry) in description["files"].as_object().unwrap() {
            entries.insert(name.clone(), (entry.clone(), description.clone()));
        }
    }
    let described = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (entry, description) =
            entries.get(&name).unwrap_or_else(|| panic!("no description of {name}")).clone();
        (path, entry, description)
    };
    files("bin").into_iter().map(described).collect()
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), bytes))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn golden_packs_of_every_dialect_hold_the_same_bytes_and_labels() {
    for (path, entry, description) in packs() {
        let name = path.display();
        let pack = Pack::read(&path).unwrap();
        let n_pairs = entry["pairs"].as_u64().unwrap() as usize;
        assert_eq!(pack.same.len(), n_pairs, "{name}");
        for (i, &same) in pack.same.iter().enumerate() {
            assert_eq!(Some(same), description["issame"][i].as_bool(), "{name}: pair {i}");
        }
        for (i, image) in pack.images.iter().enumerate() {
            let expected = &description["images"][i];
            assert_eq!(Some(image.len() as u64), expected["bytes"].as_u64(), "{name}: image {i}");
            let sum = sha256(image);
            assert_eq!(Some(&sum[..]), expected["sha256_of_bytes"].as_str(), "{name}: image {i}");
        }
    }
}

#[test]
fn golden_pixels_are_exact_for_png_and_near_for_jpeg() {
    for (path, _, description) in packs() {
        for (i, image) in Pack::read(&path).unwrap().images.iter().enumerate() {
            let place = format!("{}: image {i}", path.display());
            let expected = &description["images"][i];
            let decoded = decode(image).unwrap();
            assert!(!decoded.changes.is_resized, "{place}");
            if expected["encoding"]["format"] == "PNG" {
                let sum = sha256(&decoded.rgb);
                assert_eq!(Some(&sum[..]), expected["sha256_of_rgb"].as_str(), "{place}");
            }
            for channel in 0..3 {
                let values = decoded.rgb.iter().skip(channel).step_by(3);
                let sum: f64 = values.map(|&value| f64::from(value)).sum();
                let mean = sum / (decoded.rgb.len() / 3) as f64;
                let theirs = expected["channel_means"][channel].as_f64().unwrap();
                let gap = (mean - theirs).abs();
                assert!(gap <= CHANNEL_MEAN_TOLERANCE, "{place}: {mean} is not {theirs}");
            }
        }
    }
}

#[test]
fn golden_jpeg_pixels_differ_by_less_than_a_level_on_average() {
    for path in files("safetensors") {
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        // `lfw200_jpeg_rgb` holds pixels of the images of `lfw200_jpeg_*.bin`.
        let stem = path.file_stem().unwrap().to_string_lossy().replace("_rgb", "");
        let of_same_images =
            |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().starts_with(&stem);
        let pack = Pack::read(&files("bin").into_iter().find(of_same_images).unwrap()).unwrap();
        for (name, tensor) in tensors.tensors() {
            let i: usize = name.rsplit('.').next().unwrap().parse().unwrap();
            let ours = decode(&pack.images[i]).unwrap().rgb;
            assert_eq!(ours.len(), tensor.data().len(), "{name}");
            let gaps = ours.iter().zip(tensor.data()).map(|(a, b)| f64::from(a.abs_diff(*b)));
            let mean = gaps.sum::<f64>() / ours.len() as f64;
            assert!(mean < MEAN_DIFFERENCE_MAX, "{name}: {mean}");
        }
    }
}

#[test]
fn golden_packs_open_as_sets_and_keep_repeated_images_once() {
    for (path, entry, _) in packs() {
        let set = PairsSet::open_pack(&path).unwrap();
        assert_eq!(Some(set.n_pairs() as u64), entry["pairs"].as_u64());
        assert!(set.n_images() <= 2 * set.n_pairs());
    }
}
