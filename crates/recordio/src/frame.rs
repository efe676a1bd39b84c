//! Where records begin and end: magic, kind and length, padding, split records joined.

use std::borrow::Cow;

use crate::{Fault, fault::PAYLOAD_BYTES_MAX};

/// The first 4 bytes of every record and part.
pub const MAGIC: [u8; 4] = 0xced7_230a_u32.to_le_bytes();

/// Bytes of the magic and the length.
const FRAME_BYTES: usize = 8;

/// How the kind in a frame says where a part stands.
pub(crate) const WHOLE: u8 = 0;
pub(crate) const FIRST: u8 = 1;
pub(crate) const MIDDLE: u8 = 2;
pub(crate) const LAST: u8 = 3;

/// A stretch of a `.rec` file that holds no readable record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where the stretch begins.
    pub from: u64,
    /// Where the fault is, in the stretch or right behind it.
    pub offset: u64,
    /// What it is.
    pub fault: Fault,
    /// Where the next record begins, or the length of the file if none does.
    pub resumes_at: u64,
}

/// One record's payload, without frames and padding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Payload<'a> {
    /// Borrowed unless the record is split.
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Where the record ends, padding included.
    pub(crate) end: usize,
}

/// A fault and where it is.
pub(crate) type At = (u64, Fault);

/// One frame: the kind and payload of a record or part, and where it ends.
struct Part<'a> {
    kind: u8,
    bytes: &'a [u8],
    end: usize,
}

fn part(file: &[u8], at: usize) -> Result<Part<'_>, At> {
    let rest = file.get(at..).unwrap_or_default();
    let fault = |fault| (at as u64, fault);
    let Some((frame, rest)) = rest.split_at_checked(FRAME_BYTES) else {
        return Err(fault(Fault::FrameCut { left: rest.len() as u64 }));
    };
    let [m0, m1, m2, m3, l0, l1, l2, l3] = *frame else { unreachable!("8 bytes were split off") };
    let found = [m0, m1, m2, m3];
    if found != MAGIC {
        return Err(fault(Fault::NoMagic { found }));
    }
    let word = u32::from_le_bytes([l0, l1, l2, l3]);
    let length = (word & PAYLOAD_BYTES_MAX as u32) as usize;
    let padded = length.next_multiple_of(4);
    if padded > rest.len() {
        let (needed, left) = (padded as u64, rest.len() as u64);
        return Err(fault(Fault::PayloadCut { needed, left }));
    }
    Ok(Part { kind: (word >> 29) as u8, bytes: &rest[..length], end: at + FRAME_BYTES + padded })
}

/// The record that begins at `at`.
///
/// Copies only the parts of split records; allocates no more than they are long, at most
/// [`PAYLOAD_BYTES_MAX`].
pub(crate) fn record(file: &[u8], at: usize) -> Result<Payload<'_>, At> {
    let first = part(file, at)?;
    match first.kind {
        WHOLE => Ok(Payload { bytes: Cow::Borrowed(first.bytes), end: first.end }),
        FIRST => split_record(file, at, first),
        kind => Err((at as u64, Fault::NoRecordStart { kind })),
    }
}

fn split_record<'a>(file: &'a [u8], at: usize, first: Part<'a>) -> Result<Payload<'a>, At> {
    // The parts are walked before anything is allocated: a broken chain costs no memory.
    let (mut bytes, mut end) = (first.bytes.len() as u64, first.end);
    loop {
        let next = part(file, end)?;
        if !matches!(next.kind, MIDDLE | LAST) {
            return Err((end as u64, Fault::NoNextPart { kind: next.kind }));
        }
        bytes += (MAGIC.len() + next.bytes.len()) as u64;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err((at as u64, Fault::TooLong { bytes }));
        }
        end = next.end;
        if next.kind == LAST {
            break;
        }
    }
    let mut joined = Vec::with_capacity(bytes as usize);
    joined.extend_from_slice(first.bytes);
    let mut next_at = first.end;
    while next_at < end {
        let next = part(file, next_at)?;
        joined.extend_from_slice(&MAGIC);
        joined.extend_from_slice(next.bytes);
        next_at = next.end;
    }
    Ok(Payload { bytes: Cow::Owned(joined), end })
}

/// The records of a file one after another, without an index; steps over damage.
///
/// After an `Err` it goes on with the next magic of kind 0 or 1 at a multiple of 4 from there, where a record
/// of a whole file can begin and nothing else can; or at any place, where bytes were lost or came in
/// between, if another record or the end of the file follows the record that begins there.
pub(crate) struct Scanner<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a [u8]) -> Scanner<'a> {
        Scanner { file, at: 0 }
    }

    /// Where a record next begins after `at`.
    fn resume(&self, at: usize) -> usize {
        let starts = |place: &usize| {
            let frame = self.file.get(*place..place + FRAME_BYTES).unwrap_or_default();
            // The top 3 bits of the length are the kind, of which 2 and above begin no record.
            frame.starts_with(&MAGIC)
                && frame.last().is_some_and(|top| top >> 5 <= FIRST)
                && ((place - at).is_multiple_of(4) || self.is_followed(*place))
        };
        (at + 1..self.file.len()).find(starts).unwrap_or(self.file.len())
    }

    /// Whether a whole record begins at `place` with another one or nothing behind it. An image may hold the
    /// magic by chance at a place that is no multiple of 4, and then something else follows.
    fn is_followed(&self, place: usize) -> bool {
        record(self.file, place).is_ok_and(|payload| {
            let behind = self.file.get(payload.end..).unwrap_or_default();
            behind.is_empty() || behind.starts_with(&MAGIC)
        })
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Result<(u64, Payload<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.file.len() {
            return None;
        }
        let start = self.at;
        match record(self.file, start) {
            Ok(payload) => {
                self.at = payload.end;
                Some(Ok((start as u64, payload)))
            }
            Err((offset, fault)) => {
                // A record cut by the start of another must not swallow it: search from its own
                // beginning, not from where its length claims it ends.
                self.at = self.resume(start);
                Some(Err(Damage { from: start as u64, offset, fault, resumes_at: self.at as u64 }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as written on paper: magic, kind and length, bytes, padding.
    fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let word = (u32::from(kind) << 29) | bytes.len() as u32;
        let mut out = [&[0x0a, 0x23, 0xd7, 0xce], &word.to_le_bytes()[..], bytes].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn joined(file: &[u8]) -> Result<(Vec<u8>, usize), At> {
        record(file, 0).map(|p| (p.bytes.into_owned(), p.end))
    }

    #[test]
    fn a_whole_record_is_borrowed_and_ends_after_its_padding() {
        let file = frame(0, b"hello");
        let payload = record(&file, 0).unwrap();
        assert!(matches!(payload.bytes, Cow::Borrowed(b"hello")));
        assert_eq!(payload.end, 16);
    }

    #[test]
    fn parts_are_joined_with_the_magic_between_them() {
        let file = [frame(1, b"abcd"), frame(2, b""), frame(3, b"x"), frame(0, b"next")].concat();
        let expected = b"abcd\x0a\x23\xd7\xce\x0a\x23\xd7\xcex".to_vec();
        assert_eq!(joined(&file), Ok((expected, 32)));
    }

    #[test]
    fn a_chain_without_its_last_part_names_the_place_of_the_break() {
        let file = [frame(1, b"abcd"), frame(0, b"")].concat();
        assert_eq!(joined(&file), Err((12, Fault::NoNextPart { kind: 0 })));
        assert_eq!(joined(&file[..12]), Err((12, Fault::FrameCut { left: 0 })));
    }

    #[test]
    fn a_part_or_an_unknown_kind_begins_no_record() {
        for kind in 2..8 {
            assert_eq!(joined(&frame(kind, b"")), Err((0, Fault::NoRecordStart { kind })));
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_an_error_not_an_allocation() {
        let file = [&MAGIC[..], &(PAYLOAD_BYTES_MAX as u32).to_le_bytes()].concat();
        let needed = PAYLOAD_BYTES_MAX + 1;
        assert_eq!(joined(&file), Err((0, Fault::PayloadCut { needed, left: 0 })));
    }

    #[test]
    fn an_offset_beyond_the_file_is_an_error() {
        let fault = Fault::FrameCut { left: 0 };
        assert_eq!(record(b"", usize::MAX).unwrap_err(), (u64::MAX, fault));
    }

    #[test]
    fn a_scan_goes_on_after_damage_with_the_next_whole_record() {
        let mut file =
            [frame(0, b"first"), frame(0, b"second"), frame(1, b"cut."), frame(0, b"last")]
                .concat();
        file[16] ^= 1;
        let found: Vec<_> = Scanner::new(&file).map(|r| r.map(|(at, p)| (at, p.bytes))).collect();
        let no_magic = Fault::NoMagic { found: [0x0b, 0x23, 0xd7, 0xce] };
        assert_eq!(
            found,
            [
                Ok((0, Cow::Borrowed(&b"first"[..]))),
                Err(Damage { from: 16, offset: 16, fault: no_magic, resumes_at: 32 }),
                Err(Damage {
                    from: 32,
                    offset: 44,
                    fault: Fault::NoNextPart { kind: 0 },
                    resumes_at: 44
                }),
                Ok((44, Cow::Borrowed(&b"last"[..]))),
            ]
        );
    }

    #[test]
    fn a_scan_finds_the_records_behind_bytes_that_were_lost_or_came_in_between() {
        let bodies: [&[u8]; 4] =
            [b"first", b"with \x0a\x23\xd7\xce\x01\0\0\0 in it", b"third", b"last"];
        let whole = bodies.map(|body| frame(0, body)).concat();
        let second = frame(0, bodies[0]).len();
        let found = |file: &[u8]| -> Vec<Vec<u8>> {
            Scanner::new(file).flatten().map(|(_, payload)| payload.bytes.into_owned()).collect()
        };
        assert_eq!(found(&whole), bodies);
        for n in 1..8 {
            assert_eq!(found(&whole[n..]), bodies[1..], "{n} bytes of the head are gone");
            let strange = [&whole[..second], &vec![0x0a; n][..], &whole[second..]].concat();
            assert_eq!(found(&strange), bodies, "{n} bytes more before the second");
        }
        // The magic in an image is no record, though a length stands behind it.
        let mut flipped = whole.clone();
        flipped[second] ^= 1;
        assert_eq!(found(&flipped), [bodies[0], bodies[2], bodies[3]]);
    }

    #[test]
    fn a_scan_of_a_wrong_length_finds_the_records_that_it_would_swallow() {
        let mut file = [frame(0, b"a"), frame(0, b"b")].concat();
        file[4] = 200;
        let found: Vec<_> = Scanner::new(&file).collect();
        let fault = Fault::PayloadCut { needed: 200, left: 16 };
        assert_eq!(found[0], Err(Damage { from: 0, offset: 0, fault, resumes_at: 12 }));
        assert!(found[1].is_ok() && found.len() == 2);
    }
}
