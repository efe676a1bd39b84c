//! `--to folder` and `--to list`.

use std::{fs, path::Path};

use crate::{
    common::{Bench, stderr},
    sets::{made, numbered, synthetic},
};

/// Paths below `out` and the number of the image in each.
fn files(bench: &Bench, out: &str) -> Vec<(String, u8)> {
    // The table of names has a test of its own.
    let files = bench.tree(out).into_iter().filter(|(path, _)| !path.ends_with("identities.tsv"));
    let file = files.map(|(path, bytes)| {
        let number = *bytes.last().unwrap();
        assert_eq!(bytes, numbered(number), "{}", path.display());
        (path.to_str().unwrap().to_owned(), number)
    });
    file.collect()
}

fn owned(files: &[(&str, u8)]) -> Vec<(String, u8)> {
    files.iter().map(|(path, number)| ((*path).to_owned(), *number)).collect()
}

#[test]
fn a_packed_folder_comes_back_as_it_was() {
    let bench = synthetic();
    fs::remove_file(bench.path("faces/synth.json")).unwrap();
    let summary = bench.json("export data out --to folder --json");
    assert_eq!((&summary["images"], &summary["identities"]), (&40.into(), &8.into()));
    assert_eq!((&summary["files"], &summary["renamed_files"]), (&40.into(), &0.into()));
    assert!(bench.tree("out") == bench.tree("faces"));
    let bytes: usize = bench.tree("out").values().map(Vec::len).sum();
    assert_eq!(summary["bytes"], bytes);
}

#[test]
fn nested_identities_keep_their_folders() {
    let bench = made(&["part/a", "part/b"], &[(0, "part/a/1.jpg"), (1, "part/b/1.jpg")]);
    bench.run("export data deep/out --to folder").success();
    assert_eq!(files(&bench, "deep/out"), owned(&[("part/a/1.jpg", 0), ("part/b/1.jpg", 1)]));
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let bench = made(
        &["../../escaped", "/tmp/escaped", "nul\0name", "..", "ok"],
        &[
            (0, "1.jpg"),
            (1, "1.jpg"),
            (2, "1.jpg"),
            (3, "1.jpg"),
            (4, "../../../escaped.jpg"),
            (4, "/etc/escaped.jpg"),
            (4, "nul\0.jpg"),
            (4, ".."),
            (4, ""),
        ],
    );
    let before = bench.tree("data");
    let run = bench.run("export data box/out --to folder --json").success();
    let expected = [
        ("_../_../escaped/1.jpg", 0),
        ("_..-2/1.jpg", 3),
        ("_/tmp/escaped/1.jpg", 1),
        ("nul_name/1.jpg", 2),
        ("ok/_...jpg", 7),
        ("ok/_.jpg", 8),
        ("ok/escaped-2.jpg", 5),
        ("ok/escaped.jpg", 4),
        ("ok/nul_.jpg", 6),
    ];
    let mut expected = owned(&expected);
    expected.sort_by(|a, b| Path::new(&a.0).cmp(Path::new(&b.0)));
    assert_eq!(files(&bench, "box/out"), expected);
    let summary: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    let renamed = (&summary["renamed_identities"], &summary["renamed_files"]);
    assert_eq!(renamed, (&4.into(), &4.into()));
    assert!(stderr(&run).contains("4 files got another name"), "{}", stderr(&run));
    // Nothing but the two folders lies in the bench.
    assert_eq!(bench.tree("").len(), before.len() + expected.len() + 1);
}

#[test]
fn images_of_one_name_are_all_kept() {
    let bench = made(&["a", "b"], &[(0, "x/1.jpg"), (1, "1.jpg"), (0, "y/1.png"), (0, "1.jpg")]);
    bench.run("export data out --to folder").success();
    let expected = [("a/1-2.jpg", 2), ("a/1-3.jpg", 3), ("a/1.jpg", 0), ("b/1.jpg", 1)];
    assert_eq!(files(&bench, "out"), owned(&expected));
}

#[test]
fn an_identity_inside_another_meets_none_of_its_files() {
    let bench = made(&["a", "a/1.jpg"], &[(0, "1.jpg"), (1, "1.jpg")]);
    bench.run("export data out --to folder").success();
    assert_eq!(files(&bench, "out"), owned(&[("a/1.jpg", 0), ("a_1.jpg/1.jpg", 1)]));
}

#[test]
fn a_list_names_every_image_with_its_label() {
    let bench = made(&["b", "list.tsv"], &[(1, "2.jpg"), (0, "1.jpg"), (1, "tab\t.jpg")]);
    bench.run("export data out --to list").success();
    let list = fs::read_to_string(bench.path("out/list.tsv")).unwrap();
    let expected = "images/b/1.jpg\t0\nimages/list.tsv/2.jpg\t1\nimages/list.tsv/tab_.jpg\t1\n";
    assert_eq!(list, expected);
    for (line, number) in list.lines().zip([1, 0, 2]) {
        let path = bench.path("out").join(line.split('\t').next().unwrap());
        assert_eq!(fs::read(path).unwrap(), numbered(number));
    }
}

#[test]
fn the_same_files_come_from_one_and_two_threads() {
    let bench = synthetic();
    bench.run("export data one --to list --threads 1").success();
    bench.run("export data two --to list --threads 2").success();
    assert!(bench.tree("one") == bench.tree("two"));
}
