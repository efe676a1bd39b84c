//! What the tests of this crate share: a small data set made of arithmetic.

#![allow(dead_code)] // Each test file uses its own part.

pub mod ranks;
pub mod run;
pub mod trainer;

use std::{
    fs,
    path::{Path, PathBuf},
};

use jpeg_encoder::{ColorType, Encoder};
use pfc_shard::{DatasetSpec, DatasetWriter, Face, IdentityNames, ImageSize, Quality};
use pfc_train::data::plan::mix;

/// Side of an image.
pub const SIDE: usize = 112;

/// A 112×112 JPEG: a pattern of coloured squares that the identity decides, and some noise.
pub fn jpeg(identity: u32, image: u32) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            for channel in 0..3 {
                let square =
                    ((identity as u64) << 32) | ((y / 28 * 4 + x / 28) as u64 * 3 + channel);
                let base = mix(square) % 160;
                let place = (y * SIDE + x) as u64 * 3 + channel;
                let noise = mix(mix(u64::from(identity) << 32 | u64::from(image)) ^ place) % 96;
                rgb.push((base + noise) as u8);
            }
        }
    }
    let mut jpeg = Vec::new();
    let side = SIDE as u16;
    Encoder::new(&mut jpeg, 90).encode(&rgb, side, side, ColorType::Rgb).unwrap();
    jpeg
}

/// Writes a packed data set of `n_identities` with `n_each` images each to `dir`.
pub fn write_dataset(dir: &Path, n_identities: u32, n_each: u32) {
    write_dataset_of(dir, n_identities, n_each, |_, jpeg| jpeg);
}

/// The same with each image changed as `change` has it, which is told its row.
pub fn write_dataset_of(
    dir: &Path,
    n_identities: u32,
    n_each: u32,
    change: impl Fn(u64, Vec<u8>) -> Vec<u8>,
) {
    let mut row = 0;
    let spec = DatasetSpec {
        lineage: vec![],
        image_size: ImageSize::FACE,
        seed: 1,
        shard_bytes: 1 << 20,
        sources: vec!["made up".into()],
        tool: "test".into(),
        arguments: Vec::new(),
    };
    let mut writer = DatasetWriter::create(dir, spec).unwrap();
    let mut names = IdentityNames::default();
    for identity in 0..n_identities {
        names.push([format!("person {identity}")]);
        for image in 0..n_each {
            let jpeg = change(row, jpeg(identity, image));
            row += 1;
            let source = format!("{identity}/{image}.jpg");
            let face = Face::new(&jpeg, identity, &source, ImageSize::FACE, Quality::default());
            writer.push(face).unwrap();
        }
    }
    writer.finish(names).unwrap();
}

/// Writes images that no data set of [`write_dataset`] holds, and a list of pairs of them.
pub fn write_pairs(dir: &Path, n_identities: u32) -> PathBuf {
    let mut list = String::new();
    for identity in 0..n_identities {
        for image in 0..2 {
            let path = dir.join(format!("{identity}_{image}.jpg"));
            fs::write(path, jpeg(identity, 1000 + image)).unwrap();
        }
        let other = (identity + 1) % n_identities;
        list += &format!("{identity}_0.jpg {identity}_1.jpg 1\n");
        list += &format!("{identity}_0.jpg {other}_1.jpg 0\n");
    }
    let path = dir.join("pairs.txt");
    fs::write(&path, list).unwrap();
    path
}

/// Writes the configuration of a run that takes a few seconds, in f32: bounds of tests are of that format, and
/// `auto` would make them tests of the processor.
pub fn write_config(dir: &Path, data: &Path, pairs: Option<&Path>) -> PathBuf {
    let sets = pairs.map_or(String::new(), |pairs| {
        let folder = pairs.parent().unwrap().display();
        let pairs = pairs.display();
        format!("[[eval.sets]]\nname = \"made\"\ndata = \"{folder}\"\npairs = \"{pairs}\"\n")
    });
    let text = format!(
        "[data]\npath = \"{}\"\n\
         [model]\nnetwork = \"r10_w8\"\nembedding = 32\nprecision = \"f32\"\n\
         [head]\nsample_rate = 0.5\nprecision = \"f32\"\n\
         [optim]\nlr = 0.02\nwarmup_epochs = 1\n\
         [train]\nbatch_size = 4\nepochs = 3\nthreads = 1\n\
         [checkpoint]\nevery_steps = 3\n\
         [log]\nevery_steps = 1\n\
         {sets}",
        data.display()
    );
    let path = dir.join("tiny.toml");
    fs::write(&path, text).unwrap();
    path
}
