//! NumPy's `.npz`: a zip of `.npy` files.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use pfc_sources::Unread;
use zip::{CompressionMethod, ZipArchive, result::ZipError};

use crate::{
    layout::Layout,
    npy::{self, Header},
};

/// Numbers, names where there are any, and a file that the numbers were unpacked to.
pub type Parts = (Layout, Option<Vec<String>>, Option<File>);

/// Bytes of all names at most.
const NAMES_BYTES_MAX: u64 = 16 << 30;

/// The array `embeddings`, or the only two-dimensional one of floats; and `names` or `source`.
pub fn open(file: &File) -> Result<Parts, Unread> {
    let mut zip = ZipArchive::new(file).map_err(unread)?;
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    let mut arrays = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".npy")) {
        // What is no array of floats may be anything.
        match npy::header(&mut zip.by_name(name).map_err(unread)?) {
            Ok(header) => arrays.extend(npy::layout(&header).map(|layout| (name.as_str(), layout))),
            Err(Unread::Wrong(_)) => {}
            Err(system) => return Err(system),
        }
    }
    arrays.sort_by_key(|(name, _)| *name);
    let chosen = arrays.iter().find(|(name, _)| *name == "embeddings.npy");
    let (name, layout) = match (chosen, arrays.as_slice()) {
        (Some(chosen), _) | (None, [chosen]) => *chosen,
        (None, []) => return Err("it holds no two-dimensional array of floats".into()),
        (None, _) => return Err("it holds several arrays, and none is called `embeddings`".into()),
    };
    let of_rows = ["names.npy", "source.npy"].into_iter().find(|n| names.iter().any(|m| m == n));
    let of_rows = of_rows.map(|name| texts(&mut zip, name, layout.rows)).transpose()?;
    let entry = zip.by_name(name).map_err(unread)?;
    if entry.compression() == CompressionMethod::Stored {
        let layout = Layout { start: entry.data_start().saturating_add(layout.start), ..layout };
        let file_bytes = file.metadata()?.len();
        return Ok((layout.check(file_bytes)?, of_rows, None));
    }
    let spooled = spool(entry, layout)?;
    Ok((layout, of_rows, Some(spooled)))
}

/// Unpacks an entry into a file without a name, no more of it than its header tells of.
fn spool(entry: impl Read, layout: Layout) -> Result<File, Unread> {
    let io = |e: io::Error| Unread::from(e).within("cannot be unpacked: ");
    let wanted = layout.check(u64::MAX)?;
    let bytes = wanted.end();
    let mut file = tempfile::tempfile().map_err(io)?;
    io::copy(&mut entry.take(bytes), &mut file).map_err(io)?;
    file.flush().and_then(|()| file.seek(SeekFrom::Start(0))).map_err(io)?;
    layout.check(file.metadata().map_err(io)?.len())?;
    Ok(file)
}

/// A one-dimensional array of texts: bytes (`S`) or UTF-32 (`<U`).
fn texts(zip: &mut ZipArchive<&File>, name: &str, rows: u64) -> Result<Vec<String>, Unread> {
    let mut entry = zip.by_name(name).map_err(unread)?;
    let Header { descr, shape, .. } = npy::header(&mut entry)?;
    let wrong = || format!("`{name}` is {descr} of {shape:?}, not {rows} texts");
    if shape != [rows] {
        return Err(wrong().into());
    }
    let (is_wide, width) = match (descr.strip_prefix("<U"), descr.strip_prefix("|S")) {
        (Some(n), _) => (true, n.parse::<u64>().ok().and_then(|n| n.checked_mul(4))),
        (_, Some(n)) => (false, n.parse().ok()),
        _ => (false, None),
    };
    let width = width.filter(|width| (1..=1 << 18).contains(width)).ok_or_else(wrong)?;
    let fits = rows.checked_mul(width).is_some_and(|bytes| bytes <= NAMES_BYTES_MAX);
    if !fits {
        return Err(wrong().into());
    }
    let mut text = vec![0; width as usize];
    let mut all = Vec::new();
    for row in 0..rows {
        entry.read_exact(&mut text).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("`{name}` ends at row {row}").into(),
            _ => Unread::from(error),
        })?;
        let decoded = if is_wide { wide(&text) } else { narrow(&text) };
        all.push(decoded.ok_or_else(|| format!("`{name}` has no text in row {row}"))?);
    }
    Ok(all)
}

fn unread(error: ZipError) -> Unread {
    match error {
        ZipError::Io(error) => error.into(),
        error => error.to_string().into(),
    }
}

fn wide(bytes: &[u8]) -> Option<String> {
    let chars = bytes.as_chunks().0.iter().map(|c| u32::from_le_bytes(*c));
    chars.take_while(|c| *c != 0).map(char::from_u32).collect()
}

fn narrow(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    String::from_utf8(bytes[..end].to_vec()).ok()
}
