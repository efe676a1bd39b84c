//! Weights that are no numbers, which a network may use for some pictures alone.

use half::{bf16, f16};
use prost::Message as _;

use crate::{
    proto::{TensorProto, data_type},
    wire::{self, Change, Message},
};

/// A tensor that holds NaN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithNan {
    pub(crate) tensor: String,
    pub(crate) n_bad: usize,
    /// Numbers that it has.
    pub(crate) n: usize,
}

/// The first tensor of `model` that holds NaN, wherever a model can hold tensors. Infinity is left alone:
/// bounds and masks have it for a purpose.
///
/// # Errors
///
/// Bytes that are no model.
pub(crate) fn first(model: &[u8]) -> Result<Option<WithNan>, String> {
    let mut found = None;
    wire::rewrite(model, &mut |message, bytes, _| {
        if message == Message::Tensor && found.is_none() {
            let tensor = TensorProto::decode(bytes).map_err(|error| error.to_string())?;
            found = of(tensor);
        }
        Ok(Change::Keep)
    })?;
    Ok(found)
}

/// Numbers are in `raw_data`, little-endian, or in the field of their type.
fn of(tensor: TensorProto) -> Option<WithNan> {
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let in_words = || tensor.int32_data.iter().map(|&word| word as u16);
    let (n, n_bad) = match tensor.data_type {
        data_type::FLOAT => {
            let raw = raw.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            count(raw.chain(tensor.float_data.iter().copied()), f32::is_nan)
        }
        data_type::DOUBLE => {
            let raw = raw.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
            count(raw.chain(tensor.double_data.iter().copied()), f64::is_nan)
        }
        data_type::FLOAT16 => {
            let raw = raw.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes));
            count(raw.chain(in_words().map(f16::from_bits)), f16::is_nan)
        }
        data_type::BFLOAT16 => {
            let raw = raw.as_chunks::<2>().0.iter().map(|&bytes| bf16::from_le_bytes(bytes));
            count(raw.chain(in_words().map(bf16::from_bits)), bf16::is_nan)
        }
        _ => return None,
    };
    (n_bad > 0).then_some(WithNan { tensor: tensor.name, n_bad, n })
}

fn count<T: Copy>(numbers: impl Iterator<Item = T>, is_nan: impl Fn(T) -> bool) -> (usize, usize) {
    numbers.fold((0, 0), |(n, n_bad), number| (n + 1, n_bad + usize::from(is_nan(number))))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto};

    fn check(tensor: TensorProto, expected: Option<(usize, usize)>) {
        let tensor = TensorProto { name: "w".to_owned(), ..tensor };
        let graph = GraphProto { initializer: vec![tensor.clone()], ..GraphProto::default() };
        let attribute = AttributeProto { t: Some(tensor), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        let constant = GraphProto { node: vec![node], ..GraphProto::default() };
        for graph in [graph, constant] {
            let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
            let expected = expected.map(|(n_bad, n)| WithNan { tensor: "w".to_owned(), n_bad, n });
            assert_eq!(first(&model.encode_to_vec()).unwrap(), expected);
        }
    }

    #[test]
    fn nan_is_found_in_every_type_wherever_its_numbers_are_and_infinity_is_left_alone() {
        let raw = |data_type: i32, bytes: Vec<u8>| TensorProto {
            data_type,
            raw_data: Some(Bytes::from(bytes)),
            ..TensorProto::default()
        };
        let floats = |numbers: [f32; 3]| numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        check(raw(data_type::FLOAT, floats([1.0, f32::NAN, 2.0])), Some((1, 3)));
        check(raw(data_type::FLOAT, floats([1.0, f32::INFINITY, -0.0])), None);
        // The bits of a NaN are none where they are integers.
        check(raw(data_type::INT32, floats([f32::NAN; 3])), None);
        // 0x7e00 is a NaN of f16, and 1.08e38 of bf16; 0x7fc0 is one of both.
        check(raw(data_type::FLOAT16, vec![0, 0x7e, 0, 0]), Some((1, 2)));
        check(raw(data_type::BFLOAT16, vec![0, 0x7e, 0, 0]), None);
        check(raw(data_type::BFLOAT16, vec![0xc0, 0x7f, 0xc0, 0x7f]), Some((2, 2)));
        check(raw(data_type::DOUBLE, f64::NAN.to_le_bytes().to_vec()), Some((1, 1)));
        let in_fields = TensorProto {
            float_data: vec![f32::NAN, 0.0],
            double_data: vec![f64::NAN, 0.0, 0.0],
            int32_data: vec![0x7fc0, 0, 0, 0],
            ..TensorProto::default()
        };
        for (data_type, n) in [
            (data_type::FLOAT, 2),
            (data_type::DOUBLE, 3),
            (data_type::FLOAT16, 4),
            (data_type::BFLOAT16, 4),
        ] {
            check(TensorProto { data_type, ..in_fields.clone() }, Some((1, n)));
        }
    }
}
