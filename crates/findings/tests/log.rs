//! The log of decisions: what is written is read, damage is found, undoing leaves a trace.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::info;
use pfc_findings::{Action, Decision, DecisionLog, FindingsError, RunInfo};
use pfc_shard::Dataset;

fn dataset() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), &[0, 1, 2, 0, 1, 2]);
    dir
}

fn decisions() -> Vec<Decision> {
    vec![
        Decision::new(0, 0, Action::Drop, "exact_duplicate").scored(0.0, 2.0).with_partner(2),
        Decision::new(1, 1, Action::Merge, "same_person").scored(0.7, 0.6).with_target(0),
    ]
}

#[test]
fn what_is_decided_is_read_back_and_seen_in_the_state() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let info = info(&log, "clean");
    assert_eq!(log.append(&info, &decisions()).unwrap(), 0);
    let log = DecisionLog::open(dir.path()).unwrap();
    let run = log.read(0).unwrap();
    assert_eq!((run.number, &run.info), (0, &info));
    assert_eq!(run.decisions, decisions());
    let dataset = Dataset::open(dir.path()).unwrap();
    let state = log.state(&dataset).unwrap();
    assert!(state.is_dropped(0) && state.resolve(1) == 0);
}

#[test]
fn undoing_keeps_the_file_and_the_same_run_has_the_same_bytes() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let info = info(&log, "clean");
    log.append(&info, &decisions()).unwrap();
    let first = fs::read(log.path(0)).unwrap();
    let undone = log.undo().unwrap();
    assert_eq!(fs::read(undone).unwrap(), first);
    assert!(!log.path(0).exists() && log.is_empty());
    log.append(&info, &decisions()).unwrap();
    assert_eq!(fs::read(log.path(0)).unwrap(), first);
    log.undo().unwrap();
    assert!(matches!(log.undo(), Err(FindingsError::NoSuchRun { n_runs: 0, .. })));
}

#[test]
fn of_two_processes_that_append_at_once_the_second_is_refused() {
    let dir = dataset();
    let mut first = DecisionLog::open(dir.path()).unwrap();
    let mut second = DecisionLog::open(dir.path()).unwrap();
    first.append(&info(&first, "clean"), &decisions()).unwrap();
    let error = second.append(&info(&second, "clean"), &[]).unwrap_err();
    assert!(matches!(error, FindingsError::RunAdded { .. }) && error.hint().is_some());
    assert_eq!(first.read(0).unwrap().decisions, decisions());
    assert_eq!(fs::read_dir(dir.path().join("decisions")).unwrap().count(), 1);
}

#[test]
fn decisions_about_another_data_set_are_refused() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let other = RunInfo { dataset: pfc_shard::Checksum(7), ..info(&log, "clean") };
    log.append(&other, &decisions()).unwrap();
    let error = log.read(0).unwrap_err();
    assert!(matches!(error, FindingsError::StaleDecisions { .. }) && error.hint().is_some());
}

#[test]
fn a_row_that_is_not_there_is_an_error_that_names_the_file() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let info = info(&log, "clean");
    log.append(&info, &[Decision::new(u64::MAX - 1, 0, Action::Drop, "test")]).unwrap();
    let error = log.state(&Dataset::open(dir.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("000.arrow") && error.contains("decision 0: row"), "{error}");
}

#[test]
fn a_run_missing_in_between_is_an_error() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    let info = info(&log, "clean");
    log.append(&info, &[]).unwrap();
    log.append(&info, &[]).unwrap();
    fs::remove_file(log.path(0)).unwrap();
    let error = DecisionLog::open(dir.path()).unwrap_err();
    assert!(matches!(error, FindingsError::MissingRun { .. }), "{error}");
}

#[test]
fn a_flipped_bit_gives_an_error_or_what_was_written() {
    let dir = dataset();
    let mut log = DecisionLog::open(dir.path()).unwrap();
    log.append(&info(&log, "clean"), &decisions()).unwrap();
    let (path, written) = (log.path(0), log.read(0).unwrap());
    let whole = fs::read(&path).unwrap();
    // A new file each time: the old one may still be mapped.
    let put = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    for i in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[i] ^= 1 << (i % 8);
        put(&bytes);
        let read = log.read(0);
        assert!(read.is_err() || read.unwrap() == written, "byte {i}");
    }
    for end in (0..whole.len()).step_by(7) {
        put(&whole[..end]);
        assert!(log.read(0).is_err());
    }
}
