//! Lists in UTF-16, as Excel and PowerShell write them, and with line ends of old Macs, turned into
//! UTF-8 and line feeds as they are read.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes turned at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// `input` as UTF-8: as it is, or turned from UTF-16, by its byte order mark or by the zeros that
/// plain letters have there.
///
/// # Errors
///
/// That of `input`.
pub fn utf8(mut input: Box<dyn BufRead>) -> io::Result<Box<dyn BufRead>> {
    let unit: fn([u8; 2]) -> u16 = match input.fill_buf()? {
        [0xff, 0xfe, ..] | [1..=255, 0, 1..=255, 0, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255, ..] => u16::from_be_bytes,
        _ => return Ok(input),
    };
    let turned = Turned { input, unit, high: None, text: Vec::new(), at: 0 };
    Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, turned)))
}

/// `input` with line feeds for its line ends, where these are carriage returns alone.
///
/// # Errors
///
/// That of `input`.
pub fn line_feeds(mut input: Box<dyn BufRead>) -> io::Result<Box<dyn BufRead>> {
    let start = input.fill_buf()?;
    let is_turn = |pair: &[u8]| pair[0] == b'\r' && pair[1] != b'\n';
    // Within a line of any other list a carriage return is damage.
    if start.contains(&b'\n') || !start.windows(2).any(is_turn) {
        return Ok(input);
    }
    Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, Returns { input })))
}

/// The bytes of a whole list of text as UTF-8 with line feeds, as `utf8` and `line_feeds` make them.
pub fn list_text(bytes: Vec<u8>) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let input = utf8(Box::new(io::Cursor::new(bytes))).and_then(line_feeds);
    // Memory is read without a fault.
    if let Ok(mut input) = input {
        let _ = input.read_to_end(&mut text);
    }
    text
}

struct Returns {
    input: Box<dyn BufRead>,
}

impl Read for Returns {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(out)?;
        out[..n].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        Ok(n)
    }
}

struct Turned {
    input: Box<dyn BufRead>,
    unit: fn([u8; 2]) -> u16,
    /// The first half of a character beyond the Basic Multilingual Plane.
    high: Option<u16>,
    text: Vec<u8>,
    /// How much of it was given away.
    at: usize,
}

impl Turned {
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        (&mut self.input).take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        let is_end = bytes.len() < CHUNK_BYTES;
        let (pairs, rest) = bytes.as_chunks::<2>();
        let mut units: Vec<u16> = self.high.take().into_iter().collect();
        units.extend(pairs.iter().map(|pair| (self.unit)(*pair)));
        // Half a unit at the end of the file is damage, which a mark stands for.
        units.extend(rest.first().map(|_| 0xfffd));
        if !is_end {
            self.high = units.pop_if(|unit| (0xd800..0xdc00).contains(unit));
        }
        let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
        self.text = text.collect::<String>().into_bytes();
        self.at = 0;
        Ok(())
    }
}

impl Read for Turned {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.text.len() {
            self.fill()?;
        }
        let n = out.len().min(self.text.len() - self.at);
        out[..n].copy_from_slice(&self.text[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> String {
        let mut text = String::new();
        utf8(Box::new(io::Cursor::new(bytes))).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn text_comes_out_of_either_byte_order_with_a_mark_or_without() {
        let long = "faces/Zoë/1.jpg\t3\r\n𝄞 é\n".repeat(5000);
        for text in ["", "a\tb\n", &long] {
            for mark in [None, Some('\u{feff}')] {
                let marked: String = mark.into_iter().chain(text.chars()).collect();
                let units = || marked.encode_utf16();
                assert_eq!(read(units().flat_map(u16::to_le_bytes).collect()), marked);
                assert_eq!(read(units().flat_map(u16::to_be_bytes).collect()), marked);
                assert_eq!(read(marked.clone().into_bytes()), marked);
            }
        }
    }

    #[test]
    fn carriage_returns_alone_are_line_ends() {
        let read = |text: &str| {
            let mut turned = String::new();
            let input = Box::new(io::Cursor::new(text.to_owned().into_bytes()));
            line_feeds(input).unwrap().read_to_string(&mut turned).unwrap();
            turned
        };
        assert_eq!(read("a\t1\rb\t2\r"), "a\t1\nb\t2\n");
        for other in ["", "a\t1\r", "a\t1\r\nb\t2\r\n", "a\t1\nb\r\t2\n"] {
            assert_eq!(read(other), other);
        }
    }

    #[test]
    fn broken_units_become_marks() {
        let bytes = [&b"\xff\xfea\0\x00\xd8b\0"[..], b"c"].concat();
        assert_eq!(read(bytes), "\u{feff}a\u{fffd}b\u{fffd}");
    }
}
