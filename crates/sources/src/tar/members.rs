//! The members of a tar file, read forwards and without trust: POSIX (ustar, pax), GNU and the old
//! V7 layout. Nothing is written anywhere, and no name is taken for a path.

use std::io::{self, Read};

use pfc_durable::faults::is_of_system;

/// Headers and contents fill whole blocks.
const BLOCK: usize = 512;
/// Two blocks of zeros end a tar file.
const END_BYTES: u64 = 2 * BLOCK as u64;
/// Most writers fill the last record: 20 blocks, as tapes had them.
const RECORD_BYTES: u64 = 20 * BLOCK as u64;
/// Longer names and pax headers are an attack or damage.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// A stream of bytes that can be read and skipped, forwards only.
pub trait Forward: Read {
    /// How many bytes are left, where that is known.
    fn left(&self) -> Option<u64>;

    /// Skips `n` bytes; returns whether there were as many.
    ///
    /// # Errors
    ///
    /// That of the bytes' source.
    fn skip(&mut self, n: u64) -> io::Result<bool>;
}

impl Forward for &[u8] {
    fn left(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn skip(&mut self, n: u64) -> io::Result<bool> {
        let whole = self.len() as u64 >= n;
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(self.len());
        *self = &self[n..];
        Ok(whole)
    }
}

/// Why no member can be had.
#[derive(Debug)]
pub enum Fault {
    /// The bytes are not those of a tar file, or of a compressed one.
    Damage {
        /// In the file, once unpacked.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// The system cannot read them now, which says nothing of them.
    System(io::Error),
}

impl Fault {
    fn damage(offset: u64, problem: impl Into<String>) -> Fault {
        Fault::Damage { offset, problem: problem.into() }
    }

    /// What it means that reading from `offset` on fails.
    fn of_read(offset: u64) -> impl FnOnce(io::Error) -> Fault {
        move |error| match is_of_system(&error) {
            true => Fault::System(error),
            false => Fault::damage(offset, format!("cannot read: {error}")),
        }
    }
}

/// A file in a tar file.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path, as it is stored.
    pub name: Vec<u8>,
    /// It is a link to another member, and has no content.
    pub is_link: bool,
    /// Where its content starts.
    pub start: u64,
    /// Bytes of its content.
    pub n_bytes: u64,
}

/// The files of a tar file in their order; folders and devices are passed over.
pub struct Members<R> {
    input: R,
    /// Where `input` is.
    at: u64,
    /// Bytes of the current member that are still to be passed over, padding included.
    rest: u64,
    /// Content of the current member that is not read yet.
    content: u64,
    is_closed: bool,
    /// Where the current tar file begins, of several that were joined.
    begin: u64,
    /// Tar files behind the first.
    n_joined: u64,
    /// Stretches that were stepped over; nothing where damage is an error.
    damage: Option<Vec<Stretch>>,
    /// A header that was read ahead; `at` is where it begins.
    pending: Option<Header>,
    /// The block before `at` that should have been a header and is none.
    failed: Option<[u8; BLOCK]>,
}

/// A stretch of a damaged tar file without a member that can be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub start: u64,
    /// Where the next member begins, or the file ends.
    pub end: u64,
    /// What is wrong.
    pub problem: String,
}

/// More stretches are stepped over but not kept one by one.
const STRETCHES_MAX: usize = 1000;

/// What special headers say of the member after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    n_bytes: Option<u64>,
}

impl<R: Forward> Members<R> {
    /// The members of `input`, from its start.
    pub fn new(input: R) -> Members<R> {
        Members {
            input,
            at: 0,
            rest: 0,
            content: 0,
            is_closed: false,
            begin: 0,
            n_joined: 0,
            damage: None,
            pending: None,
            failed: None,
        }
    }

    /// The same, stepping over damage: reading goes on with the next header, which lies anywhere if bytes
    /// were lost or came in between.
    pub fn salvaging(input: R) -> Members<R> {
        Members { damage: Some(Vec::new()), ..Members::new(input) }
    }

    /// The stretches that were stepped over, the first thousand.
    pub fn damage(&self) -> &[Stretch] {
        self.damage.as_deref().unwrap_or_default()
    }

    /// Whether the mark was met that ends a tar file; without it the file may have lost its end.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// How many tar files were met behind the first, as `cat` joins them.
    pub fn n_joined(&self) -> u64 {
        self.n_joined
    }

    /// The next file.
    ///
    /// # Errors
    ///
    /// [`Fault::Damage`] that is not stepped over, or [`Fault::System`].
    pub fn advance(&mut self) -> Result<Option<Member>, Fault> {
        loop {
            let (start, problem) = match self.next_member() {
                Err(Fault::Damage { offset, problem }) if self.damage.is_some() => {
                    (offset, problem)
                }
                member => return member,
            };
            let found = self.resume()?;
            let end = self.at;
            let kept = self.damage.get_or_insert_default();
            if kept.len() < STRETCHES_MAX {
                kept.push(Stretch { start, end, problem });
            }
            if !found {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next header, which is then read first; whether there is one.
    fn resume(&mut self) -> Result<bool, Fault> {
        (self.rest, self.content) = (0, 0);
        if self.pending.is_some() {
            return Ok(true);
        }
        // What cannot be unpacked ends the file.
        match self.find_header() {
            Err(Fault::Damage { .. }) => Ok(false),
            found => found,
        }
    }

    /// Slides along the bytes to the next header; whether there is one.
    fn find_header(&mut self) -> Result<bool, Fault> {
        let mut window = match self.failed.take() {
            Some(block) => {
                self.at -= BLOCK as u64;
                block
            }
            None => match self.block()? {
                Some(block) => block,
                None => return Ok(false),
            },
        };
        while !Header(window).is_marked() {
            let shift = next_start(&window);
            window.copy_within(shift.., 0);
            let n_read = self.fill(&mut window[BLOCK - shift..])?;
            if n_read < shift {
                self.at += (BLOCK + n_read) as u64;
                return Ok(false);
            }
            self.at += shift as u64;
        }
        self.pending = Some(Header(window));
        Ok(true)
    }

    /// The next block, behind which `at` does not go; nothing where the file ends.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            BLOCK => Ok(Some(block)),
            _ if is_zero(&block) => Ok(None),
            _ => Err(cut_short(self.at)),
        }
    }

    /// Fills `out`, as far as there are bytes; says how many.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::of_read(self.at)(e)),
            }
        }
        Ok(filled)
    }

    fn next_member(&mut self) -> Result<Option<Member>, Fault> {
        let mut extension = Extension::default();
        loop {
            self.pass_over()?;
            let offset = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let wrong = |problem: &str| Fault::damage(offset, problem);
            let own = header.n_bytes().ok_or_else(|| wrong("the size of a member is no number"))?;
            match header.kind() {
                b'L' => extension.name = Some(until_zero(&self.extension(own)?).to_vec()),
                b'x' => extension.read_pax(&self.extension(own)?).map_err(|e| wrong(&e))?,
                b'K' | b'g' | b'V' => self.enter(own)?,
                // A folder, a link or a device says nothing of any content.
                b'1'..=b'6' => {
                    let is_link = matches!(header.kind(), b'1' | b'2');
                    let Extension { name, .. } = std::mem::take(&mut extension);
                    if is_link {
                        let name = name.unwrap_or_else(|| header.name());
                        return Ok(Some(Member { name, is_link, start: self.at, n_bytes: 0 }));
                    }
                }
                b'S' => return Err(wrong("a sparse file, which is not read")),
                _ => {
                    let Extension { name, n_bytes } = std::mem::take(&mut extension);
                    let name = name.unwrap_or_else(|| header.name());
                    self.enter(n_bytes.unwrap_or(own))?;
                    // How V7 says that it is a folder.
                    if !name.ends_with(b"/") {
                        let (start, n_bytes) = (self.at, self.content);
                        return Ok(Some(Member { name, is_link: false, start, n_bytes }));
                    }
                }
            }
        }
    }

    /// The content of the member last given, if it is not longer than `bytes_max`.
    ///
    /// # Errors
    ///
    /// [`Fault`] if the file ends before it does.
    pub fn content(&mut self, bytes_max: u64) -> Result<Option<Vec<u8>>, Fault> {
        if self.content > bytes_max {
            return Ok(None);
        }
        let offset = self.at;
        let n = self.content;
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(n).read_to_end(&mut bytes);
        read.map_err(Fault::of_read(offset))?;
        if bytes.len() as u64 != n {
            return Err(cut_short(offset));
        }
        self.at += n;
        self.rest -= n;
        self.content = 0;
        Ok(Some(bytes))
    }

    /// Whether the content of the member last given is all there, as far as that can be told
    /// without reading it.
    pub fn is_whole(&self) -> bool {
        self.input.left().is_none_or(|left| self.content <= left)
    }

    /// Notes that a content of so many bytes follows.
    fn enter(&mut self, n_bytes: u64) -> Result<(), Fault> {
        let offset = self.at;
        let rest = n_bytes.checked_next_multiple_of(BLOCK as u64);
        let end = rest.and_then(|rest| rest.checked_add(offset));
        let (Some(rest), Some(_)) = (rest, end) else {
            return Err(Fault::damage(offset, format!("a member of {n_bytes} bytes")));
        };
        (self.rest, self.content) = (rest, n_bytes);
        Ok(())
    }

    fn extension(&mut self, n_bytes: u64) -> Result<Vec<u8>, Fault> {
        let offset = self.at;
        self.enter(n_bytes)?;
        let content = self.content(EXTENSION_BYTES_MAX)?;
        content.ok_or_else(|| {
            let problem = format!(
                "a name or header of {n_bytes} bytes; up to {EXTENSION_BYTES_MAX} are read"
            );
            Fault::damage(offset, problem)
        })
    }

    fn pass_over(&mut self) -> Result<(), Fault> {
        let (offset, rest) = (self.at, std::mem::take(&mut self.rest));
        // The padding of the last member may be missing, its content may not.
        let content = std::mem::take(&mut self.content);
        for (n, must) in [(content, true), (rest - content, false)] {
            let whole = self.input.skip(n).map_err(Fault::of_read(offset))?;
            if !whole && must {
                return Err(cut_short(offset));
            }
        }
        self.at += rest;
        Ok(())
    }

    /// The header that comes next, unless the file ends here.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        let offset = self.at;
        if let Some(header) = self.pending.take() {
            self.at += BLOCK as u64;
            return Ok(Some(header));
        }
        let Some(block) = self.block()? else { return Ok(None) };
        self.at += BLOCK as u64;
        if is_zero(&block) {
            return self.behind_zeros(offset);
        }
        let header = Header(block);
        if header.is_whole() {
            return Ok(Some(header));
        }
        self.failed = Some(header.0);
        Err(Fault::damage(offset, "no member begins here, by its checksum"))
    }

    /// What comes behind a block of zeros at `start`: the rest of the mark that ends a tar file, and
    /// then nothing, or the header of another tar file, where `cat` has joined some. Anything else
    /// means that the zeros are a hole in the file, and its end is somewhere else.
    fn behind_zeros(&mut self, start: u64) -> Result<Option<Header>, Fault> {
        while let Some(block) = self.block()? {
            if is_zero(&block) {
                self.at += BLOCK as u64;
                continue;
            }
            let header = Header(block);
            let (end, n_zeros) = (self.at, self.at - start);
            if header.is_marked() && is_end_mark(n_zeros, end - self.begin) {
                self.n_joined += 1;
                self.begin = end;
                self.at += BLOCK as u64;
                return Ok(Some(header));
            }
            match header.is_marked() {
                true => self.pending = Some(header),
                false => {
                    self.at += BLOCK as u64;
                    self.failed = Some(header.0);
                }
            }
            let problem = format!(
                "{n_zeros} zeros where a member should begin, and the file goes on after them"
            );
            return Err(Fault::damage(start, problem));
        }
        self.is_closed = true;
        Ok(None)
    }
}

/// Whether so many zeros are what writers put at the end of a tar file, which is then `n_bytes` long:
/// two blocks, and as many as fill a record.
fn is_end_mark(n_zeros: u64, n_bytes: u64) -> bool {
    n_zeros == END_BYTES
        || n_zeros > END_BYTES
            && n_zeros < END_BYTES + RECORD_BYTES
            && n_bytes.is_multiple_of(RECORD_BYTES)
}

/// Where POSIX and GNU write [`MAGIC`] in a header.
const MAGIC_AT: usize = 257;
const MAGIC: &[u8] = b"ustar";

/// The first place behind that of `window` where a header can begin, by the bytes that are in it.
fn next_start(window: &[u8; BLOCK]) -> usize {
    let can_begin = |start: &usize| {
        let seen = &window[start + MAGIC_AT..];
        MAGIC.starts_with(seen) || seen.starts_with(MAGIC)
    };
    (1..=BLOCK - MAGIC_AT).find(can_begin).unwrap_or(BLOCK - MAGIC_AT)
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn cut_short(offset: u64) -> Fault {
    Fault::damage(offset, "the file is cut short")
}

#[derive(Debug)]
struct Header([u8; BLOCK]);

impl Header {
    /// The checksum is that of the header with blanks in its own place; some old programs added
    /// signed bytes.
    fn is_whole(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else { return false };
        let byte = |(i, byte): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *byte };
        let bytes = || self.0.iter().enumerate().map(byte);
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        stored == unsigned || i64::try_from(stored) == Ok(signed)
    }

    /// The same, with the magic of POSIX and GNU beside it: chance does not make both.
    fn is_marked(&self) -> bool {
        self.0[MAGIC_AT..].starts_with(MAGIC) && self.is_whole()
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn n_bytes(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    fn name(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        // Only POSIX has a prefix: GNU has the two bytes after the magic otherwise.
        let prefix =
            if &self.0[257..263] == b"ustar\0" { until_zero(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }
}

impl Extension {
    /// Reads the records `LENGTH KEY=VALUE\n` of a pax header.
    fn read_pax(&mut self, mut rest: &[u8]) -> Result<(), String> {
        let broken = || "a broken pax header".to_owned();
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length = std::str::from_utf8(&rest[..blank]).ok();
            let length: Option<usize> = length.and_then(|digits| digits.parse().ok());
            let record = length.and_then(|length| rest.get(blank + 1..length));
            let Some([record @ .., b'\n']) = record else { return Err(broken()) };
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => {
                    let digits = std::str::from_utf8(value).ok();
                    let size = digits.and_then(|digits| digits.parse().ok());
                    self.n_bytes = Some(size.ok_or_else(broken)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("a sparse file, which is not read".into());
                }
                _ => {}
            }
            rest = &rest[length.unwrap_or(rest.len())..];
        }
        Ok(())
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A number field: octal digits between blanks, or, where the first bit is set, big endian.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let start = u64::from(first & 0x7f);
        return rest.iter().try_fold(start, |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte))
        });
    }
    let digits = until_zero(field).trim_ascii();
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and content of every member.
    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let mut members = Members::new(bytes);
        let mut all = Vec::new();
        while let Some(member) = members.advance()? {
            let content = members.content(1 << 20)?.unwrap();
            let start = member.start as usize;
            assert_eq!(bytes[start..start + member.n_bytes as usize], content);
            all.push((String::from_utf8(member.name).unwrap(), content));
        }
        Ok(all)
    }

    fn built(names: &[&str], format: impl Fn() -> tar::Header) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (i, name) in names.iter().enumerate() {
            let content = vec![i as u8; i * 300];
            let mut header = format();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_another_writer_wrote_is_read_in_every_layout() {
        let long = format!("{}b.jpg", "deep/".repeat(60));
        let mid = format!("{}/c.jpg", "x".repeat(120));
        let names = ["a.jpg", &long, &mid, "d.cls"];
        for format in [tar::Header::new_gnu, tar::Header::new_ustar] {
            let names: Vec<&str> = if format().as_ustar().is_some() {
                names.iter().copied().filter(|name| name.len() < 200).collect()
            } else {
                names.to_vec()
            };
            let found = read(&built(&names, format)).unwrap();
            let expected: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(i, n)| (n.to_string(), vec![i as u8; i * 300]))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn pax_headers_rename_and_resize_the_member_after_them() {
        let mut builder = tar::Builder::new(Vec::new());
        let pax = [("mtime", &b"1.5"[..]), ("path", b"real/name.jpg")];
        builder.append_pax_extensions(pax).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        builder.append_data(&mut header, "short", &b"abc"[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        builder.append_data(&mut header, "next.jpg", &b"d"[..]).unwrap();
        let found = read(&builder.into_inner().unwrap()).unwrap();
        let expected =
            [("real/name.jpg".into(), b"abc".to_vec()), ("next.jpg".into(), b"d".to_vec())];
        assert_eq!(found, expected);
    }

    #[test]
    fn folders_are_passed_over_and_links_have_no_content() {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name) in [(tar::EntryType::Directory, "d/"), (tar::EntryType::Link, "d/l.jpg")] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            builder.append_link(&mut header, name, "d/a.jpg").unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut members = Members::new(&bytes[..]);
        let member = members.advance().unwrap().unwrap();
        assert!(member.is_link && member.name == b"d/l.jpg" && member.n_bytes == 0);
        assert!(members.advance().unwrap().is_none());
        assert!(members.is_closed());
    }

    /// Where a fault is, and what it is.
    fn told(fault: Fault) -> (u64, String) {
        match fault {
            Fault::Damage { offset, problem } => (offset, problem),
            Fault::System(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn check_fault(bytes: &[u8], offset: u64, problem: &str) {
        assert_eq!(told(read(bytes).unwrap_err()), (offset, problem.to_owned()));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let whole = built(&["a.jpg", "b.jpg", "c.jpg"], tar::Header::new_gnu);
        check_fault(&whole[..100], 0, "the file is cut short");
        check_fault(&whole[..1200], 1024, "the file is cut short");
        let mut flipped = whole.clone();
        flipped[512 + 10] ^= 1;
        check_fault(&flipped, 512, "no member begins here, by its checksum");
        check_fault(&[b'x'; 1024], 0, "no member begins here, by its checksum");
        // Without the mark at its end it is read, but not closed.
        let mut members = Members::new(&whole[..1536]);
        while members.advance().unwrap().is_some() {}
        assert!(!members.is_closed());
    }

    #[test]
    fn members_behind_damage_are_found_again() {
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"];
        let whole = built(&names, tar::Header::new_gnu);
        let find = |bytes: &[u8]| {
            let mut members = Members::salvaging(bytes);
            let mut found = Vec::new();
            while let Some(member) = members.advance().unwrap() {
                if members.is_whole() {
                    found.push(String::from_utf8(member.name).unwrap());
                }
            }
            let damage: Vec<_> = members.damage().iter().map(|s| (s.start, s.end)).collect();
            (found, damage)
        };
        assert_eq!(find(&whole), (names.map(str::to_owned).to_vec(), vec![]));
        // The headers are at 0, 512, 1536 and 3072.
        let mut flipped = whole.clone();
        flipped[1536 + 3] ^= 1;
        assert_eq!(find(&flipped).0, ["a.jpg", "b.jpg", "d.jpg"]);
        assert_eq!(find(&flipped).1, [(1536, 3072)]);
        let mut holed = whole.clone();
        holed[512..2000].fill(0xee);
        assert_eq!(find(&holed), (vec!["a.jpg".into(), "d.jpg".into()], vec![(512, 3072)]));
        // A hole of zeros looks like the mark at the end of a file.
        let mut zeroed = whole.clone();
        zeroed[512..2000].fill(0);
        assert_eq!(find(&zeroed), (vec!["a.jpg".into(), "d.jpg".into()], vec![(512, 3072)]));
        let (found, damage) = find(&whole[..3600]);
        assert_eq!(
            (found, damage.len()),
            (vec!["a.jpg".into(), "b.jpg".into(), "c.jpg".into()], 1)
        );
        for cut in 0..whole.len() {
            find(&whole[..cut]);
        }
    }

    #[test]
    fn members_are_found_again_where_bytes_were_lost_or_came_in_between() {
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
        let whole = built(&names, tar::Header::new_gnu);
        // The headers are at 0, 512, 1536, 3072 and 4608. In the body of c bytes are lost, come in
        // between, or both; c's own content is then another one, and what follows is not.
        let strange: Vec<u8> = (0..2000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for n_lost in [0, 1, 100, 511, 512] {
            for n_strange in [0, 1, 9, 255, 256, 511, 512, 777, 1999] {
                let bytes =
                    [&whole[..2100], &strange[..n_strange], &whole[2100 + n_lost..]].concat();
                let (_, salvaged, damage) = found(&bytes);
                let rest: Vec<&str> =
                    salvaged.iter().map(String::as_str).filter(|name| *name > "c.jpg").collect();
                let moved = n_strange as i64 - n_lost as i64;
                // Where the header of d was passed over as content, e is found nevertheless.
                let expected = if moved < 0 { vec!["e.jpg"] } else { vec!["d.jpg", "e.jpg"] };
                assert_eq!(rest, expected, "{n_lost} lost, {n_strange} more");
                assert_eq!(
                    damage.len(),
                    usize::from(moved != 0),
                    "{n_lost} lost, {n_strange} more"
                );
            }
        }
        // The head of the file is gone, and with it the first header.
        for n_lost in [1, 300, 511, 700] {
            let (_, salvaged, _) = found(&whole[n_lost..]);
            let expected = if n_lost > 512 { &names[2..] } else { &names[1..] };
            assert_eq!(salvaged, expected, "{n_lost} lost");
        }
    }

    /// Where stretches begin and end.
    type Stretches = Vec<(u64, u64)>;

    /// The names that are found with and without stepping over damage, and the damage.
    fn found(bytes: &[u8]) -> (Result<Vec<String>, String>, Vec<String>, Stretches) {
        let names =
            |found: Vec<(String, Vec<u8>)>| found.into_iter().map(|(name, _)| name).collect();
        let plain = read(bytes).map(names).map_err(|fault| told(fault).1);
        let mut members = Members::salvaging(bytes);
        let mut salvaged = Vec::new();
        while let Some(member) = members.advance().unwrap() {
            salvaged.push(String::from_utf8(member.name).unwrap());
        }
        let damage = members.damage().iter().map(|s| (s.start, s.end)).collect();
        (plain, salvaged, damage)
    }

    #[test]
    fn a_hole_of_zeros_is_no_end_of_the_file() {
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
        let whole = built(&names, tar::Header::new_gnu);
        // The headers are at 0, 512, 1536, 3072 and 4608; the contents have 0, 300, … 1200 bytes.
        for (hole, problem, lost, damage) in [
            // A header and what follows, up to the middle of a body; a header alone; several members.
            (1536..2560, "1024 zeros where a member should begin", &["c.jpg"][..], (1536, 3072)),
            (1536..2048, "512 zeros where a member should begin", &["c.jpg"], (1536, 3072)),
            (
                1300..4000,
                "2048 zeros where a member should begin",
                &["c.jpg", "d.jpg"],
                (1536, 4608),
            ),
            // All of a member, but by more than the mark that ends a file.
            (3072..4608, "1536 zeros where a member should begin", &["d.jpg"], (3072, 4608)),
            // The first member has no content.
            (0..512, "512 zeros where a member should begin", &["a.jpg"], (0, 512)),
        ] {
            let mut holed = whole.clone();
            holed[hole.clone()].fill(0);
            let (plain, salvaged, found) = found(&holed);
            assert!(plain.as_ref().unwrap_err().starts_with(problem), "{hole:?}: {plain:?}");
            let expected: Vec<&str> =
                names.iter().filter(|name| !lost.contains(name)).copied().collect();
            assert_eq!(
                (salvaged, found),
                (expected.iter().map(|n| (*n).into()).collect(), vec![damage])
            );
        }
        // Within a body zeros are content.
        let mut holed = whole.clone();
        holed[2100..2400].fill(0);
        assert!(found(&holed).0.is_ok());
        // Behind the end there are zeros, any number of them, and nothing else.
        let padded = [&whole[..], &[0; 100_100]].concat();
        assert_eq!(found(&padded).0.unwrap(), names);
        let trailed = [&whole[..], b"signature"].concat();
        assert!(found(&trailed).0.is_err());
        assert_eq!(found(&trailed).1, names);
    }

    #[test]
    fn tar_files_that_were_joined_are_all_read() {
        let [first, second] =
            [&["a.jpg", "b.jpg"][..], &["c.jpg"]].map(|names| built(names, tar::Header::new_gnu));
        let record = |mut tar: Vec<u8>| {
            tar.resize(tar.len().next_multiple_of(10_240), 0);
            tar
        };
        let expected = ["a.jpg", "b.jpg", "c.jpg", "a.jpg", "b.jpg"];
        for joined in [
            [first.clone(), second.clone(), first.clone()],
            [record(first.clone()), record(second.clone()), first.clone()],
            [first.clone(), record(second.clone()), record(first.clone())],
        ] {
            let joined = joined.concat();
            let (plain, salvaged, damage) = found(&joined);
            assert_eq!((plain.unwrap(), damage), (salvaged.clone(), vec![]));
            assert_eq!(salvaged, expected);
            let mut members = Members::new(&joined[..]);
            while members.advance().unwrap().is_some() {}
            assert_eq!((members.n_joined(), members.is_closed()), (2, true));
        }
    }

    /// Bytes whose source fails from one of them on.
    struct Failing<'a> {
        bytes: &'a [u8],
        n_left: u64,
        error: fn() -> io::Error,
    }

    impl Read for Failing<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(usize::try_from(self.n_left).unwrap());
            if n == 0 && !out.is_empty() {
                return Err((self.error)());
            }
            let n = self.bytes.read(&mut out[..n])?;
            self.n_left -= n as u64;
            Ok(n)
        }
    }

    impl Forward for Failing<'_> {
        fn left(&self) -> Option<u64> {
            None
        }

        fn skip(&mut self, n: u64) -> io::Result<bool> {
            Ok(io::copy(&mut Read::take(self, n), &mut io::sink())? == n)
        }
    }

    /// As a disk that fails, and a decoder that gives up.
    #[test]
    fn a_fault_of_the_system_is_no_damage_whether_or_not_that_is_stepped_over() {
        let whole = built(&["a.jpg", "b.jpg", "c.jpg"], tar::Header::new_gnu);
        let disk = || io::Error::from_raw_os_error(5);
        let decoder = || io::Error::new(io::ErrorKind::InvalidInput, "corrupt deflate stream");
        for n_left in 0..whole.len() as u64 {
            for salvages in [false, true] {
                let ends = |error: fn() -> io::Error, with_content: bool| {
                    let input = Failing { bytes: &whole, n_left, error };
                    let mut members =
                        if salvages { Members::salvaging(input) } else { Members::new(input) };
                    loop {
                        match members.advance() {
                            Ok(Some(_)) if with_content => match members.content(1 << 20) {
                                Err(Fault::System(_)) => return Err(true),
                                Err(Fault::Damage { .. }) if !salvages => return Err(false),
                                _ => {}
                            },
                            Ok(Some(_)) => {}
                            Ok(None) => return Ok(()),
                            Err(Fault::System(error)) => {
                                assert_eq!(error.raw_os_error(), Some(5));
                                return Err(true);
                            }
                            Err(Fault::Damage { .. }) => return Err(false),
                        }
                    }
                };
                for with_content in [false, true] {
                    assert_eq!(ends(disk, with_content), Err(true), "{n_left} {salvages}");
                    let expected = if salvages { Ok(()) } else { Err(false) };
                    assert_eq!(ends(decoder, with_content), expected, "{n_left} {salvages}");
                }
            }
        }
    }

    #[test]
    fn sizes_that_no_file_has_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a.jpg").unwrap();
        header.set_size(u64::MAX);
        header.set_cksum();
        check_fault(header.as_bytes(), 512, &format!("a member of {} bytes", u64::MAX));
        header.set_size(1 << 40);
        header.set_cksum();
        let mut members = Members::new(&header.as_bytes()[..]);
        assert_eq!(members.advance().unwrap().unwrap().n_bytes, 1 << 40);
        assert!(members.content(1 << 20).unwrap().is_none());
        assert_eq!(told(members.advance().unwrap_err()).1, "the file is cut short");
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_cksum();
        let problem = told(read(header.as_bytes()).unwrap_err()).1;
        assert_eq!(problem, "a name or header of 1099511627776 bytes; up to 1048576 are read");
    }
}
