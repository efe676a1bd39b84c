//! What becomes of pictures that are turned, mended, resized or badly cut out, and of faults that are
//! the system's and not theirs.

use std::{fs, process::Command};

use image::ImageFormat;
use pfc_image::{ImageSize, decode_rgb};

use crate::common::{Bench, encode, jpeg, picture, stderr};

const EXIF_6: &[u8] =
    b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";

/// Pixels of the row called `source`.
fn pixels(bench: &Bench, dataset: &str, source: &str) -> Vec<u8> {
    let dataset = bench.dataset(dataset);
    let row = (0..dataset.len()).find(|row| dataset.get(*row).unwrap().source == source).unwrap();
    let mut rgb = vec![0; ImageSize::FACE.rgb_bytes()];
    decode_rgb(dataset.get(row).unwrap().image, ImageSize::FACE, &mut rgb).unwrap();
    rgb
}

fn mean_gap(a: &[u8], b: &[u8]) -> f64 {
    let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

#[test]
fn a_crop_of_the_right_size_with_an_orientation_is_stored_upright() {
    let bench = Bench::new();
    let plain = jpeg(112, 112);
    let turned = [&plain[..2], EXIF_6, &plain[2..]].concat();
    bench.write("raw/a/plain.jpg", &plain);
    bench.write("raw/a/turned.jpg", &turned);
    let report = bench.json("pack raw data --json");
    assert_eq!((&report["passed_through"], &report["re_encoded"]), (&1.into(), &1.into()));
    assert_eq!(report["changes"]["turned"], 1);
    let stored = pixels(&bench, "data", "a/plain.jpg");
    // Orientation 6: the first row is seen at the right, the first column on top.
    let expected: Vec<u8> = (0..112 * 112)
        .flat_map(|i| {
            let (y, x) = (i / 112, i % 112);
            let from = ((111 - x) * 112 + y) * 3;
            [stored[from], stored[from + 1], stored[from + 2]]
        })
        .collect();
    let gap = mean_gap(&pixels(&bench, "data", "a/turned.jpg"), &expected);
    assert!(gap < 2.0, "{gap} levels between what is stored and what is seen");
}

#[test]
fn a_jpeg_that_others_read_is_stored_whole_with_its_own_pixels() {
    let bench = Bench::new();
    let plain = jpeg(112, 112);
    let table = plain.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    bench.write("raw/a/plain.jpg", &plain);
    bench.write("raw/a/endless.jpg", &plain[..plain.len() - 2]);
    bench.write("raw/a/stray.jpg", &[&plain[..table], b"ab", &plain[table..]].concat());
    for validate in ["full", "header"] {
        let line = format!("pack raw {validate} --validate {validate} --json");
        let report = bench.json(&line);
        assert_eq!((&report["passed_through"], &report["quarantined"]), (&3.into(), &0.into()));
        let dataset = bench.dataset(validate);
        for row in 0..3 {
            assert_eq!(dataset.get(row).unwrap().image, plain);
        }
    }
}

#[test]
fn pictures_of_another_size_are_counted_and_said_once() {
    let bench = Bench::new();
    bench.write("raw/a/1.jpg", &jpeg(112, 112));
    bench.write("raw/a/2.png", &encode(picture(250, 250), ImageFormat::Png));
    bench.write("raw/b/3", &encode(picture(90, 140), ImageFormat::Png));
    let text = stderr(&bench.run("pack raw data").success());
    let expected = "2 of 3 images were not 112x112 and were resized (1 of another shape, cut to the \
                    middle): networks expect faces that are aligned, so give landmarks if these are \
                    not";
    assert_eq!(text.matches(expected).count(), 1, "{text}");
    assert!(!stderr(&bench.run("pack raw/ whole --size 90").success()).contains("landmarks are"));
}

#[test]
fn a_pack_that_loses_more_than_the_stated_share_ends_with_findings() {
    let bench = Bench::new();
    for i in 0..8 {
        bench.write(&format!("raw/a/{i}.jpg"), &jpeg(112, 112));
    }
    bench.write("raw/a/8.jpg", b"<html>");
    bench.write("raw/a/9.jpg", b"<html>");
    let run = bench.run("pack raw data").code(1);
    let text = stderr(&run);
    assert!(text.contains("2 of 10 images (20.0 %) left out"), "{text}");
    assert_eq!(bench.dataset("data").len(), 8);
    // The data set is there: the same command says the same of it.
    bench.run("pack raw other --max-left-out 20").success();
    bench.run("pack raw third --max-left-out 19").code(1);
    bench.run("pack raw fourth --max-left-out 101").code(2);
}

#[test]
fn landmarks_are_judged_image_by_image() {
    let bench = Bench::new();
    let template = pfc_image::align::TEMPLATE;
    let line = |name: &str, points: [[f64; 2]; 5]| {
        let numbers: Vec<String> =
            points.as_flattened().iter().map(|value| format!("{value:.4}")).collect();
        format!("{name} {}\n", numbers.join(" "))
    };
    let face = template.map(|[x, y]| [2.0 * x + 10.0, 2.0 * y + 10.0]);
    let [a, b, c, d, e] = face;
    let mut list = String::new();
    for i in 0..8 {
        list += &line(&format!("good{i}.png"), face);
    }
    list += &line("swapped.png", [b, a, c, e, d]);
    list += &line("small.png", face.map(|[x, y]| [x / 50.0 + 40.0, y / 50.0 + 40.0]));
    list += &line("outside.png", face.map(|[x, y]| [x + 900.0, y]));
    bench.write("list.txt", list.as_bytes());
    for name in list.lines().filter_map(|line| line.split(' ').next()) {
        bench.write(&format!("photos/{name}"), &encode(picture(250, 250), ImageFormat::Png));
    }
    let report = bench.json("align list.txt crops --root photos --json");
    assert_eq!((&report["aligned"], &report["quarantined"]), (&8.into(), &3.into()));
    let text = fs::read_to_string(bench.path("crops/quarantine.jsonl")).unwrap();
    for expected in [
        "left and right of the landmarks are exchanged",
        "the face spans 4.5 pixels of the image, at least 8 are needed",
        "100 % of the crop lie outside of the image",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn landmarks_between_0_and_1_are_fractions_and_said_to_be() {
    let bench = Bench::new();
    let face = pfc_image::align::TEMPLATE.map(|[x, y]| [2.0 * x + 10.0, 2.0 * y + 10.0]);
    let numbers = |scale: f64| {
        let values = face.as_flattened().iter().map(|value| format!("{:.6}", value / scale));
        values.collect::<Vec<_>>().join(" ")
    };
    bench.write("photos/1.png", &encode(picture(256, 256), ImageFormat::Png));
    bench.write("pixels.txt", format!("1.png {}\n", numbers(1.0)).as_bytes());
    bench.write("fractions.txt", format!("1.png {}\n", numbers(256.0)).as_bytes());
    bench.run("align pixels.txt a --root photos --format png").success();
    let run = bench.run("align fractions.txt b --root photos --format png").success();
    assert!(stderr(&run).contains("were taken for fractions of width and height"));
    let [a, b] = ["a/1.png", "b/1.png"]
        .map(|path| image::open(bench.path(path)).unwrap().into_rgb8().into_raw());
    assert!(mean_gap(&a, &b) < 0.1);
}

#[test]
fn the_landmarks_of_another_detector_in_some_lines_cost_these_lines_alone() {
    let Some(case) = pfc_testing::case("landmarks-some-swapped") else { return };
    let bench = Bench::new();
    let (list, root) = (case.join("marks.txt"), case.join("faces"));
    let line = format!("align {} out --root {} --json", list.display(), root.display());
    let report = bench.json(&line);
    assert_eq!((&report["aligned"], &report["quarantined"]), (&20.into(), &4.into()));
}

/// With few file descriptors some opens fail, with enough none: whatever the number, no image may be
/// left out for it.
#[cfg(unix)]
#[test]
fn a_process_without_file_descriptors_leaves_no_image_out() {
    let bench = Bench::new();
    for i in 0..60 {
        bench.write(&format!("raw/p{}/{i}.jpg", i % 6), &jpeg(112, 112));
    }
    let program = assert_cmd::cargo::cargo_bin!("pfc-ingest");
    let mut n_stopped = 0;
    for limit in 4..24 {
        let script = format!(
            "ulimit -n {limit}; exec '{}' pack raw out{limit} --threads 8 --shard-rows 20",
            program.display()
        );
        let output =
            Command::new("sh").arg("-c").arg(script).current_dir(bench.path("")).output().unwrap();
        if output.status.success() {
            assert_eq!(bench.dataset(&format!("out{limit}")).len(), 60, "{limit}");
            continue;
        }
        n_stopped += 1;
        assert!(!bench.path(&format!("out{limit}/dataset.json")).exists(), "{limit}");
        if output.status.code() == Some(2) {
            let report = bench.json(&format!("pack raw out{limit} --shard-rows 20 --json"));
            assert_eq!((&report["images"], &report["quarantined"]), (&60.into(), &0.into()));
        }
    }
    assert!(n_stopped > 0, "4 descriptors are too few for any program");
}
