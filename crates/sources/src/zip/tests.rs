use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::FileOptions};

use super::*;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";

/// An archive by the `zip` crate.
fn archive(files: &[(&str, &[u8])], method: CompressionMethod, is_large: bool) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let options = FileOptions::default().compression_method(method).large_file(is_large);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn found(bytes: &[u8]) -> Result<Found<Place>, String> {
    list(Cursor::new(bytes), bytes.len() as u64, "x.zip").map_err(|e| e.to_string())
}

/// Name and content of every image, or why it cannot be had.
fn contents(bytes: &[u8]) -> Vec<(String, Result<Vec<u8>, String>)> {
    let entries = found(bytes).unwrap().entries.into_iter();
    let content = |place| unpacked(Cursor::new(bytes), &place).map_err(|e| e.to_string());
    entries.map(|entry| (entry.name, content(entry.place))).collect()
}

fn reasons(bytes: &[u8]) -> Vec<(String, &'static str)> {
    let left_out = found(bytes).unwrap().left_out.into_iter();
    left_out.map(|l| (l.source, l.reject.reason())).collect()
}

fn faces() -> Vec<(&'static str, Vec<u8>)> {
    vec![("a/1.jpg", JPEG.repeat(100)), ("a/2.png", vec![7; 5000]), ("b/3.jpg", Vec::new())]
}

fn written(method: CompressionMethod, is_large: bool) -> Vec<u8> {
    let faces = faces();
    let files: Vec<(&str, &[u8])> = faces.iter().map(|(n, c)| (*n, &c[..])).collect();
    archive(&files, method, is_large)
}

#[test]
fn what_another_writer_wrote_comes_out_stored_and_deflated_small_and_large() {
    let expected: Vec<_> = faces().into_iter().map(|(n, c)| (n.to_owned(), Ok(c))).collect();
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        for is_large in [false, true] {
            let bytes = written(method, is_large);
            assert_eq!(contents(&bytes), expected);
            // Behind a program that unpacks it.
            assert_eq!(contents(&[&[0x4d; 777][..], &bytes].concat()), expected);
        }
    }
}

#[test]
fn what_is_no_image_is_passed_over_and_one_without_an_ending_is_found() {
    let files = [
        ("a/notes.txt", &b"x"[..]),
        ("a/1", JPEG),
        ("__MACOSX/a/._1.jpg", b"x"),
        ("a/.DS_Store", b"x"),
        ("./b\\2.jpg", JPEG),
    ];
    let bytes = archive(&files, CompressionMethod::Deflated, false);
    let names: Vec<String> = contents(&bytes).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/1", "b/2.jpg"]);
    let expected = [
        ("x.zip/__MACOSX/a/._1.jpg", "system_file"),
        ("x.zip/a/.DS_Store", "system_file"),
        ("x.zip/a/notes.txt", "other_file"),
    ];
    assert_eq!(reasons(&bytes), expected.map(|(a, b)| (a.to_owned(), b)));
}

/// The directory entries of an archive.
fn entries(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect()
}

#[test]
fn files_that_cannot_be_read_are_left_out_one_by_one_with_the_reason() {
    let mut bytes = written(CompressionMethod::Stored, false);
    let places = entries(&bytes);
    // Encrypted; of another method; a name that is no UTF-8.
    bytes[places[0] + 8] |= 1;
    bytes[places[1] + 10] = 14;
    bytes[places[2] + 46] = 0xe9;
    let left_out = found(&bytes).unwrap().left_out;
    let told: Vec<String> =
        left_out.iter().map(|l| format!("{}: {}", l.source, l.reject)).collect();
    let expected = [
        "x.zip/a/1.jpg: cannot read: it is encrypted: unpack the archive with its password",
        "x.zip/a/2.png: cannot read: it is compressed by method 14, and only stored and deflated \
         files are read: unpack the archive",
        "x.zip/\u{fffd}/3.jpg: its name is not valid UTF-8",
    ];
    assert_eq!(told, expected);
}

#[test]
fn bombs_are_refused_by_what_they_claim() {
    let mut bytes = written(CompressionMethod::Deflated, false);
    let places = entries(&bytes);
    // More than deflate can make; more than any image has; one file twice.
    bytes[places[0] + 24..][..4].copy_from_slice(&(200_u32 << 20).to_le_bytes());
    bytes[places[1] + 24..][..4].copy_from_slice(&(300_u32 << 20).to_le_bytes());
    let header = bytes[places[0] + 42..][..4].to_vec();
    bytes[places[2] + 42..][..4].copy_from_slice(&header);
    let expected = [("a/1.jpg", "damaged"), ("a/2.png", "too_large"), ("b/3.jpg", "damaged")];
    assert_eq!(reasons(&bytes), expected.map(|(name, why)| (format!("x.zip/{name}"), why)));
}

#[test]
fn damage_inside_a_file_costs_that_file() {
    let bytes = written(CompressionMethod::Deflated, false);
    let place = found(&bytes).unwrap().entries[1].place;
    let start = place.header as usize + 30 + "a/2.png".len();
    let mut n_told = 0;
    for at in start..start + place.stored as usize {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let found = contents(&damaged);
        assert!(found[0].1.is_ok() && found[2].1.is_ok(), "{at}");
        // Codes that are not used and bits that fill the last byte mean nothing.
        assert!(found[1].1.is_err() || found[1].1.as_ref() == Ok(&faces()[1].1), "{at}");
        n_told += u32::from(found[1].1.is_err());
    }
    assert!(2 * n_told > place.stored, "{n_told}");
}

#[test]
fn archives_that_are_none_say_so() {
    let bytes = written(CompressionMethod::Stored, false);
    let error = |bytes: &[u8]| found(bytes).err().unwrap();
    let cut = "no zip archive ends here: the file is cut short, or is another kind of file";
    for end in [0, 3, 21, bytes.len() - 22, bytes.len() - 1] {
        assert_eq!(error(&bytes[..end]), cut);
    }
    let mut other = bytes.clone();
    let end = bytes.len() - 22;
    other[end + 4..end + 8].copy_from_slice(&[1, 0, 1, 0]);
    assert_eq!(error(&other), "one part of an archive in several: join them with `zip -s 0`");
    let mut other = bytes.clone();
    other[end + 10] = 9;
    assert_eq!(error(&other), "its directory holds 3 entries and claims 9");
    let mut other = bytes.clone();
    other[end + 12..end + 16].fill(0xf0);
    assert!(error(&other).contains("does not lie before its end"));
    let mut other = bytes.clone();
    let place = entries(&bytes)[1];
    other[place] = b'x';
    assert_eq!(error(&other), format!("byte {place}: no entry of the directory begins here"));
}

/// Every byte of an archive set to values that break numbers: never a panic, and never more out of an
/// image than was stated.
#[test]
fn no_damage_to_an_archive_is_more_than_an_error() {
    for is_large in [false, true] {
        let bytes = written(CompressionMethod::Deflated, is_large);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let Ok(found) = found(&damaged) else { continue };
                for entry in found.entries {
                    let _ = unpacked(Cursor::new(&damaged[..]), &entry.place);
                }
            }
        }
    }
}
