//! Files of other programs through the readers and the embedder, and ours through theirs.

// Helper functions of a test are tests to us, but not to clippy.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, dead_code)]

mod golden;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use golden::{Case, beside, relative_error};
use pfc_model::{
    Architecture, Backbone, BackboneSpec, Embed, Embedder, EmbedderOptions, ModelError, Network,
    export, tensors, weights,
};
use tch::{Device, Tensor};

/// Every small network: its list, and where that is.
fn cases() -> Vec<(Case, PathBuf)> {
    let Some(folder) = golden::folder() else { return Vec::new() };
    let lists = golden::small_networks(&folder);
    lists.into_iter().map(|list| (Case::open(&list), list)).collect()
}

fn heads(case: &Case) -> Option<i64> {
    match case.small_backbone().architecture() {
        Architecture::Vit { heads, .. } => Some(heads),
        _ => None,
    }
}

/// The tensor `name` of the file beside `list` whose name ends in `ending`.
fn recorded(list: &Path, ending: &str, name: &str) -> Tensor {
    let answers = tensors::read(&beside(list, ending)).unwrap();
    answers.into_iter().find(|(other, _)| other == name).unwrap().1
}

fn has_onnxruntime() -> bool {
    match pfc_onnx::runtime::load() {
        Ok(_) => true,
        Err(error) => {
            pfc_testing::skip(&error.to_string());
            false
        }
    }
}

#[test]
fn golden_files_of_every_format_give_the_recorded_embeddings() {
    for (case, list) in cases() {
        let expected = recorded(&list, ".golden.safetensors", "eval.output");
        let options =
            EmbedderOptions { heads: heads(&case), trust_code: true, ..EmbedderOptions::default() };
        for ending in [".pth", ".legacy.pth", ".safetensors", ".torchscript.pt"] {
            let path = beside(&list, ending);
            if !pfc_testing::has_file(&path) {
                continue;
            }
            let embedder = Embedder::open_with(&path, &options).unwrap();
            let found = embedder.forward(&golden::input_of(&expected)).unwrap();
            let error = relative_error(&found, &expected);
            assert!(error < 1e-5, "{}: {error}", path.display());
        }
    }
}

#[test]
fn golden_onnx_gives_its_recorded_output_through_the_embedder() {
    if !has_onnxruntime() {
        return;
    }
    for (_, list) in cases() {
        let path = beside(&list, ".onnx");
        if !pfc_testing::has_file(&path)
            || !pfc_testing::is_known(&path.with_extension("onnx.golden.safetensors"))
        {
            continue;
        }
        let expected = recorded(&list, ".onnx.golden.safetensors", "output");
        let embedder = Embedder::open(&path, Device::Cpu).unwrap();
        let found = embedder.forward(&golden::input_of(&expected)).unwrap();
        let error = relative_error(&found, &expected);
        assert!(error < 1e-5, "{}: {error}", path.display());
    }
}

#[test]
fn golden_networks_exported_and_read_again_embed_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for (case, list) in cases() {
        let expected = recorded(&list, ".golden.safetensors", "eval.output");
        let backbone = || {
            let backbone = case.small_backbone();
            backbone.load_state_dict("the formula", &case.weights(case.seed())).unwrap();
            backbone
        };
        let options =
            EmbedderOptions { heads: heads(&case), trust_code: true, ..EmbedderOptions::default() };
        let check = |name: &str, tolerance: f64| {
            let embedder = Embedder::open_with(&dir.path().join(name), &options).unwrap();
            let found = embedder.forward(&golden::input_of(&expected)).unwrap();
            let error = relative_error(&found, &expected);
            assert!(error < tolerance, "{} as {name}: {error}", case.text("net"));
        };
        let path = |name: &str| dir.path().join(name);
        export::pth(&path("a.pth"), &backbone(), false).unwrap();
        check("a.pth", 1e-5);
        export::safetensors(&path("a.safetensors"), &backbone(), false).unwrap();
        check("a.safetensors", 1e-5);
        export::torchscript(&path("a.pt"), &backbone().into_inference()).unwrap();
        check("a.pt", 1e-5);
        if has_onnxruntime() {
            let write = |name: &str, half| {
                let options = export::OnnxOptions { half, ..export::OnnxOptions::default() };
                export::onnx(&path(name), &backbone().into_inference(), options).unwrap();
            };
            write("a.onnx", false);
            check("a.onnx", 1e-5);
            write("half.onnx", true);
            // Eleven bits of mantissa through some fifty layers.
            check("half.onnx", 2e-2);
        }
    }
}

#[test]
fn golden_preprocessing_within_the_graph_gives_the_same_embeddings_of_pixels() {
    if !has_onnxruntime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let faces: Vec<u8> = (0..3 * 112 * 112 * 3u64).map(|i| (i * i / 7 % 251) as u8).collect();
    for (case, _) in cases() {
        let backbone = case.small_backbone();
        backbone.load_state_dict("the formula", &case.weights(case.seed())).unwrap();
        let expected = backbone.embed(&faces, 3).unwrap();
        let inference = backbone.into_inference();
        let path = dir.path().join("a.onnx");
        for embed_preprocessing in [false, true] {
            let options = export::OnnxOptions { embed_preprocessing, ..Default::default() };
            export::onnx(&path, &inference, options).unwrap();
            let embedder = Embedder::open(&path, Device::Cpu).unwrap();
            let mean = if embed_preprocessing { 0.0 } else { 127.5 };
            assert_eq!(embedder.input().mean, [mean; 3]);
            let found = embedder.embed(&faces, 3).unwrap();
            let (found, expected) = (Tensor::from_slice(&found), Tensor::from_slice(&expected));
            let error = relative_error(&found, &expected);
            assert!(error < 1e-5, "{}: {error}", case.text("net"));
        }
    }
}

#[test]
fn golden_checkpoints_exported_to_onnx_keep_their_embeddings_within_1e_5() {
    if !has_onnxruntime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let faces: Vec<u8> = (0..3 * 112 * 112 * 3u64).map(|i| (i * i / 7 % 251) as u8).collect();
    let spec = BackboneSpec { network: "mbf".parse().unwrap(), embedding: 64 };
    let backbone = Backbone::new(&spec, Device::Cpu, 2).unwrap();
    let expected = backbone.embed(&faces, 3).unwrap();
    let path = dir.path().join("a.onnx");
    export::onnx(&path, &backbone.into_inference(), export::OnnxOptions::default()).unwrap();
    let found = Embedder::open(&path, Device::Cpu).unwrap().embed(&faces, 3).unwrap();
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-5, "{difference}");
}

/// A copy of a zip archive, in which `change` gets the bytes of each member.
fn changed_archive(path: &Path, mut change: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        change(&mut bytes);
        let options = zip::write::FileOptions::default();
        let options = options.compression_method(zip::CompressionMethod::Stored);
        writer.start_file(member.name(), options).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Opens a copy of a TorchScript archive in which the storage that holds `numbers` begins with `first`.
fn open_changed(path: &Path, numbers: &[f32], first: f32) -> Result<(), ModelError> {
    let dir = tempfile::tempdir().unwrap();
    let weights: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut n_found = 0;
    let bytes = changed_archive(path, |bytes| {
        if *bytes == weights {
            bytes[..4].copy_from_slice(&first.to_le_bytes());
            n_found += 1;
        }
    });
    assert_eq!(n_found, 1, "{}", path.display());
    let changed = dir.path().join("a.pt");
    std::fs::write(&changed, bytes).unwrap();
    let options = EmbedderOptions { trust_code: true, ..EmbedderOptions::default() };
    Embedder::open_with(&changed, &options).map(drop)
}

#[test]
fn golden_torchscript_with_a_parameter_or_a_buffer_that_is_no_number_is_refused_by_name() {
    for (case, list) in cases() {
        let path = beside(&list, ".torchscript.pt");
        if !pfc_testing::has_file(&path) {
            continue;
        }
        let weights = case.weights(case.seed());
        let named = |ending: &str| weights.iter().find(|(key, _)| key.ends_with(ending)).unwrap();
        for (key, tensor) in [&weights[0], named("running_mean")] {
            let numbers = Vec::<f32>::try_from(tensor.reshape([-1])).unwrap();
            open_changed(&path, &numbers, numbers[0]).unwrap();
            let error = open_changed(&path, &numbers, f32::NAN).unwrap_err().to_string();
            let expected = format!("tensor `{key}` has 1 of {} numbers that", numbers.len());
            assert!(error.contains(&expected), "{error}");
        }
    }
}

#[test]
fn a_trace_with_a_constant_that_is_no_number_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    let spec = BackboneSpec { network: "mbf".parse().unwrap(), embedding: 32 };
    let inference = Backbone::new(&spec, Device::Cpu, 2).unwrap().into_inference();
    export::torchscript(&path, &inference).unwrap();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).unwrap();
        if member.name().contains("/constants/") && member.size() > bytes.len() as u64 {
            bytes.clear();
            member.read_to_end(&mut bytes).unwrap();
        }
    }
    let numbers: Vec<f32> =
        bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    open_changed(&path, &numbers, numbers[0]).unwrap();
    let error = open_changed(&path, &numbers, f32::NAN).unwrap_err().to_string();
    let expected = format!("has 1 of {} numbers that are not finite", numbers.len());
    assert!(error.contains("tensor `constants.") && error.ends_with(&expected), "{error}");
}

/// Parameters in millions and multiply-accumulates in billions, as `arcface_torch` and the papers
/// on these networks publish them.
#[test]
fn counts_equal_the_published_ones() {
    let published = [
        ("r18", 24.03, 2.61),
        ("r34", 34.14, 4.46),
        ("r50", 43.59, 6.31),
        ("r100", 65.16, 12.09),
        ("r200", 118.83, 23.42),
        ("mbf", 2.06, 0.44),
        ("mbf_large", 6.31, 1.82),
        ("vit_t", 19.1, 1.50),
        ("vit_s", 76.0, 5.75),
        ("vit_b", 113.8, 11.44),
        ("vit_l_dp005_mask_005", 255.7, 25.34),
    ];
    for (name, parameters, macs) in published {
        let network: Network = name.parse().unwrap();
        let backbone = Backbone::shapes(&BackboneSpec { network, embedding: 512 }).unwrap();
        let (n_parameters, n_macs) =
            (backbone.n_parameters() as f64 / 1e6, backbone.n_macs() as f64 / 1e9);
        eprintln!("{name}: {n_parameters:.4} M, {n_macs:.4} GMACs");
        let digit = if name.starts_with("vit") { 0.05 } else { 0.005 };
        assert!((n_parameters - parameters).abs() <= digit, "{name}: {n_parameters}");
        assert!((n_macs - macs).abs() <= 0.005, "{name}: {n_macs}");
    }
}

#[test]
fn weights_of_a_graph_are_not_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.onnx");
    std::fs::write(&path, b"\x08\x07").unwrap();
    let error = weights::open(&path, Device::Cpu, weights::OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("weights are wanted"), "{error}");
}
