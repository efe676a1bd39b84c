//! `--detector`: photographs judged by the faces that a network finds in them. A made-up one sees a face of 64 pixels
//! about every red square, so that each crop is known; published ones run where they are at hand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{LfwLike, pfc_eval, stderr_of_failure};
use image::{Rgb, RgbImage};
use pfc_embeddings::FeatureFile;
use pfc_image::{ImageSize, Pixels, align};

const RED: [u8; 3] = [255, 0, 0];
/// Its face is larger by e^0.5.
const ORANGE: [u8; 3] = [255, 128, 0];
/// Where the square of a photograph is.
const PLACE: [u32; 2] = [80, 60];

/// A folder with a model and the made-up detector; nothing where onnxruntime is not.
fn set() -> Option<LfwLike> {
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let set = LfwLike::new();
    set.model();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../detect/tests/known");
    fs::copy(known.join("red_centerface.onnx"), set.path("red.onnx")).unwrap();
    Some(set)
}

/// A picture with the texture of a person, and squares of 4 pixels.
fn photo(person: u32, shift: u32, squares: &[([u32; 2], [u8; 3])]) -> RgbImage {
    let mut image = RgbImage::from_fn(320, 160, |x, y| {
        let shade = ((x + shift) / (3 + person % 4) + y / (2 + person / 4)) % 7;
        Rgb([(shade * 20) as u8, (20 + 20 * person) as u8, (shade * 20) as u8])
    });
    for &([left, top], colour) in squares {
        for y in top..top + 4 {
            for x in left..left + 4 {
                image.put_pixel(x, y, Rgb(colour));
            }
        }
    }
    image
}

/// The face of 64 pixels about the square at a place, cut out.
fn crop(photo: &RgbImage, [left, top]: [u32; 2]) -> RgbImage {
    let (width, height) = photo.dimensions();
    let pixels = Pixels::rgb(width, height, photo.as_raw().clone());
    let at = |[x, y]: align::Point| {
        [x * 64.0 / 112.0 + f64::from(left) - 30.0, y * 64.0 / 112.0 + f64::from(top) - 30.0]
    };
    let crop = align::cut(&pixels, &align::TEMPLATE.map(at), ImageSize::FACE).unwrap();
    RgbImage::from_raw(112, 112, crop.into_rgb()).unwrap()
}

fn save(set: &LfwLike, name: &str, image: &RgbImage) {
    let path = set.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// Ten people with two photographs each, one of which shows no face; the same cut out by hand; and a list of
/// pairs.
fn photographs() -> Option<LfwLike> {
    let set = set()?;
    let mut pairs = String::new();
    for person in 0..10 {
        for i in 0..2 {
            let squares: &[_] = if (person, i) == (3, 1) { &[] } else { &[(PLACE, RED)] };
            let photo = photo(person, 5 * i, squares);
            let name = format!("{person}/{i}.png");
            save(&set, &format!("photos/{name}"), &photo);
            let crop = if squares.is_empty() { photo } else { crop(&photo, PLACE) };
            save(&set, &format!("crops/{name}"), &crop);
        }
        pairs += &format!("{person}/0.png {person}/1.png 1\n");
    }
    (0..10).for_each(|p| pairs += &format!("{p}/0.png {}/1.png 0\n", (p + 1) % 10));
    fs::write(set.path("pairs.txt"), pairs).unwrap();
    Some(set)
}

/// The similarities of all pairs, and what is said on standard error.
fn similarities(set: &LfwLike, data: &str, more: &[&str]) -> (Vec<f64>, String) {
    let args = ["pairs", "--data", data, "--pairs", "pairs.txt", "--model", "run.ckpt"];
    let mut command = pfc_eval(set.dir.path());
    let command = command.args(args).args(["--bootstrap", "0", "--scores", "scores.csv"]);
    let run = command.args(more).assert().success();
    let scores = fs::read_to_string(set.path("scores.csv")).unwrap();
    let last = |line: &str| line.rsplit(',').next().unwrap().parse().unwrap();
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    (scores.lines().skip(1).map(last).collect(), said)
}

/// The numbers of a file of embeddings.
fn rows(path: &Path) -> Vec<f32> {
    FeatureFile::open(path).unwrap().rows(&[""]).unwrap().data().to_vec()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn photographs_are_judged_by_the_faces_that_are_found_in_them() {
    let Some(set) = photographs() else { return };
    let (by_hand, _) = similarities(&set, "crops", &[]);
    let (found, said) = similarities(&set, "photos", &["--detector", "red.onnx"]);
    // Landmarks that a network gives are rounded; a pixel in a few thousand differs by 1.
    let difference = largest_difference(&by_hand, &found);
    assert!(difference < 1e-3, "{by_hand:?}\n{found:?}");
    assert!(said.contains("red.onnx: CenterFace, by its outputs"), "{said}");
    assert!(said.contains("no usable face in 1 of 20 images, which count whole"), "{said}");
    // As they are, they give other figures.
    let (whole, _) = similarities(&set, "photos", &[]);
    assert!(largest_difference(&by_hand, &whole) > 10.0 * difference + 1e-4, "{whole:?}");
    // No face is as large as this, so that every picture counts whole.
    let bounds = ["--detector", "red.onnx", "--min-face", "100"];
    let (bounded, said) = similarities(&set, "photos", &bounds);
    assert_eq!(bounded, whole);
    assert!(said.contains("no usable face in 20 of 20 images"), "{said}");
}

#[test]
fn embed_leaves_out_the_photographs_without_a_face_and_lists_them() {
    let Some(set) = photographs() else { return };
    let embed = |images: &str, out: &str, more: &[&str], code: i32| {
        let mut command = pfc_eval(set.dir.path());
        let command = command.args(["embed", images, out, "--model", "run.ckpt"]).args(more);
        command.assert().code(code);
        rows(&set.path(out))
    };
    let found = embed("photos/3", "found.npy", &["--detector", "red.onnx"], 1);
    let list = fs::read_to_string(set.path("found.npy.left-out.tsv")).unwrap();
    assert!(list.lines().nth(1).unwrap().starts_with("1.png\t"), "{list}");
    fs::remove_file(set.path("crops/3/1.png")).unwrap();
    let by_hand = embed("crops/3", "crops.npy", &[], 0);
    let cosine = cosine(&found, &by_hand);
    assert!(found.len() == 32 && cosine > 0.999, "{cosine}");
}

#[test]
fn of_several_faces_the_largest_is_compared_or_the_one_in_the_middle() {
    let Some(set) = set() else { return };
    let (middle, side) = ([156, 76], [40, 76]);
    for (name, squares) in [
        ("two.png", &[(middle, RED), (side, ORANGE)][..]),
        ("middle.png", &[(middle, RED)]),
        ("side.png", &[(side, ORANGE)]),
    ] {
        save(&set, name, &photo(2, 0, squares));
    }
    let cosine = |other: &str, more: &[&str]| -> f64 {
        let args = ["compare", "two.png", other, "--model", "run.ckpt", "--detector", "red.onnx"];
        let output = pfc_eval(set.dir.path()).args(args).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    // Of the face that is taken the crops are the same, but for rounding.
    let is_of = |taken: f64, other: f64| taken > 0.9999 && 1.0 - taken < (1.0 - other) / 10.0;
    assert!(is_of(cosine("side.png", &[]), cosine("middle.png", &[])));
    let central = ["--face", "central"];
    assert!(is_of(cosine("middle.png", &central), cosine("side.png", &central)));
}

#[test]
fn a_data_set_whose_faces_are_cut_out_takes_no_detector_and_its_options_need_one() {
    let Some(set) = set() else { return };
    set.pack("packed", &["P00/P00_0001.png", "P00/P00_0002.png"]);
    fs::write(set.path("pairs.txt"), "0,1,1\n").unwrap();
    let args = ["pairs", "--data", "packed", "--pairs", "pairs.txt", "--model", "run.ckpt"];
    let with = |more: &[&str]| stderr_of_failure(pfc_eval(set.dir.path()).args(args).args(more));
    let error = with(&["--detector", "red.onnx"]);
    assert!(error.contains("packed: its faces are cut out already"), "{error}");
    assert!(error.contains("hint: leave out --align, --landmarks or --detector"), "{error}");
    let error = with(&["--face", "central"]);
    assert!(error.contains("--detector"), "{error}");
    // A network that embeds finds no faces.
    fs::write(set.path("broken.onnx"), b"not a model").unwrap();
    let args = ["compare", "faces/P00/P00_0001.png", "faces/P00/P00_0002.png"];
    let more = ["--model", "run.ckpt", "--detector", "broken.onnx"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args).args(more));
    assert!(error.contains("broken.onnx"), "{error}");
}

/// SFace, YuNet, and the photographs and crops of some people of LFW.
fn published() -> Option<[PathBuf; 4]> {
    let sface = pfc_testing::model("face_recognition_sface_2021dec_int8bq.onnx")?;
    let yunet = pfc_testing::model("face_detection_yunet_2023mar.onnx")?;
    let (photos, crops) = (pfc_testing::faces("lfw250")?, pfc_testing::faces("lfw112")?);
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    Some([sface, yunet, photos, crops])
}

#[test]
fn yunet_cuts_faces_out_of_photographs_that_sface_takes_for_those_of_the_crops() {
    let Some([sface, yunet, photos, crops]) = published() else { return };
    let dir = tempfile::tempdir().unwrap();
    let people = fs::read_dir(&photos).unwrap().map(|entry| entry.unwrap().path());
    let mut people: Vec<PathBuf> = people.filter(|path| path.is_dir()).collect();
    people.sort();
    let mut list = String::new();
    for person in people.iter().step_by(12) {
        let mut pictures: Vec<PathBuf> =
            fs::read_dir(person).unwrap().map(|entry| entry.unwrap().path()).collect();
        pictures.sort();
        list += &format!("{}\n", pictures[0].strip_prefix(&photos).unwrap().display());
    }
    fs::write(dir.path().join("list.txt"), &list).unwrap();
    let embedded = |root: &Path, out: &str, more: &[&str]| -> Vec<f32> {
        let mut command = pfc_eval(dir.path());
        command.args(["embed", "list.txt", out, "--root"]).arg(root).arg("--model").arg(&sface);
        command.args(more).assert().success();
        rows(&dir.path().join(out))
    };
    let yunet = yunet.to_str().unwrap();
    let found = embedded(&photos, "a.npy", &["--detector", yunet, "--face", "central"]);
    let known = embedded(&crops, "b.npy", &[]);
    let n = list.lines().count();
    assert_eq!((found.len(), known.len()), (n * 128, n * 128));
    let known: Vec<&[f32]> = known.chunks(128).collect();
    let mut cosines = Vec::new();
    for (i, row) in found.chunks(128).enumerate() {
        // That of another person is far.
        let (own, other) = (cosine(row, known[i]), cosine(row, known[(i + 1) % n]));
        assert!(own > other + 0.2, "{i}: {own} {other}");
        cosines.push(own);
    }
    cosines.sort_by(f64::total_cmp);
    assert!(cosines[n / 2] > 0.9, "{cosines:?}");
}
