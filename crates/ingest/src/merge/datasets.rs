//! What joining finished data sets takes, whatever makes their identities one.

use std::path::Path;

use pfc_clean::CleanError;
use pfc_cli::{Progress, interrupt, units::count};
use pfc_findings::{Action, Decision, DecisionLog, Run, State, View, carried};
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Detections, Face, IdentityNames,
    NOT_DETECTED, Permutation, QualitySpec, QualityTable, Step, write_detections,
};

use crate::{IngestError, TOOL, lineage};

/// One of the data sets to join.
pub struct Part {
    /// What it is called in the new data set; no other part is called that.
    pub name: String,
    /// Its rows.
    pub view: View,
    /// Where the faces of the rows as packed were found in their photographs, if that is known.
    found: Option<Detections>,
    /// What was decided about it.
    pub runs: Vec<Run>,
    /// Number of rows of the parts before it.
    pub first_row: u64,
    /// Measures of its faces, if there are any.
    quality: Option<QualityTable>,
    /// By label of the view: that of the new data set. [`Part::open`] leaves it empty.
    pub labels: Vec<u32>,
}

impl Part {
    /// Opens the data set at `dir`, which follows those of `before`, and says what decisions change; also
    /// returns the state that they leave.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if it cannot be read.
    pub fn open(
        dir: &Path,
        as_packed: bool,
        before: &[Part],
    ) -> Result<(Part, State), IngestError> {
        let (dataset, state, runs) = read(dir, as_packed)?;
        let found = Detections::open(dir, dataset.manifest())?;
        let view = View::new(dataset, &state)?;
        if let Some(notice) = view.notice("--as-packed") {
            tracing::warn!("{}: {notice}", dir.display());
        }
        let name = name(dir, before.iter().map(|part| &*part.name));
        let first_row = before.last().map_or(0, |last| last.first_row + last.view.len());
        let quality = QualityTable::open(dir)?;
        let (view, labels) = (view.checked(), Vec::new());
        let part = Part { name, view, runs, first_row, found, quality, labels };
        if let Some(first) = before.first() {
            check_sizes(first, &part)?;
        }
        Ok((part, state))
    }
}

impl Part {
    /// Leaves out those of `rows`, of the data set at `dir` as packed, that the view still has, since their
    /// images cannot be decoded; says which, and returns how many.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if the data set cannot be read.
    pub fn leave_out(
        &mut self,
        dir: &Path,
        mut state: State,
        rows: &[u64],
    ) -> Result<u64, IngestError> {
        let rows: Vec<u64> =
            rows.iter().copied().filter(|row| self.view.place(*row).is_some()).collect();
        if rows.is_empty() {
            return Ok(0);
        }
        let (place, dataset) = (dir.display(), Dataset::open(dir)?);
        let mut drops = Vec::with_capacity(rows.len());
        for &row in &rows {
            let face = dataset.get(row)?;
            if drops.len() < NAMED_MAX {
                tracing::warn!(
                    "{place}: row {row}, `{}`, cannot be decoded: left out",
                    face.source
                );
            }
            drops.push(Decision::new(row, face.label, Action::Drop, "undecodable"));
        }
        if rows.len() > NAMED_MAX {
            tracing::warn!(
                "{place}: {} rows that cannot be decoded are left out; `pfc-ingest verify --decode` lists all",
                count(rows.len() as u64)
            );
        }
        state.apply(&drops).map_err(|what| CleanError::Contradiction { what })?;
        self.view = View::new(dataset, &state)?.checked();
        Ok(rows.len() as u64)
    }
}

/// Rows without pixels that are named one by one.
const NAMED_MAX: usize = 20;

/// The rows of all parts in a random order.
pub struct Rows<'a> {
    parts: &'a [Part],
    order: Permutation,
    total: u64,
}

impl Rows<'_> {
    /// Those of `parts`, each of which knows its labels.
    pub fn of(parts: &[Part]) -> Rows<'_> {
        let total = parts.iter().map(|part| part.view.len()).sum();
        let seed = parts.first().map_or(0, |part| part.view.manifest().seed);
        Rows { parts, order: Permutation::new(total, seed), total }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// The number of the part that row `i` comes from, and the row of its view.
    pub fn place(&self, i: u64) -> (usize, u64) {
        let at = self.order.apply(i);
        let part = self.parts.partition_point(|part| part.first_row <= at) - 1;
        (part, at - self.parts[part].first_row)
    }

    /// Writes them into `out`, their sources under the name of their part, with detections and measures of quality
    /// where there are any. Every image is compared with its checksum.
    ///
    /// * `argument`: how the command was called, for the manifest
    ///
    /// # Errors
    ///
    /// [`IngestError`] for a row that cannot be read or written, [`IngestError::Interrupted`].
    pub fn write(
        &self,
        argument: String,
        names: IdentityNames,
        out: &Path,
        quiet: bool,
    ) -> Result<(), IngestError> {
        let Some(first) = self.parts.first() else { return Ok(()) };
        let manifest = first.view.manifest();
        let spec = DatasetSpec {
            image_size: manifest.image_size,
            seed: manifest.seed,
            shard_bytes: DEFAULT_SHARD_BYTES,
            sources: self.parts.iter().map(|part| part.name.clone()).collect(),
            tool: TOOL.into(),
            arguments: vec![argument],
            lineage: lineage(self.parts)?,
        };
        self.write_found(out)?;
        let mut writer = DatasetWriter::create(out, spec)?;
        let progress = Progress::new("join", "images", self.total, quiet);
        for i in 0..self.total {
            if i % 4096 == 0 && interrupt::requested() {
                return Err(IngestError::Interrupted { done: i, total: self.total });
            }
            let (part, row) = self.place(i);
            let part = &self.parts[part];
            let face = part.view.get(row)?;
            face.check(part.view.row(row))?;
            let source = format!("{}/{}", part.name, face.source);
            let label = part.labels[face.label as usize];
            writer.push(Face { label, source: &source, ..face })?;
            progress.add(1);
        }
        progress.finish();
        writer.finish(names)?;
        self.write_quality(out)
    }

    /// Writes where the faces were found, if that is known of any part.
    fn write_found(&self, out: &Path) -> Result<(), IngestError> {
        if self.parts.iter().all(|part| part.found.is_none()) {
            return Ok(());
        }
        let row = |i: u64| {
            let (part, row) = self.place(i);
            let Part { found, view, .. } = &self.parts[part];
            Ok(found.as_ref().map_or(Ok(NOT_DETECTED), |found| found.get(view.row(row)))?)
        };
        write_detections(out, self.total, (0..self.total).map(row))
    }

    /// Writes the measures of quality, if all parts have the same ones.
    fn write_quality(&self, out: &Path) -> Result<(), IngestError> {
        let tables: Vec<&QualityTable> =
            self.parts.iter().filter_map(|part| part.quality.as_ref()).collect();
        let Some(first) = tables.first() else { return Ok(()) };
        let columns = first.record().columns.clone();
        let are_alike = tables.iter().all(|table| table.record().columns == columns);
        if tables.len() < self.parts.len() || !are_alike {
            tracing::warn!(
                "not all parts have the same measures of quality, so none are carried over; \
                 `pfc-ingest quality` measures those of the new data set"
            );
            return Ok(());
        }
        let mut made_by: Vec<String> = Vec::new();
        for how in tables.iter().flat_map(|table| &table.record().made_by) {
            if !made_by.contains(how) {
                made_by.push(how.clone());
            }
        }
        let row = |i: u64| {
            let (part, row) = self.place(i);
            Ok(tables[part].get(self.parts[part].view.row(row))?)
        };
        QualitySpec { columns, made_by }.write(out, self.total, (0..self.total).map(row))
    }

    /// What people decided about the parts, in rows and labels of the new data set.
    ///
    /// # Errors
    ///
    /// As [`carried`].
    pub fn decisions(&self) -> Result<Vec<Decision>, IngestError> {
        let mut all = Vec::new();
        for part in self.parts {
            let row = |row: u64| self.order.invert(part.first_row + row);
            let label = |label: u32| part.labels[label as usize];
            for decision in carried(&part.runs, &part.view)? {
                // A probe of a benchmark is no row.
                let is_row = decision.finding() != "benchmark_overlap";
                all.push(Decision {
                    row: row(decision.row),
                    label: label(decision.label),
                    target: decision.target.map(label),
                    partner: decision.partner.map(|other| if is_row { row(other) } else { other }),
                    ..decision
                });
            }
        }
        Ok(all)
    }
}

/// The data set at `dir`, its pages asked for, and what was decided about it.
///
/// # Errors
///
/// [`IngestError`] if it cannot be read.
fn read(dir: &Path, as_packed: bool) -> Result<(Dataset, State, Vec<Run>), IngestError> {
    let dataset = Dataset::open(dir)?;
    dataset.preload()?;
    if as_packed {
        let state = State::of(&dataset);
        return Ok((dataset, state, Vec::new()));
    }
    let log = DecisionLog::open(dir)?;
    let (state, runs) = (log.state(&dataset)?, log.runs()?);
    Ok((dataset, state, runs))
}

/// The folder's name, with a number if another one of `taken` has it too.
fn name<'a>(dir: &Path, taken: impl Iterator<Item = &'a str> + Clone) -> String {
    let name = dir.file_name().map_or("part".into(), |name| name.to_string_lossy().into_owned());
    let numbered = (1..).map(|number| format!("{name}-{number}"));
    let is_free = |name: &String| taken.clone().all(|taken| taken != name);
    std::iter::once(name.clone()).chain(numbered).find(is_free).unwrap_or(name)
}

/// Refuses data sets of images of different sizes.
///
/// # Errors
///
/// [`IngestError::Options`].
fn check_sizes(first: &Part, other: &Part) -> Result<(), IngestError> {
    let [a, b] = [first, other].map(|part| part.view.manifest().image_size);
    if a == b {
        return Ok(());
    }
    Err(IngestError::Options {
        what: format!("{} has images of {a}, {} of {b}", first.name, other.name),
        hint: "pack one of them again with the --size of the other".into(),
    })
}

/// The steps that made each part, and this one.
///
/// # Errors
///
/// As [`lineage::of`].
fn lineage(parts: &[Part]) -> Result<Vec<Step>, IngestError> {
    let mut steps = Vec::new();
    for part in parts {
        for step in lineage::of(part.view.manifest(), &part.runs)? {
            let of = match step.of.is_empty() {
                true => part.name.clone(),
                false => format!("{}/{}", part.name, step.of),
            };
            steps.push(Step { of, ..step });
        }
    }
    steps.push(Step {
        command: "merge".into(),
        tool: TOOL.into(),
        arguments: parts.iter().map(|part| part.name.clone()).collect(),
        rows: parts.iter().map(|part| part.view.len()).sum(),
        n_identities: Some(parts.iter().map(|part| part.view.n_identities()).sum()),
        effect: String::new(),
        of: String::new(),
    });
    Ok(steps)
}
