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
/// How many times its size a file may unpack to. Numbers of embeddings hardly shrink, zeros by a thousand.
const EXPANSION_MAX: u64 = 100;
/// Below this the expansion does not matter.
const UNPACKED_BYTES_FREE: u64 = 256 << 20;

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
    let file_bytes = file.metadata()?.len();
    let unpacked_max = file_bytes.saturating_mul(EXPANSION_MAX).max(UNPACKED_BYTES_FREE);
    if layout.check(u64::MAX)?.end() > unpacked_max {
        let Layout { rows, dim, .. } = layout;
        return Err(format!(
            "`{name}` claims {rows} rows of {dim} numbers, more than {unpacked_max} bytes out of {file_bytes}"
        )
        .into());
    }
    let of_rows = ["names.npy", "source.npy"].into_iter().find(|n| names.iter().any(|m| m == n));
    let names_max = unpacked_max.min(NAMES_BYTES_MAX);
    let of_rows = of_rows.map(|name| texts(&mut zip, name, layout.rows, names_max)).transpose()?;
    let entry = zip.by_name(name).map_err(unread)?;
    if entry.compression() == CompressionMethod::Stored {
        let layout = Layout { start: entry.data_start().saturating_add(layout.start), ..layout };
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

/// A one-dimensional array of texts: bytes (`S`) or UTF-32 (`<U`). In memory they take no more than `bytes_max`.
fn texts(
    zip: &mut ZipArchive<&File>,
    name: &str,
    rows: u64,
    bytes_max: u64,
) -> Result<Vec<String>, Unread> {
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
    let held = rows.checked_mul(width + size_of::<String>() as u64);
    if held.is_none_or(|held| held > bytes_max) {
        return Err(
            format!("`{name}` claims {rows} texts of {width} bytes, out of a small file").into()
        );
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

#[cfg(test)]
mod tests {
    use zip::{ZipWriter, write::FileOptions};

    use super::*;

    /// An archive of deflated arrays: the name, type and shape of each, and the bytes behind the header.
    fn archive(arrays: &[(&str, &str, &str, &[u8])]) -> File {
        let mut zip = ZipWriter::new(tempfile::tempfile().unwrap());
        for (name, descr, shape, data) in arrays {
            let options = FileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(*name, options).unwrap();
            let text =
                format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
            zip.write_all(b"\x93NUMPY\x01\0").unwrap();
            zip.write_all(&(text.len() as u16).to_le_bytes()).unwrap();
            zip.write_all(&[text.as_bytes(), data].concat()).unwrap();
        }
        zip.finish().unwrap()
    }

    #[test]
    fn compressed_rows_come_with_their_names() {
        let numbers: Vec<u8> =
            [1_f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let file = archive(&[
            ("embeddings.npy", "<f4", "(2, 2)", &numbers),
            ("names.npy", "|S3", "(2,)", b"a\0\0bcd"),
        ]);
        let (layout, names, spooled) = open(&file).unwrap();
        assert_eq!((layout.rows, layout.dim, spooled.is_some()), (2, 2, true));
        assert_eq!(names.unwrap(), ["a", "bcd"]);
    }

    #[test]
    fn a_small_file_that_would_unpack_to_any_size_is_refused_before_it_takes_memory_or_disk() {
        let error = |arrays: &[(&str, &str, &str, &[u8])]| {
            open(&archive(arrays)).err().unwrap().to_string()
        };
        // 20 TB of numbers; then numbers that are allowed, whose names take 25 bytes each and more.
        let text = error(&[("embeddings.npy", "<f4", "(10000000000, 512)", b"")]);
        assert!(text.contains("claims 10000000000 rows of 512 numbers"), "{text}");
        let numbers = ("embeddings.npy", "<f2", "(100000000, 1)", &b""[..]);
        let text = error(&[numbers, ("names.npy", "|S1", "(100000000,)", b"")]);
        assert!(text.contains("`names.npy` claims 100000000 texts of 1 bytes"), "{text}");
    }
}
