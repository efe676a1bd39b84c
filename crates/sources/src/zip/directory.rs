//! The central directory of a zip archive, read entry by entry and without trust: the classic layout and
//! Zip64, also behind a program that unpacks it. No name is taken for a path.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::unread::Unread;

/// The record that ends an archive, without its comment.
const END_BYTES: u64 = 22;
const COMMENT_BYTES_MAX: u64 = u16::MAX as u64;
/// What points to the end record of Zip64, before the classic one.
const LOCATOR_BYTES: u64 = 20;
const END_64_BYTES: usize = 56;
const ENTRY_BYTES: usize = 46;

const END: &[u8] = b"PK\x05\x06";
const LOCATOR: &[u8] = b"PK\x06\x07";
const END_64: &[u8] = b"PK\x06\x06";
const ENTRY: &[u8] = b"PK\x01\x02";

/// Fields that give the numbers of Zip64, and a name in UTF-8 beside one that is none (Info-ZIP).
const ZIP_64: u16 = 1;
const UNICODE_PATH: u16 = 0x7075;

/// Where the directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    start: u64,
    n_bytes: u64,
    n_entries: u64,
    /// The classic end record counts entries up to 65,535.
    is_64: bool,
    /// Bytes before the archive, which its offsets do not count.
    shift: u64,
}

/// What the directory says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path, as it is stored.
    pub name: Vec<u8>,
    /// Where its own header begins.
    pub header: u64,
    /// Bytes that it takes.
    pub stored: u64,
    /// Bytes that come out.
    pub size: u64,
    /// Of these.
    pub crc: u32,
    /// How it is compressed: 0 not at all, 8 by deflate.
    pub method: u16,
    /// A password is needed.
    pub is_encrypted: bool,
    /// A symbolic link, by the attributes of Unix.
    pub is_link: bool,
}

impl Directory {
    /// Finds it in a file of so many bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or a fault of the system.
    pub fn find(file: &mut (impl Read + Seek), n_bytes: u64) -> Result<Directory, Unread> {
        let tail_bytes = n_bytes.min(LOCATOR_BYTES + END_BYTES + COMMENT_BYTES_MAX);
        let tail_start = n_bytes - tail_bytes;
        let tail = read_at(file, tail_start, tail_bytes as usize)?;
        // The last one whose comment ends where the file does; else the last one.
        let is_end = |at: &usize| {
            let end = &tail[*at..];
            end.starts_with(END) && end.len() as u64 >= END_BYTES
        };
        let ends_file = |at: &usize| {
            u64::from(u16_at(&tail[*at..], 20)) + END_BYTES == (tail.len() - at) as u64
        };
        let mut places = (0..tail.len()).rev().filter(is_end);
        let at = places.clone().find(ends_file).or_else(|| places.next());
        let at = at
            .ok_or("no zip archive ends here: the file is cut short, or is another kind of file")?;
        let end = &tail[at..];
        if u16_at(end, 4) != u16_at(end, 6) || !matches!(u16_at(end, 4), 0 | u16::MAX) {
            return Err("one part of an archive in several: join them with `zip -s 0`".into());
        }
        let at = tail_start + at as u64;
        let (mut n_entries, mut size, mut start) =
            (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
        let locator = at.checked_sub(LOCATOR_BYTES).filter(|start| *start >= tail_start);
        let locator = locator.map(|start| &tail[(start - tail_start) as usize..]);
        let is_64 = locator.is_some_and(|locator| locator.starts_with(LOCATOR));
        let mut ends_at = at;
        if let (Some(locator), true) = (locator, is_64) {
            let stated = u64_at(locator, 8);
            // Behind a program it lies further on: then just before what points to it.
            let beside = (at - LOCATOR_BYTES).saturating_sub(END_64_BYTES as u64);
            let found = [stated, beside].into_iter().find_map(|place| {
                let in_file = place.checked_add(END_64_BYTES as u64).is_some_and(|end| end <= at);
                let record = in_file.then(|| read_at(file, place, END_64_BYTES));
                match record? {
                    Ok(record) if record.starts_with(END_64) => Some(Ok((place, record))),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                }
            });
            let (place, record) = found.ok_or("its Zip64 record is missing")??;
            n_entries = u64_at(&record, 32);
            (size, start) = (u64_at(&record, 40), u64_at(&record, 48));
            ends_at = place;
        }
        let shift = ends_at.checked_sub(size).and_then(|place| place.checked_sub(start));
        let shift = shift.ok_or_else(|| {
            format!(
                "its directory of {size} bytes at {start} does not lie before its end at {ends_at}"
            )
        })?;
        Ok(Directory { start: start + shift, n_bytes: size, n_entries, is_64, shift })
    }

    /// Calls `each` for every file, in the order of the directory. Folders are passed over.
    ///
    /// # Errors
    ///
    /// As [`find`](Directory::find).
    pub fn read(
        &self,
        file: &mut (impl BufRead + Seek),
        mut each: impl FnMut(Listed),
    ) -> Result<(), Unread> {
        file.seek(SeekFrom::Start(self.start))?;
        let mut directory = file.take(self.n_bytes);
        let mut n = 0_u64;
        let (mut name, mut extra) = (Vec::new(), Vec::new());
        while directory.limit() > 0 {
            let place = self.start + self.n_bytes - directory.limit();
            let wrong = |what: &str| format!("byte {place}: {what}");
            let mut entry = [0; ENTRY_BYTES];
            let cut = || Unread::from(wrong("the directory is cut short"));
            fill(&mut directory, &mut entry)?.ok_or_else(cut)?;
            if !entry.starts_with(ENTRY) {
                return Err(wrong("no entry of the directory begins here").into());
            }
            let [name_bytes, extra_bytes, comment_bytes] =
                [28, 30, 32].map(|at| u16_at(&entry, at));
            name.resize(name_bytes.into(), 0);
            fill(&mut directory, &mut name)?.ok_or_else(cut)?;
            extra.resize(extra_bytes.into(), 0);
            fill(&mut directory, &mut extra)?.ok_or_else(cut)?;
            let skipped =
                io::copy(&mut (&mut directory).take(comment_bytes.into()), &mut io::sink())?;
            if skipped != u64::from(comment_bytes) {
                return Err(cut());
            }
            n += 1;
            let listed = self.listed(&entry, &name, &extra).ok_or_else(|| {
                Unread::from(wrong("an entry lacks its numbers of Zip64, or they are too large"))
            })?;
            if !name.ends_with(b"/") {
                each(listed);
            }
        }
        // Old writers go on beyond what 16 bits count.
        let is_whole = n == self.n_entries || !self.is_64 && n % (1 << 16) == self.n_entries;
        match is_whole {
            true => Ok(()),
            false => {
                Err(format!("its directory holds {n} entries and claims {}", self.n_entries).into())
            }
        }
    }

    fn listed(&self, entry: &[u8; ENTRY_BYTES], name: &[u8], extra: &[u8]) -> Option<Listed> {
        let flags = u16_at(entry, 8);
        let mut long = field(extra, ZIP_64).unwrap_or_default();
        let mut number = |at: usize| match u32_at(entry, at) {
            u32::MAX => {
                let (first, rest) = long.split_at_checked(8)?;
                long = rest;
                Some(u64_at(first, 0))
            }
            number => Some(number.into()),
        };
        // In this order in the field of Zip64 as well.
        let (size, stored, header) = (number(24)?, number(20)?, number(42)?);
        let name = match (std::str::from_utf8(name).is_ok(), field(extra, UNICODE_PATH)) {
            (false, Some([1, _, _, _, _, unicode @ ..])) => unicode.to_vec(),
            _ => name.to_vec(),
        };
        let is_unix = entry[5] == 3;
        Some(Listed {
            name,
            header: header.checked_add(self.shift)?,
            stored,
            size,
            crc: u32_at(entry, 16),
            method: u16_at(entry, 10),
            is_encrypted: flags & 1 != 0,
            is_link: is_unix && u32_at(entry, 38) >> 28 == 0o12,
        })
    }
}

/// The data of a field among extra ones.
fn field(mut extra: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let (data, rest) = rest.split_at_checked(u16_at(head, 2).into())?;
        if u16_at(head, 0) == wanted {
            return Some(data);
        }
        extra = rest;
    }
    None
}

/// Fills `bytes`; nothing if there are fewer.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<Option<()>> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_at(file: &mut (impl Read + Seek), start: u64, n_bytes: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; n_bytes];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Little endian numbers, which must lie within `bytes`.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
