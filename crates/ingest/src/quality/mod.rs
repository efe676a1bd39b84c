//! `pfc-ingest quality`: measures of every face, as columns beside the data set.
//!
//! Rows are measured chunk by chunk into an unfinished table, which a command that was stopped goes on with. The
//! finished table replaces the one before.

mod bound;
mod measure;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, Progress, interrupt, print_json, print_table, table,
    units::{count, of},
};
use pfc_detect::DetectorArgs;
use pfc_durable::DurableError;
use pfc_embeddings::{DIR as EMBEDDINGS_DIR, Embeddings, kept, part};
use pfc_findings::{DecisionLog, View};
use pfc_onnx::{OnnxModel, OpenOptions};
use pfc_shard::{
    Dataset, Detections, QUALITY_DIR, QualitySpec, QualityTable, hash::content_hash,
    manifest_checksum,
};
use serde::Serialize;

use crate::{IngestError, TOOL, measures::Quantiles, threads::Threads, vectors::VectorArgs};
use measure::{Recipe, UNDECODABLE};

pub use bound::QualityBound;

/// Measure every face: sharpness, exposure, size, pose, norm of its embedding, a network's score.
///
/// Writes DATASET/quality: a row for each row of the data set and a column for each measure, as a .npy. `clean
/// --pass quality` leaves faces out by them, `show --lowest` draws them, `data.weights` of pfc-train draws by
/// them, and `pfc-eval pairs --quality` reports by them. docs/quality.md says what each column is.
///
/// Size and pose come from where a detector found the face: `pack --detector` keeps that. Of other data sets
/// --detector looks for landmarks in the crops, which tell the pose. The norm is that of the embeddings which
/// --embeddings or --model names, else of those that `clean --model` kept beside the data set. A measure that is
/// not known of a face is NaN.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest quality data
  pfc-ingest quality data --detector face_detection_yunet_2023mar.onnx
  pfc-ingest quality data --embeddings data.npy --quality-model ediffiqa_tiny.onnx --json
  pfc-ingest quality data --model w600k_r50.onnx --no-mirror

A command that was stopped or killed goes on where it was when it is run again. The same data set,
files and options give the same bytes on any number of threads.

Exit codes: 0 every face is measured, 1 some cannot be decoded, 2 nothing is written.")]
pub struct QualityArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    #[command(flatten)]
    vectors: VectorArgs,
    /// Network that gives each face one number, for the column fiqa
    #[arg(long, value_name = "FILE.onnx")]
    quality_model: Option<PathBuf>,
    /// Name of its output, where several are one number a face
    #[arg(long, value_name = "NAME", requires = "quality_model")]
    quality_output: Option<String>,
    #[command(flatten)]
    detector: DetectorArgs,
    /// Replace measures that are damaged, or that have columns which this command does not measure
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// The outcome, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Summary {
    rows: u64,
    /// Of these, faces that cannot be decoded.
    undecodable: u64,
    /// Whether all had been measured before.
    was_measured: bool,
    made_by: Vec<String>,
    columns: BTreeMap<String, ColumnSummary>,
    /// Their order in the table.
    #[serde(skip)]
    order: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ColumnSummary {
    /// Rows with a number.
    measured: u64,
    spread: Option<Quantiles>,
}

/// Runs the command.
pub fn run(args: &QualityArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let summary =
        quality(args, quiet).with_context(|| format!("cannot measure the faces of `{dir}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    Ok(if summary.undecodable == 0 { Outcome::Clean } else { Outcome::Findings })
}

fn quality(args: &QualityArgs, quiet: bool) -> Result<Summary, IngestError> {
    let dir = &args.dataset;
    let dataset = Dataset::open(dir)?;
    if dataset.is_empty() {
        return Err(IngestError::NothingToMeasure);
    }
    let pool = args.threads.pool()?;
    let (recipe, made_by) = args.recipe(&dataset, pool.current_num_threads(), quiet)?;
    let spec = QualitySpec { columns: recipe.columns(), made_by };
    let was_measured = args.is_measured(&spec)?;
    if !was_measured {
        pool.install(|| measure_all(dir, &dataset, &recipe, spec, quiet))?;
    }
    let table = of_dataset(dir)?;
    pool.install(|| Summary::of(&table, was_measured))
}

/// The measures of the data set in `dir`.
///
/// # Errors
///
/// [`pfc_shard::ShardError::NotMeasured`] if there are none, and what opening them gives.
pub fn of_dataset(dir: &Path) -> Result<QualityTable, IngestError> {
    let missing = || pfc_shard::ShardError::NotMeasured { dir: dir.to_owned() };
    Ok(QualityTable::open(dir)?.ok_or_else(missing)?)
}

/// Copies the measures of the data set in `from` that `view` keeps, if there are any, beside the data set in
/// `out`.
///
/// # Errors
///
/// [`IngestError`] if they cannot be read or written.
pub fn carry(from: &Path, view: &View, out: &Path) -> Result<(), IngestError> {
    let Some(table) = QualityTable::open(from)? else { return Ok(()) };
    let (columns, made_by) = (table.record().columns.clone(), table.record().made_by.clone());
    let rows = (0..view.len()).map(|place| Ok(table.get(view.row(place))?));
    QualitySpec { columns, made_by }.write(out, view.len(), rows)
}

/// Measures every row into the unfinished table of this job, and publishes it.
fn measure_all(
    dir: &Path,
    dataset: &Dataset,
    recipe: &Recipe<'_>,
    spec: QualitySpec,
    quiet: bool,
) -> Result<(), IngestError> {
    let folder = dir.join(QUALITY_DIR);
    pfc_durable::create_dir_all(&folder)?;
    let job = format!("{} {:?} {:?}", manifest_checksum(dir)?, spec.columns, spec.made_by);
    let path = folder.join(format!("{:032x}.part", content_hash(job.as_bytes())));
    let (header, total) = (spec.header(dataset.len()), dataset.len());
    let (mut out, done) = part::resume(&path, &header, spec.columns.len() as u64 * 4, total)?;
    let write = |e| IngestError::from(DurableError::at("write", &path)(e));
    let progress = Progress::new("measure", "images", total, quiet);
    progress.add(done);
    let mut row = done;
    while row < total {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: row, total });
        }
        let end = (row + part::CHUNK).min(total);
        let values = recipe.measure(row..end)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(write)?;
        progress.add(end - row);
        row = end;
    }
    progress.finish();
    out.sync_all().map_err(write)?;
    Ok(spec.publish(dir, total, &path)?)
}

impl QualityArgs {
    /// What measures the faces, and what decides the numbers.
    fn recipe<'a>(
        &self,
        dataset: &'a Dataset,
        n_threads: usize,
        quiet: bool,
    ) -> Result<(Recipe<'a>, Vec<String>), IngestError> {
        let mut made_by = vec![TOOL.to_owned()];
        let found = Detections::open(&self.dataset, dataset.manifest())?;
        let finder = self.detector.open(n_threads)?;
        made_by.extend(found.iter().map(|_| pfc_shard::DETECTIONS_FILE.to_owned()));
        made_by.extend(self.detector.content_arguments(finder.as_ref()));
        if found.is_none() && finder.is_none() {
            pfc_cli::tell(
                "size and pose are not known: the data set keeps no landmarks; --detector FILE.onnx finds \
                 them in the crops, which tells the pose",
            );
        }
        let embeddings = self.norms(dataset, quiet)?;
        made_by.extend(embeddings.iter().map(|(_, name)| format!("norm: {name}")));
        let score = match &self.quality_model {
            Some(path) => {
                let options = OpenOptions {
                    output: self.quality_output.clone(),
                    threads: Some(n_threads),
                    ..OpenOptions::default()
                };
                let model = OnnxModel::open_score(path, &options)?;
                model.account().lines(false).for_each(|line| pfc_cli::tell(&line));
                made_by.push(format!("fiqa: {} {:032x}", file_name(path), model.checksum()));
                Some(model)
            }
            None => None,
        };
        let embeddings = embeddings.map(|(embeddings, _)| embeddings);
        Ok((Recipe { dataset, found, finder, embeddings, score }, made_by))
    }

    /// The embeddings whose norms are taken, with what tells them from others; none where none are kept.
    fn norms(
        &self,
        dataset: &Dataset,
        quiet: bool,
    ) -> Result<Option<(Embeddings, String)>, IngestError> {
        if let Some((embeddings, _)) = self.vectors.compute(&self.dataset, dataset, quiet)? {
            let identity = checksum_of(embeddings.path())?;
            return Ok(Some((embeddings, identity)));
        }
        let path = match self.vectors.file() {
            Some(file) => file.to_owned(),
            None => match &kept_embeddings(&self.dataset)?[..] {
                [] => return Ok(None),
                [path] => path.clone(),
                several => return Err(several_kept(several)),
            },
        };
        let state = DecisionLog::open(&self.dataset)?.state(dataset)?;
        let embeddings = Embeddings::open(&path)?.of_left(dataset, &state)?;
        let identity = match path.starts_with(self.dataset.join(EMBEDDINGS_DIR)) {
            true => checksum_of(&path)?,
            false => embeddings.identity()?,
        };
        Ok(Some((embeddings, identity)))
    }

    /// Whether this very command has measured the data set already.
    fn is_measured(&self, spec: &QualitySpec) -> Result<bool, IngestError> {
        let table = match QualityTable::open(&self.dataset) {
            Err(error) if self.force && !error.is_of_system() => None,
            table => table?,
        };
        let Some(table) = table else { return Ok(false) };
        let record = table.record();
        let lost: Vec<&str> = record
            .columns
            .iter()
            .filter(|column| !spec.columns.contains(column))
            .map(String::as_str)
            .collect();
        if !lost.is_empty() {
            let lost = lost.join(", ");
            if !self.force {
                return Err(IngestError::Options {
                    what: format!("this would drop measures that are there: {lost}"),
                    hint:
                        "name the files again that they were made with, or drop them with --force"
                            .into(),
                });
            }
            tracing::warn!(
                "{}: measures that were there are dropped: {lost}",
                self.dataset.display()
            );
        }
        Ok(!self.force && record.columns == spec.columns && record.made_by == spec.made_by)
    }
}

/// The files of embeddings that commands have kept beside the data set in `dir`.
fn kept_embeddings(dir: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let folder = dir.join(EMBEDDINGS_DIR);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(IngestError::at("list", &folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(IngestError::at("list", &folder))?.path();
        let is_kept = pfc_embeddings::is_kept_name(&file_name(&path));
        if is_kept && path.extension().is_some_and(|ending| ending == "npy") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn several_kept(files: &[PathBuf]) -> IngestError {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    IngestError::Options {
        what: format!("embeddings of several networks are kept: {}", names.join(", ")),
        hint: "name those whose norms are to be measured with --embeddings".into(),
    }
}

/// The name of a file of kept embeddings, and its checksum where one is kept beside it.
fn checksum_of(path: &Path) -> Result<String, IngestError> {
    let sum = kept::read(path)?.map_or("no checksum".to_owned(), |sum| sum.checksum.to_string());
    Ok(format!("{} {sum}", file_name(path)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Summary {
    /// Reads every column. Memory: 4 bytes a row.
    fn of(table: &QualityTable, was_measured: bool) -> Result<Summary, IngestError> {
        let record = table.record();
        let mut columns = BTreeMap::new();
        let mut undecodable = 0;
        for name in &record.columns {
            let values = table.column(name)?;
            let measured = values.iter().filter(|value| !value.is_nan()).count() as u64;
            if name == UNDECODABLE {
                undecodable = record.rows - measured;
            }
            let spread = Quantiles::of(values);
            columns.insert(name.clone(), ColumnSummary { measured, spread });
        }
        Ok(Summary {
            rows: record.rows,
            undecodable,
            was_measured,
            made_by: record.made_by.clone(),
            columns,
            order: record.columns.clone(),
        })
    }

    fn print(&self) -> std::io::Result<()> {
        let mut printed =
            table(["measure", "faces", "least", "5 %", "median", "95 %", "most", "mean"]);
        for (name, column) in self.order.iter().filter_map(|name| self.columns.get_key_value(name))
        {
            let spread = column.spread.as_ref().map(Quantiles::columns);
            let spread = spread.unwrap_or_else(|| std::array::from_fn(|_| "–".to_owned()));
            printed.add_row([name.clone(), count(column.measured)].into_iter().chain(spread));
        }
        print_table(&printed)?;
        let mut out = pfc_cli::stdout();
        if self.undecodable > 0 {
            writeln!(out, "{} cannot be decoded", of(self.undecodable, "image"))?;
        }
        if self.was_measured {
            writeln!(out, "all had been measured before")?;
        }
        Ok(())
    }
}
