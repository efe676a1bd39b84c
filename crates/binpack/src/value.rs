//! What a pickle of a verification pack may hold, and the callables that it may name.

use std::borrow::Cow;

use pfc_pickle::Id;

use crate::numpy::Dtype;

/// An object of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True`, `False`, or a numpy boolean.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// A byte string, `bytearray` or 8-bit string of Python 2.
    Bytes(Cow<'a, [u8]>),
    /// A Unicode string.
    Text(Cow<'a, str>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A callable that may be named.
    Callable(Callable),
    /// The element type of an array.
    Dtype(Dtype),
    /// A numpy array that is not filled yet.
    EmptyArray,
    /// A numpy array of one-byte elements, in memory order.
    Array {
        /// What an element is.
        dtype: Dtype,
        /// The bytes, a [`Value::Bytes`].
        data: Id,
    },
}

pfc_pickle::sequences!(Value<'_>);

/// What may be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callable {
    /// `_codecs.encode(text, "latin1")`: how Python 3 writes bytes for Python 2.
    Encode,
    /// `bytes()`: the empty byte string, written likewise.
    Bytes,
    /// `bytearray(…)`.
    ByteArray,
    /// `numpy.ndarray`, only ever named as an argument.
    NdArray,
    /// `numpy.dtype`.
    Dtype,
    /// `numpy.core.multiarray._reconstruct`: an array to fill.
    Reconstruct,
    /// `numpy.core.multiarray.scalar`.
    Scalar,
    /// `numpy.core.numeric._frombuffer`.
    FromBuffer,
}

impl Callable {
    /// The callable of this name, if it is one that packs need.
    pub(crate) fn named(module: &str, name: &str) -> Option<Callable> {
        // numpy.core became numpy._core in NumPy 2, and __builtin__ builtins in Python 3.
        let module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins");
        match (module.as_str(), name) {
            ("_codecs", "encode") => Some(Callable::Encode),
            ("builtins", "bytes") => Some(Callable::Bytes),
            ("builtins", "bytearray") => Some(Callable::ByteArray),
            ("numpy", "ndarray") => Some(Callable::NdArray),
            ("numpy", "dtype") => Some(Callable::Dtype),
            ("numpy.core.multiarray", "_reconstruct") => Some(Callable::Reconstruct),
            ("numpy.core.multiarray", "scalar") => Some(Callable::Scalar),
            ("numpy.core.numeric", "_frombuffer") => Some(Callable::FromBuffer),
            _ => None,
        }
    }
}
