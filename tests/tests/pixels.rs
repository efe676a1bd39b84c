//! The same picture has the same pixels in every program: in the data set that `pack` makes and the
//! trainer's loader reads, and in what `pfc-eval` embeds, from whatever kind of input; and what one
//! program refuses, all do.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use clap::Parser;
use pfc_eval::images::{Images, Opening};
use pfc_findings::{Reading, View};
use pfc_image::{
    Fit, ImageSize, Limits, Pixels, Recipe, align::TEMPLATE, decode, encode_jpeg, encode_png,
    resize,
};
use pfc_sources::{AlignOptions, InputOptions};
use pfc_train::data::source::Source;

/// Pixels by name; none of a picture that is refused.
type Seen = BTreeMap<String, Option<Vec<u8>>>;

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Runs `pfc-ingest`, whatever it finds.
fn ingest(args: &[&str]) {
    let line = ["pfc-ingest", "--quiet"].iter().chain(args);
    pfc_ingest::run(pfc_ingest::Cli::parse_from(line)).unwrap();
}

fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut block =
        b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &block, &jpeg[2..]].concat()
}

/// Pictures of every format, orientation and kind of damage, by their paths in a folder of identities.
fn pictures() -> BTreeMap<String, Vec<u8>> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/image/tests/zoo");
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(&zoo).unwrap() {
        let path = entry.unwrap().path();
        if !["rgb", "py"].iter().any(|other| path.extension().unwrap() == *other) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read(path).unwrap()));
        }
    }
    assert!(found.len() > 25);
    let of_zoo = |name: &str| fs::read(zoo.join(name)).unwrap();
    let baseline = of_zoo("baseline.jpg");
    let pixels = decode(&baseline, Limits::DEFAULT).unwrap();
    let face =
        encode_jpeg(&resize(pixels.clone(), ImageSize::FACE, Fit::Crop).unwrap(), 95).unwrap();
    for orientation in 1..=8 {
        for (what, jpeg) in [("small", &baseline), ("face", &face)] {
            found.push((format!("{what}-turned-{orientation}.jpg"), with_exif(jpeg, orientation)));
        }
    }
    let large = ImageSize { width: 250, height: 180 };
    found.push((
        "large.png".into(),
        encode_png(&resize(pixels, large, Fit::Stretch).unwrap()).unwrap(),
    ));
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "rgb.ppm"] {
        let bytes = of_zoo(name);
        found.push((format!("cut-{name}"), bytes[..bytes.len() * 55 / 100].to_vec()));
    }
    found.push(("cut-face.jpg".into(), face[..face.len() * 55 / 100].to_vec()));
    found.push(("face.jpg".into(), face));
    found.push(("page.jpg".into(), b"<html>404</html>".to_vec()));
    found.push(("empty.jpg".into(), Vec::new()));
    found.push(("animation.gif".into(), b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()));
    found.push(("scan.tif".into(), b"II\x2a\0\x08\0\0\0\0\0\0\0\0\0".to_vec()));
    found.sort();
    let place =
        |(i, (name, bytes)): (usize, (String, Vec<u8>))| (format!("p{}/{name}", i % 3), bytes);
    found.into_iter().enumerate().map(place).collect()
}

/// What the one pipeline makes of each.
fn expected(pictures: &BTreeMap<String, Vec<u8>>) -> Seen {
    let pixels = |bytes: &Vec<u8>| Some(Recipe::FACE.crop(bytes, None).ok()?.pixels.into_rgb());
    let seen: Seen = pictures.iter().map(|(name, bytes)| (name.clone(), pixels(bytes))).collect();
    for (name, pixels) in &seen {
        let is_bad =
            ["cut-", "page", "empty", "animation", "scan"].iter().any(|bad| name.contains(bad));
        assert_eq!(pixels.is_none(), is_bad, "{name}");
    }
    seen
}

fn write(root: &Path, pictures: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in pictures {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What `pfc-eval embed` gives its network.
fn embedded(input: &Path, scratch: &Path) -> Seen {
    embedded_by(input, &AlignOptions::default(), scratch)
}

/// The same of faces that are cut out by their landmarks.
fn embedded_by(path: &Path, align: &AlignOptions, scratch: &Path) -> Seen {
    let (input, reading) = (&InputOptions::default(), Reading::Decided);
    let opening = Opening { input, align, detector: None, reading, scratch, quiet: true };
    let images = Images::open(path, &opening).unwrap();
    let (pixels, left_out) = images.rgb(0..images.len()).unwrap();
    let mut faces = pixels.chunks_exact(ImageSize::FACE.rgb_bytes());
    let mut seen = Seen::new();
    for i in 0..images.len() {
        let is_left_out = left_out.iter().any(|image| image.index == i);
        let pixels = (!is_left_out).then(|| faces.next().unwrap().to_vec());
        seen.insert(images.name(i).unwrap(), pixels);
    }
    assert!(faces.next().is_none());
    seen
}

#[track_caller]
fn check_alike(what: &str, found: &Seen, expected: &Seen) {
    let names = |seen: &Seen| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (name, pixels) in expected {
        assert!(found[name] == *pixels, "{what}: {name}");
    }
}

#[test]
fn every_kind_of_input_is_embedded_with_the_pixels_of_the_one_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pictures = pictures();
    let expected = expected(&pictures);
    write(&at("raw"), &pictures);
    check_alike("folder", &embedded(&at("raw"), dir.path()), &expected);

    let list: String = pictures.keys().rev().map(|name| format!("{name}\n")).collect();
    fs::write(at("raw/list.txt"), &list).unwrap();
    check_alike("list", &embedded(&at("raw/list.txt"), dir.path()), &expected);
    let labelled: String = pictures.keys().map(|name| format!("{name}\tann\n")).collect();
    fs::write(at("raw/list.tsv"), &labelled).unwrap();
    check_alike("list with labels", &embedded(&at("raw/list.tsv"), dir.path()), &expected);

    // A sample of a tar file ends at the first point of its name, and an empty member is no image.
    let mut builder = tar::Builder::new(Vec::new());
    let mut names = BTreeMap::new();
    for (i, (name, bytes)) in pictures.iter().filter(|(_, bytes)| !bytes.is_empty()).enumerate() {
        let extension = name.rsplit_once('.').unwrap().1;
        names.insert(format!("faces.tar/{i:03}.{extension}"), name.clone());
        for (extension, bytes) in [(extension, &bytes[..]), ("cls", b"7")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, format!("{i:03}.{extension}"), bytes).unwrap();
        }
    }
    fs::write(at("faces.tar"), builder.into_inner().unwrap()).unwrap();
    let found = embedded(&at("faces.tar"), dir.path());
    let found: Seen =
        found.into_iter().map(|(name, pixels)| (names[&name].clone(), pixels)).collect();
    let mut expected = expected;
    expected.retain(|name, _| !name.contains("empty"));
    check_alike("tar", &found, &expected);
}

#[test]
fn what_is_packed_is_what_was_seen_and_what_the_loader_and_the_network_see() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pictures = pictures();
    let expected = expected(&pictures);
    write(&at("raw"), &pictures);
    ingest(&["pack", text(&at("raw")), text(&at("data")), "--quality", "100"]);
    let view = Arc::new(View::open(&at("data"), Reading::Decided).unwrap());
    let (source, in_eval) = (Source::from(Arc::clone(&view)), embedded(&at("data"), dir.path()));
    let mut n_kept = 0;
    let mut packed = Vec::new();
    for row in 0..view.len() {
        let face = view.get(row).unwrap();
        let (name, mut rgb) = (face.source.to_owned(), vec![0; ImageSize::FACE.rgb_bytes()]);
        source.load(row, false, &mut rgb, &mut vec![0.0; ImageSize::FACE.rgb_bytes()]).unwrap();
        assert!(in_eval[&name].as_ref() == Some(&rgb), "{name}: the loader and pfc-eval");
        let seen = expected[&name].as_ref().unwrap();
        if face.image == pictures[&name] {
            assert!(rgb == *seen, "{name}: its bytes are kept");
            n_kept += 1;
        }
        let gaps = rgb.iter().zip(seen).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        // What a JPEG of quality 100 costs, which halves the chroma in both directions.
        let mean = gaps as f64 / seen.len() as f64;
        assert!(mean < 2.5, "{name}: {mean} levels of 255 from what was seen");
        packed.push(name);
    }
    packed.sort();
    let sound: Vec<&String> =
        expected.iter().filter(|(_, p)| p.is_some()).map(|(n, _)| n).collect();
    assert_eq!(packed.iter().collect::<Vec<_>>(), sound);
    assert_eq!(n_kept, 2, "face.jpg, and the one whose EXIF says that it is upright");
}

/// A line of options that say how faces are cut out.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    align: AlignOptions,
}

/// Where the template's points lie in a picture of `width` by `height` pixels whose face is turned a
/// little: numbers with more digits than single precision has.
fn landmarks(width: u32, height: u32) -> [[f64; 2]; 5] {
    let scale = f64::from(width.min(height)) / 112.0 * 0.83;
    let (sin, cos) = 0.17_f64.sin_cos();
    let middle = [f64::from(width) / 2.0, f64::from(height) / 2.0];
    TEMPLATE.map(|[x, y]| {
        let (x, y) = ((x - 56.0) * scale, (y - 56.0) * scale);
        [cos * x - sin * y + middle[0] + 1.0 / 3.0, sin * x + cos * y + middle[1] - 1.0 / 7.0]
    })
}

/// The line of a list of landmarks: the five points, or 68 of which those stand for the five.
fn line(name: &str, five: &[[f64; 2]; 5], n_points: usize) -> String {
    let mut points = vec![[9.0, 9.0]; n_points];
    match n_points {
        5 => points.copy_from_slice(five),
        _ => {
            // The corners of each eye around its middle.
            for (eye, [left, right]) in [(0, [36, 39]), (1, [42, 45])] {
                points[left] = [five[eye][0] - 2.7, five[eye][1] + 0.9];
                points[right] = [five[eye][0] + 2.7, five[eye][1] - 0.9];
            }
            for (i, place) in [(2, 30), (3, 48), (4, 54)] {
                points[place] = five[i];
            }
        }
    }
    let numbers: Vec<String> = points.as_flattened().iter().map(f64::to_string).collect();
    format!("{name}\t{}\n", numbers.join("\t"))
}

/// The stored images of a data set by their sources, without extensions.
fn stored(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let view = View::open(dir, Reading::Decided).unwrap();
    let row = |row| {
        let face = view.get(row).unwrap();
        (stem(face.source), face.image.to_vec())
    };
    (0..view.len()).map(row).collect()
}

fn stem(path: &str) -> String {
    path.rsplit_once('.').unwrap().0.to_owned()
}

/// The files of a folder of crops by their paths, without extensions.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let name = text(file.strip_prefix(root).unwrap()).to_owned();
            found.insert(stem(&name), fs::read(file).unwrap());
        }
    }
    found
}

/// One face of every picture that can be read, cut out by a list of landmarks: `align`, `pack` of its
/// crops, `pack` with the list, `pack` of a list that states them beside its paths, and `pfc-eval` have
/// the same pixels, and those that store JPEGs the same bytes.
#[track_caller]
fn check_aligned(n_points: usize, quality: &str) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let columns = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n";
    let (mut pictures, mut marks, mut beside) =
        (BTreeMap::new(), String::new(), columns.to_owned());
    for (i, (name, bytes)) in self::pictures().into_iter().enumerate() {
        let Ok(pixels) = decode(&bytes, Limits::DEFAULT) else { continue };
        let (folder, file) = name.split_once('/').unwrap();
        // Crops of pictures that differ in their extensions alone would have one name.
        let name = format!("{folder}/{i:02}-{file}");
        let points = landmarks(pixels.width, pixels.height);
        marks += &line(&name, &points, n_points);
        let numbers: Vec<String> = points.as_flattened().iter().map(f64::to_string).collect();
        beside += &format!("{name},{folder},{}\n", numbers.join(","));
        pictures.insert(name, bytes);
    }
    write(&at("raw"), &pictures);
    fs::write(at("marks.txt"), marks).unwrap();
    fs::write(at("raw/beside.csv"), beside).unwrap();
    let (raw, list) = (at("raw"), at("marks.txt"));
    let (raw, list) = (text(&raw), text(&list));
    let by = ["--quality", quality];
    let ingest = |args: &[&str]| ingest(&[args, &by].concat());

    ingest(&["pack", raw, text(&at("data")), "--from", "folder", "--landmarks", list]);
    let expected = stored(&at("data"));
    assert_eq!(expected.len(), pictures.len());
    ingest(&["align", list, text(&at("jpg")), "--root", raw]);
    assert!(files(&at("jpg")) == expected, "align writes other bytes than pack");
    ingest(&["pack", text(&at("jpg")), text(&at("of-jpg"))]);
    assert!(stored(&at("of-jpg")) == expected, "a pack of the crops has other bytes");
    ingest(&["align", list, text(&at("png")), "--root", raw, "--format", "png"]);
    ingest(&["pack", text(&at("png")), text(&at("of-png"))]);
    assert!(stored(&at("of-png")) == expected, "a pack of the crops as PNG has other bytes");
    if n_points == 5 {
        ingest(&["pack", text(&at("raw/beside.csv")), text(&at("beside")), "--align"]);
        assert!(stored(&at("beside")) == expected, "landmarks beside the paths give other bytes");
    }

    // What the network sees of each.
    let by_stem = |seen: Seen| -> Seen {
        seen.into_iter().map(|(name, pixels)| (stem(&name), pixels)).collect()
    };
    fs::remove_file(at("raw/beside.csv")).unwrap();
    let align = Line::parse_from(["", "--landmarks", list]).align;
    let of_list = by_stem(embedded_by(&at("raw"), &align, dir.path()));
    let of_png = by_stem(embedded(&at("png"), dir.path()));
    check_alike("crops", &of_png, &of_list);
    let of_data = by_stem(embedded(&at("data"), dir.path()));
    check_alike("JPEG crops", &by_stem(embedded(&at("jpg"), dir.path())), &of_data);
    let decoded = |image: &Vec<u8>| decode(image, Limits::DEFAULT).ok().map(Pixels::into_rgb);
    let pixels: Seen =
        expected.iter().map(|(name, image)| (name.clone(), decoded(image))).collect();
    check_alike("data set", &of_data, &pixels);
}

#[test]
fn a_face_cut_out_by_landmarks_is_the_same_wherever_it_is_cut_out() {
    check_aligned(5, "95");
    check_aligned(68, "95");
    check_aligned(5, "71");
}
