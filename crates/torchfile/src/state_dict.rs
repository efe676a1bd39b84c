//! The tensors within a pickle, wherever in its dictionaries they lie.

use std::collections::HashMap;

use pfc_pickle::Id;

use crate::{
    TorchFileError,
    value::{Pickle, TensorRef, Value},
};

/// A state dict within a checkpoint within a list is three deep.
const DEPTH_MAX: usize = 12;
/// Objects looked at, one for every way that leads to it: a pickle may name an object any number of times.
const VISITS_MAX: usize = 1 << 21;
/// Bytes of all keys together; those of the largest network with its optimizer take a few MB.
const KEY_BYTES_MAX: usize = 64 << 20;

/// What a pickle holds.
#[derive(Debug, Default)]
pub(crate) struct Contents<'p, 'a> {
    /// The tensors, in order. The key of each is that of its dictionary, after those of the dictionaries
    /// around it, with points between; that of a single tensor is empty.
    pub(crate) tensors: Vec<(String, &'p TensorRef<'a>)>,
    /// Keys of what holds no tensor.
    pub(crate) others: Vec<String>,
}

/// The tensors in `pickle`, and what is beside them.
///
/// # Errors
///
/// [`TorchFileError::NoStateDict`] if there is none, or more than any network's checkpoint has.
pub(crate) fn contents<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<Contents<'p, 'a>, TorchFileError> {
    let mut walk = Walk { pickle, found: Contents::default(), n_visits: 0, n_key_bytes: 0 };
    walk.visit(pickle.root, &mut String::new(), 0)?;
    if !walk.found.tensors.is_empty() {
        return Ok(walk.found);
    }
    Err(no_state_dict(match pickle.root() {
        Value::Dict(items) => {
            let keys = items.iter().filter_map(|(key, _)| match pickle.get(*key) {
                Value::Text(text) => Some(text.escape_debug().to_string()),
                _ => None,
            });
            let keys: Vec<String> = keys.take(8).collect();
            format!("no tensor is in it, and its keys are {}", keys.join(", "))
        }
        _ => "its outermost object is no dictionary, and no tensor is in it".to_owned(),
    }))
}

fn no_state_dict(reason: String) -> TorchFileError {
    TorchFileError::NoStateDict { reason }
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    found: Contents<'p, 'a>,
    n_visits: usize,
    n_key_bytes: usize,
}

impl<'p> Walk<'p, '_> {
    /// Takes the tensors at and below `id`, whose key is `key`.
    fn visit(&mut self, id: Id, key: &mut String, depth: usize) -> Result<(), TorchFileError> {
        self.n_visits += 1;
        if self.n_visits > VISITS_MAX {
            return Err(no_state_dict(format!("it has more than {VISITS_MAX} entries")));
        }
        let pickle: &'p Pickle<'_> = self.pickle;
        let (n_tensors, n_others) = (self.found.tensors.len(), self.found.others.len());
        match pickle.get(id) {
            Value::Tensor(tensor) => {
                let key = self.keep(key)?;
                self.found.tensors.push((key, tensor));
                return Ok(());
            }
            Value::Dict(items) if depth < DEPTH_MAX => {
                for (name, value) in self.last_of_each(items) {
                    self.visit_item(value, &name, key, depth)?;
                }
            }
            Value::List(items) | Value::Tuple(items) if depth < DEPTH_MAX => {
                for (i, value) in items.iter().enumerate() {
                    self.visit_item(*value, &i.to_string(), key, depth)?;
                }
            }
            _ => {}
        }
        if self.found.tensors.len() == n_tensors {
            // One name stands for all that is below.
            self.found.others.truncate(n_others);
            let key = self.keep(key)?;
            self.found.others.push(key);
        }
        Ok(())
    }

    fn visit_item(
        &mut self,
        id: Id,
        name: &str,
        key: &mut String,
        depth: usize,
    ) -> Result<(), TorchFileError> {
        let length = key.len();
        if !key.is_empty() {
            key.push('.');
        }
        key.push_str(name);
        let done = self.visit(id, key, depth + 1);
        key.truncate(length);
        done
    }

    fn keep(&mut self, key: &str) -> Result<String, TorchFileError> {
        self.n_key_bytes += key.len();
        if self.n_key_bytes > KEY_BYTES_MAX {
            return Err(no_state_dict(format!("its keys take more than {KEY_BYTES_MAX} bytes")));
        }
        Ok(key.to_owned())
    }

    /// The items whose keys are names or numbers. A key that comes again replaces the value and keeps its
    /// place, as in Python.
    fn last_of_each(&self, items: &[(Id, Id)]) -> Vec<(String, Id)> {
        let mut place: HashMap<String, usize> = HashMap::new();
        let mut named: Vec<(String, Id)> = Vec::with_capacity(items.len());
        for (key, value) in items {
            let key = match self.pickle.get(*key) {
                Value::Text(text) => (*text).to_owned(),
                Value::Int(number) => number.to_string(),
                _ => continue,
            };
            match place.get(&key) {
                Some(&i) => named[i].1 = *value,
                None => {
                    place.insert(key.clone(), named.len());
                    named.push((key, *value));
                }
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Object, StateEntry, machine, object};

    fn entry(key: &str) -> StateEntry {
        StateEntry { key: key.to_owned(), dtype: Dtype::F32, shape: vec![2] }
    }

    fn keys(object: &Object) -> (Vec<String>, Vec<String>) {
        let (bytes, _) = object::pickle(object);
        let pickle = machine::parse(&bytes).unwrap();
        let Contents { tensors, others } = contents(&pickle).unwrap();
        (tensors.into_iter().map(|(key, _)| key).collect(), others)
    }

    #[test]
    fn tensors_are_found_at_any_depth_and_the_rest_is_named_once() {
        let state = Object::StateDict(vec![entry("a.weight"), entry("b")]);
        let moments = Object::Dict(vec![(
            Object::Int(3),
            Object::dict([("m", Object::Tensor(Dtype::F32, vec![1]))]),
        )]);
        let settings =
            Object::dict([("lr", Object::Float(0.1)), ("names", Object::List(vec![Object::None]))]);
        let (tensors, others) = keys(&Object::dict([
            ("epoch", Object::Int(7)),
            ("state_dict", state),
            ("args", settings),
            ("optimizer", Object::dict([("state", moments), ("lr", Object::Float(0.1))])),
            ("list", Object::List(vec![Object::None, Object::Tensor(Dtype::F32, vec![1])])),
        ]));
        let expected = ["state_dict.a.weight", "state_dict.b", "optimizer.state.3.m", "list.1"];
        assert_eq!(tensors, expected);
        assert_eq!(others, ["epoch", "args", "optimizer.lr", "list.0"]);
        assert_eq!(keys(&Object::Tensor(Dtype::F32, vec![1])), (vec![String::new()], vec![]));
    }

    #[test]
    fn a_pickle_without_tensors_says_what_it_has() {
        let error = |object: &Object| {
            let (bytes, _) = object::pickle(object);
            contents(&machine::parse(&bytes).unwrap()).unwrap_err().to_string()
        };
        let found = error(&Object::dict([("epoch", Object::Int(1)), ("args", Object::None)]));
        assert!(found.ends_with("no tensor is in it, and its keys are epoch, args"), "{found}");
        assert!(error(&Object::Int(1)).ends_with("no dictionary, and no tensor is in it"));
    }

    #[test]
    fn objects_named_again_and_again_are_bounded() {
        // A dictionary with itself as a value: EMPTY_DICT, BINPUT 0, the key, BINGET 0, SETITEM.
        let own = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
        assert!(contents(&machine::parse(own).unwrap()).is_err());
        // Thirty lists, each of which names the one before four times.
        let mut bytes = b"\x80\x02]q\x00".to_vec();
        for i in 0..30u8 {
            bytes.extend(b"](");
            (0..4).for_each(|_| bytes.extend([b'h', i]));
            bytes.extend([b'e', b'q', i + 1]);
        }
        bytes.push(b'.');
        assert!(contents(&machine::parse(&bytes).unwrap()).is_err());
    }
}
