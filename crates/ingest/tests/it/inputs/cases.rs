//! Inputs that went wrong for somebody: the smallest ones that were kept, where they are at hand, and
//! made-up ones of the same kinds.

use std::{fs, path::Path, process::Command};

use pfc_recordio::{FaceWriter, Style};

use super::{check_rows, face};
use crate::common::{Bench, stderr, stdout};

/// A bench with a copy of the folder `name` of kept inputs; none where they are absent.
fn case(name: &str) -> Option<Bench> {
    let bench = Bench::new();
    let from = pfc_testing::case(name)?;
    let copied = Command::new("cp").arg("-rL").arg(from).arg(bench.path("case")).status().unwrap();
    assert!(copied.success());
    let made = Command::new("chmod").args(["-R", "u+w"]).arg(bench.path("case")).status().unwrap();
    assert!(made.success());
    Some(bench)
}

/// Packs, and gives images, identities, quarantined and skipped of the summary.
#[track_caller]
fn packed(bench: &Bench, line: &str) -> [u64; 4] {
    let summary = bench.json(&format!("pack {line} --json --force"));
    ["images", "identities", "quarantined", "skipped"].map(|key| summary[key].as_u64().unwrap())
}

fn identities(bench: &Bench, dataset: &str) -> Vec<String> {
    let dataset = bench.dataset(dataset);
    (0..dataset.n_identities()).map(|l| dataset.identities().name(l).to_owned()).collect()
}

/// What every run says on standard error.
#[track_caller]
fn said(bench: &Bench, line: &str) -> String {
    stderr(&bench.run(&format!("pack {line} --force")))
}

#[test]
fn system_folders_are_nobody_in_the_kept_case() {
    let Some(bench) = case("junk-folders-open") else { return };
    assert_eq!(packed(&bench, "case/tree out"), [6, 2, 0, 3]);
    assert_eq!(identities(&bench, "out"), ["p0", "p1"]);
    assert_eq!(packed(&bench, "case/inside out2"), [6, 2, 0, 1]);
}

#[test]
fn system_folders_are_nobody_and_counted() {
    let bench = Bench::new();
    for (i, path) in ["p0/1.jpg", "p1/1.jpg"].into_iter().enumerate() {
        bench.write(&format!("raw/{path}"), &face(i as u8));
    }
    let system = [
        ".ipynb_checkpoints",
        "__MACOSX/p0",
        "@eaDir/x.jpg",
        ".Trash-1000/files/p5",
        "$RECYCLE.BIN/S-1",
    ];
    for name in system {
        bench.write(&format!("raw/{name}/1.jpg"), &face(7));
        bench.write(&format!("raw/p0/{name}/1.jpg"), &face(7));
    }
    bench.write("raw/p1/Thumbs.db", b"x");
    bench.write("raw/p1/._1.jpg", b"x");
    assert_eq!(packed(&bench, "raw out"), [2, 2, 0, 12]);
    check_rows(&bench, "out", &[("p0/1.jpg", 0, "p0", 0), ("p1/1.jpg", 1, "p1", 1)]);
    let reasons: Vec<String> = bench.quarantine("out").into_iter().map(|line| line.2).collect();
    assert!(reasons.iter().all(|reason| reason == "system_file"));
}

#[test]
fn float_labels_are_integers_in_the_kept_case() {
    let Some(bench) = case("labels-as-floats-open") else { return };
    let [images, n_identities, quarantined, _] =
        packed(&bench, "case/float.csv out --root case/faces");
    assert_eq!((images, n_identities, quarantined), (16, 12, 2));
    let expected: Vec<String> = (0..12).map(|label| label.to_string()).collect();
    assert_eq!(identities(&bench, "out"), expected);
    assert!(bench.quarantine("out").iter().all(|line| line.2 == "no_label"));
}

#[test]
fn one_bad_line_costs_one_image_in_the_kept_case() {
    let Some(bench) = case("list-one-bad-line") else { return };
    for list in ["neg.csv", "empty.csv"] {
        let counts = packed(&bench, &format!("case/{list} out --root case/faces"));
        assert_eq!((counts[0], counts[2]), (17, 1), "{list}");
        assert_eq!(bench.quarantine("out")[0].2, "no_label");
    }
}

#[test]
fn lists_of_other_tools_are_read_in_the_kept_case() {
    let Some(bench) = case("list-formats-open") else { return };
    for list in ["facexzoo.txt", "im2rec.lst"] {
        let counts = packed(&bench, &format!("case/{list} out --root case/faces"));
        assert_eq!(counts, [18, 3, 0, 0], "{list}");
    }
}

#[test]
fn the_folder_of_a_data_set_of_hugging_face_is_read_in_the_kept_case() {
    let Some(bench) = case("hub-folder-open") else { return };
    assert_eq!(packed(&bench, "case/hub out"), [18, 3, 0, 0]);
    assert!(said(&bench, "case/hub out").contains("1 file of Parquet or Arrow in data"));
}

#[test]
fn gaps_of_recordio_are_told_in_the_kept_case() {
    let Some(bench) = case("rec-gaps-silent") else { return };
    let text = said(&bench, "case/gap.rec out");
    assert!(text.contains("the labels 7 to 13 do not count from 0 without gaps"), "{text}");
}

#[test]
fn damaged_records_are_salvaged_in_the_kept_case() {
    let Some(bench) = case("rec-cut-short") else { return };
    for (rec, has_index) in [("cut", true), ("hole", false)] {
        let text = stderr(&bench.run(&format!("pack case/{rec}.rec out")).code(2));
        assert!(text.contains("--salvage"), "{text}");
        assert!(has_index || !text.contains(".idx"), "{text}");
        let counts = packed(&bench, &format!("case/{rec}.rec {rec} --salvage"));
        assert!(counts[0] > 0 && counts[2] > 0, "{rec}: {counts:?}");
        assert!(bench.quarantine(rec).iter().any(|line| line.2 == "damaged"));
    }
}

#[test]
fn chunks_are_one_data_set_in_the_kept_case() {
    let Some(bench) = case("rec-chunks") else { return };
    assert_eq!(packed(&bench, "case/part_{0..2}.rec out"), [18, 3, 0, 0]);
    fs::remove_file(bench.path("case/README.md"))
        .or_else(|_| fs::remove_file(bench.path("case/README")))
        .ok();
    assert_eq!(packed(&bench, "case out2"), [18, 3, 0, 0]);
}

#[test]
fn the_same_people_in_several_parts_are_told_in_the_kept_case() {
    let Some(bench) = case("train-val-same-people") else { return };
    let text = said(&bench, "case/tree out");
    assert!(text.contains("3 names in several folders") && text.contains("--join-parts"), "{text}");
    assert_eq!(packed(&bench, "case/tree joined --join-parts"), [9, 3, 0, 0]);
    assert_eq!(identities(&bench, "joined"), ["p0", "p1", "p2"]);
}

#[test]
fn messages_name_the_way_out_in_the_kept_case() {
    let Some(bench) = case("messages") else { return };
    let text = stderr(&bench.run("pack case/brotli.parquet out").code(2));
    let hint = text.split("hint: ").nth(1).unwrap();
    assert!(hint.contains("compressed") && !hint.contains("column"), "{text}");
    assert_eq!(packed(&bench, "case/faces data")[0], 6);
    let text = stderr(&bench.run("pack data out").code(2));
    assert!(text.contains("data: is a data set that is packed already"), "{text}");
}

/// Labels of four faces, and what becomes of them: the identities in their order, and how many are
/// left out.
const LABELS: &[(&[&str], &[&str], u64)] = &[
    (&["10.0", "2.0", "0.0", "2"], &["0", "2", "10"], 0),
    (&["10.0", "2.0", "nan", "-1.0"], &["2", "10"], 2),
    (&["+7", "7", "7.0", "7.00"], &["7"], 0),
    (&["1e1", "2", "9", "10"], &["2", "9", "10"], 0),
    (&["3", "None", "0.5", "4"], &["3", "4"], 2),
    (&["\u{ff11}", "1", "2", "3"], &["1", "2", "3"], 0),
    (&["007", "08", "b", "10"], &["007", "08", "10", "b"], 0),
    (&["Jos\u{e9}", "Jose\u{301}", "Ann", "Bob"], &["Ann", "Bob", "Jos\u{e9}"], 0),
];

#[test]
fn labels_are_read_alike_from_lists_tar_files_and_folders() {
    for (labels, expected, left_out) in LABELS {
        let bench = Bench::new();
        let mut builder = tar::Builder::new(Vec::new());
        let mut list = String::from("path,label\n");
        for (i, label) in labels.iter().enumerate() {
            bench.write(&format!("faces/{i}.jpg"), &face(i as u8));
            list += &format!("{i}.jpg,{label}\n");
            bench.write(&format!("folders/{label}/{i}.jpg"), &face(i as u8));
            for (name, content) in [("jpg", &face(i as u8)[..]), ("cls", label.as_bytes())] {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, format!("{i}.{name}"), content).unwrap();
            }
        }
        bench.write("faces/list.csv", list.as_bytes());
        bench.write("a.tar", &builder.into_inner().unwrap());
        for raw in ["faces/list.csv", "a.tar", "folders"] {
            let counts = packed(&bench, &format!("{raw} out"));
            assert_eq!((counts[0], counts[2]), (4 - left_out, *left_out), "{raw}: {labels:?}");
            let mut found = identities(&bench, "out");
            if raw == "folders" {
                // Which of two spellings comes first depends on the order of the folders.
                found.iter_mut().for_each(|name| *name = name.replace("e\u{301}", "\u{e9}"));
            }
            assert_eq!(found, *expected, "{raw}: {labels:?}");
        }
    }
}

/// A RecordIO file of so many small faces of each class.
fn record_file(bench: &Bench, name: &str, classes: &[u64]) {
    let mut writer = FaceWriter::create(&bench.path(name), Style::Sequential, 112, 112).unwrap();
    for (i, class) in classes.iter().enumerate() {
        writer.push(*class, &face(i as u8)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn an_index_of_another_file_is_noticed() {
    let bench = Bench::new();
    let classes: Vec<u64> = (0..40).map(|i| i / 4).collect();
    record_file(&bench, "own", &classes);
    let index = fs::read_to_string(bench.path("own/train.idx")).unwrap();
    let shifted: String = index
        .lines()
        .map(|line| {
            let (key, offset) = line.split_once('\t').unwrap();
            let offset: u64 = offset.parse().unwrap();
            format!("{key}\t{}\n", if offset == 0 { 0 } else { offset + 8 })
        })
        .collect();
    bench.write("own/train.idx", shifted.as_bytes());
    let text = stderr(&bench.run("pack own out").code(2));
    assert!(
        text.contains("at 39 of the 40 places that its .idx file lists no record begins"),
        "{text}"
    );
    assert_eq!(packed(&bench, "own out --salvage"), [40, 10, 0, 0]);
    fs::remove_file(bench.path("own/train.idx")).unwrap();
    assert_eq!(packed(&bench, "own out2"), [40, 10, 0, 0]);
}

#[test]
fn an_index_that_is_wrong_in_parts_or_passes_over_images_is_refused_and_nothing_is_lost() {
    let bench = Bench::new();
    let classes: Vec<u64> = (0..40).map(|i| i / 4).collect();
    record_file(&bench, "own", &classes);
    let index = fs::read_to_string(bench.path("own/train.idx")).unwrap();
    let lines: Vec<&str> = index.lines().collect();
    let write = |lines: &[String]| bench.write("own/train.idx", lines.concat().as_bytes());
    let line = |i: usize| format!("{}\n", lines[i]);
    let offset = |i: usize| lines[i].split_once('\t').unwrap().1;
    // The first ten records, every fourth, and all but the last.
    let ten: Vec<String> = (0..10).map(line).collect();
    let fourth = (0..40).step_by(4).map(line).collect();
    let all_but_one = (0..39).map(line).collect();
    let short = [(ten, 30, 10), (fourth, 30, 1), (all_but_one, 1, 39)];
    for (i, (short, n_unlisted, first)) in short.iter().enumerate() {
        write(short);
        let out = format!("short{i}");
        let text = stderr(&bench.run(&format!("pack own {out}")).code(2));
        let message = format!(
            "its .idx file does not list {n_unlisted} of its images, the first of which begins at byte {}",
            offset(*first)
        );
        assert!(text.contains(&message), "{text}");
        assert!(text.contains("--salvage ignores it"), "{text}");
        assert!(!bench.path(&out).exists());
        assert_eq!(packed(&bench, &format!("own whole{i} --salvage")), [40, 10, 0, 0]);
    }
    // One place is wrong: too few for another file's index, but the record of that place is lost.
    let wrong = format!("5\t{}\n", offset(5).parse::<u64>().unwrap() + 8);
    write(&[(0..5).map(line).collect(), vec![wrong], (6..40).map(line).collect()].concat());
    let text = stderr(&bench.run("pack own wrong").code(2));
    let message =
        format!("does not list 1 of its images, the first of which begins at byte {}", offset(5));
    assert!(text.contains(&message) && !bench.path("wrong").exists(), "{text}");
    // A third of the places is wrong.
    let shift = |i: usize| {
        let (key, offset) = lines[i].split_once('\t').unwrap();
        let offset: u64 = offset.parse().unwrap();
        format!("{key}\t{}\n", offset + if i % 3 == 1 { 8 } else { 0 })
    };
    write(&(0..40).map(shift).collect::<Vec<_>>());
    let text = stderr(&bench.run("pack own out").code(2));
    assert!(text.contains("at 13 of the 40 places that its .idx file lists no record"), "{text}");
    assert!(text.contains("--salvage"), "{text}");
    assert_eq!(packed(&bench, "own out --salvage"), [40, 10, 0, 0]);
}

#[test]
fn an_index_that_ends_among_the_records_of_identities_is_refused_or_loses_nothing() {
    let bench = Bench::new();
    let mut writer = FaceWriter::create(&bench.path("own"), Style::Identities, 112, 112).unwrap();
    for i in 0..12 {
        writer.push(i / 3, &face(i as u8)).unwrap();
    }
    writer.finish().unwrap();
    // Record 0, which says what the records of the four identities are, is written last.
    let index = fs::read_to_string(bench.path("own/train.idx")).unwrap();
    let lines: Vec<&str> = index.split_inclusive('\n').collect();
    assert_eq!((lines.len(), lines[16].split('\t').next()), (17, Some("0")));
    let offset = lines[16].trim().split('\t').nth(1).unwrap();
    for n_lines in 12..=17 {
        bench.write("own/train.idx", lines[..n_lines].concat().as_bytes());
        let out = format!("out{n_lines}");
        if matches!(n_lines, 12 | 17) {
            assert_eq!(packed(&bench, &format!("own {out}")), [12, 4, 0, 0], "{n_lines}");
            continue;
        }
        let text = stderr(&bench.run(&format!("pack own {out}")).code(2));
        let message = format!("does not list record 0, which begins at byte {offset} ");
        assert!(text.contains(&message) && text.contains("move own/train.idx away"), "{text}");
        assert!(!bench.path(&out).exists());
        assert_eq!(packed(&bench, &format!("own {out} --salvage")), [12, 4, 0, 0], "{n_lines}");
    }
}

#[test]
fn a_pattern_with_stars_names_the_files_that_are_there() {
    let bench = Bench::new();
    for part in 0..3 {
        record_file(&bench, &format!("part{part}"), &[part, part]);
        fs::rename(
            bench.path(&format!("part{part}/train.rec")),
            bench.path(&format!("part_{part}.rec")),
        )
        .unwrap();
    }
    assert_eq!(packed(&bench, "part_*.rec out"), [6, 3, 0, 0]);
    assert_eq!(packed(&bench, "part_?.re? again"), [6, 3, 0, 0]);
    let text = stderr(&bench.run("pack other_*.rec none").code(2));
    assert!(text.contains("other_*.rec: 1 of its 1 files are missing"), "{text}");
    assert!(text.contains("'part_*.rec'") || text.contains("is the pattern right"), "{text}");
}

#[test]
fn damage_of_every_kind_is_salvaged_and_listed() {
    let bench = Bench::new();
    record_file(&bench, "whole", &[0, 0, 1, 1, 2, 2]);
    let rec = fs::read(bench.path("whole/train.rec")).unwrap();
    // Where a record begins is found by the magic.
    let begins = |i: &usize| rec[*i..].starts_with(&pfc_recordio::MAGIC);
    let starts: Vec<usize> = (0..rec.len()).step_by(4).filter(begins).collect();
    assert_eq!(starts.len(), 6);
    type Damage = fn(&mut Vec<u8>, &[usize]);
    let damages: [(&str, Damage); 5] = [
        ("cut", |rec, starts| rec.truncate(starts[5] + 100)),
        ("cut-header", |rec, starts| rec.truncate(starts[5] + 6)),
        ("hole", |rec, starts| rec[starts[1] - 200..starts[1] + 100].fill(0)),
        ("start", |rec, _| rec[..40].fill(0xee)),
        ("length", |rec, starts| rec[starts[2] + 4..starts[2] + 7].fill(0xff)),
    ];
    for (name, damage) in damages {
        let mut damaged = rec.clone();
        damage(&mut damaged, &starts);
        bench.write(&format!("{name}.rec"), &damaged);
        let text = stderr(&bench.run(&format!("pack {name}.rec out-{name}")).code(2));
        assert!(!text.contains(".idx"), "{name}: {text}");
        let [images, _, quarantined, _] =
            packed(&bench, &format!("{name}.rec out-{name} --salvage"));
        // A hole in an image goes unnoticed by RecordIO, and is found when it is decoded.
        assert!((4..6).contains(&images) && quarantined > 0, "{name}: {images}");
        assert!(bench.quarantine(&format!("out-{name}")).iter().any(|line| line.2 == "damaged"));
    }
}

#[test]
fn a_damaged_tar_file_is_salvaged_plain_and_compressed() {
    let mut builder = tar::Builder::new(Vec::new());
    for i in 0..6_u8 {
        for (name, content) in [("jpg", &face(i)[..]), ("cls", format!("{}", i / 2).as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, format!("{i}.{name}"), content).unwrap();
        }
    }
    let whole = builder.into_inner().unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let mut holed = whole.clone();
    let third = whole.len() / 3;
    holed[third..third + 3000].fill(0xab);
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzipped, &whole).unwrap();
    let mut gzipped = gzipped.finish().unwrap();
    gzipped.truncate(gzipped.len() / 2);
    for (name, bytes) in [("cut.tar", cut), ("holed.tar", holed), ("cut.tar.gz", gzipped)] {
        let bench = Bench::new();
        bench.write(name, &bytes);
        let text = stderr(&bench.run(&format!("pack {name} out")).code(2));
        assert!(text.contains("--salvage"), "{name}: {text}");
        let [images, _, quarantined, _] = packed(&bench, &format!("{name} out --salvage"));
        assert!((1..6).contains(&images) && quarantined > 0, "{name}: {images}, {quarantined}");
        let lines = bench.quarantine("out");
        assert!(lines.iter().any(|line| line.2 == "damaged"), "{name}: {lines:?}");
    }
}

#[cfg(unix)]
#[test]
fn folders_and_files_whose_names_are_not_utf8_cost_their_own_images() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    bench.write("raw/ann/1.jpg", &face(1));
    let latin = |name: &[u8]| bench.path("raw").join(std::ffi::OsStr::from_bytes(name));
    fs::create_dir(latin(b"Jos\xe9")).unwrap();
    fs::write(latin(b"Jos\xe9/1.jpg"), face(2)).unwrap();
    fs::write(latin(b"ann/\xe9.jpg"), face(3)).unwrap();
    assert_eq!(packed(&bench, "raw out"), [1, 1, 2, 0]);
    assert!(bench.quarantine("out").iter().all(|line| line.2 == "name_not_utf8"));
}

#[test]
fn people_who_are_called_as_our_own_files_are_come_back_from_an_exported_folder() {
    let bench = Bench::new();
    for (i, name) in ["list.tsv", "images", "data.mdb", "dataset.json"].iter().enumerate() {
        bench.write(&format!("raw/{name}/1.jpg"), &face(i as u8));
    }
    assert_eq!(packed(&bench, "raw data"), [4, 4, 0, 0]);
    bench.run("export data out --to folder").success();
    assert_eq!(packed(&bench, "out again"), [4, 4, 0, 0]);
    assert_eq!(identities(&bench, "again"), identities(&bench, "data"));
}

/// What is exported and packed again is the same people by the same names in the same order.
#[test]
fn every_folder_that_is_exported_can_be_packed_again() {
    let bench = Bench::new();
    for (i, path) in
        ["Ann Lee/1.jpg", "Ann Lee/2.jpg", "Bob/1.jpg", "Zo\u{eb}/9.jpg"].iter().enumerate()
    {
        bench.write(&format!("raw/{path}"), &face(i as u8));
    }
    packed(&bench, "raw data");
    for target in ["folder", "list", "recordio", "webdataset", "parquet"] {
        bench.run(&format!("export data out-{target} --to {target}")).success();
        let run = bench.run(&format!("pack out-{target} again-{target} --json")).success();
        let summary: serde_json::Value = serde_json::from_str(&stdout(&run)).unwrap();
        assert_eq!(
            (summary["images"].as_u64(), summary["quarantined"].as_u64()),
            (Some(4), Some(0))
        );
        assert_eq!(
            identities(&bench, &format!("again-{target}")),
            identities(&bench, "data"),
            "{target}"
        );
        assert!(Path::new(&bench.path(&format!("out-{target}"))).exists());
    }
}
