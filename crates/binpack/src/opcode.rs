//! Pickle instructions: their codes and the reading of their operands.

use crate::pickle::PickleError;

pub const APPEND: u8 = b'a';
pub const APPENDS: u8 = b'e';
pub const BINBYTES: u8 = b'B';
pub const BINBYTES8: u8 = 0x8e;
pub const BINGET: u8 = b'h';
pub const BININT: u8 = b'J';
pub const BININT1: u8 = b'K';
pub const BININT2: u8 = b'M';
pub const BINPUT: u8 = b'q';
pub const BINSTRING: u8 = b'T';
pub const BINUNICODE: u8 = b'X';
pub const BINUNICODE8: u8 = 0x8d;
pub const BUILD: u8 = b'b';
pub const BYTEARRAY8: u8 = 0x96;
pub const EMPTY_LIST: u8 = b']';
pub const EMPTY_TUPLE: u8 = b')';
pub const FRAME: u8 = 0x95;
pub const GET: u8 = b'g';
pub const GLOBAL: u8 = b'c';
pub const INT: u8 = b'I';
pub const LIST: u8 = b'l';
pub const LONG: u8 = b'L';
pub const LONG1: u8 = 0x8a;
pub const LONG_BINGET: u8 = b'j';
pub const LONG_BINPUT: u8 = b'r';
pub const MARK: u8 = b'(';
pub const MEMOIZE: u8 = 0x94;
pub const NEWFALSE: u8 = 0x89;
pub const NEWTRUE: u8 = 0x88;
pub const NONE: u8 = b'N';
pub const POP: u8 = b'0';
pub const POP_MARK: u8 = b'1';
pub const PROTO: u8 = 0x80;
pub const PUT: u8 = b'p';
pub const REDUCE: u8 = b'R';
pub const SHORT_BINBYTES: u8 = b'C';
pub const SHORT_BINSTRING: u8 = b'U';
pub const SHORT_BINUNICODE: u8 = 0x8c;
pub const STACK_GLOBAL: u8 = 0x93;
pub const STOP: u8 = b'.';
pub const STRING: u8 = b'S';
pub const TUPLE: u8 = b't';
pub const TUPLE1: u8 = 0x85;
pub const TUPLE2: u8 = 0x86;
pub const TUPLE3: u8 = 0x87;
pub const UNICODE: u8 = b'V';

/// What Python's documentation calls an instruction that is not read here.
pub fn name(opcode: u8) -> &'static str {
    match opcode {
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'G' => "BINFLOAT",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'd' | b'}' => "DICT",
        b'i' => "INST",
        b'o' => "OBJ",
        b's' => "SETITEM",
        b'u' => "SETITEMS",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}

/// The bytes of a pickle, read forwards.
pub struct Reader<'a> {
    bytes: &'a [u8],
    next: usize,
    /// Start of the instruction whose operands are read.
    start: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, next: 0, start: 0 }
    }

    /// Where the next instruction starts; errors of its operands are reported there.
    pub fn offset(&mut self) -> usize {
        self.start = self.next;
        self.next
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let end = self.next.checked_add(n).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.wrong("the file ends within an instruction"));
        };
        let taken = &self.bytes[self.next..end];
        self.next = end;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.wrong("the file ends within an instruction"))
    }

    pub fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    /// A string with its length before it.
    pub fn counted(&mut self, opcode: u8) -> Result<&'a [u8], PickleError> {
        let length = match opcode {
            SHORT_BINSTRING | SHORT_BINBYTES | SHORT_BINUNICODE => u64::from(self.byte()?),
            BINBYTES8 | BYTEARRAY8 | BINUNICODE8 => u64::from_le_bytes(self.array()?),
            // A length of Python 2 is signed; a negative one is longer than any file.
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Little-endian two's complement with its length before it.
    pub fn long1(&mut self) -> Result<i64, PickleError> {
        let n = usize::from(self.byte()?);
        let bytes = self.take(n)?;
        if n > 8 {
            return Err(self.wrong("an integer that does not fit"));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        word[..n].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(word))
    }

    pub fn memo_slot(&mut self, opcode: u8) -> Result<u32, PickleError> {
        match opcode {
            BINGET | BINPUT => self.byte().map(u32::from),
            LONG_BINGET | LONG_BINPUT => self.array().map(u32::from_le_bytes),
            _ => {
                let text = self.line_text()?;
                text.parse().map_err(|_| self.wrong("a memo number that does not fit"))
            }
        }
    }

    fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.next..];
        let n = rest.iter().position(|&byte| byte == b'\n');
        let n = n.ok_or_else(|| self.wrong("the file ends within an instruction"))?;
        self.next += n + 1;
        Ok(&rest[..n])
    }

    /// The rest of the line, as text.
    pub fn line_text(&mut self) -> Result<&'a str, PickleError> {
        let line = self.line()?;
        std::str::from_utf8(line)
            .map(|text| text.trim_end_matches('\r'))
            .map_err(|_| self.wrong("text is not UTF-8"))
    }

    /// A string as Python's `repr` writes it, in quotes and with escapes.
    pub fn quoted(&mut self) -> Result<Vec<u8>, PickleError> {
        let line = self.line()?.trim_ascii_end();
        let inner = match line {
            [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
            _ => return Err(self.wrong("a string without quotes")),
        };
        unescape(inner).ok_or_else(|| self.wrong("a string with a broken escape"))
    }

    /// Text as Python's `raw-unicode-escape` writes it: Latin-1 with `\u` escapes.
    pub fn raw_unicode(&mut self) -> Result<String, PickleError> {
        let mut rest = self.line()?;
        let mut text = String::new();
        while let [byte, tail @ ..] = rest {
            rest = tail;
            let n_digits = match (byte, tail.first()) {
                (b'\\', Some(b'u')) => 4,
                (b'\\', Some(b'U')) => 8,
                _ => {
                    text.push(char::from(*byte));
                    continue;
                }
            };
            let c = tail.get(1..=n_digits).and_then(hex).and_then(char::from_u32);
            text.push(c.ok_or_else(|| self.wrong("text with a broken escape"))?);
            rest = &tail[1 + n_digits..];
        }
        Ok(text)
    }

    fn wrong(&self, problem: &str) -> PickleError {
        PickleError { offset: self.start, problem: problem.to_owned() }
    }
}

/// Undoes the escapes of a byte string, `None` if one is broken.
fn unescape(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (&escape, tail) = rest.split_first()?;
        rest = tail;
        bytes.push(match escape {
            b'\\' | b'\'' | b'"' => escape,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'x' => {
                let digits = rest.get(..2)?;
                rest = &rest[2..];
                u8::try_from(hex(digits)?).ok()?
            }
            b'0'..=b'7' => {
                let n = rest.iter().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let digits = rest[..n].iter();
                let first = u32::from(escape - b'0');
                let value = digits.fold(first, |value, digit| value * 8 + u32::from(digit - b'0'));
                rest = &rest[n..];
                u8::try_from(value).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value * 16 + digit)
    })
}
