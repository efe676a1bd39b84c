//! Files of other programs, which are named instead of read.

use std::path::Path;

/// Bytes of a file's beginning by which it is told.
pub const HEAD_BYTES: u64 = 64;

/// Beginnings, where in the file they are, what they are of, and how to make something of it that is read.
const BEGINNINGS: [(usize, &[u8], &str, &str); 13] = [
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "a Keras or HDF5 file",
        "tf2onnx makes an ONNX file of a Keras model",
    ),
    (
        4,
        b"TFL3",
        "a TensorFlow Lite file",
        "`python -m tf2onnx.convert --tflite FILE --output m.onnx`",
    ),
    (
        0,
        b"\x12\x01\0\0\0\0\0\0",
        "an MXNet .params file",
        "MXNet's `onnx.export_model` makes an ONNX file of it and its symbol.json",
    ),
    (
        0,
        b"ftrt",
        "a TensorRT engine",
        "an engine is bound to one GPU: take the ONNX file that it was built from",
    ),
    (
        0,
        b"ptrt",
        "a TensorRT engine",
        "an engine is bound to one GPU: take the ONNX file that it was built from",
    ),
    (
        4,
        b"ORTM",
        "a file in ONNX Runtime's own format",
        "take the ONNX file that it was converted from",
    ),
    (0, b"7767517", "an ncnn graph", "take the file that it was converted from"),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "`git lfs pull` fetches the file",
    ),
    (
        0,
        b"<!DOCTYPE",
        "a page of HTML",
        "the download gave a page instead of the file: fetch it again",
    ),
    (0, b"<html", "a page of HTML", "the download gave a page instead of the file: fetch it again"),
    (
        0,
        b"<?xml",
        "an XML file, such as an OpenVINO graph",
        "take the file that it was converted from",
    ),
    (0, b"\x1f\x8b", "compressed with gzip", "`gunzip` it first"),
    (0, b"GGUF", "a GGUF file", "take the file that it was converted from"),
];

/// Endings of files whose beginnings do not tell.
const ENDINGS: [(&str, &str, &str); 10] = [
    ("pdparams", "Paddle's parameters", "paddle2onnx makes an ONNX file of a Paddle model"),
    ("pdmodel", "a Paddle graph", "paddle2onnx makes an ONNX file of a Paddle model"),
    (
        "params",
        "an MXNet .params file",
        "MXNet's `onnx.export_model` makes an ONNX file of it and its symbol.json",
    ),
    ("caffemodel", "a Caffe file", "take an ONNX file of the same model"),
    ("pb", "a TensorFlow graph", "`python -m tf2onnx.convert` makes an ONNX file of it"),
    ("mlmodel", "a Core ML file", "take the file that it was converted from"),
    ("keras", "a Keras file", "tf2onnx makes an ONNX file of a Keras model"),
    ("rknn", "an RKNN file", "take the ONNX file that it was converted from"),
    ("mnn", "an MNN file", "take the file that it was converted from"),
    (
        "engine",
        "a TensorRT engine",
        "an engine is bound to one GPU: take the ONNX file that it was built from",
    ),
];

/// A file that is no model here, but known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, as a sentence.
    pub reason: String,
    /// How to make a model of it.
    pub way_out: String,
}

/// What `path` is, if another program is known to write such files.
///
/// * `head`: the file's first [`HEAD_BYTES`], or all of a shorter one
pub fn named(path: &Path, head: &[u8]) -> Option<Foreign> {
    let foreign = |name: &str, way_out: &str| Foreign {
        reason: format!("it is {name}"),
        way_out: way_out.to_owned(),
    };
    let begins = |(at, bytes, ..): &&(usize, &[u8], &str, &str)| {
        let found = head.get(*at..).and_then(|rest| rest.get(..bytes.len()));
        found.is_some_and(|found| found.eq_ignore_ascii_case(bytes))
    };
    if let Some((_, _, name, way_out)) = BEGINNINGS.iter().find(begins) {
        return Some(foreign(name, way_out));
    }
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let (_, name, way_out) = ENDINGS.iter().find(|(known, ..)| *known == ending)?;
    Some(foreign(name, way_out))
}

/// Whether the ending of a file says more than its beginning, which is that of any pickle or zip archive.
pub fn is_told_by_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "pdparams" || ending == "keras")
}

/// What `path` is, if it is a model of another kind that `pfc-train` knows.
pub(crate) fn convertible(path: &Path, head: &[u8]) -> Option<Foreign> {
    let what = match head {
        _ if path.is_dir() => "a checkpoint folder",
        _ if is_told_by_ending(path) => return None,
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => "a file of PyTorch",
        [_, _, _, _, _, _, _, _, b'{', ..] => "a safetensors file",
        _ => return None,
    };
    let path = path.display();
    Some(Foreign {
        reason: format!("it is {what}"),
        way_out: format!("`pfc-train export {path} --to onnx` makes an ONNX file of it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_programs_are_named() {
        let cases: [(&str, &[u8], &str); 12] = [
            ("a.h5", b"\x89HDF\r\n\x1a\n\0\0", "Keras"),
            ("a.tflite", b"\x1c\0\0\0TFL3\0\0", "TensorFlow Lite"),
            ("a-0000.params", b"\x12\x01\0\0\0\0\0\0\0", "MXNet"),
            ("b.params", b"other", "MXNet"),
            ("a.engine", b"ftrt\0\0", "TensorRT"),
            ("a.ort", b"\x18\0\0\0ORTM\0\0", "ONNX Runtime"),
            ("a.pdparams", b"\x80\x04\x95", "Paddle"),
            ("a.keras", b"PK\x03\x04", "Keras"),
            ("a.rknn", b"RKNN\0\0", "RKNN"),
            ("a.pth", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            ("a.pth", b"<!doctype html>", "HTML"),
            ("a.PB", b"\x0a\x10", "TensorFlow graph"),
        ];
        for (name, head, expected) in cases {
            let found = named(Path::new(name), head).unwrap();
            assert!(found.reason.contains(expected), "{name}: {found:?}");
        }
        assert_eq!(named(Path::new("a.onnx"), b"\x08\x07"), None);
        assert_eq!(named(Path::new("a"), b""), None);
    }

    #[test]
    fn models_that_can_be_converted_say_how() {
        let found = convertible(Path::new("m.pth"), b"PK\x03\x04").unwrap();
        assert_eq!(found.reason, "it is a file of PyTorch");
        assert!(found.way_out.starts_with("`pfc-train export m.pth --to onnx`"), "{found:?}");
        let folder = tempfile::tempdir().unwrap();
        assert!(convertible(folder.path(), b"").unwrap().reason.contains("a checkpoint folder"));
        assert_eq!(convertible(Path::new("m.onnx"), b"\x08\x07"), None);
        assert_eq!(convertible(Path::new("m.keras"), b"PK\x03\x04"), None);
    }
}
