//! `--to bin`, read back with the reader of `pfc-binpack`; Python's own is run by
//! `scripts/test-pyarrow`.

use std::{collections::BTreeMap, fs};

use pfc_binpack::Pack;

use crate::{
    common::{Bench, stderr},
    sets::{images, made, numbered, synthetic},
};

fn read(bench: &Bench, path: &str) -> (Vec<Vec<u8>>, Vec<bool>) {
    let Pack { images, same } = Pack::read(&bench.path(path)).unwrap();
    (images, same)
}

#[test]
fn random_pairs_are_true_and_balanced_in_every_fold() {
    let bench = synthetic();
    let summary = bench.json("export data val.bin --to bin --pairs 60 --seed 4 --json");
    assert_eq!((&summary["pairs"], &summary["images"]), (&60.into(), &120.into()));
    assert_eq!(summary["bytes"], fs::metadata(bench.path("val.bin")).unwrap().len());
    let (read, same) = read(&bench, "val.bin");
    assert_eq!((read.len(), same.len()), (120, 60));
    let people: BTreeMap<_, _> = images(&bench.dataset("data"));
    for (i, (pair, same)) in read.chunks(2).zip(&same).enumerate() {
        assert_eq!(*same, i % 6 < 3, "pair {i}");
        assert_eq!(*same, people[&pair[0]] == people[&pair[1]], "pair {i}");
        assert_ne!(pair[0], pair[1], "pair {i}");
    }
}

#[test]
fn the_seed_alone_decides_the_pairs() {
    let bench = synthetic();
    for (out, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        bench.run(&format!("export data {out} --to bin --pairs 20 --seed {seed}")).success();
    }
    let file = |name| fs::read(bench.path(name)).unwrap();
    assert!(file("a") == file("b"));
    assert!(file("a") != file("c"));
}

#[test]
fn pairs_of_a_list_come_in_its_order() {
    let bench = made(&["a", "b"], &[(1, "b/b_0001.jpg"), (0, "a/a_0001.jpg"), (0, "a/a_0002.jpg")]);
    bench.write("paths", b"a/a_0002.jpg a/a_0001.png 1\nb/b_0001.jpg\ta/a_0001.jpg\t0\n");
    bench.write("lfw", b"1\t1\na\t2\t1\nb\t1\ta\t1\n");
    for list in ["paths", "lfw"] {
        bench.run(&format!("export data {list}.bin --to bin --pairs-file {list}")).success();
        let (images, same) = read(&bench, &format!("{list}.bin"));
        assert_eq!(images, [numbered(2), numbered(1), numbered(0), numbered(1)], "{list}");
        assert_eq!(same, [true, false], "{list}");
    }
}

#[test]
fn a_list_that_names_no_image_is_refused_with_its_line() {
    let bench = synthetic();
    bench.write("list", b"Person_000000/Person_000000_0001.jpg nobody/1.jpg 0\n");
    let run = bench.run("export data val.bin --to bin --pairs-file list").code(2);
    insta::assert_snapshot!(stderr(&run), @"
    error: cannot export `data`
      cause: list: line 1: there is no selected image `nobody/1`

    hint: a line is `PATH PATH 1` for one person and `PATH PATH 0` for two, where PATH is the source of an image; or the list is LFW's pairs.txt
    ");
    assert!(!bench.path("val.bin").exists());
}

#[test]
fn more_pairs_than_there_are_is_an_error() {
    let bench = synthetic();
    let run = bench.run("export data val.bin --to bin --pairs 2000").code(2);
    insta::assert_snapshot!(stderr(&run), @"
    error: cannot export `data`
      cause: 2000 pairs ask for 1000 of one person in a group of 8 people, which has 80

    hint: ask for fewer pairs, or select more images
    ");
}
