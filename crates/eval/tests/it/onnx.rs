//! ONNX files of others, through the program: what is assumed is said, and the kept cases have the outcomes
//! that are expected of them.

use std::{fs, path::Path};

use crate::support::{LfwLike, pfc_eval, stderr_of_failure};
use pfc_model::{Inference, export, weights};
use pfc_onnx::proto::{
    AttributeProto, FunctionProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, attribute_type, data_type,
};
use prost::Message;

/// Whether onnxruntime is there.
fn is_runnable() -> bool {
    match pfc_onnx::runtime::load() {
        Ok(_) => true,
        Err(error) => {
            pfc_testing::skip(&error.to_string());
            false
        }
    }
}

/// A copy of the kept case; none without it or onnxruntime.
fn case(name: &str) -> Option<tempfile::TempDir> {
    let from = pfc_testing::case(name)?;
    if !is_runnable() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    pfc_testing::copy_folder(&from, dir.path());
    Some(dir)
}

/// The numbers that `embed` writes of `faces`, how many there are in a row, and what it says.
#[track_caller]
fn embedded(dir: &Path, model: &str, more: &[&str]) -> (Vec<f32>, usize, String) {
    let args = ["embed", "faces", "out.npy", "--mirror", "none", "--json", "--model", model];
    let run = pfc_eval(dir).args(args).args(more).assert().success();
    let output = run.get_output();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let dim = report["dim"].as_u64().unwrap() as usize;
    let bytes = fs::read(dir.join("out.npy")).unwrap();
    fs::remove_file(dir.join("out.npy")).unwrap();
    let n = report["images"].as_u64().unwrap() as usize * dim;
    let numbers = bytes[bytes.len() - 4 * n..].as_chunks::<4>().0;
    let rows = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (rows, dim, String::from_utf8(output.stderr.clone()).unwrap())
}

fn least_cosine(a: &[f32], b: &[f32], dim: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    assert_eq!(a.len(), b.len());
    let rows = a.chunks_exact(dim).zip(b.chunks_exact(dim));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).fold(1.0, f64::min)
}

#[test]
fn wrapped_weights_give_the_plain_ones_rows_in_the_kept_case() {
    let Some(case) = case("weights-wrapped-open") else { return };
    let (plain, _, said) = embedded(case.path(), "plain.pth", &[]);
    assert_eq!(said, "");
    for (model, place) in [
        ("lightning.pth", "under `state_dict.model.`; passed over: "),
        ("magface.pth", "under `state_dict.features.module.`; passed over: "),
    ] {
        let (rows, _, said) = embedded(case.path(), model, &[]);
        assert_eq!(rows, plain, "{model}");
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn foreign_graphs_that_normalise_by_themselves_give_the_plain_ones_rows_in_the_kept_case() {
    let Some(case) = case("onnx-normalisation-open") else { return };
    let (plain, dim, said) = embedded(case.path(), "plain.onnx", &[]);
    assert!(
        said.starts_with("warning: plain.onnx: input `data` takes 112×112, (x − 127.5) / 127.5")
    );
    assert!(said.contains("nothing in the file says so; --mean and --std state it"), "{said}");
    for model in ["clip.onnx", "shape.onnx", "fp16.onnx"] {
        let (rows, _, said) = embedded(case.path(), model, &[]);
        let cosine = least_cosine(&rows, &plain, dim);
        assert!(cosine >= 0.999, "{model}: {cosine}\n{said}");
        assert!(said.contains("pixels of 0 to 255: the graph normalises them itself"), "{said}");
    }
    let (_, _, said) = embedded(case.path(), "clip.onnx", &["--explain"]);
    assert!(said.contains("before the first layers (AveragePool): Clip, Sub, Div"), "{said}");
    assert!(said.contains("cut off below 0.00 and above 255.00"), "{said}");
    let twice = ["--mean", "127.5", "--std", "127.5"];
    let (_, _, said) = embedded(case.path(), "clip.onnx", &twice);
    assert!(said.contains("warning: clip.onnx: ") && said.contains("normalised twice"), "{said}");
}

#[test]
fn a_model_in_two_files_is_read_or_its_second_file_asked_for_in_the_kept_case() {
    let Some(case) = case("onnx-external-data") else { return };
    let (rows, dim, _) = embedded(case.path(), "net.onnx", &[]);
    let (whole, _, _) = embedded(case.path(), "net_one_file.onnx", &[]);
    assert!(least_cosine(&rows, &whole, dim) > 0.999_99);
    fs::rename(case.path().join("net.onnx.data"), case.path().join("elsewhere")).unwrap();
    let args = ["embed", "faces", "out.npy", "--model", "net.onnx"];
    let error = stderr_of_failure(pfc_eval(case.path()).args(args));
    assert!(error.contains("lies in the file `net.onnx.data`"), "{error}");
    assert!(error.contains("\nhint: ") && error.contains("beside `net.onnx`"), "{error}");
}

#[test]
fn the_output_called_embedding_is_taken_in_the_kept_case_and_any_other_on_request() {
    let Some(case) = case("onnx-two-outputs-open") else { return };
    let (_, dim, said) = embedded(case.path(), "landmarks_first.onnx", &[]);
    assert_eq!(dim, 147);
    assert!(said.contains("output `embedding` of 147 numbers (by its name among"), "{said}");
    let (_, dim, _) = embedded(case.path(), "landmarks_first.onnx", &["--output", "landmarks"]);
    assert_eq!(dim, 10);
    let args = ["embed", "faces", "o.npy", "--model", "landmarks_first.onnx", "--output", "x"];
    let error = stderr_of_failure(pfc_eval(case.path()).args(args));
    assert!(error.contains("there is no output `x` among"), "{error}");
    assert!(error.contains("\nhint: name the embedding among them with --output NAME"), "{error}");
}

#[test]
fn a_network_with_keypoints_embeds_in_the_kept_case() {
    let Some(case) = case("onnx-keypoints-input") else { return };
    let (rows, dim, said) = embedded(case.path(), "kprpe.onnx", &[]);
    assert!(!rows.is_empty() && dim > 1, "{dim}");
    assert!(said.contains("input `keypoints` gets the places"), "{said}");
}

/// A model of ours whose embeddings a function shifts by the sum of bytes that lie at `location`, as
/// `rel-onnx-function/make.py` makes it.
fn with_function(set: &LfwLike, location: &str) -> Vec<u8> {
    if !set.path("run.ckpt").exists() {
        set.model();
    }
    let backbone =
        weights::open(&set.path("run.ckpt"), tch::Device::Cpu, weights::OpenOptions::default())
            .unwrap()
            .backbone;
    let options = export::OnnxOptions::default();
    export::onnx(&set.path("m.onnx"), &Inference::from(backbone), options).unwrap();
    let mut model = ModelProto::decode(&fs::read(set.path("m.onnx")).unwrap()[..]).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let tensor = TensorProto {
        name: "v".to_owned(),
        data_type: data_type::UINT8,
        dims: vec![16],
        data_location: 1,
        external_data: vec![
            entry("location", location),
            entry("offset", "0"),
            entry("length", "16"),
        ],
        ..TensorProto::default()
    };
    let attribute = |name: &str| AttributeProto { name: name.into(), ..AttributeProto::default() };
    let int = |name: &str, value: i64| AttributeProto {
        i: Some(value),
        kind: attribute_type::INT,
        ..attribute(name)
    };
    let value =
        AttributeProto { t: Some(tensor), kind: attribute_type::TENSOR, ..attribute("value") };
    let node = |op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: op.to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let function = FunctionProto {
        name: "Leak".to_owned(),
        domain: "local".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![
            node("Constant", &[], "c", vec![value]),
            node("Cast", &["c"], "f", vec![int("to", 1)]),
            node("ReduceSum", &["f"], "s", vec![int("keepdims", 0)]),
            node("Add", &["x", "s"], "y", vec![]),
        ],
        opset_import: vec![opset("", 11)],
        ..FunctionProto::default()
    };
    model.functions.push(function);
    model.opset_import.push(opset("local", 1));
    model.ir_version = 8;
    let graph = model.graph.as_mut().unwrap();
    let out = graph.output[0].name.clone();
    graph.node.last_mut().unwrap().output[0] = "pre".to_owned();
    let mut call = node("Leak", &["pre"], &out, vec![]);
    call.domain = "local".to_owned();
    graph.node.push(call);
    model.encode_to_vec()
}

#[test]
fn a_function_of_a_model_reads_no_file_but_one_beside_the_model() {
    if !is_runnable() {
        return;
    }
    let set = LfwLike::new();
    let face = "faces/P00/P00_0001.png";
    let compare = |model: &str| {
        let mut command = pfc_eval(set.dir.path());
        command.args(["compare", face, "faces/P01/P01_0001.png", "--model", model]);
        command
    };
    fs::write(set.path("other.bin"), (0..16).collect::<Vec<u8>>()).unwrap();
    // The runtime would look in the current folder, and the model lies in another.
    fs::create_dir(set.path("sub")).unwrap();
    fs::write(set.path("sub/leak.onnx"), with_function(&set, "other.bin")).unwrap();
    let error = stderr_of_failure(&mut compare("sub/leak.onnx"));
    assert!(
        error.contains("lies in the file `other.bin`: sub/other.bin does not exist"),
        "{error}"
    );
    fs::write(set.path("sub/up.onnx"), with_function(&set, "../other.bin")).unwrap();
    let error = stderr_of_failure(&mut compare("sub/up.onnx"));
    assert!(error.contains("only a file in the model's own folder is read"), "{error}");
    fs::copy(set.path("other.bin"), set.path("sub/other.bin")).unwrap();
    compare("sub/leak.onnx").assert().success();
}

#[test]
fn a_model_of_ours_needs_no_assumption_and_other_kinds_have_no_outputs_to_name() {
    if !is_runnable() {
        return;
    }
    let set = LfwLike::new();
    let backbone = weights::open(&set.model(), tch::Device::Cpu, weights::OpenOptions::default())
        .unwrap()
        .backbone;
    let options =
        export::OnnxOptions { embed_preprocessing: true, ..export::OnnxOptions::default() };
    export::onnx(&set.path("m.onnx"), &Inference::from(backbone), options).unwrap();
    let face = "faces/P00/P00_0001.png";
    let args = ["compare", face, face, "--model", "m.onnx"];
    let run = pfc_eval(set.dir.path()).args(args).assert().success();
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("pixels of 0 to 255: the file's metadata say so"), "{said}");
    assert!(!said.contains("assumed") && !said.contains("--mean and --std state it"), "{said}");
    let args = ["compare", face, face, "--model", "run.ckpt", "--output", "x"];
    let error = stderr_of_failure(pfc_eval(set.dir.path()).args(args));
    assert!(error.contains("--output cannot be set"), "{error}");
}

#[test]
fn a_provider_that_the_runtime_lacks_is_an_error_where_it_is_named_and_said_where_it_is_not() {
    if !is_runnable() {
        return;
    }
    if pfc_onnx::has_cuda() {
        return pfc_testing::skip("this onnxruntime was built for GPUs");
    }
    let set = LfwLike::new();
    let backbone = weights::open(&set.model(), tch::Device::Cpu, weights::OpenOptions::default())
        .unwrap()
        .backbone;
    let options = export::OnnxOptions::default();
    export::onnx(&set.path("m.onnx"), &Inference::from(backbone), options).unwrap();
    let compare = |model: &str, more: &[&str]| {
        let args =
            ["compare", "faces/P00/P00_0001.png", "faces/P00/P00_0002.png", "--model", model];
        let mut command = pfc_eval(set.dir.path());
        command.args(args).args(more);
        command
    };
    let plain = compare("m.onnx", &["--provider", "cpu"]).output().unwrap();
    let auto = compare("m.onnx", &["--device", "cuda:1"]).output().unwrap();
    assert_eq!((plain.status, plain.stdout), (auto.status, auto.stdout));
    let said = String::from_utf8(auto.stderr).unwrap();
    let expected = "warning: the processor computes, not GPU 1: the onnxruntime that is loaded has no \
                    CUDAExecutionProvider";
    assert!(said.contains(expected), "{said}");
    assert!(!String::from_utf8(plain.stderr).unwrap().contains("the processor computes"));
    let error = stderr_of_failure(&mut compare("m.onnx", &["--provider", "tensorrt"]));
    assert!(error.contains("has no TensorrtExecutionProvider"), "{error}");
    assert!(error.contains("hint: name the library of a build for GPUs"), "{error}");
    let error = stderr_of_failure(&mut compare("run.ckpt", &["--provider", "cuda"]));
    assert!(error.contains("--provider cannot be set: only ONNX graphs"), "{error}");
}
