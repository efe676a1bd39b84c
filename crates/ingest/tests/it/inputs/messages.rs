//! Bad inputs: exit code 2, a message that says what and where, and the way out.

use super::{face, tars::tar};
use crate::common::{Bench, stderr};

/// Without the hint, which is that of the kind of input.
#[track_caller]
fn check(bench: &Bench, line: &str, expected: &str) {
    let text = stderr(&bench.run(line).code(2));
    let (causes, hint) = text.split_once("\n\nhint: ").unwrap();
    assert_eq!(causes.split_once("\n  cause: ").unwrap().1, expected);
    assert!(!hint.is_empty() && !bench.path("data").exists());
}

#[test]
fn a_list_whose_layout_is_not_known_is_shown_with_its_place_and_the_layouts() {
    let bench = Bench::new();
    bench.write("l.txt", b"\na.jpg\n");
    let text = stderr(&bench.run("pack l.txt data").code(2));
    insta::assert_snapshot!(text, @r"
    error: cannot pack `l.txt`
      cause: l.txt:2: a path without a label, and each line needs both

    hint: a list has lines `path<TAB>label`, or a header with the columns path and label or identity, and perhaps x1,y1 to x5,y5; --columns image=NAME,label=NAME names others, or their numbers where there is no header
    ");
    bench.write("l.csv", b"path,label,x1\na.jpg,0,3\n");
    check(&bench, "pack l.csv data", "l.csv:1: of the ten columns of landmarks, `y1` is missing");
    bench.write("l.csv", b"path,label\n");
    check(&bench, "pack l.csv data", "l.csv: holds no images");
    bench.write("l.csv", b"path,label\ngone.jpg,0\n");
    check(&bench, "pack l.csv data", "l.csv: its only image cannot be read");
    bench.write("l.csv", b"path,label\na.jpg,-1\nb.jpg\n");
    check(&bench, "pack l.csv data", "l.csv: none of its 2 images can be read");
    bench.write("l.csv", b"path,label\na.jpg,0\n");
    check(
        &bench,
        "pack l.csv data --columns label=who",
        "l.csv:1: no column `who` among `path`, `label`",
    );
}

#[test]
fn what_contradicts_itself_asks_for_a_word() {
    let bench = Bench::new();
    bench.write("raw/ann/1.jpg", &face(1));
    bench.write("raw/a.tar", b"");
    let text = stderr(&bench.run("pack raw data").code(2));
    insta::assert_snapshot!(text, @r"
    error: cannot pack `raw`
      cause: raw: it holds both folders and a.tar: which of them is to be packed?

    hint: say with --from how it is to be read, or give another path
    ");
    bench.write("raw/b.parquet", b"");
    check(
        &bench,
        "pack raw data",
        "raw: it holds both a.tar and b.parquet: which of them is to be packed?",
    );
    bench.write("a.tar", b"PAR1");
    check(
        &bench,
        "pack a.tar data",
        "a.tar: its name says tar, and its first bytes say Parquet or Arrow",
    );
    check(
        &bench,
        "pack a.tar data --from recordio",
        "a.tar: --from says RecordIO, and its first bytes say Parquet or Arrow",
    );
    check(
        &bench,
        "pack raw data --from bin",
        "raw: it is a folder, and --from says a verification pack, which is a file",
    );
    check(
        &bench,
        "pack - data --from tar",
        "-: standard input is read as a list, and --from says tar",
    );
    check(
        &bench,
        "pack raw/ann data --root raw",
        "--root is the folder of the images of a list, and this is a folder of identities",
    );
    check(
        &bench,
        "pack raw data --salvage --from folder",
        "--salvage reads what is left of damaged .rec and tar files, and this is a folder of \
         identities",
    );
}

#[test]
fn shards_that_are_missing_are_counted() {
    let bench = Bench::new();
    bench.write("s-0.tar", b"");
    let text = stderr(&bench.run("pack s-{0..3}.tar data").code(2));
    insta::assert_snapshot!(text, @r"
    error: cannot pack `s-{0..3}.tar`
      cause: s-{0..3}.tar: 3 of its 4 files are missing, first s-1.tar

    hint: is the download complete, and is the pattern right?
    ");
    check(&bench, "pack s-{3..0}.tar data", "s-{3..0}.tar: `{3..0}` runs backwards");
    bench.write("empty/notes.txt", b"");
    check(
        &bench,
        "pack empty data --from tar",
        "empty: no shards (.tar, plain or compressed) in it",
    );
    check(&bench, "pack empty data --from parquet", "empty: no tables (.parquet or .arrow) in it");
    check(&bench, "pack empty data --from recordio", "empty: no file .rec in it");
}

#[test]
fn damaged_files_are_named_with_the_place_of_the_damage() {
    let bench = Bench::new();
    bench.write("x.tar", &[b'x'; 1000]);
    check(&bench, "pack x.tar data", "x.tar: byte 0: no member begins here, by its checksum");
    bench.write("x.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03cut");
    let text = stderr(&bench.run("pack x.tar.gz data").code(2));
    assert!(text.contains("cause: x.tar.gz: byte 0: cannot read: "), "{text}");
    bench.write("x.parquet", b"PAR1PAR1");
    let text = stderr(&bench.run("pack x.parquet data").code(2));
    assert!(text.contains("cause: x.parquet: "), "{text}");
    bench.write("x.parquet", b"hello");
    check(&bench, "pack x.parquet data", "x.parquet: begins neither as Parquet nor as Arrow does");
    bench.write("x.bin", b"cos\nsystem\n(S'echo'\ntR.");
    check(
        &bench,
        "pack x.bin data",
        "x.bin: not a verification pack: byte 0: it asks to import `os.system`, which has no place in \
         a verification pack",
    );
}

#[test]
fn a_tar_file_without_labels_or_folders_is_told_what_to_do() {
    let bench = Bench::new();
    bench.write("people.tar", &tar(&[("1.jpg", &face(1)), ("2.jpg", &face(2))]));
    let text = stderr(&bench.run("pack people.tar data").code(2));
    insta::assert_snapshot!(text, @r"
    error: cannot pack `people.tar`
      cause: people.tar: is tar without labels: beside none of its 2 images lies a .cls or .json, and none in a folder

    hint: write a .cls with the number or name of the person beside each image, or put the images of each person in a folder: members of other names, such as .txt, are not read
    ");
    bench.write("folders.tar", &tar(&[("ann/1.jpg", &face(1)), ("bob/2.jpg", &face(2))]));
    let text = stderr(&bench.run("pack folders.tar data").success());
    assert!(text.contains("the folders in it are taken for identities"), "{text}");
}

#[test]
fn a_list_beside_images_that_names_nobody_is_told() {
    for (name, list) in [
        ("metadata.csv", "file_name,text\n1.jpg,hello\n"),
        ("faces.csv", "file_name,label\n1.jpg,0\n"),
    ] {
        let bench = Bench::new();
        bench.write("raw/1.jpg", &face(1));
        bench.write(&format!("raw/{name}"), list.as_bytes());
        let text = stderr(&bench.run("pack raw data").code(2));
        let hint = format!("1 images lie directly in raw, and raw/{name} may say who is on them");
        assert!(text.contains(&hint), "{text}");
    }
}

/// Every kind of list and table as a file that opens but cannot be read: the memory of a process begins with
/// pages that do not exist, for which the system answers EIO, as a failing disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_list_or_table_that_the_system_fails_to_read_has_a_way_out() {
    let bench = Bench::new();
    bench.write("faces/ann/1.jpg", &face(1));
    bench.run("pack faces set").success();
    let failing = |name: &str| {
        let place = bench.path(name);
        std::os::unix::fs::symlink("/proc/self/mem", &place).unwrap();
        place.display().to_string()
    };
    let inputs =
        ["l.txt", "l.csv", "l.tsv", "l.lst", "a.tar", "a.parquet", "a.arrow", "a.bin", "a.rec"];
    let packs = inputs.map(|name| (name, format!("pack {} data", failing(name))));
    let others = [
        ("p.txt", format!("pack faces data --landmarks {}", failing("p.txt"))),
        ("q.txt", format!("align {} data --root faces", failing("q.txt"))),
        ("e.npy", format!("clean set --pass outliers --embeddings {}", failing("e.npy"))),
        ("r.csv", format!("review import set {}", failing("r.csv"))),
        ("i.txt", format!("export set data --to list --identities {}", failing("i.txt"))),
        ("b.txt", format!("export set data --to bin --pairs-file {}", failing("b.txt"))),
    ];
    for (name, line) in packs.into_iter().chain(others) {
        let text = stderr(&bench.run(&line).code(2));
        let path = bench.path(name).display().to_string();
        assert!(text.contains(&format!("{path}: cannot read\n")), "{text}");
        let hint = format!("\nhint: the disk or the network that holds {path} fails");
        assert!(text.contains(&hint) && !bench.path("data").exists(), "{text}");
    }
}
