//! The result of a run: a line per epoch and measurement, from its metrics file.

use std::{collections::BTreeMap, io, path::Path};

use serde::Serialize;

use crate::{
    TrainError,
    log::{
        Score,
        metrics::{self, Record},
        run_log::shown,
    },
};

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The run's folder.
    pub run: String,
    /// Whether every step was taken.
    pub finished: bool,
    /// The newest checkpoint.
    pub checkpoint: String,
    /// Every step at which an epoch ended or the model was measured, and the last step.
    pub rows: Vec<Row>,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Row {
    /// Steps finished.
    pub step: u64,
    /// Epochs finished, with the part of the current one.
    pub epoch: f64,
    /// Mean loss of the epoch that ended here; at the last step of a run that ended within an epoch, of
    /// the steps since the log line before.
    pub mean_loss: Option<f64>,
    /// Figures of every set.
    pub scores: Vec<Score>,
}

impl Summary {
    /// Reads the figures of the run in `folder`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn read(folder: &Path, finished: bool) -> Result<Summary, TrainError> {
        let records = metrics::read(&folder.join("metrics.jsonl"))?;
        Ok(Summary {
            run: folder.display().to_string(),
            finished,
            checkpoint: folder.join("last.ckpt").display().to_string(),
            rows: rows(records),
        })
    }

    /// Prints the table to standard output.
    ///
    /// # Errors
    ///
    /// The I/O error of standard output.
    pub fn print(&self) -> io::Result<()> {
        let sets: Vec<&str> = match self.rows.iter().find(|row| !row.scores.is_empty()) {
            Some(row) => row.scores.iter().map(|score| score.set.as_str()).collect(),
            None => Vec::new(),
        };
        let mut header = vec!["epoch".to_owned(), "step".to_owned(), "mean loss".to_owned()];
        for set in &sets {
            header.extend([format!("{set} accuracy"), format!("{set} AUC")]);
        }
        let mut table = pfc_cli::table(header);
        for row in &self.rows {
            table.add_row(cells(row, &sets));
        }
        pfc_cli::print_table(&table)
    }
}

fn rows(records: Vec<Record>) -> Vec<Row> {
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    let last = records.iter().map(Record::step).max();
    let ends_in_epoch = !records
        .iter()
        .any(|record| matches!(record, Record::Epoch(epoch) if Some(epoch.step) == last));
    for record in records {
        let step = record.step();
        let is_end = Some(step) == last && ends_in_epoch;
        if matches!(record, Record::Train(_)) && !is_end {
            continue;
        }
        let row = rows.entry(step).or_insert_with(|| Row { step, ..Row::default() });
        match record {
            Record::Epoch(record) => {
                row.epoch = record.epoch as f64;
                row.mean_loss = record.mean_loss;
            }
            Record::Eval(record) => {
                row.epoch = record.epoch;
                row.scores.push(record.score);
            }
            Record::Train(record) => {
                row.epoch = record.epoch;
                row.mean_loss = record.loss;
            }
        }
    }
    rows.into_values().collect()
}

fn cells(row: &Row, sets: &[&str]) -> Vec<String> {
    let mut cells = vec![
        format!("{:.2}", row.epoch).trim_end_matches('0').trim_end_matches('.').to_owned(),
        row.step.to_string(),
        shown(row.mean_loss, 3),
    ];
    for set in sets {
        let score = row.scores.iter().find(|score| score.set == *set);
        cells.push(shown(score.map(|score| score.accuracy), 4));
        cells.push(shown(score.and_then(|score| score.auc), 4));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::metrics::{EpochRecord, EvalRecord};

    #[test]
    fn an_epoch_and_its_scores_share_a_row() {
        let score = Score {
            set: "a".into(),
            accuracy: 0.75,
            std: None,
            auc: None,
            threshold: 1.0,
            mean_norm: 1.0,
        };
        let eval = |step, epoch| Record::Eval(EvalRecord { step, epoch, score: score.clone() });
        let epoch = Record::Epoch(EpochRecord { step: 10, epoch: 1, mean_loss: Some(2.5) });
        let found = rows(vec![eval(0, 0.0), epoch, eval(10, 1.0), eval(15, 1.5)]);
        let text: Vec<Vec<String>> = found.iter().map(|row| cells(row, &["a"])).collect();
        assert_eq!(text[0], ["0", "0", "–", "0.7500", "–"]);
        assert_eq!(text[1], ["1", "10", "2.500", "0.7500", "–"]);
        assert_eq!(text[2], ["1.5", "15", "–", "0.7500", "–"]);
    }

    #[test]
    fn a_run_that_ends_within_an_epoch_has_its_last_step_as_a_row() {
        let train = |step: u64, loss| {
            let text = format!(
                "{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":{loss},\"grad_norm\":1,\"lr\":0,\
                 \"cavg\":0,\"images_per_s\":1,\"data_wait\":0,\"head_ms\":0}}"
            );
            serde_json::from_str::<Record>(&text).unwrap()
        };
        let text = |records| {
            let rows = rows(records);
            rows.iter().map(|row| cells(row, &[])).collect::<Vec<_>>()
        };
        assert_eq!(text(vec![train(1, "3.5"), train(2, "2.25")]), [["0.5", "2", "2.250"]]);
        assert_eq!(text(vec![train(2, "null")]), [["0.5", "2", "–"]]);
        let epoch = Record::Epoch(EpochRecord { step: 2, epoch: 1, mean_loss: Some(2.0) });
        assert_eq!(text(vec![train(1, "3.5"), train(2, "2.25"), epoch]), [["1", "2", "2.000"]]);
        assert!(text(vec![]).is_empty());
    }
}
