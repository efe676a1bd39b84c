//! Checkpoint folders: whole or absent, and never read as what they are not.

use std::{fs, path::Path};

use pfc_model::{
    Backbone, BackboneSpec, Embed, Embedder, ModelError,
    checkpoint::{self, Checkpoint, DataIdentity, Progress, Writer},
};
use tch::{Device, Tensor};

fn spec() -> BackboneSpec {
    BackboneSpec { network: "mbf".parse().expect("a network"), embedding: 32 }
}

fn progress() -> Progress {
    let data = DataIdentity {
        n_images: 1000,
        n_identities: 10,
        checksum: "0123".to_owned(),
        decisions: None,
        weights: None,
    };
    Progress {
        step: 70,
        epoch: 3,
        epoch_position: 128,
        world_size: 2,
        data,
        trainer: serde_json::json!({"lr": 0.1}),
    }
}

fn save(path: &Path, backbone: &Backbone) {
    let mut writer = Writer::create(path).expect("a writer");
    writer.backbone(backbone).expect("written");
    let momentum = Tensor::from_slice(&[1.5f32, -2.0]);
    writer.tensors("optimizer.safetensors", &[("conv1.weight", momentum)]).expect("written");
    writer.finish(spec(), Some(progress())).expect("finished");
}

fn backbone(seed: u64) -> Backbone {
    // Waiting for a second thread takes longer than this network on a busy machine.
    tch::set_num_threads(1);
    Backbone::new(&spec(), Device::Cpu, seed).expect("a network")
}

#[track_caller]
fn check_error<T: std::fmt::Debug>(result: Result<T, ModelError>, expected: &str) -> ModelError {
    let error = result.expect_err("refused");
    assert!(error.to_string().contains(expected), "{error}");
    error
}

#[test]
fn a_checkpoint_comes_back_as_it_went() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("step-70.ckpt");
    let saved = backbone(5);
    save(&path, &saved);
    let checkpoint = Checkpoint::open(&path).expect("opened");
    checkpoint.verify().expect("whole");
    assert_eq!(checkpoint.manifest().backbone, spec());
    assert_eq!(checkpoint.manifest().progress, Some(progress()));
    let names: Vec<_> = checkpoint.manifest().files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["backbone.safetensors", "optimizer.safetensors"]);
    let back = checkpoint::open_backbone(&path, Device::Cpu).expect("opened");
    for ((key, found), (_, expected)) in back.state_dict().iter().zip(saved.state_dict()) {
        assert_eq!(found, &expected, "{key}");
    }
    let optimizer = checkpoint.tensors("optimizer.safetensors").expect("read");
    assert_eq!(optimizer[0].1, Tensor::from_slice(&[1.5f32, -2.0]));
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let read = |name: &str| {
        let path = dir.path().join(name);
        save(&path, &backbone(5));
        let mut files: Vec<_> = fs::read_dir(&path)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .map(|file| (file.file_name().map(ToOwned::to_owned), fs::read(&file).expect("read")))
            .collect();
        files.sort();
        files
    };
    assert_eq!(read("a.ckpt"), read("b.ckpt"));
}

#[test]
fn an_unfinished_checkpoint_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::create(&dir.path().join("a.ckpt")).expect("a writer");
    writer.backbone(&backbone(0)).expect("written");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
}

#[test]
fn an_existing_checkpoint_is_not_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    save(&path, &backbone(1));
    let before = fs::read(path.join("manifest.json")).expect("read");
    check_error(Writer::create(&path).map(drop), "already exists and is not empty");
    assert_eq!(fs::read(path.join("manifest.json")).expect("read"), before);
}

#[test]
fn a_name_without_ckpt_is_refused() {
    check_error(Writer::create(Path::new("/tmp/model")), "does not end in `.ckpt`");
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = |name: &str| Checkpoint::open(&dir.path().join(name));
    let error = check_error(open("absent.ckpt"), "there is no such folder");
    assert!(error.hint().expect("a hint").contains(".ckpt"));
    fs::create_dir(dir.path().join("empty.ckpt")).expect("made");
    check_error(open("empty.ckpt"), "it has no `manifest.json`");
    fs::write(dir.path().join("file.ckpt"), "x").expect("written");
    check_error(open("file.ckpt"), "it is a file");
}

#[test]
fn a_flipped_bit_or_a_cut_is_found_and_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    save(&path, &backbone(1));
    let file = path.join("backbone.safetensors");
    let mut bytes = fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).expect("written");
    let error = check_error(
        checkpoint::open_backbone(&path, Device::Cpu),
        "backbone.safetensors: checksum is",
    );
    assert!(error.hint().expect("a hint").contains("earlier checkpoint"));
    fs::write(&file, &bytes[..middle]).expect("written");
    check_error(Checkpoint::open(&path), "backbone.safetensors: size is");
    fs::remove_file(&file).expect("removed");
    check_error(Checkpoint::open(&path), "backbone.safetensors: cannot open");
}

/// Changes a manifest and leaves it without a checksum, as earlier versions wrote it.
fn rewrite(path: &Path, change: impl Fn(&mut serde_json::Value)) {
    let manifest = path.join("manifest.json");
    let text = fs::read(&manifest).expect("read");
    let mut value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    value.as_object_mut().expect("an object").remove("checksum");
    change(&mut value);
    fs::write(&manifest, value.to_string()).expect("written");
}

#[test]
fn a_manifest_of_another_format_or_with_foreign_paths_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    save(&path, &backbone(1));
    rewrite(&path, |manifest| manifest["files"][0]["name"] = "../b".into());
    check_error(Checkpoint::open(&path), "its manifest lists `../b`");
    rewrite(&path, |manifest| manifest["files"] = serde_json::json!([]));
    check_error(
        checkpoint::open_backbone(&path, Device::Cpu),
        "its manifest lists no `backbone.safetensors`",
    );
    rewrite(&path, |manifest| manifest["format"] = 2.into());
    let error = check_error(Checkpoint::open(&path), "format 2, but this program reads format 1");
    assert!(error.hint().expect("a hint").contains("update"));
    fs::write(path.join("manifest.json"), "{\"format\": 1").expect("written");
    check_error(Checkpoint::open(&path), "not a readable manifest");
}

#[test]
fn any_changed_byte_of_a_manifest_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    save(&path, &backbone(1));
    let manifest = path.join("manifest.json");
    let whole = fs::read(&manifest).expect("read");
    for at in 0..whole.len() {
        for flip in [1, 2, 0x10] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&manifest, bytes).expect("written");
            let error = Checkpoint::open(&path).expect_err("a changed byte was not found");
            let is_newer = matches!(error, ModelError::Format { .. });
            assert!(error.is_damage() || is_newer, "byte {at} ^ {flip}: {error:?}");
        }
    }
    fs::write(&manifest, whole).expect("written");
    Checkpoint::open(&path).expect("whole again");
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_once_so_that_files_of_two_checkpoints_do_not_mix() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("last.ckpt");
    for name in ["1.ckpt", "2.ckpt"] {
        save(&dir.path().join(name), &backbone(if name == "1.ckpt" { 1 } else { 2 }));
    }
    std::os::unix::fs::symlink("1.ckpt", &link).expect("a link");
    let checkpoint = Checkpoint::open(&link).expect("opened");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink("2.ckpt", &link).expect("a link");
    // Its files have other checksums than those of the manifest that was read.
    checkpoint.backbone(Device::Cpu).expect("the first one's weights");
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    for value in [f64::NAN, f64::INFINITY] {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.ckpt");
        let backbone = backbone(1);
        let (key, tensor) = backbone.state_dict().swap_remove(0);
        tch::no_grad(|| drop(tensor.view(-1).get(0).fill_(value)));
        save(&path, &backbone);
        let expected = format!("tensor `{key}` has 1 of ");
        check_error(checkpoint::open_backbone(&path, Device::Cpu), &expected);
        check_error(Embedder::open(&path, Device::Cpu), &expected);
        let weights = dir.path().join("a.safetensors");
        pfc_model::export::safetensors(&weights, &backbone, false).expect("written");
        check_error(
            pfc_model::weights::open(
                &weights,
                Device::Cpu,
                pfc_model::weights::OpenOptions::default(),
            ),
            &expected,
        );
        let pth = dir.path().join("a.pth");
        pfc_model::export::pth(&pth, &backbone, false).expect("written");
        check_error(
            pfc_model::weights::open(&pth, Device::Cpu, pfc_model::weights::OpenOptions::default()),
            &expected,
        );
    }
}

#[test]
fn a_weight_of_f64_that_no_f32_can_hold_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.safetensors");
    let mut state = backbone(1).state_dict();
    let (key, tensor) = &mut state[0];
    *tensor = tensor.to_kind(tch::Kind::Double);
    let open = || {
        let options = pfc_model::weights::OpenOptions::default();
        pfc_model::weights::open(&path, Device::Cpu, options)
    };
    let (key, tensor) = (key.clone(), tensor.shallow_clone());
    pfc_model::tensors::write(&path, &state).expect("written");
    open().expect("numbers that f32 has");
    tch::no_grad(|| drop(tensor.view(-1).get(0).fill_(1e300)));
    pfc_model::tensors::write(&path, &state).expect("written");
    check_error(open(), &format!("tensor `{key}` has 1 of "));
}

#[test]
fn a_variance_below_zero_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    let backbone = backbone(1);
    let mut state = backbone.state_dict();
    state.retain(|(key, _)| key.ends_with("running_var"));
    let (key, tensor) = state.swap_remove(0);
    tch::no_grad(|| drop(tensor.view(-1).get(0).fill_(-0.25)));
    save(&path, &backbone);
    let expected = format!("tensor `{key}` holds the variance -0.25, but variances are 0 or more");
    check_error(checkpoint::open_backbone(&path, Device::Cpu), &expected);
    let pth = dir.path().join("a.pth");
    pfc_model::export::pth(&pth, &backbone, false).expect("written");
    let error = check_error(
        pfc_model::weights::open(&pth, Device::Cpu, pfc_model::weights::OpenOptions::default()),
        &expected,
    );
    assert!(error.hint().is_some());
}

#[test]
fn a_torchscript_program_runs_only_if_it_is_trusted() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.pt");
    pfc_model::export::torchscript(&path, &backbone(1).into_inference()).expect("written");
    let error = check_error(Embedder::open(&path, Device::Cpu), "which may do anything");
    assert!(matches!(error, ModelError::UntrustedCode { .. }));
    assert!(error.hint().expect("a hint").contains("--trust-code"));
    let trusted = pfc_model::EmbedderOptions { trust_code: true, ..Default::default() };
    Embedder::open_with(&path, &trusted).expect("trusted");
    check_error(
        pfc_model::weights::open(&path, Device::Cpu, pfc_model::weights::OpenOptions::default()),
        "it is a graph",
    );
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    save(&path, &backbone(1));
    rewrite(&path, |manifest| manifest["backbone"]["embedding"] = 64.into());
    check_error(
        checkpoint::open_backbone(&path, Device::Cpu),
        "tensor `features.layers.2.weight` has shape [32, 512], but the network needs [64, 512]",
    );
}

#[test]
fn an_embedder_opened_from_disk_embeds_like_the_network_in_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.ckpt");
    let backbone = backbone(2);
    save(&path, &backbone);
    let embedder = Embedder::open(&path, Device::Cpu).expect("opened");
    let rgb: Vec<u8> = (0..2 * 112 * 112 * 3u64).map(|i| (i * i / 7) as u8).collect();
    let found = embedder.embed(&rgb, 2).expect("embedded");
    assert_eq!(found.len(), 2 * 32);
    let expected = backbone.embed(&rgb, 2).expect("embedded");
    // Its normalisations are folded, which rounds elsewhere.
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-5, "{difference}");
}
