//! The little of numpy that packs hold: arrays of one-byte elements.

/// What an element of an array is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// `u1`, `i1`: a byte.
    Byte,
    /// `b1`: a boolean.
    Bool,
}

impl Dtype {
    /// The type by numpy's short name.
    pub fn named(name: &str) -> Option<Dtype> {
        match name.trim_start_matches('|') {
            "u1" | "i1" => Some(Dtype::Byte),
            "b1" | "?" => Some(Dtype::Bool),
            _ => None,
        }
    }
}

/// Elements of an array with these sides; `None` if a side is unknown or the product too large.
pub fn n_elements(sides: impl IntoIterator<Item = Option<usize>>) -> Option<usize> {
    sides.into_iter().try_fold(1_usize, |n, side| n.checked_mul(side?))
}
