//! Every pack of `golden/bin`: the same faces in many pickle dialects.

use pfc_eval::pack::Pack;
use pfc_testing::{KnownPack, golden_cases, golden_packs, has_extension};
use pfc_verify::{PairsSet, faces::decode};
use safetensors::SafeTensors;

/// JPEG decoders differ by 1-3 levels, more at colour edges: the bounds of golden's README.
const CHANNEL_MEAN_TOLERANCE: f64 = 0.5;
const MEAN_DIFFERENCE_MAX: f64 = 1.0;

fn sha256(bytes: &[u8]) -> String {
    sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), bytes))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn golden_packs_of_every_dialect_hold_the_same_bytes_and_labels() {
    for KnownPack { path, n_pairs, description } in golden_packs() {
        let name = path.display();
        let pack = Pack::read(&path).unwrap();
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
    for KnownPack { path, description, .. } in golden_packs() {
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
    let packs = golden_packs();
    for path in golden_cases("bin", |path| has_extension(path, "safetensors")) {
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        // `lfw200_jpeg_rgb` holds pixels of the images of `lfw200_jpeg_*.bin`.
        let stem = path.file_stem().unwrap().to_string_lossy().replace("_rgb", "");
        let of_same_images =
            |pack: &&KnownPack| pack.path.file_stem().unwrap().to_string_lossy().starts_with(&stem);
        let pack = Pack::read(&packs.iter().find(of_same_images).unwrap().path).unwrap();
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
    for KnownPack { path, n_pairs, .. } in golden_packs() {
        let set = PairsSet::open_pack(&path).unwrap();
        assert_eq!(set.n_pairs(), n_pairs);
        assert!(set.n_images() <= 2 * set.n_pairs());
    }
}
