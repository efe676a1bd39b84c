//! The objects of a pickle.

use pfc_pickle::Id;

use crate::{Dtype, global::Global};

/// An object; strings are borrowed from the pickle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// Little-endian two's complement of more than eight bytes.
    BigInt(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(StorageRef<'a>),
    Tensor(TensorRef<'a>),
    /// Something whose content does not matter.
    Opaque,
}

pfc_pickle::sequences!(Value<'_>);

/// A storage by its name in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageRef<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) n_elements: u64,
}

/// A view of a storage, not checked against it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorRef<'a> {
    pub(crate) storage: StorageRef<'a>,
    /// In elements.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// All objects, and the outermost.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(crate) objects: Vec<Value<'a>>,
    pub(crate) root: Id,
    /// Bytes that the pickle took.
    pub(crate) n_bytes: usize,
}

impl<'a> Pickle<'a> {
    pub(crate) fn get(&self, id: Id) -> &Value<'a> {
        &self.objects[id.index()]
    }

    pub(crate) fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    /// The value under `key`, the last one as in Python.
    pub(crate) fn item(&self, dict: &[(Id, Id)], key: &str) -> Option<&Value<'a>> {
        let is_key = |id: Id| matches!(self.get(id), Value::Text(text) if *text == key);
        dict.iter().rev().find(|(k, _)| is_key(*k)).map(|(_, v)| self.get(*v))
    }
}
