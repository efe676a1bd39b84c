//! The readers of foreign bytes, with what must hold of whatever they accept: for the fuzz targets,
//! which see nothing else of this module's neighbours.

use std::path::Path;

use super::{list::Lines, tar::samples};

/// Any bytes as a tar file: samples or an error, and every image lies within the bytes.
pub fn tar(bytes: &[u8]) {
    let Ok(shard) = samples::read(Path::new("fuzz.tar"), bytes, None) else { return };
    assert_eq!(shard.places.len(), shard.whose.len());
    for (i, place) in shard.places.iter().enumerate() {
        assert!(place.start + u64::from(place.n_bytes) <= bytes.len() as u64);
        assert!(!shard.names.get(i).is_empty());
    }
}

/// Any bytes as a list: images or an error, one a line at most.
pub fn list(bytes: &[u8]) {
    let mut lines = Lines::new(bytes);
    let mut n_rows = 0;
    while let Ok(true) = lines.advance() {
        match lines.row() {
            Ok(row) => assert!(!row.path.is_empty()),
            Err(_) => return,
        }
        n_rows += 1;
        assert!(n_rows <= lines.line());
    }
}
