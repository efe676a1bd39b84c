//! `pfc-ingest quality`, and what `clean`, `show`, `verify`, `compact` and `merge` make of its measures.

use std::{fs, path::Path};

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use pfc_onnx::{
    metadata,
    proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, ValueInfoProto, attribute_type, data_type,
    },
};
use pfc_shard::QualityTable;
use prost::Message;

use crate::common::{Bench, encode, stderr, stdout};

/// Two people: flat pictures of these greys, and one with stripes of 1 pixel, 60 and 140.
const GREYS: [u8; 4] = [10, 25, 128, 250];

/// Their faces, packed; and the source of each row.
fn packed() -> Bench {
    let bench = Bench::new();
    for grey in GREYS {
        let flat = GrayImage::from_pixel(112, 112, Luma([grey]));
        bench.write(&format!("faces/ann/{grey}.png"), &encode(flat, ImageFormat::Png));
    }
    let stripes = GrayImage::from_fn(112, 112, |x, _| Luma([if x % 2 == 0 { 60 } else { 140 }]));
    bench.write("faces/bob/stripes.png", &encode(stripes, ImageFormat::Png));
    bench.run("pack faces data").success();
    bench
}

/// The value of a measure by the source of each row.
fn measured(bench: &Bench, dataset: &str, column: &str) -> Vec<(String, f32)> {
    let table = QualityTable::open(&bench.path(dataset)).unwrap().unwrap();
    let values = table.column(column).unwrap();
    let dataset = bench.dataset(dataset);
    let mut all: Vec<(String, f32)> = (0..dataset.len())
        .map(|row| (dataset.get(row).unwrap().source.to_owned(), values[row as usize]))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// What lies in the folder of measures.
fn files(bench: &Bench, dataset: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    bench.tree(&format!("{dataset}/quality")).into_iter().collect()
}

#[track_caller]
fn check(bench: &Bench, column: &str, expected: [f32; 5], tolerance: f32) {
    let found: Vec<f32> = measured(bench, "data", column).into_iter().map(|(_, v)| v).collect();
    let is_near = |(found, expected): (&f32, f32)| {
        found.is_nan() && expected.is_nan() || (found - expected).abs() <= tolerance
    };
    assert!(found.iter().zip(expected).all(is_near), "{column}: {found:?} for {expected:?}");
}

#[test]
fn flat_and_striped_pictures_have_the_measures_of_arithmetic() {
    let bench = packed();
    let said = stderr(&bench.run("quality data").success());
    assert!(said.contains("size and pose are not known"), "{said}");
    // By name: 10, 128, 25, 250, stripes; JPEG keeps a flat picture as it is, and these stripes within a few percent.
    check(&bench, "brightness", [10.0, 128.0, 25.0, 250.0, 100.0], 1.0);
    check(&bench, "dark", [1.0, 0.0, 1.0, 0.0, 0.0], 0.0);
    check(&bench, "bright", [0.0, 0.0, 0.0, 1.0, 0.0], 0.0);
    check(&bench, "contrast", [0.0, 0.0, 0.0, 0.0, 40.0], 1.5);
    // The Laplacian of stripes of one pixel is four times their amplitude, one way or the other.
    check(&bench, "sharpness", [0.0, 0.0, 0.0, 0.0, 16.0 * 40.0 * 40.0], 1500.0);
    for unknown in ["score", "size", "eyes", "yaw", "pitch", "roll"] {
        check(&bench, unknown, [f32::NAN; 5], 0.0);
    }
    let report = bench.json("quality data --json");
    assert_eq!((&report["rows"], &report["was_measured"]), (&5.into(), &true.into()));
    assert_eq!(report["columns"]["yaw"]["measured"], 0);
    assert_eq!(report["columns"]["brightness"]["spread"]["most"], 250.0);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_and_done_work_is_not_done_again() {
    let bench = Bench::new();
    bench.run("synth faces --identities 20 --images-per-identity 15").success();
    bench.run("pack faces data").success();
    bench.run("quality data --threads 1").success();
    let once = files(&bench, "data");
    assert_eq!(once.len(), 2);
    assert!(stdout(&bench.run("quality data")).ends_with("all had been measured before\n"));
    for line in ["quality data --force --threads 3", "quality data --force --threads 0"] {
        bench.run(line).success();
        assert!(files(&bench, "data") == once, "{line}");
    }
    // What a killed command left of 300 rows: those but for the last 256 are not measured again, as a value shows
    // that no measurement gives.
    let dir = bench.path("data");
    let record = QualityTable::open(&dir).unwrap().unwrap().record().clone();
    let manifest = pfc_shard::manifest_checksum(&dir).unwrap();
    let job = format!("{manifest} {:?} {:?}", record.columns, record.made_by);
    let (_, table) = once.iter().find(|(path, _)| path.extension().unwrap() == "npy").unwrap();
    let mut part = table.clone();
    part[128..132].copy_from_slice(&(-5.0_f32).to_le_bytes());
    fs::remove_dir_all(dir.join("quality")).unwrap();
    let name = format!("{:032x}.part", pfc_shard::hash::content_hash(job.as_bytes()));
    bench.write(&format!("data/quality/{name}"), &part[..part.len() - 7]);
    let text = stdout(&bench.run("verify data").success());
    assert!(text.contains("is unfinished: `quality` goes on from there"), "{text}");
    bench.run("quality data --threads 2").success();
    assert_eq!(files(&bench, "data").len(), 2);
    let found = QualityTable::open(&dir).unwrap().unwrap();
    assert_eq!(found.get(0).unwrap()[0], -5.0);
    let (_, resumed) = files(&bench, "data")
        .into_iter()
        .find(|(path, _)| path.extension().unwrap() == "npy")
        .unwrap();
    assert!(resumed[132..] == table[132..]);
}

#[test]
fn a_photograph_tells_size_and_pose_and_a_crop_the_pose_alone() {
    let bench = packed_by_detector();
    let Some(bench) = bench else { return };
    bench.run("quality found").success();
    let of = |column: &str| {
        let all = measured(&bench, "found", column);
        all.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
    };
    // The network sees the template's face in 64 pixels about each red square, and is sure of it.
    assert!(of("size").iter().all(|size| (size - 64.0).abs() < 0.1), "{:?}", of("size"));
    let eyes = (73.5318_f32 - 38.2946).hypot(51.5014 - 51.6963) * 64.0 / 112.0;
    assert!(of("eyes").iter().all(|found| (found - eyes).abs() < 0.1), "{:?}", of("eyes"));
    for angle in ["yaw", "pitch", "roll"] {
        assert!(of(angle).iter().all(|degrees| degrees.abs() < 2.0), "{angle} {:?}", of(angle));
    }
    assert!(of("score").iter().all(|score| (0.9..=1.0).contains(score)), "{:?}", of("score"));
    // Crops of a set that keeps no landmarks: what a detector sees in them.
    bench.run("detect photos crops --detector red.onnx").success();
    bench.run("pack crops data").success();
    bench.run("quality data --detector red.onnx").success();
    let of = |column: &str| measured(&bench, "data", column);
    assert!(of("yaw").iter().all(|(_, yaw)| yaw.abs() < 2.0), "{:?}", of("yaw"));
    assert!(of("size").iter().all(|(_, size)| size.is_nan()));
}

/// Photographs with a red square each, packed as `found` by the made-up detector; nothing without onnxruntime.
fn packed_by_detector() -> Option<Bench> {
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return None;
    }
    let bench = Bench::new();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../detect/tests/known");
    bench.write("red.onnx", &fs::read(known.join("red_centerface.onnx")).unwrap());
    for (i, name) in ["ann/1", "ann/2", "bob/1"].into_iter().enumerate() {
        let (left, top) = (80 + 8 * i as u32, 60);
        let photo = RgbImage::from_fn(220, 160, |x, y| {
            let is_square = (left..left + 4).contains(&x) && (top..top + 4).contains(&y);
            let shade = ((x / 3 + y / 5) % 7 * 20) as u8;
            Rgb(if is_square { [255, 0, 0] } else { [shade, 60 * i as u8, shade] })
        });
        bench.write(&format!("photos/{name}.png"), &encode(photo, ImageFormat::Png));
    }
    bench.run("pack photos found --detector red.onnx").success();
    Some(bench)
}

#[test]
fn detections_and_measures_go_along_with_the_rows_that_are_kept_and_joined() {
    let Some(bench) = packed_by_detector() else { return };
    bench.run("quality found").success();
    let bound = "clean found --pass quality --quality brightness=0..1000 --json";
    assert_eq!(bench.json(bound)["decisions"], serde_json::json!({}));
    let before = measured(&bench, "found", "brightness");
    // The median, so that one row of three goes.
    let mut values: Vec<f32> = before.iter().map(|(_, value)| *value).collect();
    values.sort_by(f32::total_cmp);
    let least = (values[0] + values[1]) / 2.0;
    bench.run(&format!("clean found --pass quality --quality brightness={least}..")).success();
    bench.run("compact found smaller").success();
    let kept: Vec<_> = before.into_iter().filter(|(_, value)| *value > least).collect();
    assert_eq!(measured(&bench, "smaller", "brightness"), kept);
    bench.run("verify smaller").success();

    bench.run("merge both found smaller --by name --as-packed").success();
    bench.run("verify both").success();
    let joined = bench.dataset("both");
    let found =
        pfc_shard::Detections::open(&bench.path("both"), joined.manifest()).unwrap().unwrap();
    let sizes = measured(&bench, "both", "size");
    assert_eq!((joined.len(), sizes.len()), (5, 5));
    for row in 0..joined.len() {
        let name = joined.get(row).unwrap().source.to_owned();
        let [_, left, _, right, ..] = found.get(row).unwrap();
        let size = sizes.iter().find(|(source, _)| *source == name).unwrap().1;
        assert!((right - left - size).abs() < 0.01, "{name}: {left} {right} {size}");
    }
    // Where one part has none, none are carried over, and that is said.
    fs::remove_dir_all(bench.path("smaller/quality")).unwrap();
    let said = stderr(&bench.run("merge rest found smaller --by name --as-packed").success());
    assert!(said.contains("not all parts have the same measures of quality"), "{said}");
    assert!(!bench.path("rest/quality").exists() && bench.path("rest/detections.npy").exists());
}

#[test]
fn faces_beyond_a_bound_are_left_out_with_the_value_and_the_bound() {
    let bench = packed();
    let line = "clean data --pass quality --quality dark=..0.5 --quality brightness=20..200";
    let error = stderr(&bench.run(line).code(2));
    assert!(error.contains("its quality has not been measured"), "{error}");
    assert!(error.contains("hint: `pfc-ingest quality data` measures it"), "{error}");
    bench.run("quality data").success();
    let report = bench.json(&format!("{line} --json"));
    let expected =
        serde_json::json!({"quality_brightness": {"drop": 1}, "quality_dark": {"drop": 2}});
    assert_eq!(report["decisions"], expected);
    assert_eq!(report["images"], serde_json::json!([5, 2]));
    let decisions = bench.json("decisions show data --json");
    let of_bright =
        decisions.as_array().unwrap().iter().find(|d| d["reason"] == "quality_brightness");
    let of_bright = of_bright.unwrap();
    assert_eq!((&of_bright["score"], &of_bright["threshold"]), (&250.0.into(), &200.0.into()));
    let refused = |bound: &str, expected: &str| {
        let error = stderr(&bench.run(&format!("clean data --pass quality {bound}")).code(2));
        assert!(error.contains(expected), "{error}");
    };
    refused("", "pass `quality` needs --quality");
    refused("--quality beauty=1..", "has no column `beauty`, but sharpness, brightness");
    refused("--quality dark", "COLUMN=LEAST..MOST");
    refused("--quality dark=2..1", "no value lies between 2 and 1");
}

#[test]
fn the_faces_at_the_ends_of_a_measure_are_drawn_in_their_order() {
    let bench = packed();
    bench.run("quality data").success();
    let rows = |how: &str| {
        let report = bench.json(&format!("show data {how} --force --json"));
        let rows = report["rows"].as_array().unwrap().clone();
        let dataset = bench.dataset("data");
        let source = |row: &serde_json::Value| dataset.get(row.as_u64().unwrap()).unwrap().source;
        rows.iter().map(|row| source(row).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows("--lowest brightness --limit 2"), ["ann/10.png", "ann/25.png"]);
    assert_eq!(rows("--highest sharpness --limit 1"), ["bob/stripes.png"]);
    let error = stderr(&bench.run("show data --highest yaw --force").code(2));
    assert!(error.contains("no face has a value of `yaw`"), "{error}");
}

#[test]
fn the_norm_is_the_length_of_the_embedding() {
    let bench = packed();
    // (3, 4) times 1 to 5, and one that is not finite.
    let numbers =
        (1..=5).flat_map(|i| [3.0 * i as f32, if i == 4 { f32::NAN } else { 4.0 * i as f32 }]);
    let numbers: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let header = pfc_shard::npy_header("<f4", "(5, 2)");
    bench.write("e.npy", &[header, numbers].concat());
    bench.run("quality data --embeddings e.npy").success();
    let table = QualityTable::open(&bench.path("data")).unwrap().unwrap();
    let norms = table.column("norm").unwrap();
    assert_eq!((&norms[..3], norms[4]), (&[5.0, 10.0, 15.0][..], 25.0));
    assert!(norms[3].is_nan());
    // A command that would lose them says so.
    let error = stderr(&bench.run("quality data").code(2));
    assert!(error.contains("would drop measures that are there: norm"), "{error}");
    bench.run("quality data --force").success();
    let error = stderr(&bench.run("show data --lowest norm").code(2));
    assert!(error.contains("has no column `norm`"), "{error}");
}

/// A network that gives the mean of the pixels, from 0 to 255, as an output of this shape.
fn mean_of_pixels(shape: &[Result<i64, &str>], keeps_axes: bool) -> Vec<u8> {
    let ints = |name: &str, ints: Vec<i64>| AttributeProto {
        name: name.to_owned(),
        ints,
        kind: attribute_type::INTS,
        ..AttributeProto::default()
    };
    let keep = AttributeProto {
        name: "keepdims".to_owned(),
        i: Some(keeps_axes.into()),
        kind: attribute_type::INT,
        ..AttributeProto::default()
    };
    let node = NodeProto {
        input: vec!["data".to_owned()],
        output: vec!["quality".to_owned()],
        op_type: "ReduceMean".to_owned(),
        attribute: vec![ints("axes", vec![1, 2, 3]), keep],
        ..NodeProto::default()
    };
    let input = [Err("N"), Ok(3), Ok(112), Ok(112)];
    let graph = GraphProto {
        node: vec![node],
        name: "mean".to_owned(),
        input: vec![ValueInfoProto::tensor("data", data_type::FLOAT, &input)],
        output: vec![ValueInfoProto::tensor("quality", data_type::FLOAT, shape)],
        ..GraphProto::default()
    };
    let stated = [(metadata::CHANNELS, "RGB"), (metadata::MEAN, "0"), (metadata::STD, "1")];
    let stated = stated.map(|(key, value)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    });
    let opset = OperatorSetIdProto { domain: String::new(), version: 11 };
    ModelProto {
        ir_version: 7,
        graph: Some(graph),
        opset_import: vec![opset],
        metadata_props: stated.to_vec(),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

#[test]
fn a_network_that_scores_faces_fills_the_column_fiqa() {
    if let Err(error) = pfc_onnx::runtime::load() {
        return pfc_testing::skip(&error.to_string());
    }
    let bench = packed();
    bench.write("flat.onnx", &mean_of_pixels(&[Err("N")], false));
    bench.write("four.onnx", &mean_of_pixels(&[Err("N"), Ok(1), Ok(1), Ok(1)], true));
    for model in ["flat.onnx", "four.onnx"] {
        let said = stderr(&bench.run(&format!("quality data --quality-model {model}")).success());
        assert!(said.contains("output `quality` of one number"), "{said}");
        check(&bench, "fiqa", [10.0, 128.0, 25.0, 250.0, 100.0], 1.0);
    }
    // A face that cannot be decoded has no score, and is counted.
    let path = bench.path("data/shards/00000.arrow");
    let image = bench.dataset("data").get(0).unwrap().image.to_vec();
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.windows(image.len()).position(|window| window == image).unwrap();
    bytes[start..start + 3].fill(0);
    fs::write(&path, bytes).unwrap();
    let run = bench.run("quality data --quality-model flat.onnx --force").code(1);
    assert!(stdout(&run).contains("1 image cannot be decoded"), "{}", stdout(&run));
    let table = QualityTable::open(&bench.path("data")).unwrap().unwrap();
    let scores = table.column("fiqa").unwrap();
    assert!(scores[0].is_nan() && scores[1..].iter().all(|score| score.is_finite()), "{scores:?}");
    // A network that embeds gives no such number.
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../detect/tests/known");
    bench.write("colour.onnx", &fs::read(known.join("colour.onnx")).unwrap());
    let error = stderr(&bench.run("quality data --quality-model colour.onnx").code(2));
    assert!(error.contains("none is one number a face"), "{error}");
}

#[test]
fn damaged_and_foreign_measures_are_found_and_replaced_by_force() {
    let bench = packed();
    bench.run("quality data").success();
    let whole = files(&bench, "data");
    let table = whole.iter().find(|(path, _)| path.extension().unwrap() == "npy").unwrap();
    let path = bench.path("data/quality").join(&table.0);
    let mut bytes = table.1.clone();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let text = stdout(&bench.run("verify data").code(1));
    assert!(text.contains("its checksum is another one"), "{text}");
    for line in ["quality data", "show data --lowest dark", "compact data out"] {
        let error = stderr(&bench.run(line).code(2));
        assert!(error.contains("are no measures of this data set"), "{line}: {error}");
    }
    assert!(!bench.path("out").exists());
    bench.run("quality data --force").success();
    assert!(files(&bench, "data") == whole);
    bench.write("data/quality/notes.txt", b"mine");
    let text = stdout(&bench.run("verify data").success());
    assert!(text.contains("quality/notes.txt: is none of the measures of quality"), "{text}");
    fs::remove_file(bench.path("data/quality/notes.txt")).unwrap();
    // A new pack in the same place takes the measures away with the old rows.
    bench.run("pack faces data --force").success();
    assert!(!bench.path("data/quality").exists());
}
