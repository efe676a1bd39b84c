//! `pfc-ingest show`.

use std::fs;

use crate::common::{Bench, jpeg, stderr, stdout};

fn packed() -> Bench {
    let bench = Bench::new();
    for (name, n) in [("ann", 5), ("bob", 1)] {
        for i in 0..n {
            bench.write(&format!("faces/{name}/{i}.jpg"), &jpeg(112, 112));
        }
    }
    bench.run("pack faces data").success();
    bench
}

#[test]
fn a_sheet_holds_the_faces_of_one_identity_in_a_grid() {
    let bench = packed();
    let text = stdout(&bench.run("show data --identity ann -o ann.png").success());
    assert_eq!(text, "ann.png: 5 images\n");
    let sheet = image::open(bench.path("ann.png")).unwrap().to_rgb8();
    // Three columns and two lines of 112 pixels, captions of two lines, gaps of 6.
    assert_eq!(sheet.dimensions(), (6 + 3 * 118, 32 + 2 * (112 + 1 + 28 + 6)));
    let first = sheet.get_pixel(6 + 56, 32 + 56).0;
    let expected = image::load_from_memory(&jpeg(112, 112)).unwrap().to_rgb8();
    let expected = expected.get_pixel(56, 56).0;
    // Another decoder, whose colours may differ a little.
    assert!(first.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 4), "{first:?} {expected:?}");
}

#[test]
fn rows_are_chosen_by_label_range_or_lot() {
    let bench = packed();
    let rows = |how: &str| {
        let report = bench.json(&format!("show data {how} --force --json"));
        report["rows"].as_array().unwrap().iter().map(|r| r.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let of_bob = rows("--label 1");
    assert_eq!((of_bob.len(), bench.dataset("data").get(of_bob[0]).unwrap().label), (1, 1));
    assert_eq!(rows("--rows 2..4"), [2, 3]);
    assert_eq!(rows("--rows 4..99"), [4, 5]);
    let mut lot = rows("--sample 100 --seed 3");
    assert_eq!(lot, rows("--sample 6 --seed 3"));
    assert_ne!(lot, rows("--sample 6 --seed 4"));
    lot.sort_unstable();
    assert_eq!(lot, [0, 1, 2, 3, 4, 5]);
    assert_eq!(rows("--rows 0..6 --limit 2"), [0, 1]);
}

#[test]
fn a_face_that_cannot_be_decoded_is_crossed_out_and_counted() {
    let bench = packed();
    let path = bench.path("data/shards/00000.arrow");
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.windows(3).position(|w| w == b"\xff\xd8\xff").unwrap();
    bytes[start..start + 3].fill(0);
    fs::write(&path, bytes).unwrap();
    let text = stdout(&bench.run("show data --rows 0..6").code(1));
    assert_eq!(text, "sheet.png: 6 images, 1 broken\n");
    let text = stderr(&bench.run("bench data").code(2));
    assert!(text.contains("cannot be decoded\n  cause: not a JPEG"), "{text}");
}

#[track_caller]
fn refused(bench: &Bench, how: &str, expected: &str) {
    let text = stderr(&bench.run(&format!("show data {how}")).code(2));
    assert_eq!(text.trim_end(), format!("error: cannot show `data`\n  cause: {expected}"));
    assert!(!bench.path("sheet.png").exists());
}

#[test]
fn what_is_not_there_cannot_be_shown() {
    let bench = packed();
    refused(
        &bench,
        "--identity anne",
        "--identity: the data set has no identity `anne`\n\nhint: did you mean `ann`?",
    );
    refused(
        &bench,
        "--label 2",
        "label 2 is out of range (2 identities)\n\nhint: labels run from 0 to 1",
    );
    refused(&bench, "--rows 6..7", "row 6 is out of range (6 rows)\n\nhint: rows run from 0 to 5");
    for usage in ["", "--rows 3", "--rows 4..4", "--label 1 --sample 2", "--label 1 --limit 0"] {
        bench.run(&format!("show data {usage}")).code(2);
    }
}

#[test]
fn a_file_that_is_there_is_kept_unless_forced() {
    let bench = packed();
    bench.write("a.png", b"mine");
    let text = stderr(&bench.run("show data --label 0 -o a.png").code(2));
    let expected = "error: cannot show `data`
  cause: a.png: already exists

hint: choose another name, or give --force to replace a.png";
    assert_eq!(text.trim_end(), expected);
    assert_eq!(fs::read(bench.path("a.png")).unwrap(), b"mine");
    bench.run("show data --label 0 -o a.png --force").success();
}
