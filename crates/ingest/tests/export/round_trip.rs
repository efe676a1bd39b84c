//! From format to format and back: the same JPEG bytes under the same labels.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    common::{Bench, stderr},
    sets::made,
};

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

/// Names that no folder can have, that systems use, that stand for nobody, that are numbers spelled
/// otherwise, or that lie in each other.
const NAMES: [&str; 18] = [
    "../../up",
    "/etc",
    "..",
    ".hidden",
    "Thumbs.db",
    "@eaDir",
    "__MACOSX",
    "nan",
    "-1",
    "3.0",
    "007",
    "a",
    "a/b",
    "a/b/c",
    "identities.tsv",
    "Zo\u{eb} \u{674e}",
    "x\\y",
    "1e3",
];

#[test]
fn names_of_every_kind_come_back_from_every_format() {
    let sources: Vec<String> = (0..2 * NAMES.len()).map(|i| format!("{i}.jpg")).collect();
    let rows: Vec<(u32, &str)> =
        sources.iter().enumerate().map(|(i, source)| ((i / 2) as u32, &source[..])).collect();
    let bench = made(&NAMES, &rows);
    let names = |dir: &str| -> BTreeMap<Vec<u8>, String> {
        let labels = of_dataset(&bench, dir).into_iter();
        labels.map(|(image, who)| (image, who.into_iter().next().unwrap().1)).collect()
    };
    let expected = names("data");
    assert_eq!(expected.len(), rows.len());
    for format in ["folder", "list", "recordio", "webdataset", "parquet"] {
        let run = bench.run(&format!("export data out-{format} --to {format}")).success();
        let mut expected = expected.clone();
        let said = stderr(&run);
        if ["webdataset", "parquet"].contains(&format) {
            assert!(said.contains("such as `nan`: 3; --to folder"), "{said}");
            expected.retain(|_, name| !["nan", "-1", "3.0"].contains(&&name[..]));
        }
        let run = bench.run(&format!("pack out-{format} back-{format} --max-left-out 100"));
        let mut found = names(&format!("back-{format}"));
        found.retain(|_, name| name != "3");
        assert!(found == expected, "{format}: {}", stderr(&run.success()));
        bench.run(&format!("verify back-{format}")).success();
    }
}

#[test]
fn a_verification_pack_keeps_its_names_in_the_table_beside_it() {
    let bench = made(
        &["Zo\u{eb}", "nan", "Ann Lee"],
        &[(0, "a.jpg"), (0, "b.jpg"), (1, "c.jpg"), (1, "d.jpg"), (2, "e.jpg"), (2, "f.jpg")],
    );
    let pairs = "a.jpg b.jpg 1\nc.jpg d.jpg 1\ne.jpg a.jpg 0\nc.jpg f.jpg 0\n";
    bench.write("pairs.txt", pairs.as_bytes());
    let line = "export data val.bin --to bin --pairs-file pairs.txt";
    bench.run(line).success();
    let table = fs::read_to_string(bench.path("val.bin.identities.tsv")).unwrap();
    assert!(table.starts_with("image\tlabel\tidentity\n0\t0\tZo\u{eb}\n1\t0\tZo"), "{table}");
    bench.run("pack val.bin back").success();
    assert!(of_dataset(&bench, "back") == of_dataset(&bench, "data"));
    // A killed export leaves at most the table, which the next one replaces.
    fs::remove_file(bench.path("val.bin")).unwrap();
    bench.run(line).success();
    // One that is not about this pack is not used.
    for (what, table) in [
        ("cut short", table.lines().take(4).collect::<Vec<_>>().join("\n")),
        ("contradicts the pairs", table.replace("1\t0\tZo", "1\t7\tYo")),
        ("two names of a label", table.replace("3\t1\tnan", "3\t1\tnone")),
    ] {
        bench.write("val.bin.identities.tsv", table.as_bytes());
        let text = stderr(&bench.run("pack val.bin again --force").success());
        assert!(
            text.contains("val.bin.identities.tsv: ") && text.contains("not used"),
            "{what}: {text}"
        );
        let names: Vec<String> =
            of_dataset(&bench, "again").into_values().map(|w| w[0].1.clone()).collect();
        assert!(names.iter().all(|name| name.starts_with("id_")), "{what}: {names:?}");
    }
    // A file of somebody else is not replaced.
    fs::remove_file(bench.path("val.bin")).unwrap();
    bench.write("val.bin.identities.tsv", b"mine");
    let text = stderr(&bench.run(line).code(2));
    assert!(text.contains("val.bin.identities.tsv: already exists"), "{text}");
    assert_eq!(fs::read(bench.path("val.bin.identities.tsv")).unwrap(), b"mine");
}
