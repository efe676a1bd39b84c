//! `identities.tsv`, lines `label<TAB>name`: what the labels are called, beside formats that hold
//! numbers alone. `pack` reads it, so that names survive the way out and back.

use std::{fmt::Write, fs, path::Path};

use pfc_durable::DurableError;

use super::ExportError;

/// Name of the table in the folder that is written.
const FILE: &str = "identities.tsv";

/// Writes the table into the folder `dir`, which will be called `out`.
///
/// # Errors
///
/// [`ExportError`] if it cannot be written.
pub fn write(identities: &[(u32, &str)], dir: &Path, out: &Path) -> Result<(), ExportError> {
    let mut table = String::new();
    for (label, name) in identities {
        // A string takes any amount of text.
        let _ = writeln!(table, "{label}\t{}", name.replace(char::is_control, "_"));
    }
    fs::write(dir.join(FILE), table).map_err(DurableError::at("write", &out.join(FILE)))?;
    Ok(())
}
