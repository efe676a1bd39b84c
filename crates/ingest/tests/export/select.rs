//! What goes out, under which labels.

use std::collections::BTreeSet;

use crate::{
    common::Bench,
    sets::{made, synthetic},
};

/// The lines of a list export, without the `images/`.
fn list(bench: &Bench, out: &str, options: &str) -> Vec<String> {
    bench.run(&format!("export data {out} --to list {options}")).success();
    let text = std::fs::read_to_string(bench.path(out).join("list.tsv")).unwrap();
    text.lines().map(|line| line.strip_prefix("images/").unwrap().replace('\t', " ")).collect()
}

fn four_people() -> Bench {
    let rows = [(3, "1"), (0, "1"), (2, "1"), (0, "2"), (2, "2"), (2, "3"), (1, "1")];
    made(&["ann", "bob", "cat", "dan"], &rows)
}

#[test]
fn everything_goes_out_by_label_then_by_row() {
    let bench = four_people();
    let expected = [
        "ann/1.jpg 0",
        "ann/2.jpg 0",
        "bob/1.jpg 1",
        "cat/1.jpg 2",
        "cat/2.jpg 2",
        "cat/3.jpg 2",
        "dan/1.jpg 3",
    ];
    assert_eq!(list(&bench, "out", ""), expected);
}

#[test]
fn named_identities_alone_go_out_and_are_numbered_anew() {
    let bench = four_people();
    let expected = ["ann/1.jpg 0", "ann/2.jpg 0", "dan/1.jpg 1"];
    assert_eq!(list(&bench, "named", "--identity dan --identity ann"), expected);
    bench.write("names", "\u{feff}dan\r\n\r\nann\r\n".as_bytes());
    assert_eq!(list(&bench, "listed", "--identities names"), expected);
    let kept = list(&bench, "kept", "--identities names --keep-labels");
    assert_eq!(kept, ["ann/1.jpg 0", "ann/2.jpg 0", "dan/1.jpg 3"]);
}

#[test]
fn selections_are_taken_together() {
    let bench = four_people();
    let options = "--identity ann --identity cat --label 1..4 --per-identity 2 --count 1";
    assert_eq!(list(&bench, "out", options), ["cat/1.jpg 0"]);
}

#[test]
fn labels_are_cut_before_their_end() {
    let bench = four_people();
    assert_eq!(list(&bench, "out", "--label 3.."), ["dan/1.jpg 0"]);
    assert_eq!(list(&bench, "low", "--label ..1"), ["ann/1.jpg 0", "ann/2.jpg 0"]);
}

#[test]
fn the_first_images_of_each_are_those_of_the_first_rows() {
    let bench = four_people();
    let expected = ["ann/1.jpg 0", "bob/1.jpg 1", "cat/1.jpg 2", "dan/1.jpg 3"];
    assert_eq!(list(&bench, "out", "--per-identity 1"), expected);
    assert_eq!(list(&bench, "few", "--per-identity 1 --count 2"), expected[..2]);
}

#[test]
fn an_order_by_row_takes_the_same_images_of_each() {
    let bench = four_people();
    let summary = |out: &str, order: &str| {
        let line = format!("export data {out} --to webdataset --per-identity 2 --order {order}");
        bench.json(&format!("{line} --json"))
    };
    let (by_row, by_label) = (summary("a", "row"), summary("b", "label"));
    assert_eq!((&by_row["images"], &by_row["bytes"]), (&6.into(), &by_label["bytes"]));
}

#[test]
fn parts_of_a_split_share_nobody_and_hold_everyone() {
    let bench = synthetic();
    let people = |out: &str, split: &str| {
        let lines = list(&bench, out, &format!("--split {split}"));
        lines.iter().map(|l| l.split('/').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let (test, train) = (people("test", "0/3"), people("train", "1-2/3"));
    assert!(test.is_disjoint(&train) && !test.is_empty() && !train.is_empty());
    assert_eq!(test.len() + train.len(), 8);
    // Who is where follows from the name, not from who else there is.
    bench.run("synth more/faces --identities 20 --images-per-identity 1 --seed 9").success();
    bench.run("pack more/faces more/data").success();
    bench.run("export more/data more/out --to folder --split 0/3").success();
    for name in &test {
        assert!(bench.path("more/out").join(name).is_dir(), "{name}");
    }
}
