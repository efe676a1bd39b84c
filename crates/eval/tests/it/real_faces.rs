//! The known answer on LFW itself: `shared/faces`, see its README.

use std::{collections::HashMap, io::Read, path::Path, sync::OnceLock};

use half::f16;
use pfc_model::{Embed, Embedder, MirroredEmbeddings};
use pfc_verify::{Opening, Options, PairsSet, VerifyError};
use tch::Device;

const DIM: usize = 256;

/// Embeddings by image name, plain and mirrored, as the `MobileFace` network gave them.
type Published = HashMap<String, [Vec<f32>; 2]>;

/// Those of the network's publication, which all tests look at.
fn published(root: &Path) -> &'static Published {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    PUBLISHED
        .get_or_init(|| published_embeddings(&root.join("model/mobileface_v2_lfw_embeddings.npz")))
}

fn published_embeddings(path: &Path) -> Published {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut array = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        // A .npy file: magic, version, then the little-endian length of the header at byte 8.
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes.split_off(start)
    };
    let (values, names) = (array("E.npy"), array("names.npy"));
    let n = values.len() / (2 * DIM * 2);
    let name = |i: usize| {
        // NumPy's `<U80`: fixed-width UTF-32, padded with zeros.
        let width = names.len() / n;
        let points = names[i * width..][..width].chunks_exact(4);
        points
            .map(|point| u32::from_le_bytes(point.try_into().unwrap()))
            .take_while(|&point| point != 0)
            .map(|point| char::from_u32(point).unwrap())
            .collect::<String>()
    };
    let row = |i: usize| {
        let halves = values[i * DIM * 2..][..DIM * 2].chunks_exact(2);
        halves.map(|half| f16::from_le_bytes(half.try_into().unwrap()).to_f32()).collect()
    };
    (0..n).map(|i| (name(i), [row(2 * i), row(2 * i + 1)])).collect()
}

/// LFW's crops, with the pairs of a list in its layout.
fn lfw(root: &Path, pairs: &Path) -> PairsSet {
    PairsSet::open(&root.join("lfw112"), pairs, Opening::default()).unwrap()
}

/// The published embeddings of a set's images.
fn recorded(root: &Path, set: &PairsSet) -> MirroredEmbeddings {
    let published = published(root);
    let mut embeddings = MirroredEmbeddings { original: Vec::new(), mirrored: Vec::new() };
    for i in 0..set.n_images() {
        let file = Path::new(set.image_name(i)).file_stem().unwrap().to_string_lossy().into_owned();
        let found = published.get(&file).or_else(|| published.get(set.image_name(i)));
        let [original, mirrored] = found.unwrap_or_else(|| panic!("{file} has no embedding"));
        embeddings.original.extend(original);
        embeddings.mirrored.extend(mirrored);
    }
    embeddings
}

#[test]
fn golden_fold_accuracies_of_a_published_network_on_lfw_are_met() {
    let Some(root) = pfc_testing::faces("") else { return };
    let set = lfw(&root, &root.join("lfw_protocol/pairs.txt"));
    assert_eq!((set.n_images(), set.n_pairs()), (7701, 6000));
    let report = set.judge(&recorded(&root, &set), &Options::default()).unwrap().report;
    let folds: Vec<String> =
        report.accuracy.folds.iter().map(|fold| format!("{:.6}", fold.accuracy)).collect();
    let expected = [
        "0.988333", "0.986667", "0.991667", "0.988333", "0.981667", "0.993333", "0.983333",
        "0.988333", "0.995000", "0.995000",
    ];
    assert_eq!(folds, expected);
    assert_eq!(format!("{:.6}", report.accuracy.mean), "0.989167");
    assert_eq!(format!("{:.6}", report.accuracy.std.unwrap()), "0.004362");
}

/// The network itself, where onnxruntime can be loaded.
fn network(root: &Path) -> Option<Embedder> {
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let path = root.join("model/mobileface_v2_112.onnx");
    Some(Embedder::open(&path, Device::Cpu).unwrap())
}

#[test]
fn golden_embeddings_of_aligned_faces_equal_those_that_onnxruntime_gave() {
    let Some(root) = pfc_testing::faces("") else { return };
    let Some(embedder) = network(&root) else { return };
    let published = published(&root);
    let landmarks = std::fs::read_to_string(root.join("lfw_landmarks.txt")).unwrap();
    let mut n_faces = 0;
    for line in landmarks.lines() {
        let (path, numbers) = line.split_once('\t').unwrap();
        let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let image = root.join("lfw250").join(path);
        let expected = published.get(name).or_else(|| published.get(path));
        let (Some(expected), true) = (expected, image.exists()) else { continue };
        let numbers: Vec<f64> = numbers.split('\t').map(|n| n.parse().unwrap()).collect();
        let points = numbers.as_chunks::<2>().0.try_into().unwrap();
        let image = image::open(&image).unwrap().into_rgb8();
        let size = (image.width() as usize, image.height() as usize);
        let view = pfc_image::align::Image::new(image.as_raw(), size.0, size.1).unwrap();
        let crop = pfc_image::align::warp(&view, &pfc_image::align::align(points).unwrap());
        let found = embedder.embed_with_mirror(&crop, 1).unwrap();
        for (found, expected) in [(&found.original, &expected[0]), (&found.mirrored, &expected[1])]
        {
            let cosine = cosine(found, expected);
            assert!(cosine >= 0.999, "{path}: {cosine}");
        }
        n_faces += 1;
    }
    assert!(n_faces > 100, "{n_faces} faces have images, landmarks and embeddings");
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Pairs of a fold of LFW, half of them matched.
const FOLD_PAIRS: usize = 600;

/// Published embeddings are of crops that no JPEG has been made of, which turns ours a little.
const COSINE_OF_JPEG: f32 = 0.9;

#[test]
fn golden_embeddings_of_a_fold_by_a_real_network_are_near_the_published_ones_and_judged_alike() {
    let Some(root) = pfc_testing::faces("") else { return };
    let Some(embedder) = network(&root) else { return };
    let set = lfw(&root, &root.join("lfw_protocol/pairs.txt"));
    // Of the first fold, whose images come first; its threshold is that of the other nine.
    let images = set.pairs()[..FOLD_PAIRS].iter().flat_map(|pair| [pair.left, pair.right]);
    let n_images = 1 + images.max().unwrap() as usize;
    assert!(n_images <= 2 * FOLD_PAIRS, "{n_images}");
    let found = set.embed(&embedder, 0..n_images, &mut |_| Ok::<_, VerifyError>(())).unwrap();
    let mut all = recorded(&root, &set);
    for (found, all) in [(&found.original, &mut all.original), (&found.mirrored, &mut all.mirrored)]
    {
        let published = &mut all[..n_images * DIM];
        let rows = found.chunks(DIM).zip(published.chunks(DIM));
        let least = rows.map(|(a, b)| cosine(a, b)).fold(1.0, f32::min);
        assert!(least >= COSINE_OF_JPEG, "{least}");
        published.copy_from_slice(found);
    }
    let report = set.judge(&all, &Options::default()).unwrap().report;
    // JPEG moves it by up to a pair or so.
    let accuracy = report.accuracy.folds[0].accuracy;
    assert!((accuracy - 0.988_333).abs() <= 0.002, "{accuracy}");
}
