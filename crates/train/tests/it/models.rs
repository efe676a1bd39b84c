//! `pfc-train model` and `export`.

use std::path::Path;

use assert_cmd::Command;
use pfc_model::{Backbone, BackboneSpec, checkpoint, export, weights};
use tch::Device;

fn pfc_train(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("pfc-train").unwrap();
    command.current_dir(dir).env_remove("PFC_LOG").env("COLUMNS", "120");
    command
}

fn json(command: &mut Command) -> serde_json::Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn checkpoint(dir: &Path) {
    let spec = BackboneSpec { network: "r10_w8".parse().unwrap(), embedding: 32 };
    let backbone = Backbone::new(&spec, Device::Cpu, 1).unwrap();
    let mut writer = checkpoint::Writer::create(&dir.join("m.ckpt")).unwrap();
    writer.backbone(&backbone).unwrap();
    writer.finish(spec, None).unwrap();
}

#[test]
fn r50_costs_what_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let output = pfc_train(dir.path()).args(["model", "r50", "r100"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["43.59M", "6.31G", "65.16M", "12.09G"] {
        assert!(text.contains(expected), "{text}");
    }
    let rows = json(pfc_train(dir.path()).args(["model", "r50", "--json"]));
    assert_eq!((&rows[0]["parameters"], &rows[0]["tensors"]), (&43_590_848.into(), &475.into()));
}

#[test]
fn an_unknown_network_is_refused_with_the_names() {
    let dir = tempfile::tempdir().unwrap();
    let output = pfc_train(dir.path()).args(["model", "iresnet50"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_format_embeds_as_the_checkpoint_does() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    for (to, file, bound) in [
        ("pth", "m.pth", 1e-5),
        ("safetensors", "m.safetensors", 1e-5),
        ("torchscript", "m.torchscript.pt", 1e-5),
        ("onnx", "m.onnx", 1e-5),
    ] {
        let args = ["export", "m.ckpt", "--to", to, "--json"];
        let report = json(pfc_train(dir.path()).args(args));
        assert_eq!(report["file"], file);
        match report["max_difference"].as_f64() {
            Some(difference) => assert!(difference < bound, "{to}: {difference}"),
            None => pfc_testing::skip(&format!("{to} was not checked")),
        }
    }
    let args = [
        "export",
        "m.ckpt",
        "--to",
        "onnx",
        "--fp16",
        "--embed-preprocessing",
        "--json",
        "--force",
    ];
    let report = json(pfc_train(dir.path()).args(args));
    if let Some(cosine) = report["min_cosine"].as_f64() {
        assert!(cosine > 0.999, "{cosine}");
    }
}

#[test]
fn weights_of_others_become_a_checkpoint_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let original =
        weights::open(&dir.path().join("m.ckpt"), Device::Cpu, weights::OpenOptions::default())
            .unwrap();
    export::pth(&dir.path().join("model.pt"), &original.backbone, false).unwrap();
    let args = ["export", "model.pt", "--to", "ckpt", "--out", "back.ckpt"];
    pfc_train(dir.path()).args(args).assert().success();
    let back =
        weights::open(&dir.path().join("back.ckpt"), Device::Cpu, weights::OpenOptions::default())
            .unwrap();
    assert_eq!(back.network, original.network);
    let state = back.backbone.state_dict();
    for ((key, found), (_, expected)) in state.iter().zip(original.backbone.state_dict()) {
        assert_eq!(found, &expected, "{key}");
    }
}

/// libtorch ends the process where it cannot write a file to its end.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_is_an_error_in_every_format_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    for to in ["pth", "safetensors", "torchscript", "onnx", "ckpt"] {
        let mut command = std::process::Command::new("sh");
        // The signal that comes with the error would end the process.
        command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]);
        command.arg(assert_cmd::cargo::cargo_bin!("pfc-train")).current_dir(dir.path());
        let output = command.args(["export", "m.ckpt", "--to", to, "--out", "x.ckpt"]).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{to}: {said}");
        assert!(said.contains("x.ckpt") && said.contains("File too large"), "{to}: {said}");
        assert!(said.contains("hint: ") && !said.contains("panicked"), "{to}: {said}");
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["m.ckpt"], "{to}: {said}");
    }
}

#[test]
fn options_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let refuse = |args: &[&str]| {
        let output = pfc_train(dir.path()).args(["export", "m.ckpt"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refuse(&["--to", "pth", "--embed-preprocessing"]);
    assert!(error.contains("--embed-preprocessing belongs to --to onnx"), "{error}");
    let error = refuse(&["--to", "torchscript", "--fp16"]);
    assert!(error.contains("hint: leave it out"), "{error}");
    std::fs::write(dir.path().join("m.pth"), "mine").unwrap();
    let error = refuse(&["--to", "pth"]);
    assert!(error.contains("m.pth: already exists") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("m.pth")).unwrap(), b"mine");
}
