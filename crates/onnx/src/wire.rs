//! A model's messages walked as Protocol Buffers lay them out, and changed in places.
//!
//! What is not changed keeps its bytes, fields that nothing here knows among them: the runtime is given
//! the file as its maker wrote it.

/// Messages below one another, whatever the file holds; graphs in branches of graphs take three each.
const DEPTH_MAX: usize = 64;

/// The messages on the way to tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Model,
    Training,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
    /// An input of a graph.
    Value,
    /// An output of a graph.
    Output,
    /// What a file says of a value between two nodes.
    Between,
}

impl Message {
    /// What the field `tag` of this message holds, if it leads to a tensor.
    fn child(self, tag: u64) -> Option<Message> {
        Some(match (self, tag) {
            (Message::Model, 7) | (Message::Training, 1 | 2) | (Message::Attribute, 6 | 11) => {
                Message::Graph
            }
            (Message::Model, 20) => Message::Training,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
            (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::Sparse,
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::Sparse, 1 | 2) => {
                Message::Tensor
            }
            (Message::Graph, 11) => Message::Value,
            (Message::Graph, 12) => Message::Output,
            (Message::Graph, 13) => Message::Between,
            _ => return None,
        })
    }
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays as it is.
    Keep,
    /// These bytes take its place.
    Replace(Vec<u8>),
    /// It goes.
    Drop,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    /// Four or eight bytes.
    Fixed,
}

/// A field, and all its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'b> {
    pub(crate) tag: u64,
    pub(crate) payload: Payload<'b>,
    pub(crate) bytes: &'b [u8],
}

/// The fields of a message in order; the first that cannot be read ends it with an error.
pub(crate) fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<Field<'_>, String>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest;
        let Some((tag, payload)) = field(&mut rest) else {
            rest = &[];
            return Some(Err("it has a field that is cut short or of no known kind".to_owned()));
        };
        Some(Ok(Field { tag, payload, bytes: &whole[..whole.len() - rest.len()] }))
    })
}

fn field<'b>(rest: &mut &'b [u8]) -> Option<(u64, Payload<'b>)> {
    let key = varint(rest)?;
    let payload = match key & 7 {
        0 => Payload::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Payload::Fixed)?,
        2 => {
            let n = usize::try_from(varint(rest)?).ok()?;
            Payload::Bytes(take(rest, n)?)
        }
        5 => take(rest, 4).map(|_| Payload::Fixed)?,
        _ => return None,
    };
    Some((key >> 3, payload))
}

fn take<'b>(rest: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Adds a field of bytes to a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What becomes of a message, which lies among so many others; or why it is refused.
pub(crate) type ChangeOf<'a> = dyn FnMut(Message, &[u8], usize) -> Result<Change, String> + 'a;

/// The model with every tensor, and every value of a graph, changed as `change` says; `None` if all
/// stay. `change` is given the message, its bytes, and how many messages lie around it.
///
/// # Errors
///
/// What `change` refuses, and bytes that are no Protocol Buffers.
pub(crate) fn rewrite(model: &[u8], change: &mut ChangeOf<'_>) -> Result<Option<Vec<u8>>, String> {
    match rewrite_message(Message::Model, model, 0, change)? {
        Change::Replace(bytes) => Ok(Some(bytes)),
        _ => Ok(None),
    }
}

fn rewrite_message(
    message: Message,
    bytes: &[u8],
    depth: usize,
    change: &mut ChangeOf<'_>,
) -> Result<Change, String> {
    use Message::{Between, Output, Tensor, Value};
    if matches!(message, Tensor | Value | Output | Between) {
        return change(message, bytes, depth);
    }
    if depth > DEPTH_MAX {
        return Err(format!("its messages lie more than {DEPTH_MAX} deep"));
    }
    let mut out: Option<Vec<u8>> = None;
    let mut n_read = 0;
    for field in fields(bytes) {
        let field = field?;
        let changed = match (field.payload, message.child(field.tag)) {
            (Payload::Bytes(inner), Some(child)) => {
                rewrite_message(child, inner, depth + 1, change)?
            }
            _ => Change::Keep,
        };
        if changed != Change::Keep && out.is_none() {
            out = Some(bytes[..n_read].to_vec());
        }
        n_read += field.bytes.len();
        if let Some(out) = &mut out {
            match changed {
                Change::Keep => out.extend_from_slice(field.bytes),
                Change::Replace(inner) => put_bytes(out, field.tag, &inner),
                Change::Drop => {}
            }
        }
    }
    Ok(out.map_or(Change::Keep, Change::Replace))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::{GraphProto, ModelProto, TensorProto};

    fn model() -> Vec<u8> {
        let tensor = |name: &str| TensorProto { name: name.into(), ..TensorProto::default() };
        let graph =
            GraphProto { initializer: vec![tensor("a"), tensor("b")], ..GraphProto::default() };
        let mut bytes = ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
        // Field 99, which nothing here knows.
        bytes.extend([0x9a, 0x06, 3, b'x', b'y', b'z']);
        bytes
    }

    #[test]
    fn what_is_not_changed_keeps_its_bytes() {
        let model = model();
        assert_eq!(rewrite(&model, &mut |_, _, _| Ok(Change::Keep)), Ok(None));
        let mut n = 0;
        let renamed = rewrite(&model, &mut |message, _, _| {
            assert_eq!(message, Message::Tensor);
            n += 1;
            let c = TensorProto { name: "c".into(), ..TensorProto::default() };
            Ok(if n == 1 { Change::Drop } else { Change::Replace(c.encode_to_vec()) })
        });
        let renamed = renamed.unwrap().unwrap();
        assert!(renamed.ends_with(b"xyz"));
        let graph = ModelProto::decode(&renamed[..]).unwrap().graph.unwrap();
        assert_eq!(graph.initializer.len(), 1);
        assert_eq!(graph.initializer[0].name, "c");
    }

    #[test]
    fn bytes_that_are_cut_short_are_an_error() {
        let model = model();
        for n in 1..model.len() - 6 {
            let _ = rewrite(&model[..n], &mut |_, _, _| Ok(Change::Keep));
        }
        for bytes in [&[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x3b], &[0x80; 11]] {
            assert!(rewrite(bytes, &mut |_, _, _| Ok(Change::Keep)).is_err());
        }
    }
}
