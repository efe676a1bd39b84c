//! The stack, the marks and the memory of a pickle's machine, without the meaning of its values.

use std::collections::HashMap;

use crate::{PickleError, Reader, op};

/// Where an object lies among the others of a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(u32);

impl Id {
    /// Its place in [`Stack::into_objects`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Values that can be sequences of others; [`sequences!`](crate::sequences) implements it.
pub trait Sequences {
    /// A list.
    fn list(items: Vec<Id>) -> Self;
    /// A tuple.
    fn tuple(items: Vec<Id>) -> Self;
    /// The items, if this is a list.
    fn list_items(&mut self) -> Option<&mut Vec<Id>>;
    /// The items, if this is a tuple.
    fn tuple_items(&self) -> Option<&[Id]>;
}

/// Implements [`Sequences`] for an enum with the variants `List(Vec<Id>)` and `Tuple(Vec<Id>)`.
#[macro_export]
macro_rules! sequences {
    ($value:ident<'_>) => {
        impl $crate::Sequences for $value<'_> {
            fn list(items: Vec<$crate::Id>) -> Self {
                $value::List(items)
            }

            fn tuple(items: Vec<$crate::Id>) -> Self {
                $value::Tuple(items)
            }

            fn list_items(&mut self) -> Option<&mut Vec<$crate::Id>> {
                match self {
                    $value::List(items) => Some(items),
                    _ => None,
                }
            }

            fn tuple_items(&self) -> Option<&[$crate::Id]> {
                match self {
                    $value::Tuple(items) => Some(items),
                    _ => None,
                }
            }
        }
    };
}

/// How much a pickle may make, whatever it says.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Objects.
    pub objects: usize,
    /// Items of lists, tuples and dictionaries, each of which was pushed once.
    pub pushes: usize,
    /// Items of the longest tuple that is looked into: arguments, states and shapes.
    pub tuple: usize,
}

/// Objects of type `V` and what the instructions do with them, whatever they mean.
#[derive(Debug)]
pub struct Stack<V> {
    /// What the pickle should be, for errors: `a state dict`.
    of: &'static str,
    limits: Limits,
    /// Start of the instruction being run.
    at: usize,
    objects: Vec<V>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    n_pushes: usize,
}

type Done = Result<(), PickleError>;

impl<V: Sequences> Stack<V> {
    /// An empty one, of a pickle that should be `of`, such as `a state dict`.
    pub fn new(of: &'static str, limits: Limits) -> Stack<V> {
        Stack {
            of,
            limits,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            n_pushes: 0,
        }
    }

    /// Reads the next instruction's code; errors are from there until the next.
    ///
    /// # Errors
    ///
    /// [`PickleError`] at the end of the input, as of every method below.
    pub fn next(&mut self, input: &mut Reader) -> Result<u8, PickleError> {
        self.at = input.offset();
        input.byte()
    }

    /// Runs an instruction that moves values without regard to what they are; false if it is none.
    ///
    /// # Errors
    ///
    /// [`PickleError`] for an instruction that finds nothing to work on.
    pub fn step(&mut self, opcode: u8, input: &mut Reader) -> Result<bool, PickleError> {
        match opcode {
            op::FRAME => input.take(8).map(drop)?,
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => self.pop().map(drop)?,
            op::POP_MARK => self.pop_mark().map(drop)?,
            op::EMPTY_LIST => self.push(V::list(Vec::new()))?,
            op::EMPTY_TUPLE => self.push(V::tuple(Vec::new()))?,
            op::LIST => {
                let items = self.pop_mark()?;
                self.push(V::list(items))?;
            }
            op::TUPLE => {
                let items = self.pop_mark()?;
                self.push(V::tuple(items))?;
            }
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::APPEND => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            op::APPENDS => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            op::GET | op::BINGET | op::LONG_BINGET => {
                let slot = input.memo_slot(opcode)?;
                self.recall(slot)?;
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT => {
                let slot = input.memo_slot(opcode)?;
                self.memorise(slot)?;
            }
            op::MEMOIZE => self.memorise(self.memo.len() as u32)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An error at the instruction being run.
    pub fn wrong(&self, problem: impl Into<String>) -> PickleError {
        PickleError { offset: self.at, problem: problem.into() }
    }

    /// The error of an instruction that the machine does not know.
    pub fn no_such_instruction(&self, opcode: u8) -> PickleError {
        let (name, of) = (op::name(opcode), self.of);
        self.wrong(format!("instruction {opcode:#04x} ({name}) has no place in {of}"))
    }

    /// The error of importing what the machine does not know; nothing is ever imported.
    pub fn no_such_import(&self, module: &str, name: &str) -> PickleError {
        let (module, name, of) = (module.escape_debug(), name.escape_debug(), self.of);
        self.wrong(format!("it asks to import `{module}.{name}`, which has no place in {of}"))
    }

    /// Makes an object and pushes it.
    ///
    /// # Errors
    ///
    /// [`PickleError`] beyond the limits.
    pub fn push(&mut self, value: V) -> Done {
        if self.objects.len() >= self.limits.objects {
            return Err(self.wrong(format!("more than {} objects", self.limits.objects)));
        }
        let id = Id(self.objects.len() as u32);
        self.objects.push(value);
        self.push_id(id)
    }

    /// Pushes an object again.
    ///
    /// # Errors
    ///
    /// [`PickleError`] beyond the limits.
    pub fn push_id(&mut self, id: Id) -> Done {
        self.charge(1)?;
        self.stack.push(id);
        Ok(())
    }

    /// Counts `n` items as pushed: for what copies a list.
    ///
    /// # Errors
    ///
    /// [`PickleError`] beyond the limits.
    pub fn charge(&mut self, n: usize) -> Done {
        let left = self.limits.pushes - self.n_pushes;
        if n > left {
            return Err(self.wrong(format!("more than {} items", self.limits.pushes)));
        }
        self.n_pushes += n;
        Ok(())
    }

    /// Takes the top; what lies below the last mark is out of reach.
    ///
    /// # Errors
    ///
    /// [`PickleError`] if nothing is in reach.
    pub fn pop(&mut self) -> Result<Id, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Everything above the last mark, and the mark.
    ///
    /// # Errors
    ///
    /// [`PickleError`] if there is no mark.
    pub fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    /// The top, which stays.
    ///
    /// # Errors
    ///
    /// [`PickleError`] if nothing is in reach.
    pub fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).unwrap_or_default();
        above.last().copied().ok_or_else(|| self.wrong("the stack is empty"))
    }

    /// The object.
    pub fn get(&self, id: Id) -> &V {
        &self.objects[id.index()]
    }

    /// The object, to change it.
    pub fn get_mut(&mut self, id: Id) -> &mut V {
        &mut self.objects[id.index()]
    }

    /// A copy of a tuple, which is refused if it is longer than anything with a meaning.
    ///
    /// # Errors
    ///
    /// [`PickleError`] if it is, or is no tuple.
    pub fn short_tuple(&self, id: Id) -> Result<Vec<Id>, PickleError> {
        match self.get(id).tuple_items() {
            Some(items) if items.len() <= self.limits.tuple => Ok(items.to_vec()),
            _ => Err(self.wrong("arguments, states and shapes are short tuples")),
        }
    }

    /// All objects, by [`Id::index`].
    pub fn into_objects(self) -> Vec<V> {
        self.objects
    }

    fn tuple(&mut self, n: usize) -> Done {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<Id>, _>>()?;
        items.reverse();
        self.push(V::tuple(items))
    }

    fn extend(&mut self, items: Vec<Id>) -> Done {
        let list = self.top()?;
        match self.get_mut(list).list_items() {
            Some(old) => {
                old.extend(items);
                Ok(())
            }
            None => Err(self.wrong("items are appended to what is no list")),
        }
    }

    fn recall(&mut self, slot: u32) -> Done {
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
}
