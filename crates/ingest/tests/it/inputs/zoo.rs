//! One set of made-up pictures in every list, table, archive and data set that people bring: all of them pack
//! to the same rows. Lists are written here; the others lie in `crates/sources/tests/zoo`, as the programs of
//! other people wrote them (`tests/datasets/write_sources.py`).

use std::{fmt::Write, fs, path::Path};

use crate::common::{Bench, stderr};

/// Paths and labels.
const FACES: [(&str, u32); 7] = [
    ("p0/0.jpg", 0),
    ("p0/3.jpg", 0),
    ("p0/6.jpg", 0),
    ("p1/1.jpg", 1),
    ("p1/4.jpg", 1),
    ("p2/2.jpg", 2),
    ("p2/5.jpg", 2),
];

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// A folder with the zoo in it.
fn zoo() -> Bench {
    let bench = Bench::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../sources/tests/zoo"), &bench.path(""));
    bench
}

/// Label and image of every row, sorted.
fn rows(bench: &Bench, dataset: &str) -> Vec<(u32, Vec<u8>)> {
    let dataset = bench.dataset(dataset);
    let row = |row| {
        let face = dataset.get(row).unwrap();
        (face.label, face.image.to_vec())
    };
    let mut rows: Vec<_> = (0..dataset.len()).map(row).collect();
    rows.sort();
    rows
}

/// Packs `line` and holds it against the folder of identities.
#[track_caller]
fn check(bench: &Bench, what: &str, line: &str) {
    let _ = fs::remove_dir_all(bench.path("out"));
    if !bench.path("expected").exists() {
        bench.run("pack faces expected").success();
    }
    let run = bench.run(&format!("pack {line} out"));
    assert!(run.get_output().status.success(), "{what}: {}", stderr(&run));
    assert!(rows(bench, "out") == rows(bench, "expected"), "{what}: other rows");
}

/// A line for every face.
fn lines(line: impl Fn(usize, &str, u32) -> String) -> String {
    FACES.iter().enumerate().fold(String::new(), |mut text, (i, (path, label))| {
        writeln!(text, "{}", line(i, path, *label)).unwrap();
        text
    })
}

/// The name of a file, its text, and options beside `--root faces`.
fn lists() -> Vec<(&'static str, String, &'static str)> {
    let row = |between: &'static str| lines(move |_, p, l| format!("{p}{between}{l}"));
    let csv = |header: &str, between: &'static str| format!("{header}\n{}", row(between));
    let points = "\t0\t0\t16\t16\t5\t11\t8\t6\t10\t7\t7\t9\t12\t12";
    vec![
        ("tab.txt", row("\t"), ""),
        ("blank.txt", row(" "), ""),
        ("blanks.txt", lines(|_, p, l| format!("{p} \t  {l}  ")), ""),
        ("list.list", row("   "), ""),
        ("label-first.txt", lines(|_, p, l| format!("{l} {p}")), ""),
        ("label-first.tsv", lines(|_, p, l| format!("{l}\t{p}")), ""),
        ("im2rec.lst", lines(|i, p, l| format!("{i}\t{l}.000000\t{p}")), ""),
        ("im2rec-wide.lst", lines(|i, p, l| format!("{i}\t{l}\t0.5\t7\t{p}")), ""),
        ("face2rec2.lst", lines(|_, p, l| format!("1\t{p}\t{l}")), ""),
        ("face2rec2-points.lst", lines(|_, p, l| format!("0\t{p}\t{l}{points}")), ""),
        ("identity_CelebA.txt", lines(|_, p, l| format!("{p} {}", 2880 + l)), ""),
        ("celeba.csv", format!("image_id,identity\n{}", row(",")), ""),
        ("counted.txt", format!("7\n{}", row(" ")), ""),
        ("metadata.csv", csv("file_name,label", ","), ""),
        ("metadata.jsonl", lines(|_, p, l| format!(r#"{{"file_name": "{p}", "label": {l}}}"#)), ""),
        (
            "other.jsonl",
            lines(|_, p, l| format!(r#"{{"id": "person{l}", "where": "{p}", "box": [1, 2]}}"#)),
            "--columns image=where,id=id",
        ),
        ("keras.csv", csv("filename,class", ","), ""),
        ("comma.csv", row(","), ""),
        ("padded.csv", lines(|_, p, l| format!("{p} , {l}")), ""),
        ("excel.csv", csv("path;label", ";"), ""),
        ("sep.csv", format!("sep=;\r\npath;label\r\n{}", row(";").replace('\n', "\r\n")), ""),
        ("bars.txt", csv("path|label", "|"), ""),
        ("mac.txt", row("\t").replace('\n', "\r"), ""),
        ("utf8-mark.csv", format!("\u{feff}{}", csv("path,label", ",")), ""),
        ("backslash.txt", row("\t").replace('/', "\\"), ""),
        ("backslash.csv", csv("path,label", ",").replace('/', "\\"), ""),
        (
            "quoted.csv",
            format!("\"path\",\"label\"\n{}", lines(|_, p, l| format!("\"{p}\",\"{l}\""))),
            "",
        ),
        ("quoted.txt", lines(|_, p, l| format!("\"{p}\" {l}")), ""),
        (
            "r.txt",
            format!("\"path\" \"label\"\n{}", lines(|i, p, l| format!("\"{i}\" \"{p}\" {l}"))),
            "",
        ),
        ("floats.csv", format!("path,label\n{}", lines(|_, p, l| format!("{p},{l}.0"))), ""),
        ("comments.txt", format!("# made by hand\n#\n{}", row("\t")), ""),
        ("hash-header.txt", format!("# path label\n{}", row(" ")), ""),
        ("more.csv", format!("age,label,path\n{}", lines(|i, p, l| format!("{i},{l},{p}"))), ""),
        (
            "names.csv",
            format!("Photo,Who\n{}", lines(|_, p, l| format!("{p},Person {l}"))),
            "--columns image=Photo,id=Who",
        ),
        ("numbered.csv", lines(|i, p, l| format!("x{i},{l},{p}")), "--columns image=3,label=2"),
        ("vgg.csv", format!("NAME_ID,CLASS_ID\n{}", row(",")), ""),
        ("dotted.txt", lines(|_, p, l| format!("./{p} {l}")), ""),
        ("pandas.csv", format!(",path,label\n{}", lines(|i, p, l| format!("{i},{p},{l}"))), ""),
        (
            "r.csv",
            format!("\"\",\"path\",\"label\"\n{}", lines(|i, p, l| format!("\"{i}\",\"{p}\",{l}"))),
            "",
        ),
        ("label-first.csv", lines(|_, p, l| format!("{l},{p}")), ""),
        ("upper.csv", csv("PATH,LABEL", ","), ""),
        ("camel.csv", csv("ImagePath,ClassId", ","), ""),
        ("spaced.csv", csv("Image Path, Class-ID", ", "), ""),
        ("bars.csv", csv("path | label", " | "), ""),
        ("open-end.csv", format!("path,label,\n{}", lines(|_, p, l| format!("{p},{l},"))), ""),
        ("comma-too-many.csv", lines(|_, p, l| format!("{p},{l},")), ""),
        ("single-quotes.txt", lines(|_, p, l| format!("'{p}' {l}")), ""),
        ("names.tsv", format!("path\tidentity\n{}", lines(|_, p, l| format!("{p}\tp{l}"))), ""),
        ("header-last.txt", format!("label path\n{}", lines(|_, p, l| format!("{l} {p}"))), ""),
        ("wide.txt", format!("id path label\n{}", lines(|i, p, l| format!("{i} {p} {l}"))), ""),
        ("exponents.csv", format!("path,label\n{}", lines(|_, p, l| format!("{p},{l}e0"))), ""),
        ("gaps.csv", csv("path,label", ",").replace('\n', "\r\n\r\n"), ""),
        ("twice-returned.csv", csv("path,label", ",").replace('\n', "\r\r\n"), ""),
        ("endless.txt", row(" ").trim_end().to_owned(), ""),
        ("marked.txt", format!("\u{feff}{}", row("\t").replace('\n', "\r\n")), ""),
        (
            "texts.jsonl",
            lines(|_, p, l| format!(r#"{{"label": "{l}", "image": "{p}", "text": null}}"#)),
            "",
        ),
        (
            "marked-names.csv",
            format!("\u{feff}Filename;Identity\r\n{}", lines(|_, p, l| format!("{p};p{l}\r"))),
            "",
        ),
    ]
}

#[test]
fn every_list_packs_to_the_rows_of_the_folder() {
    let bench = zoo();
    let lists = lists();
    for (name, text, options) in &lists {
        bench.write(name, text.as_bytes());
        check(&bench, name, &format!("{name} --root faces {options}"));
    }
    let text = format!("path\tlabel\n{}", lines(|_, p, l| format!("{p}\t{l}")));
    let encode = |mark: bool, unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let mark = mark.then_some('\u{feff}');
        let text: String = mark.into_iter().chain(text.chars()).collect();
        text.encode_utf16().flat_map(unit).collect()
    };
    let little: fn(u16) -> [u8; 2] = u16::to_le_bytes;
    let big: fn(u16) -> [u8; 2] = u16::to_be_bytes;
    for (name, bytes) in [
        ("utf16.txt", encode(true, little)),
        ("utf16-big.txt", encode(true, big)),
        ("utf16-bare.txt", encode(false, little)),
        ("utf16-big-bare.txt", encode(false, big)),
    ] {
        bench.write(name, &bytes);
        check(&bench, name, &format!("{name} --root faces"));
    }
    let absolute = lines(|_, p, l| format!("{} {l}", bench.path("faces").join(p).display()));
    bench.write("absolute.txt", absolute.as_bytes());
    check(&bench, "absolute.txt", "absolute.txt");
    // Beside the folder, whose name is in the paths.
    bench.write("beside.txt", lines(|_, p, l| format!("faces/{p} {l}")).as_bytes());
    check(&bench, "beside.txt", "beside.txt");
    assert!(lists.len() + 6 >= 60);
}

#[test]
fn archives_tables_and_data_sets_of_other_programs_pack_to_the_rows_of_the_folder() {
    let bench = zoo();
    for line in [
        "stored.zip",
        "wrapped.zip",
        "large.zip",
        "faces.tar",
        "faces.tgz",
        "faces.tar.bz2",
        "faces.tar.xz",
        "label.lmdb",
        "numbered.lmdb",
        "datum.lmdb",
        "pickled.lmdb",
        "paths.lmdb",
        "label.lmdb/data.mdb",
        "arcface.tfrecord",
        "tface-00000.tfrecord",
        "mds",
        "litdata",
        "struct.parquet",
        "binary.parquet --columns image=photo,label=klass",
        "paths.parquet --root faces",
        "far.parquet --root faces",
        "hub --split train,test",
        "hub --split all",
        "hub/data --split all",
        "dict --split all",
    ] {
        check(&bench, line, line);
    }
}

#[test]
fn compressed_records_pack_to_the_same_rows() {
    let bench = zoo();
    let read = |path: &str| fs::read(bench.path(path)).unwrap();
    let packed = |path: &str| zstd::encode_all(&read(path)[..], 1).unwrap();
    bench.write("arcface.tfrecord.gz", &super::tars::gzip(&read("arcface.tfrecord")));
    check(&bench, "arcface.tfrecord.gz", "arcface.tfrecord.gz");
    let mut index = fs::read_to_string(bench.path("mds/index.json")).unwrap();
    for shard in ["shard.00000.mds", "shard.00001.mds"] {
        bench.write(&format!("zipped/{shard}.zstd"), &packed(&format!("mds/{shard}")));
        let zipped = format!("\"zip_data\": {{\"basename\": \"{shard}.zstd\", \"bytes\": 1}}");
        index = index.replacen("\"zip_data\": null", &zipped, 1);
    }
    bench.write("zipped/index.json", index.as_bytes());
    check(&bench, "zipped MDS", "zipped");
    let index = fs::read_to_string(bench.path("litdata/index.json")).unwrap();
    for chunk in ["chunk-0-0", "chunk-0-1"] {
        bench.write(&format!("lit/{chunk}.zstd.bin"), &packed(&format!("litdata/{chunk}.bin")));
    }
    bench.write("lit/index.json", index.replace(".bin\"", ".zstd.bin\"").as_bytes());
    check(&bench, "zipped LitData", "lit");
}

#[test]
fn an_archive_packs_to_the_bytes_of_its_folder() {
    let bench = zoo();
    bench.run("pack faces one").success();
    for (i, archive) in
        ["stored.zip", "wrapped.zip", "faces.tar", "faces.tar.xz"].iter().enumerate()
    {
        bench.run(&format!("pack {archive} data{i}")).success();
        assert!(bench.tree("one/shards") == bench.tree(&format!("data{i}/shards")), "{archive}");
        let names = |dataset: &str| {
            let dataset = bench.dataset(dataset);
            (0..3).map(|label| dataset.identities().name(label).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&format!("data{i}")), ["p0", "p1", "p2"]);
    }
}

#[test]
fn splits_are_named_and_chosen() {
    let bench = zoo();
    for set in ["hub", "dict"] {
        let text = stderr(&bench.run(&format!("pack {set} out")).code(2));
        assert!(text.contains(&format!("{set}: holds the splits test and train")), "{text}");
        assert!(text.contains("--split test,train joins them"), "{text}");
        bench.run(&format!("pack {set} {set}-train --split train")).success();
        assert_eq!(bench.dataset(&format!("{set}-train")).len(), 4);
        let text = stderr(&bench.run(&format!("pack {set} out --split dev")).code(2));
        assert!(text.contains("there is no split `dev`"), "{text}");
    }
    let text = stderr(&bench.run("pack stored.zip out --split train").code(2));
    assert!(text.contains("--split chooses among what lies in one"), "{text}");
}

#[test]
fn a_list_beside_its_images_is_found_in_their_folder() {
    let bench = zoo();
    let name = |path: &str| path.replace('/', "-");
    for (path, _) in FACES {
        fs::create_dir_all(bench.path("images")).unwrap();
        let to = bench.path("images").join(name(path));
        fs::copy(bench.path("faces").join(path), to).unwrap();
    }
    let csv = format!("file_name,label\n{}", lines(|_, p, l| format!("{},{l}", name(p))));
    bench.write("images/metadata.csv", csv.as_bytes());
    check(&bench, "images", "images");
    fs::remove_file(bench.path("images/metadata.csv")).unwrap();
    let json = lines(|_, p, l| format!(r#"{{"label": {l}, "file_name": "{}"}}"#, name(p)));
    bench.write("images/metadata.jsonl", json.as_bytes());
    check(&bench, "images", "images");
}

#[test]
fn a_list_in_latin_1_says_how_to_turn_it() {
    let bench = zoo();
    let text: Vec<u8> =
        lines(|_, p, _| format!("{p}\tZo\u{eb}")).chars().map(|c| c as u8).collect();
    bench.write("latin.txt", &text);
    let text = stderr(&bench.run("pack latin.txt out --root faces").code(2));
    assert!(text.contains("iconv -f LATIN1 -t UTF-8"), "{text}");
}

#[test]
fn arrow_with_compressed_columns_is_refused_with_the_way_to_write_it() {
    let bench = zoo();
    for codec in ["lz4", "zstd"] {
        let text = stderr(&bench.run(&format!("pack {codec}.feather out")).code(2));
        let cause = format!("{codec}.feather: it is Arrow with compressed columns ({codec})");
        assert!(text.contains(&cause), "{text}");
        assert!(text.contains("hint: write it without compression, as `pyarrow"), "{text}");
    }
}

#[test]
fn data_sets_are_joined_by_the_names_or_labels_of_their_identities() {
    let bench = zoo();
    // Two halves of the faces, in which labels differ and names agree.
    let list = |keep: fn(usize) -> bool| {
        let rows = FACES.iter().enumerate().filter(|(i, _)| keep(*i));
        rows.map(|(_, (path, label))| format!("{path}\tp{label}\n")).collect::<String>()
    };
    bench.write("a.txt", list(|i| i >= 3).as_bytes());
    bench.write("b.txt", list(|i| i < 4).as_bytes());
    bench.run("pack a.txt a --root faces").success();
    bench.run("pack b.txt b --root faces").success();
    let summary = bench.json("merge both a b --by name --json");
    for (what, n) in [("images", 8), ("identities", 3), ("joined", 1)] {
        assert_eq!(summary[what], n, "{what}");
    }
    bench.run("verify both").success();
    let both = bench.dataset("both");
    let names: Vec<&str> = (0..3).map(|label| both.identities().name(label)).collect();
    assert_eq!(names, ["p0", "p1", "p2"]);
    for row in 0..both.len() {
        let face = both.get(row).unwrap();
        let (part, path) = face.source.split_once('/').unwrap();
        assert!(["a", "b"].contains(&part));
        assert!(path.starts_with(&format!("p{}/", face.label)), "{path}");
    }
    // By label p1 of a and p0 of b are one: both are 0.
    let run = bench.run("merge labels a b --by label").success();
    assert!(stderr(&run).contains("labels have different names in the parts, such as 0"));
    let labels = bench.dataset("labels");
    assert_eq!((labels.len(), labels.n_identities()), (8, 2));
    // What another label is called is no second name.
    assert_eq!(labels.identities().names(0).collect::<Vec<_>>(), ["p1", "p0"]);
    assert_eq!(labels.identities().names(1).collect::<Vec<_>>(), ["p2"]);
    bench.write("c.txt", b"p2/2.jpg\t0\np2/5.jpg\t1\np0/0.jpg\t2\np1/1.jpg\t3\n");
    bench.run("pack c.txt c --root faces").success();
    let more = bench.json("merge more c c --by label --json");
    assert_eq!((&more["images"], &more["joined"]), (&serde_json::json!(8), &serde_json::json!(4)));
    // In d the label 1 is called as label 0 of a is.
    bench.write("d.txt", b"p0/0.jpg\tp0\np1/1.jpg\tp2\np2/2.jpg\tp3\np2/5.jpg\tp1\n");
    bench.run("pack d.txt d --root faces").success();
    bench.write("e.txt", b"p0/0.jpg\tp3\n");
    bench.run("pack e.txt e --root faces").success();
    let text = stderr(&bench.run("merge clash e d --by label").code(2));
    assert!(text.contains("labels 0 and 3 are both called `p3`"), "{text}");
    bench.run("merge one a --by name").code(2);
    bench.run("merge both a b --by name").code(2);
}
