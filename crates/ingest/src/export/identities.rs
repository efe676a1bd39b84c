//! Tables of names beside what cannot hold them: `identities.tsv`, with lines `label<TAB>name` where
//! there are numbers alone, and lines `folder<TAB>name` where not all folders can be called as their
//! identities are. `pack` reads them, so that names survive the way out and back.

use std::{fmt::Write, fs, path::Path};

use pfc_durable::DurableError;
use pfc_sources::IDENTITIES_FILE as FILE;

use super::ExportError;

/// Writes the table into the folder `dir`, which will be called `out`.
///
/// # Errors
///
/// [`ExportError`] if it cannot be written.
pub fn write(identities: &[(u32, &str)], dir: &Path, out: &Path) -> Result<(), ExportError> {
    let rows = identities.iter().map(|(label, name)| (label.to_string(), *name));
    write_rows(rows, dir, out)
}

/// Writes a table of folders into the folder `dir`, which will be called `out`.
///
/// * `folder`: of each label
///
/// # Errors
///
/// [`ExportError`] if it cannot be written.
pub fn write_folders<'a>(
    identities: &[(u32, &str)],
    folder: impl Fn(u32) -> &'a str,
    dir: &Path,
    out: &Path,
) -> Result<(), ExportError> {
    let rows = identities.iter().map(|(label, name)| (folder(*label).to_owned(), *name));
    write_rows(rows, dir, out)
}

fn write_rows<'a>(
    rows: impl Iterator<Item = (String, &'a str)>,
    dir: &Path,
    out: &Path,
) -> Result<(), ExportError> {
    let mut table = String::new();
    for (key, name) in rows {
        // A string takes any amount of text.
        let _ = writeln!(table, "{key}\t{}", in_table(name));
    }
    fs::write(dir.join(FILE), table).map_err(DurableError::at("write", &out.join(FILE)))?;
    Ok(())
}

/// A name as it stands in a table, on one line and between tabs.
pub fn in_table(name: &str) -> String {
    name.replace(char::is_control, "_")
}
