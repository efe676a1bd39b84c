//! The stack machine that a pickle is a program for, without anything that acts.

use pfc_pickle::{Id, Limits, PickleError, Reader, Stack, op};

use crate::{
    global::Global,
    value::{Pickle, StorageRef, TensorRef, Value},
};

/// The state of an optimizer over the largest network makes under 100,000 objects.
const LIMITS: Limits = Limits { objects: 1 << 21, pushes: 1 << 22, tuple: 16 };

/// Whose pickle it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A state dict, or what a trainer saves beside one: a list says what may be in it.
    StateDict,
    /// The modules of a TorchScript program, or its constants: what is unknown stands for nothing.
    Script,
}

/// Runs the first pickle in `bytes`, a state dict's, to its end.
///
/// # Errors
///
/// [`PickleError`] at the first instruction that is unknown, not allowed or damaged.
pub(crate) fn parse(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    run(bytes, Kind::StateDict)
}

/// The same of a TorchScript program's.
///
/// # Errors
///
/// As [`parse`].
pub(crate) fn parse_script(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    run(bytes, Kind::Script)
}

fn run(bytes: &[u8], kind: Kind) -> Result<Pickle<'_>, PickleError> {
    let name = match kind {
        Kind::StateDict => "a state dict",
        Kind::Script => "a TorchScript program",
    };
    let mut machine = Machine { input: Reader::new(bytes), stack: Stack::new(name, LIMITS), kind };
    loop {
        let opcode = machine.stack.next(&mut machine.input)?;
        if opcode == op::STOP {
            let root = machine.stack.pop()?;
            let n_bytes = machine.input.offset();
            return Ok(Pickle { objects: machine.stack.into_objects(), root, n_bytes });
        }
        if !machine.stack.step(opcode, &mut machine.input)? {
            machine.step(opcode)?;
        }
    }
}

struct Machine<'a> {
    input: Reader<'a>,
    stack: Stack<Value<'a>>,
    kind: Kind,
}

type Done = Result<(), PickleError>;

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Done {
        match opcode {
            op::PROTO => self.protocol(),
            op::NONE => self.stack.push(Value::None),
            op::NEWTRUE => self.stack.push(Value::Bool(true)),
            op::NEWFALSE => self.stack.push(Value::Bool(false)),
            op::BININT | op::BININT1 | op::BININT2 | op::LONG1 | op::BINFLOAT => {
                let value = self.number(opcode)?;
                self.stack.push(value)
            }
            op::BINSTRING
            | op::SHORT_BINSTRING
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINUNICODE
            | op::SHORT_BINUNICODE => {
                let bytes = self.input.counted(opcode)?;
                // Python 2 wrote names as bytes, and nothing else in these files is a byte string.
                self.stack.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
            }
            op::EMPTY_DICT => self.stack.push(Value::Dict(Vec::new())),
            op::EMPTY_SET => self.stack.push(Value::Opaque),
            op::FROZENSET => {
                self.stack.pop_mark()?;
                self.stack.push(Value::Opaque)
            }
            op::ADDITEMS => {
                self.stack.pop_mark()?;
                match self.stack.get(self.stack.top()?) {
                    Value::Opaque => Ok(()),
                    _ => Err(self.stack.wrong("items are added to what is no set")),
                }
            }
            op::DICT => {
                let items = self.stack.pop_mark()?;
                self.stack.push(Value::Dict(Vec::new()))?;
                self.set(items)
            }
            op::SETITEM => {
                let (value, key) = (self.stack.pop()?, self.stack.pop()?);
                self.set(vec![key, value])
            }
            op::SETITEMS => {
                let items = self.stack.pop_mark()?;
                self.set(items)
            }
            op::GLOBAL => {
                let module = self.input.line_text()?;
                let name = self.input.line_text()?;
                self.import(module, name)
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.stack.pop()?, self.stack.pop()?);
                match (self.stack.get(module), self.stack.get(name)) {
                    (&Value::Text(module), &Value::Text(name)) => self.import(module, name),
                    _ => Err(self.stack.wrong("a name is expected")),
                }
            }
            op::BINPERSID => self.storage(),
            op::REDUCE => self.reduce(),
            op::NEWOBJ => self.new_object(),
            op::BUILD => self.build(),
            other => Err(self.stack.no_such_instruction(other)),
        }
    }

    fn protocol(&mut self) -> Done {
        match self.input.byte()? {
            2..=5 => Ok(()),
            other => Err(self.stack.wrong(format!("pickle protocol {other}; 2 to 5 are known"))),
        }
    }

    fn number(&mut self, opcode: u8) -> Result<Value<'a>, PickleError> {
        Ok(match opcode {
            op::BININT => Value::Int(i64::from(i32::from_le_bytes(self.input.array()?))),
            op::BININT1 => Value::Int(i64::from(self.input.byte()?)),
            op::BININT2 => Value::Int(i64::from(u16::from_le_bytes(self.input.array()?))),
            op::BINFLOAT => Value::Float(f64::from_be_bytes(self.input.array()?)),
            _ => {
                let bytes = self.input.long1_bytes()?;
                let mut word = [if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 }; 8];
                match word.get_mut(..bytes.len()) {
                    Some(low) => {
                        low.copy_from_slice(bytes);
                        Value::Int(i64::from_le_bytes(word))
                    }
                    None => Value::BigInt(bytes),
                }
            }
        })
    }

    /// Puts keys and values, alternating, into the dictionary on top.
    fn set(&mut self, items: Vec<Id>) -> Done {
        let dict = self.stack.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.get_mut(dict) {
            Value::Dict(old) if rest.is_empty() => {
                old.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Value::Opaque => Ok(()),
            _ => Err(self.stack.wrong("items are set in what is no dictionary")),
        }
    }

    fn count(&self, id: Id) -> Result<u64, PickleError> {
        match self.stack.get(id) {
            &Value::Int(value) if value >= 0 => Ok(value as u64),
            _ => Err(self.stack.wrong("a count is expected")),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<u64>, PickleError> {
        self.stack.short_tuple(id)?.into_iter().map(|id| self.count(id)).collect()
    }

    fn import(&mut self, module: &str, name: &str) -> Done {
        let known = match self.kind {
            Kind::StateDict => Global::named(module, name),
            Kind::Script => Some(Global::of_script(module, name)),
        };
        match known {
            Some(global) => self.stack.push(Value::Global(global)),
            None => Err(self.stack.no_such_import(module, name)),
        }
    }

    /// `("storage", type, key, device, elements)`: the bytes of one or more tensors.
    fn storage(&mut self) -> Done {
        let id = self.stack.pop()?;
        let parts = self.stack.short_tuple(id)?;
        let (&[kind, dtype, key, _device, n_elements]
        | &[kind, dtype, key, _device, n_elements, _]) = &parts[..]
        else {
            return Err(self.stack.wrong("a persistent object is described by five or six items"));
        };
        let is_whole = parts.get(5).is_none_or(|view| matches!(self.stack.get(*view), Value::None));
        match (self.stack.get(kind), self.stack.get(dtype), self.stack.get(key)) {
            (Value::Text("storage"), &Value::Global(Global::Storage(dtype)), &Value::Text(key))
                if is_whole =>
            {
                let n_elements = self.count(n_elements)?;
                self.stack.push(Value::Storage(StorageRef { key, dtype, n_elements }))
            }
            _ if self.kind == Kind::Script => self.stack.push(Value::Opaque),
            _ => Err(self.stack.wrong("a persistent object that is no storage")),
        }
    }

    /// The meaning of calling a callable; nothing is run.
    fn reduce(&mut self) -> Done {
        let (arguments, callable) = (self.stack.pop()?, self.stack.pop()?);
        let Value::Global(global) = *self.stack.get(callable) else {
            return Err(self.stack.wrong("what is called is no callable"));
        };
        if global == Global::Opaque {
            return self.stack.push(Value::Opaque);
        }
        let arguments = self.stack.short_tuple(arguments)?;
        match (self.kind, global, &arguments[..]) {
            (Kind::Script, Global::Typed, &[value, ..]) => self.stack.push_id(value),
            // An enumeration, or a tensor of numbers that are not read here.
            (Kind::Script, Global::Module | Global::Typed, _) => self.stack.push(Value::Opaque),
            (Kind::Script, Global::RebuildTensor, &[storage, ..])
                if !matches!(self.stack.get(storage), Value::Storage(_)) =>
            {
                self.stack.push(Value::Opaque)
            }
            _ => self.call(global, &arguments),
        }
    }

    fn call(&mut self, global: Global, arguments: &[Id]) -> Done {
        match (global, arguments) {
            (Global::Dict, []) => self.stack.push(Value::Dict(Vec::new())),
            // Python 2 wrote the items of an `OrderedDict` as a list of pairs; a `defaultdict` comes with what
            // makes its values, a `Counter` with a dictionary.
            (Global::Dict, &[items]) => match self.stack.get(items) {
                Value::List(_) => self.ordered_dict(items),
                Value::Dict(_) => self.stack.push_id(items),
                _ => self.stack.push(Value::Dict(Vec::new())),
            },
            (Global::List, _) => self.stack.push(Value::List(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor([storage, offset, shape, strides])?;
                self.stack.push(Value::Tensor(tensor))
            }
            (Global::RebuildParameter, &[tensor, ..]) => match self.stack.get(tensor) {
                Value::Tensor(_) => self.stack.push_id(tensor),
                _ => Err(self.stack.wrong("a parameter that is no tensor")),
            },
            (Global::RebuildFromType, &[function, _, arguments, ..]) => {
                let &Value::Global(function @ Global::RebuildTensor) = self.stack.get(function)
                else {
                    return Err(self.stack.wrong("a tensor is made in an unknown way"));
                };
                let arguments = self.stack.short_tuple(arguments)?;
                self.call(function, &arguments)
            }
            (Global::Size, &[sizes]) => self.stack.push_id(sizes),
            _ => Err(self
                .stack
                .wrong(format!("{global:?} is called with other arguments than known"))),
        }
    }

    /// An object of a class, without a call of its initialiser.
    fn new_object(&mut self) -> Done {
        let (_arguments, class) = (self.stack.pop()?, self.stack.pop()?);
        match self.stack.get(class) {
            Value::Global(Global::Opaque) => self.stack.push(Value::Opaque),
            Value::Global(Global::Dict | Global::Module) => {
                self.stack.push(Value::Dict(Vec::new()))
            }
            _ => Err(self.stack.wrong("an object is made of what is no known class")),
        }
    }

    fn ordered_dict(&mut self, items: Id) -> Done {
        let Value::List(items) = self.stack.get(items) else {
            return Err(self.stack.wrong("a dictionary is made of a list of pairs"));
        };
        let pair = |id: &Id| match self.stack.get(*id) {
            Value::Tuple(pair) | Value::List(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        let pairs: Option<Vec<(Id, Id)>> = items.iter().map(pair).collect();
        let pairs = pairs.ok_or_else(|| self.stack.wrong("a dictionary is made of pairs"))?;
        // Each call copies the list: it counts as pushing its items again.
        self.stack.charge(pairs.len())?;
        self.stack.push(Value::Dict(pairs))
    }

    fn tensor(&self, parts: [Id; 4]) -> Result<TensorRef<'a>, PickleError> {
        let [storage, offset, shape, strides] = parts;
        let &Value::Storage(storage) = self.stack.get(storage) else {
            return Err(self.stack.wrong("a tensor without a storage"));
        };
        let (offset, shape) = (self.count(offset)?, self.counts(shape)?);
        let strides = self.counts(strides)?;
        if strides.len() != shape.len() {
            return Err(self.stack.wrong("a tensor has as many strides as axes"));
        }
        Ok(TensorRef { storage, offset, shape, strides })
    }

    /// The state that is set is a dictionary's `_metadata`, or that of an object of no interest here; that of
    /// an object of a TorchScript program is its attributes.
    fn build(&mut self) -> Done {
        let (state, target) = (self.stack.pop()?, self.stack.top()?);
        if let (Kind::Script, Value::Dict(items)) = (self.kind, self.stack.get(state)) {
            let items = items.clone();
            // They are copied: it counts as pushing them again.
            self.stack.charge(items.len())?;
            if let Value::Dict(attributes) = self.stack.get_mut(target) {
                attributes.extend(items);
            }
        }
        match self.stack.get(target) {
            Value::Dict(_) | Value::Opaque => Ok(()),
            _ => Err(self.stack.wrong("a state is set for what has none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        assert_eq!(parse(bytes).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_call_of_the_system_is_refused_by_name() {
        check_refused(
            b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00echo\x85R.",
            "byte 2: it asks to import `posix.system`, which has no place in a state dict",
        );
        check_refused(
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
            "byte 18: it asks to import `builtins.eval`, which has no place in a state dict",
        );
        // What torch itself offers is no better.
        check_refused(
            b"\x80\x02ctorch\nload\n.",
            "byte 2: it asks to import `torch.load`, which has no place in a state dict",
        );
    }

    #[test]
    fn instructions_that_make_objects_are_refused_by_name() {
        for (opcode, name) in [(b'i', "INST"), (b'o', "OBJ"), (0x92, "NEWOBJ_EX"), (0x82, "EXT1")] {
            let problem = parse(&[0x80, 2, opcode]).unwrap_err().problem;
            assert!(problem.contains(name), "{problem}");
        }
    }

    #[test]
    fn objects_are_made_of_harmless_classes_alone() {
        // argparse.Namespace(), with its state set.
        let harmless =
            parse(b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb.").unwrap();
        assert_eq!(harmless.root(), &Value::Opaque);
        check_refused(
            b"\x80\x02csubprocess\nPopen\n)\x81.",
            "byte 2: it asks to import `subprocess.Popen`, which has no place in a state dict",
        );
        check_refused(b"\x80\x02N)\x81.", "byte 4: an object is made of what is no known class");
        // A set, and a defaultdict with an item.
        assert_eq!(parse(b"\x80\x04\x8f(K\x01\x90.").unwrap().root(), &Value::Opaque);
        let dict =
            parse(b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nint\n\x85RK\x01K\x02s.");
        assert!(matches!(dict.unwrap().root(), Value::Dict(items) if items.len() == 1));
    }

    #[test]
    fn counts_that_are_none_are_refused() {
        let tensor = |offset: &[u8], strides: &[u8]| {
            let head =
                b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n\
                FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ";
            [&head[..], offset, b"K\x02K\x03\x86", strides, b"tR."].concat()
        };
        assert!(parse(&tensor(b"K\x00", b"K\x03K\x01\x86")).is_ok());
        let problem = parse(&tensor(b"J\xff\xff\xff\xff", b"K\x03K\x01\x86")).unwrap_err().problem;
        assert_eq!(problem, "a count is expected");
        let problem = parse(&tensor(b"K\x00", b"K\x03\x85")).unwrap_err().problem;
        assert_eq!(problem, "a tensor has as many strides as axes");
    }

    #[test]
    fn the_stack_below_a_mark_is_out_of_reach() {
        check_refused(b"N(0.", "byte 2: the stack is empty");
        check_refused(b"}(u(s.", "byte 4: the stack is empty");
        check_refused(b"u.", "byte 0: there is no mark");
        check_refused(b"}(Nu.", "byte 3: items are set in what is no dictionary");
    }

    #[test]
    fn an_integer_too_long_keeps_its_bytes() {
        let pickle = parse(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.rest").unwrap();
        assert_eq!(pickle.root(), &Value::BigInt(b"l\xfc\x9cF\xf9 j\xa8P\x19"));
        assert_eq!(pickle.n_bytes, 15);
    }

    #[test]
    fn an_object_of_a_program_is_its_attributes_and_the_unknown_is_nothing() {
        // __torch__.Net(), whose attributes `a` and `b` are a number and a colour of an enumeration.
        let bytes = b"\x80\x02c__torch__\nNet\n)\x81}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b\
            c__torch__.Colour\nRed\nK\x07\x85Rub.";
        let pickle = parse_script(bytes).unwrap();
        let Value::Dict(items) = pickle.root() else { panic!("{pickle:?}") };
        assert_eq!(pickle.item(items, "a"), Some(&Value::Int(1)));
        assert_eq!(pickle.item(items, "b"), Some(&Value::Opaque));
        let typed = b"\x80\x02ctorch.jit._pickle\nbuild_intlist\n](K\x05e\x85R.";
        let pickle = parse_script(typed).unwrap();
        assert!(matches!(pickle.root(), Value::List(items) if items.len() == 1), "{pickle:?}");
        let unknown = b"\x80\x02csubprocess\nPopen\n)R.";
        assert_eq!(parse_script(unknown).unwrap().root(), &Value::Opaque);
        check_refused(
            b"\x80\x02c__torch__\nNet\n.",
            "byte 2: it asks to import `__torch__.Net`, which has no place in a state dict",
        );
    }
}
