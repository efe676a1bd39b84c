//! A small data set of made-up images.

// Each test program uses some of it.
#![allow(dead_code)]

use std::path::Path;

use pfc_findings::{Decision, DecisionLog, RunInfo};
use pfc_shard::{
    Dataset, DatasetSpec, DatasetWriter, Face, ImageSize, Quality, hash::content_hash,
};

/// Small enough that a shard of a few rows has but a few kilobytes.
pub const SIZE: ImageSize = ImageSize::square(8);
/// Bytes of a shard that then holds four rows.
pub const FOUR_ROWS: u64 = 3_500;

/// An 8×8 JPEG that differs for every `seed`.
pub fn jpeg(seed: u64) -> Vec<u8> {
    let pixel = |i: u64| content_hash(&[seed.to_le_bytes(), i.to_le_bytes()].concat()) as u8;
    let pixels: Vec<u8> = (0..8 * 8 * 3).map(pixel).collect();
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 80);
    encoder.encode(&pixels, 8, 8, jpeg_encoder::ColorType::Rgb).unwrap();
    jpeg
}

/// Writes a data set whose rows have these labels, of identities `p0`, `p1`, …; sources are numbers.
pub fn write(dir: &Path, labels: &[u32]) -> Dataset {
    let spec = DatasetSpec {
        image_size: SIZE,
        seed: 7,
        shard_bytes: FOUR_ROWS,
        sources: vec!["raw".into()],
        tool: "test 1.0".into(),
        arguments: vec![],
        lineage: vec![],
    };
    let mut writer = DatasetWriter::create(dir, spec).unwrap();
    for (row, label) in (0u64..).zip(labels) {
        let (image, source) = (jpeg(row), row.to_string());
        writer.push(Face::new(&image, *label, &source, SIZE, Quality::default())).unwrap();
    }
    let n = labels.iter().max().map_or(0, |last| last + 1);
    writer.finish((0..n).map(|label| format!("p{label}")).collect()).unwrap();
    Dataset::open(dir).unwrap()
}

pub fn info(log: &DecisionLog, command: &str) -> RunInfo {
    RunInfo {
        dataset: log.dataset(),
        tool: "test 1".into(),
        command: command.into(),
        arguments: vec!["--pass=exact".into()],
        notes: serde_json::json!({"threshold": 0.5}),
    }
}

/// Appends a run to the log of the data set in `dir`.
pub fn decide(dir: &Path, decisions: &[Decision]) {
    let mut log = DecisionLog::open(dir).unwrap();
    let info = info(&log, "clean");
    log.append(&info, decisions).unwrap();
}
