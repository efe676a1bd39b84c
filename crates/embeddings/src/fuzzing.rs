//! The reader of embeddings, with what must hold of whatever it accepts: for its fuzz target, which
//! sees nothing else of it.

use std::{fs, path::Path};

/// Any bytes as a file of embeddings whose name ends in `ending`: rows of length 1, or an error.
///
/// # Errors
///
/// Those of `dir`, which say nothing of the bytes.
pub fn embeddings(bytes: &[u8], ending: &str, dir: &Path) -> std::io::Result<()> {
    let path = dir.join("embeddings").with_extension(ending);
    fs::write(&path, bytes)?;
    let Ok(opened) = crate::Embeddings::open(&path) else { return Ok(()) };
    let embeddings = opened.in_order();
    let mut row = vec![0.0; embeddings.dim()];
    for i in 0..embeddings.len().min(4) {
        if embeddings.read(i, &mut row).is_ok() {
            assert!(row.iter().all(|v| v.is_finite()));
        }
    }
    Ok(())
}
