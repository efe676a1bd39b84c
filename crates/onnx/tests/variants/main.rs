//! One network behind every way of writing its normalisation: what is embedded is right, or warned of.

#![allow(clippy::unwrap_used)] // helpers of tests may

mod build;

use std::path::Path;

use build::{
    Builder, CONSTANTS, Constants, DIM, float, int, ints, node, of_graph, of_tensor, tensor, text,
};
use pfc_onnx::{
    FACE_BYTES, InputOptions, OnnxModel, OpenOptions,
    proto::{FunctionProto, GraphProto, OperatorSetIdProto, ValueInfoProto, data_type},
    runtime,
};
use prost::Message;

const FLOAT: i32 = data_type::FLOAT;
/// What the format calls BOOL.
const TRUTH: i32 = 9;
const PLANES: [i64; 3] = [3, 112, 112];
const PIXELS: [i64; 3] = [112, 112, 3];
const OPSETS: [i64; 4] = [11, 13, 17, 20];

/// Three pictures with colours and structure.
fn pictures() -> Vec<u8> {
    let mut rgb = Vec::with_capacity(3 * FACE_BYTES);
    for picture in 0..3_u32 {
        for place in 0..112 * 112_u32 {
            let (y, x) = (place / 112, place % 112);
            let grain = (x * 31 + y * 17 + picture * 101) % 40;
            let shade = [150, 110, 80].map(|base| {
                let wave = ((x * (picture + 2) + y * 3) as f32 / 40.0).sin() * 60.0;
                (base as f32 + wave + grain as f32).clamp(0.0, 255.0) as u8
            });
            rgb.extend(shade);
        }
    }
    rgb
}

/// Whether onnxruntime is there.
fn is_runnable() -> bool {
    match runtime::load() {
        Ok(_) => true,
        Err(error) => {
            pfc_testing::skip(&error.to_string());
            false
        }
    }
}

/// What the network gives for the pictures when fed (x − mean) / std, as the user states it.
fn expected(dir: &Path, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let path =
        Builder::new("expected.data", FLOAT, &PLANES, 13, Constants::Raw).write(dir, "expected");
    let options = OpenOptions {
        input: InputOptions { mean: Some(mean), std: Some(std), ..InputOptions::default() },
        ..OpenOptions::default()
    };
    OnnxModel::open(&path, &options).unwrap().embed(&pictures(), 3).unwrap()
}

fn cosines(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rows = a.chunks_exact(DIM).zip(b.chunks_exact(DIM));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).fold(1.0, f64::min)
}

/// What became of the variants.
#[derive(Default)]
struct Tally {
    right: usize,
    /// Lines of those that are not right but warned of.
    warned: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts whether `path` is embedded as `expected`, or at least warned of.
    fn add(&mut self, name: &str, path: &Path, expected: &[f32]) {
        let model = match OnnxModel::open(path, &OpenOptions::default()) {
            Ok(model) => model,
            Err(error) => return self.wrong.push(format!("{name}: {error}")),
        };
        let account = model.account();
        let is_warned = account.line.starts_with("warning: ") || !account.warnings.is_empty();
        let cosine = cosines(&model.embed(&pictures(), 3).unwrap(), expected);
        if cosine >= 0.999 {
            self.right += 1;
        } else if is_warned {
            self.warned.extend(account.lines(true));
        } else {
            let why = account.lines(true).collect::<Vec<_>>().join("\n  ");
            self.wrong.push(format!("{name}: cosine {cosine:.4}\n  {why}"));
        }
    }

    /// None was wrong, and at least `right` were embedded rightly.
    #[track_caller]
    fn check(&self, right: usize) {
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert_eq!(self.right, right, "warned of:\n{}", self.warned.join("\n"));
    }
}

/// (x − 127.5) / 127.5 as exporters write it.
fn normalise(builder: &mut Builder, how: usize) {
    match how {
        0 => builder.with_number("Sub", 127.5).with_number("Div", 127.5),
        1 => builder.with_number("Sub", 127.5).with_number("Mul", 1.0 / 127.5),
        2 => builder.with_number("Add", -127.5).with_number("Mul", 1.0 / 127.5),
        3 => builder.with_number("Mul", 1.0 / 127.5).with_number("Sub", 1.0),
        _ => builder.with_number("Div", 255.0).with_number("Sub", 0.5).with_number("Div", 0.5),
    };
}

#[test]
fn a_normalisation_is_done_once_whatever_its_constants_are_and_however_it_is_written() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    let mut n = 0;
    for (i, constants) in CONSTANTS.into_iter().enumerate() {
        for how in 0..5 {
            let opset = OPSETS[(i + how) % OPSETS.len()].max(match constants {
                Constants::NodeFloat => 12,
                Constants::Brain => 13,
                _ => 11,
            });
            let name = format!("{constants:?}-{how}-{opset}");
            let mut builder =
                Builder::new(&format!("{name}.data"), FLOAT, &PLANES, opset, constants);
            normalise(&mut builder, how);
            tally.add(&name, &builder.write(dir.path(), &name), &expected);
            n += 1;
        }
    }
    tally.check(n);
}

/// What stands between the input and the normalisation.
type Before = (&'static str, fn(&mut Builder));

/// Operators that keep or move what they take, by the name of the variant; all from operator set 13 on.
fn before() -> Vec<Before> {
    vec![
        ("nothing", |_| {}),
        ("identity", |b| {
            b.then("Identity", &[], vec![]);
        }),
        ("clip", |b| {
            let (low, high) = (b.number(0.0), b.number(255.0));
            b.then("Clip", &[&low, &high], vec![]);
        }),
        ("max-min", |b| {
            b.with_number("Max", 0.0).with_number("Min", 255.0);
        }),
        ("shape", |b| {
            // The batch is asked for, and the picture reshaped to it, as `x.view(x.shape[0], …)` does.
            let data = b.value.clone();
            let shape = b.node("Shape", &[&data], vec![]);
            let (zero, rest) = (b.integers(&[0]), b.integers(&[3, 112, 112]));
            let batch = b.node("Gather", &[&shape, &zero], vec![]);
            let sizes = b.node("Concat", &[&batch, &rest], vec![int("axis", 0)]);
            b.then("Reshape", &[&sizes], vec![]);
        }),
        ("flatten", |b| {
            b.then("Flatten", &[], vec![]);
            let sizes = b.integers(&[-1, 3, 112, 112]);
            b.then("Reshape", &[&sizes], vec![]);
        }),
        ("resize", |b| {
            // Twice as large, and every second pixel of that.
            let scales = b.floats(&[4], &[1.0, 1.0, 2.0, 2.0]);
            b.then("Resize", &["", &scales], vec![text("mode", "nearest")]);
            let (starts, ends) = (b.integers(&[0, 0]), b.integers(&[999, 999]));
            let (axes, steps) = (b.integers(&[2, 3]), b.integers(&[2, 2]));
            b.then("Slice", &[&starts, &ends, &axes, &steps], vec![]);
        }),
        ("crop", |b| {
            let starts = b.integers(&[0, 0]);
            let ends = b.integers(&[112, 999]);
            let axes = b.integers(&[2, 3]);
            b.then("Slice", &[&starts, &ends, &axes], vec![]);
        }),
        ("pad", |b| {
            // Zeros before the normalisation are black, and are cut away again.
            let sizes = b.integers(&[0, 0, 1, 1, 0, 0, 1, 1]);
            b.then("Pad", &[&sizes], vec![]);
            let (starts, ends, axes) =
                (b.integers(&[1, 1]), b.integers(&[113, 113]), b.integers(&[2, 3]));
            b.then("Slice", &[&starts, &ends, &axes], vec![]);
        }),
        ("gather", |b| {
            let order = b.integers(&[0, 1, 2]);
            b.then("Gather", &[&order], vec![int("axis", 1)]);
        }),
        ("split-concat", |b| {
            let parts: Vec<String> = (0..3).map(|i| format!("part{i}")).collect();
            let names: Vec<&str> = parts.iter().map(String::as_str).collect();
            let sizes = b.integers(&[1, 1, 1]);
            let value = b.value.clone();
            b.nodes.push(node("Split", &[&value, &sizes], &names, vec![int("axis", 1)]));
            b.value = b.node("Concat", &names, vec![int("axis", 1)]);
        }),
        ("squeeze", |b| {
            let axis = b.integers(&[1]);
            b.then("Unsqueeze", &[&axis], vec![]);
            b.then("Squeeze", &[&axis], vec![]);
        }),
        ("transpose-twice", |b| {
            b.then("Transpose", &[], vec![ints("perm", &[0, 2, 3, 1])]);
            b.then("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
        }),
        ("dropout", |b| {
            b.then("Dropout", &[], vec![]);
        }),
        ("neg-neg", |b| {
            b.then("Neg", &[], vec![]).then("Neg", &[], vec![]);
        }),
        ("double", |b| {
            b.cast(data_type::DOUBLE);
        }),
        ("half", |b| {
            b.cast(data_type::FLOAT16);
        }),
        ("quantised", |b| {
            let scale = b.floats(&[], &[1.0]);
            let zero = b.tensor(data_type::UINT8, &[], vec![0]);
            b.then("QuantizeLinear", &[&scale, &zero], vec![]);
            b.then("DequantizeLinear", &[&scale, &zero], vec![]);
        }),
        ("expand", |b| {
            let sizes = b.integers(&[1, 3, 112, 112]);
            b.then("Expand", &[&sizes], vec![]);
        }),
        ("relu", |b| {
            b.then("Relu", &[], vec![]);
        }),
        ("where", |b| {
            let (value, white) = (b.value.clone(), b.number(255.0));
            let is_beyond = b.node("Greater", &[&value, &white], vec![]);
            b.value = b.node("Where", &[&is_beyond, &white, &value], vec![]);
        }),
    ]
}

#[test]
fn operators_before_the_normalisation_are_followed() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    let mut n = 0;
    for (what, before) in before() {
        for (opset, constants) in
            [(13, Constants::Raw), (17, Constants::Node), (20, Constants::Half)]
        {
            let name = format!("{what}-{opset}-{constants:?}");
            let mut builder =
                Builder::new(&format!("{name}.data"), FLOAT, &PLANES, opset, constants);
            before(&mut builder);
            normalise(&mut builder, n % 5);
            tally.add(&name, &builder.write(dir.path(), &name), &expected);
            n += 1;
        }
    }
    tally.check(n);
}

#[test]
fn other_layouts_and_types_of_the_input_are_fed_as_they_want() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    let mut n = 0;
    let types = [FLOAT, data_type::FLOAT16, data_type::DOUBLE, data_type::UINT8];
    for elem_type in types {
        for (sizes, is_pixels) in [(&PLANES, false), (&PIXELS, true)] {
            for opset in OPSETS {
                let name = format!("{elem_type}-{is_pixels}-{opset}");
                let file = format!("{name}.data");
                let mut builder = Builder::new(&file, elem_type, sizes, opset, Constants::Raw);
                if elem_type != FLOAT {
                    builder.cast(FLOAT);
                }
                if is_pixels {
                    builder.then("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
                }
                normalise(&mut builder, n % 5);
                tally.add(&name, &builder.write(dir.path(), &name), &expected);
                n += 1;
            }
        }
    }
    tally.check(n);
}

#[test]
fn normalisations_as_layers_and_functions_are_followed() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    let begin =
        |name: &str| Builder::new(&format!("{name}.data"), FLOAT, &PLANES, 17, Constants::Raw);

    let mut builder = begin("batch-norm");
    let three = |builder: &mut Builder, value: f32| builder.floats(&[3], &[value; 3]);
    let names = [1.0, 0.0, 127.5, 127.5 * 127.5].map(|value| three(&mut builder, value));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    builder.then("BatchNormalization", &names, vec![float("epsilon", 1e-5)]);
    tally.add("batch-norm", &builder.write(dir.path(), "batch-norm"), &expected);

    let mut builder = begin("point-convolution");
    let weights = builder.floats(&[3, 1, 1, 1], &[1.0 / 127.5; 3]);
    let bias = three(&mut builder, -1.0);
    builder.then("Conv", &[&weights, &bias], vec![int("group", 3)]);
    let path = builder.write(dir.path(), "point-convolution");
    tally.add("point-convolution", &path, &expected);

    // Each colour on its own, as facenet's and TensorFlow's graphs do.
    let mut builder = begin("by-colour");
    let data = builder.value.clone();
    let colours = [0, 1, 2].map(|colour| {
        let at = builder.integers(&[colour]);
        builder.value = builder.node("Gather", &[&data, &at], vec![int("axis", 1)]);
        normalise(&mut builder, 0);
        builder.value.clone()
    });
    let colours: Vec<&str> = colours.iter().map(String::as_str).collect();
    builder.value = builder.node("Concat", &colours, vec![int("axis", 1)]);
    tally.add("by-colour", &builder.write(dir.path(), "by-colour"), &expected);

    // Functions of the model's own, one within the other, as PyTorch's exporter writes modules.
    for is_nested in [false, true] {
        let name = format!("function-{is_nested}");
        let mut builder = begin(&name);
        let constant = |output: &str, value: f32| {
            let tensor = tensor("", FLOAT, &[], value.to_le_bytes().into());
            node("Constant", &[], &[output], vec![of_tensor("value", tensor)])
        };
        let function = |name: &str, node: Vec<_>| FunctionProto {
            name: name.to_owned(),
            domain: "local".to_owned(),
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            node,
            opset_import: vec![
                OperatorSetIdProto { domain: String::new(), version: 17 },
                OperatorSetIdProto { domain: "local".to_owned(), version: 1 },
            ],
            ..FunctionProto::default()
        };
        let normalise = function(
            "Normalize",
            vec![
                constant("c", 127.5),
                node("Sub", &["x", "c"], &["t"], vec![]),
                node("Div", &["t", "c"], &["y"], vec![]),
            ],
        );
        if is_nested {
            let mut call = node("Normalize", &["x"], &["y"], vec![]);
            call.domain = "local".to_owned();
            builder.functions.push(normalise);
            builder.call(function("Outer", vec![call]));
        } else {
            builder.call(normalise);
        }
        tally.add(&name, &builder.write(dir.path(), &name), &expected);
    }
    tally.check(5);
}

#[test]
fn networks_that_want_something_else_get_it_or_are_warned_of() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let signed = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    let begin =
        |name: &str| Builder::new(&format!("{name}.data"), FLOAT, &PLANES, 13, Constants::Raw);
    // From 0 to 1, with one constant or ImageNet's.
    let mut builder = begin("unit");
    builder.with_number("Sub", 0.5).with_number("Div", 0.5);
    tally.add("unit", &builder.write(dir.path(), "unit"), &signed);
    let imagenet = expected(dir.path(), [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
    for (name, scale, swap) in [
        ("imagenet-unit", 1.0, false),
        ("imagenet-bytes", 255.0, false),
        ("imagenet-bgr", 255.0, true),
    ] {
        let mut builder = begin(name);
        let ordered = |values: [f32; 3]| {
            let [a, b, c] = values.map(|value| value * scale);
            if swap { [c, b, a] } else { [a, b, c] }
        };
        let mean = builder.floats(&[3, 1, 1], &ordered([0.485, 0.456, 0.406]));
        let std = builder.floats(&[3, 1, 1], &ordered([0.229, 0.224, 0.225]));
        builder.then("Sub", &[&mean], vec![]).then("Div", &[&std], vec![]);
        if swap {
            // Blue comes first, and the network behind wants red first.
            let order = builder.integers(&[2, 1, 0]);
            builder.then("Gather", &[&order], vec![int("axis", 1)]);
        }
        tally.add(name, &builder.write(dir.path(), name), &imagenet);
    }
    // Eight bits over the range that was met in calibration.
    let mut builder = begin("calibrated");
    let scale = builder.floats(&[], &[1.0 / 127.5]);
    let zero = builder.tensor(data_type::UINT8, &[], vec![128]);
    builder.then("QuantizeLinear", &[&scale, &zero], vec![]);
    builder.then("DequantizeLinear", &[&scale, &zero], vec![]);
    tally.add("calibrated", &builder.write(dir.path(), "calibrated"), &signed);
    // Eight bits with a sign, as wide below zero as above.
    let symmetric = |builder: &mut Builder| {
        let scale = builder.floats(&[], &[2.008]);
        let zero = builder.tensor(data_type::INT8, &[], vec![0]);
        builder.then("QuantizeLinear", &[&scale, &zero], vec![]);
        builder.then("DequantizeLinear", &[&scale, &zero], vec![]);
    };
    let mut builder = begin("symmetric");
    symmetric(&mut builder);
    normalise(&mut builder, 0);
    tally.add("symmetric", &builder.write(dir.path(), "symmetric"), &signed);
    let bytes = expected(dir.path(), [0.0; 3], [1.0; 3]);
    let mut builder = begin("symmetric-bytes");
    symmetric(&mut builder);
    tally.add("symmetric-bytes", &builder.write(dir.path(), "symmetric-bytes"), &bytes);
    // A bare network in each range: the convention, said.
    tally.add("bare", &begin("bare").write(dir.path(), "bare"), &signed);
    tally.check(8);

    let mut tally = Tally::default();
    tally.add("bare bytes", &begin("bare2").write(dir.path(), "bare2"), &bytes);
    // Swapped within: nobody knows what comes in.
    for name in ["flip-gather", "flip-slice"] {
        let mut builder = begin(name);
        if name == "flip-gather" {
            let order = builder.integers(&[2, 1, 0]);
            builder.then("Gather", &[&order], vec![int("axis", 1)]);
        } else {
            let (from, to) = (builder.integers(&[-1]), builder.integers(&[i64::MIN + 1]));
            let (axis, step) = (builder.integers(&[1]), builder.integers(&[-1]));
            builder.then("Slice", &[&from, &to, &axis, &step], vec![]);
        }
        normalise(&mut builder, 0);
        tally.add(name, &builder.write(dir.path(), name), &signed);
    }
    // Each is an assumption, and said to be one.
    tally.check(0);
}

/// A way of writing what comes first, its name, and mean and deviation by which the network's own input is had.
type Unlike = (&'static str, [f32; 3], [f32; 3], fn(&mut Builder));

/// What exporters, converters and people write that is like nothing above; all from operator set 13 on.
fn unlike() -> Vec<Unlike> {
    /// Each of the parts normalised and put together again.
    fn join(b: &mut Builder, parts: Vec<String>) {
        let mut done = Vec::new();
        for part in parts {
            b.value = part;
            normalise(b, 1);
            done.push(b.value.clone());
        }
        let done: Vec<&str> = done.iter().map(String::as_str).collect();
        b.value = b.node("Concat", &done, vec![int("axis", 1)]);
    }
    const HALF: [f32; 3] = [127.5; 3];
    vec![
        ("in-place", HALF, HALF, |b| {
            // x[:, i] = (x[:, i] − 127.5) / 127.5, one channel after the other.
            b.then("Transpose", &[], vec![ints("perm", &[1, 0, 2, 3])]);
            for channel in 0..3 {
                let all = b.value.clone();
                let at = b.integers(&[channel]);
                let one = b.node("Gather", &[&all, &at], vec![int("axis", 0)]);
                b.value = one;
                normalise(b, 0);
                let one = b.value.clone();
                let raw = channel.to_le_bytes().into();
                let place = b.tensor(data_type::INT64, &[1, 1], raw);
                b.value = b.node("ScatterND", &[&all, &place, &one], vec![]);
            }
            b.then("Transpose", &[], vec![ints("perm", &[1, 0, 2, 3])]);
        }),
        ("sequence", HALF, HALF, |b| {
            b.then("SplitToSequence", &[], vec![int("axis", 1), int("keepdims", 1)]);
            let sequence = b.value.clone();
            let parts = [0_i64, 1, 2].map(|i| {
                let place = b.tensor(data_type::INT64, &[], i.to_le_bytes().into());
                b.node("SequenceAt", &[&sequence, &place], vec![])
            });
            join(b, parts.to_vec());
        }),
        ("sequence-joined", HALF, HALF, |b| {
            b.then("SplitToSequence", &[], vec![int("axis", 1), int("keepdims", 1)]);
            b.then("ConcatFromSequence", &[], vec![int("axis", 1)]);
            normalise(b, 2);
        }),
        ("constant-first", HALF, HALF, |b| {
            let (value, number) = (b.value.clone(), b.number(127.5));
            b.value = b.node("Sub", &[&number, &value], vec![]);
            b.with_number("Div", -127.5);
        }),
        ("reciprocal", HALF, HALF, |b| {
            b.with_number("Sub", 127.5);
            let number = b.number(127.5);
            let factor = b.node("Reciprocal", &[&number], vec![]);
            b.then("Mul", &[&factor], vec![]);
        }),
        ("square-root", HALF, HALF, |b| {
            b.with_number("Sub", 127.5);
            let variance = b.floats(&[1, 3, 1, 1], &[127.5 * 127.5; 3]);
            let deviation = b.node("Sqrt", &[&variance], vec![]);
            b.then("Div", &[&deviation], vec![]);
        }),
        ("power", HALF, HALF, |b| {
            b.with_number("Sub", 127.5);
            let (number, minus) = (b.number(127.5), b.number(-1.0));
            let factor = b.node("Pow", &[&number, &minus], vec![]);
            b.then("Mul", &[&factor], vec![]);
        }),
        ("mean-of-shape", HALF, HALF, |b| {
            // A picture of the mean, as large as what comes in.
            let (data, number) = (b.value.clone(), b.number(127.5));
            let shape = b.node("Shape", &[&data], vec![]);
            let mean = b.node("Expand", &[&number, &shape], vec![]);
            b.then("Sub", &[&mean], vec![]).then("Div", &[&mean], vec![]);
        }),
        ("blocks", HALF, HALF, |b| {
            b.then("SpaceToDepth", &[], vec![int("blocksize", 2)]);
            b.then("DepthToSpace", &[], vec![int("blocksize", 2)]);
            normalise(b, 3);
        }),
        ("whole-numbers", HALF, HALF, |b| {
            b.cast(data_type::INT32).cast(FLOAT);
            normalise(b, 4);
        }),
        ("rounded", HALF, HALF, |b| {
            b.then("Round", &[], vec![]);
            normalise(b, 0);
        }),
        ("from-unit", HALF, HALF, |b| {
            b.with_number("Mul", 2.0).with_number("Sub", 1.0);
        }),
        ("eighths", [128.0; 3], [128.0; 3], |b| {
            b.with_number("Sub", 128.0).with_number("Mul", 1.0 / 128.0);
        }),
        ("shift-alone", HALF, [1.0; 3], |b| {
            b.with_number("Sub", 127.5);
        }),
        ("scale-alone", [0.0; 3], [255.0; 3], |b| {
            b.with_number("Mul", 1.0 / 255.0);
        }),
        ("caffe", [131.0912, 103.8827, 91.4953], [1.0; 3], |b| {
            // Blue first, as VGGFace2's networks in Caffe, and red first behind it.
            let mean = b.floats(&[3, 1, 1], &[91.4953, 103.8827, 131.0912]);
            let order = b.integers(&[2, 1, 0]);
            b.then("Sub", &[&mean], vec![]).then("Gather", &[&order], vec![int("axis", 1)]);
        }),
        ("colours-by-product", HALF, HALF, |b| {
            let factor = 1.0 / 127.5;
            let zero = 0.0;
            let matrix = [factor, zero, zero, zero, factor, zero, zero, zero, factor];
            let matrix = b.floats(&[3, 3], &matrix);
            b.then("Transpose", &[], vec![ints("perm", &[0, 2, 3, 1])]);
            b.then("MatMul", &[&matrix], vec![]).with_number("Sub", 1.0);
            b.then("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
        }),
        ("branch", HALF, HALF, |b| {
            // A condition that is always true, as scripted modules have it.
            let condition = b.tensor(TRUTH, &[], vec![1]);
            let (value, number) = (b.value.clone(), b.number(127.5));
            let branch = |name: &str, nodes: Vec<_>| GraphProto {
                name: name.to_owned(),
                node: nodes,
                output: vec![ValueInfoProto { name: name.to_owned(), r#type: None }],
                ..GraphProto::default()
            };
            let then = vec![
                node("Sub", &[&value, &number], &["shifted"], vec![]),
                node("Div", &["shifted", &number], &["then"], vec![]),
            ];
            let other = vec![node("Identity", &[&value], &["other"], vec![])];
            let graphs = vec![
                of_graph("then_branch", branch("then", then)),
                of_graph("else_branch", branch("other", other)),
            ];
            b.value = b.node("If", &[&condition], graphs);
        }),
    ]
}

#[test]
fn ways_of_writing_that_are_like_no_other_are_right_or_warned_of() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tally = Tally::default();
    let mut n = 0;
    for (name, mean, std, first) in unlike() {
        let expected = expected(dir.path(), mean, std);
        let mut builder = Builder::new(&format!("{name}.data"), FLOAT, &PLANES, 13, Constants::Raw);
        first(&mut builder);
        tally.add(name, &builder.write(dir.path(), name), &expected);
        n += 1;
    }
    // What happens within a branch is not followed, which is said.
    tally.check(n - 1);
    assert!(tally.warned.iter().any(|line| line.contains("branch")), "{:?}", tally.warned);
}

#[test]
fn inputs_that_are_like_no_other_are_fed_as_they_want() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let signed = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    // Bytes that stand for other numbers: (x − 128) / 127.5.
    let mut builder = Builder::new("stored.data", data_type::UINT8, &PLANES, 13, Constants::Raw);
    let scale = builder.floats(&[], &[1.0 / 127.5]);
    let zero = builder.tensor(data_type::UINT8, &[], vec![128]);
    builder.then("DequantizeLinear", &[&scale, &zero], vec![]);
    builder.elem_type = FLOAT;
    let expected = expected(dir.path(), [128.0; 3], [127.5; 3]);
    tally.add("stored", &builder.write(dir.path(), "stored"), &expected);
    // A batch that is fixed, of more faces than are given.
    let mut builder = Builder::new("batch.data", FLOAT, &PLANES, 13, Constants::Raw);
    builder.inputs[0] = ValueInfoProto::tensor("data", FLOAT, &[Ok(4), Ok(3), Ok(112), Ok(112)]);
    normalise(&mut builder, 0);
    tally.add("batch", &builder.write(dir.path(), "batch"), &signed);
    // Files of 2018, whose operators have attributes where today's have inputs.
    for opset in [7, 9] {
        let name = format!("old-{opset}");
        let mut builder = Builder::new(&name, FLOAT, &PLANES, opset, Constants::Raw);
        builder.then("Clip", &[], vec![float("min", 0.0), float("max", 255.0)]);
        builder.then("Pad", &[], vec![ints("pads", &[0, 0, 2, 2, 0, 0, 2, 2])]);
        let cut = vec![ints("axes", &[2, 3]), ints("starts", &[2, 2]), ints("ends", &[114, 114])];
        builder.then("Slice", &[], cut);
        builder.then("Unsqueeze", &[], vec![ints("axes", &[1])]);
        builder.then("Squeeze", &[], vec![ints("axes", &[1])]);
        builder.then("Dropout", &[], vec![float("ratio", 0.4)]);
        normalise(&mut builder, 0);
        tally.add(&name, &builder.write(dir.path(), &name), &signed);
    }
    // The keypoints come first, and the faces are called something else.
    let mut builder = Builder::new("points.data", FLOAT, &PLANES, 13, Constants::Raw);
    let points = ValueInfoProto::tensor("kps", FLOAT, &[Err("N"), Ok(5), Ok(2)]);
    builder.inputs.insert(0, points);
    normalise(&mut builder, 0);
    // They are worth nothing here.
    let (nothing, axes) = (builder.number(0.0), builder.integers(&[1, 2]));
    let none = builder.node("Mul", &["kps", &nothing], vec![]);
    let sum = builder.node("ReduceSum", &[&none, &axes], vec![int("keepdims", 1)]);
    let place = builder.integers(&[3]);
    let sum = builder.node("Unsqueeze", &[&sum, &place], vec![]);
    builder.then("Add", &[&sum], vec![]);
    tally.add("points", &builder.write(dir.path(), "points"), &signed);
    tally.check(5);
}

#[test]
fn sizes_and_layouts_that_a_file_leaves_open_are_tried() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    for is_pixels in [false, true] {
        let name = format!("open-{is_pixels}");
        let mut builder = Builder::new(&name, FLOAT, &PLANES, 13, Constants::Raw);
        let open = [Err("N"), Err("a"), Err("b"), Err("c")];
        builder.inputs[0] = ValueInfoProto::tensor("data", FLOAT, &open);
        if is_pixels {
            builder.then("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
        }
        normalise(&mut builder, 0);
        tally.add(&name, &builder.write(dir.path(), &name), &expected);
    }
    tally.check(2);
    // Twice as large as it is worth: the features fix 224.
    let mut builder = Builder::new("large", FLOAT, &PLANES, 13, Constants::Raw);
    builder.inputs[0] =
        ValueInfoProto::tensor("data", FLOAT, &[Err("N"), Ok(3), Err("h"), Err("w")]);
    let twos = || vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    builder.then("AveragePool", &[], twos());
    let path = builder.write(dir.path(), "large");
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((model.input().height, model.input().width), (224, 224));
    assert!(model.account().line.contains("224×224 (tried, as the file leaves it open)"));
}

#[test]
fn outputs_of_any_floats_are_read() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = expected(dir.path(), [127.5; 3], [127.5; 3]);
    let mut tally = Tally::default();
    for output_type in [data_type::DOUBLE, data_type::FLOAT16, data_type::BFLOAT16] {
        let name = format!("output-{output_type}");
        let mut builder = Builder::new(&name, FLOAT, &PLANES, 13, Constants::Raw);
        builder.output_type = output_type;
        normalise(&mut builder, 1);
        tally.add(&name, &builder.write(dir.path(), &name), &expected);
    }
    tally.check(3);
}

#[test]
fn a_network_of_one_channel_gets_grey() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut grey = Vec::new();
    for pixel in pictures().as_chunks::<3>().0 {
        let [r, g, b] = pixel.map(f32::from);
        grey.push((0.299 * r + 0.587 * g + 0.114 * b - 127.5) / 127.5);
    }
    for (sizes, is_pixels) in [([1, 112, 112], false), ([112, 112, 1], true)] {
        for is_normalised in [false, true] {
            let name = format!("grey-{is_pixels}-{is_normalised}");
            let mut builder = Builder::new(&name, FLOAT, &sizes, 13, Constants::Raw);
            builder.n_channels = 1;
            if is_pixels {
                builder.then("Transpose", &[], vec![ints("perm", &[0, 3, 1, 2])]);
            }
            if is_normalised {
                normalise(&mut builder, 0);
            }
            let path = builder.write(dir.path(), &name);
            let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
            let found = model.embed(&pictures(), 3).unwrap();
            let bare = if is_normalised {
                grey.iter().map(|value| value * 127.5 + 127.5).collect()
            } else {
                grey.clone()
            };
            let expected = model.embed_values(bare, 3).unwrap();
            let (cosine, account) = (cosines(&found, &expected), model.account());
            assert!(cosine > 0.999, "{name}: {cosine} {account:?}");
            assert!(account.line.contains("grey: its input has one channel"), "{account:?}");
            assert_eq!(account.line.starts_with("warning: "), !is_normalised, "{account:?}");
        }
    }
}

#[test]
fn a_network_that_normalises_each_picture_needs_no_range() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new("data", FLOAT, &PLANES, 13, Constants::Raw);
    let data = builder.value.clone();
    let mean = builder.node("ReduceMean", &[&data], vec![ints("axes", &[1, 2, 3])]);
    builder.then("Sub", &[&mean], vec![]);
    let centred = builder.value.clone();
    let size = builder.node("ReduceL2", &[&centred], vec![ints("axes", &[1, 2, 3])]);
    builder.then("Div", &[&size], vec![]).with_number("Mul", 194.0);
    let path = builder.write(dir.path(), "prewhitened");
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    let account = model.account();
    assert!(account.line.contains("no other range makes a difference"), "{account:?}");
    assert!(!account.line.starts_with("warning: "), "{account:?}");
}

#[test]
fn a_network_that_is_fed_so_that_all_faces_are_alike_is_warned_of() {
    if !is_runnable() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Behind an operator that is not followed, pixels of −1 to 1 all become about −1.
    let mut builder = Builder::new("data", FLOAT, &PLANES, 13, Constants::Raw);
    builder.then("LeakyRelu", &[], vec![]);
    normalise(&mut builder, 0);
    let path = builder.write(dir.path(), "hidden");
    let model = OnnxModel::open(&path, &OpenOptions::default()).unwrap();
    let account = model.account();
    assert!(account.line.starts_with("warning: "), "{account:?}");
    let warning = account.warnings.first().unwrap();
    assert!(warning.contains("two unlike faces have embeddings of cosine"), "{warning}");
    assert!(warning.contains("with `pixels of 0 to 255`"), "{warning}");
}

#[test]
fn a_file_with_any_bytes_changed_is_read_or_refused() {
    let mut builder = Builder::new("data", FLOAT, &PLANES, 17, Constants::Sparse);
    normalise(&mut builder, 0);
    builder.constants = Constants::External;
    normalise(&mut builder, 1);
    builder.call(FunctionProto {
        name: "Local".to_owned(),
        domain: "local".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![node("Neg", &["x"], &["y"], vec![])],
        ..FunctionProto::default()
    });
    // The part before the network, which is small.
    let mut whole = builder.finish();
    let graph = whole.graph.as_mut().unwrap();
    graph.initializer.retain(|tensor| tensor.dims.iter().product::<i64>() < 100);
    let bytes = whole.encode_to_vec();
    assert!(bytes.len() < 10_000);
    let places = build::noise(40_000, 9, 1.0);
    for pair in places.chunks_exact(4) {
        let mut damaged = bytes.clone();
        for at in &pair[..3] {
            let at = ((at.abs() * bytes.len() as f32) as usize).min(bytes.len() - 1);
            damaged[at] = damaged[at].wrapping_add((pair[3] * 127.0) as i8 as u8);
        }
        pfc_onnx::fuzzing::look(&damaged);
        let end = (pair[0].abs() * bytes.len() as f32) as usize;
        pfc_onnx::fuzzing::look(&damaged[..end.min(damaged.len())]);
    }
}
