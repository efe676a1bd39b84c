//! `pfc-ingest align` and `pack --landmarks`.

use std::path::{Path, PathBuf};

use image::ImageFormat;
use serde_json::Value;

use crate::common::{Bench, encode, picture, stderr};

/// Points of a face twice as large as the template's, by their line's end.
const XY: &str =
    "76.5892 103.3926 147.0636 103.0028 112.0504 143.4732 83.0986 184.731 141.4598 184.4082";

fn photo() -> Vec<u8> {
    encode(picture(240, 250), ImageFormat::Png)
}

/// A folder of photos and a list of all kinds of trouble.
fn troubled() -> Bench {
    let bench = Bench::new();
    for path in ["photos/ann/1.png", "photos/ann/2.png", "photos/bob/1.png", "photos/bob/2.png"] {
        bench.write(path, &photo());
    }
    bench.write("photos/bob/broken.png", &photo()[..99]);
    bench.write("photos/bob/nobody.png", &photo());
    let one_place = ["7"; 10].join(" ");
    let not_found = ["nan"; 10].join(" ");
    let list = format!(
        "ann/1.png {XY}\nann/2.png {XY}\nbob/1.png {one_place}\nbob/2.png {not_found}\n\
         bob/broken.png {XY}\nbob/gone.png {XY}\n"
    );
    bench.write("list.txt", list.as_bytes());
    bench
}

#[test]
fn what_cannot_be_aligned_is_left_out_with_its_reason() {
    let bench = troubled();
    let list = format!("../ann/1.png {XY}\n/etc/1.png {XY}\nann/1.png {XY}\nann/1.bmp {XY}\n");
    let all = [std::fs::read(bench.path("list.txt")).unwrap(), list.into_bytes()].concat();
    bench.write("all.txt", &all);
    let report = bench.json("align all.txt crops --root photos --format png --json");
    assert_eq!((&report["aligned"], &report["quarantined"]), (&2.into(), &8.into()));
    let reasons = bench.quarantine("crops");
    let reasons: Vec<(&str, &str)> = reasons.iter().map(|(s, _, r)| (&**s, &**r)).collect();
    let expected = [
        ("../ann/1.png", "outside_path"),
        ("/etc/1.png", "outside_path"),
        ("ann/1.bmp", "listed_twice"),
        ("ann/1.png", "listed_twice"),
        ("bob/1.png", "landmarks"),
        ("bob/2.png", "landmarks"),
        ("bob/broken.png", "truncated"),
        ("bob/gone.png", "missing"),
    ];
    assert_eq!(reasons, expected);
    let files: Vec<PathBuf> = bench.tree("crops").into_keys().collect();
    assert_eq!(files, ["ann/1.png", "ann/2.png", "quarantine.jsonl"].map(PathBuf::from));
}

#[test]
fn crops_do_not_depend_on_the_number_of_threads_and_have_the_size_asked_for() {
    let bench = troubled();
    bench
        .run("align list.txt one --root photos --size 96x112 --threads 1 --max-left-out 100")
        .success();
    bench
        .run("align list.txt two --root photos --size 96x112 --threads 2 --max-left-out 100")
        .success();
    assert_eq!(bench.tree("one"), bench.tree("two"));
    let crop = image::open(bench.path("one/ann/1.jpg")).unwrap();
    assert_eq!((crop.width(), crop.height()), (96, 112));
}

#[test]
fn landmarks_beside_the_paths_of_a_list_cut_faces_out_as_a_list_of_their_own_does() {
    let bench = troubled();
    let columns = "path,label,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5";
    let xy = XY.replace(' ', ",");
    let list = format!("{columns}\nann/1.png,0,{xy}\nbob/1.png,1,{xy}\n");
    bench.write("photos/list.csv", list.as_bytes());
    bench.write("own.txt", format!("ann/1.png {XY}\nbob/1.png {XY}\n").as_bytes());
    bench.run("pack photos/list.csv a --align").success();
    bench.run("pack photos/list.csv b --landmarks own.txt").success();
    let [a, b] = ["a", "b"].map(|name| bench.dataset(name));
    for row in 0..2 {
        assert_eq!(a.get(row).unwrap(), b.get(row).unwrap());
    }
    let run = bench.run("pack photos c --align").code(2);
    assert!(stderr(&run).contains("no landmarks are listed for it"), "{}", stderr(&run));
}

#[test]
fn pack_with_landmarks_stores_the_crops_that_align_makes() {
    let bench = troubled();
    bench.run("align list.txt crops --root photos --quality 80 --max-left-out 67").success();
    let report = bench.json("pack photos data --landmarks list.txt --quality 80 --json");
    assert_eq!((&report["images"], &report["quarantined"]), (&2.into(), &4.into()));
    let dataset = bench.dataset("data");
    for row in 0..2 {
        let face = dataset.get(row).unwrap();
        let crop = Path::new("crops").join(face.source).with_extension("jpg");
        assert_eq!(face.image, std::fs::read(bench.path(crop.to_str().unwrap())).unwrap());
    }
    assert_eq!(dataset.manifest().sources.len(), 2);
    // The landmarks are kept, which nobody found by a box and a score.
    let found =
        pfc_shard::Detections::open(&bench.path("data"), dataset.manifest()).unwrap().unwrap();
    let listed = std::fs::read_to_string(bench.path("list.txt")).unwrap();
    for row in 0..2 {
        let name = dataset.get(row).unwrap().source.to_owned();
        let line = listed.lines().find(|line| line.starts_with(&name)).unwrap();
        let numbers: Vec<f32> =
            line.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
        let found = found.get(row).unwrap();
        assert!(found[..5].iter().all(|value| value.is_nan()), "{found:?}");
        assert_eq!(found[5..], numbers[..10]);
    }
    let reasons = bench.quarantine("data");
    let nobody = reasons.iter().find(|(source, ..)| source == "bob/nobody.png").unwrap();
    assert_eq!(nobody.2, "no_landmarks");
}

#[test]
fn a_face_that_lies_as_the_template_has_it_keeps_its_pixels() {
    let bench = Bench::new();
    let template =
        "38.2946 51.6963 73.5318 51.5014 56.0252 71.7366 41.5493 92.3655 70.7299 92.2041";
    bench.write("list.txt", format!("a/1.png\t{template}").as_bytes());
    bench.write("a/1.png", &encode(picture(112, 112), ImageFormat::Png));
    bench.run("align list.txt crops --format png").success();
    assert_eq!(image::open(bench.path("crops/a/1.png")).unwrap().to_rgb8(), picture(112, 112));
}

#[track_caller]
fn refused(bench: &Bench, line: &str, expected: &str) {
    assert_eq!(stderr(&bench.run(line).code(2)).trim_end(), expected);
}

#[test]
fn an_output_that_holds_something_is_not_touched() {
    let bench = troubled();
    bench.write("crops/thesis.tex", b"");
    refused(
        &bench,
        "align list.txt crops --root photos",
        "error: cannot align `list.txt`
  cause: crops: already exists and is not empty

hint: choose another folder, or remove crops first",
    );
}

#[test]
fn a_list_that_fits_no_image_leaves_nothing_behind() {
    let bench = troubled();
    refused(
        &bench,
        "align list.txt crops",
        "error: cannot align `list.txt`
  cause: list.txt: none of its 6 images can be read

hint: the first one: ann/1.png: there is no such file",
    );
    assert!(!bench.path("crops").exists());
}

#[test]
fn a_list_that_cannot_be_understood_is_refused_before_any_work() {
    let bench = troubled();
    bench.write("bad.txt", format!("ann/1.png {} x\nann/2.png 1 2 3\n", &XY[8..]).as_bytes());
    for line in ["align bad.txt crops --root photos", "pack photos data --landmarks bad.txt"] {
        let text = stderr(&bench.run(line).code(2));
        assert!(text.contains("cause: bad.txt: none of its 2 lines can be understood\n"), "{text}");
        assert!(text.contains("hint: the first one: bad.txt:1: `x` is not a number"), "{text}");
    }
    assert!(!bench.path("crops").exists() && !bench.path("data").exists());
    bench.run("align list.txt crops --size 7").code(2);
}

#[test]
fn a_line_of_landmarks_that_is_wrong_costs_its_own_image() {
    let bench = Bench::new();
    let mut list = Vec::new();
    for i in 0..5 {
        bench.write(&format!("photos/ann/{i}.png"), &photo());
        // One line lacks a number, and another one is about a name in latin-1.
        let xy = if i == 1 { &XY[8..] } else { XY };
        list.extend(format!("ann/{i}.png {xy}\n").into_bytes());
    }
    list.extend(b"Jos\xe9/1.png 1 2\n");
    bench.write("photos/list.txt", &list);
    let run = bench.run("align photos/list.txt crops").code(1);
    assert!(
        stderr(&run).contains("2 of 6 images (33.3 %) left out is more than"),
        "{}",
        stderr(&run)
    );
    let lines = bench.quarantine("crops").into_iter().map(|(source, _, reason)| (source, reason));
    let bad = |source: &str| (source.to_owned(), "bad_line".to_owned());
    let expected = [bad("photos/list.txt:2"), bad("photos/list.txt:6")];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    assert_eq!(bench.tree("crops").len(), 5);
    bench.run("align photos/list.txt again --max-left-out 34").success();
    let line = "pack photos data --landmarks photos/list.txt --max-left-out 20";
    let run = bench.run(line).success();
    let expected = "photos/list.txt: 2 lines cannot be understood, the first is line 2: 10 fields, \
                    expected 11";
    assert!(stderr(&run).contains(expected), "{}", stderr(&run));
    let lines = bench.quarantine("data").into_iter().filter(|line| line.1 == "quarantined");
    let lines: Vec<(String, String)> = lines.map(|(source, _, reason)| (source, reason)).collect();
    assert_eq!(lines, [bad("ann/1.png")]);
    let text = std::fs::read_to_string(bench.path("data/quarantine.jsonl")).unwrap();
    assert!(text.contains("photos/list.txt:2: 10 fields, expected 11"), "{text}");
    assert_eq!(bench.dataset("data").len(), 4);
}

#[test]
fn a_line_that_cannot_be_understood_costs_its_own_image() {
    let bench = troubled();
    let list = format!("ann/1.png {XY}\nann/2.png 1 2 3\nJos\u{e9}");
    let latin = [list.as_bytes(), b"\xe9\n", format!("bob/1.png {XY}\n").as_bytes()].concat();
    bench.write("bad.txt", &latin);
    let report = bench.json("align bad.txt crops --root photos --json");
    assert_eq!((&report["aligned"], &report["quarantined"]), (&2.into(), &2.into()));
    let lines: Vec<_> = bench.quarantine("crops").into_iter().map(|l| (l.0, l.2)).collect();
    let expected = [("bad.txt:2", "bad_line"), ("bad.txt:3", "bad_line")];
    assert_eq!(lines, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let run = bench.run("pack photos data --landmarks bad.txt --max-left-out 100").success();
    let text = stderr(&run);
    let told = "bad.txt: 2 lines cannot be understood, the first is line 2: 4 fields, expected 11";
    assert!(text.contains(told), "{text}");
    assert_eq!(bench.dataset("data").len(), 2);
}

#[test]
fn a_folder_of_some_images_that_vanishes_stops_the_work() {
    let bench = Bench::new();
    let (mut list, face) = (String::new(), photo());
    for folder in 0..2 {
        bench.write(&format!("photos/{folder}/first.png"), &face);
    }
    // So many that they take a while, of one file each.
    for i in 0..6000 {
        let folder = i % 2;
        let path = format!("{folder}/{i}.png");
        list += &format!("{path} {XY}\n");
        let first = bench.path(&format!("photos/{folder}/first.png"));
        std::fs::hard_link(first, bench.path(&format!("photos/{path}"))).unwrap();
    }
    bench.write("list.txt", list.as_bytes());
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path(""))
        .args(["align", "list.txt", "crops", "--root", "photos", "--threads", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || bench.path(".crops.tmp/1/1.jpg").exists();
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    std::fs::rename(bench.path("photos/0"), bench.path("gone")).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("photos/0: the folder that the images lie in is gone"), "{text}");
    assert!(!bench.path("crops").exists());
}

/// `golden/aligned`, made by scikit-image and `OpenCV`.
fn golden() -> Option<PathBuf> {
    let folder = pfc_testing::golden("aligned")?;
    pfc_testing::is_known(&folder.join("aligned.json")).then_some(folder)
}

#[test]
fn golden_aligned_crops_are_what_the_command_writes() {
    let Some(folder) = golden() else { return };
    let json = std::fs::read(folder.join("aligned.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    let images = expected["images"].as_array().unwrap();
    assert!(!images.is_empty());
    let line = |image: &Value| {
        let points = image["landmarks"].as_array().unwrap().iter();
        let numbers: Vec<String> =
            points.flat_map(|p| [p[0].to_string(), p[1].to_string()]).collect();
        format!("{}\t{}\n", image["source"].as_str().unwrap(), numbers.join("\t"))
    };
    let bench = Bench::new();
    bench.write("list.txt", images.iter().map(line).collect::<String>().as_bytes());
    bench.run(&format!("align list.txt crops --root {} --format png", folder.display())).success();
    for image in images {
        let source = Path::new(image["source"].as_str().unwrap());
        let ours = bench.path("crops").join(source.with_extension("png"));
        let ours = image::open(ours).unwrap().to_rgb8();
        let theirs = folder.join(image["crop"].as_str().unwrap());
        let theirs = image::open(theirs).unwrap().to_rgb8();
        assert_eq!(ours.dimensions(), theirs.dimensions());
        let gaps = ours.iter().zip(theirs.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let (sum, max) = gaps.fold((0.0, 0.0), |(s, m): (f64, f64), gap| (s + gap, m.max(gap)));
        let mean = sum / ours.len() as f64;
        // `OpenCV` interpolates in fixed point on a grid of 1/32 pixel.
        assert!(mean < 0.5 && max <= 6.0, "{}: mean {mean}, max {max}", source.display());
    }
}
