//! Lists of images, as files and on standard input.

use assert_cmd::Command;

use super::{check_rows, face};
use crate::common::{Bench, stderr};

fn bench() -> Bench {
    let bench = Bench::new();
    for i in 0..4 {
        bench.write(&format!("store/img {i}.jpg"), &face(i));
    }
    bench
}

#[test]
fn integer_labels_keep_their_order_and_close_their_gaps_with_a_warning() {
    let bench = bench();
    let list = "img 0.jpg\t16777217\nimg 1.jpg\t9\r\n\nimg 2.jpg\t16777216\nimg 3.jpg\t9\n";
    bench.write("store/list.tsv", list.as_bytes());
    let run = bench.run("pack store/list.tsv data").success();
    check_rows(
        &bench,
        "data",
        &[
            ("img 0.jpg", 2, "16777217", 0),
            ("img 1.jpg", 0, "9", 1),
            ("img 2.jpg", 1, "16777216", 2),
            ("img 3.jpg", 0, "9", 3),
        ],
    );
    insta::assert_snapshot!(stderr(&run), @" WARN store/list.tsv: the labels 9 to 16777217 do not count from 0 without gaps: they become 0 to 2 in their order, and the identities' names say what they were");
}

#[test]
fn dense_integer_labels_stay_and_nothing_is_said() {
    let bench = bench();
    bench.write("store/list.txt", b"img 0.jpg\t2\nimg 1.jpg\t0\nimg 2.jpg\t1\n");
    let run = bench.run("pack store/list.txt data").success();
    check_rows(
        &bench,
        "data",
        &[("img 0.jpg", 2, "2", 0), ("img 1.jpg", 0, "0", 1), ("img 2.jpg", 1, "1", 2)],
    );
    assert_eq!(stderr(&run), "");
}

#[test]
fn csv_columns_are_found_by_name_and_paths_start_at_root() {
    let bench = bench();
    let csv = "identity,size,path\n\"Lee, Ann\",1,img 1.jpg\nBob,2,\"img 0.jpg\"\n";
    bench.write("lists/faces.csv", csv.as_bytes());
    bench.run("pack lists/faces.csv data --root store").success();
    check_rows(&bench, "data", &[("img 0.jpg", 0, "Bob", 0), ("img 1.jpg", 1, "Lee, Ann", 1)]);
}

#[test]
fn a_label_beside_an_identity_gives_it_its_place() {
    let bench = bench();
    bench.write("store/l.csv", b"path,label,identity\nimg 1.jpg,1,Ann\nimg 0.jpg,0,Bob\n");
    bench.run("pack store/l.csv data").success();
    check_rows(&bench, "data", &[("img 0.jpg", 0, "Bob", 0), ("img 1.jpg", 1, "Ann", 1)]);
}

#[test]
fn standard_input_is_a_list_whose_paths_start_at_the_current_folder() {
    let bench = bench();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pfc-ingest"));
    command.current_dir(bench.path("")).env_remove("PFC_LOG").args(["pack", "-", "data"]);
    command.write_stdin("store/img 2.jpg\tb\nstore/img 3.jpg\ta\n").assert().success();
    check_rows(&bench, "data", &[("store/img 2.jpg", 1, "b", 2), ("store/img 3.jpg", 0, "a", 3)]);
    assert_eq!(bench.dataset("data").manifest().sources, ["standard input"]);
}

#[test]
fn absolute_paths_are_taken_as_they_are() {
    let bench = bench();
    let path = bench.path("store/img 1.jpg").display().to_string();
    bench.write("elsewhere/list.lst", format!("{path}\t0\n").as_bytes());
    bench.run("pack elsewhere/list.lst data").success();
    check_rows(&bench, "data", &[(&path, 0, "0", 1)]);
}

#[test]
fn with_root_all_images_of_a_list_lie_below_it() {
    let bench = bench();
    bench.write("secret.jpg", &face(9));
    let [secret, inside] =
        ["secret.jpg", "store/img 2.jpg"].map(|path| bench.path(path).display().to_string());
    let list = format!(
        "img 0.jpg\t0\n../secret.jpg\t0\n{secret}\t0\nx/../img 1.jpg\t0\n{inside}\t1\n\
         x/../../secret.jpg\t1\n"
    );
    bench.write("lists/l.tsv", list.as_bytes());
    bench.run("pack lists/l.tsv data --root store --max-left-out 100").success();
    let reasons: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let outside = ["../secret.jpg", &secret, "x/../../secret.jpg"];
    assert_eq!(reasons.len(), outside.len());
    for path in outside {
        assert!(reasons.contains(&(path.to_owned(), "outside_path".to_owned())), "{reasons:?}");
    }
    let mut sources: Vec<String> =
        (0..3).map(|row| bench.dataset("data").get(row).unwrap().source.to_owned()).collect();
    sources.sort();
    let mut expected = [inside, "img 0.jpg".into(), "x/../img 1.jpg".into()];
    expected.sort();
    assert_eq!(sources, expected);
    let text = std::fs::read_to_string(bench.path("data/quarantine.jsonl")).unwrap();
    assert!(
        text.contains("the path `../secret.jpg` leads out of the folder of the images"),
        "{text}"
    );
}

#[test]
fn without_root_the_list_itself_says_where_its_images_are() {
    let bench = bench();
    bench.write("lists/l.tsv", b"../store/img 1.jpg\t0\n");
    bench.run("pack lists/l.tsv data").success();
    check_rows(&bench, "data", &[("../store/img 1.jpg", 0, "0", 1)]);
}

#[test]
fn a_file_that_is_missing_is_quarantined_by_its_path() {
    let bench = bench();
    bench.write("store/list.txt", b"img 0.jpg\t0\ngone.jpg\t0\n");
    bench.run("pack store/list.txt data --max-left-out 100").success();
    let gone = ("gone.jpg".into(), "quarantined".into(), "missing".into());
    assert_eq!(bench.quarantine("data"), [gone]);
}

#[test]
fn lines_that_contradict_others_or_cannot_be_read_are_left_out_alone() {
    let bench = bench();
    let list = "path,label,identity\nimg 0.jpg,0,Ann\nimg 1.jpg,1,Ann\nimg 2.jpg,0,Bob\nx\n\
                img 3.jpg,,Eve\n";
    bench.write("store/l.csv", list.as_bytes());
    bench.run("pack store/l.csv data --max-left-out 100").success();
    check_rows(&bench, "data", &[("img 0.jpg", 0, "Ann", 0)]);
    let reasons: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let expected = [
        ("img 1.jpg", "no_label"),
        ("img 2.jpg", "no_label"),
        ("img 3.jpg", "no_label"),
        ("store/l.csv:5", "bad_line"),
    ];
    assert_eq!(reasons, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn a_path_under_two_labels_is_told() {
    let bench = bench();
    bench.write("store/l.txt", b"img 0.jpg\t0\nimg 1.jpg\t1\nimg 0.jpg\t1\nimg 1.jpg\t1\n");
    let run = bench.run("pack store/l.txt data").success();
    insta::assert_snapshot!(stderr(&run), @r"
     WARN store/l.txt: 1 path under two labels or more, such as `img 0.jpg` under `0` and `1`: each line is packed
     WARN store/l.txt: 1 path listed more than once: each line is packed
    ");
}

#[test]
fn numbers_and_names_in_one_list_are_told() {
    let bench = bench();
    bench.write("store/l.txt", b"img 0.jpg\t10\nimg 1.jpg\t2\nimg 2.jpg\tunknown\n");
    let run = bench.run("pack store/l.txt data").success();
    insta::assert_snapshot!(stderr(&run), @" WARN store/l.txt: 2 numeric labels and 1 name (such as `unknown`) are mixed: all are taken as names, whose labels follow their byte order, so that `10` comes before `2`");
}

#[test]
fn lists_in_the_encodings_of_spreadsheets_are_read() {
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}"
            .chars()
            .chain(text.chars())
            .collect::<String>()
            .encode_utf16()
            .flat_map(unit)
            .collect()
    };
    let text = "image;label\r\nimg 0.jpg;0.0\r\nimg 1.jpg;1.0\r\n";
    for bytes in [
        utf16(text, u16::to_le_bytes),
        utf16(text, u16::to_be_bytes),
        format!("\u{feff}{text}").into_bytes(),
    ] {
        let bench = bench();
        bench.write("store/l.csv", &bytes);
        bench.run("pack store/l.csv data").success();
        check_rows(&bench, "data", &[("img 0.jpg", 0, "0", 0), ("img 1.jpg", 1, "1", 1)]);
    }
}

#[test]
fn lists_as_spreadsheets_r_and_celeba_write_them_are_read() {
    let bench = bench();
    for (i, text) in [
        "# two faces\nimg 0.jpg\t7\nimg 1.jpg\t3\n",
        "2\nimg 0.jpg 7\nimg 1.jpg 3\n",
        "sep=;\r\nfile_name;class\r\nimg 0.jpg;7\r\nimg 1.jpg;3\r\n",
        "img 0.jpg\t7\rimg 1.jpg\t3\r",
        "\"path\"\t\"label\"\n\"img 0.jpg\"\t\"7\"\n\"img 1.jpg\"\t\"3\"\n",
        "\"path\" \"label\"\n\"1\" \"img 0.jpg\" 7\n\"2\" \"img 1.jpg\" 3\n",
    ]
    .into_iter()
    .enumerate()
    {
        bench.write("store/list.txt", text.as_bytes());
        bench.run(&format!("pack store/list.txt data{i}")).success();
        let expected = [("img 0.jpg", 1, "7", 0), ("img 1.jpg", 0, "3", 1)];
        check_rows(&bench, &format!("data{i}"), &expected);
    }
    bench.write("store/list.txt", b"2\nimg 0.jpg\t7\nimg 1.jpg\t3\n");
    let said = stderr(&bench.run("pack store/list.txt again").success());
    assert!(said.contains("store/list.txt: 1 line before the first image passed over"), "{said}");
}
