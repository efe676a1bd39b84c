//! The pair verification commands: open a set, embed it, judge it, show the result.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_detect::{DetectorArgs, Finder};
use pfc_durable::DurableError;
use pfc_findings::Reading;
use pfc_metrics::{bootstrap::Bootstrap, quality, roc::Far};
use pfc_model::Embed;
use pfc_report::chart;
use pfc_sources::is_verification_set;
use pfc_verify::{Judged, Opening, Options, PairsSet, VerificationReport, VerifyError};

use super::{
    model::ModelArgs,
    protocol::{CurveArgs, asked_to_stop},
    require::RequireArgs,
    scores, table,
};
use crate::{
    EvalError, benchmarks,
    document::{ByQuality, Document, Findings, SetResult},
    pairs::{CfpSplit, PairList},
    worst::Source,
};

/// What every pair verification command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct JudgeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// False accept rates to read TAR at
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "1e-1,1e-2,1e-3", value_parser = parse_far)]
    far: Vec<Far>,
    /// Also evaluate after a PCA to this many dimensions, fitted per fold
    #[arg(long, value_name = "DIMENSIONS")]
    pca: Option<usize>,
    /// Resampled sets behind the 95 % confidence intervals; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 1000)]
    bootstrap: u32,
    /// Seed of the resampling
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    curves: CurveArgs,
    /// Write the score of every pair to this CSV file
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    format: pfc_cli::Format,
}

/// A set as a folder with a list of pairs, or as a pack.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Folder of aligned faces or packed data set, or a set of pairs: InsightFace's lfw.bin, CVLface's folder
    #[arg(long, value_name = "FOLDER|PACK")]
    data: PathBuf,
    /// List of pairs of the folder's faces
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Read a packed data set as it was packed: do not apply the decisions beside it
    #[arg(long)]
    as_packed: bool,
    /// Also report errors by this measure of `pfc-ingest quality`, of a packed data set
    #[arg(long, value_name = "COLUMN")]
    quality: Option<String>,
    #[command(flatten)]
    detector: DetectorArgs,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// CFP as a folder or as a pack.
#[derive(Debug, Clone, clap::Args)]
pub struct CfpArgs {
    /// Folder that holds Protocol and Data, its faces aligned in place; or a pack such as `cfp_fp.bin`
    #[arg(long, value_name = "FOLDER|PACK")]
    data: PathBuf,
    #[command(flatten)]
    detector: DetectorArgs,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Several packs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval bin --model run.ckpt faces_emore/lfw.bin faces_emore/cfp_fp.bin
  pfc-eval bin --model run.ckpt faces_emore/*.bin --json > packs.json")]
pub struct BinArgs {
    /// InsightFace packs
    #[arg(value_name = "PACK", required = true)]
    packs: Vec<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Runs the command of a set in any layout; `command` names the benchmark whose counts are checked.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn set(command: &'static str, args: &SetArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let finder = finder(&args.detector, &args.data)?;
    let open = || match &args.pairs {
        _ if args.data.is_file() => Ok(PairsSet::open_pack(&args.data)?),
        Some(pairs) => {
            let opening =
                Opening { reading: Reading::from_switch(args.as_packed), finder: finder.as_ref() };
            Ok(PairsSet::open(&args.data, pairs, opening)?)
        }
        None if is_verification_set(&args.data)? => Ok(PairsSet::open_pack(&args.data)?),
        None => Err(no_list(&args.data)),
    };
    run(command, &args.judge, args.quality.as_deref(), &[(&args.data, &open)], quiet)
}

/// Why a place without a list of pairs is not judged: it is a folder, or is not there.
fn no_list(data: &Path) -> EvalError {
    match std::fs::metadata(data) {
        Ok(_) => EvalError::NoList { data: data.to_owned() },
        Err(error) => DurableError::at("open", data)(error).into(),
    }
}

/// The detector that finds the faces of photographs, if one is given.
///
/// # Errors
///
/// [`EvalError::PackedCrops`] if `data` is no folder of photographs, and what opening the detector gives.
fn finder(args: &DetectorArgs, data: &Path) -> Result<Option<Finder>, EvalError> {
    let is_packed = data.is_file() || data.join(pfc_shard::MANIFEST_FILE).is_file();
    if args.is_given() && is_packed {
        return Err(EvalError::PackedCrops { path: data.to_owned() });
    }
    Ok(args.open(rayon::current_num_threads()).map_err(VerifyError::from)?)
}

/// Runs `pfc-eval cfp-fp` or `cfp-ff`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn cfp(split: CfpSplit, args: &CfpArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let (command, title) = match split {
        CfpSplit::FrontalFrontal => ("cfp-ff", "CFP-FF"),
        CfpSplit::FrontalProfile => ("cfp-fp", "CFP-FP"),
    };
    let finder = finder(&args.detector, &args.data)?;
    let open = || {
        let is_layout = args.data.join("Protocol").is_dir();
        if args.data.is_file() || !is_layout && is_verification_set(&args.data)? {
            return Ok(PairsSet::open_pack(&args.data)?);
        }
        let list = PairList::read_cfp(&args.data, split)?;
        let opening = Opening { finder: finder.as_ref(), ..Opening::default() };
        Ok(PairsSet::from_list(&args.data, Path::new(title), list, opening)?)
    };
    run(command, &args.judge, None, &[(&args.data, &open)], quiet)
}

/// Runs `pfc-eval bin`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn bin(args: &BinArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let opens: Vec<_> =
        args.packs.iter().map(|pack| (pack, || Ok(PairsSet::open_pack(pack)?))).collect();
    let sets: Vec<(&Path, Open<'_>)> =
        opens.iter().map(|(pack, open)| (pack.as_path(), open as Open<'_>)).collect();
    run("bin", &args.judge, None, &sets, quiet)
}

type Open<'a> = &'a dyn Fn() -> Result<PairsSet, EvalError>;

/// Bins of pairs by quality.
const QUALITY_BINS: usize = 5;

/// Judges the model on each set in turn; each is `(data, how to open it)`.
///
/// * `quality`: the measure by which errors are reported, if any
fn run(
    command: &str,
    args: &JudgeArgs,
    quality: Option<&str>,
    sets: &[(&Path, Open<'_>)],
    quiet: bool,
) -> anyhow::Result<Outcome> {
    let embedder = args
        .model
        .open()
        .with_context(|| format!("cannot open the model `{}`", args.model.model.display()))?;
    let options = Options {
        fars: args.far.clone(),
        bootstrap: Bootstrap {
            n_replicates: args.bootstrap,
            seed: args.seed,
            ..Bootstrap::default()
        },
        pca: args.pca,
    };
    let mut results = Vec::with_capacity(sets.len());
    let mut csv = String::new();
    for (data, open) in sets {
        let context = || format!("cannot evaluate the model on `{}`", data.display());
        let set = open().with_context(context)?;
        if let Some(notice) = set.notice("--as-packed") {
            tracing::warn!("{}: {notice}", set.name());
        }
        let differs = benchmarks::check(command, &set).err().map(|mismatch| mismatch.to_string());
        if let Some(differs) = &differs {
            tracing::warn!("{}: {differs}", set.name());
        }
        // Before the minutes that follow.
        let quality = quality.map(|column| Ok::<_, VerifyError>((column, set.quality(column)?)));
        let quality = quality.transpose().with_context(context)?;
        let judged = judge(&embedder, &set, &options, quiet).with_context(context)?;
        if let Some(reason) = implausible(&judged.report) {
            pfc_cli::tell(&format!("warning: {}: {reason}", set.name()));
        }
        if !args.format.json {
            table::print(&judged.report)?;
        }
        let by_quality = quality.map(|(column, values)| by_quality(&set, &judged, column, &values));
        if let Some(by_quality) = by_quality.as_ref().filter(|_| !args.format.json) {
            table::print_by_quality(by_quality)?;
        }
        if args.scores.is_some() {
            csv += &scores::csv(&set, &judged);
        }
        let result = SetResult::new(Source::of(data), &set, &judged, differs);
        results.push(SetResult { quality: by_quality, ..result });
    }
    draw(args, &results)?;
    if let Some(path) = &args.scores {
        pfc_durable::write_output(path, csv.as_bytes())?;
    }
    let findings = Findings::Pairs { results };
    let outcome = args.require.check(&findings);
    if args.format.json {
        pfc_cli::print_json(&Document::new(command, &args.model.model, findings))?;
    }
    Ok(outcome?)
}

/// Errors at the threshold of the set, by the quality of each pair.
fn by_quality(set: &PairsSet, judged: &Judged, column: &str, quality: &[f64]) -> ByQuality {
    let same: Vec<bool> = set.pairs().iter().map(|pair| pair.same).collect();
    let threshold = judged.report.accuracy.threshold;
    let accepted: Vec<bool> = judged.distances.iter().map(|d| *d < threshold).collect();
    let bins = quality::by_quality(quality, &same, &accepted, QUALITY_BINS);
    ByQuality { column: column.to_owned(), bins }
}

fn judge<E: Embed>(
    embedder: &E,
    set: &PairsSet,
    options: &Options,
    quiet: bool,
) -> Result<Judged, EvalError> {
    let progress = Progress::new("embed", "images", set.n_images() as u64, quiet);
    let result = set.embed(embedder, 0..set.n_images(), &mut |n| {
        progress.add(n as u64);
        asked_to_stop()
    });
    progress.finish();
    Ok(set.judge(&result?, options)?)
}

/// What no network that tells faces apart shows: a threshold at which nearly all faces are one person's, or
/// embeddings that vanish or blow up. Published networks have thresholds of 1.0 to 1.7, and norms of 1 to 100.
fn implausible(report: &VerificationReport) -> Option<String> {
    const THRESHOLD_MIN: f64 = 0.05;
    const NORMS: std::ops::Range<f64> = 1e-3..1e5;
    const ADVICE: &str = "is the model fed as it wants (--mean, --std, --channels; --explain shows what is \
                          known of an ONNX file), and are the faces aligned?";
    let (threshold, norm) = (report.accuracy.threshold, report.mean_norm);
    if threshold < THRESHOLD_MIN {
        let cosine = 1.0 - threshold / 2.0;
        return Some(format!(
            "the best threshold is a squared distance of {threshold:.4}, cosine {cosine:.4}: to the model \
             all faces are nearly alike; {ADVICE}"
        ));
    }
    (!NORMS.contains(&norm)).then(|| {
        format!(
            "the embeddings have a mean norm of {norm:.3e}, as no usual network gives; {ADVICE}"
        )
    })
}

fn draw(args: &JudgeArgs, results: &[SetResult]) -> Result<(), EvalError> {
    let curves: Vec<chart::Curve<'_>> = results
        .iter()
        .filter(|result| !result.roc.is_empty())
        .map(|result| result.curve(&result.figures.set))
        .collect();
    // One histogram of all sets would mix their scales: the first is drawn.
    args.curves.draw(&curves, results.first().map(|first| &first.histogram))
}

pub(super) fn parse_far(text: &str) -> Result<Far, String> {
    let far = text.trim().parse().map_err(|_| "give a rate such as 1e-3".to_owned())?;
    Far::new(far).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use pfc_verify::{Accuracy, PeopleFrom, pairs::Protocol};

    use super::*;

    fn report(threshold: f64, mean_norm: f64) -> VerificationReport {
        VerificationReport {
            set: "set".to_owned(),
            protocol: Protocol::SingleList,
            n_pairs: 2,
            n_genuine: 1,
            n_impostor: 1,
            n_images: 4,
            n_people: 3,
            people_from: PeopleFrom::Names,
            accuracy: Accuracy {
                mean: 0.5,
                std: None,
                interval: None,
                threshold,
                folds: Vec::new(),
            },
            pca: None,
            val: None,
            tar_at_far: Vec::new(),
            auc: None,
            eer: None,
            mean_norm,
            replicates: None,
        }
    }

    #[test]
    fn a_threshold_or_norm_that_no_network_has_is_told_with_the_way_out() {
        for (threshold, norm) in [(1.4, 20.0), (0.9, 1.0), (1.6, 0.01), (1.2, 9e4)] {
            assert_eq!(implausible(&report(threshold, norm)), None, "{threshold} {norm}");
        }
        // A network that is fed pixels that were normalised twice had 0.004, cosine 0.998.
        let reason = implausible(&report(0.004, 20.0)).unwrap();
        assert!(reason.contains("0.0040, cosine 0.9980: to the model all faces"), "{reason}");
        assert!(reason.contains("--mean, --std, --channels"), "{reason}");
        for norm in [1e-6, 1e7, f64::NAN, 0.0] {
            let reason = implausible(&report(1.4, norm)).unwrap();
            assert!(reason.contains("a mean norm of") && reason.contains("--explain"), "{reason}");
        }
    }
}
