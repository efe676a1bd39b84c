//! What an export did.

use std::{fs, io, path::Path, time::Duration};

use pfc_cli::{
    print_table, table,
    units::{bytes, count},
};
use serde::Serialize;

use crate::IngestError;

/// Number and bytes of the files directly in a finished folder.
///
/// # Errors
///
/// [`IngestError`] if it cannot be listed.
pub fn measure(dir: &Path) -> Result<(u64, u64), IngestError> {
    let (mut files, mut n_bytes) = (0, 0);
    for entry in fs::read_dir(dir).map_err(IngestError::at("list", dir))? {
        let meta = entry.and_then(|entry| entry.metadata());
        files += 1;
        n_bytes += meta.map_err(IngestError::at("list", dir))?.len();
    }
    Ok((files, n_bytes))
}

/// What an exporter tells.
#[derive(Debug, Default)]
pub struct Written {
    pub images: u64,
    /// Identities with at least one image.
    pub identities: u64,
    /// Pairs of a pack.
    pub pairs: Option<u64>,
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    pub renamed_identities: u64,
    pub renamed_files: u64,
    /// Identity records of RecordIO that float32 rounds.
    pub rounded_ranges: u64,
}

/// Counts of a finished export, as `--json` prints them.
#[derive(Debug, Serialize)]
pub struct Summary {
    format: &'static str,
    images: u64,
    identities: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<u64>,
    files: u64,
    bytes: u64,
    pub renamed_identities: u64,
    pub renamed_files: u64,
    pub rounded_ranges: u64,
    seconds: f64,
    images_per_second: f64,
}

impl Summary {
    /// Of what was written in `elapsed`.
    pub fn new(format: &'static str, written: Written, elapsed: Duration) -> Summary {
        let Written { images, identities, pairs, files, bytes, .. } = written;
        let Written { renamed_identities, renamed_files, rounded_ranges, .. } = written;
        let seconds = elapsed.as_secs_f64();
        Summary {
            format,
            images,
            identities,
            pairs,
            files,
            bytes,
            renamed_identities,
            renamed_files,
            rounded_ranges,
            seconds,
            images_per_second: images as f64 / seconds.max(1e-9),
        }
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self) -> io::Result<()> {
        let mut table = table(["exported", self.format]);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        if let Some(pairs) = self.pairs {
            row("pairs", count(pairs));
        }
        row("images", count(self.images));
        row("identities", count(self.identities));
        row("files", count(self.files));
        row("bytes", bytes(self.bytes));
        if self.renamed_identities > 0 {
            row("renamed identities", count(self.renamed_identities));
        }
        if self.renamed_files > 0 {
            row("renamed files", count(self.renamed_files));
        }
        row("seconds", format!("{:.1}", self.seconds));
        row("images/s", count(self.images_per_second as u64));
        print_table(&table)
    }
}
