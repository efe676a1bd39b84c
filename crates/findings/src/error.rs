//! Errors of a log of findings.

use std::path::PathBuf;

use pfc_durable::{DurableError, faults::is_of_system};
use pfc_shard::ShardError;

/// A log of findings that cannot be read, applied or written.
#[derive(Debug, thiserror::Error)]
pub enum FindingsError {
    /// A run beyond the last.
    #[error("there is no run {number} among {n_runs}")]
    NoSuchRun {
        /// The run asked for.
        number: usize,
        /// Runs of the log.
        n_runs: usize,
    },
    /// A run is missing between others.
    #[error("{}: is missing, but there are later runs", path.display())]
    MissingRun {
        /// The file that should be there.
        path: PathBuf,
    },
    /// Decisions about a data set that has been replaced since.
    #[error("{}: decides about another data set than the one it lies in", path.display())]
    StaleDecisions {
        /// The run.
        path: PathBuf,
    },
    /// Another process appended to the log meanwhile.
    #[error("{}: another command added this run of decisions meanwhile", path.display())]
    RunAdded {
        /// The run, as the other process wrote it.
        path: PathBuf,
    },
    /// A run that does not hold what a run holds, or does not fit the data set.
    #[error("{}: is not a run of decisions on this data set: {what}", path.display())]
    Malformed {
        /// The run.
        path: PathBuf,
        /// The first thing found wrong.
        what: String,
    },
    /// A run that cannot be written.
    #[error("{}: cannot be written: {what}", path.display())]
    BadRun {
        /// The run.
        path: PathBuf,
        /// What is wrong with it, and the bound.
        what: String,
    },
    /// Decisions that contradict one another or the data set.
    #[error("the decisions do not fit the data set: {what}")]
    Contradiction {
        /// The contradiction.
        what: String,
    },
    /// A table of answers that cannot be understood.
    #[error("{}: line {line}: {what}", path.display())]
    Answer {
        /// The table.
        path: PathBuf,
        /// Counted from 1; the header is line 1.
        line: u64,
        /// What is wrong there.
        what: String,
    },
    /// The data set, or the file of a run, cannot be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl FindingsError {
    /// Whether the system failed, which says nothing of the log.
    pub fn is_of_system(&self) -> bool {
        match self {
            FindingsError::Shard(error) => error.is_of_system(),
            FindingsError::Durable(error) => is_of_system(&error.source),
            _ => false,
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use FindingsError::*;
        let hint = match self {
            NoSuchRun { n_runs: 0, .. } => {
                "nothing has been decided: `pfc-ingest clean` does".into()
            }
            NoSuchRun { n_runs, .. } => format!("runs are numbered from 0 to {}", n_runs - 1),
            MissingRun { path } => format!(
                "restore {} from a copy, or move the runs after it to another folder",
                path.display()
            ),
            StaleDecisions { path } => format!(
                "its row numbers mean nothing here: move {} to another folder and clean again, or \
                 read the data set as it was packed",
                path.display()
            ),
            RunAdded { .. } => {
                "run the same command again: it then takes that run into account".into()
            }
            Malformed { path, .. } => format!(
                "restore {} from a copy, or move it and the runs after it to another folder",
                path.display()
            ),
            Contradiction { .. } => "`pfc-ingest decisions undo` takes the last run back".into(),
            Answer { .. } => {
                "`answer` is one of the words in the column `answers`, or empty; leave \
                              the other columns as `review export` wrote them"
                    .into()
            }
            BadRun { .. } => return None,
            Shard(source) => return source.hint(),
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}
