//! The operands of instructions, read within bounds.

use crate::{PickleError, op};

/// The bytes of a pickle, read forwards.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    next: usize,
    /// Start of the instruction whose operands are read.
    start: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first instruction.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, next: 0, start: 0 }
    }

    /// Where the next instruction starts; errors of its operands are reported there.
    pub fn offset(&mut self) -> usize {
        self.start = self.next;
        self.next
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let end = self.next.checked_add(n).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.wrong("the file ends within an instruction"));
        };
        let taken = &self.bytes[self.next..end];
        self.next = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.wrong("the file ends within an instruction"))
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    /// A string with its length before it.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn counted(&mut self, opcode: u8) -> Result<&'a [u8], PickleError> {
        let length = match opcode {
            op::SHORT_BINSTRING | op::SHORT_BINBYTES | op::SHORT_BINUNICODE => {
                u64::from(self.byte()?)
            }
            op::BINBYTES8 | op::BYTEARRAY8 | op::BINUNICODE8 => u64::from_le_bytes(self.array()?),
            // A length of Python 2 is signed; a negative one is longer than any file.
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The bytes of an integer with their number before it: little-endian two's complement.
    ///
    /// # Errors
    ///
    /// If the pickle ends within.
    pub fn long1_bytes(&mut self) -> Result<&'a [u8], PickleError> {
        let n = usize::from(self.byte()?);
        self.take(n)
    }

    /// An integer with the number of its bytes before it.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn long1(&mut self) -> Result<i64, PickleError> {
        let bytes = self.long1_bytes()?;
        let n = bytes.len();
        if n > 8 {
            return Err(self.wrong("an integer that does not fit"));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        word[..n].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(word))
    }

    /// The operand of an instruction that remembers or recalls.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn memo_slot(&mut self, opcode: u8) -> Result<u32, PickleError> {
        match opcode {
            op::BINGET | op::BINPUT => self.byte().map(u32::from),
            op::LONG_BINGET | op::LONG_BINPUT => self.array().map(u32::from_le_bytes),
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
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn line_text(&mut self) -> Result<&'a str, PickleError> {
        let line = self.line()?;
        std::str::from_utf8(line)
            .map(|text| text.trim_end_matches('\r'))
            .map_err(|_| self.wrong("text is not UTF-8"))
    }

    /// A string as Python's `repr` writes it, in quotes and with escapes.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
    pub fn quoted(&mut self) -> Result<Vec<u8>, PickleError> {
        let line = self.line()?.trim_ascii_end();
        let inner = match line {
            [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
            _ => return Err(self.wrong("a string without quotes")),
        };
        unescape(inner).ok_or_else(|| self.wrong("a string with a broken escape"))
    }

    /// Text as Python's `raw-unicode-escape` writes it: Latin-1 with `\u` escapes.
    ///
    /// # Errors
    ///
    /// If the pickle ends within, or the operand is malformed.
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
