//! The stack machine that a pickle is a program for, without anything that acts.

use std::{borrow::Cow, collections::HashMap};

use pfc_pickle::{Reader, op};

use crate::{
    numpy::{self, Dtype},
    pickle::{Callable, Id, PickleError, Value},
};

/// A pack of 20,000 images makes under 300,000 objects.
const OBJECTS_MAX: usize = 1 << 22;
/// Each item of a list or tuple was pushed once.
const PUSHES_MAX: usize = 1 << 23;
/// Python 3 at protocol 0 needs 2.5: Latin-1 becomes UTF-8 (up to twice as long) and bytes again.
const COPIES_PER_BYTE: usize = 4;
/// Items of the longest tuple that is looked into: arguments, states and shapes.
const TUPLE_MAX: usize = 8;

/// The stack machine in the middle of a pickle.
pub struct Machine<'a> {
    input: Reader<'a>,
    /// Start of the instruction being run.
    at: usize,
    objects: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    n_pushes: usize,
    /// Bytes that decoded copies may still take.
    copies_left: usize,
}

type Done = Result<(), PickleError>;

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            input: Reader::new(bytes),
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            n_pushes: 0,
            copies_left: bytes.len().saturating_mul(COPIES_PER_BYTE),
        }
    }

    /// Runs to the first `STOP`: all objects, and which of them is the outermost.
    pub fn run(mut self) -> Result<(Vec<Value<'a>>, Id), PickleError> {
        loop {
            self.at = self.input.offset();
            let opcode = self.input.byte()?;
            if opcode == op::STOP {
                let root = self.pop()?;
                return Ok((self.objects, root));
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Done {
        match opcode {
            op::PROTO => self.protocol(),
            op::FRAME => self.input.take(8).map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop().map(drop),
            op::POP_MARK => self.pop_mark().map(drop),
            op::NONE => self.push(Value::None),
            op::NEWTRUE => self.push(Value::Bool(true)),
            op::NEWFALSE => self.push(Value::Bool(false)),
            op::INT | op::LONG | op::BININT | op::BININT1 | op::BININT2 | op::LONG1 => {
                let value = self.integer(opcode)?;
                self.push(value)
            }
            op::STRING => {
                let text = self.input.quoted()?;
                self.push_copy(text.len(), Value::Bytes(Cow::Owned(text)))
            }
            op::UNICODE => {
                let text = self.input.raw_unicode()?;
                self.push_copy(text.len(), Value::Text(Cow::Owned(text)))
            }
            op::BINSTRING
            | op::SHORT_BINSTRING
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINBYTES8
            | op::BYTEARRAY8 => {
                let bytes = self.input.counted(opcode)?;
                self.push(Value::Bytes(Cow::Borrowed(bytes)))
            }
            op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => {
                let bytes = self.input.counted(opcode)?;
                let text =
                    std::str::from_utf8(bytes).map_err(|_| self.wrong("text is not UTF-8"))?;
                self.push(Value::Text(Cow::Borrowed(text)))
            }
            op::EMPTY_LIST => self.push(Value::List(Vec::new())),
            op::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new())),
            op::LIST => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))
            }
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))
            }
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::APPEND => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            op::APPENDS => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            op::GET | op::BINGET | op::LONG_BINGET => self.recall(opcode),
            op::PUT | op::BINPUT | op::LONG_BINPUT => {
                let slot = self.input.memo_slot(opcode)?;
                self.memorise(slot)
            }
            op::MEMOIZE => self.memorise(self.memo.len() as u32),
            op::GLOBAL => {
                let module = self.input.line_text()?;
                let callable = self.input.line_text()?;
                self.import(module, callable)
            }
            op::STACK_GLOBAL => self.stack_global(),
            op::REDUCE => self.reduce(),
            op::BUILD => self.build(),
            other => Err(self.wrong(format!(
                "instruction {other:#04x} ({}) has no place in a verification pack",
                op::name(other)
            ))),
        }
    }

    fn wrong(&self, problem: impl Into<String>) -> PickleError {
        PickleError { offset: self.at, problem: problem.into() }
    }

    fn protocol(&mut self) -> Done {
        match self.input.byte()? {
            0..=5 => Ok(()),
            other => Err(self.wrong(format!("pickle protocol {other}; 0 to 5 are known"))),
        }
    }

    fn integer(&mut self, opcode: u8) -> Result<Value<'a>, PickleError> {
        let value = match opcode {
            op::BININT => i64::from(i32::from_le_bytes(self.input.array()?)),
            op::BININT1 => i64::from(self.input.byte()?),
            op::BININT2 => i64::from(u16::from_le_bytes(self.input.array()?)),
            op::LONG1 => self.input.long1()?,
            _ => match self.input.line_text()? {
                // Protocol 0 writes booleans as integers with a leading zero.
                "00" if opcode == op::INT => return Ok(Value::Bool(false)),
                "01" if opcode == op::INT => return Ok(Value::Bool(true)),
                text => text
                    .trim_end_matches('L')
                    .parse()
                    .map_err(|_| self.wrong("an integer that does not fit"))?,
            },
        };
        Ok(Value::Int(value))
    }

    fn push(&mut self, value: Value<'a>) -> Done {
        if self.objects.len() >= OBJECTS_MAX {
            return Err(self.wrong(format!("more than {OBJECTS_MAX} objects")));
        }
        let id = Id(self.objects.len() as u32);
        self.objects.push(value);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Done {
        if self.n_pushes >= PUSHES_MAX {
            return Err(self.wrong(format!("more than {PUSHES_MAX} items")));
        }
        self.n_pushes += 1;
        self.stack.push(id);
        Ok(())
    }

    /// Pushes a value that is a copy of `n_bytes`, within what is allowed.
    fn push_copy(&mut self, n_bytes: usize, value: Value<'a>) -> Done {
        self.copies_left = self
            .copies_left
            .checked_sub(n_bytes)
            .ok_or_else(|| self.wrong("strings unfold to more than the file"))?;
        self.push(value)
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.wrong("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.wrong("the stack is empty"))
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).unwrap_or_default();
        above.last().copied().ok_or_else(|| self.wrong("the stack is empty"))
    }

    fn tuple(&mut self, n: usize) -> Done {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<Id>, _>>()?;
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn extend(&mut self, items: Vec<Id>) -> Done {
        let list = self.top()?;
        match &mut self.objects[list.0 as usize] {
            Value::List(old) => {
                old.extend(items);
                Ok(())
            }
            _ => Err(self.wrong("items are appended to what is no list")),
        }
    }

    fn recall(&mut self, opcode: u8) -> Done {
        let slot = self.input.memo_slot(opcode)?;
        match self.memo.get(&slot) {
            Some(&id) => self.push_id(id),
            None => Err(self.wrong(format!("nothing is remembered as {slot}"))),
        }
    }

    fn memorise(&mut self, slot: u32) -> Done {
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn get(&self, id: Id) -> &Value<'a> {
        &self.objects[id.0 as usize]
    }

    /// A short string, whatever its type: Python 2 wrote names as bytes.
    fn word(&self, id: Id) -> Result<&str, PickleError> {
        let text = match self.get(id) {
            Value::Text(text) => Some(text.as_ref()),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.wrong("a name is expected"))
    }

    /// A copy of a tuple, which is refused if it is longer than anything with a meaning.
    fn short_tuple(&self, id: Id) -> Result<Vec<Id>, PickleError> {
        match self.get(id) {
            Value::Tuple(items) if items.len() <= TUPLE_MAX => Ok(items.clone()),
            _ => Err(self.wrong("arguments, states and shapes are short tuples")),
        }
    }

    fn stack_global(&mut self) -> Done {
        let (callable, module) = (self.pop()?, self.pop()?);
        let (module, callable) = (self.word(module)?.to_owned(), self.word(callable)?.to_owned());
        self.import(&module, &callable)
    }

    fn import(&mut self, module: &str, name: &str) -> Done {
        match Callable::named(module, name) {
            Some(callable) => self.push(Value::Callable(callable)),
            None => Err(self.wrong(format!(
                "it asks to import `{}.{}`, which has no place in a verification pack",
                module.escape_debug(),
                name.escape_debug()
            ))),
        }
    }

    /// The meaning of calling a callable; nothing is run.
    fn reduce(&mut self) -> Done {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Callable(callable) = *self.get(callable) else {
            return Err(self.wrong("what is called is no callable"));
        };
        let arguments = self.short_tuple(arguments)?;
        match (callable, &arguments[..]) {
            (Callable::Encode, &[text, coding]) => self.encode_latin1(text, coding),
            (Callable::ByteArray, &[text, coding]) => self.encode_latin1(text, coding),
            (Callable::ByteArray, &[bytes]) if matches!(self.get(bytes), Value::Bytes(_)) => {
                self.push_id(bytes)
            }
            (Callable::Bytes | Callable::ByteArray, &[]) => {
                self.push(Value::Bytes(Cow::Borrowed(&[])))
            }
            // Further arguments say whether to align and to copy.
            (Callable::Dtype, &[word, ..]) => {
                let word = self.word(word)?;
                let dtype = Dtype::named(word).ok_or_else(|| {
                    self.wrong(format!(
                        "numpy type `{}`; bytes and booleans are known",
                        word.escape_debug()
                    ))
                })?;
                self.push(Value::Dtype(dtype))
            }
            (Callable::Reconstruct, _) => self.push(Value::EmptyArray),
            (Callable::Scalar, &[dtype, bytes]) => self.scalar(dtype, bytes),
            (Callable::FromBuffer, &[data, dtype, shape, _order]) => {
                let array = self.array(dtype, shape, data)?;
                self.push(array)
            }
            _ => Err(self.wrong(format!("{callable:?} is called with other arguments than known"))),
        }
    }

    fn encode_latin1(&mut self, text: Id, coding: Id) -> Done {
        if !matches!(self.word(coding)?, "latin1" | "latin-1" | "iso-8859-1") {
            return Err(self.wrong("text is encoded by another coding than latin1"));
        }
        let Value::Text(text) = self.get(text) else {
            return Err(self.wrong("what is encoded is no text"));
        };
        if text.len() > self.copies_left.saturating_mul(2) {
            return Err(self.wrong("strings unfold to more than the file"));
        }
        let bytes: Option<Vec<u8>> =
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let bytes = bytes.ok_or_else(|| self.wrong("text is not latin1"))?;
        self.push_copy(bytes.len(), Value::Bytes(Cow::Owned(bytes)))
    }

    fn scalar(&mut self, dtype: Id, bytes: Id) -> Done {
        match (self.get(dtype), self.get(bytes)) {
            (Value::Dtype(Dtype::Bool), Value::Bytes(bytes)) if bytes.len() == 1 => {
                let value = bytes[0] != 0;
                self.push(Value::Bool(value))
            }
            (Value::Dtype(Dtype::Byte), Value::Bytes(bytes)) if bytes.len() == 1 => {
                let value = i64::from(bytes[0]);
                self.push(Value::Int(value))
            }
            _ => Err(self.wrong("a numpy scalar that is neither a byte nor a boolean")),
        }
    }

    /// Fills an array or a type that was made before.
    fn build(&mut self) -> Done {
        let state = self.pop()?;
        let target = self.top()?;
        match self.get(target) {
            // The state of a type of one byte adds nothing.
            Value::Dtype(_) => Ok(()),
            Value::EmptyArray => {
                let state = self.short_tuple(state)?;
                let &[_version, shape, dtype, _fortran, data] = &state[..] else {
                    return Err(self.wrong("the state of a numpy array has five items"));
                };
                let array = self.array(dtype, shape, data)?;
                self.objects[target.0 as usize] = array;
                Ok(())
            }
            _ => Err(self.wrong("an object that is no numpy array is given a state")),
        }
    }

    fn array(&self, dtype: Id, shape: Id, data: Id) -> Result<Value<'a>, PickleError> {
        let Value::Dtype(dtype) = *self.get(dtype) else {
            return Err(self.wrong("the type of a numpy array is missing"));
        };
        let shape = self.short_tuple(shape)?;
        let Value::Bytes(bytes) = self.get(data) else {
            return Err(self.wrong("a numpy array holds no bytes"));
        };
        let sides = shape.iter().map(|&side| match self.get(side) {
            Value::Int(side) => usize::try_from(*side).ok(),
            _ => None,
        });
        match numpy::n_elements(sides) {
            Some(n) if n == bytes.len() => Ok(Value::Array { dtype, data }),
            _ => Err(self.wrong("the shape of a numpy array does not fit its bytes")),
        }
    }
}
