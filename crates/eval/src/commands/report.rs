//! `pfc-eval report`: several results on one page.

use std::path::PathBuf;

use pfc_cli::{Hinted, Outcome, Replace};

use crate::{document::Document, report};

/// What `pfc-eval report` takes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval lfw --model a.ckpt --data lfw --pairs pairs.txt --json > a.json
  pfc-eval lfw --model b.ckpt --data lfw --pairs pairs.txt --json > b.json
  pfc-eval ijbc --data IJBC --model a.ckpt --json > a-ijbc.json
  pfc-eval report a.json b.json a-ijbc.json --out report.html
  pfc-eval report a.json b.json --name \"r50, margin 0.4\" --name \"r50, margin 0.5\" -o margins.html")]
pub struct ReportArgs {
    /// Results that --json wrote, of any command
    #[arg(value_name = "RESULT.json", required = true)]
    results: Vec<PathBuf>,
    /// Call the model of a result by this name; once for each result, in their order
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Page to write
    #[arg(short, long, value_name = "FILE.html")]
    out: PathBuf,
    #[command(flatten)]
    replace: Replace,
}

/// Runs `pfc-eval report`.
///
/// # Errors
///
/// [`EvalError`](crate::EvalError) for a file that is no result, or a page that cannot be written.
pub fn report(args: &ReportArgs) -> anyhow::Result<Outcome> {
    args.replace.check(&args.out)?;
    let (n_results, n_names) = (args.results.len(), args.names.len());
    if n_names != 0 && n_names != n_results {
        let hint = "give --name once for each result, in their order, or leave it out";
        let message = format!("{n_names} names are given for {n_results} results");
        return Err(Hinted::new(message, hint).into());
    }
    let mut documents =
        args.results.iter().map(|path| Document::read(path)).collect::<Result<Vec<_>, _>>()?;
    for (document, name) in documents.iter_mut().zip(&args.names) {
        document.model.clone_from(name);
    }
    let page = report::page(&documents)?;
    pfc_durable::write_output(&args.out, page.as_bytes())?;
    Ok(Outcome::Clean)
}
