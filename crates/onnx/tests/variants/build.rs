//! One small network, and the ways in which exporters write what comes before it.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pfc_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type,
    data_type,
};
use prost::Message;

pub const DIM: usize = 32;
const SIDE: i64 = 112;

/// How constants are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constants {
    /// Initialisers of f32 as raw bytes, in the field `float_data`, and listed among the inputs as well.
    Raw,
    Typed,
    InInputs,
    /// Nodes `Constant` with a tensor, with `value_float` or `value_floats`.
    Node,
    NodeFloat,
    /// Of another type, with a `Cast` behind.
    Half,
    Brain,
    Double,
    Integer,
    /// In a file beside.
    External,
    /// A node `Constant` with a sparse tensor.
    Sparse,
    /// Made by `ConstantOfShape`.
    OfShape,
    /// One number for each pixel.
    Image,
    /// One number for each channel.
    Channels,
    /// Int8 with `DequantizeLinear` behind.
    Quantised,
}

pub const CONSTANTS: [Constants; 15] = [
    Constants::Raw,
    Constants::Typed,
    Constants::InInputs,
    Constants::Node,
    Constants::NodeFloat,
    Constants::Half,
    Constants::Brain,
    Constants::Double,
    Constants::Integer,
    Constants::External,
    Constants::Sparse,
    Constants::OfShape,
    Constants::Image,
    Constants::Channels,
    Constants::Quantised,
];

/// A graph under way: `value` is what the last node gave.
pub struct Builder {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    pub inputs: Vec<ValueInfoProto>,
    pub functions: Vec<FunctionProto>,
    pub opset: i64,
    pub value: String,
    /// Type of the pixels where they meet constants.
    pub elem_type: i32,
    pub constants: Constants,
    /// Channels that the network takes, 3 or 1.
    pub n_channels: i64,
    /// Type of what it gives.
    pub output_type: i32,
    /// Bytes of the file beside.
    pub data: Vec<u8>,
    file: String,
    n: usize,
}

impl Builder {
    pub fn new(
        file: &str,
        elem_type: i32,
        sizes: &[i64],
        opset: i64,
        constants: Constants,
    ) -> Builder {
        let sizes: Vec<Result<i64, &str>> =
            std::iter::once(Err("N")).chain(sizes.iter().map(|&size| Ok(size))).collect();
        Builder {
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: vec![ValueInfoProto::tensor("data", elem_type, &sizes)],
            functions: Vec::new(),
            opset,
            value: "data".to_owned(),
            elem_type,
            constants,
            n_channels: 3,
            output_type: data_type::FLOAT,
            data: vec![7; 5],
            file: file.to_owned(),
            n: 0,
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.n += 1;
        format!("/{what}_{}", self.n)
    }

    /// A node on the value so far and `others`, whose output becomes the value.
    pub fn then(
        &mut self,
        op: &str,
        others: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> &mut Builder {
        let value = self.value.clone();
        let inputs: Vec<&str> =
            std::iter::once(value.as_str()).chain(others.iter().copied()).collect();
        self.value = self.node(op, &inputs, attributes);
        self
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name(op);
        self.nodes.push(node(op, inputs, &[&output], attributes));
        output
    }

    pub fn cast(&mut self, to: i32) -> &mut Builder {
        self.elem_type = to;
        self.then("Cast", &[], vec![int("to", i64::from(to))])
    }

    /// An initialiser.
    pub fn tensor(&mut self, data_type: i32, dims: &[i64], raw: Vec<u8>) -> String {
        let name = self.name("constant");
        self.initializers.push(tensor(&name, data_type, dims, raw));
        name
    }

    pub fn integers(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(data_type::INT64, &[values.len() as i64], raw)
    }

    pub fn floats(&mut self, dims: &[i64], values: &[f32]) -> String {
        self.tensor(data_type::FLOAT, dims, f32_bytes(values))
    }

    /// `op` of the value with a number, written as this builder's constants are.
    pub fn with_number(&mut self, op: &str, number: f32) -> &mut Builder {
        let constant = self.number(number);
        self.then(op, &[&constant], vec![])
    }

    pub fn number(&mut self, number: f32) -> String {
        let name = self.name("number");
        let scalar = |name: &str| tensor(name, data_type::FLOAT, &[], number.to_le_bytes().into());
        let made = match self.constants {
            Constants::Raw => {
                self.initializers.push(scalar(&name));
                name
            }
            Constants::Typed => {
                let typed =
                    TensorProto { raw_data: None, float_data: vec![number], ..scalar(&name) };
                self.initializers.push(typed);
                name
            }
            Constants::InInputs => {
                self.initializers.push(scalar(&name));
                self.inputs.push(ValueInfoProto::tensor(&name, data_type::FLOAT, &[]));
                name
            }
            Constants::Node => self.node("Constant", &[], vec![of_tensor("value", scalar(""))]),
            Constants::NodeFloat => {
                let value = AttributeProto {
                    f: Some(number),
                    kind: attribute_type::FLOAT,
                    ..named("value_float")
                };
                self.node("Constant", &[], vec![value])
            }
            Constants::Half => {
                let raw = f16::from_f32(number).to_le_bytes().into();
                self.widened(data_type::FLOAT16, &[], raw)
            }
            Constants::Brain => {
                let raw = bf16::from_f32(number).to_le_bytes().into();
                self.widened(data_type::BFLOAT16, &[], raw)
            }
            Constants::Double => {
                let raw = f64::from(number).to_le_bytes().into();
                self.widened(data_type::DOUBLE, &[], raw)
            }
            // 127.5 is no integer: 255 over 2 and 2 over 255 are.
            Constants::Integer => {
                let (above, below): (i32, i32) = if number.abs() > 1.0 {
                    ((number * 2.0).round() as i32, 2)
                } else {
                    (2, (2.0 / number).round() as i32)
                };
                let above = self.widened(data_type::INT32, &[], above.to_le_bytes().into());
                let below = self.widened(data_type::INT32, &[], below.to_le_bytes().into());
                self.node("Div", &[&above, &below], vec![])
            }
            Constants::External => {
                let entries = [
                    ("location", self.file.clone()),
                    ("offset", self.data.len().to_string()),
                    ("length", "4".to_owned()),
                ];
                self.data.extend(number.to_le_bytes());
                let entry = |(key, value): (&str, String)| StringStringEntryProto {
                    key: key.to_owned(),
                    value,
                };
                self.initializers.push(TensorProto {
                    raw_data: None,
                    external_data: entries.into_iter().map(entry).collect(),
                    data_location: 1,
                    ..scalar(&name)
                });
                name
            }
            Constants::Sparse => {
                let values = tensor("", data_type::FLOAT, &[1], number.to_le_bytes().into());
                let indices = tensor("", data_type::INT64, &[1], 0_i64.to_le_bytes().into());
                let sparse = AttributeProto {
                    sparse_tensor: Some(SparseTensorProto {
                        values: Some(values),
                        indices: Some(indices),
                        dims: vec![1],
                    }),
                    kind: 11,
                    ..named("sparse_value")
                };
                self.node("Constant", &[], vec![sparse])
            }
            Constants::OfShape => {
                let shape = self.integers(&[1, 1, 1]);
                let value = tensor("", data_type::FLOAT, &[1], number.to_le_bytes().into());
                self.node("ConstantOfShape", &[&shape], vec![of_tensor("value", value)])
            }
            Constants::Image => {
                let n = (3 * SIDE * SIDE) as usize;
                self.floats(&[1, 3, SIDE, SIDE], &vec![number; n])
            }
            Constants::Channels => self.floats(&[3, 1, 1], &[number; 3]),
            Constants::Quantised => {
                let value = self.tensor(data_type::INT8, &[], vec![100]);
                let scale = self.floats(&[], &[number / 100.0]);
                self.node("DequantizeLinear", &[&value, &scale], vec![])
            }
        };
        if self.elem_type == data_type::FLOAT {
            return made;
        }
        let to = vec![int("to", i64::from(self.elem_type))];
        self.node("Cast", &[&made], to)
    }

    fn widened(&mut self, data_type: i32, dims: &[i64], raw: Vec<u8>) -> String {
        let narrow = self.tensor(data_type, dims, raw);
        self.node("Cast", &[&narrow], vec![int("to", i64::from(data_type::FLOAT))])
    }

    /// A call of a function of the model's own.
    pub fn call(&mut self, function: FunctionProto) -> &mut Builder {
        let name = function.name.clone();
        self.functions.push(function);
        self.then(&name, &[], vec![]);
        if let Some(node) = self.nodes.last_mut() {
            node.domain = "local".to_owned();
        }
        self
    }

    /// The network itself, which wants `[N, 3, 112, 112]` of f32, and its end.
    pub fn finish(&mut self) -> ModelProto {
        if self.elem_type != data_type::FLOAT {
            self.cast(data_type::FLOAT);
        }
        let weights = noise(8 * self.n_channels as usize * 64, 1, 0.1);
        let weights = self.floats(&[8, self.n_channels, 8, 8], &weights);
        let bias = self.floats(&[8], &noise(8, 2, 0.5));
        let eights = |name: &str| ints(name, &[8, 8]);
        self.then("Conv", &[&weights, &bias], vec![eights("kernel_shape"), eights("strides")]);
        self.then("Relu", &[], vec![]);
        self.then("Flatten", &[], vec![int("axis", 1)]);
        let weights = self.floats(&[8 * 14 * 14, DIM as i64], &noise(8 * 196 * DIM, 3, 0.05));
        self.then("MatMul", &[&weights], vec![]);
        if self.output_type != data_type::FLOAT {
            self.cast(self.output_type);
        }
        if let Some(last) = self.nodes.last_mut() {
            last.output = vec!["embedding".to_owned()];
        }
        let sizes = [Err("N"), Ok(DIM as i64)];
        let graph = GraphProto {
            node: std::mem::take(&mut self.nodes),
            name: "variant".to_owned(),
            initializer: std::mem::take(&mut self.initializers),
            input: std::mem::take(&mut self.inputs),
            output: vec![ValueInfoProto::tensor("embedding", self.output_type, &sizes)],
            ..GraphProto::default()
        };
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        ModelProto {
            ir_version: 8,
            opset_import: vec![opset("", self.opset), opset("local", 1)],
            functions: std::mem::take(&mut self.functions),
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    /// Writes the finished model, and the file beside it.
    pub fn write(&mut self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.onnx"));
        std::fs::write(dir.join(&self.file), &self.data).unwrap();
        std::fs::write(&path, self.finish().encode_to_vec()).unwrap();
        path
    }
}

/// Numbers between `-size` and `size` that `seed` fixes.
pub fn noise(n: usize, seed: u32, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32).mul_add(2.0, -1.0) * size
    };
    (0..n).map(|_| next()).collect()
}

pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub fn node(
    op: &str,
    input: &[&str],
    output: &[&str],
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        input: names(input),
        output: names(output),
        attribute,
        ..NodeProto::default()
    }
}

pub fn tensor(name: &str, data_type: i32, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type,
        dims: dims.to_vec(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

fn named(name: &str) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ..AttributeProto::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), kind: attribute_type::INT, ..named(name) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), kind: attribute_type::FLOAT, ..named(name) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), kind: attribute_type::INTS, ..named(name) }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    let s = Some(value.as_bytes().to_vec().into());
    AttributeProto { s, kind: attribute_type::STRING, ..named(name) }
}

pub fn of_tensor(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(tensor), kind: attribute_type::TENSOR, ..named(name) }
}

pub fn of_graph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), kind: attribute_type::GRAPH, ..named(name) }
}
