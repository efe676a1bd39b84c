//! The program on IJB, MegaFace and N:N: what is printed, written and refused.

use std::path::{Path, PathBuf};

use crate::support::{LfwLike, draw_face, pfc_eval, stderr_of_failure};
use clap::Parser;
use pfc_cli::interrupt;
use pfc_embeddings::write::safetensors;
use pfc_eval::megaface::feature;

/// An IJB-C folder of 8 people with two templates of two faces each, drawn, and a model.
struct IjbLike {
    files: LfwLike,
}

const IJBC: [&str; 4] = ["ijbc", "--data", "IJBC", "--bootstrap"];
const N_FACES: usize = 32;

impl IjbLike {
    fn new() -> IjbLike {
        let files = LfwLike::new();
        let (mut points, mut places) = (String::new(), String::new());
        for face in 0..N_FACES {
            let (template, person) = (face / 2, face / 4);
            let path = files.path(&format!("IJBC/loose_crop/{}.png", face + 1));
            draw_face(&path, person as u32, face as u32, 130);
            let name = format!("{}.png", face + 1);
            points += &format!("{name} 45 60 84 60 64 82 48 105 82 105 0.9{}\n", face % 10);
            places += &format!("{name} {} {}\n", 10 + template, face);
        }
        let (mut pairs, mut probes) = (String::new(), "T,S\n".to_owned());
        for person in 0..8 {
            let template = |person: usize, which: usize| 10 + 2 * person + which;
            pairs += &format!("{} {} 1\n", template(person, 0), template(person, 1));
            for other in (0..8).filter(|&other| other != person) {
                pairs += &format!("{} {} 0\n", template(person, 0), template(other, 1));
            }
            probes += &format!("{},{person}\n", template(person, 1));
        }
        let gallery = |people: std::ops::Range<usize>| {
            people.fold("T,S\n".to_owned(), |text, p| text + &format!("{},{p}\n", 10 + 2 * p))
        };
        let this = IjbLike { files };
        std::fs::create_dir(this.files.path("IJBC/meta")).unwrap();
        this.write("name_5pts_score.txt", &points);
        this.write("face_tid_mid.txt", &places);
        this.write("template_pair_label.txt", &pairs);
        this.write("1N_probe_mixed.csv", &probes);
        this.write("1N_gallery_G1.csv", &gallery(0..4));
        this.write("1N_gallery_G2.csv", &gallery(4..8));
        this
    }

    fn dir(&self) -> &Path {
        self.files.dir.path()
    }

    fn meta(&self, name: &str) -> PathBuf {
        self.files.path(&format!("IJBC/meta/ijbc_{name}"))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.meta(name), text).unwrap();
    }

    /// Embeddings instead of a model.
    fn features(&self, n: usize) {
        let values: Vec<f32> =
            (0..n * 3).map(|i| ((i * 37 + i / 12 * 5) % 19) as f32 - 9.0).collect();
        let arrays = [("embs", [n, 3], &values[..]), ("embs_f", [n, 3], &values[..])];
        safetensors(&self.files.path("e.safetensors"), &arrays).unwrap();
    }
}

#[track_caller]
fn stdout(command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_model_is_judged_and_a_second_run_uses_the_kept_embeddings() {
    let ijb = IjbLike::new();
    ijb.files.model();
    let run = || {
        let model = ["20", "--model", "run.ckpt", "--cache", "kept/parts", "--json"];
        let mut command = pfc_eval(ijb.dir());
        let files = ["--scores", "s.npy", "--plot", "roc.svg", "--save-features", "f.safetensors"];
        let charts = ["--det", "det.png", "--cmc", "cmc.svg", "--histogram", "scores.png"];
        stdout(command.args(IJBC).args(model).args(files).args(charts))
    };
    let first = run();
    let document: serde_json::Value = serde_json::from_slice(first.as_bytes()).unwrap();
    assert_eq!((&document["schema"], &document["benchmark"]), (&1.into(), &"IJB-C".into()));
    assert_eq!(document["units"], "subjects");
    assert_eq!(document["one_to_one"][0]["rows"].as_array().unwrap().len(), 6);
    assert_eq!(document["one_to_n"]["galleries"][1]["n_mated"], 4);
    assert_eq!(std::fs::metadata(ijb.files.path("s.npy")).unwrap().len(), 128 + 8 * 64);
    check_charts(&ijb.files, &["roc.svg", "det.png", "cmc.svg", "scores.png"]);
    assert_eq!(document["one_to_n"]["galleries"][0]["cmc"].as_array().unwrap().len(), 100);
    assert_eq!(document["one_to_one"][0]["worst_rejects"].as_array().unwrap().len(), 8);
    // An image is gone, but not its name and size: only the kept embeddings can give the same figures.
    assert_eq!(std::fs::read_dir(ijb.files.path("kept/parts")).unwrap().count(), 2);
    let face = ijb.files.path("IJBC/loose_crop/1.png");
    let size = std::fs::metadata(&face).unwrap().len() as usize;
    std::fs::write(face, vec![b'x'; size]).unwrap();
    assert_eq!(run(), first);
    let features = ["20", "--features", "f.safetensors", "--json"];
    let from_features = stdout(pfc_eval(ijb.dir()).args(IJBC).args(features));
    let other: serde_json::Value = serde_json::from_slice(from_features.as_bytes()).unwrap();
    assert_eq!(other["one_to_one"], document["one_to_one"]);
}

#[track_caller]
fn check_charts(files: &LfwLike, names: &[&str]) {
    for name in names {
        match name.ends_with(".svg") {
            true => assert!(std::fs::read_to_string(files.path(name)).unwrap().starts_with("<svg")),
            false => assert!(image::open(files.path(name)).is_ok(), "{name}"),
        }
    }
}

#[test]
fn faces_in_another_order_and_threads_print_the_same_tables() {
    let ijb = IjbLike::new();
    ijb.features(N_FACES);
    let table = |n_threads: &str| {
        let mut command = pfc_eval(ijb.dir());
        command.args(IJBC).args(["30", "--features", "e.safetensors"]);
        stdout(command.env("RAYON_NUM_THREADS", n_threads))
    };
    let before = table("1");
    assert_eq!(table("2"), before);
    for name in ["name_5pts_score.txt", "face_tid_mid.txt", "template_pair_label.txt"] {
        let text = std::fs::read_to_string(ijb.meta(name)).unwrap();
        let reversed: Vec<&str> = text.lines().rev().collect();
        ijb.write(name, &reversed.join("\n"));
    }
    let file = pfc_embeddings::FeatureFile::open(&ijb.files.path("e.safetensors")).unwrap();
    let rows = file.rows(&["embs"]).unwrap();
    let values: Vec<f32> = (0..N_FACES).rev().flat_map(|i| rows.row(i)).copied().collect();
    let arrays = [("embs", [N_FACES, 3], &values[..]), ("embs_f", [N_FACES, 3], &values[..])];
    safetensors(&ijb.files.path("e.safetensors"), &arrays).unwrap();
    assert_eq!(table("2"), before);
}

#[test]
fn all_options_give_eight_tables() {
    let ijb = IjbLike::new();
    ijb.features(N_FACES);
    let table = stdout(pfc_eval(ijb.dir()).args(IJBC).args([
        "0",
        "--features",
        "e.safetensors",
        "--all-options",
    ]));
    assert_eq!(table.matches("IJB-C 1:1").count(), 8, "{table}");
    for text in ["unit-norm faces, detector score", "plain", "finer than 56 impostors", "rank-10"] {
        assert!(table.contains(text), "{text} is missing in\n{table}");
    }
}

#[track_caller]
fn check_refused(ijb: &IjbLike, arguments: &[&str], expected: &str) {
    let stderr = stderr_of_failure(pfc_eval(ijb.dir()).args(IJBC).args(arguments));
    assert!(stderr.contains(expected), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
}

#[test]
fn broken_lists_and_features_name_file_and_line() {
    let ijb = IjbLike::new();
    ijb.features(N_FACES);
    let features = ["0", "--features", "e.safetensors"];
    let text = std::fs::read_to_string(ijb.meta("name_5pts_score.txt")).unwrap();
    ijb.write("name_5pts_score.txt", &text.replacen("0.92", "NaN", 1));
    check_refused(&ijb, &features, "ijbc_name_5pts_score.txt:3: the detector score is NaN");
    ijb.write("name_5pts_score.txt", &text);
    let pairs = std::fs::read_to_string(ijb.meta("template_pair_label.txt")).unwrap();
    ijb.write("template_pair_label.txt", &format!("{pairs}10 999 0\n"));
    check_refused(&ijb, &features, "ijbc_template_pair_label.txt:65: template 999 has no face");
    ijb.write("template_pair_label.txt", &pairs);
    ijb.features(N_FACES - 1);
    check_refused(&ijb, &features, "31 rows of embeddings for 32 faces");
    let one = [("embs", [N_FACES, 1], &[1.0f32; N_FACES][..])];
    safetensors(&ijb.files.path("e.safetensors"), &one).unwrap();
    check_refused(&ijb, &features, "no embeddings of the mirror images");
    std::fs::write(ijb.files.path("e.safetensors"), "damaged").unwrap();
    check_refused(&ijb, &features, "e.safetensors: not a file of embeddings");
    check_refused(&ijb, &["0", "--features", "nowhere.npy"], "nowhere.npy: cannot open");
}

#[test]
fn missing_images_are_noticed_before_the_model_runs() {
    let ijb = IjbLike::new();
    ijb.files.model();
    std::fs::remove_file(ijb.files.path("IJBC/loose_crop/7.png")).unwrap();
    std::fs::remove_file(ijb.files.path("IJBC/loose_crop/9.png")).unwrap();
    check_refused(&ijb, &["0", "--model", "run.ckpt"], "2 of 32 images");
}

#[test]
fn either_a_model_or_features_is_wanted() {
    let ijb = IjbLike::new();
    for arguments in [&["0"][..], &["0", "--model", "m", "--features", "f.npy"]] {
        let stderr = stderr_of_failure(pfc_eval(ijb.dir()).args(IJBC).args(arguments));
        assert!(stderr.contains("--features <FILE>"), "{stderr}");
    }
}

/// A devkit folder of 3 people with 2 images each and 40 distractors.
fn devkit() -> LfwLike {
    let files = LfwLike::new();
    write_devkit(&files);
    files
}

fn write_devkit(files: &LfwLike) {
    let mut probes = Vec::new();
    for i in 0..6 {
        let name = format!("P{}/P{}_{i}.png", i / 2, i / 2);
        let feature: Vec<f32> =
            (0..4).map(|d| ((i / 2 + d) % 3) as f32 + 0.01 * i as f32).collect();
        write_feature(files, &format!("out/facescrub/{name}_x.bin"), &feature);
        probes.push(name);
    }
    let distractors: Vec<String> = (0..40).map(|i| format!("0/a/{i}.jpg")).collect();
    for (i, name) in distractors.iter().enumerate() {
        let feature: Vec<f32> = (0..4).map(|d| ((i * 7 + d * 5) % 11) as f32 - 5.0).collect();
        write_feature(files, &format!("out/megaface/{name}_x.bin"), &feature);
    }
    let ids: Vec<&str> = probes.iter().map(|name| &name[..2]).collect();
    let json = serde_json::json!({"path": probes, "id": ids});
    std::fs::write(files.path("probes.json"), json.to_string()).unwrap();
    std::fs::create_dir(files.path("lists")).unwrap();
    for size in [10, 40] {
        let json = serde_json::json!({"path": distractors[..size]});
        let name = format!("lists/megaface_features_list.json_{size}_1");
        std::fs::write(files.path(&name), json.to_string()).unwrap();
    }
}

fn write_feature(files: &LfwLike, name: &str, values: &[f32]) {
    let path = files.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, feature::encode(values)).unwrap();
}

const DEVKIT: [&str; 10] = [
    "--probes",
    "out/facescrub",
    "--distractors",
    "out/megaface",
    "--suffix",
    "_x.bin",
    "--probe-list",
    "probes.json",
    "--galleries",
    "lists",
];

#[test]
fn megaface_scores_cleans_and_scores_the_cleaned_files_alike() {
    let files = devkit();
    std::fs::write(files.path("noisy"), "# by hand\n3\t0/a/3.jpg\n").unwrap();
    let noisy = ["--distractor-noises", "noisy"];
    let run =
        |arguments: &[&str]| stdout(pfc_eval(files.dir.path()).arg("megaface").args(arguments));
    let charts = ["--cmc", "cmc.png", "--plot", "roc.svg", "--det", "det.svg"];
    let score = [&["score", "--json"][..], &charts, &DEVKIT, &noisy].concat();
    let json: serde_json::Value = serde_json::from_str(&run(&score)).unwrap();
    assert_eq!((&json["n_pairs"], &json["cleaned"]), (&6.into(), &true.into()));
    assert_eq!(json["galleries"][1]["n_distractors"], 40);
    check_charts(&files, &["cmc.png", "roc.svg", "det.svg"]);
    assert!(json["galleries"][0]["rank10"]["interval"]["low"].is_number());
    run(&[&["clean", "--out", "cleaned"][..], &DEVKIT, &noisy].concat());
    let banished = std::fs::read(files.path("cleaned/megaface/0/a/3.jpg_x.bin")).unwrap();
    assert_eq!(feature::decode(&banished).unwrap()[4], 100.0);
    let mut cleaned = [&["score", "--json"][..], &DEVKIT].concat();
    (cleaned[3], cleaned[5]) = ("cleaned/facescrub", "cleaned/megaface");
    let again: serde_json::Value = serde_json::from_str(&run(&cleaned)).unwrap();
    assert_eq!(again["galleries"], json["galleries"]);
}

#[test]
fn megaface_lists_in_another_order_and_threads_print_the_same_table() {
    let files = devkit();
    std::fs::write(files.path("noisy"), "P1_3.png\n").unwrap();
    let table = |n_threads: &str| {
        let mut command = pfc_eval(files.dir.path());
        command.args(["megaface", "score", "--bootstrap", "40", "--probe-noises", "noisy"]);
        stdout(command.args(DEVKIT).env("RAYON_NUM_THREADS", n_threads))
    };
    let before = table("1");
    assert_eq!(table("3"), before);
    let lists = ["probes.json", "lists/megaface_features_list.json_40_1"];
    for name in lists {
        let text = std::fs::read_to_string(files.path(name)).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for column in json.as_object_mut().unwrap().values_mut() {
            column.as_array_mut().unwrap().reverse();
        }
        std::fs::write(files.path(name), json.to_string()).unwrap();
    }
    assert_eq!(table("3"), before);
}

#[test]
fn distractors_come_from_a_packed_data_set() {
    let files = LfwLike::new();
    files.model();
    let distractors = ["P05/P05_0001.png", "P06/P06_0002.png", "P07/P07_0003.png"];
    files.pack("packed", &distractors);
    let probes = "P00/P00_0001.png\nP00/P00_0002.png\nP01/P01_0001.png\nP01/P01_0002.png\n";
    std::fs::write(files.path("probes"), probes).unwrap();
    let embed = |arguments: &[&str]| {
        let mut command = pfc_eval(files.dir.path());
        command.args(["megaface", "embed", "--model", "run.ckpt", "--suffix", "_m.bin"]);
        stdout(command.args(arguments))
    };
    embed(&["--images", "faces", "--list", "probes", "--out", "out/p"]);
    embed(&["--images", "packed", "--out", "out/d"]);
    for name in distractors {
        assert!(files.path(&format!("out/d/{name}_m.bin")).exists(), "{name}");
    }
    let mut command = pfc_eval(files.dir.path());
    command.args(["megaface", "score", "--probes", "out/p", "--distractors", "out/d", "--json"]);
    command.args(["--suffix", "_m.bin", "--probe-list", "probes", "--galleries", "packed"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&mut command)).unwrap();
    let gallery = &json["galleries"][0];
    assert_eq!((&gallery["n_distractors"], &gallery["name"]), (&3.into(), &"packed".into()));
    std::fs::write(files.path("list"), "nobody.png\n").unwrap();
    let mut command = pfc_eval(files.dir.path());
    command.args(["megaface", "embed", "--model", "run.ckpt", "--suffix", "_m.bin"]);
    command.args(["--images", "packed", "--list", "list", "--out", "out/d"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("packed: no row of the data set is of `nobody.png`"), "{stderr}");
}

#[test]
fn report_compares_results_of_all_protocols_on_one_page() {
    let ijb = IjbLike::new();
    ijb.features(N_FACES);
    let save = |name: &str, command: &mut assert_cmd::Command| {
        std::fs::write(ijb.files.path(name), stdout(command)).unwrap();
    };
    let ijbc = ["20", "--features", "e.safetensors", "--json"];
    save("ijbc.json", pfc_eval(ijb.dir()).args(IJBC).args(ijbc));
    save("plain.json", pfc_eval(ijb.dir()).args(IJBC).args(ijbc).arg("--no-flip"));
    let labels: String = (0..N_FACES).map(|i| format!("p{} g{}\n", i / 4, i / 16)).collect();
    std::fs::write(ijb.files.path("labels"), labels).unwrap();
    let nn = ["nn", "--features", "e.safetensors", "--labels", "labels", "--json", "--far", "0.01"];
    save(
        "nn.json",
        pfc_eval(ijb.dir()).args(nn).args([
            "--plot",
            "r.svg",
            "--det",
            "d.png",
            "--histogram",
            "h.svg",
        ]),
    );
    check_charts(&ijb.files, &["r.svg", "d.png", "h.svg"]);
    let megaface = devkit();
    let score = [&["megaface", "score", "--json"][..], &DEVKIT].concat();
    save("megaface.json", pfc_eval(megaface.dir.path()).args(score));
    let results = ["report", "ijbc.json", "plain.json", "nn.json", "megaface.json", "--out"];
    stdout(pfc_eval(ijb.dir()).args(results).arg("page.html"));
    let page = std::fs::read_to_string(ijb.files.path("page.html")).unwrap();
    for text in [
        "e.safetensors (2)",
        "<h2>IJB-C</h2>",
        "<h2>MegaFace</h2>",
        "<h2>N:N</h2>",
        "CMC",
        "rank-10",
        "TPIR@FPIR 1e-1",
        "False positive identification rate",
        "Difference to e.safetensors",
        "threshold at FAR 1e-2",
        "10, set 1",
        "Not the complete benchmark: 32 faces of 469375",
        "data:image/jpeg;base64,",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    // ROC, DET, two histograms, the CMC and the open set of IJB-C; CMC, ROC, DET and a histogram of MegaFace; ROC,
    // DET and a histogram of N:N.
    assert_eq!(page.matches("role=\"img\"").count(), 6 + 4 + 3);
}

#[test]
fn megaface_features_are_made_once() {
    let files = LfwLike::new();
    files.model();
    std::fs::write(files.path("list"), "P00/P00_0001.png\nP01/P01_0002.png\n").unwrap();
    let arguments = ["megaface", "embed", "--model", "run.ckpt", "--images", "faces", "--list"];
    let run = || {
        let to = ["list", "--out", "out", "--suffix", "_m.bin"];
        stdout(pfc_eval(files.dir.path()).args(arguments).args(to))
    };
    run();
    let path = files.path("out/P01/P01_0002.png_m.bin");
    let values = feature::decode(&std::fs::read(&path).unwrap()).unwrap();
    let norm: f32 = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(values.len() == 32 && (norm - 1.0).abs() < 1e-5);
    write_feature(&files, "out/P01/P01_0002.png_m.bin", &[0.5; 32]);
    std::fs::write(files.path("out/P00/P00_0001.png_m.bin"), "cut").unwrap();
    run();
    assert_eq!(std::fs::read(&path).unwrap(), feature::encode(&[0.5; 32]), "it was made again");
    let remade = std::fs::read(files.path("out/P00/P00_0001.png_m.bin")).unwrap();
    assert_eq!(feature::decode(&remade).unwrap().len(), 32);
}

#[test]
fn features_of_another_model_and_files_of_others_are_refused_and_stay_as_they_are() {
    let files = LfwLike::new();
    files.model();
    files.model_of("other.ckpt", 2);
    std::fs::write(files.path("list"), "P00/P00_0001.png\nP01/P01_0002.png\n").unwrap();
    let embed = |model: &str, out: &str, suffix: &str| {
        let mut command = pfc_eval(files.dir.path());
        command.args(["megaface", "embed", "--images", "faces", "--list", "list"]);
        command.args(["--model", model, "--out", out, "--suffix", suffix]);
        command
    };
    embed("run.ckpt", "out", "_m.bin").assert().success();
    let feature = || std::fs::read(files.path("out/P00/P00_0001.png_m.bin")).unwrap();
    let before = feature();
    // As if the run had been stopped after its first image.
    std::fs::remove_file(files.path("out/P01/P01_0002.png_m.bin")).unwrap();
    let error = stderr_of_failure(&mut embed("other.ckpt", "out", "_m.bin"));
    assert!(error.contains("another model made the features of this suffix"), "{error}");
    assert!(error.contains("hint: choose another --out or --suffix"), "{error}");
    assert!(feature() == before && !files.path("out/P01/P01_0002.png_m.bin").exists());
    embed("other.ckpt", "out", "_other.bin").assert().success();
    embed("run.ckpt", "out", "_m.bin").assert().success();
    assert!(files.path("out/P01/P01_0002.png_m.bin").exists());
    // A folder of somebody else, and that of the images.
    files_of_others(&files);
    let error = stderr_of_failure(&mut embed("run.ckpt", "theirs", "_m.bin"));
    assert!(error.contains("theirs: holds files that pfc did not write: P00"), "{error}");
    assert_eq!(std::fs::read(files.path("theirs/P00/P00_0001.png_m.bin")).unwrap(), b"theirs");
    let error = stderr_of_failure(&mut embed("run.ckpt", "faces/out", "_m.bin"));
    assert!(error.contains("lies inside faces, the folder to be read"), "{error}");
}

fn files_of_others(files: &LfwLike) {
    std::fs::create_dir_all(files.path("theirs/P00")).unwrap();
    std::fs::write(files.path("theirs/P00/P00_0001.png_m.bin"), "theirs").unwrap();
}

#[test]
fn megaface_cleaning_again_with_other_noises_changes_what_has_to_be_another() {
    let files = devkit();
    let banished = |noises: &str| {
        std::fs::write(files.path("noisy"), noises).unwrap();
        let args = [&["megaface", "clean", "--out", "cleaned"][..], &DEVKIT];
        let mut command = pfc_eval(files.dir.path());
        stdout(command.args(args.concat()).args(["--distractor-noises", "noisy"]));
        let last = |name: &str| {
            let path = files.path(&format!("cleaned/megaface/0/a/{name}.jpg_x.bin"));
            *feature::decode(&std::fs::read(path).unwrap()).unwrap().last().unwrap()
        };
        ["3", "7"].map(last)
    };
    assert_eq!(banished("3\t0/a/3.jpg\n"), [100.0, 0.0]);
    assert_eq!(banished("7\t0/a/7.jpg\n"), [0.0, 100.0]);
}

#[test]
fn a_damaged_feature_file_is_named() {
    let files = devkit();
    std::fs::write(files.path("out/megaface/0/a/7.jpg_x.bin"), [0; 20]).unwrap();
    let score = [&["megaface", "score"][..], &DEVKIT].concat();
    let stderr = stderr_of_failure(pfc_eval(files.dir.path()).args(score));
    assert!(stderr.contains("0/a/7.jpg_x.bin: not a feature file of the devkit"), "{stderr}");
}

/// All are asked to stop before their first piece of work is done, in one process.
#[cfg(unix)]
#[test]
fn every_long_command_that_a_signal_stops_says_so_and_writes_no_result() {
    let name = concat!(
        "cli_protocols::",
        "every_long_command_that_a_signal_stops_says_so_and_writes_no_result"
    );
    if pfc_testing::is_again(name) {
        interrupt::listen().unwrap();
        pfc_testing::send_signal(std::process::id(), "TERM");
        while !interrupt::requested() {
            std::thread::yield_now();
        }
        for line in std::env::var("PFC_ARGUMENTS").unwrap().lines() {
            let error = pfc_eval::run(pfc_eval::Cli::parse_from(line.split(' '))).unwrap_err();
            assert!(format!("{error:#}").ends_with("interrupted"), "{line}: {error:#}");
        }
        // It decides the exit code of an error.
        assert_eq!(interrupt::signal().map(interrupt::Signal::exit_code), Some(143));
        return;
    }
    let ijb = IjbLike::new();
    let files = &ijb.files;
    files.model();
    write_devkit(files);
    let values: Vec<f32> = (0..60 * 3).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
    safetensors(&files.path("e.safetensors"), &[("embs", [60, 3], &values)]).unwrap();
    let labels: String = (0..60).map(|i| format!("p{}\n", i / 3)).collect();
    std::fs::write(files.path("labels"), &labels).unwrap();
    std::fs::write(files.path("images.txt"), "P00/P00_0001.png\n").unwrap();
    std::fs::write(files.path("noisy"), "3\t0/a/3.jpg\n").unwrap();
    let devkit = DEVKIT.join(" ");
    let embed = "--images faces --list images.txt --out features --suffix _x.bin";
    let lines = [
        "lfw --model run.ckpt --data faces --pairs single.txt --scores scores.csv".to_owned(),
        "embed faces/P00 e.npy --model run.ckpt".to_owned(),
        "ijbc --data IJBC --bootstrap 0 --model run.ckpt".to_owned(),
        format!("megaface embed {embed} --model run.ckpt"),
        format!("megaface score {devkit}"),
        format!("megaface clean --out cleaned {devkit} --distractor-noises noisy"),
        "nn --features e.safetensors --labels labels --far 0.01".to_owned(),
    ];
    let lines: Vec<String> = lines.into_iter().map(|line| format!("pfc-eval {line}")).collect();
    let mut command = pfc_testing::again(name);
    command.current_dir(files.dir.path()).env("PFC_ARGUMENTS", lines.join("\n"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no such test: {name}");
    for result in ["scores.csv", "e.npy"] {
        assert!(!files.path(result).exists(), "{result}");
    }
}

#[test]
fn nn_prints_groups_and_all_and_refuses_short_labels() {
    let files = LfwLike::new();
    let values: Vec<f32> = (0..60 * 3).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
    safetensors(&files.path("e.safetensors"), &[("embs", [60, 3], &values)]).unwrap();
    let labels: String = (0..60).map(|i| format!("p{} g{}\n", i / 3, i / 30)).collect();
    std::fs::write(files.path("labels"), &labels).unwrap();
    let arguments =
        ["nn", "--features", "e.safetensors", "--labels", "labels", "--far", "1e-8,0.01"];
    let table = stdout(pfc_eval(files.dir.path()).args(arguments).args(["--state", "s.json"]));
    for text in ["g0", "g1", "ALL", "20 people, 60 faces", "17 impostors", "finer than the data"] {
        assert!(table.contains(text), "{text} is missing in\n{table}");
    }
    assert!(!files.path("s.json").exists());
    let one = |n: &str| {
        let mut command = pfc_eval(files.dir.path());
        stdout(command.args(arguments).arg("--json").env("RAYON_NUM_THREADS", n))
    };
    assert_eq!(one("1"), one("3"));
    std::fs::write(files.path("labels"), "a\nb\n").unwrap();
    let stderr = stderr_of_failure(pfc_eval(files.dir.path()).args(arguments));
    assert!(stderr.contains("60 rows of embeddings for 2 faces"), "{stderr}");
}
