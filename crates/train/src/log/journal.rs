//! What a run said, with the time of each line, and what each start of it ran on, kept in its folder.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::SystemTime,
};

use pfc_cli::time::utc;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// `train.log`, open for appending: every line with its time in UTC.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Opens the file; what earlier starts wrote stays.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn open(path: &Path) -> Result<Journal, TrainError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Journal { file: file.map_err(TrainError::io("open", path))? })
    }

    /// Adds a text, a line of the file for each of its lines. A log that cannot be written is no reason to
    /// end a run: the figures are in another file, whose errors do.
    pub fn add(&mut self, text: &str) {
        let time = utc(SystemTime::now());
        let lines: String = text.lines().map(|line| format!("{time} {line}\n")).collect();
        let _ = self.file.write_all(lines.as_bytes());
    }
}

/// What a start of a run ran on: one line of `starts.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// When it began, in UTC.
    pub time: String,
    /// Steps finished by then.
    pub step: u64,
    /// Version of `pfc-train`.
    pub version: String,
    /// What the first rank computes on: cpu or cuda:N.
    pub device: String,
    /// The processor by name; empty where the system does not tell.
    pub processor: String,
    /// Name of the first rank's machine; empty where the system does not tell.
    pub host: String,
    /// Threads that compute in each rank.
    pub threads: usize,
    /// Processes that trained together.
    pub ranks: usize,
    /// The command line.
    pub command: Vec<String>,
}

impl StartRecord {
    /// That of this process, now.
    #[must_use]
    pub fn now(step: u64, device: tch::Device, threads: usize, ranks: usize) -> StartRecord {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = processor(&read("/proc/cpuinfo")).unwrap_or_default().to_owned();
        StartRecord {
            time: utc(SystemTime::now()),
            step,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: match device {
                tch::Device::Cuda(index) => format!("cuda:{index}"),
                other => format!("{other:?}").to_lowercase(),
            },
            processor,
            host: read("/proc/sys/kernel/hostname").trim().to_owned(),
            threads,
            ranks,
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }

    /// Appends it to the file.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn append(&self, path: &Path) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(self).expect("text and numbers become JSON");
        line.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(&line)).map_err(TrainError::io("write", path))
    }
}

/// The whole lines of the file; none if there is no file.
///
/// # Errors
///
/// [`TrainError::Durable`].
pub fn starts(path: &Path) -> Result<Vec<StartRecord>, TrainError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(TrainError::io("read", path))?,
    };
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The processor's name in `/proc/cpuinfo`.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_time_and_earlier_starts_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.log");
        Journal::open(&path).unwrap().add("one\ntwo");
        Journal::open(&path).unwrap().add("three");
        let text = fs::read_to_string(&path).unwrap();
        let said: Vec<&str> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
        assert_eq!(said, ["one", "two", "three"]);
        let is_time = |line: &str| line.len() > 19 && &line[4..5] == "-" && &line[10..11] == "T";
        assert!(text.lines().all(is_time), "{text}");
    }

    #[test]
    fn starts_come_back_and_a_line_cut_short_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("starts.jsonl");
        assert_eq!(starts(&path).unwrap(), []);
        let of = |step| StartRecord::now(step, tch::Device::Cpu, 2, 1);
        let (first, second) = (of(0), of(7));
        first.append(&path).unwrap();
        second.append(&path).unwrap();
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"time\":\"20\xff");
        fs::write(&path, text).unwrap();
        assert_eq!(first.device, "cpu");
        assert_eq!(starts(&path).unwrap(), [first, second]);
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU: fast\nflags\t: x\n";
        assert_eq!(processor(cpuinfo), Some("A CPU: fast"));
    }
}
