//! The members of a tar file, read forwards and without trust: POSIX (ustar, pax), GNU and the old
//! V7 layout. Nothing is written anywhere, and no name is taken for a path.

use std::io::{self, Read};

/// Headers and contents fill whole blocks.
const BLOCK: usize = 512;
/// Names and pax headers beyond this are an attack, or damage.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Bytes that can be read forwards and passed over.
pub trait Forward: Read {
    /// How many bytes are left, where that is known.
    fn left(&self) -> Option<u64>;

    /// Passes over `n` bytes; whether there were as many.
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

/// What is wrong with a tar file, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// In the file, once unpacked.
    pub offset: u64,
    /// What is wrong there.
    pub problem: String,
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
    /// Stretches that were stepped over; nothing where damage is an error.
    damage: Option<Vec<Stretch>>,
    /// A header that was read ahead; `at` is where it begins.
    pending: Option<Header>,
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
        Members { input, at: 0, rest: 0, content: 0, is_closed: false, damage: None, pending: None }
    }

    /// The same, stepping over damage: reading goes on with the next block that is a header.
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

    /// The next file.
    ///
    /// # Errors
    ///
    /// [`Fault`] at damage that is not stepped over, or where the input cannot be read.
    pub fn advance(&mut self) -> Result<Option<Member>, Fault> {
        loop {
            let fault = match self.next_member() {
                Err(fault) if self.damage.is_some() => fault,
                member => return member,
            };
            let found = self.resume();
            let (start, problem) = (fault.offset, fault.problem);
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

    /// Goes on to the next block that is a header, which is then read first; whether there is one.
    /// Only the layouts with a magic count, which chance does not make.
    fn resume(&mut self) -> bool {
        (self.rest, self.content) = (0, 0);
        let mut block = [0; BLOCK];
        loop {
            let mut filled = 0;
            while filled < BLOCK {
                match self.input.read(&mut block[filled..]) {
                    Ok(0) => return false,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // What cannot be read, or unpacked, ends the file.
                    Err(_) => return false,
                }
            }
            let header = Header(block);
            if &block[257..262] == b"ustar" && header.is_whole() {
                self.pending = Some(header);
                return true;
            }
            self.at += BLOCK as u64;
        }
    }

    fn next_member(&mut self) -> Result<Option<Member>, Fault> {
        let mut extension = Extension::default();
        loop {
            self.pass_over()?;
            let offset = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let wrong = |problem: &str| Fault { offset, problem: problem.to_owned() };
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
        read.map_err(|e| Fault { offset, problem: format!("cannot read: {e}") })?;
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
            let problem = format!("a member of {n_bytes} bytes");
            return Err(Fault { offset, problem });
        };
        (self.rest, self.content) = (rest, n_bytes);
        Ok(())
    }

    fn extension(&mut self, n_bytes: u64) -> Result<Vec<u8>, Fault> {
        let offset = self.at;
        self.enter(n_bytes)?;
        let content = self.content(EXTENSION_BYTES_MAX)?;
        content.ok_or_else(|| Fault {
            offset,
            problem: format!(
                "a name or header of {n_bytes} bytes; up to {EXTENSION_BYTES_MAX} are read"
            ),
        })
    }

    fn pass_over(&mut self) -> Result<(), Fault> {
        let (offset, rest) = (self.at, std::mem::take(&mut self.rest));
        // The padding of the last member may be missing, its content may not.
        let content = std::mem::take(&mut self.content);
        for (n, must) in [(content, true), (rest - content, false)] {
            let whole = self.input.skip(n);
            let whole =
                whole.map_err(|e| Fault { offset, problem: format!("cannot read: {e}") })?;
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
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_short(offset)),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault { offset, problem: format!("cannot read: {e}") }),
            }
        }
        self.at += BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            self.is_closed = true;
            return Ok(None);
        }
        let header = Header(block);
        if !header.is_whole() {
            let problem = "no member begins here, by its checksum".to_owned();
            return Err(Fault { offset, problem });
        }
        Ok(Some(header))
    }
}

fn cut_short(offset: u64) -> Fault {
    Fault { offset, problem: "the file is cut short".into() }
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
        assert_eq!(members.advance(), Ok(None));
        assert!(members.is_closed());
    }

    #[track_caller]
    fn check_fault(bytes: &[u8], offset: u64, problem: &str) {
        assert_eq!(read(bytes), Err(Fault { offset, problem: problem.into() }));
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
        assert_eq!(members.content(1 << 20), Ok(None));
        assert_eq!(members.advance().unwrap_err().problem, "the file is cut short");
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_cksum();
        let problem = read(header.as_bytes()).unwrap_err().problem;
        assert_eq!(problem, "a name or header of 1099511627776 bytes; up to 1048576 are read");
    }
}
