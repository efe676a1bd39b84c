//! The stack machine that a pickle is a program for, without anything that acts.

use std::borrow::Cow;

use pfc_pickle::{Id, Limits, PickleError, Reader, Stack, op};

use crate::{
    numpy::{self, Dtype},
    value::{Callable, Value},
};

/// A pack of 20,000 images makes under 300,000 objects.
const LIMITS: Limits = Limits { objects: 1 << 22, pushes: 1 << 23, tuple: 8 };
/// Python 3 at protocol 0 needs 2.5: Latin-1 becomes UTF-8 (up to twice as long) and bytes again.
const COPIES_PER_BYTE: usize = 4;

/// The stack machine in the middle of a pickle.
pub struct Machine<'a> {
    input: Reader<'a>,
    stack: Stack<Value<'a>>,
    /// Bytes that decoded copies may still take.
    copies_left: usize,
}

type Done = Result<(), PickleError>;

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            input: Reader::new(bytes),
            stack: Stack::new("a verification pack", LIMITS),
            copies_left: bytes.len().saturating_mul(COPIES_PER_BYTE),
        }
    }

    /// Runs to the first `STOP`: all objects, and which of them is the outermost.
    pub fn run(mut self) -> Result<(Vec<Value<'a>>, Id), PickleError> {
        loop {
            let opcode = self.stack.next(&mut self.input)?;
            if opcode == op::STOP {
                let root = self.stack.pop()?;
                return Ok((self.stack.into_objects(), root));
            }
            if !self.stack.step(opcode, &mut self.input)? {
                self.step(opcode)?;
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Done {
        match opcode {
            op::PROTO => self.protocol(),
            op::NONE => self.stack.push(Value::None),
            op::NEWTRUE => self.stack.push(Value::Bool(true)),
            op::NEWFALSE => self.stack.push(Value::Bool(false)),
            op::INT | op::LONG | op::BININT | op::BININT1 | op::BININT2 | op::LONG1 => {
                let value = self.integer(opcode)?;
                self.stack.push(value)
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
                self.stack.push(Value::Bytes(Cow::Borrowed(bytes)))
            }
            op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => {
                let bytes = self.input.counted(opcode)?;
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| self.stack.wrong("text is not UTF-8"))?;
                self.stack.push(Value::Text(Cow::Borrowed(text)))
            }
            op::GLOBAL => {
                let module = self.input.line_text()?;
                let callable = self.input.line_text()?;
                self.import(module, callable)
            }
            op::STACK_GLOBAL => self.stack_global(),
            op::REDUCE => self.reduce(),
            op::BUILD => self.build(),
            other => Err(self.stack.no_such_instruction(other)),
        }
    }

    fn protocol(&mut self) -> Done {
        match self.input.byte()? {
            0..=5 => Ok(()),
            other => Err(self.stack.wrong(format!("pickle protocol {other}; 0 to 5 are known"))),
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
                    .map_err(|_| self.stack.wrong("an integer that does not fit"))?,
            },
        };
        Ok(Value::Int(value))
    }

    /// Pushes a value that is a copy of `n_bytes`, within what is allowed.
    fn push_copy(&mut self, n_bytes: usize, value: Value<'a>) -> Done {
        self.copies_left = self
            .copies_left
            .checked_sub(n_bytes)
            .ok_or_else(|| self.stack.wrong("strings unfold to more than the file"))?;
        self.stack.push(value)
    }

    /// A short string, whatever its type: Python 2 wrote names as bytes.
    fn word(&self, id: Id) -> Result<&str, PickleError> {
        let text = match self.stack.get(id) {
            Value::Text(text) => Some(text.as_ref()),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.stack.wrong("a name is expected"))
    }

    fn stack_global(&mut self) -> Done {
        let (callable, module) = (self.stack.pop()?, self.stack.pop()?);
        let (module, callable) = (self.word(module)?.to_owned(), self.word(callable)?.to_owned());
        self.import(&module, &callable)
    }

    fn import(&mut self, module: &str, name: &str) -> Done {
        match Callable::named(module, name) {
            Some(callable) => self.stack.push(Value::Callable(callable)),
            None => Err(self.stack.no_such_import(module, name)),
        }
    }

    /// The meaning of calling a callable; nothing is run.
    fn reduce(&mut self) -> Done {
        let (arguments, callable) = (self.stack.pop()?, self.stack.pop()?);
        let Value::Callable(callable) = *self.stack.get(callable) else {
            return Err(self.stack.wrong("what is called is no callable"));
        };
        let arguments = self.stack.short_tuple(arguments)?;
        match (callable, &arguments[..]) {
            (Callable::Encode, &[text, coding]) => self.encode_latin1(text, coding),
            (Callable::ByteArray, &[text, coding]) => self.encode_latin1(text, coding),
            (Callable::ByteArray, &[bytes]) if matches!(self.stack.get(bytes), Value::Bytes(_)) => {
                self.stack.push_id(bytes)
            }
            (Callable::Bytes | Callable::ByteArray, &[]) => {
                self.stack.push(Value::Bytes(Cow::Borrowed(&[])))
            }
            // Further arguments say whether to align and to copy.
            (Callable::Dtype, &[word, ..]) => {
                let word = self.word(word)?;
                let dtype = Dtype::named(word).ok_or_else(|| {
                    self.stack.wrong(format!(
                        "numpy type `{}`; bytes and booleans are known",
                        word.escape_debug()
                    ))
                })?;
                self.stack.push(Value::Dtype(dtype))
            }
            (Callable::Reconstruct, _) => self.stack.push(Value::EmptyArray),
            (Callable::Scalar, &[dtype, bytes]) => self.scalar(dtype, bytes),
            (Callable::FromBuffer, &[data, dtype, shape, _order]) => {
                let array = self.array(dtype, shape, data)?;
                self.stack.push(array)
            }
            _ => Err(self
                .stack
                .wrong(format!("{callable:?} is called with other arguments than known"))),
        }
    }

    fn encode_latin1(&mut self, text: Id, coding: Id) -> Done {
        if !matches!(self.word(coding)?, "latin1" | "latin-1" | "iso-8859-1") {
            return Err(self.stack.wrong("text is encoded by another coding than latin1"));
        }
        let Value::Text(text) = self.stack.get(text) else {
            return Err(self.stack.wrong("what is encoded is no text"));
        };
        if text.len() > self.copies_left.saturating_mul(2) {
            return Err(self.stack.wrong("strings unfold to more than the file"));
        }
        let bytes: Option<Vec<u8>> =
            text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let bytes = bytes.ok_or_else(|| self.stack.wrong("text is not latin1"))?;
        self.push_copy(bytes.len(), Value::Bytes(Cow::Owned(bytes)))
    }

    fn scalar(&mut self, dtype: Id, bytes: Id) -> Done {
        match (self.stack.get(dtype), self.stack.get(bytes)) {
            (Value::Dtype(Dtype::Bool), Value::Bytes(bytes)) if bytes.len() == 1 => {
                let value = bytes[0] != 0;
                self.stack.push(Value::Bool(value))
            }
            (Value::Dtype(Dtype::Byte), Value::Bytes(bytes)) if bytes.len() == 1 => {
                let value = i64::from(bytes[0]);
                self.stack.push(Value::Int(value))
            }
            _ => Err(self.stack.wrong("a numpy scalar that is neither a byte nor a boolean")),
        }
    }

    /// Fills an array or a type that was made before.
    fn build(&mut self) -> Done {
        let state = self.stack.pop()?;
        let target = self.stack.top()?;
        match self.stack.get(target) {
            // The state of a type of one byte adds nothing.
            Value::Dtype(_) => Ok(()),
            Value::EmptyArray => {
                let state = self.stack.short_tuple(state)?;
                let &[_version, shape, dtype, _fortran, data] = &state[..] else {
                    return Err(self.stack.wrong("the state of a numpy array has five items"));
                };
                let array = self.array(dtype, shape, data)?;
                *self.stack.get_mut(target) = array;
                Ok(())
            }
            _ => Err(self.stack.wrong("an object that is no numpy array is given a state")),
        }
    }

    fn array(&self, dtype: Id, shape: Id, data: Id) -> Result<Value<'a>, PickleError> {
        let Value::Dtype(dtype) = *self.stack.get(dtype) else {
            return Err(self.stack.wrong("the type of a numpy array is missing"));
        };
        let shape = self.stack.short_tuple(shape)?;
        let Value::Bytes(bytes) = self.stack.get(data) else {
            return Err(self.stack.wrong("a numpy array holds no bytes"));
        };
        let sides = shape.iter().map(|&side| match self.stack.get(side) {
            Value::Int(side) => usize::try_from(*side).ok(),
            _ => None,
        });
        match numpy::n_elements(sides) {
            Some(n) if n == bytes.len() => Ok(Value::Array { dtype, data }),
            _ => Err(self.stack.wrong("the shape of a numpy array does not fit its bytes")),
        }
    }
}
