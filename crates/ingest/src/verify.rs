//! `pfc-ingest verify`: every byte of a data set against its checksums.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Format, Outcome, Progress, print_json};
use pfc_shard::{Manifest, VerifyReport};
use serde::Serialize;
use std::io::Write;

use crate::{
    threads::Threads,
    units::{bytes, count, of},
};

/// Check every byte of a data set.
///
/// Compares all files with the checksums in the manifest, all images with their hashes, and all
/// rows with the bounds they must keep. Each fault names its file and, where known, its row.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest verify data
  pfc-ingest verify data --json | jq '.findings[].file'

Exit codes: 0 the data set is whole, 1 it is damaged, 2 it could not be examined.")]
pub struct VerifyArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// The report as `--json` prints it.
#[derive(Serialize)]
struct Report<'a> {
    clean: bool,
    rows: u64,
    bytes: u64,
    faults: u64,
    findings: Vec<FindingReport<'a>>,
}

#[derive(Serialize)]
struct FindingReport<'a> {
    file: &'a std::path::Path,
    row_in_file: Option<u64>,
    row: Option<u64>,
    what: String,
}

/// Runs the command.
pub fn run(args: &VerifyArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = &args.dataset;
    let report =
        check(args, quiet).with_context(|| format!("cannot verify `{}`", dir.display()))?;
    if args.format.json {
        print_json(&json(&report))?;
    } else {
        print(&report)?;
    }
    Ok(if report.is_clean() { Outcome::Clean } else { Outcome::Findings })
}

fn check(args: &VerifyArgs, quiet: bool) -> anyhow::Result<VerifyReport> {
    let total = Manifest::read(&args.dataset)?.bytes();
    let progress = Progress::new("verify", "bytes", total, quiet);
    let pool = args.threads.pool()?;
    let report = pool.install(|| pfc_shard::verify(&args.dataset, |n| progress.add(n)))?;
    progress.finish();
    Ok(report)
}

fn json(report: &VerifyReport) -> Report<'_> {
    let findings = report.findings.iter().map(|finding| FindingReport {
        file: &finding.file,
        row_in_file: finding.row.map(|r| r.in_file),
        row: finding.row.map(|r| r.in_dataset),
        what: finding.fault.to_string(),
    });
    Report {
        clean: report.is_clean(),
        rows: report.rows,
        bytes: report.bytes,
        faults: report.n_faults,
        findings: findings.collect(),
    }
}

fn print(report: &VerifyReport) -> std::io::Result<()> {
    let mut out = pfc_cli::stdout();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let unlisted = report.n_faults - report.findings.len() as u64;
    if unlisted > 0 {
        writeln!(out, "and {} more", of(unlisted, "fault"))?;
    }
    let verdict = match report.n_faults {
        0 => "whole".to_owned(),
        n => of(n, "fault"),
    };
    let (rows, size) = (count(report.rows), bytes(report.bytes));
    writeln!(out, "{verdict}: {rows} rows in {size} examined")
}
