//! A reader of pickled data that runs no code.
//!
//! A pickle is a program for a stack machine that can import and call anything. This machine knows
//! the instructions and the few callables that verification packs need (lists, tuples, byte strings,
//! numpy arrays and scalars) and refuses everything else by name. It calls nothing: each callable is
//! a case of [`Callable`] with a meaning written here.
//!
//! Memory and time are bounded by the input: strings are borrowed from it, decoded copies together
//! may not exceed a few times its size, objects are limited, and no instruction walks a long tuple.

pub use pfc_pickle::{Id, PickleError};

use crate::machine::Machine;
pub use crate::{
    numpy::Dtype,
    value::{Callable, Value},
};

/// The objects of a pickle; [`Pickle::root`] is the outermost.
#[derive(Debug)]
pub struct Pickle<'a> {
    objects: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the first pickle in `bytes`, of any protocol from 0 to 5.
    ///
    /// # Errors
    ///
    /// [`PickleError`] at the first instruction that is unknown, not allowed or damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Pickle<'a>, PickleError> {
        let (objects, root) = Machine::new(bytes).run()?;
        Ok(Pickle { objects, root })
    }

    /// The outermost object.
    pub fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    /// An object named by another of the same pickle.
    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.objects[id.index()]
    }

    /// The items of a list or tuple.
    pub fn items(&self, value: &Value<'a>) -> Option<Vec<&Value<'a>>> {
        match value {
            Value::List(ids) | Value::Tuple(ids) => {
                Some(ids.iter().map(|&id| self.get(id)).collect())
            }
            _ => None,
        }
    }

    /// The bytes of a byte string or of an array.
    pub fn bytes<'b>(&'b self, value: &'b Value<'a>) -> Option<&'b [u8]> {
        match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Array { data, .. } => self.bytes(self.get(*data)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        assert_eq!(Pickle::parse(bytes).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_call_of_the_system_is_refused_by_name() {
        check_refused(
            b"cos\nsystem\n(S'echo'\ntR.",
            "byte 0: it asks to import `os.system`, which has no place in a verification pack",
        );
        check_refused(
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
            "byte 17: it asks to import `posix.system`, which has no place in a verification pack",
        );
    }

    #[test]
    fn instructions_that_make_objects_are_refused_by_name() {
        for (opcode, name) in [(b'i', "INST"), (b'o', "OBJ"), (0x81, "NEWOBJ"), (0x82, "EXT1")] {
            let problem = Pickle::parse(&[0x80, 2, opcode]).unwrap_err().problem;
            assert!(problem.contains(name), "{problem}");
        }
        assert!(Pickle::parse(b"\x80\x02P0\n.").unwrap_err().problem.contains("PERSID"));
        assert!(Pickle::parse(b"\x80\x02\xfe.").unwrap_err().problem.contains("unknown"));
    }

    #[test]
    fn protocol_0_strings_unfold_their_escapes() {
        let pickle =
            Pickle::parse(b"(S'a\\x00\\n\\'\\\\\\101'\nI01\nL7L\nVr\\u00e9\ntp0\n.").unwrap();
        let items = pickle.items(pickle.root()).unwrap();
        assert_eq!(items[0], &Value::Bytes(Cow::Borrowed(b"a\0\n'\\A")));
        assert_eq!((items[1], items[2]), (&Value::Bool(true), &Value::Int(7)));
        assert_eq!(items[3], &Value::Text(Cow::Borrowed("ré")));
    }

    #[test]
    fn a_string_longer_than_the_file_is_refused_before_any_allocation() {
        check_refused(b"B\xff\xff\xff\xff.", "byte 0: the file ends within an instruction");
        check_refused(
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            "byte 0: the file ends within an instruction",
        );
    }

    #[test]
    fn repeated_decoding_of_one_string_cannot_fill_the_memory() {
        let mut bytes = b"\x80\x02c_codecs\nencode\nq\x00X\x40\x00\x00\x00".to_vec();
        bytes.extend([b'a'; 64]);
        bytes.extend(b"q\x01U\x06latin1q\x02000");
        for _ in 0..1000 {
            bytes.extend(b"h\x00h\x01h\x02\x86R0");
        }
        bytes.extend(b"N.");
        let error = Pickle::parse(&bytes).unwrap_err();
        assert_eq!(error.problem, "strings unfold to more than the file");
    }

    #[test]
    fn the_stack_below_a_mark_is_out_of_reach() {
        check_refused(b"N(0.", "byte 2: the stack is empty");
        check_refused(b"](a.", "byte 2: the stack is empty");
        check_refused(b"0.", "byte 0: the stack is empty");
        check_refused(b"t.", "byte 0: there is no mark");
        check_refused(b"h\x05.", "byte 0: nothing is remembered as 5");
    }

    #[test]
    fn an_array_whose_shape_does_not_fit_is_refused() {
        let state = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR\
            (I1\n(I9\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntRI00\nS'abc'\ntb.";
        let problem = Pickle::parse(state).unwrap_err().problem;
        assert_eq!(problem, "the shape of a numpy array does not fit its bytes");
    }

    #[test]
    fn an_empty_or_cut_file_is_an_error() {
        check_refused(b"", "byte 0: the file ends within an instruction");
        check_refused(b"\x80\x02]", "byte 3: the file ends within an instruction");
    }
}
