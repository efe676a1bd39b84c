//! One run of the log as a file.

use std::{
    io::{self, Write},
    path::Path,
    sync::{Arc, LazyLock},
};

use arrow_array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use pfc_shard::{
    Checksum, ShardError,
    hash::HashingWriter,
    table::{self, Table, TableWriter, column},
};
use serde::{Deserialize, Serialize};

use crate::{Action, Decision, FindingsError};

/// Columns of a run.
static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    table::schema([
        ("row", DataType::UInt64),
        ("action", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("label", DataType::UInt32),
        ("target", DataType::UInt32),
        ("partner", DataType::UInt64),
        ("score", DataType::Float32),
        ("threshold", DataType::Float32),
    ])
});

/// Key of the schema's metadata that carries the run's description.
const RUN_KEY: &str = "pfc.run";
/// Key of the checksum of that description and of all decisions.
const CHECKSUM_KEY: &str = "pfc.checksum";
/// Maximum bytes of that description.
const RUN_BYTES_MAX: usize = 1 << 20;
/// Maximum bytes of a reason.
const REASON_BYTES_MAX: usize = 64;
/// Number of decisions in a record batch.
const BATCH_ROWS: usize = 1 << 16;

const NO_LABEL: u32 = u32::MAX;
const NO_ROW: u64 = u64::MAX;

/// Who decided, about what, and by which bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Checksum of the manifest of the data set that the rows are counted in.
    pub dataset: Checksum,
    /// Name and version of the program.
    pub tool: String,
    /// The command, as `clean`.
    pub command: String,
    /// Its arguments that decide the outcome.
    pub arguments: Vec<String>,
    /// The measured values and the bounds, to be shown to people and in reports.
    pub notes: serde_json::Value,
}

/// Writes a run; the file appears once complete, and never in the place of another. The same run
/// gives the same bytes.
pub(crate) fn write(path: &Path, info: &RunInfo, rows: &[Decision]) -> Result<(), FindingsError> {
    let bad = |what: String| FindingsError::BadRun { path: path.to_path_buf(), what };
    if let Some(bad_one) = rows.iter().find(|d| !is_reason(&d.reason)) {
        return Err(bad(format!("a reason `{}`", bad_one.reason)));
    }
    let text = serde_json::to_string(info).map_err(|e| bad(e.to_string()))?;
    if text.len() > RUN_BYTES_MAX {
        return Err(bad(format!(
            "a description of {} bytes, the limit is {RUN_BYTES_MAX}",
            text.len()
        )));
    }
    let checksum = checksum(&text, rows);
    let mut out = TableWriter::create(path, &schema_with(text, checksum))?;
    for rows in rows.chunks(BATCH_ROWS) {
        out.write(record_batch(rows))?;
    }
    out.finish_new().map(|_| ()).map_err(|error| match error {
        ShardError::Durable(e) if e.source.kind() == io::ErrorKind::AlreadyExists => {
            FindingsError::RunAdded { path: path.to_path_buf() }
        }
        other => other.into(),
    })
}

fn schema_with(run: String, checksum: Checksum) -> SchemaRef {
    let run = (RUN_KEY.to_owned(), run);
    table::with_metadata(&COLUMNS, [run, (CHECKSUM_KEY.to_owned(), checksum.to_string())])
}

fn record_batch(rows: &[Decision]) -> Result<RecordBatch, ArrowError> {
    let column =
        |value: fn(&Decision) -> u64| UInt64Array::from_iter_values(rows.iter().map(value));
    let labels =
        |value: fn(&Decision) -> u32| UInt32Array::from_iter_values(rows.iter().map(value));
    let floats =
        |value: fn(&Decision) -> f32| Float32Array::from_iter_values(rows.iter().map(value));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(column(|d| d.row)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|d| d.action.name()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|d| &d.reason))),
        Arc::new(labels(|d| d.label)),
        Arc::new(labels(|d| d.target.unwrap_or(NO_LABEL))),
        Arc::new(column(|d| d.partner.unwrap_or(NO_ROW))),
        Arc::new(floats(|d| d.score)),
        Arc::new(floats(|d| d.threshold)),
    ];
    RecordBatch::try_new(COLUMNS.clone(), columns)
}

/// Checksum of the description and of every decision, as a flipped bit may turn a decision into another valid
/// one.
fn checksum(run: &str, rows: &[Decision]) -> Checksum {
    let mut hashed = HashingWriter::new(io::sink());
    let mut add = |bytes: &[u8]| {
        // Writing to a sink cannot fail.
        let _ = hashed.write_all(bytes);
    };
    add(run.as_bytes());
    for decision in rows {
        let Decision { row, action, reason, label, target, partner, score, threshold } = decision;
        add(&row.to_le_bytes());
        // Neither word holds a zero.
        add(format!("{action}\0{reason}\0").as_bytes());
        add(&label.to_le_bytes());
        add(&target.unwrap_or(NO_LABEL).to_le_bytes());
        add(&partner.unwrap_or(NO_ROW).to_le_bytes());
        add(&score.to_le_bytes());
        add(&threshold.to_le_bytes());
    }
    hashed.finish().2
}

/// Reads a run and trusts neither its structure nor its names and labels. A run that was written before runs
/// had checksums has none.
pub(crate) fn read(path: &Path) -> Result<(RunInfo, Vec<Decision>), FindingsError> {
    let bad = |what: String| FindingsError::Malformed { path: path.to_path_buf(), what };
    let Table { metadata, batches } = Table::open(path, &COLUMNS)?;
    let run = metadata.get(RUN_KEY).filter(|text| text.len() <= RUN_BYTES_MAX);
    let run = run.ok_or_else(|| bad("it does not say which run it is of".into()))?;
    let info = serde_json::from_str(run).map_err(|e| bad(format!("its `{RUN_KEY}`: {e}")))?;
    let mut rows = Vec::new();
    for batch in &batches {
        let columns = Columns::of(batch).ok_or_else(|| bad("a column has another type".into()))?;
        for i in 0..batch.num_rows() {
            let line = rows.len();
            rows.push(columns.decision(i).map_err(|e| bad(format!("decision {line}: {e}")))?);
        }
    }
    let expected = metadata.get(CHECKSUM_KEY);
    if expected.is_some_and(|expected| *expected != checksum(run, &rows).to_string()) {
        return Err(bad("its decisions are not those that were written".into()));
    }
    Ok((info, rows))
}

struct Columns {
    row: UInt64Array,
    action: StringArray,
    reason: StringArray,
    label: UInt32Array,
    target: UInt32Array,
    partner: UInt64Array,
    score: Float32Array,
    threshold: Float32Array,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Option<Columns> {
        Some(Columns {
            row: column(batch, "row")?,
            action: column(batch, "action")?,
            reason: column(batch, "reason")?,
            label: column(batch, "label")?,
            target: column(batch, "target")?,
            partner: column(batch, "partner")?,
            score: column(batch, "score")?,
            threshold: column(batch, "threshold")?,
        })
    }

    fn decision(&self, i: usize) -> Result<Decision, String> {
        let action: Action = self.action.value(i).parse()?;
        let reason = self.reason.value(i);
        if !is_reason(reason) {
            return Err("its reason is no word".into());
        }
        let target = Some(self.target.value(i)).filter(|&label| label != NO_LABEL);
        if matches!(action, Action::Relabel | Action::Merge | Action::Different) && target.is_none()
        {
            return Err(format!("a `{action}` without a target"));
        }
        Ok(Decision {
            row: self.row.value(i),
            action,
            reason: reason.into(),
            label: self.label.value(i),
            target,
            partner: Some(self.partner.value(i)).filter(|&row| row != NO_ROW),
            score: self.score.value(i),
            threshold: self.threshold.value(i),
        })
    }
}

/// Whether `text` can be a reason: lower-case letters, digits and underscores, 64 at most.
pub fn is_reason(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !text.is_empty() && text.len() <= REASON_BYTES_MAX && text.bytes().all(is_word)
}
