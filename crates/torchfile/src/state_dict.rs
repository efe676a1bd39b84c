//! The dictionary of tensors within a pickle.

use std::collections::HashMap;

use pfc_pickle::Id;

use crate::{
    TorchFileError,
    value::{Pickle, TensorRef, Value},
};

/// What is wanted of a file that holds more than one state dict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The weights of the network.
    Backbone,
    /// The class centres, under the key `weight`: what `arcface_torch` keeps in
    /// `softmax_fc_gpu_0.pt`, as `state_dict_softmax_fc` in `checkpoint_gpu_0.pt`, and, until 2021, as a
    /// single tensor in `rank_0_softmax_weight.pt`.
    Centres,
}

/// Under which name `arcface_torch` keeps the centres beside other things.
const CENTRES: &str = "state_dict_softmax_fc";

/// Under which names trainers keep the backbone beside other things: `arcface_torch` first.
const NESTED: [&str; 7] = [
    "state_dict_backbone",
    "state_dict",
    "model_state_dict",
    "backbone",
    "model",
    "net",
    "network",
];

/// What wrappers put before every key: `DataParallel`, `torch.compile`, a model around the backbone.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "backbone."];

/// The tensors of the state dict in `pickle`, in order, without the prefix that all share.
pub(crate) fn tensors<'p, 'a>(
    pickle: &'p Pickle<'a>,
    part: Part,
) -> Result<Vec<(String, &'p TensorRef<'a>)>, TorchFileError> {
    if let (Value::Tensor(tensor), Part::Centres) = (pickle.root(), part) {
        return Ok(vec![("weight".to_owned(), tensor)]);
    }
    let mut named = collect(pickle, find(pickle, part)?)?;
    while let Some(prefix) = PREFIXES.iter().find(|p| named.iter().all(|(k, _)| k.starts_with(*p)))
    {
        for (key, _) in &mut named {
            key.drain(..prefix.len());
        }
    }
    Ok(named)
}

type Dict = [(Id, Id)];

fn find<'p>(pickle: &'p Pickle<'_>, part: Part) -> Result<&'p Dict, TorchFileError> {
    let no_state_dict = |reason: String| TorchFileError::NoStateDict { reason };
    let Value::Dict(root) = pickle.root() else {
        let is_tensor = matches!(pickle.root(), Value::Tensor(_));
        let what = if is_tensor { "a single tensor" } else { "no dictionary" };
        return Err(no_state_dict(format!("its outermost object is {what}")));
    };
    let holds_tensors = |dict: &Dict| {
        !dict.is_empty()
            && dict.iter().all(|(_, value)| matches!(pickle.get(*value), Value::Tensor(_)))
    };
    if holds_tensors(root) {
        return Ok(root);
    }
    let names: &[&str] = match part {
        Part::Backbone => &NESTED,
        Part::Centres => &[CENTRES],
    };
    for name in names {
        if let Some(Value::Dict(dict)) = pickle.item(root, name)
            && holds_tensors(dict)
        {
            return Ok(dict);
        }
    }
    let keys = root.iter().filter_map(|(key, _)| match pickle.get(*key) {
        Value::Text(text) => Some(text.escape_debug().to_string()),
        _ => None,
    });
    let keys: Vec<String> = keys.take(8).collect();
    Err(no_state_dict(format!("its keys are {}", keys.join(", "))))
}

fn collect<'p, 'a>(
    pickle: &'p Pickle<'a>,
    dict: &Dict,
) -> Result<Vec<(String, &'p TensorRef<'a>)>, TorchFileError> {
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut named: Vec<(String, &TensorRef<'a>)> = Vec::with_capacity(dict.len());
    for (key, value) in dict {
        let (Value::Text(key), Value::Tensor(tensor)) = (pickle.get(*key), pickle.get(*value))
        else {
            let reason = "a key of its state dict is no text".to_owned();
            return Err(TorchFileError::NoStateDict { reason });
        };
        // A key that comes again replaces the value and keeps its place, as in Python.
        match place.get(key) {
            Some(&i) => named[i].1 = tensor,
            None => {
                place.insert(key, named.len());
                named.push(((*key).to_owned(), tensor));
            }
        }
    }
    Ok(named)
}
