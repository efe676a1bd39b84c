//! `pfc-eval megaface`.

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_metrics::roc::Far;
use pfc_report::{
    chart::{self, Curve, PlotPath},
    interval, percent,
};
use pfc_verify::Figure;

use super::{
    megaface_features::{self as features, CleanArgs, EmbedArgs},
    megaface_set::SetArgs,
    pairs::parse_far,
    protocol::{BootstrapArgs, CurveArgs, asked_to_stop},
    require::RequireArgs,
};
use crate::{
    EvalError,
    document::{Document, Findings},
    megaface::{self, MegaFaceReport},
    rates::rate,
};

/// Judge a model on MegaFace, with the files of its devkit
#[derive(Debug, Clone, clap::Args)]
pub struct MegaFaceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Rank every probe's mates among the distractors; TAR at small FAR
    ///
    /// For each ordered pair of images of one person, the rank is the number of distractors strictly
    /// nearer to the first than the second. Ranks and thresholds are those of a computation in f64.
    #[command(after_help = "\
Noisy images are replaced as `remove_noises.py` does, in memory: a noisy probe by the sum of its
person's clean probes (plus noise of at most 0.001, which here depends on the path alone), a noisy
distractor by one that is far from everything.

Example:
  pfc-eval megaface score --probes out/facescrub --distractors out/megaface --suffix _r100.bin \\
    --probe-list templatelists/facescrub_features_list.json --galleries templatelists \\
    --probe-noises data/facescrub_noises.txt --distractor-noises data/megaface_noises.txt")]
    Score(Box<ScoreArgs>),
    /// Write the features of images, for the devkit or for `score`
    ///
    /// The embeddings of an image and its mirror image are added and divided by the norm. Images
    /// whose feature is there are skipped, so an interrupted run resumes. Images come from a folder
    /// or from a packed data set, whose rows are called by their sources.
    #[command(after_help = "\
Examples:
  pfc-eval megaface embed --model r100.ckpt --images megaface_images --list data/megaface_lst \\
    --out out/megaface --suffix _r100.bin
  pfc-eval megaface embed --model r100.ckpt --images packed --out out/megaface --suffix _r100.bin")]
    Embed(EmbedArgs),
    /// Write cleaned features of one more number, as `remove_noises.py` does
    ///
    /// The same command again goes on where an interrupted one stopped.
    Clean(CleanArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct ScoreArgs {
    #[command(flatten)]
    set: SetArgs,
    /// False accept rates to read TAR at; memory grows with the largest (16 bytes a false accept)
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "1e-6,1e-5,1e-4,1e-3", value_parser = parse_far)]
    far: Vec<Far>,
    /// Ranks of the CMC curve
    #[arg(long, value_name = "N", default_value_t = 100)]
    ranks: usize,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    #[command(flatten)]
    curves: CurveArgs,
    /// Draw the CMC curves to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    cmc: Option<PlotPath>,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    format: pfc_cli::Format,
}

/// Runs `pfc-eval megaface`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn megaface(args: &MegaFaceArgs, quiet: bool) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Score(args) => score(args, quiet).context("cannot evaluate on MegaFace"),
        Command::Embed(args) => {
            features::embed(args, quiet).context("cannot make features for MegaFace")
        }
        Command::Clean(args) => {
            let cleaned = features::clean(args, quiet);
            cleaned.context("cannot clean features of MegaFace").map(|()| Outcome::Clean)
        }
    }
}

fn score(args: &ScoreArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let set = args.set.open()?;
    let options = megaface::Options {
        fars: args.far.clone(),
        n_ranks: args.ranks.max(1),
        bootstrap: args.bootstrap.get(),
    };
    let n_distractors: usize = set.galleries.iter().map(|gallery| gallery.paths.len()).sum();
    let progress = Progress::new("compare", "distractors", n_distractors as u64, quiet);
    let report = megaface::judge(&set, &options, |n| {
        progress.add(n as u64);
        asked_to_stop()
    });
    progress.finish();
    let report = report?;
    if !report.incomplete.is_empty() {
        tracing::warn!("not the complete MegaFace: {}", report.incomplete.join(", "));
    }
    draw(args, &report)?;
    if !args.format.json {
        print(&report)?;
    }
    let findings = Findings::MegaFace(Box::new(report));
    let outcome = args.require.check(&findings);
    if args.format.json {
        pfc_cli::print_json(&Document::new("megaface", &args.set.probes, findings))?;
    }
    Ok(outcome?)
}

fn draw(args: &ScoreArgs, report: &MegaFaceReport) -> Result<(), EvalError> {
    let galleries = || report.galleries.iter().map(|gallery| (gallery.name.as_str(), gallery));
    let curves: Vec<Curve<'_>> = galleries().map(|(name, gallery)| gallery.curve(name)).collect();
    let largest = report.galleries.iter().max_by_key(|gallery| gallery.n_distractors);
    args.curves.draw(&curves, largest.and_then(|gallery| gallery.histogram.as_ref()))?;
    let Some(to) = &args.cmc else { return Ok(()) };
    let cmcs: Vec<(&str, &[f64])> =
        galleries().map(|(name, gallery)| (name, &gallery.cmc[..])).collect();
    Ok(chart::cmc(chart::MATES_FOUND, &cmcs).write(to)?)
}

fn print(report: &MegaFaceReport) -> std::io::Result<()> {
    let title = if report.cleaned { "MegaFace, cleaned" } else { "MegaFace" };
    let mut table = pfc_cli::table([title, "value", "95 % interval", "notes"]);
    for gallery in &report.galleries {
        let pairs = format!("{} mate pairs of {} probes", report.n_pairs, report.n_probes);
        let name = format!("{} distractors", gallery.name);
        table.add_row([name, String::new(), String::new(), pairs]);
        let [value, interval] = share(gallery.rank1);
        table.add_row(["  rank-1".to_owned(), value, interval, String::new()]);
        if let Some(rank10) = gallery.rank10 {
            let [value, interval] = share(rank10);
            table.add_row(["  rank-10".to_owned(), value, interval, String::new()]);
        }
        for row in &gallery.tar_at_far {
            let [value, interval] = share(row.tar);
            let notes = match row.n_negatives_allowed {
                0 => format!("finer than {} negatives can measure", gallery.n_negatives),
                1 => format!("rests on 1 negative; distance < {:.4}", row.threshold),
                n => format!("rests on {n} negatives; distance < {:.4}", row.threshold),
            };
            table.add_row([format!("  TAR@FAR {}", rate(row.far)), value, interval, notes]);
        }
    }
    pfc_cli::print_table(&table)
}

fn share(share: Figure) -> [String; 2] {
    [percent(share.value), interval(share.interval)]
}
