//! From format to format and back: the same JPEG bytes under the same labels.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::Bench;

/// What must not change: label and name of every image, by its bytes. Several images may be the same.
type Labels = BTreeMap<Vec<u8>, Vec<(u32, String)>>;

fn of_dataset(bench: &Bench, dir: &str) -> Labels {
    let dataset = bench.dataset(dir);
    let mut labels = Labels::new();
    for row in 0..dataset.len() {
        let face = dataset.get(row).unwrap();
        let name = dataset.identities().name(face.label).to_owned();
        labels.entry(face.image.to_vec()).or_default().push((face.label, name));
    }
    labels.values_mut().for_each(|of_image| of_image.sort_unstable());
    labels
}

/// A folder of identity folders, whose labels `label_of` tells from their place in byte order of the
/// names, and their names.
fn of_folder(root: &Path, label_of: impl Fn(u32, &str) -> u32) -> Labels {
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    let mut labels = Labels::new();
    for (place, name) in (0..).zip(names) {
        let who = (label_of(place, &name), name.clone());
        for entry in fs::read_dir(root.join(&name)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            labels.entry(bytes).or_default().push(who.clone());
        }
    }
    labels.values_mut().for_each(|of_image| of_image.sort_unstable());
    labels
}

fn check(bench: &Bench, raw: &Path) {
    let labels = of_folder(raw, |place, _| place);
    bench.run(&format!("pack {} one", raw.display())).success();
    assert!(of_dataset(bench, "one") == labels, "packed");

    // Each format, and back.
    for (format, packed) in [
        ("folder", "a-folder"),
        ("list", "a-list"),
        ("webdataset", "a-webdataset"),
        ("parquet", "a-parquet"),
        ("recordio", "a-recordio"),
    ] {
        bench.run(&format!("export one a-{format} --to {format}")).success();
        bench.run(&format!("pack {packed} b-{format}")).success();
        let nothing_left_out = bench.quarantine(&format!("b-{format}")).is_empty();
        assert!(nothing_left_out || format == "recordio", "{format}");
        assert!(of_dataset(bench, &format!("b-{format}")) == labels, "{format}");
    }
    assert!(of_folder(&bench.path("a-folder"), |place, _| place) == labels, "folder");

    // Folder → shards → .rec → shards → WebDataset → shards → folder.
    bench.run("export b-recordio tars --to webdataset --shard-mib 4").success();
    bench.run("pack tars three").success();
    assert!(of_dataset(bench, "three") == labels, "through .rec and WebDataset");
    bench.run("export three back --to folder").success();
    let back = of_folder(&bench.path("back"), |place, _| place);
    assert!(back == labels, "back in folders");
}

#[test]
fn synthetic_faces_survive_every_format() {
    let bench = Bench::new();
    // More than ten people: in byte order of names `id_10` comes before `id_2`.
    bench.run("synth faces --identities 12 --images-per-identity 4").success();
    check(&bench, &bench.path("faces"));
}

#[test]
fn all_of_lfw_survives_every_format() {
    let Some(lfw) = pfc_testing::faces("lfw112") else { return };
    check(&Bench::new(), &lfw);
}
