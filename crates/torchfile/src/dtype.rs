//! Element types, by the names of PyTorch's storages.

/// What an element of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit floating point number.
    Bf16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Byte.
    U8,
    /// Boolean, a byte each.
    Bool,
}

const STORAGES: [(Dtype, &str); 10] = [
    (Dtype::F64, "DoubleStorage"),
    (Dtype::F32, "FloatStorage"),
    (Dtype::F16, "HalfStorage"),
    (Dtype::Bf16, "BFloat16Storage"),
    (Dtype::I64, "LongStorage"),
    (Dtype::I32, "IntStorage"),
    (Dtype::I16, "ShortStorage"),
    (Dtype::I8, "CharStorage"),
    (Dtype::U8, "ByteStorage"),
    (Dtype::Bool, "BoolStorage"),
];

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The class of its storages in `torch`.
    pub(crate) fn storage(self) -> &'static str {
        let row = STORAGES.iter().find(|(dtype, _)| *dtype == self);
        row.expect("every type has a row").1
    }

    pub(crate) fn of_storage(name: &str) -> Option<Dtype> {
        STORAGES.iter().find(|(_, storage)| *storage == name).map(|(dtype, _)| *dtype)
    }
}
