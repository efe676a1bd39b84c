//! The readers of foreign bytes, with what must hold of whatever they accept: for the fuzz targets,
//! which see nothing else of this module's neighbours.

use std::{fs, path::Path};

use crate::{
    catalogue::People, columns::ColumnChoice, list::Lines, recordio::Damaged, spool::Spool,
    table::Table, tar::samples,
};

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
            for (_, start, n_bytes) in part.rows.into_iter().flatten() {
                assert!(start + u64::from(n_bytes) <= spool.len());
            }
        }
    }
    Ok(())
}
