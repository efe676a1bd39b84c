//! `pfc-ingest verify`: every byte of a data set against its checksums.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, Progress, print_json,
    units::{bytes, count, of},
};
use pfc_embeddings::{DIR as EMBEDDINGS_DIR, kept};
use pfc_findings::{DECISIONS_DIR, check_log};
use pfc_shard::{
    Checks, MANIFEST_FILE, Manifest, QUALITY_DIR, QUARANTINE_FILE, QualityTable, SHARDS_DIR,
    VerifyReport, hash::file_checksum, is_quality_name, is_quality_part, verify_with,
};
use serde::Serialize;

use crate::{IngestError, threads::Threads};

/// Check every byte of a data set.
///
/// Compares all files with the checksums in the manifest, all images with their hashes, and all
/// rows with the bounds they must keep; reads the decisions beside the data set, the embeddings
/// that `clean` and `merge` kept and the measures of `quality`; and names files that belong to none of these. Each fault names its
/// file and, where known, its row.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest verify data
  pfc-ingest verify data --decode
  pfc-ingest verify data --json | jq '.findings[].file'

Exit codes: 0 the data set is whole, 1 it is damaged, 2 it could not be examined.")]
pub struct VerifyArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    /// Also decode every image, to find those that no reader can decode
    #[arg(long)]
    decode: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// The report as `--json` prints it.
#[derive(Serialize)]
struct Report {
    clean: bool,
    rows: u64,
    bytes: u64,
    faults: u64,
    findings: Vec<FindingReport>,
    /// What is no fault, but worth knowing.
    notes: Vec<FindingReport>,
}

#[derive(Serialize)]
struct FindingReport {
    file: PathBuf,
    row_in_file: Option<u64>,
    row: Option<u64>,
    what: String,
    /// As it is printed.
    #[serde(skip)]
    text: String,
}

impl FindingReport {
    fn of_file(file: PathBuf, what: impl Into<String>) -> FindingReport {
        let what = what.into();
        let text = match what.contains(&*file.to_string_lossy()) {
            true => what.clone(),
            false => format!("{}: {what}", file.display()),
        };
        FindingReport { file, row_in_file: None, row: None, what, text }
    }
}

/// Runs the command.
pub fn run(args: &VerifyArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = &args.dataset;
    let report =
        check(args, quiet).with_context(|| format!("cannot verify `{}`", dir.display()))?;
    if args.format.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.clean { Outcome::Clean } else { Outcome::Findings })
}

fn check(args: &VerifyArgs, quiet: bool) -> anyhow::Result<Report> {
    let dir = &args.dataset;
    let manifest = Manifest::read(dir)?;
    let progress = Progress::new("verify", "bytes", manifest.bytes(), quiet);
    let pool = args.threads.pool()?;
    let checks = Checks { decode: args.decode };
    let found = pool.install(|| verify_with(dir, checks, |n| progress.add(n)))?;
    progress.finish();
    let mut report = of_shards(&found);
    for (file, what) in check_log(dir)? {
        report.findings.push(FindingReport::of_file(file, what));
        report.faults += 1;
    }
    check_embeddings(dir, &mut report)?;
    check_quality(dir, &mut report)?;
    let is_sealed = Manifest::is_sealed(dir)?;
    note_strays(dir, &manifest, is_sealed, &mut report)?;
    if !is_sealed {
        let what = "has no checksum of its own: an earlier version wrote it";
        report.notes.push(FindingReport::of_file(MANIFEST_FILE.into(), what));
    }
    report.clean = report.faults == 0;
    Ok(report)
}

fn of_shards(report: &VerifyReport) -> Report {
    let findings = report.findings.iter().map(|finding| FindingReport {
        file: finding.file.clone(),
        row_in_file: finding.row.map(|r| r.in_file),
        row: finding.row.map(|r| r.in_dataset),
        what: finding.fault.to_string(),
        text: finding.to_string(),
    });
    Report {
        clean: false,
        rows: report.rows,
        bytes: report.bytes,
        faults: report.n_faults,
        findings: findings.collect(),
        notes: Vec::new(),
    }
}

/// Names in a folder, in order; none where there is no such folder, or another file of its name.
fn names(dir: &Path) -> Result<Vec<String>, IngestError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(IngestError::at("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(IngestError::at("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Holds kept embeddings against the checksums beside them.
fn check_embeddings(dir: &Path, report: &mut Report) -> Result<(), IngestError> {
    let folder = dir.join(EMBEDDINGS_DIR);
    let names = names(&folder)?;
    for name in &names {
        let (path, file) = (folder.join(name), Path::new(EMBEDDINGS_DIR).join(name));
        let mut note = |what: &str| report.notes.push(FindingReport::of_file(file.clone(), what));
        match name.rsplit_once('.') {
            Some((stem, "sum")) if names.contains(&format!("{stem}.npy")) => {}
            Some((_, "part")) => {
                note("is unfinished: the command that began it goes on from there");
            }
            Some((_, "npy")) => match kept::read(&path) {
                Ok(None) => note("has no checksum: an earlier version wrote it"),
                Ok(Some(sum)) => {
                    let found = file_checksum(&path, |n| report.bytes += n)?;
                    if found != sum.checksum {
                        let what = format!("has checksum {found}, not {}", sum.checksum);
                        report.findings.push(FindingReport::of_file(file, what));
                        report.faults += 1;
                    }
                }
                Err(error) if error.is_of_system() => return Err(error.into()),
                Err(error) => {
                    report.findings.push(FindingReport::of_file(file, error.to_string()));
                    report.faults += 1;
                }
            },
            _ => note("is none of the kept embeddings"),
        }
    }
    Ok(())
}

/// Holds the measures of quality against their checksum.
fn check_quality(dir: &Path, report: &mut Report) -> Result<(), IngestError> {
    let folder = Path::new(QUALITY_DIR);
    for name in names(&dir.join(folder))? {
        let what = match name.as_str() {
            name if is_quality_part(name) => "is unfinished: `quality` goes on from there",
            name if is_quality_name(name) => continue,
            _ => "is none of the measures of quality",
        };
        report.notes.push(FindingReport::of_file(folder.join(name), what));
    }
    match QualityTable::open(dir) {
        Ok(table) => report.bytes += table.map_or(0, |table| table.bytes()),
        Err(error) if error.is_of_system() => return Err(error.into()),
        Err(error) => {
            report.findings.push(FindingReport::of_file(folder.to_owned(), error.to_string()));
            report.faults += 1;
        }
    }
    Ok(())
}

/// Names what lies in the data set's folder and is not of it.
///
/// * `is_sealed`: whether the manifest is of a version that lists all files
fn note_strays(
    dir: &Path,
    manifest: &Manifest,
    is_sealed: bool,
    report: &mut Report,
) -> Result<(), IngestError> {
    let folders = [SHARDS_DIR, DECISIONS_DIR, EMBEDDINGS_DIR, QUALITY_DIR];
    let listed = |name: &str| {
        let mut files = std::iter::once(&manifest.identities).chain(&manifest.others);
        name == MANIFEST_FILE || files.any(|entry| entry.file == name)
    };
    let is_own = |name: &str| match dir.join(name).is_dir() {
        true => folders.contains(&name),
        false => listed(name) || !is_sealed && name == QUARANTINE_FILE,
    };
    for name in names(dir)?.into_iter().filter(|name| !is_own(name)) {
        let what = match name.starts_with('.') {
            true => "is no file of the data set: a command that was stopped may have left it",
            false => "is no file of the data set",
        };
        report.notes.push(FindingReport::of_file(name.into(), what));
    }
    Ok(())
}

fn print(report: &Report) -> std::io::Result<()> {
    let mut out = pfc_cli::stdout();
    for finding in &report.findings {
        writeln!(out, "{}", finding.text)?;
    }
    let unlisted = report.faults - report.findings.len() as u64;
    if unlisted > 0 {
        writeln!(out, "and {} more", of(unlisted, "fault"))?;
    }
    for note in &report.notes {
        writeln!(out, "note: {}", note.text)?;
    }
    let verdict = match report.faults {
        0 => "whole".to_owned(),
        n => of(n, "fault"),
    };
    let (rows, size) = (count(report.rows), bytes(report.bytes));
    writeln!(out, "{verdict}: {rows} rows in {size} examined")
}
