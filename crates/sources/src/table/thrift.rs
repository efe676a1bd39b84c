//! Structs in Thrift's compact protocol, which Parquet describes itself in, walked through before a
//! library reads them. Parquet's reader takes memory for a text as long as it says it is, and turns
//! as often as a list that it does not know says it is long: a few bytes would cost gigabytes or
//! hours. Here a collection has no more elements, and a text no more bytes, than the file goes on.
//!
//! Source: the Apache Thrift compact protocol, `doc/specs/thrift-compact-protocol.md`.

use std::io::{self, ErrorKind, Read};

/// Deeper than Parquet's own structs, which nest about eight levels.
const DEPTH_MAX: u32 = 32;

/// Bytes of a number of 64 bits, seven to a byte.
const VARINT_BYTES_MAX: u32 = 10;

const STOP: u8 = 0;
const TRUE: u8 = 1;

/// The bytes of the struct that `input` begins with, which goes on for `n_bytes`.
///
/// Cost: each byte once.
///
/// # Errors
///
/// [`ErrorKind::InvalidData`] with what is wrong, or those of `input`.
pub fn struct_bytes(input: impl Read, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut walk = Walk { input, left: n_bytes, seen: Vec::new() };
    walk.structure(DEPTH_MAX)?;
    Ok(walk.seen)
}

/// A field of a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// By which readers know it.
    pub number: i64,
    /// What it is said to hold, such as [`I32`].
    pub kind: u8,
    /// Its value, if it is an integer.
    pub integer: Option<i64>,
    /// Where among the struct's bytes its value begins.
    pub start: usize,
}

/// A field that holds no more than that it is false.
pub const FALSE: u8 = 2;
/// A field that holds an integer of 32 bits.
pub const I32: u8 = 5;
/// A field that holds another struct.
pub const STRUCT: u8 = 12;

/// The fields of the struct that `bytes` begin with, in order. One may occur more than once: then the last counts.
///
/// # Errors
///
/// As [`struct_bytes`], and numbers of fields that readers would not agree on.
pub fn fields(bytes: &[u8]) -> io::Result<Vec<Field>> {
    let mut walk = Walk { input: bytes, left: bytes.len() as u64, seen: Vec::new() };
    let mut found: Vec<Field> = Vec::new();
    loop {
        let head = walk.byte()?;
        let kind = head & 0x0f;
        if kind == STOP {
            return Ok(found);
        }
        let before = found.last().map_or(0, |field| field.number);
        let number = match head >> 4 {
            0 => signed(walk.varint()?),
            delta => before + i64::from(delta),
        };
        if !(0..=i64::from(i16::MAX)).contains(&number) {
            return Err(wrong(format!("a field {number}")));
        }
        let start = walk.seen.len();
        let integer = match kind {
            TRUE | FALSE => None,
            4..=6 => Some(signed(walk.varint()?)),
            _ => {
                walk.value(kind, DEPTH_MAX)?;
                None
            }
        };
        found.push(Field { number, kind, integer, start });
    }
}

/// The integer of the last field of this number, if it is one of 32 bits.
pub fn i32_of(fields: &[Field], number: i64) -> Option<i32> {
    let field = fields.iter().rev().find(|field| field.number == number)?;
    field.integer.and_then(|integer| i32::try_from(integer).ok())
}

fn signed(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

struct Walk<R> {
    input: R,
    left: u64,
    seen: Vec<u8>,
}

impl<R: Read> Walk<R> {
    fn structure(&mut self, depth: u32) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| wrong("structs nested too deeply"))?;
        loop {
            let field = self.byte()?;
            let (kind, delta) = (field & 0x0f, field >> 4);
            if kind == STOP {
                return Ok(());
            }
            if delta == 0 {
                self.varint()?;
            }
            // A truth value is part of its field's type.
            if !matches!(kind, TRUE | FALSE) {
                self.value(kind, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        match kind {
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let n_bytes = self.varint()?;
                self.skip(n_bytes)
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth),
            13 => self.skip(16),
            // Truth values as elements: readers disagree on whether they take a byte, and nothing
            // that is read here holds any.
            _ => Err(wrong(format!("a value of type {kind}"))),
        }
    }

    fn list(&mut self, depth: u32) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| wrong("lists nested too deeply"))?;
        let head = self.byte()?;
        let n = match head >> 4 {
            15 => self.varint()?,
            n => n.into(),
        };
        self.elements(n)?;
        (0..n).try_for_each(|_| self.value(head & 0x0f, depth))
    }

    fn map(&mut self, depth: u32) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(|| wrong("maps nested too deeply"))?;
        let n = self.varint()?;
        if n == 0 {
            return Ok(());
        }
        self.elements(n)?;
        let kinds = self.byte()?;
        (0..n).try_for_each(|_| {
            self.value(kinds >> 4, depth)?;
            self.value(kinds & 0x0f, depth)
        })
    }

    /// Every element takes a byte at least.
    fn elements(&self, n: u64) -> io::Result<()> {
        match n <= self.left {
            true => Ok(()),
            false => {
                Err(wrong(format!("a list of {n} elements, {} bytes before the end", self.left)))
            }
        }
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for i in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("a number of more than 64 bits"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.skip(1)?;
        self.seen.last().copied().ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn skip(&mut self, n: u64) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(n)
            .ok_or_else(|| wrong(format!("a value of {n} bytes, {} before the end", self.left)))?;
        let read = self.input.by_ref().take(n).read_to_end(&mut self.seen)?;
        match read as u64 == n {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its description holds {}", what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Result<usize, String> {
        struct_bytes(bytes, bytes.len() as u64).map(|seen| seen.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_struct_ends_at_its_stop_whatever_follows() {
        // Field 1 an i32, field 2 a text, field 3 true, field 4 a list of two doubles, field 5 a map
        // of one text to a struct, field 500 an empty list.
        let mut bytes = vec![0x15, 0x80, 0x01, 0x18, 2, b'a', b'b', 0x11, 0x19, 0x27];
        bytes.extend([7; 16]);
        bytes.extend([0x1b, 1, 0x8c, 1, b'k', 0x15, 4, 0, 0x09, 0xe8, 0x07, 0x00, 0]);
        let n = bytes.len();
        bytes.extend([0xff; 5]);
        assert_eq!(walk(&bytes), Ok(n));
        assert_eq!(struct_bytes(&bytes[..], n as u64).unwrap(), bytes[..n]);
        for cut in 0..n {
            assert!(walk(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_done_about_it() {
        let long = [0xff, 0xff, 0xff, 0xff, 0x07];
        let with = |head: &[u8], tail: &[u8]| [head, &long, tail, &[0; 8]].concat();
        let error = walk(&with(&[0x18], &[])).unwrap_err();
        assert_eq!(error, "its description holds a value of 2147483647 bytes, 8 before the end");
        let error = walk(&with(&[0x19, 0xf7], &[])).unwrap_err();
        assert!(
            error.ends_with("a list of 2147483647 elements, 8 bytes before the end"),
            "{error}"
        );
        assert!(walk(&with(&[0x1b], &[0x77])).unwrap_err().contains("a list of 2147483647"));
    }

    #[test]
    fn fields_are_told_by_their_numbers_whatever_lies_between() {
        // Field 1 is 0, field 2 is 64 in two bytes, a text, field 3 by its number is -1; field 9 is a struct whose field
        // 5 is 1; field 10 is true; and field 2 once more is 1.
        let bytes = [
            0x15, 0, 0x15, 0x80, 0x01, 0x98, 1, b'a', 0x05, 6, 1, 0x6c, 0x55, 2, 0, 0x11, 0x05, 4,
            2, 0,
        ];
        let found = fields(&bytes).unwrap();
        let plain: Vec<(i64, u8, Option<i64>)> =
            found.iter().map(|field| (field.number, field.kind, field.integer)).collect();
        let expected = [
            (1, I32, Some(0)),
            (2, I32, Some(64)),
            (11, 8, None),
            (3, I32, Some(-1)),
            (9, STRUCT, None),
            (10, TRUE, None),
            (2, I32, Some(1)),
        ];
        assert_eq!(plain, expected);
        assert_eq!(
            (i32_of(&found, 2), i32_of(&found, 3), i32_of(&found, 4)),
            (Some(1), Some(-1), None)
        );
        assert_eq!(i32_of(&fields(&bytes[found[4].start..]).unwrap(), 5), Some(1));
        for end in 0..bytes.len() {
            assert!(fields(&bytes[..end]).is_err(), "{end}");
        }
        // Field 2^17 + 2 is field 2 to a reader that keeps 16 bits of it.
        assert!(fields(&[0x05, 0x84, 0x80, 0x10, 2, 0]).is_err());
    }

    #[test]
    fn elements_without_bytes_and_endless_nesting_are_refused() {
        assert!(walk(&[0x19, 0x11, 1, 0]).unwrap_err().ends_with("a value of type 1"));
        assert!(walk(&[0x1c; 1000]).unwrap_err().ends_with("structs nested too deeply"));
        assert!(walk(&[&[0x19][..], &[0x19; 1000]].concat()).unwrap_err().contains("nested"));
        assert!(walk(&[[0x16].as_slice(), &[0x80; 11]].concat()).unwrap_err().contains("64 bits"));
    }
}
