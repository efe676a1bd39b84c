//! Zip archives of identity folders, read where they lie: stored and deflated files, classic and Zip64.

mod directory;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use flate2::{Crc, bufread::DeflateDecoder};
use pfc_image::{SNIFF_BYTES, Sniffed, has_image_extension, sniff};

use self::directory::{Directory, Listed, u16_at};
use crate::{
    error::SourceError,
    file::check_size,
    reject::{ReadError, Reject},
    shelf::{Entry, Format, Found, Shelf, Shelved, Wanted, Whose},
    source::LeftOut,
    tar::is_of_system,
    unread::Unread,
};

/// How the names of archives end.
pub const ENDINGS: &[&str] = &[".zip"];

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Before the name of a file in its own header.
const HEADER_BYTES: usize = 30;

/// Deflate makes no more out of a byte (zlib's technical notes); what claims more is no zip file's.
const DEFLATE_EXPANSION_MAX: u64 = 1032;

/// Why an image in no folder is left out where others lie in some.
const NO_FOLDER: &str = "it lies in no folder";

/// Finds the images in the folders of `archives`, on the current thread pool. The folders are the
/// identities. Each image is unpacked by itself when it is read, within the size that is stated of it.
///
/// Memory: that of a shelf.
///
/// # Errors
///
/// [`SourceError`] if an archive cannot be read, or there is no image in a folder.
pub fn open(
    name: String,
    archives: Vec<PathBuf>,
    wanted: Wanted,
) -> Result<Shelved<Zip>, SourceError> {
    let read = |_: usize, path: &Path| {
        let wrong = |problem| SourceError::Damaged { path: path.to_path_buf(), problem };
        let file = File::open(path).map_err(SourceError::at("open", path))?;
        let size = file.metadata().map_err(SourceError::at("look at", path))?.len();
        let archive = path.file_name().unwrap_or_default().to_string_lossy();
        list(BufReader::with_capacity(1 << 16, file), size, &archive).map_err(|e| e.at(path, wrong))
    };
    Ok(Shelved::new(Shelf::list(name, archives, wanted, read)?, Zip))
}

/// The images of an archive of `size` bytes that is called `archive`.
///
/// # Errors
///
/// What is wrong with it, or a fault of the system.
pub fn list(
    mut file: impl BufRead + Seek,
    size: u64,
    archive: &str,
) -> Result<Found<Place>, Unread> {
    let directory = Directory::find(&mut file, size)?;
    let mut listed: Vec<Listed> = Vec::new();
    let mut found = Found::default();
    let mut leave_out = |name: &str, reject: Reject| {
        let source = format!("{archive}/{name}");
        found.left_out.push(LeftOut { source, reject });
    };
    directory.read(&mut file, |entry| {
        let name = String::from_utf8_lossy(&entry.name);
        if is_of_system(&name) {
            leave_out(&name, Reject::SystemFile);
        } else {
            listed.push(entry);
        }
    })?;
    let overlapping = overlapping(&listed);
    for (entry, overlaps) in listed.into_iter().zip(overlapping) {
        let is_image = has_image_extension(Path::new(&*String::from_utf8_lossy(&entry.name)));
        let place = match usable(&entry, overlaps) {
            Ok(place) => place,
            // Of what is no image by its name nothing is lost.
            Err(_) if !is_image => {
                leave_out(&String::from_utf8_lossy(&entry.name), Reject::OtherFile);
                continue;
            }
            Err(reject) => {
                leave_out(&String::from_utf8_lossy(&entry.name), reject);
                continue;
            }
        };
        if !is_image && !holds_image(&mut file, &place)? {
            leave_out(&String::from_utf8_lossy(&entry.name), Reject::OtherFile);
            continue;
        }
        let Ok(name) = String::from_utf8(entry.name) else { continue };
        // Windows' own tools have written backslashes.
        let name = name.replace('\\', "/");
        let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
        let name = parts.collect::<Vec<_>>().join("/");
        found.entries.push(Entry { name, whose: Whose::Unsaid(NO_FOLDER), place });
    }
    Ok(found)
}

/// Which files begin within another one: an archive that holds one file many times over is a bomb.
fn overlapping(listed: &[Listed]) -> Vec<bool> {
    let mut overlaps = vec![false; listed.len()];
    let mut order: Vec<usize> = (0..listed.len()).collect();
    order.sort_by_key(|i| listed[*i].header);
    let mut end = 0;
    for i in order {
        let Listed { header, stored, .. } = listed[i];
        overlaps[i] = header < end;
        end = end.max(header.saturating_add(HEADER_BYTES as u64).saturating_add(stored));
    }
    overlaps
}

/// Where a file is, unless it cannot be read.
fn usable(entry: &Listed, overlaps: bool) -> Result<Place, Reject> {
    let unreadable = |why: String| Err(Reject::Unreadable(why));
    let Listed { header, stored, size, crc, method, .. } = *entry;
    if std::str::from_utf8(&entry.name).is_err() {
        return Err(Reject::NameNotUtf8);
    }
    if entry.is_encrypted {
        return unreadable("it is encrypted: unpack the archive with its password".into());
    }
    if entry.is_link {
        return unreadable("a link to another file".into());
    }
    if overlaps {
        return Err(Reject::Damaged("it begins within another file of the archive".into()));
    }
    check_size(size)?;
    check_size(stored)?;
    let bytes_max = match method {
        STORED => stored,
        DEFLATED => stored.saturating_mul(DEFLATE_EXPANSION_MAX),
        method => {
            return unreadable(format!(
                "it is compressed by method {method}, and only stored and deflated files are read: \
                 unpack the archive"
            ));
        }
    };
    if size > bytes_max || method == STORED && size != stored {
        let what = format!("its header claims {size} bytes out of {stored}");
        return Err(Reject::Damaged(what));
    }
    let (stored, size) = (stored as u32, size as u32);
    Ok(Place { header, stored, size, crc, is_deflated: method == DEFLATED })
}

/// Where a file is in its archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its own header begins.
    header: u64,
    /// Bytes that it takes.
    stored: u32,
    /// Bytes that come out.
    size: u32,
    crc: u32,
    is_deflated: bool,
}

/// What reads files of archives.
#[derive(Debug)]
pub struct Zip;

impl Format for Zip {
    type Place = Place;

    fn n_bytes(place: &Place) -> u64 {
        place.size.into()
    }

    fn read(&self, _: usize, path: &Path, place: &Place) -> Result<Vec<u8>, ReadError> {
        let file = File::open(path).map_err(ReadError::at(path))?;
        let window = (place.stored as usize + 512).min(1 << 16);
        unpacked(BufReader::with_capacity(window, file), place).map_err(|e| match e {
            Unread::Wrong(what) => Reject::Unreadable(what).into(),
            Unread::System(error) => SourceError::at("read", path)(error).into(),
        })
    }
}

/// The bytes of a file of an archive.
///
/// # Errors
///
/// What is wrong with them, or a fault of the system.
pub fn unpacked(file: impl BufRead + Seek, place: &Place) -> Result<Vec<u8>, Unread> {
    let (mut bytes, size) = (Vec::new(), u64::from(place.size));
    content(file, place)?.take(size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(format!("{} bytes come out where {size} are stated", bytes.len()).into());
    }
    let mut crc = Crc::new();
    crc.update(&bytes);
    match crc.sum() == place.crc {
        true => Ok(bytes),
        false => Err("its checksum is another: it is damaged".into()),
    }
}

/// What comes out of a file of an archive.
fn content<R: BufRead + Seek>(mut file: R, place: &Place) -> Result<Content<R>, Unread> {
    file.seek(SeekFrom::Start(place.header))?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err("its own header is not where the directory says".into());
    }
    let behind = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
    file.seek_relative(behind as i64)?;
    let stored = file.take(place.stored.into());
    Ok(match place.is_deflated {
        true => Content::Deflated(DeflateDecoder::new(stored)),
        false => Content::Stored(stored),
    })
}

enum Content<R> {
    Stored(io::Take<R>),
    Deflated(DeflateDecoder<io::Take<R>>),
}

impl<R: BufRead> Read for Content<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Content::Stored(file) => file.read(bytes),
            Content::Deflated(file) => file.read(bytes),
        }
    }
}

/// Whether a file is an image by its first bytes.
fn holds_image<R: BufRead + Seek>(file: &mut R, place: &Place) -> Result<bool, Unread> {
    let mut head = Vec::new();
    let read = content(file, place).and_then(|content| {
        content.take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
        Ok(())
    });
    match read {
        Err(Unread::System(error)) => Err(Unread::System(error)),
        // It is told when it is read.
        Err(Unread::Wrong(_)) | Ok(()) => Ok(sniff(&head) != Sniffed::NotAnImage),
    }
}

#[cfg(test)]
mod tests;
