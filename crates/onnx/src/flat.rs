//! A model's graph with its own functions written out, of which parts can be cut and run on their own.

use std::collections::{HashMap, HashSet};

use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    TensorProto, ValueInfoProto, attribute_type, data_type,
};

/// Functions within functions.
const DEPTH_MAX: usize = 8;
/// Nodes of a graph once its functions are written out; functions that call each other twice would
/// double with every level.
const NODES_MAX: usize = 1 << 17;

/// The nodes of a model in order, none of which stands for others.
#[derive(Debug)]
pub(crate) struct Flat<'m> {
    pub(crate) nodes: Vec<NodeProto>,
    model: &'m ModelProto,
    /// The node that makes a value, by the value's name.
    made_by: HashMap<String, usize>,
    constants: HashMap<&'m str, &'m TensorProto>,
    sparse: HashMap<&'m str, &'m SparseTensorProto>,
}

impl<'m> Flat<'m> {
    /// Writes the functions of `model` out.
    ///
    /// # Errors
    ///
    /// A model that is all too large so.
    pub(crate) fn of(model: &'m ModelProto, graph: &'m GraphProto) -> Result<Flat<'m>, String> {
        let mut nodes = Vec::with_capacity(graph.node.len());
        let mut left = NODES_MAX;
        for node in &graph.node {
            write_out(node.clone(), &model.functions, 0, &mut nodes, &mut left)?;
        }
        let made_by = nodes.iter().enumerate().flat_map(|(i, node)| {
            let named = node.output.iter().filter(|name| !name.is_empty());
            named.map(move |name| (name.clone(), i))
        });
        let made_by = made_by.collect();
        let constants = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        let sparse = graph.sparse_initializer.iter();
        let sparse = sparse.filter_map(|t| Some((t.values.as_ref()?.name.as_str(), t))).collect();
        Ok(Flat { nodes, model, made_by, constants, sparse })
    }

    /// Whether `name` is a constant of the file.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name) || self.sparse.contains_key(name)
    }

    /// Sizes of a constant that is kept as such.
    pub(crate) fn sizes(&self, name: &str) -> Option<&[i64]> {
        self.constants.get(name).map(|tensor| &tensor.dims[..])
    }

    /// The node that makes the value `name`.
    pub(crate) fn maker(&self, name: &str) -> Option<&NodeProto> {
        self.made_by.get(name).map(|&i| &self.nodes[i])
    }

    /// A model of what leads from `input` to the values `ends`, which become its outputs in order.
    pub(crate) fn cut(&self, input: &ValueInfoProto, ends: &[String]) -> ModelProto {
        let (mut wanted, mut nodes) = (ends.to_vec(), HashSet::new());
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(name) = wanted.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(&i) = self.made_by.get(&name)
                && name != input.name
                && nodes.insert(i)
            {
                wanted.extend(inputs_of(&self.nodes[i]));
            }
        }
        let mut ordered: Vec<usize> = nodes.into_iter().collect();
        ordered.sort_unstable();
        let mut node: Vec<NodeProto> = ordered.iter().map(|&i| self.nodes[i].clone()).collect();
        // An end may be the input itself, or a constant, neither of which can be an output; and of any
        // type of numbers.
        let output = |i: usize| format!("pfc.end.{i}");
        let to_float = AttributeProto {
            name: "to".to_owned(),
            kind: attribute_type::INT,
            i: Some(i64::from(data_type::FLOAT)),
            ..AttributeProto::default()
        };
        node.extend(ends.iter().enumerate().map(|(i, end)| NodeProto {
            op_type: "Cast".to_owned(),
            input: vec![end.clone()],
            output: vec![output(i)],
            attribute: vec![to_float.clone()],
            ..NodeProto::default()
        }));
        let value = |name| ValueInfoProto { name, r#type: None };
        let initializer = self.constants.iter().filter(|(name, _)| seen.contains(**name));
        let sparse = self.sparse.iter().filter(|(name, _)| seen.contains(**name));
        let graph = GraphProto {
            node,
            name: "part".to_owned(),
            initializer: initializer.map(|(_, tensor)| (*tensor).clone()).collect(),
            sparse_initializer: sparse.map(|(_, tensor)| (*tensor).clone()).collect(),
            input: vec![input.clone()],
            output: (0..ends.len()).map(|i| value(output(i))).collect(),
        };
        let functions = self.model.functions.iter().flat_map(|function| &function.opset_import);
        let mut opset_import = self.model.opset_import.clone();
        for opset in functions {
            if !opset_import.iter().any(|known| known.domain == opset.domain) {
                opset_import.push(opset.clone());
            }
        }
        ModelProto {
            ir_version: self.model.ir_version,
            opset_import,
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

/// Values that a node takes, those that its branches take from around them among them.
pub(crate) fn inputs_of(node: &NodeProto) -> Vec<String> {
    let mut names: Vec<String> =
        node.input.iter().filter(|name| !name.is_empty()).cloned().collect();
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            names.extend(graph.node.iter().flat_map(inputs_of));
            names.extend(graph.output.iter().map(|output| output.name.clone()));
        }
    }
    names
}

fn write_out(
    node: NodeProto,
    functions: &[FunctionProto],
    depth: usize,
    nodes: &mut Vec<NodeProto>,
    left: &mut usize,
) -> Result<(), String> {
    // Calls count as well: functions of nothing but calls would take for ever to come to nothing.
    let too_many = || format!("it has more than {NODES_MAX} nodes with its functions written out");
    *left = left.checked_sub(1).ok_or_else(too_many)?;
    let is_called = |function: &&FunctionProto| {
        (&function.name, &function.domain) == (&node.op_type, &node.domain)
            && function.overload == node.overload
    };
    let function = functions.iter().find(is_called).filter(|function| can_be_written_out(function));
    let Some(function) = function.filter(|_| depth < DEPTH_MAX) else {
        nodes.push(node);
        return Ok(());
    };
    let prefix = format!("pfc.{}.{depth}/", nodes.len());
    let pairs = |inner: &[String], outer: &[String]| -> Vec<(String, String)> {
        // What the caller leaves out has no name.
        let outer = outer.iter().cloned().chain(std::iter::repeat(String::new()));
        inner.iter().cloned().zip(outer).collect()
    };
    let mut names: HashMap<String, String> =
        pairs(&function.input, &node.input).into_iter().collect();
    let outputs = pairs(&function.output, &node.output);
    names.extend(outputs.into_iter().filter(|(_, outer)| !outer.is_empty()));
    for inner in &function.node {
        let rename = |name: &String| match names.get(name) {
            Some(outer) => outer.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{prefix}{name}"),
        };
        let renamed = NodeProto {
            input: inner.input.iter().map(rename).collect(),
            output: inner.output.iter().map(rename).collect(),
            // Names of nodes are to be unique, and mean nothing.
            name: String::new(),
            attribute: attributes(inner, &node, function),
            ..inner.clone()
        };
        write_out(renamed, functions, depth + 1, nodes, left)?;
    }
    Ok(())
}

/// A function that hands an input on unchanged, or whose nodes have branches with names of their own,
/// stays a call.
fn can_be_written_out(function: &FunctionProto) -> bool {
    let has_branch = |node: &NodeProto| {
        node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
    };
    !function.node.iter().any(has_branch)
        && function.output.iter().all(|name| !function.input.contains(name))
}

/// The attributes of a node within `function`, those that it takes from `call` filled in.
fn attributes(node: &NodeProto, call: &NodeProto, function: &FunctionProto) -> Vec<AttributeProto> {
    let fill = |attribute: &AttributeProto| {
        if attribute.ref_attr_name.is_empty() {
            return Some(attribute.clone());
        }
        let given = call.attribute.iter().chain(&function.attribute_proto);
        let given = given.into_iter().find(|given| given.name == attribute.ref_attr_name)?;
        Some(AttributeProto { name: attribute.name.clone(), ..given.clone() })
    };
    node.attribute.iter().filter_map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NodeProto {
            op_type: op.into(),
            input: names(input),
            output: names(output),
            ..NodeProto::default()
        }
    }

    #[test]
    fn functions_are_written_out_with_names_and_attributes_of_their_own() {
        let mut flatten = node("Flatten", &["t"], &["y"]);
        let mut axis =
            AttributeProto { name: "axis".into(), ref_attr_name: "a".into(), ..Default::default() };
        flatten.attribute.push(axis.clone());
        let function = FunctionProto {
            name: "F".into(),
            domain: "local".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            node: vec![node("Neg", &["x"], &["t"]), flatten],
            ..FunctionProto::default()
        };
        let mut call = node("F", &["data"], &["out"]);
        call.domain = "local".into();
        (axis.name, axis.ref_attr_name, axis.i) = ("a".into(), String::new(), Some(3));
        call.attribute.push(axis);
        let graph = GraphProto { node: vec![call], ..GraphProto::default() };
        let model = ModelProto { functions: vec![function], ..ModelProto::default() };
        let flat = Flat::of(&model, &graph).unwrap();
        let ops: Vec<&str> = flat.nodes.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Neg", "Flatten"]);
        assert_eq!(
            (flat.nodes[0].input[0].as_str(), flat.nodes[1].output[0].as_str()),
            ("data", "out")
        );
        assert_eq!(flat.nodes[0].output, flat.nodes[1].input);
        let axis = &flat.nodes[1].attribute[0];
        assert_eq!((axis.name.as_str(), axis.i), ("axis", Some(3)));
    }

    #[test]
    fn functions_that_double_at_every_level_are_bounded() {
        // The last one does something, or nothing at all.
        for last in [1, 0] {
            let function = |i: usize| FunctionProto {
                name: format!("F{i}"),
                node: vec![node(&format!("F{}", i + 1), &[], &[]); if i < 7 { 40 } else { last }],
                ..FunctionProto::default()
            };
            let functions = (0..8).map(function).collect();
            let model = ModelProto { functions, ..ModelProto::default() };
            let graph = GraphProto { node: vec![node("F0", &[], &[])], ..GraphProto::default() };
            assert!(Flat::of(&model, &graph).unwrap_err().contains("more than"));
        }
    }

    #[test]
    fn a_part_holds_what_leads_to_its_ends_and_no_more() {
        let tensor = |name: &str| TensorProto { name: name.into(), ..TensorProto::default() };
        let graph = GraphProto {
            node: vec![
                node("Sub", &["data", "m"], &["a"]),
                node("Cast", &["c"], &["d"]),
                node("Mul", &["a", "d"], &["b"]),
                node("Conv", &["b", "w"], &["e"]),
            ],
            initializer: vec![tensor("m"), tensor("c"), tensor("w")],
            ..GraphProto::default()
        };
        let model = ModelProto::default();
        let flat = Flat::of(&model, &graph).unwrap();
        let input = ValueInfoProto { name: "data".into(), r#type: None };
        let part = flat.cut(&input, &["b".to_owned()]).graph.unwrap();
        let ops: Vec<&str> = part.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Sub", "Cast", "Mul", "Cast"]);
        assert_eq!(part.initializer.len(), 2);
        assert_eq!(part.output[0].name, part.node[3].output[0]);
    }
}
