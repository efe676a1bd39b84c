//! Figures of a run as JSON lines, which read as one run however often it was stopped and resumed.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use pfc_durable::watch::{Done, tell};
use pfc_verify::VerificationReport;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `metrics.jsonl`, told apart by `kind`. `step` counts finished steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// Means over the steps since the last such line.
    Train(TrainRecord),
    /// An epoch is complete.
    Epoch(EpochRecord),
    /// The model was measured on one set.
    Eval(EvalRecord),
}

/// Figures of the last steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Steps finished.
    pub step: u64,
    /// Epochs finished, with the part of the current one.
    pub epoch: f64,
    /// Mean loss; `None`, `null` in the file, if every step was left out.
    pub loss: Option<f64>,
    /// Mean L2 norm of the backbone's gradient before clipping; `None` also if it overflowed in every
    /// step.
    pub grad_norm: Option<f64>,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean cosine between an embedding and the centre of its own class (CAVG); `None` as for the loss.
    pub cavg: Option<f64>,
    /// Images a second, verification and checkpoints left out.
    pub images_per_s: f64,
    /// Share of the time that was spent waiting for data, in `[0, 1]`.
    pub data_wait: f64,
    /// Milliseconds a step that the head took.
    pub head_ms: f64,
    /// Milliseconds a step that the head waited for collectives, within the above. The all-reduce of the
    /// backbone's gradients overlaps with the backward pass and is not counted.
    #[serde(default)]
    pub comm_ms: f64,
    /// The most memory that the first rank's process has had so far, in MiB; 0 where the system does
    /// not tell.
    #[serde(default)]
    pub peak_memory_mib: f64,
    /// On a GPU: the memory that is in use on the card of the first rank, in MiB, by whichever process;
    /// `None` where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mib: Option<f64>,
    /// On a GPU: what does the work on the centres of the first rank, and why it is not the head's own
    /// kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_operations: Option<String>,
    /// Milliseconds that saving has held up the steps since the last such line, in all.
    #[serde(default)]
    pub save_ms: f64,
    /// In f16: what the loss of the last step was multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// In f16: steps whose gradients overflowed and did not move the backbone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_skipped: u64,
    /// With `optim.skip_nonfinite`: steps that were left out because their loss or gradient was not
    /// finite; the means leave them out too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_not_finite: u64,
    /// With `data.on_error = "skip"`: images, over all ranks, that could not be loaded and were
    /// replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_replaced: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Figures of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Steps finished.
    pub step: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Mean over the steps of the epoch; `None` if all were left out.
    pub mean_loss: Option<f64>,
}

/// Figures of one verification set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps finished.
    pub step: u64,
    /// Epochs finished, with the part of the current one.
    pub epoch: f64,
    /// What was found.
    #[serde(flatten)]
    pub score: Score,
}

/// What one set says of the model after a step. The fields that a set cannot give are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the set.
    pub set: String,
    /// Share of the pairs judged rightly: mean over the folds, or at a single list's best threshold.
    pub accuracy: f64,
    /// Population standard deviation over the folds.
    pub std: Option<f64>,
    /// Area under the ROC curve.
    pub auc: Option<f64>,
    /// Squared L2 distance below which a pair is taken for one person.
    pub threshold: f64,
    /// Mean L2 norm of the raw embeddings.
    pub mean_norm: f64,
}

impl Score {
    pub(crate) fn new(set: &str, report: &VerificationReport) -> Score {
        Score {
            set: set.to_owned(),
            accuracy: report.accuracy.mean,
            std: report.accuracy.std,
            auc: report.auc.map(|figure| figure.value),
            threshold: report.accuracy.threshold,
            mean_norm: report.mean_norm,
        }
    }
}

impl Record {
    /// Steps that were finished when it was written.
    pub fn step(&self) -> u64 {
        match self {
            Record::Train(record) => record.step,
            Record::Epoch(record) => record.step,
            Record::Eval(record) => record.step,
        }
    }
}

/// `metrics.jsonl`, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file for a run that goes on after `step` steps, and gives back the lines it keeps.
    ///
    /// Lines of later steps are dropped, as is a line that a killed process left unfinished.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn open(path: &Path, step: u64) -> Result<(MetricsFile, Vec<Record>), TrainError> {
        let kept: Vec<Record> =
            read(path)?.into_iter().filter(|record| record.step() <= step).collect();
        let mut text = Vec::new();
        for record in &kept {
            text.extend(line(record));
        }
        pfc_durable::write(path, &text)?;
        let file =
            OpenOptions::new().append(true).open(path).map_err(TrainError::io("open", path))?;
        Ok((MetricsFile { path: path.to_path_buf(), file }, kept))
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        self.file.write_all(&line(record)).map_err(TrainError::io("write", &self.path))
    }
}

/// Makes all lines so far survive a power cut, as a checkpoint that relies on them is about to.
///
/// # Errors
///
/// [`TrainError::Durable`].
pub fn sync(path: &Path) -> Result<(), TrainError> {
    let file = File::open(path).map_err(TrainError::io("open", path))?;
    file.sync_data().map_err(TrainError::io("sync", path))?;
    tell(Done::Synced(path));
    Ok(())
}

/// The whole lines of a metrics file; none if there is no file.
///
/// # Errors
///
/// [`TrainError::Durable`].
pub fn read(path: &Path) -> Result<Vec<Record>, TrainError> {
    // A power cut may leave a last line of any bytes.
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("read", path)(error)),
    };
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("numbers and names become JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(step: u64) -> Record {
        Record::Epoch(EpochRecord { step, epoch: 1, mean_loss: Some(0.1 + step as f64) })
    }

    #[test]
    fn a_resumed_file_forgets_later_steps_and_the_line_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let (mut file, kept) = MetricsFile::open(&path, 0).unwrap();
        assert_eq!(kept, []);
        for step in 1..=3 {
            file.write(&epoch(step)).unwrap();
        }
        drop(file);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"kind\":\"epoch\",\"st\xff");
        fs::write(&path, text).unwrap();

        let (mut file, kept) = MetricsFile::open(&path, 2).unwrap();
        assert_eq!(kept, [epoch(1), epoch(2)]);
        file.write(&epoch(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [epoch(1), epoch(2), epoch(3)]);
    }

    #[test]
    fn a_mean_over_no_step_is_null_and_comes_back_as_none() {
        let text = String::from_utf8(line(&Record::Epoch(EpochRecord {
            step: 4,
            epoch: 1,
            mean_loss: None,
        })));
        let text = text.unwrap();
        assert_eq!(text, "{\"kind\":\"epoch\",\"step\":4,\"epoch\":1,\"mean_loss\":null}\n");
        match serde_json::from_str(&text).unwrap() {
            Record::Epoch(record) => assert_eq!(record.mean_loss, None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_is_one_flat_object_and_numbers_come_back_to_the_bit() {
        let score = Score {
            set: "lfw".into(),
            accuracy: 0.1 + 0.2,
            std: None,
            auc: Some(1.0 / 3.0),
            threshold: 1.5,
            mean_norm: 20.0,
        };
        let record = Record::Eval(EvalRecord { step: 7, epoch: 0.5, score });
        let text = String::from_utf8(line(&record)).unwrap();
        assert_eq!(
            text,
            "{\"kind\":\"eval\",\"step\":7,\"epoch\":0.5,\"set\":\"lfw\",\
             \"accuracy\":0.30000000000000004,\"std\":null,\"auc\":0.3333333333333333,\
             \"threshold\":1.5,\"mean_norm\":20.0}\n"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
