//! Published detectors on real photographs. `scripts/models` fetches the files.

use std::{fs, path::PathBuf};

use pfc_detect::{Bounds, Choice, Detector, Family, Finder, Opening};
use pfc_image::{Limits, decode};
use pfc_onnx::{Device, DeviceChoice, runtime};

/// A model and the photographs; nothing where one of them, or onnxruntime, is not.
fn finder(name: &str, size: u32) -> Option<(Finder, Vec<PathBuf>)> {
    let path = pfc_testing::model(name)?;
    let folder = pfc_testing::faces("lfw250")?;
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let device = DeviceChoice::Fixed(Device::Cpu);
    let opening = Opening { n_threads: 2, device, size, enlarge: 1, n_levels: 2, score_min: None };
    let detector = Detector::open(&path, &opening).unwrap();
    let mut pictures = Vec::new();
    for person in fs::read_dir(folder).unwrap() {
        let person = person.unwrap().path();
        if person.is_dir() {
            pictures.extend(fs::read_dir(person).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    pictures.sort();
    Some((Finder { detector, bounds: Bounds::NONE, choice: Choice::Central }, pictures))
}

/// Five points of each picture that MTCNN found, by the name of the picture.
fn known_landmarks() -> Option<std::collections::HashMap<String, [[f32; 2]; 5]>> {
    let text = fs::read_to_string(pfc_testing::faces("lfw_landmarks.txt")?).unwrap();
    let line = |line: &str| {
        let mut parts = line.split('\t');
        let name = parts.next().unwrap().rsplit('/').next().unwrap().to_owned();
        let mut points = [[0.0; 2]; 5];
        for (value, part) in points.as_flattened_mut().iter_mut().zip(parts) {
            *value = part.parse().unwrap();
        }
        (name, points)
    };
    Some(text.lines().map(line).collect())
}

/// Checks that every eighth picture has a face, and where: the median distance of its points to those of MTCNN, in
/// distances of the eyes. MTCNN's own are off by about as much.
#[track_caller]
fn check(name: &str, family: Family, distance_max: f32) {
    let Some((finder, pictures)) = finder(name, 320) else { return };
    let Some(known) = known_landmarks() else { return };
    assert_eq!(finder.detector.family(), family);
    let mut distances = Vec::new();
    for path in pictures.iter().step_by(8) {
        let pixels = decode(&fs::read(path).unwrap(), Limits::DEFAULT).unwrap();
        let face = finder.one(&pixels).unwrap().unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let found = face.detection.landmarks;
        let expected = known[path.file_name().unwrap().to_str().unwrap()];
        let distance = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let sum: f32 = found.iter().zip(expected).map(|(a, b)| distance(*a, b)).sum();
        distances.push(sum / 5.0 / distance(expected[0], expected[1]));
    }
    distances.sort_by(f32::total_cmp);
    let median = distances[distances.len() / 2];
    println!("{name}: {} pictures, median distance {median:.3}", distances.len());
    assert!(distances.len() > 50 && median < distance_max, "{median}");
}

#[test]
fn yunet_finds_the_faces_of_lfw() {
    check("face_detection_yunet_2023mar.onnx", Family::YuNet, 0.12);
}

#[test]
fn centerface_finds_the_faces_of_lfw() {
    check("centerface.onnx", Family::CenterFace, 0.12);
}
