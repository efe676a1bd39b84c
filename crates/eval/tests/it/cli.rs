//! The program: exit codes, messages, and what lands where.

use crate::support::{LfwLike, pfc_eval, stderr_of_failure};
use pfc_model::{Backbone, BackboneSpec, checkpoint, export};
use pfc_shard::{QualitySpec, ShardError};
use tch::{Device, Tensor};

const LFW: [&str; 7] = ["lfw", "--model", "run.ckpt", "--data", "faces", "--pairs", "pairs.txt"];

#[test]
fn questions_about_the_command_line_are_answered_without_libtorch() {
    pfc_testing::check_front(assert_cmd::cargo::cargo_bin!("pfc-eval"), &LFW);
}

#[test]
fn lfw_prints_a_table_and_writes_the_files_asked_for() {
    let files = LfwLike::new();
    files.model();
    let output = pfc_eval(files.dir.path())
        .args(LFW)
        .args(["--bootstrap", "50", "--plot", "roc.svg", "--det", "det.png"])
        .args(["--histogram", "scores.png", "--scores", "scores.csv"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    for text in ["accuracy", "TAR@FAR 1e-1", "rests on 2 impostor pairs", "AUC", "EER"] {
        assert!(table.contains(text), "{text} is missing in\n{table}");
    }
    assert!(table.contains("finer than 20 impostor pairs can measure"), "{table}");
    let lines = std::fs::read_to_string(files.path("scores.csv")).unwrap();
    assert_eq!(lines.lines().count(), 41);
    assert!(lines.lines().nth(1).unwrap().starts_with("0,P00/P00_0001.png,P00/P00_0002.png,1,"));
    assert!(std::fs::read_to_string(files.path("roc.svg")).unwrap().starts_with("<svg"));
    for png in ["det.png", "scores.png"] {
        assert!(image::open(files.path(png)).is_ok(), "{png}");
    }
}

#[test]
fn json_has_a_schema_and_is_the_same_on_one_thread_and_on_three() {
    let files = LfwLike::new();
    files.model();
    let run = |n_threads: &str| {
        let mut command = pfc_eval(files.dir.path());
        command.args(LFW).args(["--json", "--bootstrap", "50"]);
        let output = command.env("RAYON_NUM_THREADS", n_threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let json = run("1");
    assert_eq!(json, run("3"));
    let document: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&document["schema"], &document["command"]), (&1.into(), &"lfw".into()));
    let figures = &document["results"][0]["figures"];
    assert_eq!(figures["protocol"], "ten-fold");
    assert_eq!(figures["tar_at_far"][2]["tar"], serde_json::Value::Null);
    assert_eq!(figures["people_from"], "names");
}

#[test]
fn a_list_in_another_order_prints_the_same_table() {
    let files = LfwLike::new();
    files.model();
    let table = || {
        let mut command = pfc_eval(files.dir.path());
        let output = command.args(LFW).args(["--bootstrap", "50"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let before = table();
    // Within a fold the order of the pairs of one kind, and of the sides of a pair, is free.
    let text = std::fs::read_to_string(files.path("pairs.txt")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for fold in lines[1..].chunks_mut(4) {
        fold.swap(0, 1);
        fold.swap(2, 3);
        for line in &mut fold[2..] {
            let fields: Vec<&str> = line.split('\t').collect();
            *line = [fields[2], fields[3], fields[0], fields[1]].join("\t");
        }
    }
    std::fs::write(files.path("pairs.txt"), lines.join("\n")).unwrap();
    assert_eq!(table(), before);
}

#[test]
fn a_model_that_is_not_there_is_exit_code_2() {
    let files = LfwLike::new();
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(LFW)), @r"
    error: cannot open the model `run.ckpt`
      cause: run.ckpt: not a checkpoint: there is no such folder

    hint: name the folder that ends in `.ckpt`; a run keeps them in its `checkpoints` folder
    ");
}

#[test]
fn a_broken_list_names_file_and_line() {
    let files = LfwLike::new();
    files.model();
    std::fs::write(files.path("pairs.txt"), "10\t2\nP00\t1\t2\nP01\t2\n").unwrap();
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(LFW)), @r"
    error: cannot evaluate the model on `faces`
      cause: pairs.txt:3: 2 columns where a matched pair (NAME N N) is expected

    hint: LFW's layout: a first line `10 300` (folds, pairs of each kind per fold) or `500` (pairs of each kind); then per fold first the lines `NAME N N` of matched pairs, then the lines `NAME N NAME N` of mismatched ones, separated by tabs
    ");
}

#[test]
fn a_damaged_image_is_named() {
    let files = LfwLike::new();
    files.model();
    std::fs::write(files.path("faces/P00/P00_0001.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let stderr = stderr_of_failure(pfc_eval(files.dir.path()).args(LFW));
    assert!(stderr.contains("faces/P00/P00_0001.png: cannot decode the image"), "{stderr}");
}

#[test]
fn a_missing_data_folder_is_named() {
    let files = LfwLike::new();
    files.model();
    let args = ["lfw", "--model", "run.ckpt", "--data", "nowhere", "--pairs", "pairs.txt"];
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(args)), @r"
    error: cannot evaluate the model on `nowhere`
      cause: nowhere: cannot open the folder
      cause: No such file or directory (os error 2)

    hint: there is no `nowhere`: is the path right?
    ");
}

#[test]
fn a_plot_of_an_unknown_format_is_refused_before_any_work() {
    let files = LfwLike::new();
    let stderr =
        stderr_of_failure(pfc_eval(files.dir.path()).args(LFW).args(["--plot", "roc.pdf"]));
    assert!(stderr.contains("a plot's name ends in .svg or .png"), "{stderr}");
}

#[test]
fn a_rate_of_one_is_refused_before_any_work() {
    let files = LfwLike::new();
    let stderr = stderr_of_failure(pfc_eval(files.dir.path()).args(LFW).args(["--far", "1"]));
    assert!(stderr.contains("a false accept rate of 1 is outside (0, 1)"), "{stderr}");
}

/// A pack of four pairs in the set's folder, pickled by protocol 0.
fn write_pack(files: &LfwLike, name: &str) {
    let image = |person: u32, image: u32| {
        let path = files.path(&format!("faces/P{person:02}/P{person:02}_{image:04}.png"));
        std::fs::read(path).unwrap()
    };
    let mut pack = b"((".to_vec();
    let mut labels = b"(".to_vec();
    for person in 0..10 {
        for (other, same) in [((person, 2), "I01\n"), ((person + 1, 1), "I00\n")] {
            for (person, number) in [(person, 1), other] {
                let bytes = image(person, number);
                pack.push(b'T');
                pack.extend((bytes.len() as u32).to_le_bytes());
                pack.extend(bytes);
            }
            labels.extend(same.as_bytes());
        }
    }
    pack.push(b'l');
    labels.extend(b"lt.");
    std::fs::write(files.path(name), [pack, labels].concat()).unwrap();
}

#[test]
fn bin_judges_several_packs_and_report_compares_them_on_one_page() {
    let files = LfwLike::new();
    files.model();
    write_pack(&files, "a.bin");
    write_pack(&files, "b<c.bin");
    let run = |args: &[&str]| {
        let output = pfc_eval(files.dir.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let common = ["--model", "run.ckpt", "--json", "--bootstrap", "20"];
    let packs = run(&[&["bin", "a.bin", "b<c.bin"], &common[..]].concat());
    std::fs::write(files.path("packs.json"), packs).unwrap();
    let lfw = run(&[&LFW[..], &["--json", "--bootstrap", "20"]].concat());
    std::fs::write(files.path("lfw.json"), lfw).unwrap();
    run(&["report", "packs.json", "lfw.json", "packs.json", "--out", "report.html"]);
    let page = std::fs::read_to_string(files.path("report.html")).unwrap();
    assert!(page.matches("data:image/jpeg;base64,").count() > 60);
    for text in ["b&lt;c", "run.ckpt (2)", "TAR@FAR 1e-1", "prefers-color-scheme"] {
        assert!(page.contains(text), "{text} is missing");
    }
    // Each set was judged twice by one model, which is as far from itself as nothing in every resampled set.
    let same = "+0.00<small class=\"interval\">+0.00 – +0.00</small>";
    assert_eq!(page.matches("Difference to run.ckpt").count(), 2);
    assert!(page.matches(same).count() >= 2, "{}", page.matches(same).count());
    for foreign in ["http://", "https://", "<script", "b<c"] {
        // The namespace of SVG is a name and not an address that is opened.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
    // Pairs are named where nothing is left to look at.
    assert!(!page.contains("not where they were"));
    std::fs::remove_file(files.path("a.bin")).unwrap();
    run(&["report", "packs.json", "--out", "gone.html"]);
    let page = std::fs::read_to_string(files.path("gone.html")).unwrap();
    assert_eq!(page.matches("not where they were").count(), 2);
}

#[test]
fn a_pickle_that_would_run_code_is_refused_by_name() {
    let files = LfwLike::new();
    files.model();
    std::fs::write(files.path("evil.bin"), b"cos\nsystem\n(S'touch pwned'\ntR.").unwrap();
    let args = ["bin", "--model", "run.ckpt", "evil.bin"];
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(args)), @r"
    error: cannot evaluate the model on `evil.bin`
      cause: evil.bin: not a verification pack: byte 0: it asks to import `os.system`, which has no place in a verification pack

    hint: a pack is a pickle of (images, issame) as InsightFace publishes them, such as lfw.bin; no other pickles are read, and nothing in one is ever run
    ");
    assert!(!files.path("pwned").exists());
}

#[test]
fn a_folder_without_a_list_asks_for_one() {
    let files = LfwLike::new();
    files.model();
    let args = ["agedb", "--model", "run.ckpt", "--data", "faces"];
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(args)), @r"
    error: cannot evaluate the model on `faces`
      cause: faces: a folder, and no list of pairs is given

    hint: give the list with --pairs, or an InsightFace pack as --data
    ");
    let args = ["lfw", "--model", "run.ckpt", "--data", "nope.bin"];
    insta::assert_snapshot!(stderr_of_failure(pfc_eval(files.dir.path()).args(args)), @r"
    error: cannot evaluate the model on `nope.bin`
      cause: nope.bin: cannot open
      cause: No such file or directory (os error 2)

    hint: there is no `nope.bin`: is the path right?
    ");
}

#[test]
fn a_bound_that_a_figure_does_not_keep_ends_with_1_after_the_figures() {
    let files = LfwLike::new();
    files.model();
    let run = |bounds: &[&str]| {
        let mut command = pfc_eval(files.dir.path());
        command.args(LFW).args(["--json", "--bootstrap", "0"]);
        bounds.iter().for_each(|bound| {
            command.args(["--require", bound]);
        });
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), output.stdout.len(), stderr)
    };
    let (code, n_bytes, _) = run(&["accuracy>=0", "tar@0.1>=0", "eer<=1", "auc>=0"]);
    assert_eq!(code, 0);
    let (code, n_unmet, stderr) = run(&["accuracy>=0", "accuracy>1"]);
    assert_eq!((code, n_unmet), (1, n_bytes), "{stderr}");
    assert!(stderr.contains("and accuracy>1 is required"), "{stderr}");
    let (code, _, stderr) = run(&["tar@1e-9>0"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("the figures here are accuracy, auc, eer, tar@1e-1"), "{stderr}");
    assert_eq!(run(&["acuracy>0"]).0, 2);
}

#[test]
fn a_set_that_is_not_the_published_one_is_warned_of() {
    let files = LfwLike::new();
    files.model();
    write_pack(&files, "part.bin");
    let mut command = pfc_eval(files.dir.path());
    command.args(["agedb", "--model", "run.ckpt", "--data", "part.bin", "--bootstrap", "0"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("20 pairs, 10 of them genuine, but AgeDB-30 has 6000"), "{stderr}");
}

#[test]
fn a_file_that_is_no_result_is_named() {
    let files = LfwLike::new();
    let failure = |text: &str| {
        std::fs::write(files.path("a.json"), text).unwrap();
        let args = ["report", "a.json", "--out", "report.html"];
        stderr_of_failure(pfc_eval(files.dir.path()).args(args))
    };
    assert!(
        failure("{}").contains("a.json: not a result that can be read: missing field `schema`")
    );
    let newer = failure("{\"schema\": 99}");
    assert!(newer.contains("schema 99, and this program knows up to 1"), "{newer}");
    assert!(!files.path("report.html").exists());
}

#[test]
fn completions_are_written_for_every_shell() {
    let files = LfwLike::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = pfc_eval(files.dir.path()).args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{shell}");
    }
}

/// A checkpoint whose weights are all 0, so that every embedding is.
fn zero_model(files: &LfwLike, name: &str) {
    let spec = BackboneSpec { network: "r10_w8".parse().unwrap(), embedding: 32 };
    let state = Backbone::new(&spec, Device::Cpu, 1).unwrap().state_dict();
    let zeros: Vec<(String, Tensor)> =
        state.into_iter().map(|(key, tensor)| (key, tensor.detach().zeros_like())).collect();
    let mut writer = checkpoint::Writer::create(&files.path(name)).unwrap();
    writer.tensors(checkpoint::BACKBONE, &zeros).unwrap();
    writer.finish(spec, None).unwrap();
}

#[test]
fn an_embedding_without_a_direction_is_refused_and_its_image_named() {
    let files = LfwLike::new();
    zero_model(&files, "zero.ckpt");
    let (left, right) = ("faces/P00/P00_0001.png", "faces/P01/P01_0001.png");
    for more in [&[][..], &["--json"], &["--no-flip"]] {
        let args = ["compare", left, right, "--model", "zero.ckpt"];
        let said = stderr_of_failure(pfc_eval(files.dir.path()).args(args).args(more));
        let expected = format!("zero.ckpt: its embedding of `{left}` is zero and has no direction");
        assert!(said.contains(&expected) && said.contains("hint: "), "{said}");
    }
    let args = ["lfw", "--model", "zero.ckpt", "--data", "faces", "--pairs", "pairs.txt"];
    let said = stderr_of_failure(pfc_eval(files.dir.path()).args(args));
    assert!(
        said.contains("its embedding of `P00/P00_0001.png` is zero, with its mirror"),
        "{said}"
    );
}

#[test]
fn auto_leaves_a_file_that_fixes_its_format_as_it_is() {
    let files = LfwLike::new();
    let spec = BackboneSpec { network: "r10_w8".parse().unwrap(), embedding: 32 };
    let backbone = Backbone::new(&spec, Device::Cpu, 1).unwrap();
    export::torchscript(&files.path("m.pt"), &backbone.into_inference()).unwrap();
    let (left, right) = ("faces/P00/P00_0001.png", "faces/P01/P01_0001.png");
    let compare = |precision: &str| {
        let mut command = pfc_eval(files.dir.path());
        command.args(["compare", left, right, "--model", "m.pt", "--trust-code"]);
        command.args(["--precision", precision]);
        command
    };
    let cosines = ["auto", "f32"].map(|precision| {
        let output = compare(precision).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    });
    assert_eq!(cosines[0], cosines[1]);
    let said = stderr_of_failure(&mut compare("bf16"));
    assert!(said.contains("--precision cannot be set: the file fixes"), "{said}");
    // What is wrong with the file itself is what is said of it.
    std::fs::write(files.path("m.onnx"), b"\x08\x07\x12\x07pytorch").unwrap();
    let args = ["compare", left, right, "--model", "m.onnx", "--precision", "auto"];
    let said = stderr_of_failure(pfc_eval(files.dir.path()).args(args));
    assert!(!said.contains("--precision"), "{said}");
}

#[test]
fn a_file_that_is_larger_than_the_memory_granted_is_an_error_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (6000000, 128), }";
    let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    header.extend(format!("{text:<117}\n").bytes());
    let mut file = std::fs::File::create(dir.path().join("f.npy")).unwrap();
    std::io::Write::write_all(&mut file, &header).unwrap();
    // All of it is a hole, which takes no disk.
    file.set_len(header.len() as u64 + 6_000_000 * 128 * 4).unwrap();
    std::fs::write(dir.path().join("l.txt"), "0\n").unwrap();
    // The program and its libraries map less than one gigabyte, the file would take three more.
    let output = std::process::Command::new("sh")
        .current_dir(dir.path())
        .args(["-c", "ulimit -v 2500000; exec \"$@\"", "sh"])
        .arg(assert_cmd::cargo::cargo_bin!("pfc-eval"))
        .args(["nn", "--features", "f.npy", "--labels", "l.txt"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("f.npy: cannot map") && said.contains("hint: end other programs"),
        "{said}"
    );
}

#[test]
fn errors_are_reported_by_the_quality_of_the_images_of_a_data_set() {
    let files = LfwLike::new();
    files.model();
    let names: Vec<String> =
        (0..10).flat_map(|p| (1..=2).map(move |i| format!("P{p:02}/P{p:02}_{i:04}.png"))).collect();
    files.pack("packed", &names.iter().map(String::as_str).collect::<Vec<_>>());
    // Rows 2p and 2p + 1 show person p: by turns a pair of one person and one of two.
    let pairs = (0..10).map(|p| format!("{},{},1\n{0},{},0\n", 2 * p, 2 * p + 1, (2 * p + 3) % 20));
    std::fs::write(files.path("pairs.txt"), pairs.collect::<String>()).unwrap();
    let args = ["pairs", "--data", "packed", "--pairs", "pairs.txt", "--model", "run.ckpt"];
    let run = |more: &[&str]| {
        let mut command = pfc_eval(files.dir.path());
        command.args(args).args(["--bootstrap", "0"]).args(more);
        command
    };
    let error = stderr_of_failure(&mut run(&["--quality", "sharpness"]));
    assert!(error.contains("packed: its quality has not been measured"), "{error}");
    let spec =
        QualitySpec { columns: ["sharpness", "yaw"].map(str::to_owned).to_vec(), made_by: vec![] };
    // Of row 5 nothing is known; yaws are 0, -1, 2, -3, ….
    let of_row = |row: u64| match row {
        5 => vec![f32::NAN; 2],
        row => vec![row as f32, row as f32 * if row % 2 == 0 { 1.0 } else { -1.0 }],
    };
    let rows = (0..20).map(|row| Ok::<_, ShardError>(of_row(row)));
    spec.write(&files.path("packed"), 20, rows).unwrap();
    let error = stderr_of_failure(&mut run(&["--quality", "beauty"]));
    assert!(error.contains("has no column `beauty`, but sharpness, yaw"), "{error}");

    let more = ["--quality", "sharpness", "--scores", "scores.csv", "--json"];
    let output = run(&more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = &document["results"][0];
    let threshold = result["figures"]["accuracy"]["threshold"].as_f64().unwrap();
    let scores = std::fs::read_to_string(files.path("scores.csv")).unwrap();
    let distances: Vec<f64> = scores
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(4).unwrap().parse().unwrap())
        .collect();
    // By the lower row; the last pair has rows 18 and 1, and pairs 3 and 4 have row 5.
    let quality = |pair: usize| match pair {
        3 | 4 => None,
        19 => Some(1.0),
        pair => Some(2.0 * (pair / 2) as f64),
    };
    let mut known: Vec<usize> = (0..20).filter(|pair| quality(*pair).is_some()).collect();
    known.sort_by(|a, b| quality(*a).partial_cmp(&quality(*b)).unwrap());
    let bins = result["quality"]["bins"].as_array().unwrap();
    assert_eq!((bins.len(), &result["quality"]["column"]), (6, &"sharpness".into()));
    for (i, bin) in bins.iter().enumerate() {
        let pairs = if i < 5 { known[18 * i / 5..18 * (i + 1) / 5].to_vec() } else { vec![3, 4] };
        let n_wrong = pairs
            .iter()
            .filter(|pair| (distances[**pair] < threshold) != (**pair % 2 == 0))
            .count();
        let n = |key: &str| bin[key].as_u64().unwrap() as usize;
        assert_eq!(n("n_genuine") + n("n_impostor"), pairs.len(), "bin {i}");
        assert_eq!(n("n_rejected") + n("n_accepted"), n_wrong, "bin {i}");
        let ends = [pairs[0], pairs[pairs.len() - 1]].map(quality);
        let expected = ends[0].map(|low| serde_json::json!([low, ends[1].unwrap()]));
        assert_eq!(bin["quality"], expected.unwrap_or_default(), "bin {i}");
    }
    // Of angles the larger one counts, whatever its sign.
    let output = run(&["--quality", "yaw"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("genuine rejected") && table.contains("not known"), "{table}");
    assert!(table.contains("19.0000"), "{table}");
    // Faces in a folder have not been measured.
    let args = ["lfw", "--data", "faces", "--pairs", "pairs.txt", "--model", "run.ckpt"];
    std::fs::write(files.path("pairs.txt"), "P00/P00_0001.png P00/P00_0002.png 1\n").unwrap();
    let mut command = pfc_eval(files.dir.path());
    let error = stderr_of_failure(command.args(args).args(["--quality", "yaw"]));
    assert!(error.contains("its images are no rows of a packed data set"), "{error}");
}
