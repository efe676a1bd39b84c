//! What the machines of all pickles share, on what Python's pickler wrote, and on what it never would.

#![allow(clippy::unwrap_used)] // helpers of tests may

use std::borrow::Cow;

use pfc_pickle::{Id, Limits, PickleError, Reader, Stack, op, sequences};

/// A machine of its own: texts in lists and tuples.
enum Value<'a> {
    Text(Cow<'a, str>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
}

sequences!(Value<'_>);

const LIMITS: Limits = Limits { objects: 100, pushes: 100, tuple: 4 };

/// The object that a pickle makes, as Python would show it without quotes.
fn read(pickle: &[u8], limits: Limits) -> Result<String, PickleError> {
    let mut input = Reader::new(pickle);
    let mut stack: Stack<Value<'_>> = Stack::new("a list of texts", limits);
    loop {
        let opcode = stack.next(&mut input)?;
        match opcode {
            op::STOP => {
                let id = stack.pop()?;
                return Ok(shown(&stack, id));
            }
            op::PROTO => {
                input.byte()?;
            }
            op::UNICODE => stack.push(Value::Text(input.raw_unicode()?.into()))?,
            op::BINUNICODE | op::SHORT_BINUNICODE => {
                let text = std::str::from_utf8(input.counted(opcode)?).unwrap();
                stack.push(Value::Text(text.into()))?;
            }
            _ => {
                if !stack.step(opcode, &mut input)? {
                    return Err(stack.no_such_instruction(opcode));
                }
            }
        }
    }
}

fn shown(stack: &Stack<Value<'_>>, id: Id) -> String {
    let all = |items: &[Id]| -> String {
        items.iter().map(|&id| shown(stack, id)).collect::<Vec<_>>().join(", ")
    };
    match stack.get(id) {
        Value::Text(text) => text.to_string(),
        Value::List(items) => format!("[{}]", all(items)),
        Value::Tuple(items) => format!("({})", all(items)),
    }
}

/// `x = ["b", "c"]; pickle.dumps(("a", x, x), PROTOCOL)` of `CPython`, in protocols 0, 2 and 4.
const KNOWN: [&[u8]; 3] = [
    b"(Va\np0\n(lp1\nVb\np2\naVc\np3\nag1\ntp4\n.",
    b"\x80\x02X\x01\0\0\0aq\0]q\x01(X\x01\0\0\0bq\x02X\x01\0\0\0cq\x03eh\x01\x87q\x04.",
    b"\x80\x04\x95\x15\0\0\0\0\0\0\0\x8c\x01a\x94]\x94(\x8c\x01b\x94\x8c\x01c\x94eh\x01\x87\x94.",
];

#[test]
fn every_protocol_makes_the_object_that_python_wrote() {
    for pickle in KNOWN {
        assert_eq!(read(pickle, LIMITS).unwrap(), "(a, [b, c], [b, c])");
    }
}

#[test]
fn a_pickle_that_is_cut_anywhere_is_an_error_with_its_place() {
    for pickle in KNOWN {
        for n in 0..pickle.len() {
            let error = read(&pickle[..n], LIMITS).unwrap_err();
            assert!(error.offset <= n, "cut after {n} bytes: {error}");
        }
    }
}

#[test]
fn objects_and_what_is_pushed_are_bounded() {
    // Three texts, a list and a tuple, of which the list is pushed twice.
    let exact = Limits { objects: 5, pushes: 6, ..LIMITS };
    for pickle in KNOWN {
        read(pickle, exact).unwrap();
        let error = read(pickle, Limits { objects: 4, ..exact }).unwrap_err();
        assert_eq!(error.problem, "more than 4 objects");
        let error = read(pickle, Limits { pushes: 5, ..exact }).unwrap_err();
        assert_eq!(error.problem, "more than 5 items");
    }
}

#[test]
fn what_finds_nothing_to_work_on_is_refused_at_its_place() {
    for (pickle, offset, problem) in [
        (&b"0."[..], 0, "the stack is empty"),
        // What lies below a mark is out of reach.
        (b"](0.", 2, "the stack is empty"),
        (b"t.", 0, "there is no mark"),
        (b"h\x07.", 0, "nothing is remembered as 7"),
        (b"))a.", 2, "items are appended to what is no list"),
        (b"}.", 0, "instruction 0x7d (EMPTY_DICT) has no place in a list of texts"),
    ] {
        let expected = PickleError { offset, problem: problem.to_owned() };
        assert_eq!(read(pickle, LIMITS), Err(expected), "{pickle:?}");
    }
}
