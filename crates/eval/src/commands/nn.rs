//! `pfc-eval nn`.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_embeddings::FeatureFile;
use pfc_metrics::{Rows, roc::Far};
use pfc_report::{chart::Curve, interval, percent};

use super::{
    pairs::parse_far,
    protocol::{BootstrapArgs, CurveArgs, asked_to_stop},
    require::RequireArgs,
};
use crate::{
    EvalError,
    document::{Document, Findings},
    nn::{self, Labels, NnReport, State},
    rates::rate,
};

/// Compare all faces of a labelled set with each other: TAR down to FAR 1e-8, by group and of all
///
/// As the multi-racial benchmark of MFR-Ongoing (earlier IFRT) describes it: every pair of two images
/// counts, genuine if of one person; a group's figures are of the pairs within it, and ALL is of
/// all pairs, across groups too. Impostor scores are counted by exact value, so memory stays bounded
/// and every figure is exact.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The labels are a text file with a line per row of the features: the person, and after a tab the
group (a race label, say), if there are groups. In a file without tabs a blank stands between them.

Cost: N faces of D numbers take N·N·D/2 multiply-adds: 2.6e12 for 100,000 faces of 512 numbers,
well under a minute on two cores.

Examples:
  pfc-eval nn --features e.npy --labels labels.txt
  pfc-eval nn --features e.safetensors --labels labels.txt --far 1e-8,1e-6,1e-4 \\
      --state nn.state --json")]
pub struct NnArgs {
    /// Embeddings, float32: .npy, or .safetensors with `embs`, `embeddings` or `features`
    #[arg(long, value_name = "FILE")]
    features: PathBuf,
    /// Who each row is, and in which group
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// False accept rates to read TAR at
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "1e-8,1e-7,1e-6,1e-5,1e-4", value_parser = parse_far)]
    far: Vec<Far>,
    /// Keep the count in this file, every five minutes and when interrupted; the same command goes on
    /// from it, and removes it when done
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    #[command(flatten)]
    curves: CurveArgs,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    format: pfc_cli::Format,
}

/// Runs `pfc-eval nn`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn nn(args: &NnArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let features = FeatureFile::open(&args.features)?;
    let rows = features.rows(&["embs", "embeddings", "features"])?;
    features.note_zeros(rows);
    let labels = Labels::read(&args.labels)?;
    if labels.identity.len() != rows.len() {
        let (n_rows, n_faces) = (rows.len(), labels.identity.len());
        let error = EvalError::FeatureRows { n_rows, n_faces };
        return Err(error).with_context(|| format!("cannot use `{}`", args.labels.display()));
    }
    let state = args.state.as_deref().map(|path| State::new(path, key(rows, &labels, &args.far)));
    let options = nn::Options { fars: args.far.clone(), bootstrap: args.bootstrap.get() };
    let n_rows = rows.len() as u64;
    let n_pairs = n_rows * n_rows.saturating_sub(1) / 2;
    let progress = Progress::new("compare pairs", "pairs", n_pairs, quiet);
    let mut done = 0;
    let report = nn::judge(rows, &labels, &options, state.as_ref(), |n| {
        // A second count from a lower floor starts at 0 again.
        progress.add(n.saturating_sub(done));
        done = n;
        asked_to_stop()
    });
    progress.finish();
    let report = report.with_context(|| {
        format!("cannot compare `{}` by `{}`", args.features.display(), args.labels.display())
    })?;
    let curves: Vec<Curve<'_>> =
        report.groups.iter().map(|group| group.curve(&group.name)).collect();
    let all = report.groups.last().and_then(|group| group.histogram.as_ref());
    args.curves.draw(&curves, all)?;
    if !args.format.json {
        print(&report)?;
    }
    let findings = Findings::Nn(Box::new(report));
    let outcome = args.require.check(&findings);
    if args.format.json {
        pfc_cli::print_json(&Document::new("nn", &args.features, findings))?;
    }
    Ok(outcome?)
}

/// What a count depends on.
fn key(rows: Rows, labels: &Labels, fars: &[Far]) -> String {
    let hash = |bytes: &[u8]| pfc_shard::Checksum(pfc_shard::hash::content_hash(bytes)).to_string();
    let fars: Vec<f64> = fars.iter().map(|far| far.get()).collect();
    format!(
        "{} {} {} {} {fars:?}",
        rows.dim(),
        hash(bytemuck::cast_slice(rows.data())),
        hash(bytemuck::cast_slice(&labels.identity)),
        hash(bytemuck::cast_slice(&labels.group))
    )
}

fn print(report: &NnReport) -> std::io::Result<()> {
    let mut table = pfc_cli::table(["N:N", "TAR", "95 % interval", "threshold", "rests on"]);
    for group in &report.groups {
        let sizes = format!("{} people, {} faces", group.n_identities, group.n_faces);
        let pairs = format!("{} genuine + {} impostor", group.n_genuine, group.n_impostors);
        table.add_row([group.name.clone(), String::new(), sizes, String::new(), pairs]);
        for row in &group.tar_at_far {
            let rests_on = match row.n_impostors_allowed {
                0 => "finer than the data: the highest impostor".to_owned(),
                n => format!("{n} impostors"),
            };
            table.add_row([
                format!("  TAR@FAR {}", rate(row.far)),
                row.tar.map_or("–".to_owned(), percent),
                interval(row.interval),
                row.threshold.map_or(String::new(), |t| format!("{t:.4}")),
                rests_on,
            ]);
        }
    }
    pfc_cli::print_table(&table)
}
