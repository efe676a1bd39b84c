//! `WebDataset` shards, made by the `tar` crate and packed by other compressors than are read with.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{check_rows, face};
use crate::common::{Bench, stderr};

pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Two shards; keys repeat between them, as `WebDataset`'s writers make them.
fn shards() -> [Vec<u8>; 2] {
    let first = tar(&[
        ("000.jpg", &face(0)),
        ("000.cls", b"7"),
        ("001.cls", b"3\n"),
        ("001.jpg", &face(1)),
        ("README.md", b"two people"),
    ]);
    let second = tar(&[("000.jpg", &face(2)), ("000.json", br#"{"label": 3, "key": "x"}"#)]);
    [first, second]
}

#[test]
fn shards_give_the_same_rows_plain_gzipped_and_by_zstd_and_nothing_is_left_beside() {
    type Pack = fn(&[u8]) -> Vec<u8>;
    let packings: [(&str, Pack); 3] =
        [("tar", |bytes| bytes.to_vec()), ("tar.gz", gzip), ("tar.zst", zstd)];
    for (ending, pack) in packings {
        let bench = Bench::new();
        for (i, shard) in shards().iter().enumerate() {
            bench.write(&format!("shards/s-{i:02}.{ending}"), &pack(shard));
        }
        let names = [0, 0, 1].map(|i| format!("s-{i:02}.{ending}"));
        let keys = ["000.jpg", "001.jpg", "000.jpg"];
        let sources: Vec<String> =
            names.iter().zip(keys).map(|(name, key)| format!("{name}/{key}")).collect();
        let expected = [
            (&sources[0][..], 1, "7", 0),
            (&sources[1][..], 0, "3", 1),
            (&sources[2][..], 0, "3", 2),
        ];
        bench.run("pack shards one --threads 1").success();
        check_rows(&bench, "one", &expected);
        bench.run("pack shards two --threads 2").success();
        assert!(bench.tree("one") == bench.tree("two"));
        bench.run(&format!("pack shards/s-{{00..01}}.{ending} pattern")).success();
        check_rows(&bench, "pattern", &expected);
        bench.run(&format!("pack shards/s-01.{ending} alone")).success();
        check_rows(&bench, "alone", &[(&sources[2], 0, "3", 2)]);
        assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 5);
        assert_eq!(std::fs::read_dir(bench.path("shards")).unwrap().count(), 2);
    }
}

#[test]
fn samples_without_a_label_or_an_image_are_quarantined() {
    let bench = Bench::new();
    let members: [(&str, &[u8]); 7] = [
        ("a/1.jpg", &face(1)),
        ("a/1.json", br#"{"identity": "Ann", "label": 0}"#),
        ("a/2.jpg", &face(2)),
        ("a/3.cls", b"0"),
        ("a/4.jpg", &face(4)),
        ("a/4.cls", b"-1"),
        ("../../etc/5.jpg", &face(5)),
    ];
    // The writer refuses paths that lead outside, so the last name is put in by hand.
    let mut bytes = tar(&members[..6]);
    bytes.truncate(bytes.len() - 1024);
    let mut header = tar::Header::new_old();
    header.as_old_mut().name[..members[6].0.len()].copy_from_slice(members[6].0.as_bytes());
    header.set_size(members[6].1.len() as u64);
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.extend(members[6].1);
    bench.write("x.tar", &bytes);
    let run = bench.run("pack x.tar data --max-left-out 100").success();
    assert!(stderr(&run).contains("x.tar: the mark at its end is missing"));
    check_rows(&bench, "data", &[("x.tar/a/1.jpg", 0, "Ann", 1)]);
    let reasons: Vec<_> = bench.quarantine("data").into_iter().map(|l| (l.0, l.2)).collect();
    let expected = [
        ("x.tar/../../etc/5.jpg", "no_label"),
        ("x.tar/a/2.jpg", "no_label"),
        ("x.tar/a/3", "no_image"),
        ("x.tar/a/4.jpg", "no_label"),
    ];
    assert_eq!(reasons, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn folders_in_a_tar_file_give_the_rows_of_the_folder_whatever_the_images_are_called() {
    let bench = Bench::new();
    let paths = [
        "ann/1.jpg",
        "ann/1.face2.jpg",
        "ann/img.v1.final.jpg",
        "bob/2",
        "bob/2.jpg",
        "bob/2.v2.jpg",
    ];
    let faces: Vec<Vec<u8>> = (0..paths.len() as u8).map(face).collect();
    let members: Vec<(&str, &[u8])> =
        paths.iter().copied().zip(faces.iter().map(Vec::as_slice)).collect();
    for (path, face) in &members {
        bench.write(&format!("raw/{path}"), face);
    }
    bench.write("x.tar", &tar(&members));
    bench.write("x.tar.gz", &gzip(&tar(&members)));
    bench.run("pack raw folder").success();
    assert_eq!(bench.dataset("folder").len(), 6);
    for (i, archive) in ["x.tar", "x.tar.gz"].into_iter().enumerate() {
        bench.run(&format!("pack {archive} data{i}")).success();
        assert!(bench.tree("folder/shards") == bench.tree(&format!("data{i}/shards")), "{archive}");
    }
}

/// Eight samples of two people.
fn eight() -> Vec<u8> {
    let names: Vec<String> =
        (0..8).flat_map(|i| [format!("{i}.jpg"), format!("{i}.cls")]).collect();
    let contents: Vec<Vec<u8>> =
        (0..8).flat_map(|i| [face(i), format!("{}", i % 2).into_bytes()]).collect();
    let members: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    tar(&members)
}

/// Where the header of the member `name` begins.
fn header_of(tar: &[u8], name: &str) -> usize {
    let is_it = |at: &usize| tar[*at..].starts_with(name.as_bytes()) && tar[at + name.len()] == 0;
    (0..tar.len()).step_by(512).find(is_it).unwrap()
}

#[test]
fn a_hole_of_zeros_is_refused_and_what_lies_behind_it_is_salvaged() {
    let whole = eight();
    let header = header_of(&whole, "3.jpg");
    // The header of an image, and from the body of one to that of the next.
    let holes = [header..header + 512, header + 700..header_of(&whole, "4.jpg") + 900];
    for (hole, lost) in holes.into_iter().zip([1, 2]) {
        let mut holed = whole.clone();
        holed[hole].fill(0);
        for (name, bytes) in [("x.tar", holed.clone()), ("x.tar.gz", gzip(&holed))] {
            let bench = Bench::new();
            bench.write(name, &bytes);
            let text = stderr(&bench.run(&format!("pack {name} data")).code(2));
            assert!(text.contains("zeros where a member should begin"), "{text}");
            assert!(
                text.contains(&format!("{name}: byte ")) && text.contains("--salvage"),
                "{text}"
            );
            let summary = bench.json(&format!("pack {name} data --salvage --json"));
            assert_eq!(summary["images"], 8 - lost, "{name}: {summary}");
            let lines = bench.quarantine("data");
            let damage = lines.iter().filter(|line| line.2 == "damaged").count();
            assert_eq!(damage, 1, "{name}: {lines:?}");
        }
    }
}

#[test]
fn joined_tar_files_are_all_read_and_told() {
    let [first, second] = shards();
    let joined = [first.clone(), second.clone()].concat();
    let zipped = [gzip(&first), gzip(&second)].concat();
    for (name, bytes) in
        [("x.tar", joined.clone()), ("x.tar.gz", zipped), ("y.tar.gz", gzip(&joined))]
    {
        for salvage in ["", " --salvage"] {
            let bench = Bench::new();
            bench.write(name, &bytes);
            let run = bench.run(&format!("pack {name} data{salvage}")).success();
            let told = format!("{name}: 2 tar files were joined to this one, and all are read");
            assert!(stderr(&run).contains(&told), "{}", stderr(&run));
            assert_eq!(bench.dataset("data").len(), 3, "{name}");
            assert!(bench.quarantine("data").is_empty());
        }
    }
}
