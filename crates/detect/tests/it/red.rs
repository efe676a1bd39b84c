//! Graphs of each family that see a face of 64 pixels about a red square; `tests/detectors/make.py` makes them.

use std::path::{Path, PathBuf};

use pfc_detect::{
    Bounds, Choice, DetectError, Detection, Detector, Family, Finder, NoFace, Opening, Search,
};
use pfc_image::{Pixels, align::TEMPLATE};
use pfc_onnx::{Device, DeviceChoice, runtime};

const OPENING: Opening = Opening {
    n_threads: 1,
    device: DeviceChoice::Fixed(Device::Cpu),
    size: 640,
    enlarge: 1,
    n_levels: 2,
    score_min: None,
};

/// A made-up model; nothing where onnxruntime is not.
fn model(name: &str) -> Option<PathBuf> {
    if let Err(error) = runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/known").join(name))
}

/// Grey, with squares of a colour at places.
fn picture(width: u32, height: u32, squares: &[([u32; 2], u32, [u8; 3])]) -> Pixels {
    let mut data = vec![90; (width * height * 3) as usize];
    for &([left, top], side, colour) in squares {
        for y in top..top + side {
            for x in left..left + side {
                let start = ((y * width + x) * 3) as usize;
                data[start..start + 3].copy_from_slice(&colour);
            }
        }
    }
    Pixels::rgb(width, height, data)
}

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// The face of `side` pixels with its middle at a place.
fn face([x, y]: [f32; 2], side: f32) -> Detection {
    let (left, top) = (x - side / 2.0, y - side / 2.0);
    let at = |[x, y]: [f64; 2]| [x as f32 * side / 112.0 + left, y as f32 * side / 112.0 + top];
    Detection {
        score: 1.0,
        bounds: [left, top, left + side, top + side],
        landmarks: TEMPLATE.map(at),
    }
}

#[track_caller]
fn check(found: &[Detection], expected: &[Detection]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        let all = |face: &Detection| {
            [vec![face.score], face.bounds.to_vec(), face.landmarks.as_flattened().to_vec()]
                .concat()
        };
        let is_near = all(found).iter().zip(all(expected)).all(|(a, b)| (a - b).abs() < 0.02);
        assert!(is_near, "{found:?} {expected:?}");
    }
}

/// The families, and where their grids see the middle of a square of 8 pixels at (96, 64).
const FAMILIES: [(&str, Family, [f32; 2], u32); 4] = [
    ("red_scrfd.onnx", Family::Scrfd, [96.0, 64.0], 8),
    ("red_retinaface.onnx", Family::RetinaFace, [100.0, 68.0], 8),
    ("red_yunet.onnx", Family::YuNet, [96.0, 64.0], 8),
    ("red_centerface.onnx", Family::CenterFace, [98.0, 66.0], 4),
];

#[test]
fn each_family_finds_red_and_not_blue_whatever_size_its_file_states() {
    for (name, family, middle, side) in FAMILIES {
        let Some(path) = model(name) else { return };
        let detector = Detector::open(&path, &OPENING).unwrap();
        assert_eq!(detector.family(), family);
        let squares = [([96, 64], side, RED), ([32, 96], 8, BLUE)];
        for (width, height) in [(250, 200), (300, 131)] {
            let found = detector.find(&picture(width, height, &squares), Search::Every).unwrap();
            check(&found, &[face(middle, 64.0)]);
        }
        let grey = Pixels::grey(200, 100, vec![200; 20_000]);
        assert_eq!(detector.find(&grey, Search::Main).unwrap(), []);
    }
}

#[test]
fn a_large_picture_is_looked_at_in_tiles_where_the_whole_shows_nothing() {
    let Some(path) = model("red_scrfd.onnx") else { return };
    // At a half, the square of 8 pixels is too small to be seen.
    let pixels = picture(1280, 960, &[([96, 64], 8, RED), ([1096, 704], 8, RED)]);
    let one_level = Opening { n_levels: 1, ..OPENING };
    let find = |opening, search| {
        let detector = Detector::open(&path, &opening).unwrap();
        let mut found = detector.find(&pixels, search).unwrap();
        found.sort_by(|a, b| a.bounds[0].total_cmp(&b.bounds[0]));
        found
    };
    assert_eq!(find(one_level, Search::Every), []);
    for search in [Search::Main, Search::Every] {
        check(&find(OPENING, search), &[face([96.0, 64.0], 64.0), face([1096.0, 704.0], 64.0)]);
    }
    // What the whole shows is twice as large, and ends the search for the main face.
    let large = picture(1280, 960, &[([96, 64], 8, RED), ([512, 512], 16, RED)]);
    let detector = Detector::open(&path, &OPENING).unwrap();
    let main = detector.find(&large, Search::Main).unwrap();
    let bounds: Vec<[f32; 4]> = main.iter().map(|face| face.bounds).collect();
    assert_eq!(bounds, [[448.0, 448.0, 576.0, 576.0]]);
    assert!(detector.find(&large, Search::Every).unwrap().len() > 1);
}

#[test]
fn a_network_of_one_size_is_given_that_size() {
    let Some(path) = model("fixed.onnx") else { return };
    let detector = Detector::open(&path, &OPENING).unwrap();
    let pixels = picture(150, 100, &[([96, 64], 8, RED)]);
    check(&detector.find(&pixels, Search::Main).unwrap(), &[face([96.0, 64.0], 64.0)]);
}

#[test]
fn the_choice_among_faces_and_their_bounds_is_kept() {
    let Some(path) = model("red_centerface.onnx") else { return };
    let detector = || Detector::open(&path, &OPENING).unwrap();
    // Green makes the first larger: 64·e^0.5 pixels. The second is nearer the middle.
    let pixels = picture(400, 300, &[([80, 100], 4, [255, 128, 0]), ([240, 160], 4, RED)]);
    let finder = |choice, bounds| Finder { detector: detector(), bounds, choice };
    let side = |finder: &Finder| finder.one(&pixels).unwrap().map(|face| face.detection.side());
    let large = side(&finder(Choice::Largest, Bounds::NONE)).unwrap();
    assert!((large - 64.0 * (128.0_f32 / 255.0).exp()).abs() < 0.1, "{large}");
    assert_eq!(side(&finder(Choice::Central, Bounds::NONE)).unwrap().round(), 64.0);
    let bounds = Bounds { side_min: 100.0, ..Bounds::NONE };
    assert_eq!(side(&finder(Choice::Central, bounds)).unwrap(), large);
    let bounds = Bounds { side_min: 200.0, ..Bounds::NONE };
    let reason = side(&finder(Choice::Central, bounds)).unwrap_err();
    assert!(matches!(reason, NoFace::Small { .. }), "{reason}");
    assert_eq!(finder(Choice::Largest, Bounds::NONE).all(&pixels).unwrap().unwrap().len(), 2);
}

#[test]
fn what_is_no_detector_is_refused_with_its_outputs() {
    let open = |name: &str| {
        let path = model(name)?;
        Some(Detector::open(&path, &OPENING).unwrap_err())
    };
    let Some(error) = open("no_landmarks.onnx") else { return };
    let text = error.to_string();
    assert!(matches!(error, DetectError::NotADetector { .. }), "{text}");
    assert!(
        text.contains("an SCRFD without landmarks") && text.contains("`score_8` [512, 1]"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("YuNet"));
    let error = open("colour.onnx").unwrap();
    assert!(error.to_string().contains("it has 1 outputs"), "{error}");
    let error = Detector::open(Path::new("gone.onnx"), &OPENING).unwrap_err();
    assert!(error.to_string().contains("gone.onnx"), "{error}");
}

#[test]
fn outputs_that_do_not_fit_the_picture_and_scores_that_are_no_numbers_are_no_faces() {
    let Some(path) = model("cut_short.onnx") else { return };
    let detector = Detector::open(&path, &OPENING).unwrap();
    let error = detector.find(&picture(600, 600, &[]), Search::Main).unwrap_err();
    assert!(matches!(error, DetectError::Outputs { .. }), "{error}");
    assert!(error.to_string().contains("608x608"), "{error}");
    let detector = Detector::open(&model("not_a_number.onnx").unwrap(), &OPENING).unwrap();
    let found = detector.find(&picture(200, 200, &[([96, 64], 8, RED)]), Search::Every).unwrap();
    assert_eq!(found, []);
}

#[test]
fn many_threads_find_what_one_finds() {
    let Some(path) = model("red_yunet.onnx") else { return };
    let detector = Detector::open(&path, &Opening { n_threads: 3, ..OPENING }).unwrap();
    let picture_of = |i: u32| picture(320, 240, &[([80 + 8 * (i % 10), 96], 8, RED)]);
    std::thread::scope(|scope| {
        for start in 0..4 {
            let detector = &detector;
            scope.spawn(move || {
                for i in start..start + 10 {
                    let found = detector.find(&picture_of(i), Search::Main).unwrap();
                    check(&found, &[face([80.0 + 8.0 * (i % 10) as f32, 96.0], 64.0)]);
                }
            });
        }
    });
}
