//! `pfc-ingest detect` and `pack --detector`, by a network that sees a face about every red square, and by
//! published ones where they are at hand.

use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use pfc_image::{ImageSize, Pixels, align};
use pfc_shard::{
    DatasetSpec, DatasetWriter, Detections, Face, IdentityNames, Quality, ShardError,
    hash::content_hash, write_detections,
};
use serde_json::Value;

use crate::{
    common::{Bench, encode, jpeg, stderr, stdout},
    faults::npy,
};

/// A bench with the made-up models; nothing where onnxruntime is not.
fn bench() -> Option<Bench> {
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let bench = Bench::new();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../detect/tests/known");
    for name in ["red_centerface.onnx", "red_yunet.onnx", "no_landmarks.onnx", "colour.onnx"] {
        bench.write(name, &std::fs::read(known.join(name)).unwrap());
    }
    Some(bench)
}

const RED: [u8; 3] = [255, 0, 0];
/// Its face is larger by e^0.5.
const ORANGE: [u8; 3] = [255, 128, 0];

/// A picture with a texture of the colour `tint`, and squares of 4 pixels.
fn photo(width: u32, height: u32, tint: u8, squares: &[([u32; 2], [u8; 3])]) -> RgbImage {
    let mut image = RgbImage::from_fn(width, height, |x, y| {
        let shade = ((x / 3 + y / 5) % 7 * 20) as u8;
        Rgb([shade, tint, shade])
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

fn png(image: RgbImage) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

/// The landmarks of the face that the network sees about the square at a place.
fn landmarks([left, top]: [u32; 2], side: f32) -> [[f32; 2]; 5] {
    let (left, top) = (left as f32 + 2.0 - side / 2.0, top as f32 + 2.0 - side / 2.0);
    align::TEMPLATE.map(|[x, y]| [x as f32 * side / 112.0 + left, y as f32 * side / 112.0 + top])
}

/// Two people, one picture of them without a face, one with two, and a file that is broken.
fn photos() -> Option<Bench> {
    let bench = bench()?;
    bench.write("photos/ann/1.png", &png(photo(200, 160, 40, &[([80, 60], RED)])));
    let two = photo(300, 200, 60, &[([80, 100], RED), ([200, 100], ORANGE)]);
    bench.write("photos/ann/2.png", &png(two));
    bench.write("photos/bob/1.png", &png(photo(200, 160, 90, &[([100, 80], RED)])));
    bench.write("photos/bob/none.png", &png(photo(200, 160, 90, &[])));
    bench.write("photos/bob/cut.png", &png(photo(200, 160, 90, &[]))[..300]);
    Some(bench)
}

/// The lines of a table of faces, a cell for each column.
fn faces(bench: &Bench, path: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(bench.path(path)).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn faces_are_cut_out_and_pictures_without_one_are_listed_with_the_reason() {
    let Some(bench) = photos() else { return };
    let line =
        "detect photos out --detector red_centerface.onnx --format png --json --max-left-out 50";
    let report = bench.json(line);
    let counts = ["pictures", "faces", "quarantined"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(counts, [5, 3, 2], "{report}");
    assert_eq!(report["detector"], "CenterFace");
    assert_eq!(report["reasons"], serde_json::json!({"no_face": 1, "truncated": 1}));
    let quarantined = bench.quarantine("out");
    let reasons: Vec<(&str, &str)> = quarantined.iter().map(|(s, _, r)| (&**s, &**r)).collect();
    assert_eq!(reasons, [("bob/cut.png", "truncated"), ("bob/none.png", "no_face")]);
    let files: Vec<PathBuf> = bench.tree("out").into_keys().collect();
    let expected = ["ann/1.png", "ann/2.png", "bob/1.png", "faces.csv", "quarantine.jsonl"];
    assert_eq!(files, expected.map(PathBuf::from));
    // Of two the larger.
    let rows = faces(&bench, "out/faces.csv");
    assert_eq!(rows[0][..5], ["crop", "image", "identity", "face", "score"]);
    assert_eq!(rows[2][..4], ["ann/2.png", "ann/2.png", "ann", "1"]);
    let side: f32 = rows[2][7].parse::<f32>().unwrap() - rows[2][5].parse::<f32>().unwrap();
    assert!((side - 64.0 * (128.0_f32 / 255.0).exp()).abs() < 0.1, "{side}");
}

#[test]
fn a_crop_is_what_align_makes_of_the_landmarks() {
    let Some(bench) = photos() else { return };
    bench.run("detect photos out --detector red_centerface.onnx --format png --max-left-out 50");
    let image = photo(200, 160, 40, &[([80, 60], RED)]);
    let pixels = Pixels::rgb(200, 160, image.into_raw());
    let points = landmarks([80, 60], 64.0).map(|point| point.map(f64::from));
    let expected = align::cut(&pixels, &points, ImageSize::FACE).unwrap();
    let found = image::open(bench.path("out/ann/1.png")).unwrap().into_rgb8().into_raw();
    let differences = found.iter().zip(&expected.data).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert_eq!((found.len(), differences), (112 * 112 * 3, 0));
    // The same by the list that says where they were found.
    bench.run("align out/faces.csv again --root photos --format png").success();
    assert_eq!(bench.tree("again").len(), 4);
}

#[test]
fn all_faces_of_a_picture_are_numbered_and_what_comes_out_is_packed() {
    let Some(bench) = photos() else { return };
    // A file of the name that a second face would have.
    bench.write("photos/ann/2.face2.png", &png(photo(200, 160, 50, &[([80, 60], RED)])));
    let line = "detect photos out --detector red_centerface.onnx --face all --max-left-out 50";
    let run = bench.run(line);
    let told = stderr(&run.success());
    assert!(told.contains("red_centerface.onnx: CenterFace, by its outputs"), "{told}");
    assert!(told.contains("CPUExecutionProvider"), "{told}");
    let crops: Vec<String> =
        faces(&bench, "out/faces.csv")[1..].iter().map(|row| row[0].clone()).collect();
    let expected = ["ann/1.jpg", "ann/2.face2.jpg", "ann/2.jpg", "ann/2.face2-2.jpg", "bob/1.jpg"];
    assert_eq!(crops, expected);
    bench.run("pack out data").success();
    assert_eq!(bench.dataset("data").len(), 5);
}

#[test]
fn the_face_that_the_other_pictures_show_is_taken() {
    let Some(bench) = bench() else { return };
    // Ann is green and Bob is not: the mean colour tells them apart. Bob stands in front in ann/2.
    let tint = |tint: u8, x: u32, squares: &[([u32; 2], [u8; 3])]| {
        let mut image = photo(400, 160, 20, squares);
        for pixel in image.enumerate_pixels_mut().filter(|(px, ..)| *px >= x) {
            if pixel.2.0 != RED && pixel.2.0 != ORANGE {
                pixel.2.0[1] = tint;
            }
        }
        png(image)
    };
    bench.write("photos/ann/1.png", &tint(250, 0, &[([80, 60], RED)]));
    bench.write("photos/ann/2.png", &tint(250, 200, &[([80, 80], ORANGE), ([300, 80], RED)]));
    bench.write("photos/bob/1.png", &tint(20, 200, &[([80, 60], RED)]));
    let taken = |options: &str, out: &str| {
        let line = format!("detect photos {out} --detector red_centerface.onnx {options}");
        bench.run(&line).success();
        let rows = faces(&bench, &format!("{out}/faces.csv"));
        rows[2][5].parse::<f32>().unwrap()
    };
    assert!(taken("", "largest") < 100.0);
    assert!(taken("--face nearest --model colour.onnx", "nearest") > 200.0);
    let refused = bench.run("detect photos x --detector red_centerface.onnx --face nearest");
    assert!(stderr(&refused.code(2)).contains("--model"));
}

#[test]
fn the_result_does_not_depend_on_threads_and_a_stopped_run_goes_on() {
    let Some(bench) = bench() else { return };
    for i in 0..300 {
        let at = [60 + i % 5 * 4, 60];
        let image = png(photo(160, 130, (i % 200) as u8, &[(at, RED)]));
        bench.write(&format!("photos/p{}/{i}.png", i / 100), &image);
    }
    let detect = |out: &str, options: &str| {
        let line = format!("detect photos {out} --detector red_centerface.onnx {options}");
        bench.run(&line)
    };
    detect("one", "--threads 1").success();
    detect("two", "--threads 2").success();
    let expected = bench.tree("one");
    assert_eq!(expected.len(), 302);
    assert_eq!(bench.tree("two"), expected);
    if !killed_after_a_chunk(&bench) {
        println!("the run ended before it was killed");
        return;
    }
    let text = stderr(&detect("three", "--min-face 20").code(2));
    assert!(text.contains("of another job") && text.contains("--restart"), "{text}");
    detect("three", "").success();
    assert_eq!(bench.tree("three"), expected);
    assert!(!bench.path(".three.tmp").exists());
}

/// Begins a run and kills it once a chunk is in its journal; whether it was killed in time.
fn killed_after_a_chunk(bench: &Bench) -> bool {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"))
        .current_dir(bench.path("."))
        .args(["detect", "photos", "three", "--detector", "red_centerface.onnx", "--threads", "1"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let chunk = bench.path(".three.tmp/journal/0.json");
    while !chunk.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    !bench.path("three").exists()
}

#[test]
fn pack_takes_photographs_as_detect_and_pack_do() {
    let Some(bench) = photos() else { return };
    let packed = bench.json(
        "pack photos data --detector red_centerface.onnx --order source --json --max-left-out 50",
    );
    assert_eq!((&packed["images"], &packed["quarantined"]), (&3.into(), &2.into()));
    let reasons: Vec<String> = bench.quarantine("data").into_iter().map(|(.., r)| r).collect();
    assert_eq!(reasons, ["truncated", "no_face"]);
    bench.run("detect photos out --detector red_centerface.onnx --max-left-out 50");
    bench.run("pack out two-steps --order source").success();
    let images = |name: &str| {
        let data = bench.dataset(name);
        (0..3).map(|row| data.get(row).unwrap().image.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(images("data"), images("two-steps"));
    bench.run("verify data").success();
    // Another detector is another job.
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(bench.path("data/dataset.json")).unwrap()).unwrap();
    let arguments = manifest["arguments"].to_string();
    assert!(
        arguments.contains("--detector=") && arguments.contains("--face=largest"),
        "{arguments}"
    );
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let Some(bench) = photos() else { return };
    let refused = |line: &str, expected: &str| {
        let text = stderr(&bench.run(line).code(2));
        assert!(text.contains(expected), "{text}");
    };
    refused("detect photos out --detector no_landmarks.onnx", "an SCRFD without landmarks");
    refused("detect photos out --detector gone.onnx", "gone.onnx");
    refused("detect photos photos/out --detector red_yunet.onnx", "photos");
    refused("detect photos out --detector red_yunet.onnx --min-score 2", "from 0 to 1");
    bench.write("list.txt", b"");
    refused("pack photos data --min-face 20", "--detector");
    bench.write("dull/ann/1.png", &png(photo(200, 160, 40, &[])));
    refused("detect dull out --detector red_yunet.onnx", "no face is found in it");
    assert!(!bench.path("out").exists() && !bench.path(".out.tmp").exists());
}

/// A data set of two people with three rows each; that of row `i` was found at `first + i`.
fn with_detections(bench: &Bench, name: &str, first: Option<f32>) {
    let dir = bench.path(name);
    std::fs::create_dir(&dir).unwrap();
    if let Some(first) = first {
        let rows = (0..6).map(|row| Ok::<_, ShardError>([first + row as f32; 15]));
        write_detections(&dir, 6, rows).unwrap();
    }
    let spec = DatasetSpec {
        image_size: ImageSize::FACE,
        seed: 3,
        shard_bytes: 1 << 20,
        sources: vec![name.into()],
        tool: "test".into(),
        arguments: Vec::new(),
        lineage: Vec::new(),
    };
    let mut writer = DatasetWriter::create(&dir, spec).unwrap();
    let image = jpeg(112, 112);
    for row in 0..6 {
        let (label, source) = (row % 2, format!("p{}/{row}.jpg", row % 2));
        let (hash, quality) = (content_hash(&image), Quality::UNKNOWN);
        let face =
            Face { image: &image, label, source: &source, width: 112, height: 112, hash, quality };
        writer.push(face).unwrap();
    }
    let mut names = IdentityNames::default();
    ["p0", "p1"].iter().for_each(|name| names.push([name.to_string()]));
    writer.finish(names).unwrap();
}

/// The sources of a data set, each with the first number of where its face was found.
fn found(bench: &Bench, name: &str) -> Vec<(String, f32)> {
    let data = bench.dataset(name);
    let detections = Detections::open(&bench.path(name), data.manifest()).unwrap().unwrap();
    let row = |row| (data.get(row).unwrap().source.to_owned(), detections.get(row).unwrap()[14]);
    (0..data.len()).map(row).collect()
}

#[test]
fn where_faces_were_found_goes_with_their_rows_through_compact_and_every_merge() {
    let bench = Bench::new();
    with_detections(&bench, "a", Some(100.0));
    with_detections(&bench, "b", Some(200.0));
    with_detections(&bench, "plain", None);
    bench.write("e.npy", &npy(6));
    bench.run("clean a --pass many --max-images 2").success();
    let merge = "merge OUT a b plain --match embeddings --embeddings e.npy --embeddings e.npy \
                 --embeddings e.npy --same-person 0.99";
    for (i, (command, n_rows)) in [
        ("compact a OUT", 4),
        ("merge OUT a b plain --by name", 16),
        ("merge OUT a b plain --by label --as-packed", 18),
        (merge, 16),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{i}");
        bench.run(&command.replace("OUT", &out)).success();
        let rows = found(&bench, &out);
        assert_eq!(rows.len(), n_rows, "{command}");
        for (source, found) in rows {
            let row: f32 = source.rsplit(['/', '.']).nth(1).unwrap().parse().unwrap();
            match source.split('/').next().unwrap() {
                "plain" => assert!(found.is_nan(), "{command}: {source}"),
                "b" => assert_eq!(found, 200.0 + row, "{command}: {source}"),
                _ => assert_eq!(found, 100.0 + row, "{command}: {source}"),
            }
        }
        bench.run(&format!("verify {out}")).success();
    }
    // A flipped bit is not handed on, nor is a file that does not belong to the data set.
    let path = bench.path("a/detections.npy");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    bench.run("verify a").code(1);
    for command in ["compact a x", "merge x a b --by name"] {
        let text = stderr(&bench.run(command).code(2));
        assert!(text.contains("a/detections.npy: has checksum"), "{command}: {text}");
        assert!(!bench.path("x").exists(), "{command}");
    }
    bench.write("plain/detections.npy", &whole);
    bench.write("plain/quarantine.jsonl", b"");
    let text = stdout(&bench.run("verify plain").success());
    for name in ["detections.npy", "quarantine.jsonl"] {
        assert!(text.contains(&format!("{name}: is no file of the data set")), "{text}");
    }
    bench.run("compact plain y").success();
    assert!(!bench.path("y/detections.npy").exists());
}

#[test]
fn yunet_cuts_out_all_of_lfw() {
    let Some(photos) = pfc_testing::faces("lfw250") else { return };
    let Some(model) = pfc_testing::model("face_detection_yunet_2023mar.onnx") else { return };
    let Some(bench) = bench() else { return };
    let (photos, model) = (photos.display(), model.display());
    let report = bench.json(&format!(
        "detect {photos} out --detector {model} --detect-size 320 --face central --json"
    ));
    let counts = ["pictures", "faces", "quarantined"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(counts, [446, 446, 0], "{report}");
}
