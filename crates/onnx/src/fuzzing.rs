//! A door for the fuzzer to what reads foreign bytes.

use bytes::Bytes;

use crate::{InputOptions, declared::Declared, external, file, flat::Flat, front, nan};

/// Decodes a model, walks its messages and its tensors' numbers, writes out its functions, follows its input and cuts out the part
/// before the first layer; all but what the runtime does.
pub fn look(bytes: &[u8]) {
    let _ = external::is_used(bytes);
    let _ = nan::first(bytes);
    let Ok(model) = file::parse(Bytes::copy_from_slice(bytes)) else { return };
    let _ = file::without_stale_inputs(&model, bytes);
    let Some(graph) = &model.graph else { return };
    let Ok(flat) = Flat::of(&model, graph) else { return };
    if let Ok(declared) = Declared::of(graph, &InputOptions::default()) {
        let way = front::follow(&flat, &declared.name);
        let _ = flat.cut(&declared.value, &way.ends);
    }
}
