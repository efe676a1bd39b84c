//! The readers of foreign bytes, with what must hold of whatever they accept: for the fuzz targets,
//! which see nothing else of this module's neighbours.

use std::{fs, io::Cursor, path::Path};

use clap::ValueEnum;

use crate::{
    catalogue::People,
    columns::ColumnChoice,
    identities,
    index::Index,
    landmarks::{LandmarkFormat, LandmarkList},
    list::Lines,
    lmdb,
    recordio::Damaged,
    shelf::{Found, Span},
    spool::Spool,
    streams,
    table::Table,
    tar::{Packing, read_shard, samples},
    tfrecord,
    verification::verification_set,
    zip,
};

/// Any bytes as a zip archive: files that unpack to what is stated of them, or an error.
pub fn zip(bytes: &[u8]) {
    let Ok(found) = zip::list(Cursor::new(bytes), bytes.len() as u64, "fuzz.zip") else { return };
    for entry in found.entries {
        // An image of a fuzzer is small; what claims more is read as far as it goes.
        let _ = zip::unpacked(Cursor::new(bytes), &entry.place);
    }
}

/// Any bytes as a TFRecord file: images within the bytes, or an error.
pub fn tfrecord(bytes: &[u8]) {
    let names = ["image", "label"].map(str::to_owned);
    let Ok(names) = ColumnChoice::default().names(&names, People::Needed) else { return };
    check(tfrecord::list(bytes, Some(bytes.len() as u64), &names, None, None, "fuzz").ok(), bytes);
}

/// Any bytes as a file of MDS or LitData, behind an index: images within the bytes, or an error.
pub fn stream(bytes: &[u8]) {
    let (index, bytes) = bytes.split_at(bytes.iter().position(|b| *b == 0).unwrap_or(0));
    let Some((n_samples, roles)) = streams::fuzzed(index) else { return };
    check(streams::list(bytes, n_samples, &roles, None, "fuzz").ok(), bytes);
}

/// Any bytes as an LMDB file: images within the bytes, or an error.
pub fn lmdb(bytes: &[u8]) {
    check(lmdb::list(bytes, "fuzz").ok(), bytes);
}

fn check(found: Option<Found<Span>>, bytes: &[u8]) {
    for entry in found.into_iter().flat_map(|found| found.entries) {
        assert!(entry.place.start + u64::from(entry.place.n_bytes) <= bytes.len() as u64);
    }
}

/// Any bytes as a tar file: samples or an error, and every image lies within the bytes.
pub fn tar(bytes: &[u8]) {
    for damaged in [Damaged::Refuse, Damaged::Salvage] {
        let read = samples::read(Path::new("fuzz.tar"), bytes, None, damaged);
        // Damage ends in no error where it is stepped over.
        assert!(read.is_ok() || damaged == Damaged::Refuse);
        let Ok(shard) = read else { continue };
        assert_eq!(shard.places.len(), shard.whose.len());
        for (i, place) in shard.places.iter().enumerate() {
            assert!(place.start + u64::from(place.n_bytes) <= bytes.len() as u64);
            assert!(!shard.names.get(i).is_empty());
        }
    }
}

/// Any bytes as a compressed tar file in `dir`: samples or an error, and every image lies within what was unpacked.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn packed(bytes: &[u8], dir: &Path) -> std::io::Result<()> {
    let path = dir.join("packed.tar");
    fs::write(&path, bytes)?;
    let spool = Spool::create(dir).map_err(std::io::Error::other)?;
    let packing = Packing::of(&path).map_err(std::io::Error::other)?;
    let Ok(shard) = read_shard(&path, packing, Some(&spool), Damaged::Refuse) else {
        return Ok(());
    };
    let end = if packing == Packing::Plain { bytes.len() as u64 } else { spool.len() };
    assert!(shard.places.iter().all(|place| place.start + u64::from(place.n_bytes) <= end));
    Ok(())
}

/// Any bytes as a list: images or an error, one a line at most.
pub fn list(bytes: &[u8]) {
    for people in [People::Needed, People::Optional] {
        let mut lines = Lines::new(bytes, ColumnChoice::default(), people);
        let mut n_rows = 0;
        while let Ok(true) = lines.advance() {
            if let Ok(row) = lines.row() {
                assert!(!row.path.is_empty());
            }
            n_rows += 1;
            assert!(n_rows <= lines.line());
        }
    }
}

/// Any bytes as a list of landmarks in a file of `dir`: a line for each image at most, or an error.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn landmarks(bytes: &[u8], dir: &Path) -> std::io::Result<()> {
    let path = dir.join("landmarks");
    fs::write(&path, bytes)?;
    for format in LandmarkFormat::value_variants() {
        let Ok(list) = LandmarkList::open(&path, *format) else { continue };
        let Ok(images) = list.images() else { continue };
        // Old Macs end lines by the one, all others by the other or both.
        let n_lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        assert!(images.count() <= n_lines);
    }
    Ok(())
}

/// Any bytes as the tables that say who is on images beside them: those of a list and of a verification pack, and
/// the index of `TFace`. Names, or none.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn beside(bytes: &[u8], dir: &Path) -> std::io::Result<()> {
    let pack = dir.join("lfw.bin");
    let tables =
        [dir.join(identities::FILE), identities::beside_pack(&pack), dir.join("faces.index")];
    for table in tables {
        fs::write(table, bytes)?;
    }
    let mut index = Index::default();
    for (name, n_images) in [("3", 1), ("10", 2)] {
        index.push(name.to_owned(), n_images);
    }
    let _ = identities::rename(&mut index, dir, "");
    assert_eq!(index.n_identities(), 2);
    if let Ok(Some(people)) = identities::of_pack(&pack, 2) {
        assert_eq!(people.len(), 2);
    }
    let _ = tfrecord::Index::beside(&dir.join("faces.tfrecord"));
    Ok(())
}

/// Any bytes as a verification set that AdaFace keeps: a description, a list of pairs and an array, the first two
/// behind a byte that is their length. Pairs or an error.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn verification(bytes: &[u8], dir: &Path) -> std::io::Result<()> {
    let mut rest = bytes;
    let mut next = || {
        let (n, behind) = rest.split_first().unwrap_or((&0, &[]));
        let (part, behind) = behind.split_at(usize::from(*n).min(behind.len()));
        rest = behind;
        part
    };
    let (description, list) = (next(), next());
    let set = dir.join("set");
    fs::create_dir_all(set.join("memfile"))?;
    fs::write(set.join("memfile/mem_file.dat.conf"), description)?;
    fs::write(dir.join("set_list.npy"), list)?;
    fs::write(set.join("memfile/mem_file.dat"), rest)?;
    if let Ok(pack) = verification_set(&set) {
        assert_eq!(pack.images.len(), 2 * pack.same.len());
    }
    Ok(())
}

/// Any bytes as a table in a file of `dir`: rows or an error, and every image lies within what was
/// unpacked.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn table(bytes: &[u8], dir: &Path) -> std::io::Result<()> {
    let path = dir.join("table");
    fs::write(&path, bytes)?;
    let spool = Spool::create(dir).map_err(std::io::Error::other)?;
    for people in [People::Needed, People::Optional] {
        let Ok(table) = Table::open(&path, &ColumnChoice::default(), people) else { continue };
        for part in 0..table.n_parts() {
            let Ok(part) = table.read(&path, part, &spool) else { break };
            for row in part.rows.into_iter().flatten() {
                assert!(row.start + u64::from(row.n_bytes) <= spool.len());
            }
        }
    }
    Ok(())
}
