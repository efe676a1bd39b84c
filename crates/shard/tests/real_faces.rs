//! Real crops go through untouched.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use pfc_shard::{Dataset, DatasetWriter, Face, IdentityNames, ImageSize, Quality, verify};

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn real_faces_come_back_byte_for_byte_and_decode() {
    let Some(raw) = pfc_testing::faces("lfw112") else { return };
    // Every tenth person: 1,300 images are as good as all, and ten times faster.
    let people: Vec<PathBuf> = sorted(&raw).into_iter().step_by(10).collect();
    let out = tempfile::tempdir().unwrap();
    let spec = pfc_shard::DatasetSpec { image_size: ImageSize::FACE, ..common::spec(1 << 20) };
    let mut writer = DatasetWriter::create(out.path(), spec).unwrap();
    let mut images = Vec::new();
    for (label, person) in (0..).zip(&people) {
        for path in sorted(person) {
            let image = fs::read(&path).unwrap();
            let source = path.strip_prefix(&raw).unwrap().to_str().unwrap();
            let face = Face::new(&image, label, source, ImageSize::FACE, Quality::default());
            writer.push(face).unwrap();
            images.push((label, image));
        }
    }
    let names: IdentityNames =
        people.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    writer.finish(names).unwrap();

    let report = verify(out.path(), |_| ()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let dataset = Dataset::open(out.path()).unwrap();
    assert_eq!(dataset.len(), images.len() as u64);
    let mut pixels = vec![0; ImageSize::FACE.rgb_bytes()];
    for (row, (label, image)) in (0..).zip(&images) {
        let face = dataset.get(row).unwrap();
        assert_eq!((face.label, face.image), (*label, &image[..]));
        pfc_image::decode_rgb(face.image, face.size(), &mut pixels).unwrap();
        let distinct = pixels.iter().fold([false; 256], |mut seen, &p| {
            seen[p as usize] = true;
            seen
        });
        assert!(distinct.iter().filter(|&&seen| seen).count() > 20, "{} is blank", face.source);
    }
}
