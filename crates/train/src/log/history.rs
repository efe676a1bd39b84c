//! A run as its folder tells of it, whether it goes on or has ended: for reports and for watching it.

use std::path::Path;

use pfc_durable::DurableError;
use toml::Table;

use crate::{
    TrainError,
    log::{
        Score,
        journal::{self, StartRecord},
        metrics::{self, EvalRecord, Record, TrainRecord},
    },
    run_folder::RunFolder,
};

/// What the folder of a run tells.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The last part of the folder's path, for people.
    pub name: String,
    /// The folder.
    pub folder: String,
    /// `config.toml` as it is.
    pub config_text: String,
    /// The same as a table; empty if it is none.
    pub config: Table,
    /// Every line of figures.
    pub records: Vec<Record>,
    /// What each start ran on.
    pub starts: Vec<StartRecord>,
}

/// A point of a curve: epochs finished, and a value.
pub type Point = (f64, f64);

impl History {
    /// Reads the folder of a run.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`] if it holds no `config.toml`, or if a file cannot be read.
    pub fn read(folder: &Path) -> Result<History, TrainError> {
        let run = RunFolder::of_other_rank(folder);
        let config = run.config();
        let config_text = std::fs::read_to_string(&config)
            .map_err(DurableError::at("read the configuration of a run", &config))?;
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
        Ok(History {
            name: name.into_owned(),
            folder: folder.display().to_string(),
            config: config_text.parse().unwrap_or_default(),
            config_text,
            records: metrics::read(&run.metrics())?,
            starts: journal::starts(&run.starts())?,
        })
    }

    /// A value of every line of figures of steps that has it, over the epochs.
    pub fn curve(&self, value: impl Fn(&TrainRecord) -> Option<f64>) -> Vec<Point> {
        let point = |record: &Record| match record {
            Record::Train(record) => value(record).map(|value| (record.epoch, value)),
            Record::Epoch(_) | Record::Eval(_) => None,
        };
        finite(self.records.iter().filter_map(point))
    }

    /// A value of every measurement on `set` that has it, over the epochs.
    pub fn eval_curve(&self, set: &str, value: impl Fn(&Score) -> Option<f64>) -> Vec<Point> {
        let of_set = self.evals().filter(|record| record.score.set == set);
        finite(of_set.filter_map(|record| value(&record.score).map(|value| (record.epoch, value))))
    }

    /// Every measurement.
    pub fn evals(&self) -> impl Iterator<Item = &EvalRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Eval(record) => Some(record),
            Record::Train(_) | Record::Epoch(_) => None,
        })
    }

    /// The sets that were measured, in the order of their first measurement.
    #[must_use]
    pub fn sets(&self) -> Vec<&str> {
        let mut sets: Vec<&str> = Vec::new();
        for record in self.evals() {
            if !sets.contains(&&record.score.set[..]) {
                sets.push(&record.score.set);
            }
        }
        sets
    }

    /// The last line of figures of steps.
    #[must_use]
    pub fn last(&self) -> Option<&TrainRecord> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Train(record) => Some(record),
            Record::Epoch(_) | Record::Eval(_) => None,
        })
    }

    /// A value of the configuration by its name, `head.sample_rate`, as TOML; `None` if it has none.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        let mut keys = name.split('.');
        let first = self.config.get(keys.next()?)?;
        let value = keys.try_fold(first, |value, key| value.get(key))?;
        Some(value.to_string())
    }
}

fn finite(points: impl Iterator<Item = Point>) -> Vec<Point> {
    points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

/// At most `most` points of a curve: of a longer one, the means of as many stretches of the same number of
/// points.
#[must_use]
pub fn thinned(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most.max(1) {
        return points.to_vec();
    }
    let mean = |stretch: &[Point]| {
        let n = stretch.len() as f64;
        let sum = stretch.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(points.len().div_ceil(most.max(1))).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_becomes_the_means_of_its_stretches() {
        let points: Vec<Point> = (0..10).map(|i| (f64::from(i), f64::from(10 * i))).collect();
        assert_eq!(thinned(&points, 10), points);
        assert_eq!(thinned(&points, 5)[..2], [(0.5, 5.0), (2.5, 25.0)]);
        assert_eq!(thinned(&points, 3).len(), 3);
        assert_eq!(thinned(&[], 3), []);
    }

    #[test]
    fn a_folder_tells_of_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        assert!(matches!(History::read(&folder), Err(TrainError::Durable(_))));
        std::fs::write(folder.join("config.toml"), "[head]\nsample_rate = 0.5\n").unwrap();
        let lines = "{\"kind\":\"train\",\"step\":5,\"epoch\":0.5,\"loss\":3.5,\"grad_norm\":null,\"lr\":0.1,\
                     \"cavg\":0.25,\"images_per_s\":100,\"data_wait\":0,\"head_ms\":1}\n\
                     {\"kind\":\"eval\",\"step\":10,\"epoch\":1.0,\"set\":\"lfw\",\"accuracy\":0.75,\
                     \"std\":null,\"auc\":null,\"threshold\":1.5,\"mean_norm\":20.0}\n\
                     {\"kind\":\"other\"}\n";
        std::fs::write(folder.join("metrics.jsonl"), lines).unwrap();
        let history = History::read(&folder).unwrap();
        assert_eq!(history.name, "a");
        assert_eq!(history.curve(|record| record.loss), [(0.5, 3.5)]);
        assert_eq!(history.curve(|record| record.grad_norm), []);
        assert_eq!(history.sets(), ["lfw"]);
        assert_eq!(history.eval_curve("lfw", |score| Some(score.accuracy)), [(1.0, 0.75)]);
        assert_eq!(history.setting("head.sample_rate").as_deref(), Some("0.5"));
        assert_eq!(history.setting("head.none"), None);
        assert_eq!(history.last().unwrap().step, 5);
    }
}
