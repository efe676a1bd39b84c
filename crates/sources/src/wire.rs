//! The wire format of Protocol Buffers, as far as messages of images need it: the fields of a message, each
//! with its place, read without trust.

use std::ops::Range;

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// An integer.
    Varint(u64),
    /// Bytes, text or a message: where they are.
    Bytes(Range<usize>),
    /// Eight or four bytes, such as a float has.
    Fixed(Range<usize>),
}

/// The fields of the message that lies at `range` in `bytes`: number and value, until the end or damage,
/// which is an error.
pub fn fields(
    bytes: &[u8],
    range: Range<usize>,
) -> impl Iterator<Item = Result<(u64, Wire), String>> {
    let (mut at, end) = (range.start, range.end.min(bytes.len()));
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let field = next(bytes, &mut at, end);
        if field.is_none() {
            at = end;
        }
        Some(field.ok_or_else(|| "its message is damaged".to_owned()))
    })
}

fn next(bytes: &[u8], at: &mut usize, end: usize) -> Option<(u64, Wire)> {
    let tag = varint(bytes, at, end)?;
    let value = match tag & 7 {
        0 => Wire::Varint(varint(bytes, at, end)?),
        1 => Wire::Fixed(take(8, at, end)?),
        2 => {
            let n = varint(bytes, at, end)?;
            Wire::Bytes(take(n, at, end)?)
        }
        5 => Wire::Fixed(take(4, at, end)?),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn take(n: u64, at: &mut usize, end: usize) -> Option<Range<usize>> {
    let stop = at.checked_add(usize::try_from(n).ok()?).filter(|stop| *stop <= end)?;
    Some(std::mem::replace(at, stop)..stop)
}

/// An integer at `at`, behind which that goes.
pub fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(..end)?.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_places() {
        // From the documentation of the encoding: 150, "testing", and a fixed number.
        let bytes = b"\x08\x96\x01\x12\x07testing\x1d\x01\x02\x03\x04";
        let found: Vec<_> = fields(bytes, 0..bytes.len()).collect();
        let expected =
            [Ok((1, Wire::Varint(150))), Ok((2, Wire::Bytes(5..12))), Ok((3, Wire::Fixed(13..17)))];
        assert_eq!(found, expected);
        for n in [1, 2, 4, 8, 11, 14, 16] {
            assert!(fields(bytes, 0..n).any(|field| field.is_err()), "{n}");
        }
        for damaged in [&b"\x0b"[..], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &[0xff; 12]]
        {
            assert_eq!(fields(damaged, 0..damaged.len()).count(), 1);
        }
    }
}
