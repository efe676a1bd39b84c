//! A network written out as a graph of operators, named as ONNX names them.
//!
//! What an exporter writes and what the multiplications are counted on. Shapes leave out the batch,
//! which is the first axis of every value.

use tch::{Kind, Tensor};

/// The nodes in order of execution, and the constants that they take.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: Vec<(String, Constant)>,
    /// Multiply-accumulates of one image, by convolutions, products and attention.
    pub(crate) macs: u64,
    /// Numbers of one image that normalisations, rectifiers and sums give.
    pub(crate) elements: Elements,
    /// Whether scale and shift stand in for normalisation: statistics may not fit f16.
    pub(crate) plain_normalisation: bool,
}

/// How many numbers of one image come out of operators that do little with each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elements {
    pub(crate) normalised: u64,
    pub(crate) rectified: u64,
    pub(crate) added: u64,
}

/// An operator applied.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) op: &'static str,
    pub(crate) name: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) output: String,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

#[derive(Debug)]
pub(crate) enum Constant {
    /// f32 numbers.
    Numbers(Tensor),
    /// A shape or an index.
    Integers { shape: Vec<i64>, values: Vec<i64> },
}

/// What a node gives: its name and its shape without the batch.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
}

impl Value {
    pub(crate) fn new(name: &str, shape: &[i64]) -> Value {
        Value { name: name.to_owned(), shape: shape.to_vec() }
    }
}

/// Shorthand for a node's attributes.
pub(crate) type Attributes = Vec<(&'static str, Attribute)>;

impl Graph {
    /// Adds the node `name`, whose output gets its name, and gives that output.
    pub(crate) fn node(
        &mut self,
        op: &'static str,
        name: &str,
        inputs: &[&str],
        attributes: Attributes,
        shape: &[i64],
    ) -> Value {
        let n_elements = shape.iter().product::<i64>() as u64;
        match op {
            "BatchNormalization" => self.elements.normalised += n_elements,
            "PRelu" => self.elements.rectified += n_elements,
            "Add" => self.elements.added += n_elements,
            _ => {}
        }
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        let output = format!("{name}.out");
        self.nodes.push(Node {
            op,
            name: name.to_owned(),
            inputs,
            output: output.clone(),
            attributes,
        });
        Value { name: output, shape: shape.to_vec() }
    }

    /// Keeps a tensor of numbers under `name`, and gives the name back.
    pub(crate) fn numbers(&mut self, name: String, tensor: &Tensor) -> String {
        let tensor = tensor.detach().to_kind(Kind::Float);
        self.constants.push((name.clone(), Constant::Numbers(tensor)));
        name
    }

    /// Keeps a list of integers under `name`.
    pub(crate) fn integers(&mut self, name: String, values: &[i64]) -> String {
        let shape = vec![values.len() as i64];
        self.constants.push((name.clone(), Constant::Integers { shape, values: values.to_vec() }));
        name
    }

    /// Keeps one integer under `name`.
    pub(crate) fn integer(&mut self, name: String, value: i64) -> String {
        let constant = Constant::Integers { shape: Vec::new(), values: vec![value] };
        self.constants.push((name.clone(), constant));
        name
    }

    /// The sum of two values of one shape.
    pub(crate) fn add(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        self.node("Add", name, &[&a.name, &b.name], Vec::new(), &a.shape)
    }

    /// All axes but the batch in one.
    pub(crate) fn flatten(&mut self, name: &str, x: &Value) -> Value {
        let axis = vec![("axis", Attribute::Int(1))];
        self.node("Flatten", name, &[&x.name], axis, &[x.shape.iter().product()])
    }

    /// The same numbers in another shape; the batch stays.
    pub(crate) fn reshape(&mut self, name: &str, x: &Value, shape: &[i64]) -> Value {
        // 0 keeps the size of the axis in this place.
        let sizes = [&[0], shape].concat();
        let sizes = self.integers(format!("{name}.shape"), &sizes);
        self.node("Reshape", name, &[&x.name, &sizes], Vec::new(), shape)
    }

    /// The axes in another order, the batch counted as axis 0; `shape` is what comes out.
    pub(crate) fn transpose(
        &mut self,
        name: &str,
        x: &Value,
        axes: &[i64],
        shape: &[i64],
    ) -> Value {
        let perm = vec![("perm", Attribute::Ints(axes.to_vec()))];
        self.node("Transpose", name, &[&x.name], perm, shape)
    }
}
