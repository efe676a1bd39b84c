//! State dicts that PyTorch wrote, in both formats: every tensor, byte for byte.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::{fs::File, path::Path};

use pfc_testing::golden_cases;
use pfc_torchfile::{Dtype, StateFile, is_torchscript};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn cases(ending: &str) -> Vec<std::path::PathBuf> {
    golden_cases("backbones", |path| path.to_string_lossy().ends_with(ending))
}

fn check(file: &Path, list: &Value) {
    let mut file = StateFile::parse(File::open(file).unwrap()).unwrap();
    let rows = list["tensors"].as_array().unwrap();
    assert_eq!(file.tensors().len(), rows.len());
    for (i, row) in rows.iter().enumerate() {
        let info = file.tensors()[i].clone();
        assert_eq!(info.key, row[0]);
        assert_eq!(serde_json::json!(info.shape), row[1], "{}", info.key);
        let dtype = if row[2] == "int64" { Dtype::I64 } else { Dtype::F32 };
        assert_eq!(info.dtype, dtype, "{}", info.key);
        let mut bytes = vec![0; info.n_bytes()];
        file.read(i, &mut bytes).unwrap();
        let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(sum, row[5], "{}", info.key);
    }
}

#[test]
fn golden_state_dicts_of_both_formats_hold_the_recorded_bytes() {
    let mut n_files = 0;
    for list in cases(".tensors.json") {
        let stem = list.to_str().unwrap().strip_suffix(".tensors.json").unwrap().to_owned();
        let list: Value = serde_json::from_slice(&std::fs::read(&list).unwrap()).unwrap();
        for ending in [".pth", ".legacy.pth"] {
            let file = format!("{stem}{ending}");
            if pfc_testing::has_file(Path::new(&file)) {
                check(Path::new(&file), &list);
                n_files += 1;
            }
        }
    }
    assert!(n_files > 0 || pfc_testing::golden("backbones").is_none());
}

#[test]
fn golden_torchscript_is_told_from_weights() {
    for path in cases(".torchscript.pt") {
        assert!(is_torchscript(File::open(&path).unwrap()));
        let error = StateFile::parse(File::open(&path).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "a TorchScript program, not a state dict");
    }
    for path in cases(".pth") {
        assert!(!is_torchscript(File::open(&path).unwrap()));
    }
}

#[test]
fn golden_torchscript_keeps_its_tensors_under_the_names_of_the_state_dict() {
    let known = |file: &StateFile<File>| {
        let mut tensors: Vec<(String, Vec<u64>)> =
            file.tensors().iter().map(|info| (info.key.clone(), info.shape.clone())).collect();
        tensors.sort();
        tensors
    };
    for path in cases(".torchscript.pt") {
        let program = StateFile::parse_script(File::open(&path).unwrap()).unwrap();
        let list = path.to_str().unwrap().replace(".torchscript.pt", ".tensors.json");
        let list: Value = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
        let row = |row: &Value| {
            let shape = row[1].as_array().unwrap().iter().map(|side| side.as_u64().unwrap());
            (row[0].as_str().unwrap().to_owned(), shape.collect::<Vec<u64>>())
        };
        let mut expected: Vec<_> = list["tensors"].as_array().unwrap().iter().map(row).collect();
        expected.sort();
        assert_eq!(known(&program), expected, "{}", path.display());
    }
}

#[test]
fn golden_files_that_are_cut_short_are_refused() {
    for path in cases(".pth") {
        let bytes = std::fs::read(&path).unwrap();
        for n in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
            let cut = std::io::Cursor::new(&bytes[..n]);
            assert!(StateFile::parse(cut).is_err(), "{} cut to {n} bytes", path.display());
        }
    }
}
