//! From format to format and back: the same JPEG bytes under the same labels.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::Bench;

/// What must not change: the label of every image, by its bytes. Several images may be the same.
type Labels = BTreeMap<Vec<u8>, Vec<u32>>;

fn of_dataset(bench: &Bench, dir: &str) -> Labels {
    let dataset = bench.dataset(dir);
    let mut labels = Labels::new();
    for row in 0..dataset.len() {
        let face = dataset.get(row).unwrap();
        labels.entry(face.image.to_vec()).or_default().push(face.label);
    }
    labels.values_mut().for_each(|labels| labels.sort_unstable());
    labels
}

/// A folder of identity folders, whose labels number the names in byte order.
fn of_folder(root: &Path) -> Labels {
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    let mut labels = Labels::new();
    for (label, folder) in (0..).zip(folders) {
        for entry in fs::read_dir(folder).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            labels.entry(bytes).or_default().push(label);
        }
    }
    labels
}

/// Folder → shards → .rec → shards → folder, and, on the way, every other format.
fn check(bench: &Bench, raw: &Path) {
    let labels = of_folder(raw);
    bench.run(&format!("pack {} one", raw.display())).success();
    assert!(of_dataset(bench, "one") == labels, "packed");
    bench.run("export one rec --to recordio").success();
    bench.run("pack rec two").success();
    assert!(of_dataset(bench, "two") == labels, "through .rec");
    bench.run("export one back --to folder").success();
    assert!(of_folder(&bench.path("back")) == labels, "back in folders");
}

#[test]
fn synthetic_faces_survive_every_format() {
    let bench = Bench::new();
    bench.run("synth faces --identities 12 --images-per-identity 4").success();
    check(&bench, &bench.path("faces"));
}

#[test]
fn all_of_lfw_survives_every_format() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/faces");
    let root = std::env::var_os("PFC_FACES").map_or_else(|| default.into(), PathBuf::from);
    let lfw = root.join("lfw112");
    if !lfw.is_dir() {
        println!("skipped: {} is absent", lfw.display());
        return;
    }
    check(&Bench::new(), &lfw);
}
