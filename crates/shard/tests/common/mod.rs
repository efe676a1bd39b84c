//! Small data sets of made-up images.

// Each test program uses some of it.
#![allow(dead_code)]

use std::path::Path;

use pfc_shard::{
    DatasetSpec, DatasetWriter, Face, IdentityNames, ImageSize, Manifest, Quality,
    hash::content_hash,
};

/// Small enough that a shard of a few rows has but a few kilobytes.
pub const SIZE: ImageSize = ImageSize::square(8);

/// What [`Face`] borrows.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub image: Vec<u8>,
    pub label: u32,
    pub source: String,
    pub quality: Quality,
}

impl Row {
    pub fn face(&self) -> Face<'_> {
        Face::new(&self.image, self.label, &self.source, SIZE, self.quality)
    }
}

/// An 8×8 JPEG that differs for every `seed`.
pub fn jpeg(seed: u64) -> Vec<u8> {
    let pixel = |i: u64| content_hash(&[seed.to_le_bytes(), i.to_le_bytes()].concat()) as u8;
    let pixels: Vec<u8> = (0..8 * 8 * 3).map(pixel).collect();
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 80);
    encoder.encode(&pixels, 8, 8, jpeg_encoder::ColorType::Rgb).unwrap();
    jpeg
}

/// `n` rows of three identities.
pub fn rows(n: u64) -> Vec<Row> {
    let row = |i: u64| Row {
        image: jpeg(i),
        label: (i % 3) as u32,
        source: format!("{}/ü{i:04}.jpg", NAMES[(i % 3) as usize]),
        quality: Quality { sharpness: i as f32, brightness: 0.5, contrast: -0.0 },
    };
    (0..n).map(row).collect()
}

pub const NAMES: [&str; 3] = ["alice", "bob", "carol"];

pub fn names() -> IdentityNames {
    NAMES.into_iter().collect()
}

pub fn spec(shard_bytes: u64) -> DatasetSpec {
    DatasetSpec {
        lineage: vec![],
        image_size: SIZE,
        seed: 7,
        shard_bytes,
        sources: vec!["raw/faces".into()],
        tool: "test 1.0".into(),
        arguments: vec!["--quality".into(), "80".into()],
    }
}

/// Bytes of a shard that then holds four of [`rows`].
pub const FOUR_ROWS: u64 = 3_500;

/// The text of a manifest without its own checksum, as earlier versions wrote it, so that the checksum
/// does not hide what else is wrong with an edited one.
pub fn unsealed(text: &str) -> String {
    match text.rsplit_once(",\n  \"checksum\"") {
        Some((body, _)) => format!("{body}\n}}\n"),
        None => text.to_owned(),
    }
}

/// Writes `rows` into shards of `shard_bytes`.
pub fn write(dir: &Path, rows: &[Row], shard_bytes: u64) -> Manifest {
    let mut writer = DatasetWriter::create(dir, spec(shard_bytes)).unwrap();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(writer.push(row.face()).unwrap(), i as u64);
    }
    writer.finish(names()).unwrap()
}

/// Every file below `dir` with its size and hash, in the order of names.
pub fn files(dir: &Path) -> Vec<(String, usize, u128)> {
    let mut all = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                let bytes = std::fs::read(&path).unwrap();
                all.push((name, bytes.len(), content_hash(&bytes)));
            }
        }
    }
    all.sort();
    all
}
