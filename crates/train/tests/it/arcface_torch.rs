//! A run that is handed over to `arcface_torch`. What PyTorch makes of it, `scripts/test-pytorch` says.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
    process::Command,
};

use crate::support::run::{Setup, as_strs, checkpoint, finish, program, refused, sets};
use pfc_model::{bytes, centres::CentreFiles, checkpoint::Checkpoint, tensors};
use pfc_torchfile::{StateFile, TensorInfo};
use tch::Tensor;
use zip::ZipArchive;

/// 18 images make 4 batches of 4 an epoch, 12 steps in all, saved after every third.
fn setup() -> Setup {
    Setup::new(3)
}

fn export(model: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("export").arg(model).args(["--to", "arcface-torch", "--out"]).arg(out).args(more);
    command
}

/// The bytes of tensor `i` in the order of the file.
fn tensor_bytes(path: &Path, i: usize) -> Vec<u8> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("archive/data/{i}")).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    bytes::with_bytes(tensor, <[u8]>::to_vec)
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[test]
fn network_centres_and_momenta_come_back_bit_for_bit_from_the_checkpoints_of_all_ranks() {
    let setup = setup();
    for (place, of_place) in [("memory", Vec::new()), ("files", sets(&[&in_files(&setup)]))] {
        let run = setup.out(place);
        setup.finish(&run, &as_strs(&of_place));
        let saved = Checkpoint::open(&run.join("last.ckpt")).unwrap();
        let out = setup.out(&format!("of-{place}"));
        // Six centres on four ranks: 2, 2, 1 and 1.
        finish(export(&run.join("last.ckpt"), &out, &["--ranks", "4"]));
        let file = |rank: usize| out.join(format!("checkpoint_gpu_{rank}.pt"));
        assert!(!file(4).exists());

        let network = saved.tensors("backbone.safetensors").unwrap();
        for rank in 0..4 {
            let mut torch =
                StateFile::parse(BufReader::new(File::open(file(rank)).unwrap())).unwrap();
            let infos = torch.tensors().to_vec();
            let of_network = |i: usize| infos[i].key.strip_prefix("state_dict_backbone.");
            let found: Vec<(usize, &str)> =
                (0..infos.len()).filter_map(|i| Some((i, of_network(i)?))).collect();
            assert_eq!(found.len(), network.len());
            for (i, key) in found {
                let mut found = vec![0; infos[i].n_bytes()];
                torch.read(i, &mut found).unwrap();
                let (_, expected) = network.iter().find(|(name, _)| name == key).unwrap();
                assert_eq!(found, bytes_of(expected), "{key} of rank {rank}");
            }
        }

        let matrix = setup.out(&format!("{place}.safetensors"));
        let mut whole = Command::new(program());
        whole.arg("export").arg(run.join("last.ckpt")).args(["--centres", "--to", "safetensors"]);
        whole.arg("--out").arg(&matrix);
        finish(whole);
        let all = |path: &Path| CentreFiles::open(path).unwrap().read(0..6).unwrap();
        assert_eq!(all(&out), all(&matrix), "{place}");

        // The momenta: of each parameter that learns, in the order of PyTorch's `parameters()`, which is
        // that of the state dict. `features.weight` is frozen, as in the reference.
        let momenta = saved.tensors("optimizer.safetensors").unwrap();
        let torch = StateFile::parse(BufReader::new(File::open(file(0)).unwrap())).unwrap();
        let key =
            |info: &TensorInfo| info.key.strip_prefix("state_dict_backbone.").map(str::to_owned);
        let keys: Vec<String> = torch.tensors().iter().filter_map(key).collect();
        let is_statistic = |key: &str| key.contains("running_") || key.contains("num_batches");
        let learning: Vec<&String> =
            keys.iter().filter(|key| !is_statistic(key) && *key != "features.weight").collect();
        assert_eq!(learning.len(), momenta.len());
        for (i, key) in learning.iter().enumerate() {
            let (_, expected) = momenta.iter().find(|(name, _)| name == *key).unwrap();
            // After the network and the centres.
            let found = tensor_bytes(&file(3), keys.len() + 1 + i);
            assert_eq!(found, bytes_of(expected), "{key}");
        }
        // Those of the centres of all ranks, as the head has them.
        let last = keys.len() + 1 + learning.len();
        let of_ranks: Vec<u8> = (0..4).flat_map(|rank| tensor_bytes(&file(rank), last)).collect();
        if place == "memory" {
            let rows = saved.tensors("centres.safetensors").unwrap();
            let named = |name: &str| &rows.iter().find(|(found, _)| found == name).unwrap().1;
            // A scheduled save has caught all up: each row is as it is.
            assert_eq!(named("centres.class").numel(), 6);
            assert_eq!(of_ranks, bytes_of(named("centres.momentum")));
        }
        assert!(numbers(&of_ranks).iter().any(|momentum| momentum.abs() > 0.0));
    }
}

fn in_files(setup: &Setup) -> String {
    format!("head.centres={{ file = \"{}\" }}", setup.out("kept").display())
}

#[test]
fn a_run_begins_with_network_and_centres_of_an_exported_checkpoint() {
    let setup = setup();
    let [run, out, again] = ["run", "out", "again"].map(|name| setup.out(name));
    setup.finish(&run, &[]);
    finish(export(&run.join("last.ckpt"), &out, &["--ranks", "2"]));
    let init = [
        &format!("init.model={}", out.join("checkpoint_gpu_0.pt").display()),
        &format!("init.centres={}", out.display()),
    ];
    // Nothing moves anything from where it begins.
    let still = ["train.steps=2", "head.weight_decay=0", "optim.lr=1e-30", "optim.momentum=0"];
    let all = [init.map(String::as_str).as_slice(), &still, &["optim.warmup_epochs=0"]].concat();
    let said = setup.finish(&again, &as_strs(&sets(&all)));
    assert!(said.contains("6 of 6 centres of the first rank"), "{said}");
    let weights = |run: &Path| -> Vec<(String, Vec<u8>)> {
        let path = run.join("last.ckpt/backbone.safetensors");
        let all = tensors::read(&path).unwrap().into_iter();
        // Running statistics move with every batch.
        let kept = all.filter(|(key, _)| !key.contains("running_") && !key.contains("num_batches"));
        kept.map(|(key, tensor)| (key, bytes_of(&tensor))).collect()
    };
    assert_eq!(weights(&again), weights(&run));
}

#[test]
fn what_arcface_torch_would_do_otherwise_is_said() {
    let setup = setup();
    let run = setup.out("run");
    let own = sets(&[
        "optim.optimizer=adamw",
        "optim.lr=0.001",
        "optim.schedule=cosine",
        "optim.decay_all=false",
        "checkpoint.keep=10",
    ]);
    setup.finish(&run, &as_strs(&own));
    let said = finish(export(&checkpoint(&run, 6), &setup.out("middle"), &[]));
    assert!(said.contains("image 8 of epoch 1: arcface_torch begins that epoch anew"), "{said}");
    assert!(said.contains("whatever `optim.schedule` is"), "{said}");
    assert!(said.contains("weight decay takes biases and normalisation too"), "{said}");
    assert!(said.contains("theirs begins without a state"), "{said}");

    let silent = setup.out("silent");
    setup.finish(&silent, &[]);
    let said = finish(export(&silent.join("last.ckpt"), &setup.out("end"), &[]));
    assert!(!said.contains("warning") && !said.contains("WARN"), "{said}");
}

#[test]
fn runs_that_partial_fc_v2_cannot_hold_are_refused() {
    let setup = setup();
    let run = setup.out("run");
    let margin = "head.margin={ loss = \"subcentre_arcface\", m = 0.3, k = 2 }";
    setup.finish(&run, &as_strs(&sets(&[margin, "train.steps=2", "optim.warmup_epochs=0"])));
    let said = refused(export(&run.join("last.ckpt"), &setup.out("out"), &[]));
    assert!(said.contains("has 2 centres, but one of PartialFC_V2 has 1"), "{said}");
    assert!(said.contains("hint: write the network with --to pth"), "{said}");
    assert!(!setup.out("out").exists());

    let said = refused(export(&run.join("last.ckpt/backbone.safetensors"), &setup.out("out"), &[]));
    assert!(said.contains("backbone.safetensors"), "{said}");
}
