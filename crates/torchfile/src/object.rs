//! What an archive holds beside the numbers of its tensors, and the pickle that says so.

use pfc_pickle::op;

use crate::Dtype;

/// Name, type and shape of a tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// State-dict key.
    pub key: String,
    /// What an element is.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
}

/// An object that `torch.load` gives back, with `weights_only=True` too.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A Python `float`.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Object>),
    /// A tuple.
    Tuple(Vec<Object>),
    /// A `dict`, its items in their order.
    Dict(Vec<(Object, Object)>),
    /// An `OrderedDict` of tensors, as `Module.state_dict()` gives.
    StateDict(Vec<StateEntry>),
    /// A tensor of this type and shape, whose numbers are written apart.
    Tensor(Dtype, Vec<u64>),
}

impl Object {
    /// A string.
    pub fn text(text: &str) -> Object {
        Object::Text(text.to_owned())
    }

    /// A `dict` whose keys are strings.
    pub fn dict<'k>(items: impl IntoIterator<Item = (&'k str, Object)>) -> Object {
        Object::Dict(items.into_iter().map(|(key, value)| (Object::text(key), value)).collect())
    }
}

/// The pickle of `object`, as `torch.save` writes it, and the bytes of each tensor in its order.
pub(crate) fn pickle(object: &Object) -> (Vec<u8>, Vec<u64>) {
    let mut pickler = Pickler { out: vec![op::PROTO, 2], tensors: Vec::new() };
    pickler.object(object);
    pickler.out.push(op::STOP);
    (pickler.out, pickler.tensors)
}

struct Pickler {
    out: Vec<u8>,
    tensors: Vec<u64>,
}

impl Pickler {
    fn object(&mut self, object: &Object) {
        match object {
            Object::None => self.out.push(op::NONE),
            Object::Bool(true) => self.out.push(op::NEWTRUE),
            Object::Bool(false) => self.out.push(op::NEWFALSE),
            Object::Int(value) => self.integer(*value),
            Object::Float(value) => {
                self.out.push(op::BINFLOAT);
                self.out.extend(value.to_be_bytes());
            }
            Object::Text(text) => self.text(text),
            Object::List(items) => {
                self.out.extend([op::EMPTY_LIST, op::MARK]);
                items.iter().for_each(|item| self.object(item));
                self.out.push(op::APPENDS);
            }
            Object::Tuple(items) => {
                self.out.push(op::MARK);
                items.iter().for_each(|item| self.object(item));
                self.out.push(op::TUPLE);
            }
            Object::Dict(items) => {
                self.out.extend([op::EMPTY_DICT, op::MARK]);
                for (key, value) in items {
                    self.object(key);
                    self.object(value);
                }
                self.out.push(op::SETITEMS);
            }
            Object::StateDict(entries) => {
                self.ordered_dict();
                self.out.push(op::MARK);
                for StateEntry { key, dtype, shape } in entries {
                    self.text(key);
                    self.tensor(*dtype, shape);
                }
                self.out.push(op::SETITEMS);
            }
            Object::Tensor(dtype, shape) => self.tensor(*dtype, shape),
        }
    }

    /// A call of `_rebuild_tensor_v2`, which takes a storage, offset, shape, strides, whether there is a
    /// gradient, and hooks.
    fn tensor(&mut self, dtype: Dtype, shape: &[u64]) {
        let n_elements = shape.iter().product::<u64>();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend([op::MARK, op::MARK]);
        self.text("storage");
        self.global("torch", dtype.storage());
        self.text(&self.tensors.len().to_string());
        self.text("cpu");
        self.count(n_elements);
        self.out.extend([op::TUPLE, op::BINPERSID]);
        self.integer(0);
        self.counts(shape);
        self.counts(&strides(shape));
        self.out.push(op::NEWFALSE);
        self.ordered_dict();
        self.out.extend([op::TUPLE, op::REDUCE]);
        self.tensors.push(n_elements * dtype.size() as u64);
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.out.extend([op::EMPTY_TUPLE, op::REDUCE]);
    }

    fn global(&mut self, module: &str, name: &str) {
        self.out.push(op::GLOBAL);
        self.out.extend(format!("{module}\n{name}\n").bytes());
    }

    fn text(&mut self, text: &str) {
        self.out.push(op::BINUNICODE);
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend(text.bytes());
    }

    fn counts(&mut self, values: &[u64]) {
        self.out.push(op::MARK);
        values.iter().for_each(|value| self.count(*value));
        self.out.push(op::TUPLE);
    }

    /// No tensor has so many elements that the sign bit is set.
    fn count(&mut self, value: u64) {
        self.integer(value as i64);
    }

    fn integer(&mut self, value: i64) {
        if let Ok(value) = i32::try_from(value) {
            self.out.push(op::BININT);
            self.out.extend(value.to_le_bytes());
        } else {
            self.out.extend([op::LONG1, 8]);
            self.out.extend(value.to_le_bytes());
        }
    }
}

/// How far apart neighbours of each axis lie, in elements.
fn strides(shape: &[u64]) -> Vec<u64> {
    let mut strides: Vec<u64> = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for side in shape.iter().rev() {
        strides.push(stride);
        stride *= (*side).max(1);
    }
    strides.reverse();
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine, value::Value};

    #[test]
    fn every_kind_of_object_is_read_as_what_it_was() {
        let number = |value: i64| Object::Int(value);
        let object = Object::dict([
            ("none", Object::None),
            ("yes", Object::Bool(true)),
            ("no", Object::Bool(false)),
            ("int", number(-5)),
            ("float", Object::Float(0.1)),
            ("list", Object::List(vec![number(1), number(2)])),
            ("empty", Object::List(Vec::new())),
            ("tuple", Object::Tuple(vec![Object::Float(0.9), Object::text("b")])),
            ("dict", Object::Dict(vec![(number(7), Object::Tensor(Dtype::F32, vec![2, 3]))])),
            ("scalar", Object::Tensor(Dtype::I64, Vec::new())),
        ]);
        let (bytes, tensors) = pickle(&object);
        assert_eq!(tensors, [24, 8]);
        let parsed = machine::parse(&bytes).unwrap();
        let Value::Dict(root) = parsed.root() else { panic!("{:?}", parsed.root()) };
        let item = |key: &str| parsed.item(root, key).unwrap();
        assert_eq!(item("none"), &Value::None);
        assert_eq!((item("yes"), item("no")), (&Value::Bool(true), &Value::Bool(false)));
        assert_eq!((item("int"), item("float")), (&Value::Int(-5), &Value::Float(0.1)));
        let items = |key: &str| match item(key) {
            Value::List(ids) | Value::Tuple(ids) => {
                ids.iter().map(|id| parsed.get(*id).clone()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(items("list"), [Value::Int(1), Value::Int(2)]);
        assert_eq!(items("empty"), []);
        assert_eq!(items("tuple"), [Value::Float(0.9), Value::Text("b")]);
        let Value::Dict(dict) = item("dict") else { panic!("{:?}", item("dict")) };
        assert_eq!(parsed.get(dict[0].0), &Value::Int(7));
        match parsed.get(dict[0].1) {
            Value::Tensor(tensor) => {
                assert_eq!((&tensor.shape[..], tensor.offset), (&[2, 3][..], 0));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(item("scalar"), Value::Tensor(tensor) if tensor.storage.key == "1"));
    }
}
