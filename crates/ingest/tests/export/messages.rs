//! Bad input to `export`: exit code 2, a message that says what and where, and nothing left behind.

use std::fs;

use crate::{
    common::{Bench, stderr},
    sets::synthetic,
};

/// What is said; nothing may be left in the bench but what was there.
#[track_caller]
fn refused(bench: &Bench, line: &str) -> String {
    let names = || {
        let entries = fs::read_dir(bench.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let text = stderr(&bench.run(line).code(2));
    assert_eq!(names(), before, "{line}");
    text
}

#[test]
fn an_identity_that_does_not_exist() {
    let bench = synthetic();
    insta::assert_snapshot!(refused(&bench, "export data out --to folder --identity Person_00003"), @"
    error: cannot export `data`
      cause: --identity: the data set has no identity `Person_00003`

    hint: did you mean `Person_000003`?
    ");
    bench.write("names", b"Person_000001\nZoe\n");
    insta::assert_snapshot!(refused(&bench, "export data out --to folder --identities names"), @"
    error: cannot export `data`
      cause: names: line 2: the data set has no identity `Zoe`

    hint: names are those of the folders that were packed, with `/` between them
    ");
    bench.write("names", b"\n");
    insta::assert_snapshot!(refused(&bench, "export data out --to folder --identities names"), @"
    error: cannot export `data`
      cause: names: names no identity

    hint: write one name a line
    ");
}

#[test]
fn a_selection_without_images() {
    let bench = synthetic();
    insta::assert_snapshot!(refused(&bench, "export data out --to folder --label 8.."), @"
    error: cannot export `data`
      cause: nothing to export: none of 40 images is selected

    hint: an image must pass --identity, --identities, --label and --split together
    ");
}

#[test]
fn an_output_that_exists() {
    let bench = synthetic();
    for format in ["folder", "list", "recordio", "webdataset", "parquet"] {
        let text = refused(&bench, &format!("export data faces --to {format}"));
        assert!(text.contains("faces: already exists and is not empty"), "{text}");
    }
    bench.write("val.bin", b"mine");
    let text = refused(&bench, "export data val.bin --to bin --pairs 20");
    assert!(text.contains("val.bin: already exists"), "{text}");
    assert_eq!(fs::read(bench.path("val.bin")).unwrap(), b"mine");
}

#[test]
fn an_output_inside_the_data_set() {
    let bench = synthetic();
    let text = refused(&bench, "export data data/out --to folder");
    assert!(text.contains("data/out: lies inside data"), "{text}");
}

#[test]
fn an_option_of_another_format() {
    let bench = synthetic();
    insta::assert_snapshot!(refused(&bench, "export data out --to folder --pairs 20"), @"
    error: cannot export `data`
      cause: --pairs has no meaning for `--to folder`

    hint: leave --pairs out; `pfc-ingest export --help` says what it is for
    ");
    insta::assert_snapshot!(refused(&bench, "export data out --to recordio --order row"), @"
    error: cannot export `data`
      cause: --order row has no meaning for `--to recordio`

    hint: identity records need the order of labels; add --sequential for a file without them
    ");
    insta::assert_snapshot!(refused(&bench, "export data out --to bin"), @"
    error: cannot export `data`
      cause: a pack holds pairs, and neither --pairs nor --pairs-file is given

    hint: add `--pairs 6000` for random pairs, or `--pairs-file pairs.txt`
    ");
}

#[test]
fn a_folder_that_is_no_data_set() {
    let bench = Bench::new();
    let text = refused(&bench, "export nowhere out --to folder");
    assert!(text.starts_with("error: cannot export `nowhere`"), "{text}");
}

#[test]
fn a_damaged_image_leaves_nothing_behind_in_any_format() {
    let bench = synthetic();
    bench.damage("data", 7);
    for format in ["folder", "list", "recordio", "webdataset", "parquet", "bin --pairs 100"] {
        let text = refused(&bench, &format!("export data out --to {format}"));
        assert!(text.contains("shards/00000.arrow: has checksum"), "{text}");
        assert!(text.contains("`pfc-ingest verify` lists everything"), "{text}");
    }
}
