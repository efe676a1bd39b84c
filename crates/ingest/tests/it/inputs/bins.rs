//! Verification packs of every dialect of `golden/bin`, and one by hand.

use std::collections::BTreeMap;

use pfc_testing::{KnownPack, golden_packs};
use serde_json::Value;

use super::{check_rows, face, rows};
use crate::common::{Bench, stderr};

/// For each different image of the pack its first number and the lowest number of its person: from
/// the description's checksums, by handing the lowest number on until nothing changes.
fn expected(n_pairs: usize, description: &Value) -> BTreeMap<u64, u64> {
    let sum = |i: u64| description["images"][i as usize]["sha256_of_bytes"].as_str().unwrap();
    let n_images = 2 * n_pairs as u64;
    let mut people: Vec<u64> = (0..n_images).collect();
    loop {
        let before = people.clone();
        for i in 0..people.len() {
            for k in 0..people.len() {
                let pair = i / 2 == k / 2 && description["issame"][i / 2].as_bool().unwrap();
                if pair || sum(i as u64) == sum(k as u64) {
                    people[i] = people[i].min(people[k]);
                }
            }
        }
        if people == before {
            break;
        }
    }
    let is_first = |i: &u64| (0..*i).all(|k| sum(k) != sum(*i));
    (0..n_images).filter(is_first).map(|i| (i, people[i as usize])).collect()
}

#[test]
fn golden_packs_of_every_dialect_give_each_image_once_under_the_person_its_pairs_connect() {
    let mut by_images = BTreeMap::new();
    for KnownPack { path, n_pairs, description } in golden_packs() {
        let bench = Bench::new();
        bench.run(&format!("pack {} data", path.display())).success();
        // Computed once for the dialects of the same pairs.
        let same_images = (n_pairs, description["images"][0]["sha256_of_bytes"].to_string());
        let expected =
            by_images.entry(same_images).or_insert_with(|| expected(n_pairs, &description));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut found = BTreeMap::new();
        for (source, _, identity, image) in rows(&bench, "data") {
            let i: u64 = source.strip_prefix(&format!("{name}/")).unwrap().parse().unwrap();
            found.insert(i, identity.strip_prefix("id_").unwrap().parse().unwrap());
            let entry = &description["images"][i as usize];
            if entry["encoding"]["format"] != "PNG" {
                assert_eq!(Some(image.len() as u64), entry["bytes"].as_u64(), "{name}: image {i}");
            }
        }
        assert_eq!(found, *expected, "{name}");
    }
}

/// A pickle of protocol 0 by hand.
fn pickle(images: &[Vec<u8>], same: &[bool]) -> Vec<u8> {
    let mut bytes = b"((".to_vec();
    for image in images {
        bytes.push(b'T');
        bytes.extend((image.len() as u32).to_le_bytes());
        bytes.extend(image);
    }
    bytes.extend(b"l(");
    same.iter().for_each(|same| bytes.extend(if *same { b"I01\n" } else { b"I00\n" }));
    bytes.extend(b"lt.");
    bytes
}

#[test]
fn people_are_named_by_their_first_image_and_contradicting_pairs_are_warned_of() {
    let bench = Bench::new();
    // 0-1 and 1-2 are one person, so 2 and 0 cannot be two; 3 is alone.
    let order = [0, 1, 1, 2, 2, 0, 3, 1];
    let images: Vec<Vec<u8>> = order.into_iter().map(face).collect();
    bench.write("made.bin", &pickle(&images, &[true, true, false, false]));
    let run = bench.run("pack made.bin data").success();
    check_rows(
        &bench,
        "data",
        &[
            ("made.bin/0", 0, "id_0", 0),
            ("made.bin/1", 0, "id_0", 1),
            ("made.bin/3", 0, "id_0", 2),
            ("made.bin/6", 1, "id_6", 3),
        ],
    );
    insta::assert_snapshot!(stderr(&run), @" WARN made.bin: 1 pair of two people who are one by other pairs: the identities are mixed");
}
