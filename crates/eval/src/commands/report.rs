//! `pfc-eval report`: several results on one page.

use std::path::PathBuf;

use pfc_cli::Outcome;

use crate::{document::Document, report};

/// What `pfc-eval report` takes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval lfw --model a.ckpt --data lfw --pairs pairs.txt --json > a.json
  pfc-eval lfw --model b.ckpt --data lfw --pairs pairs.txt --json > b.json
  pfc-eval ijbc --data IJBC --model a.ckpt --json > a-ijbc.json
  pfc-eval report a.json b.json a-ijbc.json --out report.html")]
pub struct ReportArgs {
    /// Results that --json wrote, of any command
    #[arg(value_name = "RESULT.json", required = true)]
    results: Vec<PathBuf>,
    /// Page to write
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

/// Runs `pfc-eval report`.
///
/// # Errors
///
/// [`EvalError`](crate::EvalError) for a file that is no result, or a page that cannot be written.
pub fn report(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let documents =
        args.results.iter().map(|path| Document::read(path)).collect::<Result<Vec<_>, _>>()?;
    let page = report::page(&documents)?;
    pfc_durable::write_output(&args.out, page.as_bytes())?;
    Ok(Outcome::Clean)
}
