//! `pfc-eval embed` and `compare`, with models of every kind.

use std::path::Path;

use crate::support::{LfwLike, pfc_eval, run_without_printing, stderr_of_failure};
use pfc_binpack::{Dialect, PackWriter};
use pfc_embeddings::FeatureFile;
use pfc_findings::{Action, Decision, DecisionLog, RunInfo};
use pfc_model::{Embed, Embedder, Inference, export, weights};
use pfc_recordio::{Header, RecordWriter};
use tch::Device;

fn rows(path: &Path, name: &str) -> Vec<f32> {
    FeatureFile::open(path).unwrap().rows(&[name]).unwrap().data().to_vec()
}

#[track_caller]
fn check_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

/// The first three faces by path, as the embedder gives them.
fn expected(set: &LfwLike, model: &Path) -> (Vec<f32>, Vec<f32>) {
    let rgb: Vec<u8> = (1..=3)
        .flat_map(|i| {
            let path = set.path(&format!("faces/P00/P00_{i:04}.png"));
            image::open(path).unwrap().into_rgb8().into_raw()
        })
        .collect();
    let both = Embedder::open(model, Device::Cpu).unwrap().embed_with_mirror(&rgb, 3).unwrap();
    (both.original, both.mirrored)
}

#[test]
fn a_folder_becomes_rows_in_the_order_of_its_paths() {
    let set = LfwLike::new();
    let (original, mirrored) = expected(&set, &set.model());
    let run = |out: &str, more: &[&str]| {
        let args = ["embed", "faces/P00", out, "--model", "run.ckpt", "--json"];
        pfc_eval(set.dir.path()).args(args).args(more).assert().success();
    };
    run("a.npy", &["--names", "a.txt"]);
    let sum: Vec<f32> = original.iter().zip(&mirrored).map(|(a, b)| a + b).collect();
    check_close(&rows(&set.path("a.npy"), ""), &sum);
    let names = std::fs::read_to_string(set.path("a.txt")).unwrap();
    assert_eq!(names, "P00_0001.png\nP00_0002.png\nP00_0003.png\n");
    run("b.npy", &["--mirror", "none"]);
    check_close(&rows(&set.path("b.npy"), ""), &original);
    let args = ["embed", "faces", "d.npy", "--model", "run.ckpt", "--mirror", "none"];
    let beside = ["--names", "d.txt", "--labels", "d.labels"];
    pfc_eval(set.dir.path()).args(args).args(beside).assert().success();
    let read = |name: &str| std::fs::read_to_string(set.path(name)).unwrap();
    let (names, labels) = (read("d.txt"), read("d.labels"));
    let mut people: Vec<&str> = names.lines().map(|name| &name[..3]).collect();
    let labelled: Vec<usize> = labels.lines().map(|label| label.parse().unwrap()).collect();
    let distinct: std::collections::BTreeSet<&str> = people.drain(..).collect();
    let expected = names.lines().map(|name| distinct.iter().position(|p| name.starts_with(p)));
    assert_eq!(labelled.into_iter().map(Some).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    run("c.safetensors", &["--mirror", "keep"]);
    check_close(&rows(&set.path("c.safetensors"), "embs"), &original);
    check_close(&rows(&set.path("c.safetensors"), "embs_f"), &mirrored);
    assert!(!set.path("a.npy.parts").exists());
}

#[test]
fn a_list_a_data_set_a_record_file_and_a_pack_give_the_same_rows() {
    let set = LfwLike::new();
    set.model();
    let faces = ["P05/P05_0001.png", "P01/P01_0003.png", "P05/P05_0002.png", "P09/P09_0001.png"];
    let jpegs: Vec<Vec<u8>> = faces.iter().map(|face| set.jpeg(face)).collect();
    let mut list = String::new();
    let mut records = RecordWriter::create(&set.path("rec")).unwrap();
    let mut pack = PackWriter::new(Vec::new(), Dialect::Any).unwrap();
    for (i, jpeg) in (0..).zip(&jpegs) {
        std::fs::write(set.path(&format!("{i}.jpg")), jpeg).unwrap();
        list += &format!("{i}.jpg\n");
        records.write(i, &Header::scalar(i as f32, i), jpeg).unwrap();
    }
    records.finish(None).unwrap();
    std::fs::write(set.path("faces.txt"), list).unwrap();
    pack.push([&jpegs[0], &jpegs[1]], false).unwrap();
    pack.push([&jpegs[2], &jpegs[3]], false).unwrap();
    std::fs::write(set.path("pairs.bin"), pack.finish().unwrap()).unwrap();
    set.pack("packed", &faces);
    let embed = |images: &str| {
        let args = ["embed", images, "a.npy", "--model", "run.ckpt", "--names", "names.txt"];
        pfc_eval(set.dir.path()).args(args).arg("--force").assert().success();
        let names = std::fs::read_to_string(set.path("names.txt")).unwrap();
        (rows(&set.path("a.npy"), ""), names)
    };
    let (listed, names) = embed("faces.txt");
    assert_eq!((listed.len(), &names[..]), (4 * 32, "0.jpg\n1.jpg\n2.jpg\n3.jpg\n"));
    assert_ne!(listed[..32], listed[32..64]);
    for (images, called) in [
        ("packed", faces.join("\n") + "\n"),
        ("rec", "id_0/0\nid_1/1\nid_2/2\nid_3/3\n".to_owned()),
        ("rec/train.rec", "id_0/0\nid_1/1\nid_2/2\nid_3/3\n".to_owned()),
        ("pairs.bin", "pairs.bin/0\npairs.bin/1\npairs.bin/2\npairs.bin/3\n".to_owned()),
    ] {
        let (found, names) = embed(images);
        assert_eq!(found, listed, "{images}");
        assert_eq!(names, called, "{images}");
    }
}

#[test]
fn an_interrupted_run_goes_on_and_another_model_is_not_mixed_in() {
    let set = LfwLike::new();
    set.model();
    let embed = |out: &str| {
        let mut command = pfc_eval(set.dir.path());
        command.args(["embed", "faces/P00", out, "--model", "run.ckpt", "--json"]);
        command
    };
    embed("a.npy").assert().success();
    let whole = std::fs::read(set.path("a.npy")).unwrap();
    // As after a kill at the very end: the file is there, and so are the parts.
    std::fs::create_dir(set.path("stopped")).unwrap();
    let args = ["embed", "faces/P00", "stopped/a.npy", "--model", "run.ckpt"];
    run_without_printing(set.dir.path(), &args);
    let parts = || std::fs::read_dir(set.path("stopped/a.npy.parts")).unwrap().count();
    assert_eq!(parts(), 2, "the key and one part");
    assert!(!set.path("stopped/.a.npy.parts.lock").exists());
    let output = embed("stopped/a.npy").output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["images"], &report["resumed"]), (&3.into(), &3.into()));
    assert_eq!(std::fs::read(set.path("stopped/a.npy")).unwrap(), whole);
    // Parts of other options are no parts of this run.
    let args = ["embed", "faces/P00", "c.npy", "--model", "run.ckpt"];
    run_without_printing(set.dir.path(), &args);
    let error = stderr_of_failure(embed("c.npy").args(["--mirror", "none"]));
    assert!(error.contains("kept from another run"), "{error}");
}

#[test]
fn an_output_that_is_something_else_is_refused_before_the_model_is_opened() {
    let set = LfwLike::new();
    let face = std::fs::read(set.path("faces/P00/P00_0001.png")).unwrap();
    std::fs::create_dir(set.path("folder.npy")).unwrap();
    for name in ["old.npy", "names.txt", "b.npy.left-out.tsv"] {
        std::fs::write(set.path(name), "mine").unwrap();
    }
    std::fs::write(set.path("list.npy"), "P00/P00_0001.png\n").unwrap();
    for (args, expected) in [
        ("faces old.npy", "old.npy: already exists"),
        ("faces folder.npy --force", "folder.npy: is a folder"),
        ("faces none/a.npy", "none/a.npy: the folder that it is to lie in is not there"),
        ("faces b.npy --force", "b.npy.left-out.tsv: the list of the images left out"),
        ("faces a.npy --names names.txt", "names.txt: already exists"),
        ("faces a.npy --names faces/P00/P00_0001.png --force", "is a file of the input"),
        ("list.npy list.npy --root faces --force", "list.npy: is a file of the input"),
        ("faces a.npy --names a.npy", "is to hold the names and something else"),
        ("faces a.npy --names a.npy.left-out.tsv", "is to hold the names and something else"),
        ("faces a.npy --names n.txt --labels n.txt", "is to hold the labels and something else"),
        // What may be replaced is, and then there is no model.
        ("faces old.npy --names names.txt --force", "cannot open the model `none.ckpt`"),
    ] {
        let mut command = pfc_eval(set.dir.path());
        command.arg("embed").args(args.split(' ')).args(["--model", "none.ckpt"]);
        let error = stderr_of_failure(&mut command);
        assert!(error.contains(expected) && error.contains("\nhint: "), "{args}: {error}");
    }
    for name in ["old.npy", "names.txt", "b.npy.left-out.tsv"] {
        assert_eq!(std::fs::read(set.path(name)).unwrap(), b"mine", "{name}");
    }
    assert_eq!(std::fs::read(set.path("faces/P00/P00_0001.png")).unwrap(), face);
}

#[test]
fn two_commands_into_one_output_are_told_apart_and_the_first_goes_on() {
    let set = LfwLike::new();
    set.model();
    std::fs::write(set.path("list.txt"), "P00/P00_0001.png\n").unwrap();
    let megaface = ["megaface", "embed", "--images", "faces", "--list", "list.txt", "--out", "a"];
    let embed = ["embed", "faces/P00", "a.npy", "--model", "run.ckpt"];
    let features = [&megaface[..], &["--suffix", "_x.bin", "--model", "run.ckpt"]].concat();
    for (args, lock, folder) in
        [(&embed[..], ".a.npy.parts.lock", "a.npy.parts"), (&features, ".a.lock", "a")]
    {
        let path = set.path(lock);
        let held = std::fs::File::options().append(true).create(true).open(&path).unwrap();
        held.lock().unwrap();
        let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
        let expected = format!("{folder}: another command is writing there");
        assert!(error.contains(&expected) && error.contains("\nhint: "), "{error}");
        drop(held);
        pfc_eval(set.dir.path()).args(args).assert().success();
        assert!(!path.exists());
    }
}

#[test]
fn an_image_that_cannot_be_read_is_listed_and_costs_neither_the_run_nor_what_was_kept() {
    const EMBED: [&str; 8] =
        ["embed", "faces/P00", "a.npy", "--model", "run.ckpt", "--names", "a.txt", "--force"];
    let set = LfwLike::new();
    set.model();
    let embed = || {
        let mut command = pfc_eval(set.dir.path());
        command.args(EMBED);
        command
    };
    embed().assert().success();
    let whole = std::fs::read(set.path("a.npy")).unwrap();
    let n_numbers = rows(&set.path("a.npy"), "").len();
    let second = set.path("faces/P00/P00_0002.png");
    let sound = std::fs::read(&second).unwrap();
    for bad in [&b"<html>404</html>"[..], &sound[..100], b""] {
        std::fs::write(&second, bad).unwrap();
        run_without_printing(set.dir.path(), &EMBED);
        let output = embed().arg("--json").assert().code(1);
        let report: serde_json::Value =
            serde_json::from_slice(&output.get_output().stdout).unwrap();
        let counts = ["images", "left_out", "resumed"].map(|key| report[key].as_u64().unwrap());
        assert_eq!(counts, [2, 1, 3]);
        let names = std::fs::read_to_string(set.path("a.txt")).unwrap();
        assert_eq!(names, "P00_0001.png\nP00_0003.png\n");
        let list = std::fs::read_to_string(set.path("a.npy.left-out.tsv")).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 2, "{list}");
        assert!(lines[1].starts_with("P00_0002.png\t"), "{list}");
        assert_eq!(rows(&set.path("a.npy"), "").len() * 3, n_numbers * 2);
        assert!(!set.path("a.npy.parts").exists());
    }
    // Repaired, it is as if nothing had been, and the list of an earlier run goes.
    std::fs::write(&second, &sound).unwrap();
    embed().assert().success();
    assert_eq!(std::fs::read(set.path("a.npy")).unwrap(), whole);
    assert!(!set.path("a.npy.left-out.tsv").exists());
    for image in 1..=3 {
        std::fs::write(set.path(&format!("faces/P00/P00_000{image}.png")), b"none").unwrap();
    }
    let error = stderr_of_failure(&mut embed());
    assert!(error.contains("faces/P00: none of its 3 images can be used"), "{error}");
    assert!(!set.path("a.npy.left-out.tsv").exists());
}

/// A JPEG whose outline is right, and of which no decoder gets pixels: its first Huffman table is broken.
fn undecodable(mut jpeg: Vec<u8>) -> Vec<u8> {
    let at = jpeg.windows(2).position(|marker| marker == [0xff, 0xc4]).unwrap();
    jpeg[at + 5..at + 21].fill(0xff);
    jpeg
}

#[test]
fn a_data_set_is_embedded_as_decisions_leave_it_without_what_cannot_be_decoded() {
    let set = LfwLike::new();
    set.model();
    let faces = ["P00/P00_0001.png", "P01/P01_0001.png", "P02/P02_0001.png"];
    set.pack("data", &faces);
    let embed = |images: &str, more: &[&str], code: i32| {
        let args = ["embed", images, "a.npy", "--model", "run.ckpt", "--names", "names.txt"];
        let mut command = pfc_eval(set.dir.path());
        let run = command.args(args).arg("--force").args(more).assert().code(code);
        let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        let names = std::fs::read_to_string(set.path("names.txt")).unwrap();
        (rows(&set.path("a.npy"), ""), names, said)
    };
    let (all, ..) = embed("data", &[], 0);
    assert_eq!(all.len(), 3 * 32);
    let all_but_the_second = [&all[..32], &all[64..]].concat();
    let two = format!("{}\n{}\n", faces[0], faces[2]);

    let mut log = DecisionLog::open(&set.path("data")).unwrap();
    let info = RunInfo {
        dataset: log.dataset(),
        tool: "test".to_owned(),
        command: "clean".to_owned(),
        arguments: Vec::new(),
        notes: serde_json::json!({}),
    };
    log.append(&info, &[Decision::new(1, 0, Action::Drop, "blurred")]).unwrap();
    let (decided, names, said) = embed("data", &[], 0);
    let notice = "data: 1 of 3 rows are left out by decisions; --as-packed reads them";
    assert_eq!((said.matches(notice).count(), &names), (1, &two), "{said}");
    check_close(&decided, &all_but_the_second);
    let (packed, _, said) = embed("data", &["--as-packed"], 0);
    assert!(!said.contains("left out"), "{said}");
    check_close(&packed, &all);

    let mut jpegs: Vec<(&str, Vec<u8>)> = faces.iter().map(|f| (*f, set.jpeg(f))).collect();
    jpegs[1].1 = undecodable(std::mem::take(&mut jpegs[1].1));
    set.pack_jpegs("broken", &jpegs);
    let (whole, names, _) = embed("broken", &[], 1);
    assert_eq!(names, two);
    check_close(&whole, &all_but_the_second);
    let list = std::fs::read_to_string(set.path("a.npy.left-out.tsv")).unwrap();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.lines().last().unwrap().starts_with("P01/P01_0001.png\t"), "{list}");
}

#[test]
fn every_kind_of_model_gives_the_same_embeddings() {
    let set = LfwLike::new();
    let (original, _) = expected(&set, &set.model());
    let backbone = || {
        weights::open(&set.path("run.ckpt"), Device::Cpu, weights::OpenOptions::default())
            .unwrap()
            .backbone
    };
    export::pth(&set.path("m.pth"), &backbone(), false).unwrap();
    export::safetensors(&set.path("m.safetensors"), &backbone(), false).unwrap();
    export::torchscript(&set.path("m.pt"), &Inference::from(backbone())).unwrap();
    let mut models = vec!["m.pth", "m.safetensors", "m.pt"];
    match pfc_onnx::runtime::load() {
        Ok(_) => {
            let options = export::OnnxOptions::default();
            export::onnx(&set.path("m.onnx"), &Inference::from(backbone()), options).unwrap();
            models.push("m.onnx");
        }
        Err(error) => pfc_testing::skip(&error.to_string()),
    }
    for model in models {
        let args = ["embed", "faces/P00", "a.npy", "--force", "--mirror", "none", "--model", model];
        let trust: &[&str] = if model == "m.pt" { &["--trust-code"] } else { &[] };
        if !trust.is_empty() {
            let said = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
            assert!(said.contains("is a TorchScript program, which may do anything"), "{said}");
            assert!(said.contains("add `--trust-code`"), "{said}");
        }
        pfc_eval(set.dir.path()).args(args).args(trust).assert().success();
        check_close(&rows(&set.path("a.npy"), ""), &original);
        let lfw = ["lfw", "--data", "faces", "--pairs", "pairs.txt", "--bootstrap", "0"];
        let lfw = pfc_eval(set.dir.path()).args(lfw).args(["--model", model]).args(trust).output();
        let lfw = lfw.unwrap();
        assert!(lfw.status.success() && !lfw.stdout.is_empty(), "{model}");
    }
}

#[test]
fn an_onnx_model_of_nan_and_one_that_gives_infinity_are_refused_by_whoever_runs_them() {
    let set = LfwLike::new();
    if let Err(error) = pfc_onnx::runtime::load() {
        pfc_testing::skip(&error.to_string());
        return;
    }
    let model = set.model();
    let write = |name: &str, value: f64| {
        let options = weights::OpenOptions::default();
        let backbone = weights::open(&model, Device::Cpu, options).unwrap().backbone;
        let state = backbone.state_dict();
        let (_, bias) = state.iter().rev().find(|(key, _)| key.ends_with("bias")).unwrap();
        tch::no_grad(|| drop(bias.view(-1).get(0).fill_(value)));
        let (path, options) = (set.path(name), export::OnnxOptions::default());
        export::onnx(&path, &Inference::from(backbone), options).unwrap();
        path
    };
    let judged = |name: &str| {
        let args = ["lfw", "--model", name, "--data", "faces", "--pairs", "pairs.txt"];
        stderr_of_failure(pfc_eval(set.dir.path()).args(args))
    };
    let open = |path: &Path| pfc_onnx::OnnxModel::open(path, &pfc_onnx::OpenOptions::default());

    let error = open(&write("nan.onnx", f64::NAN)).map(drop).unwrap_err();
    assert!(error.to_string().ends_with(" numbers that are NaN"), "{error}");
    assert!(error.hint().is_some());
    let said = judged("nan.onnx");
    assert!(said.contains("nan.onnx: tensor `") && said.contains(" that are NaN"), "{said}");

    let path = write("inf.onnx", f64::INFINITY);
    let model = open(&path).unwrap();
    let grey = vec![127; 2 * pfc_onnx::FACE_BYTES];
    for embed in [pfc_onnx::OnnxModel::embed, pfc_onnx::OnnxModel::embed_mirrored] {
        let error = embed(&model, &grey, 2).unwrap_err();
        let expected = format!("{}: its embedding of image 0 of those given", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.hint().is_some());
    }
    let said = judged("inf.onnx");
    let expected = "inf.onnx: its embedding of `P00/P00_0001.png` is not finite";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn comparing_prints_the_cosine_alone() {
    let set = LfwLike::new();
    set.model();
    let compare = |left: &str, right: &str| {
        let args = ["compare", left, right, "--model", "run.ckpt"];
        let output = pfc_eval(set.dir.path()).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<f64>().unwrap()
    };
    let [a, b] = ["faces/P00/P00_0001.png", "faces/P07/P07_0002.png"];
    assert_eq!(compare(a, a), 1.0);
    assert!(compare(a, b) < 1.0);
    assert_eq!(compare(a, b), compare(b, a));
    let judged = |left: &str, right: &str, threshold: &str| {
        let args = ["compare", left, right, "--model", "run.ckpt", "--threshold", threshold];
        let output = pfc_eval(set.dir.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = judged(a, a, "0.99");
    assert!(code == Some(0) && said.ends_with("  one person\n"), "{said}");
    let (code, said) = judged(a, b, "1");
    assert!(code == Some(1) && said.ends_with("  different people\n"), "{said}");
    assert_eq!(judged(a, b, "-1").0, Some(0));
    assert_eq!(judged(a, b, "2").0, Some(2));
}

#[test]
fn options_that_a_model_lacks_are_refused_by_name() {
    let set = LfwLike::new();
    set.model();
    let compare = |more: &[&str]| {
        let face = "faces/P00/P00_0001.png";
        let args = ["compare", face, face, "--model", "run.ckpt"];
        stderr_of_failure(pfc_eval(set.dir.path()).args(args).args(more))
    };
    let error = compare(&["--input-size", "224"]);
    assert!(error.contains("--input-size cannot be set"), "{error}");
    std::fs::write(set.path("x.bin"), b"nothing known").unwrap();
    let args = ["embed", "faces", "a.npy", "--model", "x.bin"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
    assert!(error.contains("not a model: it begins with `noth`"), "{error}");
    assert!(error.contains("hint: a model is a checkpoint folder"), "{error}");
}
