//! `quarantine.jsonl`: what is not in a data set, and why. One JSON object a line:
//! `{"source":"alice/3.jpg","kind":"quarantined","reason":"truncated","detail":"…"}`.
//!
//! `kind` is `quarantined` for images that could not be used and `skipped` for other files;
//! `reason` is a fixed word, `detail` a sentence for people.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError};
use serde::{Deserialize, Serialize};

use crate::{IngestError, reject::Reject};

/// Name of the file in a data set's folder.
pub const FILE: &str = "quarantine.jsonl";

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    source: String,
    kind: String,
    reason: String,
    detail: String,
}

const SKIPPED: &str = "skipped";
const QUARANTINED: &str = "quarantined";

impl Line {
    /// Says of `source` why it is left out.
    pub fn new(source: &str, reject: &Reject) -> Line {
        let kind = if reject.is_skip() { SKIPPED } else { QUARANTINED };
        Line {
            source: source.to_owned(),
            kind: kind.to_owned(),
            reason: reject.reason().to_owned(),
            detail: reject.to_string(),
        }
    }

    /// The word for the reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it is about, and why, for people.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.source, self.detail)
    }

    /// Whether nothing is lost by it.
    pub fn is_skip(&self) -> bool {
        self.kind == SKIPPED
    }
}

/// The file being written.
pub struct Quarantine {
    path: PathBuf,
    out: AtomicFile,
    /// Images that could not be used.
    pub n_quarantined: u64,
    /// Other files.
    pub n_skipped: u64,
    /// The first image that could not be used, and why.
    pub first: Option<String>,
}

impl Quarantine {
    /// Begins an empty list in the data set's folder `dir`.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if it cannot be written.
    pub fn create(dir: &Path) -> Result<Quarantine, IngestError> {
        let path = dir.join(FILE);
        let out = AtomicFile::create(&path)?;
        Ok(Quarantine { path, out, n_quarantined: 0, n_skipped: 0, first: None })
    }

    /// Adds one file.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if it cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<(), IngestError> {
        let counter = if line.is_skip() {
            &mut self.n_skipped
        } else {
            self.first.get_or_insert_with(|| format!("{}: {}", line.source, line.detail));
            &mut self.n_quarantined
        };
        *counter += 1;
        let mut text = serde_json::to_vec(line).expect("strings become JSON");
        text.push(b'\n');
        self.out.write_all(&text).map_err(DurableError::at("write", &self.path))?;
        Ok(())
    }

    /// Makes the list visible.
    ///
    /// # Errors
    ///
    /// [`IngestError::Durable`] if it cannot be.
    pub fn commit(self) -> Result<(), IngestError> {
        Ok(self.out.commit()?)
    }
}

/// How often each reason occurs in the list of the data set in `dir`; empty without a list.
///
/// # Errors
///
/// [`IngestError::Durable`] if the list cannot be read or is not one.
pub fn count_reasons(dir: &Path) -> Result<BTreeMap<String, u64>, IngestError> {
    #[derive(Deserialize)]
    struct Reason {
        reason: String,
    }
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file.map_err(IngestError::at("open", &path))?,
    };
    let mut counts = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(IngestError::at("read", &path))?;
        let Reason { reason } =
            serde_json::from_str(&line).map_err(|e| IngestError::at("read", &path)(e.into()))?;
        *counts.entry(reason).or_default() += 1;
    }
    Ok(counts)
}
